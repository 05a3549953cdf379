//! Do defects come in a burst? A Bernoulli CUSUM over the verdicts of one camera (Reynolds and Stoumbos 1999, "A CUSUM
//! Chart for Monitoring a Proportion When Inspecting Continuously", Journal of Quality Technology 31): the sequential
//! form of a scan for the stretch of pictures, up to the newest, in which the share of defects is more likely the
//! burst's than the usual one. Pure: verdicts in, alarm or not out.
//!
//! With usual share p₀ and burst share p₁ a defect is worth r₂ = ln(p₁(1−p₀)/(p₀(1−p₁))) and every picture costs
//! r₁ = −ln((1−p₁)/(1−p₀)). Counted in units of r₁ with m = r₂/r₁ rounded to a whole number the sum is one:
//! `S = max(0, S − 1)`, and `m` more for a defect. An alarm is raised at the least limit at which, with the usual
//! share, the mean number of pictures between two false alarms is as long as asked for: [`Chart::new`] solves the
//! Markov chain of S for it, exactly. A burst is over when S is back at 0.

use protocol::event::{Inspection, Verdict};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::alarm::{Alarms, Subject};
use crate::config::Section;

/// Code of the alarm.
const CODE: &str = "inspect.defect_burst";

/// What a burst of defects is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurstLimit {
    /// Share of pictures with a defect in ordinary production, 0.001 to 0.2.
    pub usual: f64,
    /// The share that is a burst, at least twice the usual one, at most 0.9.
    pub burst: f64,
    /// So many pictures lie on average between two false alarms, 100 or more.
    pub false_alarm_every: u32,
}

/// The burst detector of one camera.
#[derive(Clone, Debug, PartialEq)]
pub struct BurstPlan {
    /// Name of the camera.
    pub camera: String,
    /// Code of its line.
    pub line: Option<String>,
    /// What is looked for.
    pub limit: BurstLimit,
}

/// The fixed numbers of a detector.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Chart {
    /// What a defect adds before the picture's one is taken off.
    step: u32,
    /// The sum at which there is an alarm.
    limit: u32,
    /// Pictures between two false alarms, on average.
    run_length: f64,
}

impl Chart {
    /// The chart for these shares. Let L(k) be the mean number of pictures until the alarm for a sum that is k below the
    /// limit. A picture leads to k + 1 or, with a defect, to k + 1 − m, so L(k) = 1 + q·L(k + 1) + p·L(k + 1 − m), with
    /// L = 0 where that is 0 or less; all follows from the states nearer to the limit, as L(k) = c + d·L(k + 1). At sum
    /// 0, where a good picture leads nowhere, it closes: the first k whose L is long enough is the limit.
    fn new(limit: BurstLimit) -> Self {
        let (p, q) = (limit.usual, 1.0 - limit.usual);
        let cost = -((1.0 - limit.burst) / q).ln();
        let worth = (limit.burst * q / (p * (1.0 - limit.burst))).ln();
        let step = (worth / cost).round().max(2.0) as usize;
        let mut states: Vec<(f64, f64)> = Vec::new();
        loop {
            let below = states.len() + 1;
            // Where a defect leads, expressed by this state: the steps from there back to here, one after the other.
            let (c, d) = match below.checked_sub(step) {
                None => (0.0, 0.0),
                Some(nearest) => states[nearest..]
                    .iter()
                    .fold((0.0, 1.0), |(c, d), (further, share)| {
                        (c + d * further, d * share)
                    }),
            };
            let run_length = (1.0 + p * c) / (1.0 - p * d - q);
            if run_length >= f64::from(limit.false_alarm_every) {
                return Self {
                    step: step as u32,
                    limit: below as u32,
                    run_length,
                };
            }
            states.push(((1.0 + p * c) / (1.0 - p * d), q / (1.0 - p * d)));
        }
    }
}

