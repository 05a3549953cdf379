//! Bytes of one socket to MQTT packets and back, for 3.1.1 and 5 on one port.
//! The packet bodies are decoded by rumqttd's codec behind our own framing, because that codec panics on
//! packet types a client must not send and mistakes a short property list for a short read. The small
//! answers are written here: they need reason codes that the codec cannot express.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectProperties, ConnectReturnCode, LastWill, Login, Packet, Protocol,
    Publish, PublishProperties, QoS, v4::V4, v5::V5,
};

use super::limits::Limits;

/// The protocol level that a CONNECT asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// MQTT 3.1.1
    V4,
    /// MQTT 5
    V5,
}

/// MQTT 5 reason codes that the front end sends (OASIS MQTT 5.0, table 2-6).
pub(super) mod reason {
    pub(in crate::broker) const SUCCESS: u8 = 0x00;
    pub(in crate::broker) const WITH_WILL: u8 = 0x04;
    pub(in crate::broker) const FAILURE_V4: u8 = 0x80;
    pub(in crate::broker) const MALFORMED: u8 = 0x81;
    pub(in crate::broker) const PROTOCOL_ERROR: u8 = 0x82;
    pub(in crate::broker) const NOT_AUTHORIZED: u8 = 0x87;
    pub(in crate::broker) const SERVER_BUSY: u8 = 0x89;
    pub(in crate::broker) const SHUTTING_DOWN: u8 = 0x8B;
    pub(in crate::broker) const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub(in crate::broker) const TAKEN_OVER: u8 = 0x8E;
    pub(in crate::broker) const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub(in crate::broker) const PACKET_TOO_LARGE: u8 = 0x95;
    pub(in crate::broker) const PAYLOAD_INVALID: u8 = 0x99;
    pub(in crate::broker) const QOS_NOT_SUPPORTED: u8 = 0x9B;
}

/// Why the bytes of a socket are no MQTT that this hub speaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum CodecError {
    #[error("malformed packet")]
    Malformed,
    #[error("packet of {len_bytes} bytes, at most {max_bytes} allowed")]
    TooLarge { len_bytes: usize, max_bytes: usize },
    #[error("packet type {0} is not one a connected client sends")]
    Unexpected(u8),
    #[error("protocol level {0} is not spoken here")]
    Level(u8),
}

/// The message that stands for a client that vanished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: u8,
}

/// What a CONNECT asked for.
#[derive(Debug)]
pub(super) struct ConnectRequest {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) is_clean: bool,
    pub(super) keep_alive_s: u16,
    pub(super) username: String,
    pub(super) password: Vec<u8>,
    pub(super) will: Option<Will>,
    /// QoS 1 messages that the client takes before it acknowledges one.
    pub(super) receive_max: u16,
    /// Largest packet that the client takes.
    pub(super) packet_bytes_max: usize,
}

/// What a connected client may send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    Publish {
        topic: String,
        payload: Bytes,
        qos: u8,
        pkid: u16,
        has_alias: bool,
    },
    PubAck {
        pkid: u16,
    },
    Subscribe {
        pkid: u16,
        filters: Vec<(String, u8)>,
    },
    Unsubscribe {
        pkid: u16,
        filters: Vec<String>,
    },
    Ping,
    Disconnect {
        reason: u8,
    },
}

/// MQTT 5 property `Reason String`, and how much of one is sent.
const REASON_STRING: u8 = 0x1F;
const REASON_BYTES_MAX: usize = 120;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;

// === framing ===

struct Frame {
    kind: u8,
    flags: u8,
    header_len: usize,
    len: usize,
}

/// Looks for one whole packet at the head of `bytes`; `None` means that more must be read.
fn frame(bytes: &[u8], max_bytes: usize) -> Result<Option<Frame>, CodecError> {
    let Some((&first, lengths)) = bytes.split_first() else {
        return Ok(None);
    };
    let mut body_len = 0usize;
    for (at, &byte) in lengths.iter().take(4).enumerate() {
        body_len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let header_len = 2 + at;
            let len_bytes = header_len + body_len;
            if len_bytes > max_bytes {
                return Err(CodecError::TooLarge { len_bytes, max_bytes });
            }
            let whole = bytes.len() >= len_bytes;
            return Ok(whole.then_some(Frame {
                kind: first >> 4,
                flags: first & 0x0F,
                header_len,
                len: len_bytes,
            }));
        }
    }
    if lengths.len() >= 4 {
        Err(CodecError::Malformed)
    } else {
        Ok(None)
    }
}

