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

#[cfg(test)]
mod tests {
    use protocol::Quality;

    use super::*;

    const MINUTE: Micros = 60_000_000;

    fn check(gate: Option<(Alias, f64)>) -> Check {
        Check::new(ManualPlan {
            alias: Alias(0),
            name: "TT-403.HAND".to_owned(),
            line: None,
            unit: "degC".to_owned(),
            description: String::new(),
            low: None,
            high: None,
            every_us: Some(60 * MINUTE),
            grace_us: 5 * MINUTE,
            gate,
        })
    }

    /// What is said at each minute: of alarms raised or cleared, and how many checks are on record as not made.
    fn said(check: &mut Check, minute: i64, readings: &[Reading]) -> (Vec<bool>, u32) {
        let mut events = Vec::new();
        let mut alarms = Alarms {
            at_us: minute * MINUTE,
            new_id: Uuid::now_v7,
            events: &mut events,
        };
        for reading in readings {
            check.observe(reading, &mut alarms);
        }
        check.tick(minute * MINUTE, &mut alarms);
        let (mut raised, mut missed) = (Vec::new(), 0);
        for event in events {
            match event {
                Event::Alarm(alarm) => raised.push(alarm.active),
                Event::NotRead(record) => missed += record.due,
                other => panic!("{other:?}"),
            }
        }
        (raised, missed)
    }

    fn entered(minute: i64) -> Reading {
        Reading::new(Alias(0), minute * MINUTE, 3.4, Quality::GOOD)
    }

    #[test]
    fn a_check_that_is_made_in_time_is_no_alarm() {
        let mut check = check(None);
        for minute in 0..600 {
            let readings = if minute % 62 == 0 {
                vec![entered(minute)]
            } else {
                Vec::new()
            };
            assert_eq!(said(&mut check, minute, &readings), (Vec::new(), 0), "{minute}");
        }
    }

    #[test]
    fn a_check_that_is_not_made_is_alarmed_once_after_its_grace_and_on_record_every_time() {
        let mut check = check(None);
        said(&mut check, 0, &[entered(0)]);
        let (mut alarms, mut missed) = (Vec::new(), Vec::new());
        for minute in 1..=190 {
            let (raised, count) = said(&mut check, minute, &[]);
            alarms.extend(raised.into_iter().map(|active| (minute, active)));
            missed.extend((count > 0).then_some((minute, count)));
        }
        assert_eq!(alarms, [(66, true)]);
        assert_eq!(missed, [(66, 1), (126, 1), (186, 1)]);
        assert_eq!(said(&mut check, 191, &[entered(191)]), (vec![false], 0));
    }

    #[test]
    fn time_in_which_nothing_ran_is_on_record_after_a_restart() {
        let mut before = check(None);
        said(&mut before, 0, &[entered(0)]);
        let mut after = check(None);
        after.restore(&before.save().unwrap()).unwrap();
        // Due at 60, 120 and 180.
        assert_eq!(said(&mut after, 200, &[]), (vec![true], 3));
        assert_eq!(said(&mut after, 201, &[]), (Vec::new(), 0));
    }

    #[test]
    fn an_entry_of_an_old_measurement_does_not_make_up_for_the_missed_one() {
        let mut check = check(None);
        said(&mut check, 0, &[entered(0)]);
        assert_eq!(said(&mut check, 70, &[]), (vec![true], 1));
        // Measured at minute 3, entered at 71: the one due at 120 is still due then.
        said(&mut check, 71, &[entered(3)]);
        assert_eq!(said(&mut check, 126, &[]).1, 1);
    }

    #[test]
    fn while_the_line_stands_nothing_is_due_and_a_line_that_is_not_known_runs() {
        let gate = |minute: i64, value: f64| Reading::new(Alias(1), minute * MINUTE, value, Quality::GOOD);
        let mut check = check(Some((Alias(1), 1.0)));
        for minute in 0..300 {
            assert_eq!(said(&mut check, minute, &[gate(minute, 0.0)]), (Vec::new(), 0));
        }
        let unknown = Reading::bad(Alias(1), 300 * MINUTE, Quality::BAD_TIMEOUT);
        said(&mut check, 300, &[unknown]);
        assert_eq!(said(&mut check, 366, &[]), (vec![true], 1));
        assert_eq!(said(&mut check, 367, &[gate(367, 0.0)]), (vec![false], 0));
    }

    #[test]
    fn a_clock_that_is_set_back_moves_what_is_due() {
        let mut check = check(None);
        said(&mut check, 600, &[entered(600)]);
        check.set_back(600 * MINUTE);
        assert_eq!(said(&mut check, 64, &[]), (Vec::new(), 0));
        assert_eq!(said(&mut check, 66, &[]), (vec![true], 1));
    }
}
