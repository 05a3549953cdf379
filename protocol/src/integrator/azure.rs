//! Azure IoT Operations: `azure-iot-operations/data/ASSET` with `{TAG: {"SourceTimestamp", "Value", "StatusCode"}}`.

use serde_json::Value as Json;

use super::{
    Item, Message, Refused,
    json::{self, Context, Object},
};

pub(super) fn parse(topic: &str, json: &Json) -> Result<Message, Refused> {
    let device = topic.rsplit('/').next();
    let object = json::object(json, "message")?;
    let mut items = Vec::new();
    values(object, device, &mut items)?;
    Ok(Message::Readings(items))
}

/// Data values by name, as OPC UA's JSON encoding writes them; a bare scalar is a value without time.
pub(super) fn values(object: &Object, device: Option<&str>, items: &mut Vec<Item>) -> Result<(), Refused> {
    for (name, json) in object {
        let Json::Object(data) = json else {
            items.extend(json::scalar(json).map(|scalar| Context::of(device).item(name, scalar)));
            continue;
        };
        let context = Context {
            time: json::time(data, &["SourceTimestamp", "ServerTimestamp"])?,
            quality: json::quality(data, &["StatusCode", "Status"])?,
            ..Context::of(device)
        };
        let value = match data.get("Value") {
            // A variant with its type: {"Type": 11, "Body": 4.1}.
            Some(Json::Object(variant)) => variant.get("Body").unwrap_or(&Json::Null),
            Some(value) => value,
            None => &Json::Null,
        };
        let scalar =
            json::scalar(value).ok_or_else(|| json::wrong(name, "a number, a flag or text", value))?;
        items.push(context.item(name, scalar));
    }
    Ok(())
}
