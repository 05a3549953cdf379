//! What does a client say? Bytes of one socket to MQTT packets, 3.1.1 and 5 on one port.
//! The packet bodies are decoded by rumqttd's codec behind our own framing, because that codec panics on
//! packet types a client must not send and mistakes a short property list for a short read.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{ConnectProperties, LastWill, Login, Packet, Protocol, v4::V4, v5::V5};

use super::{limits::Limits, reply::reason};

/// The protocol level that a CONNECT asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// MQTT 3.1.1
    V4,
    /// MQTT 5
    V5,
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
    pub(super) is_retained: bool,
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
        is_retained: bool,
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
        is_retained: will.retain,
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
        is_retained: found.flags & 1 == 1,
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

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::{super::reply::put_length, *};

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
            is_retained: false,
            has_alias: false,
        };
        assert_eq!(read, expected);
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
