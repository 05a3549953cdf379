//! Who did what, when and why? Entries of the tenant's audit chain, as canonical JSON, and the hash that links them.
//! They are written last in the transaction of the deed, by the database's `record()`: see decision 13.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person who signed in.
    User {
        /// Their account.
        id: Uuid,
        /// Their name when they acted.
        name: String,
    },
    /// A machine with an API key.
    ApiKey {
        /// The key.
        id: Uuid,
        /// Its name.
        name: String,
    },
    /// Who holds a token that the command line printed, or works at the command line itself.
    Operator {
        /// What for: a role, or a command.
        name: String,
    },
    /// An edge.
    Edge {
        /// Its name.
        name: String,
    },
    /// A duty of the hub itself.
    Hub {
        /// Which.
        duty: &'static str,
    },
    /// Nobody known: an attempt to sign in.
    Nobody,
}

impl Actor {
    /// The actor's kind in the chain.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::ApiKey { .. } => "api_key",
            Self::Operator { .. } => "operator",
            Self::Edge { .. } => "edge",
            Self::Hub { .. } => "hub",
            Self::Nobody => "nobody",
        }
    }

    /// What tells this actor from others of its kind.
    pub fn id(&self) -> Option<String> {
        match self {
            Self::User { id, .. } | Self::ApiKey { id, .. } => Some(id.to_string()),
            Self::Operator { name } | Self::Edge { name } => Some(name.clone()),
            Self::Hub { duty } => Some((*duty).to_owned()),
            Self::Nobody => None,
        }
    }

    /// One text for both, the owner of idempotency keys.
    pub fn key(&self) -> String {
        format!("{}:{}", self.kind(), self.id().unwrap_or_default())
    }

    /// How people call this actor.
    pub fn display(&self) -> String {
        let id = || self.id().unwrap_or_else(|| self.kind().to_owned());
        self.name().map_or_else(id, str::to_owned)
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::User { name, .. } | Self::ApiKey { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// One deed. Values are what the API shows of a record; secrets never get here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deed {
    /// A verb: `create`, `update`, `start`, `denied`.
    pub action: &'static str,
    /// The kind of record: its table.
    pub entity: &'static str,
    /// Which one.
    pub entity_id: Option<String>,
    /// As it was; absent for what did not exist.
    pub before: Option<Value>,
    /// As it is now; absent for what is gone.
    pub after: Option<Value>,
}

impl Deed {
    /// A deed on one record.
    pub fn on(action: &'static str, entity: &'static str, id: impl Display) -> Self {
        Self {
            action,
            entity,
            entity_id: Some(id.to_string()),
            ..Self::default()
        }
    }

    /// With what it was before.
    #[must_use]
    pub fn before(mut self, record: impl Serialize) -> Self {
        self.before = Some(value(record));
        self
    }

    /// With what it is now.
    #[must_use]
    pub fn after(mut self, record: impl Serialize) -> Self {
        self.after = Some(value(record));
        self
    }
}

/// A record as JSON. What cannot be one (a map with keys that are no text) is recorded as such, not lost.
pub fn value(record: impl Serialize) -> Value {
    serde_json::to_value(record).unwrap_or_else(|error| json!({ "unserialisable": error.to_string() }))
}

/// The chain's text of a deed.
pub fn entry(
    deed: &Deed,
    actor: &Actor,
    at: DateTime<Utc>,
    correlation_id: &str,
    why: Option<&str>,
) -> String {
    canonical(&json!({
        "action": deed.action,
        "actor": { "kind": actor.kind(), "id": actor.id(), "name": actor.name() },
        "after": deed.after,
        "at_us": at.timestamp_micros(),
        "before": deed.before,
        "correlation_id": correlation_id,
        "entity": deed.entity,
        "entity_id": deed.entity_id,
        "why": why,
    }))
}

/// JSON with sorted keys and no white space, so that equal records have equal bytes.
///
/// ```
/// use cloud_hub::kernel::audit::canonical;
/// assert_eq!(canonical(&serde_json::json!({ "b": [1, null], "a": "ü" })), r#"{"a":"ü","b":[1,null]}"#);
/// ```
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            text.push('{');
            for (place, key) in keys.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(&fields[key], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// What the first entry of a chain has for its predecessor's hash.
pub const GENESIS: [u8; 32] = [0; 32];

/// The hash of an entry: `SHA-256(prev_hash ‖ seq as 8 bytes, big-endian ‖ event)`. The database computes the same
/// when it writes; this is for whoever verifies.
pub fn link(prev_hash: &[u8; 32], seq: i64, event: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(prev_hash);
    hash.update(seq.to_be_bytes());
    hash.update(event.as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_records_have_equal_bytes_whatever_the_order_of_their_fields() {
        let one: Value = serde_json::from_str(r#"{ "z": {"y": 1.50, "x": "a\"\u0001"}, "a": [] }"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"a":[],"z":{"x":"a\"\u0001","y":1.5}}"#).unwrap();
        assert_eq!(canonical(&one), canonical(&other));
        assert_eq!(canonical(&one), r#"{"a":[],"z":{"x":"a\"\u0001","y":1.5}}"#);
    }

    #[test]
    fn an_entry_says_who_what_when_and_why_and_its_hash_follows_every_byte() {
        let actor = Actor::Edge {
            name: "akron-1".to_owned(),
        };
        let at = DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap();
        let text = entry(
            &Deed::on("hold", "lot", "x").after(json!({ "status": "held" })),
            &actor,
            at,
            "c-1",
            Some("dip"),
        );
        assert_eq!(
            text,
            r#"{"action":"hold","actor":{"id":"akron-1","kind":"edge","name":null},"after":{"status":"held"},"at_us":1700000000000001,"before":null,"correlation_id":"c-1","entity":"lot","entity_id":"x","why":"dip"}"#
        );
        let whole = link(&GENESIS, 1, &text);
        assert_ne!(whole, link(&GENESIS, 2, &text));
        assert_ne!(whole, link(&GENESIS, 1, &text.replace("held", "helt")));
        assert_ne!(whole, link(&[1; 32], 1, &text));
    }
}
