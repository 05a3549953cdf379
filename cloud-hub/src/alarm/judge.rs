//! What alarms follow from a rule's readings and from what people did? Pure: one sequence of readings and actions,
//! merged by their own times, in; occurrences out. Where it stands after any of them can be stored, so that late
//! readings are judged from the last place before them, with the same result as if they had never been late.
//!
//! The condition is judged by [`Watch`]; the states that people see are those of `protocol::alarm`'s machine, which
//! edges use too. An acknowledgement is about one occurrence: it never covers one that was found later.

use protocol::{
    Micros,
    alarm::{
        AlarmAction, AlarmCause, AlarmChange, AlarmState, AlarmVerb,
        machine::{AlarmInput, AlarmMachine, AlarmName, AlarmRule},
    },
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    model::Model,
    models::Dated,
    watch::{Input, Spec, Turn, Watch},
};

/// A rule as it was from some time on.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its number.
    pub number: i32,
    /// In force from here on.
    pub from_us: Micros,
    /// How it judges; none while it is switched off or its tag is not known.
    pub spec: Option<Spec>,
    /// How its alarm behaves towards people.
    pub alarm: AlarmRule,
}

/// All that judging a rule depends on besides readings and actions.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The rule.
    pub rule_id: Uuid,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
    /// Its models, oldest first.
    pub models: Vec<Dated>,
}

impl Timeline {
    fn version(&self, number: i32) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    fn model_at(&self, at_us: Micros) -> Option<&Dated> {
        self.models.iter().rev().find(|(_, from_us, _)| *from_us <= at_us)
    }

    /// How an alarm behaves now.
    pub fn alarm(&self) -> AlarmRule {
        let newest = self.versions.last();
        newest.map_or_else(|| behaviour(3), |version| version.alarm.clone())
    }
}

/// A told alarm of that priority, as the hub's rules have it: delays are the watch's business.
pub fn behaviour(priority: u8) -> AlarmRule {
    AlarmRule {
        priority,
        is_critical: false,
        is_latching: false,
        on_delay_us: 0,
        off_delay_us: 0,
        realarm_us: 0,
        shelve_us_max: 28_800_000_000,
        band: None,
    }
}

/// One time that a condition was true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Occurrence {
    /// Derived from the rule and the time it began: the same readings give the same.
    pub id: Uuid,
    /// When it began, by the time of the readings.
    pub raised_us: Micros,
    /// When it ended.
    pub cleared_us: Option<Micros>,
    /// The value that was judged when it began.
    pub value: Option<f64>,
    /// Its score.
    pub score: Option<f64>,
    /// The version of the rule that raised it.
    pub rule_version: i32,
    /// The model, for rules that have one.
    pub model_version: Option<i32>,
}

/// The identity of an occurrence.
pub fn occurrence_id(rule_id: Uuid, raised_us: Micros) -> Uuid {
    Uuid::new_v5(&rule_id, raised_us.to_string().as_bytes())
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The occurrence they saw.
    pub alarm_id: Uuid,
    /// What.
    pub action: AlarmAction,
}

/// One thing that is taken in.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A reading.
    Reading(Input),
    /// An action.
    Deed(Deed),
}

impl Event {
    /// When.
    pub fn time_us(&self) -> Micros {
        match self {
            Self::Reading(input) => input.time_us,
            Self::Deed(deed) => deed.action.at_us,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Occurrences that began or ended, oldest first; one that still stands last.
    pub occurrences: Vec<Occurrence>,
    /// Changes of the alarm's state.
    pub changes: Vec<AlarmChange>,
}

/// Where the judging of a rule stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    watch: Watch,
    machine: AlarmMachine,
    open: Option<Occurrence>,
    version: i32,
    model_version: Option<i32>,
}

impl Judge {
    /// One that has seen nothing.
    pub fn new(name: AlarmName) -> Self {
        Self {
            watch: Watch::default(),
            machine: AlarmMachine::new(name),
            open: None,
            version: 0,
            model_version: None,
        }
    }

    /// The occurrence that stands.
    pub fn open(&self) -> Option<&Occurrence> {
        self.open.as_ref()
    }

    /// The state that people see, of the newest occurrence.
    pub fn state(&self) -> AlarmState {
        self.machine.state()
    }