/// What of it outlives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    sum: u32,
    /// Pictures and defects since the sum left 0: the likeliest stretch of the burst.
    pictures: u32,
    defects: u32,
    open: Option<Uuid>,
}

impl State {
    /// Takes a verdict; whether a burst goes on.
    fn take(&mut self, chart: Chart, is_defect: bool) -> bool {
        self.pictures = self.pictures.saturating_add(1);
        if is_defect {
            self.defects = self.defects.saturating_add(1);
            self.sum += chart.step;
        }
        // Not beyond the limit: what was is not to hold up the end.
        self.sum = self.sum.saturating_sub(1).min(chart.limit);
        if self.sum == 0 {
            (self.pictures, self.defects) = (0, 0);
        }
        self.sum >= chart.limit || self.open.is_some() && self.sum > 0
    }
}

/// Follows one camera.
#[derive(Clone, Debug)]
pub(super) struct Burst {
    plan: BurstPlan,
    chart: Chart,
    state: State,
}

impl Burst {
    pub(super) fn new(plan: BurstPlan) -> Self {
        let chart = Chart::new(plan.limit);
        tracing::debug!(camera = %plan.camera, limit = chart.limit, step = chart.step,
            pictures = chart.run_length, "burst detector: pictures between two false alarms");
        Self {
            chart,
            plan,
            state: State::default(),
        }
    }

    pub(super) fn plan(&self) -> &BurstPlan {
        &self.plan
    }

    /// Takes the record of a picture. One that nobody could judge says nothing of defects.
    pub(super) fn take(&mut self, inspection: &Inspection, alarms: &mut Alarms<'_>) {
        let is_defect = match inspection.verdict {
            Verdict::Unknown => return,
            Verdict::Pass => false,
            Verdict::Reject => true,
        };
        let is_burst = self.state.take(self.chart, is_defect);
        let State {
            pictures, defects, ..
        } = self.state;
        let usual = self.plan.limit.usual * 100.0;
        let subject = Subject {
            tag: &self.plan.camera,
            line: self.plan.line.as_deref(),
        };
        alarms.set(&mut self.state.open, CODE, subject, is_burst, || {
            if is_burst {
                format!("{defects} of the last {pictures} pictures show a defect; {usual} % is usual")
            } else {
                format!("defects are as rare as usual again: {usual} %")
            }
        });
    }

    pub(super) fn save(&self) -> Option<Vec<u8>> {
        postcard::to_stdvec(&self.state).ok()
    }

    pub(super) fn restore(&mut self, state: &[u8]) -> Result<(), postcard::Error> {
        let saved: State = postcard::from_bytes(state)?;
        self.state = State {
            sum: saved.sum.min(self.chart.limit),
            ..saved
        };
        Ok(())
    }
}

/// Reads `burst` of a camera; none when it is not there.
pub(crate) fn read_burst(section: &Section<'_>) -> Option<BurstLimit> {
    if !section.has("burst") {
        return None;
    }
    let table = section.table("burst");
    let share = |key: &'static str, default: f64| table.number(key).map_or(default, |at| at.value);
    let (usual, burst) = (share("usual", 0.004), share("at", 0.045));
    let every = table
        .integer("false_alarm_every", 100..=100_000_000)
        .unwrap_or(60_000);
    if !(0.001..=0.2).contains(&usual) {
        table.fault(
            "`burst.usual` is the share of pictures with a defect in ordinary production: 0.001 to 0.2",
        );
    } else if !(usual * 2.0..=0.9).contains(&burst) {
        table.fault("`burst.at` is the share that is a burst: at least twice `usual`, at most 0.9");
    }
    table.finish();
    Some(BurstLimit {
        usual: usual.clamp(0.001, 0.2),
        burst: burst.clamp(usual.clamp(0.001, 0.2) * 2.0, 0.9),
        false_alarm_every: every as u32,
    })
}

#[cfg(test)]
#[path = "burst_tests.rs"]
mod tests;
