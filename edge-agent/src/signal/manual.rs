//! Was a value that a person enters by hand entered when it was due? A check that is not made is an alarm,
//! `manual.missed`, and a record of a reading that was due and not taken. Pure: times are arguments.

use std::time::Duration;

use protocol::{
    Micros, Reading,
    event::{Event, NotRead},
    reading::Alias,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    alarm::{Alarms, Subject},
    config::micros,
};
use crate::config::{Section, Tags};

/// A tag whose values people enter on the line PC.
#[derive(Clone, Debug, PartialEq)]
pub struct ManualPlan {
    /// The tag.
    pub alias: Alias,
    /// Its name.
    pub name: String,
    /// Code of its line.
    pub line: Option<String>,
    /// Its unit.
    pub unit: String,
    /// What to measure, for people.
    pub description: String,
    /// A smaller value must be confirmed.
    pub low: Option<f64>,
    /// A greater value must be confirmed.
    pub high: Option<f64>,
    /// How often it is due, microseconds; none: whenever somebody measures.
    pub every_us: Option<Micros>,
    /// It counts as missed only this long after it was due, microseconds.
    pub grace_us: Micros,
    /// It is due only while this tag has this value.
    pub gate: Option<(Alias, f64)>,
}

/// Reads one `[[manual]]`.
pub(super) fn read_manual(section: &Section<'_>, tags: &mut Tags<'_>) -> Option<ManualPlan> {
    const WEEK: Duration = Duration::from_hours(168);
    let (low, high) = (section.number("low"), section.number("high"));
    if let (Some(low), Some(high)) = (&low, &high)
        && low.value >= high.value
    {
        section.fault_at(&high.span, "`high` must be greater than `low`");
    }
    let every = section.duration("every", Duration::from_mins(1)..=WEEK);
    let grace = section.duration("grace", Duration::ZERO..=WEEK);
    if grace.is_some() && !section.has("every") {
        section.fault("`grace` means something only with `every`");
    }
    let gate = super::config::read_gate(section, tags);
    // Reports on change: when it is due is followed here, not by the sources' counting.
    let alias = tags.read(section, Duration::ZERO)?;
    let tag = tags.tag(alias)?;
    Some(ManualPlan {
        alias,
        name: tag.name.clone(),
        line: tag.line.clone(),
        unit: tag.unit.clone(),
        description: tag.description.clone(),
        low: low.map(|at| at.value),
        high: high.map(|at| at.value),
        every_us: every.map(micros),
        grace_us: micros(grace.unwrap_or(Duration::from_mins(5))),
        gate,
    })
}

/// Follows when one tag is due.
#[derive(Debug)]
pub(super) struct Check {
    plan: ManualPlan,
    is_open: bool,
    kept: Kept,
}

/// What of it outlives a restart.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Kept {
    due_us: Option<Micros>,
    missed: Option<Uuid>,
}

impl Check {
    pub(super) fn new(plan: ManualPlan) -> Self {
        Self {
            is_open: plan.gate.is_none(),
            kept: Kept::default(),
            plan,
        }
    }

    pub(super) fn plan(&self) -> &ManualPlan {
        &self.plan
    }

    /// Takes a reading of the tag or of its gate.
    pub(super) fn observe(&mut self, reading: &Reading, alarms: &mut Alarms<'_>) {
        if let Some((_, value)) = self.plan.gate.filter(|(tag, _)| *tag == reading.tag) {
            // A gate that is not known leaves the check due: it is better made once too often.
            let known = reading.value().filter(|_| reading.quality.is_good());
            self.is_open = known.is_none_or(|known| (known - value).abs() < f64::EPSILON);
            if !self.is_open {
                self.kept.due_us = None;
                self.clear(alarms, "not due at present");
            }
        }
        if reading.tag == self.plan.alias && reading.quality.is_good() {
            let next_us = self.plan.every_us.map(|every_us| reading.time_us + every_us);
            // An entry of an older measurement does not bring the next one forward.
            self.kept.due_us = self.kept.due_us.max(next_us);
            if self
                .kept
                .due_us
                .is_some_and(|due_us| due_us + self.plan.grace_us >= alarms.at_us)
            {
                self.clear(alarms, "entered");
            }
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now_us: Micros, alarms: &mut Alarms<'_>) {
        let Some(every_us) = self.plan.every_us.filter(|_| self.is_open) else {
            return;
        };
        let due_us = *self.kept.due_us.get_or_insert(now_us + every_us);
        let late_us = now_us - due_us - self.plan.grace_us;
        if late_us <= 0 {
            return;
        }
        let missed = (late_us - 1) / every_us + 1;
        self.kept.due_us = Some(due_us + missed * every_us);
        alarms.events.push(Event::NotRead(NotRead {
            tags: vec![self.plan.alias],
            from_us: due_us,
            to_us: due_us + (missed - 1) * every_us,
            due: u32::try_from(missed).unwrap_or(u32::MAX),
            reason: "manual check not made".to_owned(),
        }));
        let minutes = every_us / 60_000_000;
        let message = || format!("due every {minutes} min and not entered");
        alarms.set(
            &mut self.kept.missed,
            "manual.missed",
            subject(&self.plan),
            true,
            message,
        );
    }

    fn clear(&mut self, alarms: &mut Alarms<'_>, why: &str) {
        let message = || why.to_owned();
        alarms.set(
            &mut self.kept.missed,
            "manual.missed",
            subject(&self.plan),
            false,
            message,
        );
    }

    /// The clock was set back by `by_us`.
    pub(super) fn set_back(&mut self, by_us: Micros) {
        self.kept.due_us = self.kept.due_us.map(|due_us| due_us - by_us);
    }

    /// What outlives a restart.
    pub(super) fn save(&self) -> Option<Vec<u8>> {
        self.plan.every_us?;
        postcard::to_stdvec(&self.kept).ok()
    }

    /// Puts back what [`save`](Self::save) gave.
    pub(super) fn restore(&mut self, state: &[u8]) -> Result<(), postcard::Error> {
        self.kept = postcard::from_bytes(state)?;
        Ok(())
    }
}

fn subject(plan: &ManualPlan) -> Subject<'_> {
    Subject {
        tag: &plan.name,
        line: plan.line.as_deref(),
    }
}
