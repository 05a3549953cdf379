//! What will be stored of a message, and how is it known? Every value with its device, name, time and quality; the
//! flags say where time and trust come from. Pure: the time of receipt is an argument.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    Code, Dialect, Discovery, Item, Message, Refused, Standing, TimeForm, Value, Version, detect, in_force,
    parse, standing,
};
use crate::{Micros, Quality};

/// A source may be this far ahead of the time of receipt before its time counts as doubtful.
const AHEAD_US_MAX: Micros = 10 * 60 * 1_000_000;
/// Beyond this its clock is wrong: stored, it would be the tag's newest value for a day.
const IMPOSSIBLE_US: Micros = 24 * 3_600 * 1_000_000;
/// What comes later than this was filled in.
const LATE_US: Micros = 7 * 24 * 3_600 * 1_000_000;
/// 1990-01-01: nothing measured is older; such a time is a clock that was never set.
const OLDEST_US: Micros = 631_152_000_000_000;

/// A message as a broker or an HTTP server got it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The client's name, as authenticated: the device of values that name none.
    pub client: &'a str,
    /// The topic, without the tenant.
    pub topic: &'a str,
    /// The bytes.
    pub payload: &'a [u8],
    /// Whether a broker had kept it: then it may be old.
    pub is_retained: bool,
    /// When it came, microseconds since 1970.
    pub received_us: Micros,
}

/// How far a time may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeNote {
    /// As the source says.
    AsSaid,
    /// As the source says, taken as UTC because it names no zone.
    ZoneAssumed,
    /// The source says none: the time of receipt.
    OfReceipt,
    /// More than ten minutes ahead of the hub's clock.
    Ahead,
    /// More than a week before it came.
    Late,
}

/// One value as it will be stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// Which device.
    pub device: String,
    /// Which of its values.
    pub name: String,
    /// The value; none when the quality is bad.
    pub value: Option<f64>,
    /// Text, where that is what was sent: a reading is a number, so its quality is bad.
    pub text: Option<String>,
    /// When it was true, microseconds since 1970.
    pub time_us: Micros,
    /// How the time was written.
    pub time_form: TimeForm,
    /// How far the time may be believed.
    pub time_note: TimeNote,
    /// How far the value may be trusted.
    #[serde(serialize_with = "super::quality_name")]
    pub quality: Quality,
    /// Which version of this value for this time it is, where the source numbers them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rev: Option<i64>,
}

