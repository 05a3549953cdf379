//! What does one more input mean for one alarm? The state machine of ISA-18.2 (IEC 62682): pure and serialisable,
//! so that a power cut in any state changes nothing and every transition can be replayed.
//!
//! What is shown follows from three things that are kept apart:
//! ```text
//! the condition   raw ──on-delay──▶ active ──off-delay──▶ returned     (owned by where it is evaluated)
//! what is owed    an acknowledgement; for latching alarms a reset
//! what hides it   out of service > suppressed by the process > shelved
//! ```
//! Actions are merged by their own time and id, never by their order of arrival: what was done at the hub and at the
//! line PC while they could not see each other ends the same on both sides. Every action becomes a record, done or
//! refused. A critical alarm is never suppressed by the process, and is shelved or taken out of service only with a
//! second person.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    AlarmAction, AlarmCause, AlarmChange, AlarmState, AlarmVerb,
    people::{People, Shelving, Stamp, decide},
};
use crate::reading::Micros;

/// How one alarm behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmRule {
    /// 1 most urgent, 2, 3; 4 is diagnostic.
    pub priority: u8,
    /// Of a critical limit: never suppressed, and hidden by people only in pairs.
    pub is_critical: bool,
    /// Held until reset after it has returned.
    pub is_latching: bool,
    /// How long the condition must be true before the alarm is active, microseconds, 0 or more.
    pub on_delay_us: Micros,
    /// How long the condition must be false before the alarm has returned, microseconds, 0 or more.
    pub off_delay_us: Micros,
    /// An acknowledged alarm that is active for this long asks again; 0: never.
    pub realarm_us: Micros,
    /// Longest shelving, microseconds, more than 0.
    pub shelve_us_max: Micros,
    /// What a value is judged by; none for a condition that is told.
    pub band: Option<AlarmBand>,
}

/// When is a value alarming? Below `low` or above `high`, until it is `deadband` inside again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmBand {
    /// Alarming below this, in the tag's unit.
    pub low: Option<f64>,
    /// Alarming above this, in the tag's unit.
    pub high: Option<f64>,
    /// How far inside the limit a value must be to end the condition, in the tag's unit, 0 or more.
    pub deadband: f64,
}

impl AlarmBand {
    /// Whether a value is alarming, given whether the one before it was.
    pub fn is_alarming(&self, value: f64, was: bool) -> bool {
        let inside = if was { self.deadband } else { 0.0 };
        self.low.is_some_and(|low| value < low + inside)
            || self.high.is_some_and(|high| value > high - inside)
    }
}

/// Something a machine is told.
#[derive(Clone, Debug, PartialEq)]
pub enum AlarmInput {
    /// A usable value of the tag that the rule's band judges. A value without a band, or not finite, only lets time
    /// pass: an unusable value is an alarm of its own, not the end of this one.
    Value {
        /// When.
        at_us: Micros,
        /// The value.
        value: f64,
    },
    /// The condition is true or false.
    Condition {
        /// When.
        at_us: Micros,
        /// Whether it is true.
        is_true: bool,
        /// Identity for the occurrence that may begin; derived from name and time when absent.
        occurrence: Option<Uuid>,
    },
    /// Time passed.
    Tick {
        /// Now.
        at_us: Micros,
    },
    /// The process is in a state in which this alarm means nothing, or no longer.
    Suppress {
        /// When.
        at_us: Micros,
        /// Begin or end.
        is_suppressed: bool,
    },
    /// A person acted.
    Action {
        /// When it reached the machine.
        at_us: Micros,
        /// What was done.
        action: Box<AlarmAction>,
    },
}

/// What an alarm is called in its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmName {
    /// Name of the edge; part of derived identities.
    pub edge: String,
    /// Stable machine name.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// Code of the line, when it has one.
    pub line: Option<String>,
}

/// One alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what is true, active, to be acknowledged and to be reset vary independently"
)]
pub struct AlarmMachine {
    name: AlarmName,
    /// Identity of the occurrence that is or was last active; nil before the first.
    occurrence: Uuid,
    /// The condition as last told, deadband applied.
    is_true: bool,
    /// Identity that came with the condition that waits for its on-delay.
    next_occurrence: Option<Uuid>,
    /// Since when the condition differs from `is_active`.
    pending_us: Option<Micros>,
    is_active: bool,
    /// When it became active, or returned.
    turned_us: Micros,
    needs_ack: bool,
    needs_reset: bool,
    /// An acknowledgement counts when made from here on.
    asked_us: Micros,
    acked_us: Micros,
    suppressed_us: Option<Micros>,
    priority: u8,
    people: People,
    now_us: Option<Micros>,
    value: Option<f64>,
    limit_version: Option<u32>,
}

