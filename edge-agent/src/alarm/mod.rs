//! Which alarms are there, and in which states? Every alarm of one agent: those on tags that the configuration names,
//! those that the program raises, and one for each open deviation. Pure: times are arguments. It runs on acquisition,
//! before the spool, and needs neither uplink nor disk.

pub mod config;
mod entry;
pub mod kpi;
mod saved;
pub mod skew;
mod standard;
mod status;

use std::collections::{BTreeMap, HashMap};

use protocol::{
    Micros, Reading,
    alarm::{AlarmAction, AlarmCause, AlarmChange, AlarmState, machine::AlarmInput},
    event::{Alarm, Event},
    limit::{Deviation, DeviationKind, Phase},
    reading::Alias,
};
use uuid::Uuid;

use self::{
    config::{AlarmPolicy, TagAlarm},
    entry::Entry,
    kpi::{AlarmKey, Kpi},
};
pub use self::{
    saved::STATE_KEY,
    status::{AlarmBoard, AlarmStatus},
};
use crate::{ccp::config::Point, signal::mask::Mask};

/// All alarms of one agent.
#[derive(Debug)]
pub struct Register {
    edge: String,
    policy: AlarmPolicy,
    entries: BTreeMap<AlarmKey, Entry>,
    /// The alarms that a tag's readings drive, and those that they suppress.
    by_tag: HashMap<Alias, Drives>,
    /// Doors and defrosts during which an alarm is looked away from.
    masks: BTreeMap<AlarmKey, Mask>,
    /// Of each control point: its line, and whether its alarms are held until reset.
    points: HashMap<String, (Option<String>, bool)>,
    kpi: Kpi,
}

#[derive(Debug, Default)]
struct Drives {
    judged: Vec<AlarmKey>,
    suppressed: Vec<(AlarmKey, f64)>,
    bad: Option<AlarmKey>,
}

impl Register {
    /// Alarms that have seen nothing.
    pub fn new(edge: &str, policy: AlarmPolicy, alarms: &[TagAlarm], points: &[Point]) -> Self {
        let held = |point: &Point| point.react.as_ref().is_some_and(|react| react.hold_until_reset);
        let points = points.iter().map(|point| {
            let known = (point.limit.line.clone(), held(point));
            (point.limit.ccp.clone(), known)
        });
        let mut register = Self {
            edge: edge.to_owned(),
            policy,
            entries: BTreeMap::new(),
            by_tag: HashMap::new(),
            masks: BTreeMap::new(),
            points: points.collect(),
            kpi: Kpi::default(),
        };
        for alarm in alarms {
            register.configure(alarm);
        }
        register
    }

    /// Takes readings that arrived together. Suppressing tags come first, so that a value is judged by the state of
    /// the process of its own poll.
    pub fn observe(&mut self, readings: &[Reading], received_us: Micros) -> Vec<Event> {
        let mut events = Vec::new();
        if self.by_tag.is_empty() {
            return events;
        }
        // Lent out for the time being: what a tag drives does not change while its readings are judged.
        let by_tag = std::mem::take(&mut self.by_tag);
        let driven = |reading: &Reading| by_tag.get(&reading.tag);
        for reading in readings {
            self.masks.values_mut().for_each(|mask| mask.observe(reading));
            for (key, value) in driven(reading).map_or(&[][..], |drives| &drives.suppressed) {
                // A state of the process that is not known for good suppresses nothing.
                let known = reading.value().filter(|_| reading.quality.is_good());
                let input = AlarmInput::Suppress {
                    at_us: received_us,
                    is_suppressed: known.is_some_and(|known| (known - value).abs() < f64::EPSILON),
                };
                self.feed(key, input, &mut events);
            }
        }
        for reading in readings {
            if let Some(drives) = driven(reading) {
                self.judge(drives, reading, received_us, &mut events);
            }
        }
        self.by_tag = by_tag;
        events
    }

    fn judge(&mut self, drives: &Drives, reading: &Reading, at_us: Micros, events: &mut Vec<Event>) {
        if let Some(value) = reading.value() {
            for key in &drives.judged {
                if let Some(mask) = self.masks.get(key) {
                    let is_suppressed = mask.is_masked(reading.time_us);
                    self.feed(key, AlarmInput::Suppress { at_us, is_suppressed }, events);
                }
                self.feed(key, AlarmInput::Value { at_us, value }, events);
            }
        }
        if let Some(key) = &drives.bad {
            let input = AlarmInput::Condition {
                at_us,
                is_true: reading.quality.is_bad(),
                occurrence: None,
            };
            self.feed(key, input, events);
        }
    }

