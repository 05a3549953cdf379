//! What does a request of an operation look like? Made from the OpenAPI document, so that an operation that is new
//! is tried like every other: the least that is valid, with given values where the document cannot know better.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use cloud_hub::router;
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{client::http_client, support::TestHub};

/// The API as it describes itself.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) document: Value,
    pub(crate) operations: Vec<Operation>,
}

/// Who may use an operation, as its `security` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, without a token.
    Public,
    /// Whoever is signed in.
    SignedIn,
    /// Who holds all of these permissions.
    Permissions(Vec<String>),
    /// The platform's operators; no tenant's token.
    Platform,
}

/// One operation of the document.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: Method,
    /// Template below `/api/v1`.
    pub(crate) path: String,
    pub(crate) access: Access,
    /// The variable parts of the path.
    pub(crate) variables: Vec<Parameter>,
    /// Of the query and the headers.
    pub(crate) parameters: Vec<Parameter>,
    /// Media type and schema.
    pub(crate) body: Option<(String, Value)>,
}

/// A parameter.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) is_header: bool,
    pub(crate) is_required: bool,
    pub(crate) schema: Value,
}

/// Values by the name of their parameter or property.
pub(crate) type Given = BTreeMap<String, Value>;

/// A request that can be sent by anybody.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) method: Method,
    /// With its query, below `/api/v1`.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<(String, Vec<u8>)>,
}

/// What came back, to the byte.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Api {
    pub(crate) fn read() -> Self {
        let document = serde_json::to_value(router::document()).unwrap();
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                operations.push(Operation::read(path, method, operation));
            }
        }
        Self { document, operations }
    }

    pub(crate) fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let place = reference.trim_start_matches('#');
                self.resolved(self.document.pointer(place).expect("references lead somewhere"))
            }
            None => schema,
        }
    }

    /// The least request that is valid. `given` names values of parameters, properties and variables of the path.
    pub(crate) fn least(&self, operation: &Operation, given: &Given) -> Prepared {
        let mut path = operation.path.clone();
        for Parameter { name, schema, .. } in &operation.variables {
            let value = self.least_value(name, schema, given);
            path = path.replace(&format!("{{{name}}}"), &encoded(&plain(&value)));
        }
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        for parameter in &operation.parameters {
            let name = parameter.name.as_str();
            if !parameter.is_required && !given.contains_key(name) {
                continue;
            }
            let value = match name {
                "if-match" if !given.contains_key(name) => "\"1\"".to_owned(),
                _ => plain(&self.least_value(name, &parameter.schema, given)),
            };
            if parameter.is_header {
                headers.push((name.to_owned(), value));
            } else {
                query.push(format!("{}={}", encoded(name), encoded(&value)));
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        Prepared {
            method: operation.method.clone(),
            path,
            headers,
            body: operation.body.as_ref().map(|(media, schema)| {
                let value = given.get("body").cloned().unwrap_or_else(|| {
                    if media == "application/octet-stream" {
                        // The content of a file: an empty one is none.
                        json!("specimen")
                    } else {
                        self.least_value("", schema, given)
                    }
                });
                (media.clone(), bytes(media, &value))
            }),
        }
    }

    fn least_value(&self, name: &str, schema: &Value, given: &Given) -> Value {
        // What is known by `?name` is taken where it is needed and nowhere else.
        if let Some(value) = given.get(name).or_else(|| given.get(&format!("?{name}"))) {
            return value.clone();
        }
        let schema = self.resolved(schema);
        for key in ["const", "example"] {
            if !schema[key].is_null() {
                return schema[key].clone();
            }
        }
        if let Some(first) = schema["enum"].as_array().and_then(|all| all.first()) {
            return first.clone();
        }
        if let Some(some) = alternatives(schema).first() {
            return self.least_value(name, some, given);
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let mut whole = Map::new();
            for part in parts {
                if let Value::Object(fields) = self.least_value(name, part, given) {
                    whole.extend(fields);
                }
            }
            return Value::Object(whole);
        }
        match kind(schema) {
            "object" => Value::Object(self.least_fields(schema, given)),
            "array" => {
                let count = schema["minItems"].as_u64().unwrap_or(0);
                (0..count)
                    .map(|_| self.least_value(name, &schema["items"], given))
                    .collect()
            }
            // What ends comes after what begins.
            "integer" if name.starts_with("to_") => json!(2),
            "integer" if name == "expires_us" => {
                json!(chrono::Utc::now().timestamp_micros() + 86_400_000_000)
            }
            "integer" => json!(schema["minimum"].as_i64().unwrap_or(1).max(1)),
            "number" => json!(schema["minimum"].as_f64().unwrap_or(1.0).max(1.0)),
            "boolean" => json!(false),
            "string" => json!(text(name, schema)),
            _ => json!({}),
        }
    }

    fn least_fields(&self, schema: &Value, given: &Given) -> Map<String, Value> {
        let required: Vec<&str> = strings(&schema["required"]);
        let mut fields = Map::new();
        for (field, of) in schema["properties"].as_object().into_iter().flatten() {
            if required.contains(&field.as_str()) || given.contains_key(field) {
                fields.insert(field.clone(), self.least_value(field, of, given));
            }
        }
        fields
    }
}

impl Operation {
    fn read(path: &str, method: &str, operation: &Value) -> Self {
        let (mut variables, mut parameters) = (Vec::new(), Vec::new());
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let place = parameter["in"].as_str().unwrap();
            let all = if place == "path" {
                &mut variables
            } else {
                &mut parameters
            };
            all.push(Parameter {
                name: parameter["name"].as_str().unwrap().to_owned(),
                is_header: place == "header",
                is_required: parameter["required"] == true,
                schema: parameter["schema"].clone(),
            });
        }
        // What a macro documented twice is one.
        variables.dedup_by(|a: &mut Parameter, b| a.name == b.name);
        let content = operation["requestBody"]["content"].as_object();
        let body = content.and_then(|content| content.iter().next());
        Self {
            id: operation["operationId"].as_str().unwrap().to_owned(),
            method: method.to_uppercase().parse().unwrap(),
            path: path.strip_prefix("/api/v1").unwrap().to_owned(),
            access: access(&operation["security"]),
            variables,
            parameters,
            body: body.map(|(media, of)| (media.clone(), of["schema"].clone())),
        }
    }
}

