//! Which alarms are there, and in which states? Every alarm of one agent: those on tags that the configuration names,
//! those that the program raises, and one for each open deviation. Pure: times are arguments. It runs on acquisition,
//! before the spool, and needs neither uplink nor disk.

pub mod config;
pub mod kpi;
pub mod skew;
mod standard;
mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::{
    Micros, Reading,
    alarm::{
        AlarmAction, AlarmCause, AlarmChange, AlarmState,
        machine::{AlarmInput, AlarmMachine, AlarmName, AlarmRule},
    },
    event::{Alarm, Event},
    limit::{Deviation, DeviationKind, Phase},
    reading::Alias,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::status::{AlarmBoard, AlarmStatus};
use self::{
    config::{AlarmPolicy, Guidance, TagAlarm},
    kpi::{AlarmKey, Kpi},
};
use crate::{ccp::config::Point, signal::mask::Mask};

/// Under which key the register's state is saved.
pub const STATE_KEY: &str = "alarm/register";
/// First byte of the saved state.
const STATE_VERSION: u8 = 1;
/// Most alarms remembered that nobody configured; those that are Normal go first.
const RAISED_MAX: usize = 2_000;
/// A saved time this far ahead of now was saved before the clock was set back.
const AHEAD_US_MAX: Micros = 3_000_000;
/// A tag that is bad for this many of its periods is told of.
const BAD_PERIODS: Micros = 2;

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

#[derive(Debug)]
struct Entry {
    machine: AlarmMachine,
    rule: AlarmRule,
    guidance: Guidance,
    message: String,
    /// Whether the register itself tells of it by [`Event::Alarm`]; what the program raises has been told already.
    is_telling: bool,
    /// Told as active.
    is_told: bool,
    /// The open deviations behind it.
    open: BTreeSet<Uuid>,
}

/// What of an alarm outlives a restart.
#[derive(Serialize, Deserialize)]
struct Saved {
    machine: AlarmMachine,
    message: String,
    is_told: bool,
    open: BTreeSet<Uuid>,
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

    fn configure(&mut self, alarm: &TagAlarm) {
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
    fn entry(&mut self, key: &AlarmKey, line: Option<&String>) -> Option<&mut Entry> {
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
