//! AWS IoT SiteWise: `{"propertyAlias", "propertyValues": [{"value": {"doubleValue"}, "timestamp", "quality"}]}`, one or
//! many under `entries`.

use serde_json::Value as Json;

use super::{
    Code, Item, Message, Refused, TimeForm,
    json::{self, Context, Object},
};
use crate::Micros;

pub(super) fn parse(json: &Json) -> Result<Message, Refused> {
    let object = json::object(json, "message")?;
    let mut items = Vec::new();
    match object.get("entries") {
        Some(entries) => {
            for entry in json::array(entries, "entries")? {
                one(json::object(entry, "entries")?, &mut items)?;
            }
        }
        None => one(object, &mut items)?,
    }
    Ok(Message::Readings(items))
}

fn one(entry: &Object, items: &mut Vec<Item>) -> Result<(), Refused> {
    let (device, name) = match entry.get("propertyAlias") {
        Some(_) => {
            let alias = json::text(entry, "propertyAlias")?.trim_start_matches('/');
            alias
                .rsplit_once('/')
                .map_or((None, alias), |(device, name)| (Some(device), name))
        }
        None => (
            Some(json::text(entry, "assetId")?),
            json::text(entry, "propertyId")?,
        ),
    };
    for value in json::array(json::member(entry, "propertyValues")?, "propertyValues")? {
        let value = json::object(value, "propertyValues")?;
        let context = Context {
            time: Some((timestamp(value)?, TimeForm::Nanoseconds)),
            quality: json::quality(value, &["quality"])?,
            ..Context::of(device)
        };
        let variant = json::object(json::member(value, "value")?, "value")?;
        let scalar = [
            "doubleValue",
            "integerValue",
            "booleanValue",
            "stringValue",
            "nullValue",
        ]
        .iter()
        .find_map(|key| json::scalar(variant.get(*key)?));
        let scalar = scalar.ok_or_else(|| {
            json::wrong(
                "value",
                "a doubleValue, integerValue, booleanValue or stringValue",
                &Json::Null,
            )
        })?;
        items.push(context.item(name, scalar));
    }
    Ok(())
}

fn timestamp(value: &Object) -> Result<Micros, Refused> {
    let timestamp = json::object(json::member(value, "timestamp")?, "timestamp")?;
    let part = |name: &str| timestamp.get(name).and_then(Json::as_i64);
    let seconds = part("timeInSeconds").and_then(|seconds| seconds.checked_mul(1_000_000));
    let micros = part("offsetInNanos").unwrap_or(0) / 1_000;
    seconds
        .and_then(|seconds| seconds.checked_add(micros))
        .ok_or_else(|| {
            Refused::new(
                Code::BadTime,
                "`timestamp` must be {\"timeInSeconds\", \"offsetInNanos\"}",
                &Json::Object(timestamp.clone()).to_string(),
            )
        })
}