    /// Takes an alarm that the program raised or cleared.
    pub fn condition(&mut self, alarm: &Alarm) -> Vec<Event> {
        let key = (alarm.code.clone(), alarm.subject.clone());
        let mut events = Vec::new();
        let Some(entry) = self.entry(&key, alarm.line.as_ref()) else {
            return events;
        };
        if alarm.active {
            entry.message.clone_from(&alarm.message);
        }
        let condition = |is_true| AlarmInput::Condition {
            at_us: alarm.at_us,
            is_true,
            occurrence: Some(alarm.id),
        };
        self.feed(&key, condition(alarm.active), &mut events);
        if alarm.active && standard::is_momentary(&alarm.code) {
            self.feed(&key, condition(false), &mut events);
        }
        events
    }

    /// Takes a phase of a deviation: an open one is an active critical alarm, under the deviation's identity.
    pub fn deviation(&mut self, deviation: &Deviation) -> Vec<Event> {
        let mut events = Vec::new();
        let code = code_of(deviation.kind);
        let others: Vec<AlarmKey> = self
            .entries
            .iter()
            .filter(|((known, subject), entry)| {
                known != code && *subject == deviation.ccp && entry.open.contains(&deviation.id)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in others {
            // What began as a gap and turned out to be out of limit goes on under the other name.
            self.deviates(&key, deviation, false, &mut events);
        }
        let is_open = deviation.phase != Phase::Closed;
        let key = (code.to_owned(), deviation.ccp.clone());
        self.deviates(&key, deviation, is_open, &mut events);
        events
    }

    fn deviates(&mut self, key: &AlarmKey, deviation: &Deviation, is_open: bool, events: &mut Vec<Event>) {
        let line = self.points.get(&deviation.ccp).and_then(|(line, _)| line.clone());
        let Some(entry) = self.entry(key, line.as_ref()) else {
            return;
        };
        if is_open {
            entry.open.insert(deviation.id);
        } else {
            entry.open.remove(&deviation.id);
        }
        entry.message = format!(
            "deviation of {} since {}",
            deviation.ccp,
            time_text(deviation.last_good_us)
        );
        entry.machine.set_limit_version(Some(deviation.limit_version));
        entry.machine.note_value(deviation.value_extreme);
        let is_true = !entry.open.is_empty();
        // Found and over at once (late readings, a batch that is finished): it was active all the same.
        let was_over = deviation.phase == Phase::Closed && !entry.machine.is_active();
        let at_us = if deviation.phase == Phase::Opened {
            deviation.detected_us
        } else {
            deviation.until_us
        };
        let condition = |is_true| AlarmInput::Condition {
            at_us,
            is_true,
            occurrence: Some(deviation.id),
        };
        if was_over
            && !is_true
            && entry.machine.occurrence() != deviation.id
            && key.0 == code_of(deviation.kind)
        {
            self.feed(key, condition(true), events);
        }
        self.feed(key, condition(is_true), events);
    }

    /// Takes what a person does about an alarm. One that is not there is refused on record.
    pub fn act(&mut self, action: AlarmAction, now_us: Micros) -> Vec<Event> {
        let key = (action.code.clone(), action.subject.clone());
        let mut events = Vec::new();
        if self.entries.contains_key(&key) {
            let input = AlarmInput::Action {
                at_us: now_us,
                action: Box::new(action),
            };
            self.feed(&key, input, &mut events);
            return events;
        }
        events.push(Event::AlarmChange(AlarmChange {
            id: Uuid::nil(),
            at_us: now_us,
            code: key.0.clone(),
            subject: key.1,
            line: None,
            from: AlarmState::Normal,
            to: AlarmState::Normal,
            is_active: false,
            priority: standard::rule(&key.0, false, self.policy).priority,
            value: None,
            limit_version: None,
            cause: AlarmCause::Refused {
                action,
                why: "no alarm of this code and subject was ever raised here".to_owned(),
            },
        }));
        events
    }

    /// Whether no alarm of a critical limit of this control point is active or waits for a person.
    pub fn is_settled(&self, ccp: &str) -> bool {
        self.points.contains_key(ccp)
            && self.entries.iter().all(|((_, subject), entry)| {
                subject != ccp || !entry.rule.is_critical || entry.machine.is_settled()
            })
    }

    /// After a restart: an open deviation that no judge knows any more (its control point is gone, or is judged in
    /// another way now) is over as an alarm; who looks must still acknowledge it.
    pub fn keep_open(&mut self, deviating: &[String], now_us: Micros) -> Vec<Event> {
        let forgotten: Vec<AlarmKey> = self
            .entries
            .iter()
            .filter(|((_, subject), entry)| !entry.open.is_empty() && !deviating.contains(subject))
            .map(|(key, _)| key.clone())
            .collect();
        let mut events = Vec::new();
        for key in forgotten {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.open.clear();
            }
            let input = AlarmInput::Condition {
                at_us: now_us,
                is_true: false,
                occurrence: None,
            };
            self.feed(&key, input, &mut events);
        }
        events
    }

    /// A source gives readings: whatever an earlier start knew of its being down is over.
    pub fn source_is_up(&mut self, source: &str, now_us: Micros) -> Vec<Event> {
        let key = ("source.down".to_owned(), source.to_owned());
        let mut events = Vec::new();
        let active = self.entries.get(&key).filter(|entry| entry.machine.is_active());
        if let Some(entry) = active {
            let cleared = Alarm {
                id: entry.machine.occurrence(),
                at_us: now_us,
                code: key.0.clone(),
                subject: key.1.clone(),
                line: entry.machine.name().line.clone(),
                active: false,
                message: "giving readings again".to_owned(),
            };
            let changes = self.condition(&cleared);
            events.push(Event::Alarm(cleared));
            events.extend(changes);
        }
        events
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_us: Micros) -> Vec<Event> {
        let mut events = Vec::new();
        let waiting: Vec<AlarmKey> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.machine.is_pristine())
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            self.feed(&key, AlarmInput::Tick { at_us: now_us }, &mut events);
        }
        self.kpi.pass(now_us);
        events
    }

    /// The clock was set back by `by_us`: delays and shelvings last as long as they would have.
    pub fn set_back(&mut self, by_us: Micros) {
        for entry in self.entries.values_mut() {
            entry.machine.set_back(by_us);
        }
        self.masks.values_mut().for_each(|mask| mask.set_back(by_us));
        self.kpi.set_back(by_us);
    }

    fn feed(&mut self, key: &AlarmKey, input: AlarmInput, events: &mut Vec<Event>) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let mut was_active = entry.machine.is_active();
        for change in entry.machine.step(&entry.rule, input) {
            if change.is_active && !was_active && !is_hidden(change.to) {
                self.kpi.activated(change.at_us, key.clone());
            }
            was_active = change.is_active;
            let is_shown = change.is_active && !is_hidden(change.to);
            if entry.is_telling && is_shown != entry.is_told {
                entry.is_told = is_shown;
                events.push(Event::Alarm(tell(&change, &entry.message)));
            }
            events.push(Event::AlarmChange(change));
        }
    }
}

