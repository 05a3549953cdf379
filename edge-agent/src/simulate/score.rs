//! How well did an agent do, measured against the ground truth?
//! Pure: truth and records in, findings out. For each fault: what was expected and when it was found, which product
//! was held that should not have been, and which was not that should; and what was raised for nothing.

use protocol::{
    event::Event,
    limit::{Deviation, Phase},
};
use serde::{Deserialize, Serialize};

use super::truth::{Expect, Kind, Span, Truth};

/// After a fault ended, so long its deviations may still be reported and grow, plant seconds.
const SETTLE_S: f64 = 120.0;

/// How plant time relates to the times of the records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// When plant time was 0, UTC microseconds.
    pub epoch_us: i64,
    /// Plant seconds a wall second.
    pub speed: f64,
    /// What polling, scheduling and a fast plant may cost on top of what is expected, wall seconds.
    #[serde(default)]
    pub slack_s: f64,
}

impl Timing {
    fn plant_us(&self, utc_us: i64) -> i64 {
        ((utc_us - self.epoch_us) as f64 * self.speed) as i64
    }

    /// The slack in plant time, microseconds.
    fn slack_us(&self) -> i64 {
        (self.slack_s * self.speed * 1e6) as i64
    }
}

/// What became of one expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Found in time, or rightly not found.
    Met,
    /// Found, too late.
    Late,
    /// Not found.
    Missing,
    /// Found what should not be.
    Violated,
    /// An edge's events do not tell.
    NotJudged,
}

/// One expectation and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What was expected.
    pub expect: Expect,
    /// What became of it.
    pub verdict: Verdict,
    /// Plant seconds from when it could be known to when it was.
    pub latency_s: Option<f64>,
}

/// The window that was held against the one that is suspect, plant seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Held {
    /// Really suspect.
    pub true_s: f64,
    /// Held.
    pub found_s: f64,
    /// Suspect and not held: lots missed.
    pub missed_s: f64,
    /// Held and not suspect.
    pub extra_s: f64,
    /// `extra_s` as a share of the time the line ran.
    pub over_hold_share: f64,
}

/// One fault and how it was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// `f1` to `f20`.
    pub what: String,
    /// What was expected.
    pub findings: Vec<Finding>,
    /// What was held, where product was suspect.
    pub held: Option<Held>,
}

/// The whole score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Plant seconds that were observed.
    pub observed_s: f64,
    /// Each fault.
    pub outcomes: Vec<Outcome>,
    /// Deviations that belong to no fault.
    pub false_deviations: Vec<String>,
    /// Alarms that belong to no fault.
    pub false_alarms: Vec<String>,
}

impl Report {
    /// Whether everything that an edge's events can tell was found in time and nothing more.
    pub fn is_passed(&self) -> bool {
        let good = |finding: &Finding| matches!(finding.verdict, Verdict::Met | Verdict::NotJudged);
        self.outcomes
            .iter()
            .all(|outcome| outcome.findings.iter().all(good))
            && self.false_deviations.is_empty()
            && self.false_alarms.is_empty()
    }
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not JSON: {source}")]
pub struct NotRecords {
    line: usize,
    source: serde_json::Error,
}

/// Reads records: a line of JSON each, an event or an object with an `event`. Lines about other things are passed
/// over.
///
/// # Errors
/// The first line that is not JSON.
pub fn read_events(lines: &str) -> Result<Vec<Event>, NotRecords> {
    let mut events = Vec::new();
    for (n, line) in lines
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let mut value: serde_json::Value =
            serde_json::from_str(line).map_err(|source| NotRecords { line: n + 1, source })?;
        if let Some(inner) = value.get_mut("event") {
            value = inner.take();
        }
        events.extend(serde_json::from_value::<Event>(value));
    }
    Ok(events)
}

/// Scores an agent's events. `until_us`: the plant time up to which the agent ran.
pub fn score(truth: &[Truth], events: &[Event], timing: Timing, until_us: i64) -> Report {
    let scored = Scored {
        deviations: deviations(events),
        events,
        timing,
        until_us,
    };
    let outcomes = truth.iter().filter(|truth| !truth.expect.is_empty());
    Report {
        observed_s: seconds(until_us),
        outcomes: outcomes.map(|truth| scored.outcome(truth)).collect(),
        false_deviations: scored.false_deviations(truth),
        false_alarms: scored.false_alarms(truth),
    }
}