/// Decodes exactly one framed packet. Whatever goes wrong inside a whole frame is the sender's fault.
fn decode(version: Version, packet: &BytesMut) -> Result<Packet, CodecError> {
    let mut packet = packet.clone();
    let max_bytes = packet.len();
    let decoded = catch_unwind(AssertUnwindSafe(|| match version {
        Version::V4 => V4.read_mut(&mut packet, max_bytes),
        Version::V5 => V5.read_mut(&mut packet, max_bytes),
    }));
    match decoded {
        Ok(Ok(packet)) => Ok(packet),
        Ok(Err(_)) | Err(_) => Err(CodecError::Malformed),
    }
}

// === reading ===

/// Reads the first packet of a socket, which must be CONNECT; `None` means that more must be read.
pub(super) fn read_connect(
    inbox: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<ConnectRequest>, CodecError> {
    if inbox.first().is_some_and(|first| *first != CONNECT << 4) {
        return Err(CodecError::Malformed);
    }
    let Some(found) = frame(inbox, limits.packet_bytes_max)? else {
        return Ok(None);
    };
    let packet = inbox.split_to(found.len);
    let version = match packet.get(found.header_len..found.header_len + 7) {
        Some([0, 4, b'M', b'Q', b'T', b'T', 4]) => Version::V4,
        Some([0, 4, b'M', b'Q', b'T', b'T', 5]) => Version::V5,
        Some([0, 4, b'M', b'Q', b'T', b'T', level]) => return Err(CodecError::Level(*level)),
        Some([0, 6, b'M', b'Q', b'I', b's', b'd']) => return Err(CodecError::Level(3)),
        _ => return Err(CodecError::Malformed),
    };
    let Packet::Connect(connect, properties, will, _, login) = decode(version, &packet)? else {
        return Err(CodecError::Malformed);
    };
    let Login { username, password } = login.unwrap_or(Login {
        username: String::new(),
        password: String::new(),
    });
    let (receive_max, packet_bytes_max) = client_limits(properties.as_ref());
    Ok(Some(ConnectRequest {
        version,
        client_id: connect.client_id,
        is_clean: connect.clean_session,
        keep_alive_s: connect.keep_alive,
        username,
        password: password.into_bytes(),
        will: will.map(read_will).transpose()?,
        receive_max,
        packet_bytes_max,
    }))
}

fn client_limits(properties: Option<&ConnectProperties>) -> (u16, usize) {
    let receive_max = properties
        .and_then(|p| p.receive_maximum)
        .filter(|max| *max > 0)
        .unwrap_or(u16::MAX);
    let packet_max = properties
        .and_then(|p| p.max_packet_size)
        .and_then(|max| usize::try_from(max).ok());
    (receive_max, packet_max.unwrap_or(usize::MAX))
}

fn read_will(will: LastWill) -> Result<Will, CodecError> {
    let topic = String::from_utf8(will.topic.to_vec()).map_err(|_| CodecError::Malformed)?;
    Ok(Will {
        topic,
        payload: will.message,
        qos: will.qos as u8,
    })
}

/// Reads the next packet of a connected client; `None` means that more must be read.
pub(super) fn read_packet(
    version: Version,
    inbox: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<Inbound>, CodecError> {
    let Some(found) = frame(inbox, limits.packet_bytes_max)? else {
        return Ok(None);
    };
    let packet = inbox.split_to(found.len);
    let body = &packet[found.header_len..];
    let flags_are_right = match found.kind {
        PUBLISH => true,
        SUBSCRIBE | UNSUBSCRIBE => found.flags == 2,
        _ => found.flags == 0,
    };
    if !flags_are_right {
        return Err(CodecError::Malformed);
    }
    match found.kind {
        PUBLISH => read_publish(version, &packet, &found).map(Some),
        PUBACK => read_u16(body)
            .map(|pkid| Some(Inbound::PubAck { pkid }))
            .ok_or(CodecError::Malformed),
        SUBSCRIBE => read_subscribe(decode(version, &packet)?).map(Some),
        UNSUBSCRIBE => match decode(version, &packet)? {
            Packet::Unsubscribe(it, _) if it.pkid != 0 && !it.filters.is_empty() => {
                Ok(Some(Inbound::Unsubscribe {
                    pkid: it.pkid,
                    filters: it.filters,
                }))
            }
            _ => Err(CodecError::Malformed),
        },
        PINGREQ if body.is_empty() => Ok(Some(Inbound::Ping)),
        DISCONNECT => Ok(Some(Inbound::Disconnect {
            reason: body.first().copied().unwrap_or(reason::SUCCESS),
        })),
        PINGREQ => Err(CodecError::Malformed),
        kind => Err(CodecError::Unexpected(kind)),
    }
}

/// rumqttd hides a publish's QoS and packet id, so both are read from the raw frame that it accepted.
fn read_publish(version: Version, packet: &BytesMut, found: &Frame) -> Result<Inbound, CodecError> {
    let Packet::Publish(publish, properties) = decode(version, packet)? else {
        return Err(CodecError::Malformed);
    };
    let qos = (found.flags >> 1) & 0b11;
    let after_topic = found.header_len + 2 + publish.topic.len();
    let pkid = if qos == 0 {
        0
    } else {
        read_u16(&packet[after_topic..]).ok_or(CodecError::Malformed)?
    };
    let topic = String::from_utf8(publish.topic.to_vec()).map_err(|_| CodecError::Malformed)?;
    let has_alias = properties.is_some_and(|p| p.topic_alias.is_some());
    Ok(Inbound::Publish {
        topic,
        payload: publish.payload,
        qos,
        pkid,
        has_alias,
    })
}

fn read_subscribe(packet: Packet) -> Result<Inbound, CodecError> {
    let Packet::Subscribe(it, _) = packet else {
        return Err(CodecError::Malformed);
    };
    if it.pkid == 0 || it.filters.is_empty() {
        return Err(CodecError::Malformed);
    }
    let filters = it
        .filters
        .into_iter()
        .map(|filter| (filter.path, filter.qos as u8))
        .collect();
    Ok(Inbound::Subscribe {
        pkid: it.pkid,
        filters,
    })
}

fn read_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().copied().map(u16::from_be_bytes)
}

// === writing ===

/// What the front end answers to a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectAnswer {
    Accepted,
    BadLogin,
    NotAuthorized,
    BadClientId,
    QosNotSupported,
    Busy,
}

