//! How is JSON read so that a fault names its byte? serde_json underneath; members by name with errors that say what
//! was expected.

use serde_json::Value as Json;

use super::{Code, Item, Refused, TEXT_BYTES_MAX, TimeForm, Value, cut, time};
use crate::{Micros, Quality};

/// Beyond this an integer is no longer exactly an `f64`.
const EXACT_MAX: u64 = 1 << 53;

pub(super) type Object = serde_json::Map<String, Json>;

/// The text of a payload.
pub(super) fn utf8(payload: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(payload).map_err(|error| Refused {
        offset: Some(error.valid_up_to()),
        ..Refused::new(
            Code::NotUtf8,
            "a message is UTF-8 text; binary forms are Sparkplug's and ours",
            "",
        )
    })
}

/// Reads JSON.
pub(super) fn read(text: &str) -> Result<Json, Refused> {
    if text.trim().is_empty() {
        return Err(Refused::new(Code::Empty, "the message is empty", ""));
    }
    serde_json::from_str(text).map_err(|error| fault(text, &error))
}

fn fault(text: &str, error: &serde_json::Error) -> Refused {
    let offset = offset(text, error.line(), error.column());
    let said = error.to_string();
    let rest = &text[offset..];
    let (code, hint) = if said.starts_with("number out of range") {
        (Code::BadNumber, "a number must fit a 64-bit float".to_owned())
    } else if rest.starts_with("NaN") || rest.starts_with("Inf") || rest.starts_with("-Inf") {
        let hint = "JSON has no NaN and no infinity: send null, or quality \"bad\"";
        (Code::BadJson, hint.to_owned())
    } else if said.starts_with("key must be a string") {
        (Code::BadJson, "object keys must be quoted".to_owned())
    } else if said.starts_with("recursion limit") {
        (Code::TooLarge, "values may be nested 128 deep".to_owned())
    } else {
        let what = said.split(" at line").next().unwrap_or(&said);
        (Code::BadJson, format!("not JSON: {what}"))
    };
    Refused {
        code,
        offset: Some(offset),
        hint,
        sample: cut(rest, 80).to_owned(),
    }
}

/// The byte of a 1-based line and column, never inside a character.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

pub(super) fn object<'a>(json: &'a Json, what: &str) -> Result<&'a Object, Refused> {
    json.as_object().ok_or_else(|| wrong(what, "an object", json))
}

pub(super) fn array<'a>(json: &'a Json, what: &str) -> Result<&'a Vec<Json>, Refused> {
    json.as_array().ok_or_else(|| wrong(what, "an array", json))
}

pub(super) fn member<'a>(object: &'a Object, name: &str) -> Result<&'a Json, Refused> {
    object.get(name).ok_or_else(|| {
        let names: Vec<&str> = object.keys().map(String::as_str).take(8).collect();
        Refused::new(
            Code::MissingMember,
            format!("`{name}` is missing"),
            &names.join(", "),
        )
    })
}

pub(super) fn text<'a>(object: &'a Object, name: &str) -> Result<&'a str, Refused> {
    let json = member(object, name)?;
    json.as_str().ok_or_else(|| wrong(name, "a string", json))
}

pub(super) fn wrong(what: &str, wanted: &str, found: &Json) -> Refused {
    let kind = match found {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    };
    let hint = format!("`{what}` must be {wanted}, not {kind}");
    Refused::new(Code::WrongType, hint, &found.to_string())
}

/// A scalar and what is to be said of it: an integer beyond 2^53 is rounded, null is no value.
pub(super) fn scalar(json: &Json) -> Option<(Value, Quality)> {
    Some(match json {
        Json::Null => (Value::None, Quality::BAD),
        Json::Bool(flag) => (Value::Flag(*flag), Quality::GOOD),
        Json::Number(number) => {
            let is_exact = match (number.as_u64(), number.as_i64()) {
                (Some(whole), _) => whole <= EXACT_MAX,
                (None, Some(whole)) => whole.unsigned_abs() <= EXACT_MAX,
                _ => true,
            };
            let quality = if is_exact {
                Quality::GOOD
            } else {
                Quality::UNCERTAIN
            };
            (Value::Number(number.as_f64()?), quality)
        }
        Json::String(text) => (Value::Text(cut(text, TEXT_BYTES_MAX).to_owned()), Quality::GOOD),
        Json::Array(_) | Json::Object(_) => return None,
    })
}

/// What belongs to every value of a message.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) device: Option<String>,
    pub(super) time: Option<(Micros, TimeForm)>,
    pub(super) quality: Quality,
    pub(super) rev: Option<i64>,
}