    /// The newest occurrence; nil before the first.
    pub fn newest(&self) -> Uuid {
        self.machine.occurrence()
    }

    /// Until when it is shelved.
    pub fn shelved_until_us(&self) -> Option<Micros> {
        self.machine.shelved_until_us()
    }

    /// Whether time alone may still change something.
    pub fn waits_for_time(&self) -> bool {
        self.machine.shelved_until_us().is_some() || !self.machine.is_settled()
    }

    /// Takes the next reading or action.
    pub fn take(&mut self, timeline: &Timeline, event: &Event, found: &mut Found) {
        let at_us = event.time_us();
        self.follow_versions(timeline, at_us, found);
        let Some(version) = timeline.version(self.version) else {
            return;
        };
        match event {
            Event::Reading(input) => {
                let Some(spec) = &version.spec else { return };
                let mut turns = Vec::new();
                let model = self.model(timeline, at_us);
                self.watch.take(spec, model, input, &mut turns);
                self.follow(timeline, version, &turns, found);
            }
            Event::Deed(deed) => {
                if let Some(spec) = &version.spec {
                    let mut turns = Vec::new();
                    let model = self.model(timeline, at_us);
                    self.watch.pass(spec, model, at_us, &mut turns);
                    self.follow(timeline, version, &turns, found);
                }
                found.changes.extend(self.act(&version.alarm, deed));
            }
        }
    }

    /// What time alone brings by `now_us`: silence, the end of a shelving, a rule that was switched off.
    pub fn tick(&mut self, timeline: &Timeline, now_us: Micros, found: &mut Found) {
        self.follow_versions(timeline, now_us, found);
        let Some(version) = timeline.version(self.version) else {
            return;
        };
        // Delays and blocks run by the time of readings, never by the clock: a reading on its way may say otherwise.
        if let Some(spec) = version
            .spec
            .as_ref()
            .filter(|spec| spec.kind == super::watch::Kind::NoData)
        {
            let mut turns = Vec::new();
            self.watch.pass(spec, None, now_us, &mut turns);
            self.follow(timeline, version, &turns, found);
        }
        let tick = AlarmInput::Tick { at_us: now_us };
        found.changes.extend(self.machine.step(&version.alarm, tick));
    }

    /// What an action would do now: the state after it, or why it is refused.
    ///
    /// # Errors
    /// The machine's words.
    pub fn would(&self, rule: &AlarmRule, deed: &Deed) -> Result<AlarmState, String> {
        let mut tried = self.clone();
        let refused = tried
            .act(rule, deed)
            .into_iter()
            .find_map(|change| match change.cause {
                AlarmCause::Refused { why, .. } => Some(why),
                _ => None,
            });
        refused.map_or_else(|| Ok(tried.state()), Err)
    }

    /// Takes in what was done since, without readings.
    pub fn follow_deed(&mut self, rule: &AlarmRule, deed: &Deed) {
        drop(self.act(rule, deed));
    }

