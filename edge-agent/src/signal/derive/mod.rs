//! What follows from other tags? Derived tags are computed when their first input, the *lead*, has a reading, at the
//! lead's source time; the other inputs count as they last were. An input that is bad, or older than `gap_max`, makes
//! the derived reading bad: nothing is held.

mod cooling;
mod integral;
mod plan;
mod state;

use std::collections::VecDeque;

use protocol::{Micros, Quality, Reading, reading::Alias};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::{
    cooling::Cooling,
    integral::{Integral, Taken},
};
pub use self::{
    cooling::{Stretch, Told},
    integral::Integrand,
    plan::{DerivedPlan, Kind, Reset},
    state::{Condition, Rule},
};
use super::alarm::{Alarms, Subject};

/// Most values kept for a rate of change; bounds memory at any sample rate.
const VALUES_MAX: usize = 4_096;
/// A source time this far ahead of the receive time was of a clock that was wrong.
const AHEAD_US_MAX: Micros = 10_000_000;

/// What a derived tag remembers beside the last readings.
#[derive(Clone, Debug)]
enum Memory {
    None,
    Rate(VecDeque<(Micros, f64)>),
    Integral(Integral),
    Cooling(Cooling),
}

/// What of it outlives a restart.
#[derive(Serialize, Deserialize)]
struct Saved {
    integral: Option<Integral>,
    cooling: Option<Cooling>,
    reset_before: Option<f64>,
    gap_alarm: Option<Uuid>,
}

/// Computes one derived tag.
#[derive(Debug)]
pub(super) struct Derived {
    plan: DerivedPlan,
    memory: Memory,
    latest: Vec<Option<Reading>>,
    is_open: bool,
    reset_before: Option<f64>,
    told_us: Option<Micros>,
    gap_alarm: Option<Uuid>,
    /// What arrived and is not yet computed with.
    inbox: Vec<Reading>,
}

impl Derived {
    pub(super) fn new(plan: DerivedPlan) -> Self {
        let memory = match plan.kind {
            Kind::Rate { .. } => Memory::Rate(VecDeque::new()),
            Kind::Integral(_) => Memory::Integral(Integral::default()),
            Kind::Cooling { .. } => Memory::Cooling(Cooling::default()),
            _ => Memory::None,
        };
        Self {
            memory,
            latest: vec![None; plan.inputs.len()],
            is_open: plan.gate.is_none(),
            reset_before: None,
            told_us: None,
            gap_alarm: None,
            inbox: Vec::new(),
            plan,
        }
    }

    pub(super) fn plan(&self) -> &DerivedPlan {
        &self.plan
    }

    /// The tags whose readings it wants.
    pub(super) fn wants(&self) -> impl Iterator<Item = Alias> {
        let gate = self.plan.gate.map(|(tag, _)| tag);
        let reset = self.plan.reset.map(|reset| reset.tag);
        self.plan.inputs.iter().copied().chain(gate).chain(reset)
    }

    /// Takes a reading to compute with; true for the first since [`compute`](Self::compute).
    pub(super) fn put(&mut self, reading: Reading) -> bool {
        self.inbox.push(reading);
        self.inbox.len() == 1
    }

    /// Computes with what arrived together, in order of source time; the lead comes last of those with one time.
    pub(super) fn compute(&mut self, received_us: Micros, out: &mut Vec<Reading>, alarms: &mut Alarms<'_>) {
        let mut inbox = std::mem::take(&mut self.inbox);
        let lead = self.plan.inputs[0];
        inbox.sort_by_key(|reading| (reading.time_us, reading.tag == lead));
        for reading in inbox.drain(..) {
            self.begin_anew(&reading, alarms);
            self.pass_gate(&reading);
            for (input, latest) in self.plan.inputs.iter().zip(&mut self.latest) {
                if *input == reading.tag {
                    *latest = Some(reading);
                }
            }
            if reading.tag == lead && self.told_us != Some(reading.time_us) {
                self.forget_the_future(received_us, reading.time_us);
                out.extend(self.value_at(reading.time_us, alarms));
                self.told_us = Some(reading.time_us);
            }
        }
        self.inbox = inbox;
    }

