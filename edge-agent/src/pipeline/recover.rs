//! What does a start take up of the one before? The states that were kept, the events that reached only the journal,
//! and the record of the time in which nothing ran, as soon as the clock can say how long that was.

use protocol::{
    Micros,
    event::{Event, NotRead},
    tag::Dictionary,
};

use super::{Pipeline, alarm};
use crate::{
    alarm, signal,
    spool::{Batch, Left},
};

/// Since when nothing ran, and when this start was, by a clock that may be wrong.
#[derive(Debug)]
pub(super) struct Pause {
    pub(super) dictionary: Dictionary,
    pub(super) from_us: Micros,
    pub(super) to_us: Micros,
}

impl Pipeline {
    /// Takes up what an earlier start left: control points' states, events that reached only the journal, and the
    /// record of the time in which nothing ran.
    pub fn recover(&mut self, left: Left, dictionary: &Dictionary, now_us: Micros) {
        for (code, state) in &left.store.states {
            let restored = if code.starts_with(signal::STATE_PREFIX) {
                self.signals.restore(code, state).map(|()| Vec::new())
            } else if code == alarm::STATE_KEY {
                self.alarms.restore(state, now_us).map(|()| Vec::new())
            } else {
                self.engine.restore(code, state, now_us)
            };
            match restored {
                Ok(events) => self.events.extend(events),
                Err(reason) => tracing::warn!(%reason, "state not restored"),
            }
        }
        let events = self.alarms.keep_open(&self.engine.deviating(), now_us);
        self.keep(events);
        self.react();
        if let Some(last_us) = left.store.last_sealed_us {
            if now_us < last_us {
                self.unknown_pause = Some(Pause {
                    dictionary: dictionary.clone(),
                    from_us: last_us,
                    to_us: now_us,
                });
            } else {
                self.events.extend(not_running(dictionary, last_us, now_us));
            }
        }
        for path in left.store.set_aside.iter().chain(&left.journal_set_aside) {
            let message = format!("set aside as {}; records in it need a person", path.display());
            let edge = self.health.edge.clone();
            self.note(vec![Event::Alarm(alarm(
                "spool.corrupt",
                &edge,
                &message,
                now_us,
            ))]);
        }
        if !left.unstored.is_empty() {
            // They are in the journal already and must not be written there again.
            let records = self.sealer.seal_events(left.unstored, now_us, self.clock);
            self.hand_over(Batch {
                records,
                states: self.states(),
                journal: Vec::new(),
                sealed_us: now_us,
            });
        }
        self.flush(now_us, false);
    }
}

/// The records of the readings that were due while no agent ran, one a period.
pub(super) fn not_running(dictionary: &Dictionary, from_us: Micros, to_us: Micros) -> Vec<Event> {
    let mut by_period: std::collections::BTreeMap<u32, Vec<_>> = std::collections::BTreeMap::new();
    for tag in dictionary.tags.iter().filter(|tag| tag.period_ms > 0) {
        by_period.entry(tag.period_ms).or_default().push(tag.alias);
    }
    let records = by_period.into_iter().filter_map(|(period_ms, tags)| {
        let due = (to_us - from_us) / (Micros::from(period_ms) * 1000);
        (due > 0).then(|| {
            Event::NotRead(NotRead {
                tags,
                from_us,
                to_us,
                due: u32::try_from(due).unwrap_or(u32::MAX),
                reason: "agent stopped".to_owned(),
            })
        })
    });
    records.collect()
}
