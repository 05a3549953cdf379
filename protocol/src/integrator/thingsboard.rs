//! ThingsBoard: `v1/devices/me/telemetry` with values, `{"ts", "values"}` or an array; `v1/gateway/telemetry` with the
//! same by device; connect, disconnect and attributes of a gateway.

use serde_json::Value as Json;

use super::{
    Code, Item, Message, Refused,
    json::{self, Context, Object},
};

pub(super) fn parse(topic: &str, json: &Json) -> Result<Message, Refused> {
    let mut items = Vec::new();
    match topic {
        "v1/gateway/telemetry" => {
            for (device, list) in json::object(json, "message")? {
                for one in json::array(list, device)? {
                    telemetry(one, Some(device), &mut items)?;
                }
            }
        }
        "v1/gateway/connect" | "v1/gateway/disconnect" => {
            let device = json::text(json::object(json, "message")?, "device")?;
            return Ok(Message::Presence {
                device: Some(device.to_owned()),
                is_online: topic.ends_with("/connect"),
            });
        }
        _ if topic.ends_with("/attributes") => return Ok(Message::Other),
        _ if topic.ends_with("/telemetry") => match json {
            Json::Array(list) => list.iter().try_for_each(|one| telemetry(one, None, &mut items))?,
            one => telemetry(one, None, &mut items)?,
        },
        _ => {
            let hint = "ThingsBoard's topics are v1/devices/me/telemetry, v1/gateway/telemetry, …/attributes, …/connect";
            return Err(Refused::new(Code::BadTopic, hint, topic));
        }
    }
    Ok(Message::Readings(items))
}

fn telemetry(json: &Json, device: Option<&str>, items: &mut Vec<Item>) -> Result<(), Refused> {
    let object: &Object = json::object(json, "telemetry")?;
    let mut context = Context::of(device);
    if let (Some(values), Some(_)) = (object.get("values"), object.get("ts")) {
        context.time = json::time(object, &["ts"])?;
        context.rev = json::rev(object)?;
        context.items(json::object(values, "values")?, items);
    } else {
        context.items(object, items);
    }
    Ok(())
}
