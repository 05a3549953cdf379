//! How do we speak Sparkplug B 3.0? Payloads by `srad-types`; topics, births, deaths and sequences as pure state
//! machines. Names in brackets are the specification's assertion ids.

pub mod edge_node;
pub mod host;

use srad_types::payload::{
    DataType, Message as _, Metric, Payload, PropertyValue, metric, property_value::Value as Property,
};

use crate::{Micros, Quality, Reading};

/// First level of every topic but those of other versions.
pub const NAMESPACE: &str = "spBv1.0";
/// Most bytes of a payload that are decoded.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Most metrics of a payload: an empty one takes two bytes of it and two hundred of memory.
pub const METRICS_MAX: usize = 20_000;

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Whether with QoS 1; else QoS 0.
    pub is_acknowledged: bool,
}

/// Whether a name may stand in a topic: not empty, without `+`, `/` and `#` (tck-id-topic-structure-namespace-valid-group-id
/// and its like for nodes and devices).
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.contains(['+', '/', '#'])
        && !name.chars().any(char::is_control)
}

/// What a primary host says of itself on `spBv1.0/STATE/HOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostState {
    /// Whether it is there.
    pub online: bool,
    /// When it said so, milliseconds since 1970.
    pub timestamp: u64,
}

/// Topic of a host's state.
pub fn state_topic(host: &str) -> String {
    format!("{NAMESPACE}/STATE/{host}")
}

/// Reads a payload.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Payload, String> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(format!(
            "{} bytes exceed the limit of {PAYLOAD_BYTES_MAX}",
            bytes.len()
        ));
    }
    let metrics = metrics_of(bytes).ok_or("no Sparkplug payload: its fields are cut short")?;
    if metrics > METRICS_MAX {
        return Err(format!("{metrics} metrics exceed the limit of {METRICS_MAX}"));
    }
    Payload::decode(bytes).map_err(|error| format!("no Sparkplug payload: {error}"))
}

/// How many metrics (field 2) a payload has, told without decoding them; none when its fields cannot be told apart.
fn metrics_of(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut found) = (0, 0);
    while at < bytes.len() {
        let tag = varint(bytes, &mut at)?;
        let skipped = match tag & 7 {
            0 => varint(bytes, &mut at).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(varint(bytes, &mut at)?).ok()?,
            5 => 4,
            // Groups are no part of it.
            _ => return None,
        };
        found += usize::from(tag >> 3 == 2);
        at = at.checked_add(skipped).filter(|end| *end <= bytes.len())?;
    }
    Some(found)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The milliseconds of a time; 0 for times before 1970.
fn milliseconds(time_us: Micros) -> u64 {
    u64::try_from(time_us / 1_000).unwrap_or(0)
}

/// OPC's classic numbers, as the specification's `Quality` property has them: 192 good, 0 bad, 500 stale.
fn quality_number(quality: Quality) -> u32 {
    if quality.is_good() {
        192
    } else if quality.is_bad() {
        0
    } else {
        500
    }
}

/// A reading as a metric without its name: value or null, time and quality. Its type stands in data too, where it should
/// be left out (tck-id-payloads-metric-datatype-not-req): PyPI's mqtt-spb-wrapper reads no value without it.
fn metric(alias: u64, reading: &Reading, is_historical: bool) -> Metric {
    let mut metric = Metric::new();
    metric
        .set_alias(alias)
        .set_datatype(DataType::Double)
        .set_timestamp(milliseconds(reading.time_us));
    match reading.value() {
        Some(value) => metric.set_value(metric::Value::DoubleValue(value)),
        None => metric.set_null(),
    };
    if is_historical {
        metric.is_historical = Some(true);
    }
    if !reading.quality.is_good() {
        let quality = Property::IntValue(quality_number(reading.quality));
        put_property(&mut metric, "Quality", DataType::Int32, quality);
    }
    metric
}

fn put_property(metric: &mut Metric, key: &str, kind: DataType, value: Property) {
    let properties = metric.properties.get_or_insert_default();
    properties.keys.push(key.to_owned());
    properties.values.push(PropertyValue {
        r#type: Some(kind as u32),
        is_null: None,
        value: Some(value),
    });
}
