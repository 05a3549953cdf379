//! What of the alarms outlives a restart? Their states; rules and texts are the configuration's.

use std::collections::BTreeSet;

use protocol::{Micros, alarm::machine::AlarmMachine};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Register;

/// Under which key the register's state is saved.
pub const STATE_KEY: &str = "alarm/register";
/// First byte of the saved state.
const STATE_VERSION: u8 = 1;
/// A saved time this far ahead of now was saved before the clock was set back.
const AHEAD_US_MAX: Micros = 3_000_000;

/// What of an alarm outlives a restart.
#[derive(Serialize, Deserialize)]
struct Saved {
    machine: AlarmMachine,
    message: String,
    is_told: bool,
    open: BTreeSet<Uuid>,
}

impl Register {
    /// The state of every alarm that is not as if it had never been, under one key.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        let saved: Vec<Saved> = self
            .entries
            .values()
            .filter(|entry| !entry.machine.is_pristine())
            .map(|entry| Saved {
                machine: entry.machine.clone(),
                message: entry.message.clone(),
                is_told: entry.is_told,
                open: entry.open.clone(),
            })
            .collect();
        match postcard::to_extend(&saved, vec![STATE_VERSION]) {
            Ok(bytes) => vec![(STATE_KEY.to_owned(), bytes)],
            Err(error) => {
                tracing::error!(%error, "the alarms' states cannot be saved");
                Vec::new()
            }
        }
    }

    /// Puts a state from [`snapshot`](Self::snapshot) back. Rules and texts stay the configured ones.
    ///
    /// # Errors
    /// What could not be used, for people; the rest is in force.
    pub fn restore(&mut self, state: &[u8], now_us: Micros) -> Result<(), String> {
        let Some((&STATE_VERSION, bytes)) = state.split_first() else {
            return Err("the alarms' states are of another version".to_owned());
        };
        let saved: Vec<Saved> = postcard::from_bytes(bytes)
            .map_err(|error| format!("the alarms' states cannot be read: {error}"))?;
        let mut gone = Vec::new();
        for saved in saved {
            let name = saved.machine.name().clone();
            let key = (name.code, name.subject);
            let is_configured = self.entries.contains_key(&key);
            if key.0.starts_with("tag.") && !is_configured {
                gone.push(format!("{} {}", key.0, key.1));
                continue;
            }
            if let Some(entry) = self.entry(&key, name.line.as_ref()) {
                entry.machine = saved.machine;
                let ahead_us = entry
                    .machine
                    .newest_us()
                    .map_or(0, |newest_us| newest_us - now_us);
                if ahead_us > AHEAD_US_MAX {
                    entry.machine.set_back(ahead_us);
                }
                if !is_configured {
                    entry.message = saved.message;
                }
                (entry.is_told, entry.open) = (saved.is_told, saved.open);
            }
        }
        if gone.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "alarms that are no longer configured end here: {}",
                gone.join(", ")
            ))
        }
    }
}
