//! Is the control challenged when it is due, and does it pass? A metal detector gets its test pieces every hour; any
//! check that people make at times is of this kind. Product since the last challenge that passed is suspect when one
//! fails, or is not made within the grace.
//!
//! A challenge takes time, and a poll sees it late: that it passed proves nothing about product that came after its
//! beginning. The last good one therefore counts from the last reading before it showed, the next one from where it
//! is seen.

use serde::{Deserialize, Serialize};

use super::{
    CheckVerdict, CriticalLimit, DeviationKind, Judgement, Observation,
    record::{OpenDeviation, Tally},
};
use crate::{quality::Quality, reading::Micros};

/// When a control is challenged. A reading that meets the limit is a challenge that passed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Challenge {
    /// Due this long after the one before, microseconds, more than 0.
    pub every_us: Micros,
    /// Missed when it is this much overdue, microseconds, 0 or more.
    pub grace_us: Micros,
    /// The tag has this value while no challenge is made. A tag that is polled needs one: there a challenge is a
    /// change to another value.
    pub idle: Option<f64>,
}

/// Judges the challenges of one control point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChallengeJudge {
    edge: String,
    pub(super) limit: CriticalLimit,
    challenge: Challenge,
    pub(super) now_us: Option<Micros>,
    /// Nothing is due while no product flows.
    flowing: bool,
    /// When product began to flow again; first: when the judge began.
    since_us: Option<Micros>,
    /// When the last challenge was seen, passed or not.
    made_us: Option<Micros>,
    /// When the last that passed began at the earliest.
    passed_us: Option<Micros>,
    before: Option<f64>,
    deviation: OpenDeviation,
    window_us: Option<Micros>,
    tally: Tally,
}

impl ChallengeJudge {
    /// A judge that has seen nothing.
    pub fn new(edge: &str, limit: CriticalLimit, challenge: Challenge) -> Self {
        Self {
            edge: edge.to_owned(),
            limit,
            challenge,
            now_us: None,
            flowing: true,
            since_us: None,
            made_us: None,
            passed_us: None,
            before: None,
            deviation: OpenDeviation::default(),
            window_us: None,
            tally: Tally::default(),
        }
    }

    /// When it is challenged.
    pub fn challenge(&self) -> Challenge {
        self.challenge
    }

    /// Whether a deviation is open.
    pub fn is_deviating(&self) -> bool {
        self.deviation.is_open()
    }

    /// Whether the last challenge passed and none is missed.
    pub fn is_in_control(&self) -> bool {
        self.passed_us.is_some() && !self.deviation.is_open()
    }

    /// When the next challenge is due; none while no product flows.
    pub fn due_us(&self) -> Option<Micros> {
        let since_us = self.since_us.filter(|_| self.flowing)?;
        Some(
            self.made_us
                .map_or(since_us + self.challenge.every_us, |made_us| {
                    since_us.max(made_us + self.challenge.every_us)
                }),
        )
    }

    /// Puts another version of the limit in force; challenges made so far stay judged by the earlier one.
    pub fn change_limit(&mut self, limit: CriticalLimit) -> Vec<Judgement> {
        self.limit = limit;
        Vec::new()
    }

    /// The process enters a state in which nothing is judged, and nothing is due.
    pub fn pause(&mut self) -> Vec<Judgement> {
        self.flowing = false;
        Vec::new()
    }

    /// Judging goes on.
    pub fn resume(&mut self, at_us: Micros) {
        let at_us = self.now_us.map_or(at_us, |now_us| now_us.max(at_us));
        self.now_us = Some(at_us);
        self.flow(at_us, true);
    }

    /// The clock was set back by `by_us`: all that was seen keeps its distance from now.
    pub fn set_back(&mut self, by_us: Micros) {
        let seen = [
            &mut self.now_us,
            &mut self.since_us,
            &mut self.made_us,
            &mut self.passed_us,
            &mut self.window_us,
        ];
        seen.into_iter().flatten().for_each(|time_us| *time_us -= by_us);
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
        self.since_us.get_or_insert(at_us);
        self.window_us.get_or_insert(at_us);
        self.check_due(at_us, &mut said);
        match observation {
            Observation::Value {
                after_us,
                value,
                quality,
                ..
            } if quality.is_good() && value.is_finite() => {
                if self.is_challenge(value) {
                    self.made((after_us.min(at_us), at_us), value, &mut said);
                }
            }
            Observation::Value { .. } => self.tally.bad += 1,
            Observation::Gate { flowing, .. } => self.flow(at_us, flowing),
            // A challenge is a change: a value that stands still is none.
            Observation::Tick { .. } | Observation::NoEvidence { .. } => {}
        }
        self.deviation.extend(at_us, &mut said);
        said
    }

    fn flow(&mut self, at_us: Micros, flowing: bool) {
        if flowing && !self.flowing {
            self.since_us = Some(at_us);
        }
        self.flowing = flowing;
    }

    fn is_challenge(&mut self, value: f64) -> bool {
        let before = self.before.replace(value);
        let is_idle = self
            .challenge
            .idle
            .is_some_and(|idle| (idle - value).abs() < f64::EPSILON);
        let is_same = before.is_some_and(|before| (before - value).abs() < f64::EPSILON);
        !is_idle && (self.limit.period_us == 0 || !is_same)
    }

    /// One was made, begun at `began_us` at the earliest and seen at `at_us`.
    fn made(&mut self, (began_us, at_us): (Micros, Micros), value: f64, said: &mut Vec<Judgement>) {
        self.tally.good(value);
        let passed = self.limit.is_met(value);
        let verdict = if passed {
            CheckVerdict::Met
        } else {
            CheckVerdict::NotMet
        };
        self.end_window(at_us, verdict, said);
        self.made_us = Some(at_us);
        if passed {
            self.passed_us = Some(began_us);
            self.deviation.close(at_us, said);
            return;
        }
        self.deviation
            .turn(DeviationKind::Challenge, at_us, Some(value), said);
        self.open(at_us, DeviationKind::Challenge, Some(value), said);
    }

    fn check_due(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        let missed_us = self.due_us().map(|due_us| due_us + self.challenge.grace_us);
        if self.deviation.is_open() || missed_us.is_none_or(|missed_us| at_us < missed_us) {
            return;
        }
        self.end_window(at_us, CheckVerdict::NotMonitored, said);
        self.open(at_us, DeviationKind::MissedCheck, None, said);
    }

    fn open(&mut self, at_us: Micros, kind: DeviationKind, value: Option<f64>, said: &mut Vec<Judgement>) {
        let last_good_us = self.passed_us.or(self.since_us).unwrap_or(at_us);
        let quality = if value.is_some() {
            Quality::GOOD
        } else {
            Quality::BAD
        };
        let point = (self.edge.as_str(), &self.limit);
        self.deviation
            .open(point, kind, (last_good_us, at_us), (value, quality), said);
    }

    fn end_window(&mut self, at_us: Micros, verdict: CheckVerdict, said: &mut Vec<Judgement>) {
        let from_us = self.window_us.replace(at_us).unwrap_or(at_us);
        // How many readings were due says nothing of how many challenges were.
        let limit = CriticalLimit {
            period_us: 0,
            ..self.limit.clone()
        };
        said.push(self.tally.end(&limit, (from_us, at_us), verdict));
    }
}

#[cfg(test)]
#[path = "challenge_tests.rs"]
mod tests;