    fn model<'t>(&mut self, timeline: &'t Timeline, at_us: Micros) -> Option<&'t Model> {
        let at_us = self.watch.block_us().unwrap_or(at_us);
        let (number, _, model) = timeline.model_at(at_us)?;
        if self.model_version != Some(*number) {
            self.model_version = Some(*number);
            self.watch.forget_drift();
        }
        Some(model)
    }

    /// A rule that was changed begins anew: what stood by the old one ends with it.
    fn follow_versions(&mut self, timeline: &Timeline, at_us: Micros, found: &mut Found) {
        for version in &timeline.versions {
            if version.number <= self.version || version.from_us > at_us {
                continue;
            }
            if let Some(mut open) = self.open.take() {
                open.cleared_us = Some(version.from_us);
                found.occurrences.push(open);
                found
                    .changes
                    .extend(self.tell(&version.alarm, version.from_us, None));
            }
            self.watch = Watch::default();
            self.watch.begin(version.from_us);
            (self.version, self.model_version) = (version.number, None);
        }
    }

    fn follow(&mut self, timeline: &Timeline, version: &Version, turns: &[Turn], found: &mut Found) {
        for turn in turns {
            self.machine.note_value(turn.value);
            if turn.is_active {
                let id = occurrence_id(timeline.rule_id, turn.at_us);
                self.open = Some(Occurrence {
                    id,
                    raised_us: turn.at_us,
                    cleared_us: None,
                    value: turn.value,
                    score: turn.score,
                    rule_version: version.number,
                    model_version: self.model_version,
                });
                found
                    .changes
                    .extend(self.tell(&version.alarm, turn.at_us, Some(id)));
            } else if let Some(mut open) = self.open.take() {
                open.cleared_us = Some(turn.at_us);
                found.occurrences.push(open);
                found.changes.extend(self.tell(&version.alarm, turn.at_us, None));
            }
        }
    }

    /// Tells the machine that the condition became true, with the occurrence's identity, or false.
    fn tell(&mut self, rule: &AlarmRule, at_us: Micros, occurrence: Option<Uuid>) -> Vec<AlarmChange> {
        let condition = AlarmInput::Condition {
            at_us,
            is_true: occurrence.is_some(),
            occurrence,
        };
        self.machine.step(rule, condition)
    }

    fn act(&mut self, rule: &AlarmRule, deed: &Deed) -> Vec<AlarmChange> {
        let is_about_one = matches!(deed.action.verb, AlarmVerb::Acknowledge | AlarmVerb::Reset);
        if is_about_one && deed.alarm_id != self.machine.occurrence() {
            // Of an earlier occurrence: it is settled beside the machine.
            return vec![];
        }
        let action = AlarmInput::Action {
            at_us: deed.action.at_us,
            action: Box::new(deed.action.clone()),
        };
        self.machine.step(rule, action)
    }
}

// === the whole sequence ===

/// For how long a mark is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// Until the next: the newest there is.
    Head,
    /// Minutes: readings of several edges never come in one order.
    Minute,
    /// Days.
    Hour,
    /// Weeks.
    Day,
}

impl Span {
    /// Its number in SQL.
    pub const fn number(self) -> i16 {
        match self {
            Self::Head => 0,
            Self::Minute => 1,
            Self::Hour => 2,
            Self::Day => 3,
        }
    }

    /// The largest span of which a boundary lies between two times.
    fn between(before_us: Micros, after_us: Micros) -> Self {
        const SECOND_US: Micros = 1_000_000;
        let crosses = |width_us: Micros| before_us.div_euclid(width_us) != after_us.div_euclid(width_us);
        if crosses(86_400 * SECOND_US) {
            Self::Day
        } else if crosses(3_600 * SECOND_US) {
            Self::Hour
        } else if crosses(60 * SECOND_US) {
            Self::Minute
        } else {
            Self::Head
        }
    }
}

/// Where judging stood at some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Everything up to here, inclusive, was taken in.
    pub at_us: Micros,
    /// How it stood.
    pub judge: Judge,
    /// For how long it is kept.
    pub span: Span,
}

/// Judges a sequence from a mark on.
#[derive(Debug)]
pub struct Replay<'t> {
    timeline: &'t Timeline,
    mark: Mark,
    found: Found,
    kept: Vec<Mark>,
}

impl<'t> Replay<'t> {
    /// Begins at a mark.
    pub fn from(timeline: &'t Timeline, mark: Mark) -> Self {
        Self {
            timeline,
            mark,
            found: Found::default(),
            kept: Vec::new(),
        }
    }

    /// Takes what comes next; in order of time, equal times in order of tag.
    pub fn take(&mut self, event: &Event) {
        let at_us = event.time_us();
        let span = Span::between(self.mark.at_us, at_us);
        if span > Span::Head {
            self.kept.push(Mark {
                span,
                ..self.mark.clone()
            });
        }
        self.mark.judge.take(self.timeline, event, &mut self.found);
        self.mark.at_us = self.mark.at_us.max(at_us);
    }

    /// The marks to keep with the newest last, and what was found by `now_us`. What only time brought is found, but
    /// stands in no mark: a reading that is still on its way may undo it.
    pub fn finish(mut self, now_us: Micros) -> (Vec<Mark>, Judge, Found) {
        let mut judge = self.mark.judge.clone();
        judge.tick(self.timeline, now_us, &mut self.found);
        self.found.occurrences.extend(judge.open().cloned());
        self.kept.push(Mark {
            span: Span::Head,
            ..self.mark
        });
        (self.kept, judge, self.found)
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