/// Writes CONNACK; `assigned` is the client id that the hub chose and `keep_alive_s` the one it imposes.
pub(super) fn write_connack(
    version: Version,
    answer: ConnectAnswer,
    assigned: Option<String>,
    keep_alive_s: Option<u16>,
    limits: &Limits,
    out: &mut BytesMut,
) {
    match version {
        Version::V4 => {
            let code = match answer {
                ConnectAnswer::Accepted => 0,
                ConnectAnswer::BadClientId => 2,
                ConnectAnswer::Busy => 3,
                ConnectAnswer::BadLogin => 4,
                ConnectAnswer::NotAuthorized | ConnectAnswer::QosNotSupported => 5,
            };
            out.put_slice(&[0x20, 2, 0, code]);
        }
        Version::V5 => write_connack_v5(answer, assigned, keep_alive_s, limits, out),
    }
}

fn write_connack_v5(
    answer: ConnectAnswer,
    assigned: Option<String>,
    keep_alive_s: Option<u16>,
    limits: &Limits,
    out: &mut BytesMut,
) {
    let code = match answer {
        ConnectAnswer::Accepted => ConnectReturnCode::Success,
        ConnectAnswer::BadLogin | ConnectAnswer::NotAuthorized => ConnectReturnCode::NotAuthorized,
        ConnectAnswer::BadClientId => ConnectReturnCode::ClientIdentifierNotValid,
        ConnectAnswer::QosNotSupported => ConnectReturnCode::QoSNotSupported,
        ConnectAnswer::Busy => ConnectReturnCode::ServerBusy,
    };
    let properties = (answer == ConnectAnswer::Accepted).then(|| ConnAckProperties {
        session_expiry_interval: Some(0),
        receive_max: u16::try_from(limits.pending_max).ok(),
        max_qos: Some(1),
        max_packet_size: u32::try_from(limits.packet_bytes_max).ok(),
        assigned_client_identifier: assigned,
        wildcard_subscription_available: Some(0),
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        server_keep_alive: keep_alive_s,
        ..ConnAckProperties::default()
    });
    let packet = Packet::ConnAck(
        ConnAck {
            session_present: false,
            code,
        },
        properties,
    );
    V5.write(packet, out)
        .expect("a CONNACK of fixed properties always has a length");
}

