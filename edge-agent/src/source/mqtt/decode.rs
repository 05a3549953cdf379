//! Which readings does a message make? Pure: the broker's tags, topic and bytes in, readings out.

use protocol::{
    Micros, Quality, Reading,
    integrator::{self, Dialect, Item, Message, Refused, TimeForm, Value},
};
use rumqttc::matches;

use super::config::{Broker, TagPlan};

/// What a message led to.
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    /// A reading and the place of its tag.
    pub readings: Vec<(usize, Reading)>,
    /// Tags whose device says that it is gone.
    pub gone: Vec<usize>,
}

/// The readings of a message. A value that the broker kept (`is_retained`) and that says no time of its own is
/// only the last one known.
///
/// # Errors
/// Why the message cannot be read.
pub fn decode(
    broker: &Broker,
    topic: &str,
    (payload, is_retained): (&[u8], bool),
    received_us: Micros,
) -> Result<Decoded, Refused> {
    let mut decoded = Decoded::default();
    let mut read: Vec<(Dialect, Message)> = Vec::new();
    for (place, tag) in broker.tags.iter().enumerate() {
        if !matches(topic, &tag.topic) {
            continue;
        }
        let dialect = tag.dialect.unwrap_or_else(|| integrator::detect(topic, payload));
        if !read.iter().any(|(known, _)| *known == dialect) {
            read.push((dialect, integrator::parse(dialect, topic, payload)?));
        }
        let Some((_, message)) = read.iter().find(|(known, _)| *known == dialect) else {
            continue;
        };
        match message {
            Message::Readings(items) => {
                let wanted = items.iter().filter(|item| is_of(tag, item, items.len()));
                let readings = wanted.map(|item| (place, reading(tag, item, received_us, is_retained)));
                decoded.readings.extend(readings);
            }
            Message::Presence { is_online: false, .. } => decoded.gone.push(place),
            _ => {}
        }
    }
    if let Some(filter) = &broker.status_topic
        && matches(topic, filter)
    {
        decoded.gone.extend(gone(broker, topic, payload));
    }
    Ok(decoded)
}

/// The tags of the device that a status message says is gone; all of the broker's when it names none of them.
fn gone(broker: &Broker, topic: &str, payload: &[u8]) -> Vec<usize> {
    let message = integrator::parse(Dialect::Native, topic, payload);
    let Ok(Message::Presence {
        device,
        is_online: false,
    }) = message
    else {
        return Vec::new();
    };
    let is_its = |tag: &TagPlan| device.is_some() && tag.device == device;
    let has_own = broker.tags.iter().any(is_its);
    let places = broker.tags.iter().enumerate();
    places
        .filter_map(|(place, tag)| (!has_own || is_its(tag)).then_some(place))
        .collect()
}

fn is_of(tag: &TagPlan, item: &Item, items: usize) -> bool {
    let is_device = tag.device.is_none() || tag.device == item.device;
    is_device && tag.key.as_ref().map_or(items == 1, |key| *key == item.name)
}

fn reading(tag: &TagPlan, item: &Item, received_us: Micros, is_retained: bool) -> Reading {
    let time_us = item.time_us.unwrap_or(received_us);
    match (&item.value, item.value.number()) {
        (_, Some(value)) => {
            let is_old = is_retained && item.time_form == TimeForm::Absent && item.quality.is_good();
            let quality = if is_old {
                Quality::UNCERTAIN_LAST_USABLE
            } else {
                item.quality
            };
            Reading::new(tag.alias, time_us, value, quality)
        }
        (Value::Text(_), None) => Reading::bad(tag.alias, time_us, Quality::BAD_TYPE),
        (_, None) => Reading::bad(tag.alias, time_us, item.quality),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::reading::Alias;

    use super::*;

    fn tag(alias: u32, topic: &str, key: Option<&str>) -> TagPlan {
        TagPlan {
            alias: Alias(alias),
            topic: topic.to_owned(),
            dialect: None,
            device: None,
            key: key.map(str::to_owned),
            period: Duration::ZERO,
        }
    }

    fn broker(tags: Vec<TagPlan>) -> Broker {
        Broker {
            name: "floor".to_owned(),
            address: "127.0.0.1:1883".to_owned(),
            client_id: "c".to_owned(),
            user: None,
            password_file: None,
            ca_file: None,
            status_topic: Some("plant/+/status".to_owned()),
            error_topic: "e".to_owned(),
            late_after: std::time::Duration::from_mins(1),
            tags,
        }
    }

    fn values(decoded: &Decoded) -> Vec<(u32, Option<f64>, Quality)> {
        let readings = decoded.readings.iter();
        readings
            .map(|(_, reading)| (reading.tag.0, reading.value(), reading.quality))
            .collect()
    }

    #[test]
    fn a_message_gives_each_tag_its_own_value_and_no_other() {
        let broker = broker(vec![
            tag(0, "plant/oven", Some("zone1")),
            tag(1, "plant/oven", Some("zone2")),
            tag(2, "plant/+/t", None),
        ]);
        let said = br#"{"zone1":201.5,"zone2":null,"zone3":7}"#;
        let decoded = decode(&broker, "plant/oven", (said, false), 5).unwrap();
        assert_eq!(
            values(&decoded),
            [(0, Some(201.5), Quality::GOOD), (1, None, Quality::BAD)]
        );
        let decoded = decode(&broker, "plant/cold/t", (b"3.5", false), 5).unwrap();
        assert_eq!(values(&decoded), [(2, Some(3.5), Quality::GOOD)]);
        assert_eq!(decode(&broker, "other", (b"{", false), 5), Ok(Decoded::default()));
    }

    #[test]
    fn t29_a_retained_value_without_a_time_is_only_the_last_one_known() {
        let broker = broker(vec![tag(0, "a/t", None)]);
        let quality = |payload: &[u8], is_retained| {
            decode(&broker, "a/t", (payload, is_retained), 5)
                .unwrap()
                .readings[0]
                .1
                .quality
        };
        assert_eq!(quality(b"3.5", true), Quality::UNCERTAIN_LAST_USABLE);
        assert_eq!(quality(b"{\"value\":3.5,\"ts\":1700000000}", true), Quality::GOOD);
        assert_eq!(quality(b"3.5", false), Quality::GOOD);
    }

    #[test]
    fn a_source_time_is_kept_and_text_is_no_number() {
        let broker = broker(vec![tag(0, "a/t", None)]);
        let read = |payload: &[u8]| decode(&broker, "a/t", (payload, false), 5).unwrap().readings[0].1;
        assert_eq!(
            read(b"{\"value\":1,\"ts\":1700000000}").time_us,
            1_700_000_000_000_000
        );
        assert_eq!(read(b"\"hot\"").quality, Quality::BAD_TYPE);
    }

    #[test]
    fn a_device_that_says_it_is_gone_takes_its_own_tags_with_it() {
        let mut oven = tag(0, "plant/oven/t", None);
        oven.device = Some("oven".to_owned());
        let broker = broker(vec![oven, tag(1, "plant/cold/t", None)]);
        let gone = |topic: &str| decode(&broker, topic, (b"offline", false), 5).unwrap().gone;
        assert_eq!(gone("plant/oven/status"), [0]);
        assert_eq!(gone("plant/gateway/status"), [0, 1]);
    }
}
