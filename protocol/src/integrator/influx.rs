//! InfluxDB line protocol: `measurement,tag=a,… field=1.0,… 1700000000000000000`. A value is named
//! `measurement.field`; the tags name the device.

use super::{Code, Item, Message, Refused, TEXT_BYTES_MAX, Value, cut, json::Context, time_of_text};
use crate::Quality;

/// Whether a text may be line protocol: no JSON, and a field on its first line.
pub(super) fn looks_like(head: &str) -> bool {
    let line = head
        .lines()
        .find(|line| !line.starts_with('#'))
        .unwrap_or_default();
    let starts = line.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    starts && line.contains('=') && split(line, ' ').len() >= 2
}

pub(super) fn parse(_topic: &str, text: &str) -> Result<Message, Refused> {
    let mut items = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if !trimmed.is_empty() && !trimmed.starts_with('#') {
            one(trimmed, &mut items).map_err(|refused| Refused {
                offset: Some(offset),
                ..refused
            })?;
        }
        offset += line.len();
    }
    if items.is_empty() {
        return Err(Refused::new(Code::Empty, "no line holds a value", ""));
    }
    Ok(Message::Readings(items))
}

fn one(line: &str, items: &mut Vec<Item>) -> Result<(), Refused> {
    let parts: Vec<&str> = split(line, ' ')
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    let (key, fields, time) = match parts.as_slice() {
        [key, fields] => (*key, *fields, None),
        [key, fields, time] => (*key, *fields, Some(*time)),
        _ => return Err(bad(line)),
    };
    let mut keys = split(key, ',').into_iter();
    let measurement = unescape(keys.next().unwrap_or_default());
    let tags: Vec<String> = keys
        .map(|tag| split(tag, '=').get(1).map(|value| unescape(value)))
        .collect::<Option<_>>()
        .ok_or_else(|| bad(line))?;
    let device = tags.join("/");
    let mut context = Context::of(Some(&device));
    if let Some(time) = time {
        let read = time_of_text(time);
        context.time =
            Some(read.ok_or_else(|| Refused::new(Code::BadTime, "the time must be a whole number", time))?);
    }
    for field in split(fields, ',') {
        let pair = split(field, '=');
        let [name, value] = pair.as_slice() else {
            return Err(bad(line));
        };
        let scalar = value_of(value).ok_or_else(|| bad(field))?;
        items.push(context.item(&format!("{measurement}.{}", unescape(name)), scalar));
    }
    Ok(())
}

fn bad(line: &str) -> Refused {
    let hint = "a line is `measurement,tag=value field=value[,field=value] [time]`; whole numbers end in i, text is quoted";
    Refused::new(Code::BadLine, hint, line)
}

fn value_of(text: &str) -> Option<(Value, Quality)> {
    if let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        let plain = quoted.replace("\\\"", "\"");
        return Some((Value::Text(cut(&plain, TEXT_BYTES_MAX).to_owned()), Quality::GOOD));
    }
    match text {
        "t" | "T" | "true" | "True" | "TRUE" => return Some((Value::Flag(true), Quality::GOOD)),
        "f" | "F" | "false" | "False" | "FALSE" => return Some((Value::Flag(false), Quality::GOOD)),
        _ => {}
    }
    if let Some(whole) = text.strip_suffix(['i', 'u']) {
        let number: i128 = whole.parse().ok()?;
        let is_exact = number.unsigned_abs() <= 1 << 53;
        let quality = if is_exact {
            Quality::GOOD
        } else {
            Quality::UNCERTAIN
        };
        return Some((Value::Number(number as f64), quality));
    }
    let number: f64 = text.parse().ok()?;
    number
        .is_finite()
        .then_some((Value::Number(number), Quality::GOOD))
}

/// Splits at a separator that is neither escaped nor in quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut from, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == '"' {
            is_quoted = !is_quoted;
        } else if c == separator && !is_quoted {
            parts.push(&text[from..at]);
            from = at + c.len_utf8();
        }
    }
    parts.push(&text[from..]);
    parts
}

fn unescape(text: &str) -> String {
    text.replace("\\,", ",").replace("\\ ", " ").replace("\\=", "=")
}
