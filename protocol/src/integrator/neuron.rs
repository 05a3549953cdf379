//! EMQ Neuron: `{"timestamp", "node", "group", "values": {TAG: value}, "errors": {TAG: code}}`, or `"tags": [{"name",
//! "value"}, {"name", "error"}]`. An error is a bad value, never an absent one.

use serde_json::Value as Json;

use super::{
    Item, Message, Refused, Value,
    json::{self, Context},
};
use crate::Quality;

pub(super) fn parse(json: &Json) -> Result<Message, Refused> {
    let object = json::object(json, "message")?;
    let context = Context {
        time: json::time(object, &["timestamp"])?,
        ..Context::of(object.get("node").and_then(Json::as_str))
    };
    let failed = |name: &str| context.item(name, (Value::None, Quality::BAD_DEVICE_FAILURE));
    let mut items: Vec<Item> = Vec::new();
    if let Some(tags) = object.get("tags") {
        for tag in json::array(tags, "tags")? {
            let tag = json::object(tag, "tags")?;
            let name = json::text(tag, "name")?;
            items.push(match tag.get("value").and_then(json::scalar) {
                Some(scalar) => context.item(name, scalar),
                None => failed(name),
            });
        }
        return Ok(Message::Readings(items));
    }
    if let Some(values) = object.get("values") {
        context.items(json::object(values, "values")?, &mut items);
    }
    if let Some(errors) = object.get("errors") {
        let errors = json::object(errors, "errors")?;
        items.extend(errors.keys().map(|name| failed(name)));
    }
    if !object.contains_key("values") && !object.contains_key("errors") {
        json::member(object, "values")?;
    }
    Ok(Message::Readings(items))
}
