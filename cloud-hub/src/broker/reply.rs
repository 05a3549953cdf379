//! What does the front end answer? CONNACK, acknowledgements and DISCONNECT as bytes.
//! The small packets are written here: they need reason codes that rumqttd's codec cannot express, and it
//! miscounts a DISCONNECT without properties.

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Packet, Protocol, Publish, PublishProperties, QoS, v4::V4,
    v5::V5,
};

use super::{codec::Version, limits::Limits};

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

/// MQTT 5 property `Reason String`, and how much of one is sent.
const REASON_STRING: u8 = 0x1F;
const REASON_BYTES_MAX: usize = 120;

/// What the front end answers to a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectAnswer {
    Accepted,
    BadLogin,
    NotAuthorized,
    BadClientId,
    QosNotSupported,
    Busy,
    /// The device or its tenant has as many sessions as it may have.
    Quota,
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
                ConnectAnswer::Busy | ConnectAnswer::Quota => 3,
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
        ConnectAnswer::Quota => ConnectReturnCode::QuotaExceeded,
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

/// How a forwarded message was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// As the router forwarded it.
    Whole,
    /// With QoS 0, for it was published so.
    Lessened,
    /// Not at all: it is larger than the client takes.
    TooLarge,
}

/// Writes a message that the router forwards, which gives every message the subscription's QoS; one that was published
/// `is_at_most_once` goes out with QoS 0 (MQTT 5.0, 3.8.4: the lesser of the two). Returns how, and the packet id by which
/// the router waits for an acknowledgement.
pub(super) fn write_publish(
    version: Version,
    (publish, properties): (Publish, Option<PublishProperties>),
    is_at_most_once: bool,
    max_bytes: usize,
    out: &mut BytesMut,
) -> (Written, Option<u16>) {
    let start = out.len();
    let plain = Publish::new(publish.topic.clone(), publish.payload.clone(), publish.retain);
    let is_written = put_publish(version, publish, properties.clone(), out);
    let pkid = packet_id(&out[start..]);
    let is_lessened = is_at_most_once && pkid.is_some();
    let is_written = if is_lessened {
        out.truncate(start);
        put_publish(version, plain, properties, out)
    } else {
        is_written
    };
    if !is_written || out.len() - start > max_bytes {
        out.truncate(start);
        return (Written::TooLarge, pkid);
    }
    let written = if is_lessened {
        Written::Lessened
    } else {
        Written::Whole
    };
    (written, pkid)
}

fn put_publish(
    version: Version,
    publish: Publish,
    properties: Option<PublishProperties>,
    out: &mut BytesMut,
) -> bool {
    match version {
        Version::V4 => V4.write(Packet::Publish(publish, None), out).is_ok(),
        Version::V5 => V5.write(Packet::Publish(publish, properties), out).is_ok(),
    }
}

/// The packet id of a PUBLISH, which rumqttd keeps to itself; none where its QoS is 0.
fn packet_id(packet: &[u8]) -> Option<u16> {
    let (first, rest) = packet.split_first()?;
    if (first >> 1) & 0b11 == QoS::AtMostOnce as u8 {
        return None;
    }
    let length = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let body = rest.get(length..)?;
    let topic = usize::from(body.first_chunk().copied().map(u16::from_be_bytes)?);
    let id = body.get(2 + topic..)?.first_chunk().copied();
    id.map(u16::from_be_bytes)
}

pub(super) fn put_length(mut len: usize, out: &mut BytesMut) {
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
    use super::*;

    #[test]
    fn a_rejecting_puback_tells_why_in_mqtt_5_only() {
        let mut out = BytesMut::new();
        write_puback(Version::V5, 7, reason::PAYLOAD_INVALID, "bad crc", &mut out);
        assert_eq!(&out[..], b"\x40\x0e\x00\x07\x99\x0a\x1f\x00\x07bad crc");
        out.clear();
        write_puback(Version::V4, 7, reason::PAYLOAD_INVALID, "bad crc", &mut out);
        assert_eq!(&out[..], b"\x40\x02\x00\x07");
    }

    #[test]
    fn lengths_are_written_seven_bits_at_a_time() {
        for (len, expected) in [
            (0, &[0][..]),
            (127, &[0x7F]),
            (128, &[0x80, 1]),
            (16_384, &[0x80, 0x80, 1]),
        ] {
            let mut out = BytesMut::new();
            put_length(len, &mut out);
            assert_eq!(&out[..], expected, "{len}");
        }
    }
}