impl Operation {
    /// Whether it changes something.
    pub(crate) fn is_change(&self) -> bool {
        self.method != Method::GET
    }
}

/// Several requirements are alternatives; one that a tenant's token can meet decides.
fn access(security: &Value) -> Access {
    let Some(alternatives) = security.as_array().filter(|all| !all.is_empty()) else {
        return Access::Public;
    };
    let Some(bearer) = alternatives.iter().find_map(|one| one.get("bearer")) else {
        return Access::Platform;
    };
    let permissions = strings(bearer);
    if permissions.is_empty() {
        Access::SignedIn
    } else {
        Access::Permissions(permissions.into_iter().map(str::to_owned).collect())
    }
}

impl Prepared {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Ready to be sent to `base`, `http://…/api/v1`. What no header can carry is left out.
    pub(crate) fn request(&self, http: &reqwest::Client, base: &str, token: Option<&str>) -> RequestBuilder {
        let mut request = http.request(self.method.clone(), format!("{base}{}", self.path));
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_bytes(value.as_bytes()),
            ) {
                request = request.header(name, value);
            }
        }
        if let Some((media, bytes)) = &self.body {
            request = request
                .header("content-type", media_header(media))
                .body(bytes.clone());
        }
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

/// Sends prepared requests to one hub.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    http: reqwest::Client,
    base: String,
}

impl Sender {
    pub(crate) fn to(hub: &TestHub) -> Self {
        Self {
            http: http_client(),
            base: hub.url("/api/v1"),
        }
    }

    /// The answer; of one that never ends, its beginning.
    pub(crate) async fn send(&self, prepared: &Prepared, token: Option<&str>) -> Raw {
        let response = prepared
            .request(&self.http, &self.base, token)
            .send()
            .await
            .unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let kind = headers.get("content-type").map(HeaderValue::as_bytes);
        let text = if kind == Some(b"text/event-stream") {
            String::new()
        } else {
            String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned()
        };
        Raw {
            status,
            headers,
            text,
        }
    }
}

impl Raw {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// The form boundary of every multipart body that is made here.
const BOUNDARY: &str = "specimen-boundary";

fn media_header(media: &str) -> String {
    if media == "multipart/form-data" {
        format!("{media}; boundary={BOUNDARY}")
    } else {
        media.replace("*/*", "application/octet-stream")
    }
}

pub(crate) fn bytes(media: &str, value: &Value) -> Vec<u8> {
    match media {
        "application/json" => value.to_string().into_bytes(),
        "multipart/form-data" => form(value),
        "application/x-www-form-urlencoded" => {
            let pairs = value.as_object().into_iter().flatten();
            let pairs = pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(&plain(value))));
            pairs.collect::<Vec<_>>().join("&").into_bytes()
        }
        _ => plain(value).into_bytes(),
    }
}

fn form(value: &Value) -> Vec<u8> {
    let part = |(name, value): (&String, &Value)| {
        let file = if name == "file" {
            "; filename=\"specimen.txt\"\r\ncontent-type: text/plain"
        } else {
            ""
        };
        let head = format!("content-disposition: form-data; name=\"{name}\"{file}");
        format!("--{BOUNDARY}\r\n{head}\r\n\r\n{}\r\n", plain(value))
    };
    let parts: String = value.as_object().into_iter().flatten().map(part).collect();
    format!("{parts}--{BOUNDARY}--\r\n").into_bytes()
}

/// A value as it stands in a URL or header.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

pub(crate) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

/// The type a schema asks for, whether or not it may be null.
pub(crate) fn kind(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|it| *it != "null")
            .unwrap_or(""),
        _ if schema["properties"].is_object() => "object",
        _ => "",
    }
}

/// What a schema offers to choose from, besides null.
pub(crate) fn alternatives(schema: &Value) -> Vec<&Value> {
    let all = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    all.into_iter()
        .flatten()
        .filter(|one| one["type"] != "null")
        .collect()
}

pub(crate) fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// A text of the right form; no two that are free are equal.
fn text(name: &str, schema: &Value) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    match schema["format"].as_str().unwrap_or_default() {
        "uuid" => return Uuid::nil().to_string(),
        "date" => return "2031-01-31".to_owned(),
        "date-time" => return "2031-01-31T00:00:00Z".to_owned(),
        "email" => return format!("specimen{number}@example.org"),
        "uri" | "url" => return format!("https://example.org/{number}"),
        _ => {}
    }
    let made = match name {
        "email" => format!("specimen{number}@example.org"),
        "url" | "issuer" => format!("https://example.org/{number}"),
        "zone" | "time_zone" | "timezone" => "America/New_York".to_owned(),
        "tenant" => "akron".to_owned(),
        _ if name.ends_with("password") => format!("correct horse {number} battery"),
        _ => format!("specimen{number}"),
    };
    let (least, most) = (&schema["minLength"], schema["maxLength"].as_u64());
    let mut made = format!("{made:x<width$}", width = least.as_u64().unwrap_or(0) as usize);
    made.truncate(most.map_or(made.len(), |most| most as usize));
    made
}
