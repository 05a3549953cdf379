//! What happened, for whoever reacts to it? Domain events, written in the transaction of the deed, in the order of
//! commits and numbered for each aggregate.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::audit::canonical;

/// A domain event before it has its number.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// What happened, in the past tense: `BatchStarted`.
    pub kind: String,
    /// The kind of thing it happened to: its table.
    pub aggregate: &'static str,
    /// Which one.
    pub aggregate_id: Uuid,
    /// The facts.
    pub payload: Value,
}

impl NewEvent {
    /// An event.
    pub fn new(kind: impl Into<String>, aggregate: &'static str, aggregate_id: Uuid, payload: Value) -> Self {
        Self {
            kind: kind.into(),
            aggregate,
            aggregate_id,
            payload,
        }
    }

    /// As `record()` takes it.
    pub(super) fn text(&self, at: DateTime<Utc>, correlation_id: &str) -> String {
        canonical(&json!({
            "aggregate": self.aggregate,
            "aggregate_id": self.aggregate_id,
            "at_us": at.timestamp_micros(),
            "correlation_id": correlation_id,
            "kind": self.kind,
            "payload": self.payload,
        }))
    }
}
