//! United Manufacturing Hub: `umh/v1/ENTERPRISE/…/_historian[/GROUP…]/TAG` with `{"value", "timestamp_ms"}` (core), or
//! `…/_historian` with `{"timestamp_ms", TAG: value, …}` (classic).

use serde_json::Value as Json;

use super::{
    Code, Message, Refused,
    json::{self, Context},
};

pub(super) fn parse(topic: &str, json: &Json) -> Result<Message, Refused> {
    let levels: Vec<&str> = topic.split('/').collect();
    let schema = levels.iter().position(|level| level.starts_with('_'));
    let Some(schema) = schema.filter(|at| *at >= 3) else {
        let hint = "UMH's topics are umh/v1/<enterprise>[/<site>…]/_historian[/<group>]/<tag>";
        return Err(Refused::new(Code::BadTopic, hint, topic));
    };
    let object = json::object(json, "message")?;
    let device = levels[2..schema].join("/");
    let context = Context {
        time: json::time(object, &["timestamp_ms"])?,
        ..Context::of(Some(&device))
    };
    let name = levels[schema + 1..].join(".");
    let mut items = Vec::new();
    match object.get("value").and_then(json::scalar) {
        Some(scalar) if !name.is_empty() => items.push(context.item(&name, scalar)),
        _ => {
            let mut rest = object.clone();
            rest.remove("timestamp_ms");
            context.items(&rest, &mut items);
            if !name.is_empty() {
                for item in &mut items {
                    item.name = format!("{name}.{}", item.name);
                }
            }
        }
    }
    Ok(Message::Readings(items))
}
