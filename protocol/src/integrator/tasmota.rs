//! Tasmota (`tele/DEVICE/SENSOR`), Zigbee2MQTT (`zigbee2mqtt/DEVICE`) and Shelly (`shellies/DEVICE/…`): nested JSON, its
//! members named `outer.inner`, with an optional time; or a bare value.

use serde_json::Value as Json;

use super::{
    Message, Refused,
    json::{self, Context},
};

const TIMES: [&str; 4] = ["Time", "time", "last_seen", "timestamp"];

pub(super) fn parse(topic: &str, text: &str) -> Result<Message, Refused> {
    let json = json::read(text)?;
    let levels: Vec<&str> = topic.split('/').collect();
    let device = levels.get(1).copied();
    let mut items = Vec::new();
    match &json {
        Json::Object(object) => {
            let context = Context {
                time: json::time(object, &TIMES)?,
                ..Context::of(device)
            };
            let mut rest = object.clone();
            rest.retain(|key, _| !TIMES.contains(&key.as_str()));
            context.items(&rest, &mut items);
        }
        Json::Array(_) => return Err(json::wrong("message", "an object", &json)),
        scalar => {
            let name = levels.get(2..).unwrap_or_default().join(".");
            let name = if name.is_empty() { "state".to_owned() } else { name };
            items.extend(json::scalar(scalar).map(|scalar| Context::of(device).item(&name, scalar)));
        }
    }
    Ok(Message::Readings(items))
}