struct Scored<'a> {
    /// When each deviation was found, and how far it came.
    deviations: Vec<(i64, &'a Deviation)>,
    events: &'a [Event],
    timing: Timing,
    until_us: i64,
}

/// Each deviation by its last phase, with the moment it was opened.
fn deviations(events: &[Event]) -> Vec<(i64, &Deviation)> {
    let mut found: Vec<(i64, &Deviation)> = Vec::new();
    for event in events {
        let Event::Deviation(deviation) = event else {
            continue;
        };
        match found.iter_mut().find(|(_, known)| known.id == deviation.id) {
            Some((opened_us, known)) => {
                *opened_us = (*opened_us).min(deviation.detected_us);
                if deviation.until_us >= known.until_us {
                    *known = deviation;
                }
            }
            None => found.push((deviation.detected_us, deviation)),
        }
    }
    found
}

impl Scored<'_> {
    fn outcome(&self, truth: &Truth) -> Outcome {
        Outcome {
            what: truth.what.clone(),
            findings: truth
                .expect
                .iter()
                .map(|expect| self.finding(truth, expect))
                .collect(),
            held: truth.suspect.map(|span| self.held(truth, span)),
        }
    }

    fn finding(&self, truth: &Truth, expect: &Expect) -> Finding {
        let found_us = match expect.kind {
            Kind::Deviation => self.deviation_us(truth, expect, false),
            Kind::LateDeviation => self.deviation_us(truth, expect, true),
            Kind::Alarm => self.alarm_us(truth, expect),
            Kind::None => return self.none(truth, expect),
            Kind::Edge | Kind::Hub => return finding(expect, Verdict::NotJudged, None),
        };
        let latency_s = found_us.map(|us| seconds(us - expect.after_us));
        let most_s = expect.within_s + seconds(self.timing.slack_us());
        let verdict = match latency_s {
            Some(latency_s) if latency_s <= most_s => Verdict::Met,
            Some(_) => Verdict::Late,
            None => Verdict::Missing,
        };
        finding(expect, verdict, latency_s)
    }

    /// When a deviation was found, plant time. A late one lies wholly before the moment it was found.
    fn deviation_us(&self, truth: &Truth, expect: &Expect, is_late: bool) -> Option<i64> {
        let of_kind = self.deviations.iter().filter(|(opened_us, deviation)| {
            let until_us = self.timing.plant_us(deviation.until_us);
            deviation.ccp == expect.subject
                && name(&deviation.kind) == expect.code
                && self.is_during(truth, self.timing.plant_us(*opened_us))
                && (!is_late || truth.to_us.is_some_and(|to_us| until_us <= to_us))
        });
        of_kind
            .map(|(opened_us, _)| self.timing.plant_us(*opened_us))
            .min()
    }

    fn alarm_us(&self, truth: &Truth, expect: &Expect) -> Option<i64> {
        let alarms = self.events.iter().filter_map(|event| match event {
            Event::Alarm(alarm) if alarm.active => Some(alarm),
            _ => None,
        });
        let fitting = alarms.filter(|alarm| {
            alarm.code == expect.code && (expect.subject.is_empty() || alarm.subject == expect.subject)
        });
        let times = fitting.map(|alarm| self.timing.plant_us(alarm.at_us));
        times.filter(|us| self.is_during(truth, *us)).min()
    }

    fn none(&self, truth: &Truth, expect: &Expect) -> Finding {
        let found = self.deviations.iter().find(|(opened_us, deviation)| {
            (expect.subject.is_empty() || deviation.ccp == expect.subject)
                && self.is_during(truth, self.timing.plant_us(*opened_us))
        });
        match found {
            Some((opened_us, _)) => {
                let latency_s = seconds(self.timing.plant_us(*opened_us) - truth.from_us);
                finding(expect, Verdict::Violated, Some(latency_s))
            }
            None => finding(expect, Verdict::Met, None),
        }
    }

    /// Whether a moment belongs to a fault: from its beginning (or its suspect product's) until it has settled.
    fn is_during(&self, truth: &Truth, at_us: i64) -> bool {
        let settle_us = (SETTLE_S * 1e6) as i64 + self.timing.slack_us();
        let last_us = truth
            .expect
            .iter()
            .map(|expect| expect.after_us + (expect.within_s * 1e6) as i64);
        let end_us = truth.to_us.map(|to_us| last_us.fold(to_us, i64::max));
        at_us >= truth.from_us - self.timing.slack_us()
            && end_us.is_none_or(|end_us| at_us <= end_us.saturating_add(settle_us))
    }

    fn held(&self, truth: &Truth, suspect: Span) -> Held {
        let (from_us, to_us) = (
            suspect.from_us,
            suspect.to_us.unwrap_or(self.until_us).min(self.until_us),
        );
        let mut spans: Vec<(i64, i64)> = self
            .attributed(truth)
            .map(|deviation| self.span(deviation))
            .collect();
        spans.sort_unstable();
        let (mut found_us, mut covered_us, mut end_us) = (0, 0, i64::MIN);
        for (start_us, stop_us) in spans {
            let start_us = start_us.max(end_us);
            if stop_us > start_us {
                found_us += stop_us - start_us;
                covered_us += (stop_us.min(to_us) - start_us.max(from_us)).max(0);
                end_us = stop_us;
            }
        }
        let extra_s = seconds(found_us - covered_us);
        Held {
            true_s: seconds(to_us - from_us),
            found_s: seconds(found_us),
            missed_s: seconds((to_us - from_us - covered_us).max(0)),
            extra_s,
            over_hold_share: extra_s / seconds(self.until_us).max(1.0),
        }
    }

    /// The time for which a deviation holds product; one that is open holds until now.
    fn span(&self, deviation: &Deviation) -> (i64, i64) {
        let until_us = if deviation.phase == Phase::Closed {
            self.timing.plant_us(deviation.until_us)
        } else {
            self.until_us
        };
        (self.timing.plant_us(deviation.last_good_us), until_us)
    }

    fn attributed(&self, truth: &Truth) -> impl Iterator<Item = &Deviation> {
        let of_truth = self.deviations.iter().filter(move |(opened_us, deviation)| {
            self.is_during(truth, self.timing.plant_us(*opened_us)) && expects(truth, &deviation.ccp)
        });
        of_truth.map(|(_, deviation)| *deviation)
    }

    fn false_deviations(&self, truth: &[Truth]) -> Vec<String> {
        let unexpected = self.deviations.iter().filter(|(opened_us, deviation)| {
            let at_us = self.timing.plant_us(*opened_us);
            // One that a fault forbids is already its violation.
            !truth.iter().any(|truth| {
                self.is_during(truth, at_us)
                    && (expects(truth, &deviation.ccp) || forbids(truth, &deviation.ccp))
            })
        });
        unexpected
            .map(|(_, deviation)| format!("{} {}", deviation.ccp, name(&deviation.kind)))
            .collect()
    }

    fn false_alarms(&self, truth: &[Truth]) -> Vec<String> {
        let unexpected = self.events.iter().filter_map(|event| match event {
            Event::Alarm(alarm) if alarm.active => Some(alarm),
            _ => None,
        });
        let unexpected = unexpected.filter(|alarm| {
            let at_us = self.timing.plant_us(alarm.at_us);
            !truth.iter().any(|truth| {
                let expected = truth.expect.iter().any(|expect| expect.code == alarm.code);
                let allowed = truth.may.iter().any(|code| code == "*" || *code == alarm.code);
                self.is_during(truth, at_us) && (expected || allowed)
            })
        });
        unexpected
            .map(|alarm| format!("{} {}", alarm.code, alarm.subject))
            .collect()
    }
}

fn finding(expect: &Expect, verdict: Verdict, latency_s: Option<f64>) -> Finding {
    Finding {
        expect: expect.clone(),
        verdict,
        latency_s,
    }
}

fn expects(truth: &Truth, ccp: &str) -> bool {
    truth
        .expect
        .iter()
        .any(|expect| matches!(expect.kind, Kind::Deviation | Kind::LateDeviation) && expect.subject == ccp)
}

fn forbids(truth: &Truth, ccp: &str) -> bool {
    let none = |expect: &Expect| expect.kind == Kind::None;
    truth
        .expect
        .iter()
        .any(|expect| none(expect) && (expect.subject.is_empty() || expect.subject == ccp))
}

/// The name of a unit variant as it is written.
fn name(kind: &impl Serialize) -> String {
    let value = serde_json::to_value(kind).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
