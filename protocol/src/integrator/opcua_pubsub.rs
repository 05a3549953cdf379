//! OPC UA PubSub in JSON (Part 14 §7.2.5): `{"MessageType": "ua-data", "PublisherId", "Messages": [{"DataSetWriterName",
//! "Timestamp", "Payload": {TAG: {"Value", "SourceTimestamp", "StatusCode"}}}]}`.

use serde_json::Value as Json;

use super::{Message, Refused, azure, json};

pub(super) fn parse(json: &Json) -> Result<Message, Refused> {
    let network = json::object(json, "message")?;
    if network.get("MessageType").and_then(Json::as_str) != Some("ua-data") {
        return Ok(Message::Other);
    }
    let mut items = Vec::new();
    for message in json::array(json::member(network, "Messages")?, "Messages")? {
        let message = json::object(message, "Messages")?;
        let writer = ["DataSetWriterName", "DataSetWriterId"]
            .iter()
            .find_map(|name| message.get(*name).and_then(Json::as_str));
        let device = writer.or_else(|| network.get("PublisherId").and_then(Json::as_str));
        let from = items.len();
        let payload = json::object(json::member(message, "Payload")?, "Payload")?;
        azure::values(payload, device, &mut items)?;
        if let Some((time_us, form)) = json::time(message, &["Timestamp"])? {
            for item in items[from..].iter_mut().filter(|item| item.time_us.is_none()) {
                (item.time_us, item.time_form) = (Some(time_us), form);
            }
        }
    }
    Ok(Message::Readings(items))
}