    fn begin_anew(&mut self, reading: &Reading, alarms: &mut Alarms<'_>) {
        let Some(reset) = self.plan.reset.filter(|reset| reset.tag == reading.tag) else {
            return;
        };
        let Some(value) = reading.value().filter(|_| reading.quality.is_good()) else {
            return;
        };
        let before = self.reset_before.replace(value);
        let changed = before.is_some_and(|before| before.to_bits() != value.to_bits());
        let is_wanted = reset
            .value
            .is_none_or(|wanted| (value - wanted).abs() < f64::EPSILON);
        if !(changed && is_wanted) {
            return;
        }
        match &mut self.memory {
            Memory::Integral(integral) => integral.reset(),
            Memory::Cooling(cooling) => cooling.reset(),
            Memory::Rate(_) | Memory::None => {}
        }
        let message = || "a new batch began".to_owned();
        alarms.set(
            &mut self.gap_alarm,
            "derived.gap",
            subject(&self.plan),
            false,
            message,
        );
    }

    /// A gate that is not known for good counts as closed: nothing is credited that may not have been.
    fn pass_gate(&mut self, reading: &Reading) {
        if let Some((_, value)) = self.plan.gate.filter(|(tag, _)| *tag == reading.tag) {
            let known = reading.value().filter(|_| reading.quality.is_good());
            self.is_open = known.is_some_and(|known| (known - value).abs() < f64::EPSILON);
        }
    }

    /// A source whose clock was ahead and is right again must not wait until time has caught up.
    fn forget_the_future(&mut self, received_us: Micros, at_us: Micros) {
        let is_ahead = self
            .told_us
            .is_some_and(|told_us| told_us > at_us && told_us > received_us + AHEAD_US_MAX);
        if is_ahead {
            self.set_back();
        }
    }

    /// The clock that source times come from was set back.
    pub(super) fn set_back(&mut self) {
        self.told_us = None;
        match &mut self.memory {
            Memory::Integral(integral) => integral.set_back(),
            Memory::Cooling(cooling) => cooling.reset(),
            Memory::Rate(window) => window.clear(),
            Memory::None => {}
        }
    }

    /// The derived reading at the lead's time; none where none is due.
    fn value_at(&mut self, at_us: Micros, alarms: &mut Alarms<'_>) -> Option<Reading> {
        let alias = self.plan.alias;
        if let Kind::State(rules) = &self.plan.kind {
            let (latest, gap_us) = (&self.latest, self.plan.gap_us_max);
            let number = state::number(rules, |index| {
                let reading = latest.get(index).copied().flatten()?;
                let is_known = reading.quality.is_good() && is_fresh(&reading, at_us, gap_us);
                reading.value().filter(|_| is_known)
            });
            return Some(match number {
                Some(number) => Reading::new(alias, at_us, number, Quality::GOOD),
                None => Reading::bad(alias, at_us, Quality::BAD),
            });
        }
        let values = match self.inputs_at(at_us) {
            Ok(inputs) => inputs,
            Err(reason) => return Some(Reading::bad(alias, at_us, reason)),
        };
        match &self.memory {
            Memory::None => Some(Reading::new(
                alias,
                at_us,
                combine(&self.plan.kind, &values.0),
                values.1,
            )),
            Memory::Rate(_) => Some(self.rate(at_us, &values)),
            Memory::Integral(_) => Some(self.integrate(at_us, &values, alarms)),
            Memory::Cooling(_) => self.cool(at_us, &values),
        }
    }

    /// Every input's value and the quality of what is computed from them; or why it cannot be.
    fn inputs_at(&self, at_us: Micros) -> Result<(Vec<f64>, Quality), Quality> {
        let mut quality = Quality::GOOD;
        let mut values = Vec::with_capacity(self.latest.len());
        for latest in &self.latest {
            let reading = latest.ok_or(Quality::BAD_NOT_CONNECTED)?;
            let value = reading.value().ok_or(reading.quality)?;
            if !is_fresh(&reading, at_us, self.plan.gap_us_max) {
                return Err(Quality::BAD_TIMEOUT);
            }
            if !reading.quality.is_good() {
                quality = Quality::UNCERTAIN;
            }
            values.push(value);
        }
        Ok((values, quality))
    }

    fn rate(&mut self, at_us: Micros, (values, quality): &(Vec<f64>, Quality)) -> Reading {
        let (alias, gap_us) = (self.plan.alias, self.plan.gap_us_max);
        let (Kind::Rate { window_us, per_us }, Memory::Rate(window)) = (&self.plan.kind, &mut self.memory)
        else {
            return Reading::bad(alias, at_us, Quality::BAD_CONFIGURATION);
        };
        match window.back() {
            Some((last_us, _)) if at_us <= *last_us => {
                return Reading::bad(alias, at_us, Quality::BAD_TIMEOUT);
            }
            Some((last_us, _)) if at_us - last_us > gap_us => window.clear(),
            _ => {}
        }
        while window.len() >= VALUES_MAX
            || window.len() > 1
                && window
                    .get(1)
                    .is_some_and(|(second_us, _)| at_us - second_us >= *window_us)
        {
            window.pop_front();
        }
        window.push_back((at_us, values[0]));
        match window.front().filter(|(first_us, _)| *first_us < at_us) {
            Some((first_us, first)) => {
                let change = (values[0] - first) / ((at_us - first_us) as f64 / *per_us as f64);
                Reading::new(alias, at_us, change, *quality)
            }
            None => Reading::bad(alias, at_us, Quality::BAD_NOT_CONNECTED),
        }
    }

