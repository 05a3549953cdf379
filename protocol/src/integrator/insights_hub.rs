//! Siemens Insights Hub: `tc/TENANT/CLIENT/o/mc_v3/ts` with `{"timeseries": [{"timestamp", "values": [{"dataPointId",
//! "value", "qualityCode"}]}]}`.

use serde_json::Value as Json;

use super::{
    Code, Message, Refused, Value,
    json::{self, Context},
};
use crate::Quality;

pub(super) fn parse(topic: &str, json: &Json) -> Result<Message, Refused> {
    let device = topic.strip_prefix("tc/").and_then(|rest| rest.split('/').nth(1));
    let object = json::object(json, "message")?;
    let mut items = Vec::new();
    for series in json::array(json::member(object, "timeseries")?, "timeseries")? {
        let series = json::object(series, "timeseries")?;
        let time = json::time(series, &["timestamp"])?;
        for value in json::array(json::member(series, "values")?, "values")? {
            let value = json::object(value, "values")?;
            let context = Context {
                time,
                quality: code(value.get("qualityCode"))?,
                ..Context::of(device)
            };
            let scalar = json::member(value, "value").map(json::scalar)?;
            let scalar = scalar.ok_or_else(|| json::wrong("value", "a string or a number", &Json::Null))?;
            items.push(context.item(json::text(value, "dataPointId")?, number(scalar)));
        }
    }
    Ok(Message::Readings(items))
}

/// Numbers are written as text there.
fn number((value, quality): (Value, Quality)) -> (Value, Quality) {
    if let Value::Text(text) = &value
        && let Some(number) = text.parse::<f64>().ok().filter(|number| number.is_finite())
    {
        return (Value::Number(number), quality);
    }
    (value, quality)
}

/// OPC classic: 0 is bad here, 192 good; written as text.
fn code(json: Option<&Json>) -> Result<Quality, Refused> {
    let number = match json {
        None | Some(Json::Null) => return Ok(Quality::GOOD),
        Some(Json::String(text)) => text.parse::<u64>().ok(),
        Some(Json::Number(number)) => number.as_u64(),
        Some(_) => None,
    };
    match number {
        Some(192..=255) => Ok(Quality::GOOD),
        Some(64..=127) => Ok(Quality::UNCERTAIN),
        Some(0..=63) => Ok(Quality::BAD),
        _ => Err(Refused::new(
            Code::WrongType,
            "`qualityCode` must be an OPC quality: 192 good, 64 uncertain, 0 bad",
            &json.map(ToString::to_string).unwrap_or_default(),
        )),
    }
}