impl Fact {
    /// As it stands beside what is known of its tag and time.
    pub fn version(&self) -> Version {
        Version {
            value: self.value,
            quality: self.quality,
            rev: self.rev,
        }
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Understood {
    /// How it is written.
    pub dialect: Dialect,
    /// Its values.
    pub facts: Vec<Fact>,
    /// What else it says.
    pub message: Option<Message>,
    /// Values of it that are not taken; the others are.
    pub refused: Vec<Refused>,
}

/// Understands a message. The dialect is told by topic and shape where it is not given.
///
/// # Errors
/// [`Refused`], when none of it can be taken.
pub fn understand(dialect: Option<Dialect>, received: &Received<'_>) -> Result<Understood, Refused> {
    let Received { topic, payload, .. } = *received;
    let dialect = dialect.unwrap_or_else(|| detect(topic, payload));
    let mut understood = Understood {
        dialect,
        facts: Vec::new(),
        message: None,
        refused: Vec::new(),
    };
    match parse(dialect, topic, payload)? {
        Message::Readings(items) => (understood.facts, understood.refused) = facts(items, received),
        other => understood.message = Some(other),
    }
    Ok(understood)
}

/// Items as they will be stored, and those that are not: impossible times, and values that contradict each other.
pub fn facts(items: Vec<Item>, received: &Received<'_>) -> (Vec<Fact>, Vec<Refused>) {
    let (mut facts, mut refused): (Vec<Fact>, Vec<Refused>) = (Vec::with_capacity(items.len()), Vec::new());
    let mut seen: HashMap<(String, String, Micros), Vec<Version>> = HashMap::new();
    for item in items {
        let fact = match fact(item, received) {
            Ok(fact) => fact,
            Err(why) => {
                refused.push(why);
                continue;
            }
        };
        let key = (fact.device.clone(), fact.name.clone(), fact.time_us);
        let known = seen.entry(key).or_default();
        match standing(known, &fact.version()) {
            Standing::Duplicate => {}
            Standing::Contradiction => refused.push(different(&fact.name, known, &fact.version())),
            Standing::Newer | Standing::Older => {
                known.push(fact.version());
                facts.push(fact);
            }
        }
    }
    (facts, refused)
}

/// Why a value is not taken for a tag and a time that have another one.
pub fn different(name: &str, known: &[Version], said: &Version) -> Refused {
    let shown = |value: Option<f64>| value.map_or_else(|| "no value".to_owned(), |value| value.to_string());
    let current = in_force(known);
    let next = current
        .and_then(|version| version.rev)
        .map_or(1, |rev| rev.saturating_add(1));
    let hint = format!(
        "`{name}` has {} for this time already and {} was sent: the first stays; to correct it, send `\"rev\": {next}` with the value",
        shown(current.and_then(|version| version.value)),
        shown(said.value)
    );
    Refused::new(Code::DifferentValue, hint, name)
}

fn fact(item: Item, received: &Received<'_>) -> Result<Fact, Refused> {
    let (time_us, note) = time(&item, received)?;
    let (value, quality, text) = match item.value {
        Value::Text(text) => (None, Quality::BAD_TYPE, Some(text)),
        Value::None if item.quality.is_bad() => (None, item.quality, None),
        Value::None => (None, Quality::BAD, None),
        ref value => (value.number(), item.quality, None),
    };
    let value = value.filter(|number| number.is_finite() && !quality.is_bad());
    let quality = if value.is_none() && !quality.is_bad() {
        Quality::BAD_OUT_OF_RANGE
    } else {
        quality
    };
    Ok(Fact {
        device: item.device.unwrap_or_else(|| received.client.to_owned()),
        name: item.name,
        value,
        text,
        time_us,
        time_form: item.time_form,
        time_note: note,
        quality: flagged(quality, note, received.is_retained),
        rev: item.rev,
    })
}

fn time(item: &Item, received: &Received<'_>) -> Result<(Micros, TimeNote), Refused> {
    let now_us = received.received_us;
    let Some(time_us) = item.time_us else {
        return Ok((now_us, TimeNote::OfReceipt));
    };
    if !(OLDEST_US..=now_us.saturating_add(IMPOSSIBLE_US)).contains(&time_us) {
        let hint = format!(
            "`{}` has a time at which nothing can have been measured: before 1990, or more than a day ahead; set the clock of the source",
            item.name
        );
        return Err(Refused::new(Code::ImpossibleTime, hint, &time_us.to_string()));
    }
    let note = if time_us > now_us.saturating_add(AHEAD_US_MAX) {
        TimeNote::Ahead
    } else if time_us < now_us.saturating_sub(LATE_US) {
        TimeNote::Late
    } else if item.time_form == TimeForm::IsoWithoutZone {
        TimeNote::ZoneAssumed
    } else {
        TimeNote::AsSaid
    };
    Ok((time_us, note))
}

/// A good value keeps in its quality what is to be known of its time.
fn flagged(quality: Quality, note: TimeNote, is_retained: bool) -> Quality {
    if !quality.is_good() {
        return quality;
    }
    match note {
        // What a broker kept and bears no time is only the last value known.
        TimeNote::OfReceipt if is_retained => Quality::UNCERTAIN_LAST_USABLE,
        TimeNote::OfReceipt => Quality::GOOD_TIME_OF_RECEIPT,
        TimeNote::Ahead => Quality::UNCERTAIN_TIME,
        TimeNote::Late => Quality::GOOD_LATE,
        TimeNote::AsSaid | TimeNote::ZoneAssumed => quality,
    }
}

/// Under which device and name the values that a discovery announces will come; none when its topic is one that no
/// dialect reads.
pub fn announced(discovery: &Discovery, client: &str) -> Option<(String, String)> {
    let payload = match &discovery.member {
        None => "0".to_owned(),
        Some(path) => path.rsplit('.').fold("0".to_owned(), |inner, level| {
            format!("{{{}:{inner}}}", serde_json::Value::from(level))
        }),
    };
    let received = Received {
        client,
        topic: &discovery.state_topic,
        payload: payload.as_bytes(),
        is_retained: false,
        received_us: OLDEST_US,
    };
    let fact = understand(None, &received).ok()?.facts.pop()?;
    Some((fact.device, fact.name))
}