/// The identity of an occurrence whose condition came without one.
pub fn occurrence_id(name: &AlarmName, at_us: Micros) -> Uuid {
    const NAMESPACE: Uuid = Uuid::from_u128(0x8f0f_9a4e_0c53_4d0e_9c2f_1d3a_7d1b_0003);
    let text = format!("{}\n{}\n{}\n{at_us}", name.edge, name.code, name.subject);
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

/// Something that happens by itself when its time comes.
#[derive(Clone, Copy)]
enum Due {
    Turn,
    Unshelve,
    Realarm,
}

impl AlarmMachine {
    /// An alarm that has seen nothing.
    pub fn new(name: AlarmName) -> Self {
        Self {
            name,
            occurrence: Uuid::nil(),
            is_true: false,
            next_occurrence: None,
            pending_us: None,
            is_active: false,
            turned_us: Micros::MIN,
            needs_ack: false,
            needs_reset: false,
            asked_us: Micros::MIN,
            acked_us: Micros::MIN,
            suppressed_us: None,
            priority: 0,
            people: People::default(),
            now_us: None,
            value: None,
            limit_version: None,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &AlarmName {
        &self.name
    }

    /// The state that is shown.
    pub fn state(&self) -> AlarmState {
        if self.people.is_out_of_service() {
            AlarmState::OutOfService
        } else if self.suppressed_us.is_some() {
            AlarmState::Suppressed
        } else if self.people.shelved_until_us().is_some() {
            AlarmState::Shelved
        } else {
            self.state_beneath()
        }
    }

    /// The state without what hides it.
    fn state_beneath(&self) -> AlarmState {
        match (self.is_active, self.needs_ack, self.needs_reset) {
            (true, true, _) => AlarmState::Unacknowledged,
            (true, false, _) => AlarmState::Acknowledged,
            (false, true, _) => AlarmState::ReturnedUnacknowledged,
            (false, false, true) => AlarmState::Latched,
            (false, false, false) => AlarmState::Normal,
        }
    }

    /// Whether the condition is true, its delays being over, whatever is shown.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// Whether nothing is wrong and nothing is owed, whatever hides it.
    pub fn is_settled(&self) -> bool {
        self.state_beneath() == AlarmState::Normal
    }

    /// When it became active or returned; none before its first occurrence.
    pub fn turned_us(&self) -> Option<Micros> {
        (self.occurrence != Uuid::nil()).then_some(self.turned_us)
    }

    /// Identity of the occurrence that is or was last active; nil before the first.
    pub fn occurrence(&self) -> Uuid {
        self.occurrence
    }

    /// Until when it is shelved.
    pub fn shelved_until_us(&self) -> Option<Micros> {
        self.people.shelved_until_us()
    }

    /// The value it was told last.
    pub fn value(&self) -> Option<f64> {
        self.value
    }

    /// Takes note of a value that its changes bear, without judging it.
    pub fn note_value(&mut self, value: Option<f64>) {
        self.value = value;
    }

    /// The newest time it was told.
    pub fn newest_us(&self) -> Option<Micros> {
        self.now_us
    }

    /// Whether a new machine of the same name would do as well: nothing needs to be saved.
    pub fn is_pristine(&self) -> bool {
        !self.is_true
            && self.pending_us.is_none()
            && self.suppressed_us.is_none()
            && self.state_beneath() == AlarmState::Normal
            && self.people.is_empty()
    }

    /// The version of the critical limit that its changes bear from now on.
    pub fn set_limit_version(&mut self, version: Option<u32>) {
        self.limit_version = version;
    }

    /// The clock was set back by `by_us`: what was seen keeps its distance from now. Times that people stated in
    /// their actions stay as stated.
    pub fn set_back(&mut self, by_us: Micros) {
        for time_us in [&mut self.turned_us, &mut self.asked_us, &mut self.acked_us] {
            *time_us = time_us.saturating_sub(by_us);
        }
        let seen = [&mut self.pending_us, &mut self.suppressed_us, &mut self.now_us];
        for time_us in seen.into_iter().flatten() {
            *time_us = time_us.saturating_sub(by_us);
        }
        self.people.set_back(by_us);
    }

    /// Takes one input and says what changed, oldest first. A time before the newest one counts as the newest.
    pub fn step(&mut self, rule: &AlarmRule, input: AlarmInput) -> Vec<AlarmChange> {
        let (AlarmInput::Value { at_us, .. }
        | AlarmInput::Condition { at_us, .. }
        | AlarmInput::Tick { at_us }
        | AlarmInput::Suppress { at_us, .. }
        | AlarmInput::Action { at_us, .. }) = input;
        let at_us = self.now_us.map_or(at_us, |now_us| now_us.max(at_us));
        self.priority = rule.priority;
        let mut changes = self.advance(rule, at_us);
        match input {
            AlarmInput::Value { value, .. } => {
                if let Some(band) = rule.band.filter(|_| value.is_finite()) {
                    self.value = Some(value);
                    let is_true = band.is_alarming(value, self.is_true);
                    self.condition(at_us, is_true, None);
                }
            }
            AlarmInput::Condition {
                is_true, occurrence, ..
            } => self.condition(at_us, is_true, occurrence),
            AlarmInput::Tick { .. } => {}
            AlarmInput::Suppress { is_suppressed, .. } => {
                let suppressed = is_suppressed && !rule.is_critical;
                changes.extend(self.noting(at_us, AlarmCause::Process, |machine| {
                    machine.suppress(at_us, suppressed);
                }));
            }
            AlarmInput::Action { action, .. } => changes.extend(self.act(rule, at_us, *action)),
        }
        // A delay of nothing is over at once.
        changes.extend(self.advance(rule, at_us));
        changes
    }

    /// Lets time pass up to `at_us`, doing what falls due in the order in which it does.
    fn advance(&mut self, rule: &AlarmRule, at_us: Micros) -> Vec<AlarmChange> {
        let mut changes = Vec::new();
        while let Some((due_us, due)) = self.next_due(rule).filter(|(due_us, _)| *due_us <= at_us) {
            let due_us = self.now_us.map_or(due_us, |now_us| now_us.max(due_us));
            self.now_us = Some(due_us);
            changes.extend(match due {
                Due::Turn => self.noting(due_us, AlarmCause::Condition, |machine| {
                    machine.turn(rule, due_us);
                }),
                Due::Unshelve => self.noting(due_us, AlarmCause::ShelvingExpired, |machine| {
                    machine.people.end_shelving();
                }),
                Due::Realarm => self.noting(due_us, AlarmCause::Condition, |machine| {
                    machine.needs_ack = true;
                }),
            });
        }
        self.now_us = Some(at_us);
        changes
    }

    fn next_due(&self, rule: &AlarmRule) -> Option<(Micros, Due)> {
        let delay_us = if self.is_active {
            rule.off_delay_us
        } else {
            rule.on_delay_us
        };
        let turn = self
            .pending_us
            .map(|since_us| (since_us.saturating_add(delay_us), Due::Turn));
        let unshelve = self
            .people
            .shelved_until_us()
            .map(|until_us| (until_us, Due::Unshelve));
        let asks_again = rule.realarm_us > 0 && self.is_active && !self.needs_ack;
        let realarm = asks_again.then(|| (self.acked_us.saturating_add(rule.realarm_us), Due::Realarm));
        [turn, unshelve, realarm]
            .into_iter()
            .flatten()
            .min_by_key(|(due_us, _)| *due_us)
    }

    fn condition(&mut self, at_us: Micros, is_true: bool, occurrence: Option<Uuid>) {
        self.is_true = is_true;
        if is_true == self.is_active {
            self.pending_us = None;
        } else {
            self.pending_us.get_or_insert(at_us);
        }
        if is_true && !self.is_active {
            self.next_occurrence = occurrence.or(self.next_occurrence);
        }
    }

    /// The condition has held for its delay.
    fn turn(&mut self, rule: &AlarmRule, at_us: Micros) {
        self.pending_us = None;
        self.is_active = !self.is_active;
        self.turned_us = at_us;
        if self.is_active {
            let given = self.next_occurrence.take();
            self.occurrence = given.unwrap_or_else(|| occurrence_id(&self.name, at_us));
            self.needs_ack = true;
            self.needs_reset = rule.is_latching;
            self.asked_us = at_us;
        }
    }

    fn suppress(&mut self, at_us: Micros, is_suppressed: bool) {
        match (self.suppressed_us, is_suppressed) {
            (None, true) => self.suppressed_us = Some(at_us),
            (Some(since_us), false) => {
                self.suppressed_us = None;
                // What came and went while it meant nothing is owed nothing.
                if !self.is_active && self.asked_us >= since_us {
                    self.needs_ack = false;
                    self.needs_reset = false;
                }
            }
            _ => {}
        }
    }

    /// Does something and says what of it shows.
    fn noting(
        &mut self,
        at_us: Micros,
        cause: AlarmCause,
        does: impl FnOnce(&mut Self),
    ) -> Option<AlarmChange> {
        let (from, was_active) = (self.state(), self.is_active);
        does(self);
        let changed = self.state() != from || self.is_active != was_active;
        changed.then(|| self.change(at_us, from, cause))
    }

    fn change(&self, at_us: Micros, from: AlarmState, cause: AlarmCause) -> AlarmChange {
        AlarmChange {
            id: self.occurrence,
            at_us,
            code: self.name.code.clone(),
            subject: self.name.subject.clone(),
            line: self.name.line.clone(),
            from,
            to: self.state(),
            cause,
            is_active: self.is_active,
            priority: self.priority,
            value: self.value,
            limit_version: self.limit_version,
        }
    }

    /// One record for every action that was not seen before, done or refused.
    fn act(&mut self, rule: &AlarmRule, at_us: Micros, action: AlarmAction) -> Option<AlarmChange> {
        if !self.people.is_new(action.id) {
            return None;
        }
        let from = self.state();
        let cause = match self.try_act(rule, at_us, &action) {
            Ok(()) => AlarmCause::Action(action),
            Err(why) => AlarmCause::Refused {
                action,
                why: why.to_owned(),
            },
        };
        Some(self.change(at_us, from, cause))
    }

    fn try_act(&mut self, rule: &AlarmRule, at_us: Micros, action: &AlarmAction) -> Result<(), &'static str> {
        const LATER: &str = "a later action has already decided this";
        let stamp = Stamp {
            at_us: action.at_us,
            id: action.id,
        };
        let newest = |is_newest: bool| if is_newest { Ok(()) } else { Err(LATER) };
        match action.verb {
            AlarmVerb::Acknowledge => self.acknowledge(rule, at_us, action.at_us),
            AlarmVerb::Reset => self.reset(action.at_us),
            AlarmVerb::Shelve { until_us } => {
                may_hide(rule, action)?;
                may_last(rule, (action.at_us, at_us), until_us)?;
                let shelving = Shelving {
                    until_us,
                    is_over: until_us <= at_us,
                };
                newest(decide(&mut self.people.shelving, stamp, Some(shelving)))
            }
            AlarmVerb::Unshelve => newest(decide(&mut self.people.shelving, stamp, None)),
            AlarmVerb::TakeOutOfService => {
                may_hide(rule, action)?;
                newest(decide(&mut self.people.out_of_service, stamp, true))
            }
            AlarmVerb::ReturnToService => newest(decide(&mut self.people.out_of_service, stamp, false)),
        }
    }

    fn acknowledge(&mut self, rule: &AlarmRule, at_us: Micros, acted_us: Micros) -> Result<(), &'static str> {
        if acted_us < self.asked_us {
            return Err("it was done before this occurrence of the alarm; look again and acknowledge it");
        }
        if !self.needs_ack && self.acked_us >= acted_us {
            return Err("it is acknowledged already");
        }
        // Which of two acknowledgements comes first must not matter for when it asks again.
        self.acked_us = self.acked_us.max(acted_us.min(at_us));
        if !self.needs_ack {
            return Err("there is nothing to acknowledge");
        }
        let until_us = if self.is_active { at_us } else { self.turned_us };
        if rule.realarm_us > 0 && self.acked_us.saturating_add(rule.realarm_us) <= until_us {
            return Err("the alarm has asked again since; look again and acknowledge it");
        }
        self.needs_ack = false;
        Ok(())
    }

    fn reset(&mut self, acted_us: Micros) -> Result<(), &'static str> {
        if self.is_active {
            return Err("the condition is still true; end it before resetting the alarm");
        }
        if acted_us < self.turned_us {
            return Err("it was done before the alarm returned; look again and reset it");
        }
        if !self.needs_ack && !self.needs_reset {
            return Err("there is nothing to reset");
        }
        // Who resets an alarm has seen it.
        self.needs_ack = false;
        self.needs_reset = false;
        Ok(())
    }
}

fn may_hide(rule: &AlarmRule, action: &AlarmAction) -> Result<(), &'static str> {
    let has_second = action
        .second
        .as_ref()
        .is_some_and(|second| !second.trim().is_empty() && *second != action.by);
    if rule.is_critical && !has_second {
        return Err("an alarm of a critical limit is hidden only with a second person");
    }
    Ok(())
}

fn may_last(
    rule: &AlarmRule,
    (acted_us, at_us): (Micros, Micros),
    until_us: Micros,
) -> Result<(), &'static str> {
    if until_us <= acted_us {
        return Err("the shelving ends before it begins");
    }
    let longest_us = until_us
        .saturating_sub(acted_us)
        .max(until_us.saturating_sub(at_us));
    if longest_us > rule.shelve_us_max {
        return Err("the shelving is longer than allowed; choose a nearer end");
    }
    Ok(())
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
