//! When does a message say that its value was true? Numbers by their magnitude, ISO 8601, or not at all.

use chrono::{DateTime, NaiveDateTime};
use serde::Serialize;
use serde_json::Value as Json;

use super::{Code, Refused};
use crate::Micros;

/// How a time was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeForm {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Microseconds since 1970.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
    /// ISO 8601 with a zone.
    Iso,
    /// ISO 8601 without a zone, taken as UTC.
    IsoWithoutZone,
    /// Not at all.
    Absent,
}

/// A number as a time, its unit told by its magnitude: below 10^11 seconds (to the year 5138), below 10^14
/// milliseconds, below 10^17 microseconds, else nanoseconds. Every unit holds the years 1973 to 5138.
///
/// ```
/// use protocol::integrator::{TimeForm, time_of_number};
/// assert_eq!(time_of_number(1_700_000_000.5), Some((1_700_000_000_500_000, TimeForm::Seconds)));
/// assert_eq!(time_of_number(1_700_000_000_123.0), Some((1_700_000_000_123_000, TimeForm::Milliseconds)));
/// ```
pub fn time_of_number(number: f64) -> Option<(Micros, TimeForm)> {
    if !(0.0..9.2e18).contains(&number) {
        return None;
    }
    let (factor, form) = unit(number);
    Some(((number * factor).round() as Micros, form))
}

fn unit(number: f64) -> (f64, TimeForm) {
    if number < 1e11 {
        (1e6, TimeForm::Seconds)
    } else if number < 1e14 {
        (1e3, TimeForm::Milliseconds)
    } else if number < 1e17 {
        (1.0, TimeForm::Microseconds)
    } else {
        (1e-3, TimeForm::Nanoseconds)
    }
}

/// Like [`time_of_number`], exact for integers: nanoseconds do not fit an `f64`.
fn time_of_integer(number: u64) -> Option<(Micros, TimeForm)> {
    let number = i64::try_from(number).ok()?;
    let (_, form) = unit(number as f64);
    let time_us = match form {
        TimeForm::Seconds => number.checked_mul(1_000_000)?,
        TimeForm::Milliseconds => number.checked_mul(1_000)?,
        TimeForm::Nanoseconds => number / 1_000,
        _ => number,
    };
    Some((time_us, form))
}

/// ISO 8601 as a time; without a zone it counts as UTC, and a number in quotes is a number.
pub fn time_of_text(text: &str) -> Option<(Micros, TimeForm)> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some((time.timestamp_micros(), TimeForm::Iso));
    }
    if let Ok(time) = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z") {
        return Some((time.timestamp_micros(), TimeForm::Iso));
    }
    for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return Some((time.and_utc().timestamp_micros(), TimeForm::IsoWithoutZone));
        }
    }
    text.parse().ok().and_then(time_of_integer)
}

/// A member of a message as a time.
pub(super) fn of_json(name: &str, json: &Json) -> Result<(Micros, TimeForm), Refused> {
    let time = match json {
        Json::Number(number) => number
            .as_u64()
            .map_or_else(|| number.as_f64().and_then(time_of_number), time_of_integer),
        Json::String(text) => time_of_text(text),
        _ => None,
    };
    time.ok_or_else(|| {
        Refused::new(
            Code::BadTime,
            format!("`{name}` must be a time: seconds, ms, µs or ns since 1970, or ISO 8601"),
            &json.to_string(),
        )
    })
}
