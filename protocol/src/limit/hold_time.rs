//! Was every cycle held at its limit for long enough? A kettle's batch or a tray's core must stay at or above a
//! temperature for a time; the verdict falls when the cycle ends.
//!
//! A cycle runs while the gate says so or, without a gate, while the value is at or above `cycle_above`. A pause in
//! monitoring longer than `gap_max` breaks the hold: what was not seen was not held.

use serde::{Deserialize, Serialize};

use super::{
    CheckVerdict, CriticalLimit, DeviationKind, Judgement, Observation,
    record::{OpenDeviation, Tally},
};
use crate::{quality::Quality, reading::Micros};

/// How long, and what a cycle is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldTime {
    /// The value must meet the limit for this long without a break, microseconds, more than 0.
    pub hold_us: Micros,
    /// Without a gate, a cycle runs while the value is at or above this, in the tag's unit.
    pub cycle_above: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cycle {
    from_us: Micros,
    /// Where its window of monitoring began: its own start, or the last change of the limit.
    window_us: Micros,
    /// First and last value of the unbroken hold that runs.
    run: Option<(Micros, Micros)>,
    is_held: bool,
}

/// Judges the cycles of one control point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldTimeJudge {
    edge: String,
    pub(super) limit: CriticalLimit,
    hold: HoldTime,
    pub(super) now_us: Option<Micros>,
    /// What the gate said last, when there is one.
    gate: Option<bool>,
    cycle: Option<Cycle>,
    /// Last good value.
    heard_us: Option<Micros>,
    /// Last good value outside a cycle: the next cycle began after it.
    idle_us: Option<Micros>,
    /// End of the cycle behind an open deviation.
    failed_us: Option<Micros>,
    deviation: OpenDeviation,
    tally: Tally,
}

impl HoldTimeJudge {
    /// A judge that has seen nothing.
    pub fn new(edge: &str, limit: CriticalLimit, hold: HoldTime) -> Self {
        Self {
            edge: edge.to_owned(),
            limit,
            hold,
            now_us: None,
            gate: None,
            cycle: None,
            heard_us: None,
            idle_us: None,
            failed_us: None,
            deviation: OpenDeviation::default(),
            tally: Tally::default(),
        }
    }

    /// How long, and what a cycle is.
    pub fn hold(&self) -> HoldTime {
        self.hold
    }

    /// Whether a deviation is open.
    pub fn is_deviating(&self) -> bool {
        self.deviation.is_open()
    }

    /// Whether no cycle runs that is still to be held.
    pub fn is_in_control(&self) -> bool {
        self.heard_us.is_some()
            && !self.deviation.is_open()
            && self.cycle.as_ref().is_none_or(|cycle| cycle.is_held)
    }

    /// Puts another version of the limit in force. A hold that runs begins anew; the window so far is on record as
    /// far as it had come.
    pub fn change_limit(&mut self, limit: CriticalLimit) -> Vec<Judgement> {
        let mut said = Vec::new();
        if let (Some(cycle), Some(now_us)) = (&mut self.cycle, self.now_us) {
            let verdict = if cycle.is_held {
                CheckVerdict::Met
            } else {
                CheckVerdict::NotMonitored
            };
            said.push(self.tally.cut(&self.limit, &mut cycle.window_us, now_us, verdict));
            cycle.run = None;
        }
        self.limit = limit;
        said
    }

    /// The process enters a state in which nothing is judged: a cycle that runs ends.
    pub fn pause(&mut self) -> Vec<Judgement> {
        let mut said = Vec::new();
        if let Some(now_us) = self.now_us {
            self.end_cycle(now_us, &mut said);
        }
        said
    }

    /// Judging goes on.
    pub fn resume(&mut self, at_us: Micros) {
        let at_us = self.now_us.map_or(at_us, |now_us| now_us.max(at_us));
        self.now_us = Some(at_us);
        self.heard_us = Some(at_us);
        self.idle_us = Some(at_us);
    }

    /// The clock was set back by `by_us`: all that was seen keeps its distance from now.
    pub fn set_back(&mut self, by_us: Micros) {
        let seen = [
            &mut self.now_us,
            &mut self.heard_us,
            &mut self.idle_us,
            &mut self.failed_us,
        ];
        seen.into_iter().flatten().for_each(|time_us| *time_us -= by_us);
        if let Some(cycle) = &mut self.cycle {
            cycle.from_us -= by_us;
            cycle.window_us -= by_us;
            if let Some((since_us, last_us)) = &mut cycle.run {
                *since_us -= by_us;
                *last_us -= by_us;
            }
        }
        self.deviation.set_back(by_us);
    }

