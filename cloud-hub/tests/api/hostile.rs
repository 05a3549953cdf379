//! What would a caller send who means harm, or knows nothing? Requests of the right form with random values, among
//! them other tenants' ids, cursors and schema names, pieces of SQL, control characters and values of wrong types.

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::specimen::{
    Api, Operation, Parameter, Prepared, alternatives, bytes, encoded, kind, plain, strings,
};

/// Texts that break what is put together carelessly.
const NASTY: &[&str] = &[
    "'; DROP TABLE supplier; --",
    "' OR '1'='1",
    "\"; RESET ROLE; SELECT * FROM platform.tenant; --",
    "') UNION SELECT event FROM audit_event --",
    "$1",
    "%",
    "_",
    "\\",
    "\u{0}",
    "a\u{0}b",
    "\u{1}\u{7f}\u{85}",
    "\r\nSet-Cookie: a=b",
    "../../../etc/passwd",
    "{\"$ref\":\"#\"}",
    "\u{202e}\u{feff}é\u{1f9ea}",
    "",
    " ",
    "null",
    "-1",
    "99999999999999999999999999",
    "1e400",
    "2026-02-30",
    "infinity",
    "{1,2}",
    "foodflow.lines",
];

/// Where random requests take their values from.
#[derive(Debug)]
pub(crate) struct Hostile<'a> {
    pub(crate) api: &'a Api,
    /// Ids of rows of all tenants.
    pub(crate) ids: &'a [Uuid],
    /// Schema names, slugs, cursors and whatever else names somebody's data.
    pub(crate) words: &'a [String],
}

impl Hostile<'_> {
    /// A random request of an operation; about one value in twelve is not what the document asks for.
    pub(crate) fn request(&self, operation: &Operation, rng: &mut StdRng) -> Prepared {
        let mut path = operation.path.clone();
        for Parameter { name, schema, .. } in &operation.variables {
            let value = plain(&self.value(schema, rng));
            // An empty part would be another path.
            let value = if value.is_empty() {
                "0".to_owned()
            } else {
                encoded(&value)
            };
            path = path.replace(&format!("{{{name}}}"), &value);
        }
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        for parameter in &operation.parameters {
            if !parameter.is_required && rng.random_bool(0.6) {
                continue;
            }
            let value = match parameter.name.as_str() {
                "if-match" => format!("\"{}\"", rng.random_range(1..4)),
                _ => plain(&self.value(&parameter.schema, rng)),
            };
            if parameter.is_header {
                headers.push((parameter.name.clone(), value));
            } else {
                query.push(format!("{}={}", encoded(&parameter.name), encoded(&value)));
            }
        }
        if rng.random_bool(0.03) {
            query.push(format!(
                "{}={}",
                encoded(&self.word(rng)),
                encoded(&self.word(rng))
            ));
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        if rng.random_bool(0.05) {
            headers.push(("x-change-reason".to_owned(), self.word(rng)));
            headers.push(("idempotency-key".to_owned(), self.word(rng)));
        }
        let body = operation.body.as_ref().map(|(media, schema)| {
            let value = self.value(schema, rng);
            (media.clone(), bytes(media, &value))
        });
        Prepared {
            method: operation.method.clone(),
            path,
            headers,
            body,
        }
    }

    fn value(&self, schema: &Value, rng: &mut StdRng) -> Value {
        let schema = self.api.resolved(schema);
        if rng.random_bool(0.08) {
            return self.anything(rng);
        }
        if let Some(all) = schema["enum"].as_array() {
            return all.choose(rng).cloned().unwrap_or_default();
        }
        if let Some(one) = alternatives(schema).choose(rng) {
            return self.value(one, rng);
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let parts = parts.iter().map(|part| self.value(part, rng));
            let fields = parts.filter_map(|part| part.as_object().cloned());
            return Value::Object(fields.flatten().collect());
        }
        match kind(schema) {
            "object" => Value::Object(self.fields(schema, rng)),
            "array" => {
                let least = schema["minItems"].as_u64().unwrap_or(0);
                (0..least + rng.random_range(0..3))
                    .map(|_| self.value(&schema["items"], rng))
                    .collect()
            }
            "integer" => json!(integer(schema, rng)),
            "number" => json!(
                *[0.0, -1.5, 73.2, 1e300, 100.0]
                    .choose(rng)
                    .expect("there are some")
            ),
            "boolean" => json!(rng.random_bool(0.5)),
            "string" => self.text(schema, rng),
            _ => self.anything(rng),
        }
    }

    fn fields(&self, schema: &Value, rng: &mut StdRng) -> Map<String, Value> {
        let required = strings(&schema["required"]);
        let mut fields = Map::new();
        for (field, of) in schema["properties"].as_object().into_iter().flatten() {
            if required.contains(&field.as_str()) || rng.random_bool(0.4) {
                fields.insert(field.clone(), self.value(of, rng));
            }
        }
        if rng.random_bool(0.02) {
            fields.insert(self.word(rng), self.anything(rng));
        }
        fields
    }

    fn text(&self, schema: &Value, rng: &mut StdRng) -> Value {
        match schema["format"].as_str() {
            Some("uuid") => json!(self.ids.choose(rng).copied().unwrap_or_default()),
            Some("date") => json!(format!(
                "20{:02}-{:02}-{:02}",
                rng.random_range(0..99),
                rng.random_range(1..13),
                28
            )),
            _ => json!(self.word(rng)),
        }
    }

    fn word(&self, rng: &mut StdRng) -> String {
        match rng.random_range(0..10) {
            0..3 => (*NASTY.choose(rng).expect("there are some")).to_owned(),
            3..6 => self.words.choose(rng).cloned().unwrap_or_default(),
            6 => self.ids.choose(rng).copied().unwrap_or_default().to_string(),
            7 => "x".repeat(rng.random_range(1..3000)),
            _ => format!("word{}", rng.random_range(0..1_000_000)),
        }
    }

    fn anything(&self, rng: &mut StdRng) -> Value {
        match rng.random_range(0..7) {
            0 => Value::Null,
            1 => json!(integer(&Value::Null, rng)),
            2 => json!([]),
            3 => json!({}),
            4 => json!(true),
            5 => json!([self.word(rng)]),
            _ => json!(self.word(rng)),
        }
    }
}

fn integer(schema: &Value, rng: &mut StdRng) -> i64 {
    let near = schema["minimum"].as_i64().unwrap_or(1);
    *[
        near,
        near + 1,
        near - 1,
        0,
        1,
        2,
        7,
        i64::from(i32::MAX),
        i64::MAX,
        i64::MIN,
        1_790_000_000_000_000,
    ]
    .choose(rng)
    .expect("there are some")
}