/// Writes the CONNACK that a client of an unknown protocol level can read: 3.1.1, code 1.
pub(super) fn write_level_refusal(out: &mut BytesMut) {
    out.put_slice(&[0x20, 2, 0, 1]);
}

/// Writes PUBACK. MQTT 3.1.1 has no reason code: there the answer only says "do not send it again".
pub(super) fn write_puback(version: Version, pkid: u16, code: u8, why: &str, out: &mut BytesMut) {
    if version == Version::V4 || code == reason::SUCCESS {
        out.put_slice(&[0x40, 2]);
        out.put_u16(pkid);
        return;
    }
    let why = &why[..why.floor_char_boundary(REASON_BYTES_MAX)];
    let properties_len = if why.is_empty() { 0 } else { 3 + why.len() };
    out.put_u8(0x40);
    put_length(4 + properties_len, out);
    out.put_u16(pkid);
    out.put_u8(code);
    // The bound keeps this length in one byte.
    out.put_u8(properties_len as u8);
    if !why.is_empty() {
        out.put_u8(REASON_STRING);
        out.put_u16(why.len() as u16);
        out.put_slice(why.as_bytes());
    }
}

/// Writes SUBACK (`0x90`) or, for MQTT 5, UNSUBACK (`0xB0`) with one code a filter.
fn write_codes(version: Version, first: u8, pkid: u16, codes: &[u8], out: &mut BytesMut) {
    let properties_len = usize::from(version == Version::V5);
    out.put_u8(first);
    put_length(2 + properties_len + codes.len(), out);
    out.put_u16(pkid);
    out.put_bytes(0, properties_len);
    out.put_slice(codes);
}

/// Writes SUBACK: per filter the granted QoS, or `None` where the filter is not this device's.
pub(super) fn write_suback(version: Version, pkid: u16, granted: &[Option<u8>], out: &mut BytesMut) {
    let refused = match version {
        Version::V4 => reason::FAILURE_V4,
        Version::V5 => reason::NOT_AUTHORIZED,
    };
    let codes: Vec<u8> = granted.iter().map(|qos| qos.unwrap_or(refused)).collect();
    write_codes(version, 0x90, pkid, &codes, out);
}

/// Writes UNSUBACK for `count` filters.
pub(super) fn write_unsuback(version: Version, pkid: u16, count: usize, out: &mut BytesMut) {
    let codes = vec![reason::SUCCESS; if version == Version::V5 { count } else { 0 }];
    write_codes(version, 0xB0, pkid, &codes, out);
}

/// Writes PINGRESP.
pub(super) fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// Writes DISCONNECT with a reason; MQTT 3.1.1 servers have no such packet, they just close.
pub(super) fn write_disconnect(version: Version, code: u8, out: &mut BytesMut) {
    if version == Version::V5 {
        out.put_slice(&[0xE0, 2, code, 0]);
    }
}

/// Writes a message that the router forwards. Returns whether it expects an acknowledgement;
/// `None` when the packet is larger than the client takes and was left out.
pub(super) fn write_publish(
    version: Version,
    publish: Publish,
    properties: Option<PublishProperties>,
    max_bytes: usize,
    out: &mut BytesMut,
) -> Option<bool> {
    let start = out.len();
    let written = match version {
        Version::V4 => V4.write(Packet::Publish(publish, None), out),
        Version::V5 => V5.write(Packet::Publish(publish, properties), out),
    };
    if written.is_err() || out.len() - start > max_bytes {
        out.truncate(start);
        return None;
    }
    let qos = (out[start] >> 1) & 0b11;
    Some(qos == QoS::AtLeastOnce as u8)
}