    fn integrate(
        &mut self,
        at_us: Micros,
        (values, quality): &(Vec<f64>, Quality),
        alarms: &mut Alarms<'_>,
    ) -> Reading {
        let alias = self.plan.alias;
        let (Kind::Integral(integrand), Memory::Integral(integral)) = (&self.plan.kind, &mut self.memory)
        else {
            return Reading::bad(alias, at_us, Quality::BAD_CONFIGURATION);
        };
        let taken = integral.take(integrand, (at_us, values[0]), self.is_open, self.plan.gap_us_max);
        if taken == Taken::Late {
            return Reading::bad(alias, at_us, Quality::BAD_TIMEOUT);
        }
        if !quality.is_good() && self.is_open {
            integral.doubt();
        }
        let (is_broken, is_sound, total) = (integral.is_broken(), integral.is_sound(), integral.total());
        let message = || "readings are missing: the value is a lower bound until its reset".to_owned();
        alarms.set(
            &mut self.gap_alarm,
            "derived.gap",
            subject(&self.plan),
            is_broken,
            message,
        );
        let quality = if is_sound {
            Quality::GOOD
        } else {
            Quality::UNCERTAIN
        };
        Reading::new(alias, at_us, total, quality)
    }

    fn cool(&mut self, at_us: Micros, (values, quality): &(Vec<f64>, Quality)) -> Option<Reading> {
        let (alias, gap_us) = (self.plan.alias, self.plan.gap_us_max);
        let (Kind::Cooling { stretch, air }, Memory::Cooling(cooling)) = (&self.plan.kind, &mut self.memory)
        else {
            return None;
        };
        if !self.is_open {
            return None;
        }
        let air = values.get(1).copied().or(*air)?;
        cooling.take(stretch, (at_us, values[0]), air, gap_us);
        if !quality.is_good() {
            cooling.doubt();
        }
        let reading = match cooling.told(stretch)? {
            Ok((value, quality)) => Reading::new(alias, at_us, value, quality),
            Err(reason) => Reading::bad(alias, at_us, reason),
        };
        Some(reading)
    }

    /// What of it outlives a restart.
    pub(super) fn save(&self) -> Option<Vec<u8>> {
        let saved = Saved {
            integral: match self.memory {
                Memory::Integral(integral) => Some(integral),
                _ => None,
            },
            cooling: match self.memory {
                Memory::Cooling(cooling) => Some(cooling),
                _ => None,
            },
            reset_before: self.reset_before,
            gap_alarm: self.gap_alarm,
        };
        let is_worth_it = saved.integral.is_some() || saved.cooling.is_some();
        is_worth_it.then(|| postcard::to_stdvec(&saved).ok()).flatten()
    }

    /// Puts back what [`save`](Self::save) gave.
    pub(super) fn restore(&mut self, state: &[u8]) -> Result<(), postcard::Error> {
        let saved: Saved = postcard::from_bytes(state)?;
        match (&mut self.memory, saved.integral, saved.cooling) {
            (Memory::Integral(integral), Some(before), _) => *integral = before,
            (Memory::Cooling(cooling), _, Some(before)) => *cooling = before,
            _ => {}
        }
        (self.reset_before, self.gap_alarm) = (saved.reset_before, saved.gap_alarm);
        Ok(())
    }
}

fn subject(plan: &DerivedPlan) -> Subject<'_> {
    Subject {
        tag: &plan.name,
        line: plan.line.as_deref(),
    }
}

fn is_fresh(reading: &Reading, at_us: Micros, gap_us_max: Micros) -> bool {
    (i128::from(at_us) - i128::from(reading.time_us)).abs() <= i128::from(gap_us_max)
}

/// Kinds without a memory.
fn combine(kind: &Kind, values: &[f64]) -> f64 {
    match kind {
        Kind::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
        Kind::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Kind::Sum => values.iter().sum(),
        Kind::Mean => values.iter().sum::<f64>() / values.len() as f64,
        _ => values[0] - values.get(1).copied().unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests;
