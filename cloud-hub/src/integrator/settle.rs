//! What does a client hear once its message is stored, or is not? A PUBACK with its reason, an error, an echo.

use protocol::integrator::{Fact, Refused};
use serde_json::{Value, json};

use super::{
    read::Said,
    store::{Outcome, State},
    told::{echo, reason_code},
};
use crate::broker::Settled;

/// What is to be told of one message.
#[derive(Debug)]
pub(super) struct Verdict {
    /// For the broker, which then acknowledges.
    pub(super) settled: Settled,
    /// Everything of it that was not taken.
    pub(super) refused: Vec<Refused>,
    /// What became of each value.
    pub(super) states: Vec<State>,
}

/// Judges a message once the database has it.
pub(super) fn verdict(said: &Said, outcome: Outcome) -> Verdict {
    let refused: Vec<Refused> = said.refused.iter().cloned().chain(outcome.refused).collect();
    let is_nothing_taken = outcome.states.iter().all(|state| *state == State::Refused)
        && (said.is_refused_whole() || !said.facts.is_empty());
    let settled = match refused.first() {
        Some(first) if is_nothing_taken => Settled::Refused {
            code: reason_code(first.code),
            reason: first.to_string(),
        },
        _ => Settled::Stored,
    };
    Verdict {
        settled,
        refused,
        states: outcome.states,
    }
}

impl Verdict {
    /// The message as it was understood.
    pub(super) fn echo(&self, said: &Said) -> Value {
        let facts: Vec<(&Fact, State)> = said.facts.iter().zip(self.states.iter().copied()).collect();
        let mut shown = echo(&said.topic, said.dialect, &facts, &self.refused);
        let count = |name: &str| self.states.iter().filter(|state| state.name() == name).count();
        shown["counts"] = json!({
            "stored": count("stored"), "duplicate": count("duplicate"), "revised": count("revised"),
            "superseded": count("superseded"), "held": count("held"),
            "dismissed": count("dismissed"), "refused": self.refused.len(),
        });
        if !said.presence.is_empty() {
            let devices = said
                .presence
                .iter()
                .map(|(device, is_online)| json!({ "device": device, "is_online": is_online }));
            shown["devices"] = devices.collect();
        }
        shown
    }
}
