//! thin-edge.io: `te/device/ID///m/TYPE` measurements, `…/a/TYPE` alarms (empty: cleared), `…/e/…` events and the rest.

use super::{
    Code, Message, Refused,
    json::{self, Context},
};

pub(super) fn parse(topic: &str, text: &str) -> Result<Message, Refused> {
    let levels: Vec<&str> = topic.split('/').collect();
    let [_, kind, id, _, service, channel, rest @ ..] = levels.as_slice() else {
        let hint = "thin-edge.io's topics are te/device/<id>///m/<type>";
        return Err(Refused::new(Code::BadTopic, hint, topic));
    };
    let device = if *kind == "device" && service.is_empty() {
        (*id).to_owned()
    } else {
        format!("{id}/{service}")
    };
    match *channel {
        "m" => {
            let json = json::read(text)?;
            let mut object = json::object(&json, "message")?.clone();
            let context = Context {
                time: json::time(&object, &["time"])?,
                ..Context::of(Some(&device))
            };
            object.remove("time");
            let mut items = Vec::new();
            context.items(&object, &mut items);
            Ok(Message::Readings(items))
        }
        "a" => {
            let cleared = text.trim().is_empty();
            let said = if cleared {
                None
            } else {
                let json = json::read(text)?;
                let object = json::object(&json, "message")?;
                Some(
                    object
                        .get("text")
                        .and_then(|text| text.as_str())
                        .unwrap_or_default()
                        .to_owned(),
                )
            };
            Ok(Message::Alarm {
                device: Some(device),
                name: rest.first().copied().unwrap_or_default().to_owned(),
                text: said,
            })
        }
        _ => Ok(Message::Other),
    }
}