    /// Takes one observation and says what follows from it. One older than the newest changes nothing.
    pub fn observe(&mut self, observation: Observation) -> Vec<Judgement> {
        let at_us = observation.at_us();
        let mut said = Vec::new();
        if self.now_us.is_some_and(|now_us| at_us < now_us) {
            return said;
        }
        self.now_us = Some(at_us);
        self.check_gap(at_us, &mut said);
        match observation {
            Observation::Value { value, quality, .. } if quality.is_good() && value.is_finite() => {
                self.good_value(at_us, value, &mut said);
            }
            Observation::Value { .. } => self.tally.bad += 1,
            Observation::Gate { flowing, .. } => {
                self.gate = Some(flowing);
                self.turn(at_us, flowing, &mut said);
            }
            Observation::Tick { .. } => {}
            Observation::NoEvidence { since_us, .. } => self.disprove(at_us, since_us, &mut said),
        }
        if self.deviation.kind() == Some(DeviationKind::MonitoringGap) {
            self.deviation.extend(at_us, &mut said);
        }
        said
    }

    /// The values since then are no evidence: what was held is what was held until then.
    fn disprove(&mut self, at_us: Micros, since_us: Micros, said: &mut Vec<Judgement>) {
        self.heard_us = self.heard_us.map(|heard_us| heard_us.min(since_us));
        if let Some(cycle) = &mut self.cycle
            && let Some((from_us, _)) = cycle.run.take()
        {
            cycle.is_held = since_us - from_us >= self.hold.hold_us;
        }
        self.check_gap(at_us, said);
    }

    fn good_value(&mut self, at_us: Micros, value: f64, said: &mut Vec<Judgement>) {
        self.heard_us = Some(at_us);
        let runs = self.gate.unwrap_or(value >= self.hold.cycle_above);
        self.turn(at_us, runs, said);
        let Some(cycle) = &mut self.cycle else {
            self.idle_us = Some(at_us);
            self.close_gap(at_us, said);
            return;
        };
        self.tally.good(value);
        if !self.limit.is_met(value) {
            cycle.run = None;
            return;
        }
        let since_us = cycle
            .run
            .filter(|(_, last_us)| at_us - last_us <= self.limit.gap_us_max)
            .map_or(at_us, |(since_us, _)| since_us);
        cycle.run = Some((since_us, at_us));
        if at_us - since_us >= self.hold.hold_us {
            cycle.is_held = true;
            self.close_gap(at_us, said);
        }
    }

    fn close_gap(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        if self.deviation.kind() == Some(DeviationKind::MonitoringGap) {
            self.deviation.close(at_us, said);
        }
    }

    /// Begins or ends a cycle.
    fn turn(&mut self, at_us: Micros, runs: bool, said: &mut Vec<Judgement>) {
        if !runs {
            self.end_cycle(at_us, said);
            return;
        }
        if self.cycle.is_some() {
            return;
        }
        if let Some(failed_us) = self.failed_us.take() {
            // The failed batch is complete: its window does not grow into the next one.
            self.deviation.close(failed_us, said);
        }
        let from_us = self.idle_us.unwrap_or(at_us);
        self.tally = Tally::default();
        self.cycle = Some(Cycle {
            from_us,
            window_us: from_us,
            run: None,
            is_held: false,
        });
    }

    fn end_cycle(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        let Some(cycle) = self.cycle.take() else {
            return;
        };
        self.idle_us = Some(at_us);
        let furthest = self.tally.range().map(
            |(least, greatest)| {
                if self.limit.low.is_some() { greatest } else { least }
            },
        );
        let verdict = match (cycle.is_held, self.tally.good) {
            (true, _) => CheckVerdict::Met,
            (false, 0) => CheckVerdict::NotMonitored,
            (false, _) => CheckVerdict::NotMet,
        };
        said.push(self.tally.end(&self.limit, (cycle.window_us, at_us), verdict));
        if cycle.is_held {
            return;
        }
        self.failed_us = Some(at_us);
        self.deviation
            .turn(DeviationKind::HoldTime, at_us, furthest, said);
        let point = (self.edge.as_str(), &self.limit);
        let window = (cycle.from_us, at_us);
        self.deviation.open(
            point,
            DeviationKind::HoldTime,
            window,
            (furthest, Quality::GOOD),
            said,
        );
    }

    fn check_gap(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        let heard_us = *self.heard_us.get_or_insert(at_us);
        let is_silent = at_us - heard_us > self.limit.gap_us_max;
        // A gate tells that nothing runs, or that what runs was held: silence then hides nothing.
        let is_harmless = match (&self.cycle, self.gate) {
            (None, gate) => gate == Some(false),
            (Some(cycle), gate) => cycle.is_held && gate.is_some(),
        };
        if !is_silent || is_harmless {
            return;
        }
        let last_good_us = self.cycle.as_ref().map_or(heard_us, |cycle| cycle.from_us);
        let point = (self.edge.as_str(), &self.limit);
        self.deviation.open(
            point,
            DeviationKind::MonitoringGap,
            (last_good_us, at_us),
            (None, Quality::BAD),
            said,
        );
    }
}

#[cfg(test)]
#[path = "hold_time_tests.rs"]
mod tests;