impl Context {
    pub(super) fn of(device: Option<&str>) -> Self {
        Self {
            device: device.filter(|name| !name.is_empty()).map(str::to_owned),
            time: None,
            quality: Quality::GOOD,
            rev: None,
        }
    }

    /// The worse of what the message says and what its value shows.
    pub(super) fn item(&self, name: &str, (value, quality): (Value, Quality)) -> Item {
        let worse = |quality: Quality| quality.code() >> 14;
        Item {
            device: self.device.clone(),
            name: name.to_owned(),
            value,
            time_us: self.time.map(|(time_us, _)| time_us),
            time_form: self.time.map_or(TimeForm::Absent, |(_, form)| form),
            quality: if worse(quality) > worse(self.quality) {
                quality
            } else {
                self.quality
            },
            rev: self.rev,
        }
    }

    /// Every member of an object as a value; nested ones by `outer.inner`, those of arrays by `outer.0`.
    pub(super) fn items(&self, object: &Object, out: &mut Vec<Item>) {
        self.nested("", object, out);
    }

    fn nested(&self, prefix: &str, object: &Object, out: &mut Vec<Item>) {
        for (key, json) in object {
            let name = if prefix.is_empty() {
                key.clone()
            } else {
                format!("{prefix}.{key}")
            };
            self.any(&name, json, out);
        }
    }

    /// Members of an array are named by their place: nothing in a message is passed over.
    fn any(&self, name: &str, json: &Json, out: &mut Vec<Item>) {
        match json {
            Json::Object(inner) => self.nested(name, inner, out),
            Json::Array(list) => {
                for (place, one) in list.iter().enumerate() {
                    self.any(&format!("{name}.{place}"), one, out);
                }
            }
            scalar_json => out.extend(scalar(scalar_json).map(|scalar| self.item(name, scalar))),
        }
    }
}

/// The first of these members, read as a time.
pub(super) fn time(object: &Object, names: &[&str]) -> Result<Option<(Micros, TimeForm)>, Refused> {
    let found = names.iter().find_map(|name| Some((*name, object.get(*name)?)));
    found.map_or(Ok(None), |(name, json)| time::of_json(name, json).map(Some))
}

/// The first of these members, read as a quality; good when there is none.
pub(super) fn quality(object: &Object, names: &[&str]) -> Result<Quality, Refused> {
    let found = names.iter().find_map(|name| Some((*name, object.get(*name)?)));
    found.map_or(Ok(Quality::GOOD), |(name, json)| quality_of(name, json))
}

/// The member `rev`: which version of a value for its time this is.
pub(super) fn rev(object: &Object) -> Result<Option<i64>, Refused> {
    let Some(json) = object.get("rev").filter(|json| !json.is_null()) else {
        return Ok(None);
    };
    let number = json.as_i64().filter(|number| *number >= 0);
    number
        .map(Some)
        .ok_or_else(|| wrong("rev", "a whole number from 0", json))
}

/// Words, OPC UA status codes and the classic 192, 64, 0 as quality; 500 is Ignition's bad.
pub(super) fn quality_of(name: &str, json: &Json) -> Result<Quality, Refused> {
    let quality = match json {
        Json::String(text) => match text.to_ascii_lowercase().as_str() {
            "good" | "ok" => Some(Quality::GOOD),
            "uncertain" => Some(Quality::UNCERTAIN),
            "bad" | "error" => Some(Quality::BAD),
            _ => None,
        },
        Json::Bool(is_good) => Some(if *is_good { Quality::GOOD } else { Quality::BAD }),
        Json::Number(number) => number.as_u64().and_then(quality_of_number),
        Json::Object(status) => status
            .get("Code")
            .or_else(|| status.get("code"))
            .and_then(Json::as_u64)
            .and_then(quality_of_number),
        Json::Null => Some(Quality::GOOD),
        Json::Array(_) => None,
    };
    quality.ok_or_else(|| wrong(name, "good, uncertain or bad, or a status code", json))
}

fn quality_of_number(number: u64) -> Option<Quality> {
    match number {
        // OPC UA: 0 is good, everything from 2^30 on carries its severity in the top bits.
        0 | 192..=219 => Some(Quality::GOOD),
        64..=95 => Some(Quality::UNCERTAIN),
        1..=63 | 500..=599 => Some(Quality::BAD),
        _ => u32::try_from(number)
            .ok()
            .filter(|code| *code >= 1 << 16)
            .map(Quality::from_opcua),
    }
}