fn put_length(mut len: usize, out: &mut BytesMut) {
    loop {
        let more = if len > 0x7F { 0x80 } else { 0 };
        out.put_u8((len & 0x7F) as u8 | more);
        len >>= 7;
        if len == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connect_v5() -> BytesMut {
        BytesMut::from(&b"\x10\x13\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x06edge-1"[..])
    }

    #[test]
    fn the_protocol_level_of_connect_decides_the_version() {
        let limits = Limits::default();
        let five = read_connect(&mut connect_v5(), &limits).unwrap().unwrap();
        assert_eq!(
            (five.version, five.client_id.as_str(), five.keep_alive_s),
            (Version::V5, "edge-1", 10)
        );
        let mut four = BytesMut::from(&b"\x10\x12\x00\x04MQTT\x04\x02\x00\x0a\x00\x06edge-1"[..]);
        assert_eq!(
            read_connect(&mut four, &limits).unwrap().unwrap().version,
            Version::V4
        );
        let mut three = BytesMut::from(&b"\x10\x14\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x06edge-1"[..]);
        assert_eq!(
            read_connect(&mut three, &limits).unwrap_err(),
            CodecError::Level(3)
        );
        let mut six = BytesMut::from(&b"\x10\x12\x00\x04MQTT\x06\x02\x00\x0a\x00\x06edge-1"[..]);
        assert_eq!(read_connect(&mut six, &limits).unwrap_err(), CodecError::Level(6));
    }

    #[test]
    fn a_split_packet_is_read_once_its_last_byte_came() {
        let limits = Limits::default();
        let whole = connect_v5();
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert!(
                read_connect(&mut part, &limits).unwrap().is_none(),
                "cut at {cut}"
            );
            assert_eq!(part.len(), cut, "nothing may be consumed");
        }
    }

    #[test]
    fn an_http_request_is_no_connect() {
        let mut get = BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..]);
        assert_eq!(
            read_connect(&mut get, &Limits::default()).unwrap_err(),
            CodecError::Malformed
        );
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_bytes_arrive() {
        let limits = Limits {
            packet_bytes_max: 1000,
            ..Limits::default()
        };
        let mut header = BytesMut::from(&[0x32, 0xFF, 0xFF, 0xFF, 0x7F][..]);
        let refused = read_packet(Version::V5, &mut header, &limits).unwrap_err();
        assert!(matches!(refused, CodecError::TooLarge { max_bytes: 1000, .. }));
        let mut endless = BytesMut::from(&[0x32, 0xFF, 0xFF, 0xFF, 0xFF, 0x01][..]);
        assert_eq!(
            read_packet(Version::V5, &mut endless, &limits),
            Err(CodecError::Malformed)
        );
    }

    #[test]
    fn server_packets_from_a_client_are_refused_without_a_panic() {
        for first in [0x20u8, 0x90, 0xB0, 0xD0, 0xF0, 0x50, 0x62, 0x70] {
            for version in [Version::V4, Version::V5] {
                let mut bytes = BytesMut::from(&[first, 4, 0, 1, 0, 0][..]);
                assert!(
                    read_packet(version, &mut bytes, &Limits::default()).is_err(),
                    "{first:#x}"
                );
            }
        }
    }

    #[test]
    fn a_publish_keeps_its_qos_and_packet_id() {
        let mut bytes = BytesMut::from(&b"\x32\x0b\x00\x03a/b\x01\x02\x00xyz"[..]);
        let read = read_packet(Version::V5, &mut bytes, &Limits::default())
            .unwrap()
            .unwrap();
        let expected = Inbound::Publish {
            topic: "a/b".to_owned(),
            payload: Bytes::from_static(b"xyz"),
            qos: 1,
            pkid: 0x0102,
            has_alias: false,
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn a_rejecting_puback_tells_why_in_mqtt_5_only() {
        let mut out = BytesMut::new();
        write_puback(Version::V5, 7, reason::PAYLOAD_INVALID, "bad crc", &mut out);
        assert_eq!(&out[..], b"\x40\x0e\x00\x07\x99\x0a\x1f\x00\x07bad crc");
        out.clear();
        write_puback(Version::V4, 7, reason::PAYLOAD_INVALID, "bad crc", &mut out);
        assert_eq!(&out[..], b"\x40\x02\x00\x07");
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_a_packet_or_an_error_and_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            first in any::<u8>(),
        ) {
            let limits = Limits::default();
            for version in [Version::V4, Version::V5] {
                let mut inbox = BytesMut::from(&bytes[..]);
                while let Ok(Some(_)) = read_packet(version, &mut inbox, &limits) {}
                // A right length in front lets the body reach the decoders.
                let mut framed = BytesMut::new();
                framed.put_u8(first);
                put_length(bytes.len(), &mut framed);
                framed.put_slice(&bytes);
                let _outcome = read_packet(version, &mut framed, &limits);
            }
            let mut connect = BytesMut::from(&bytes[..]);
            let _outcome = read_connect(&mut connect, &limits);
        }
    }
}
