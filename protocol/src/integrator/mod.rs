//! What does an integrator's MQTT message say? The dialects that devices and gateways speak, read into one form. Pure
//! and bounded: topic and bytes in, readings out, or an error that names the place and the remedy.

mod azure;
mod home_assistant;
mod influx;
mod insights_hub;
mod json;
mod native;
mod neuron;
mod opcua_pubsub;
mod sitewise;
mod tasmota;
mod thin_edge;
mod thingsboard;
mod time;
mod umh;
mod understand;
mod version;

use std::fmt;

use serde::Serialize;

pub use self::{
    time::{TimeForm, time_of_number, time_of_text},
    understand::{Fact, Received, TimeNote, Understood, announced, different, facts, understand},
    version::{Standing, Version, in_force, standing},
};
use crate::{Micros, Quality};

/// Most bytes of one message.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Most readings in one message.
pub const ITEMS_MAX: usize = 10_000;
/// Most bytes of a text value that are kept.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Most bytes of a device's or value's name.
pub const NAME_BYTES_MAX: usize = 200;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// A number, a flag, `{"value": …}` or a flat object.
    Native,
    /// ThingsBoard's device and gateway topics.
    Thingsboard,
    /// United Manufacturing Hub's `umh/v1/…`.
    Umh,
    /// AWS IoT SiteWise.
    Sitewise,
    /// Azure IoT Operations.
    Azure,
    /// OPC UA PubSub, JSON encoding.
    OpcuaPubsub,
    /// EMQ Neuron.
    Neuron,
    /// thin-edge.io.
    ThinEdge,
    /// Home Assistant's discovery.
    HomeAssistant,
    /// Tasmota, Zigbee2MQTT, Shelly: nested JSON with a time.
    Tasmota,
    /// InfluxDB line protocol.
    Influx,
    /// Siemens Insights Hub.
    InsightsHub,
}

impl Dialect {
    /// Every dialect with its name in a configuration.
    pub const ALL: [(&str, Self); 12] = [
        ("native", Self::Native),
        ("thingsboard", Self::Thingsboard),
        ("umh", Self::Umh),
        ("sitewise", Self::Sitewise),
        ("azure", Self::Azure),
        ("opcua_pubsub", Self::OpcuaPubsub),
        ("neuron", Self::Neuron),
        ("thin_edge", Self::ThinEdge),
        ("home_assistant", Self::HomeAssistant),
        ("tasmota", Self::Tasmota),
        ("influx", Self::Influx),
        ("insights_hub", Self::InsightsHub),
    ];
}

/// A value as it was sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// Text, cut at [`TEXT_BYTES_MAX`].
    Text(String),
    /// There is none: null, or an error in its place.
    None,
}

impl Value {
    /// As a reading holds it: a flag is 0 or 1, text is no number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Flag(flag) => Some(f64::from(u8::from(*flag))),
            Self::Text(_) | Self::None => None,
        }
    }
}

/// One value of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    /// Which device, when the message or the topic says.
    pub device: Option<String>,
    /// Which of its values.
    pub name: String,
    /// The value.
    pub value: Value,
    /// When the source says it was true; none: the time of receipt is to be taken, and said so.
    pub time_us: Option<Micros>,
    /// How the time was written.
    pub time_form: TimeForm,
    /// How far it may be trusted, as the source says.
    #[serde(serialize_with = "quality_name")]
    pub quality: Quality,
    /// Which version of this value for this time it is, where the source numbers them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rev: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn quality_name<S: serde::Serializer>(quality: &Quality, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(quality.name())
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Values.
    Readings(Vec<Item>),
    /// A device came or went.
    Presence {
        /// Which, when the message or the topic says.
        device: Option<String>,
        /// Whether it is there.
        is_online: bool,
    },
    /// A device's alarm, raised or cleared.
    Alarm {
        /// Which device.
        device: Option<String>,
        /// The alarm's type.
        name: String,
        /// Its text; none: cleared.
        text: Option<String>,
    },
    /// How a value to come is to be named.
    Discovery(Discovery),
    /// Something that holds no values: attributes, configuration.
    Other,
}

/// What a discovery message announces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Discovery {
    /// The announced value's stable id.
    pub unique_id: String,
    /// For people.
    pub name: String,
    /// Where its values are published.
    pub state_topic: String,
    /// Which member of the message holds it: `a.b` of `{{ value_json.a.b }}`; none: the whole message.
    pub member: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// No value for this many seconds means that it is stale.
    pub expire_after_s: Option<u32>,
}