fn is_hidden(state: AlarmState) -> bool {
    matches!(
        state,
        AlarmState::Shelved | AlarmState::Suppressed | AlarmState::OutOfService
    )
}

fn tell(change: &AlarmChange, message: &str) -> Alarm {
    let active = change.is_active && !is_hidden(change.to);
    Alarm {
        id: change.id,
        at_us: change.at_us,
        code: change.code.clone(),
        subject: change.subject.clone(),
        line: change.line.clone(),
        active,
        message: if active || change.is_active {
            message.to_owned()
        } else {
            "back to normal".to_owned()
        },
    }
}

/// The code of the alarm that a deviation is.
pub fn code_of(kind: DeviationKind) -> &'static str {
    match kind {
        DeviationKind::Limit => "ccp.limit",
        DeviationKind::MonitoringGap => "ccp.monitoring_gap",
        DeviationKind::SensorStuck => "ccp.sensor_stuck",
        DeviationKind::HoldTime => "ccp.hold_time",
        DeviationKind::Cooling => "ccp.cooling",
        DeviationKind::Challenge => "ccp.challenge",
        DeviationKind::MissedCheck => "ccp.missed_check",
    }
}

fn time_text(at_us: Micros) -> String {
    chrono::DateTime::from_timestamp_micros(at_us).map_or_else(
        || at_us.to_string(),
        |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

#[cfg(test)]
mod tests;
