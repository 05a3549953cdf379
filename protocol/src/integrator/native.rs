//! The plainest messages: `23.5`, `{"v": 23.5}`, `{"value": 23.5, "ts": …}`, `{"ts": …, "values": {…}, "q": …}`, a
//! flat object of values, or an array of any of them; `rev` beside a value numbers its versions. The topic names device
//! and value.

use serde_json::Value as Json;

use super::{
    Item, Message, Refused,
    json::{self, Context, Object},
};

const TIMES: [&str; 5] = ["ts", "time", "timestamp", "Time", "timestamp_ms"];
const QUALITIES: [&str; 3] = ["q", "quality", "Quality"];

pub(super) fn parse(topic: &str, text: &str) -> Result<Message, Refused> {
    let json = json::read(text)?;
    let mut items = Vec::new();
    message(topic, &json, &mut items)?;
    Ok(Message::Readings(items))
}

/// Device and value as the topic names them: `…/DEVICE/VALUE`.
fn names(topic: &str) -> (Option<&str>, &str) {
    let mut levels = topic.rsplit('/');
    let last = levels.next().unwrap_or_default();
    (levels.next(), last)
}

fn message(topic: &str, json: &Json, items: &mut Vec<Item>) -> Result<(), Refused> {
    let (before, last) = names(topic);
    match json {
        Json::Array(list) => list.iter().try_for_each(|one| match one {
            Json::Object(_) => message(topic, one, items),
            other => Err(json::wrong("array element", "an object", other)),
        }),
        Json::Object(object) => {
            let device = if ["telemetry", "data"].contains(&last) {
                before
            } else {
                Some(last)
            };
            members(object, (before, last, device), items)
        }
        scalar => {
            items.extend(json::scalar(scalar).map(|scalar| Context::of(before).item(last, scalar)));
            Ok(())
        }
    }
}

fn members(
    object: &Object,
    (before, last, device): (Option<&str>, &str, Option<&str>),
    items: &mut Vec<Item>,
) -> Result<(), Refused> {
    let time = json::time(object, &TIMES)?;
    let quality = json::quality(object, &QUALITIES)?;
    let rev = if ["value", "v", "values"]
        .iter()
        .any(|name| object.contains_key(*name))
    {
        json::rev(object)?
    } else {
        // A flat object is all values, whatever they are called.
        None
    };
    let context = |device| Context {
        time,
        quality,
        rev,
        ..Context::of(device)
    };
    if let Some(value) = object.get("value").or_else(|| object.get("v"))
        && let Some(scalar) = json::scalar(value)
    {
        items.push(context(before).item(last, scalar));
    } else if let Some(values) = object.get("values") {
        context(device).items(json::object(values, "values")?, items);
    } else {
        let mut rest = object.clone();
        rest.retain(|key, _| !TIMES.contains(&key.as_str()) && !QUALITIES.contains(&key.as_str()));
        context(device).items(&rest, items);
    }
    Ok(())
}