/// What is wrong with a message. Stable: integrators' scripts read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// Not JSON where JSON is expected.
    BadJson,
    /// Not UTF-8.
    NotUtf8,
    /// Nothing in it.
    Empty,
    /// Larger than is taken.
    TooLarge,
    /// A member is missing.
    MissingMember,
    /// A member has another type than the dialect gives it.
    WrongType,
    /// A time that is none.
    BadTime,
    /// A number that cannot be held.
    BadNumber,
    /// A name that is empty, too long or holds control characters.
    BadName,
    /// A topic that the dialect does not have.
    BadTopic,
    /// A template that is more than a path.
    Template,
    /// Not a line of the line protocol.
    BadLine,
    /// Not the binary form that the topic calls for.
    BadPayload,
    /// Values of a node or a device whose birth was not heard.
    NotBorn,
    /// An alias that the newest birth gave to no metric of the sender.
    UnknownAlias,
    /// A metric that the newest birth does not name.
    UnknownMetric,
    /// One alias for two metrics.
    DuplicateAlias,
    /// One name for two values.
    DuplicateName,
    /// A message is missing before this one.
    SequenceGap,
    /// A topic of somebody else's.
    NotYourTopic,
    /// More names than one client may have.
    TooManyTags,
    /// More messages than one client may send.
    TooFast,
    /// Another value for a tag and a time that have one already.
    DifferentValue,
    /// A time at which nothing can have been measured.
    ImpossibleTime,
}

impl Code {
    /// Stable number for documentation links, `E102`.
    pub const fn number(self) -> &'static str {
        match self {
            Self::BadJson => "E101",
            Self::NotUtf8 => "E102",
            Self::Empty => "E103",
            Self::TooLarge => "E104",
            Self::MissingMember => "E105",
            Self::WrongType => "E106",
            Self::BadTime => "E107",
            Self::BadNumber => "E108",
            Self::BadName => "E109",
            Self::BadTopic => "E110",
            Self::Template => "E111",
            Self::BadLine => "E112",
            Self::BadPayload => "E113",
            Self::NotBorn => "E114",
            Self::UnknownAlias => "E115",
            Self::UnknownMetric => "E116",
            Self::DuplicateAlias => "E117",
            Self::DuplicateName => "E118",
            Self::SequenceGap => "E119",
            Self::NotYourTopic => "E120",
            Self::TooManyTags => "E121",
            Self::TooFast => "E122",
            Self::DifferentValue => "E123",
            Self::ImpossibleTime => "E124",
        }
    }
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// What is wrong.
    pub code: Code,
    /// At which byte, as far as that can be said.
    pub offset: Option<usize>,
    /// What would be right.
    pub hint: String,
    /// The place itself, shortened.
    pub sample: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.number(), self.hint)?;
        if let Some(offset) = self.offset {
            write!(f, " (at byte {offset})")?;
        }
        if !self.sample.is_empty() {
            write!(f, ": `{}`", self.sample)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// A refusal; the sample is cut to 80 bytes.
    pub fn new(code: Code, hint: impl Into<String>, sample: &str) -> Self {
        Self {
            code,
            offset: None,
            hint: hint.into(),
            sample: cut(sample, 80).to_owned(),
        }
    }
}

/// At most `bytes` of a text, cut between characters.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The dialect of a message, told by its topic, else by its shape.
///
/// ```
/// use protocol::integrator::{Dialect, detect};
/// assert_eq!(detect("umh/v1/acme/akron/_historian/t", b"{}"), Dialect::Umh);
/// assert_eq!(detect("plant/line1/t", b"23.5"), Dialect::Native);
/// ```
pub fn detect(topic: &str, payload: &[u8]) -> Dialect {
    by_topic(topic).unwrap_or_else(|| by_shape(payload))
}

