//! What is known of one alarm? What the configuration or the standard says of it, and the state that it is in.

use std::collections::BTreeSet;

use protocol::{
    Micros,
    alarm::machine::{AlarmMachine, AlarmName, AlarmRule},
};
use uuid::Uuid;

use super::{
    Register,
    config::{Guidance, TagAlarm},
    kpi::AlarmKey,
    standard,
};
use crate::signal::mask::Mask;

/// Most alarms remembered that nobody configured; those that are Normal go first.
const RAISED_MAX: usize = 2_000;
/// A tag that is bad for this many of its periods is told of.
const BAD_PERIODS: Micros = 2;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) machine: AlarmMachine,
    pub(super) rule: AlarmRule,
    pub(super) guidance: Guidance,
    pub(super) message: String,
    /// Whether the register itself tells of it by [`Event::Alarm`]; what the program raises has been told already.
    pub(super) is_telling: bool,
    /// Told as active.
    pub(super) is_told: bool,
    /// The open deviations behind it.
    pub(super) open: BTreeSet<Uuid>,
}

impl Register {
    pub(super) fn configure(&mut self, alarm: &TagAlarm) {
        let key = (alarm.code.to_owned(), alarm.subject.clone());
        self.entries.insert(key.clone(), self.configured(alarm));
        let drives = self.by_tag.entry(alarm.tag).or_default();
        drives.judged.push(key.clone());
        if let Some(plan) = alarm.mask {
            self.masks.insert(key.clone(), Mask::new(plan));
        }
        let bad = ("tag.bad".to_owned(), alarm.subject.clone());
        drives.bad = Some(bad.clone());
        if let Some(gate) = alarm.suppress_when {
            let drives = self.by_tag.entry(gate.tag).or_default();
            drives.suppressed.push((key, gate.value));
        }
        let mut entry = self.raised(&bad, alarm.line.clone());
        entry.is_telling = true;
        entry.rule.on_delay_us = BAD_PERIODS * alarm.period_us;
        entry.message = format!("{} gives no usable value: its alarms see nothing", alarm.subject);
        self.entries.insert(bad, entry);
    }

    fn configured(&self, alarm: &TagAlarm) -> Entry {
        let band = alarm.rule.band.as_ref();
        let limit = band.and_then(|band| band.high.or(band.low)).unwrap_or_default();
        let side = if band.is_some_and(|band| band.high.is_some()) {
            "above"
        } else {
            "below"
        };
        Entry {
            message: format!("{} is {side} {limit} {}", alarm.subject, alarm.unit)
                .trim_end()
                .to_owned(),
            machine: self.machine(alarm.code, &alarm.subject, alarm.line.clone()),
            rule: alarm.rule.clone(),
            guidance: alarm.guidance.clone(),
            is_telling: true,
            is_told: false,
            open: BTreeSet::new(),
        }
    }

    fn machine(&self, code: &str, subject: &str, line: Option<String>) -> AlarmMachine {
        AlarmMachine::new(AlarmName {
            edge: self.edge.clone(),
            code: code.to_owned(),
            subject: subject.to_owned(),
            line,
        })
    }

    /// An alarm that nobody configured.
    fn raised(&self, (code, subject): &AlarmKey, line: Option<String>) -> Entry {
        let of_point = self.points.get(subject);
        let is_latching = code.starts_with("ccp.") && of_point.is_some_and(|(_, is_held)| *is_held);
        let mut rule = standard::rule(code, is_latching, self.policy);
        rule.is_latching &= rule.is_critical;
        Entry {
            machine: self.machine(code, subject, line),
            rule,
            guidance: standard::guidance(code),
            message: String::new(),
            is_telling: false,
            is_told: false,
            open: BTreeSet::new(),
        }
    }

    /// The entry of an alarm that the program raises, made when it is new.
    pub(super) fn entry(&mut self, key: &AlarmKey, line: Option<&String>) -> Option<&mut Entry> {
        if !self.entries.contains_key(key) {
            if self.entries.len() >= RAISED_MAX + self.by_tag.len() * 8 {
                // What is as if it had never been can go; only a plant with thousands of alarms at once has none.
                self.entries
                    .retain(|_, entry| entry.is_telling || !entry.machine.is_pristine());
                if self.entries.len() >= RAISED_MAX + self.by_tag.len() * 8 {
                    tracing::error!(code = %key.0, subject = %key.1, "too many alarms at once: kept as a plain event only");
                    return None;
                }
            }
            let entry = self.raised(key, line.cloned());
            self.entries.insert(key.clone(), entry);
        }
        self.entries.get_mut(key)
    }
}
