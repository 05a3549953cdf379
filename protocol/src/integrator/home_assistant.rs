//! Home Assistant's discovery: `homeassistant/COMPONENT/…/config` announces a value, its unit and where it is published.
//! Only templates that are a path are understood: `{{ value_json.a.b }}`.

use super::{
    Code, Discovery, Message, Refused,
    json::{self, Object},
    native,
};

pub(super) fn parse(topic: &str, text: &str) -> Result<Message, Refused> {
    if !topic.ends_with("/config") {
        return native::parse(topic, text);
    }
    if text.trim().is_empty() {
        // An empty retained message takes an announcement back.
        return Ok(Message::Other);
    }
    let json = json::read(text)?;
    let object = json::object(&json, "message")?;
    let optional = |long: &str, short: &str| {
        let found = object.get(long).or_else(|| object.get(short));
        found.and_then(|json| json.as_str()).map(str::to_owned)
    };
    let state_topic = optional("state_topic", "stat_t");
    let state_topic = state_topic.map_or_else(|| json::text(object, "state_topic").map(str::to_owned), Ok)?;
    let unique_id = optional("unique_id", "uniq_id").unwrap_or_else(|| state_topic.clone());
    Ok(Message::Discovery(Discovery {
        name: optional("name", "name").unwrap_or_else(|| unique_id.clone()),
        member: optional("value_template", "val_tpl")
            .map(|template| path(&template))
            .transpose()?,
        unit: optional("unit_of_measurement", "unit_of_meas"),
        expire_after_s: expire_after(object),
        unique_id,
        state_topic,
    }))
}

fn expire_after(object: &Object) -> Option<u32> {
    let json = object.get("expire_after").or_else(|| object.get("exp_aft"))?;
    json.as_u64().and_then(|seconds| u32::try_from(seconds).ok())
}

/// `a.b` of `{{ value_json.a.b }}` and of `{{ value_json['a'] }}`.
fn path(template: &str) -> Result<String, Refused> {
    let inner = template
        .trim()
        .strip_prefix("{{")
        .and_then(|rest| rest.strip_suffix("}}"))
        .map(str::trim);
    let path = inner
        .and_then(|inner| inner.strip_prefix("value_json"))
        .map(|rest| {
            rest.replace("']['", ".")
                .replace("['", ".")
                .replace("[\"", ".")
                .replace("']", "")
                .replace("\"]", "")
        });
    let path = path.and_then(|path| path.strip_prefix('.').map(str::to_owned));
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ' ');
    path.filter(|path| !path.is_empty() && path.chars().all(is_word) && !path.contains(" |"))
        .ok_or_else(|| {
            let hint = "a value_template must be a path like {{ value_json.temperature }}; filters are not understood";
            Refused::new(Code::Template, hint, template)
        })
}