fn by_topic(topic: &str) -> Option<Dialect> {
    let starts = [
        ("v1/devices/", Dialect::Thingsboard),
        ("v1/gateway/", Dialect::Thingsboard),
        ("umh/v1/", Dialect::Umh),
        ("azure-iot-operations/", Dialect::Azure),
        ("/neuron/", Dialect::Neuron),
        ("neuron/", Dialect::Neuron),
        ("te/", Dialect::ThinEdge),
        ("homeassistant/", Dialect::HomeAssistant),
        ("tele/", Dialect::Tasmota),
        ("zigbee2mqtt/", Dialect::Tasmota),
        ("shellies/", Dialect::Tasmota),
        ("tc/", Dialect::InsightsHub),
    ];
    starts
        .iter()
        .find_map(|(start, dialect)| topic.starts_with(start).then_some(*dialect))
}

/// Looks at the first bytes only: a message of another shape is refused by the dialect with an exact reason.
fn by_shape(payload: &[u8]) -> Dialect {
    let head = String::from_utf8_lossy(&payload[..payload.len().min(2_048)]);
    let has = |word: &str| head.contains(word);
    if has("\"propertyAlias\"") || has("\"propertyValues\"") {
        Dialect::Sitewise
    } else if has("\"ua-data\"") {
        Dialect::OpcuaPubsub
    } else if has("\"dataPointId\"") {
        Dialect::InsightsHub
    } else if has("\"node\"") && has("\"group\"") {
        Dialect::Neuron
    } else if has("\"SourceTimestamp\"") {
        Dialect::Azure
    } else if influx::looks_like(&head) {
        Dialect::Influx
    } else {
        Dialect::Native
    }
}

/// Reads a message of a known dialect.
///
/// # Errors
/// [`Refused`], with the place and the remedy. Nothing that any bytes say makes it panic or take more than a few
/// times [`PAYLOAD_BYTES_MAX`] of memory.
pub fn parse(dialect: Dialect, topic: &str, payload: &[u8]) -> Result<Message, Refused> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let hint = format!(
            "a message may have {PAYLOAD_BYTES_MAX} bytes, this one has {}; send fewer values at once",
            payload.len()
        );
        return Err(Refused::new(Code::TooLarge, hint, ""));
    }
    let text = json::utf8(payload)?;
    if let Some(presence) = presence(topic, text) {
        return Ok(presence);
    }
    let message = match dialect {
        Dialect::Influx => influx::parse(topic, text),
        Dialect::ThinEdge => thin_edge::parse(topic, text),
        Dialect::Native => native::parse(topic, text),
        Dialect::Thingsboard => thingsboard::parse(topic, &json::read(text)?),
        Dialect::Umh => umh::parse(topic, &json::read(text)?),
        Dialect::Sitewise => sitewise::parse(&json::read(text)?),
        Dialect::Azure => azure::parse(topic, &json::read(text)?),
        Dialect::OpcuaPubsub => opcua_pubsub::parse(&json::read(text)?),
        Dialect::Neuron => neuron::parse(&json::read(text)?),
        Dialect::HomeAssistant => home_assistant::parse(topic, text),
        Dialect::Tasmota => tasmota::parse(topic, text),
        Dialect::InsightsHub => insights_hub::parse(topic, &json::read(text)?),
    }?;
    check(message)
}

/// Plain `online` and `offline`, as wills and births say it in every dialect.
fn presence(topic: &str, text: &str) -> Option<Message> {
    let is_online = match text.trim().trim_matches('"') {
        "online" | "Online" | "ONLINE" => true,
        "offline" | "Offline" | "OFFLINE" => false,
        _ => return None,
    };
    let mut levels = topic.split('/').rev();
    let last = levels.next()?;
    let is_about = ["status", "state", "LWT", "availability", "online", "lwt"].contains(&last);
    let device = if is_about { levels.next() } else { Some(last) };
    Some(Message::Presence {
        device: device.filter(|name| !name.is_empty()).map(str::to_owned),
        is_online,
    })
}

fn check(message: Message) -> Result<Message, Refused> {
    let Message::Readings(items) = &message else {
        return Ok(message);
    };
    if items.len() > ITEMS_MAX {
        let hint = format!(
            "a message may hold {ITEMS_MAX} values, this one has {}",
            items.len()
        );
        return Err(Refused::new(Code::TooLarge, hint, ""));
    }
    let is_name =
        |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    for item in items {
        let device = item.device.as_deref();
        for name in std::iter::once(item.name.as_str()).chain(device) {
            if !is_name(name) {
                let hint = format!("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters");
                return Err(Refused::new(
                    Code::BadName,
                    hint,
                    &name.escape_debug().to_string(),
                ));
            }
        }
    }
    Ok(message)
}
