//! What of the alarms is shown? The list for the page, `/status.json` and `/metrics`; in a flood the first one and
//! the most urgent, the rest by number.

use protocol::{Micros, alarm::AlarmState};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Register,
    config::Guidance,
    is_hidden,
    kpi::{AlarmCounts, Flood, STALE_US},
};

/// One alarm that is not Normal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlarmStatus {
    /// Identity of the occurrence.
    pub id: Uuid,
    /// Stable machine name; with `subject` it names the alarm in an action.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// Code of the line, when it has one.
    pub line: Option<String>,
    /// Its state.
    pub state: AlarmState,
    /// Whether the condition is true, whatever the state.
    pub is_active: bool,
    /// 1 most urgent, 2, 3; 4 is diagnostic.
    pub priority: u8,
    /// Whether hiding it takes two people.
    pub is_critical: bool,
    /// When it became active, or returned.
    pub since_us: Option<Micros>,
    /// Until when it is shelved.
    pub shelved_until_us: Option<Micros>,
    /// The value that it was judged by last.
    pub value: Option<f64>,
    /// For people.
    pub message: String,
    /// For people.
    #[serde(flatten)]
    pub guidance: Guidance,
}

/// All that is shown of the alarms.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AlarmBoard {
    /// Alarms that are not Normal, most urgent and then oldest first. In a flood only the first one and those of
    /// priority 1; the others are in `flood`.
    pub shown: Vec<AlarmStatus>,
    /// The flood, while it lasts.
    pub flood: Option<Flood>,
    /// Counters.
    pub counts: AlarmCounts,
}

impl Register {
    /// What is shown now.
    pub fn status(&self, now_us: Micros) -> AlarmBoard {
        let mut counts = self.kpi.counts();
        let mut shown = Vec::new();
        for entry in self.entries.values() {
            let machine = &entry.machine;
            let state = machine.state();
            if state == AlarmState::Normal {
                continue;
            }
            let since_us = machine.turned_us();
            counts.standing += usize::from(machine.is_active() && !is_hidden(state));
            counts.hidden += usize::from(is_hidden(state));
            counts.stale += usize::from(
                machine.is_active() && since_us.is_some_and(|since_us| now_us - since_us > STALE_US),
            );
            let name = machine.name();
            shown.push(AlarmStatus {
                id: machine.occurrence(),
                code: name.code.clone(),
                subject: name.subject.clone(),
                line: name.line.clone(),
                state,
                is_active: machine.is_active(),
                priority: entry.rule.priority,
                is_critical: entry.rule.is_critical,
                since_us,
                shelved_until_us: machine.shelved_until_us(),
                value: machine.value(),
                message: entry.message.clone(),
                guidance: entry.guidance.clone(),
            });
        }
        shown.sort_by_key(|alarm| (alarm.priority, alarm.since_us));
        let flood = self.kpi.flood().cloned();
        if let Some(flood) = &flood {
            shown.retain(|alarm| {
                alarm.priority == 1
                    || (alarm.code == flood.first_code && alarm.subject == flood.first_subject)
            });
        }
        AlarmBoard { shown, flood, counts }
    }
}
