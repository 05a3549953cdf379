//! Did every batch cool fast enough, and will the one that is cooling? A batch begins when its warmest core falls
//! below `start`; each stage has a temperature to reach within a time from then (57 to 21 °C within 120 min, to 5 °C
//! within 360 min in the demo plant).
//!
//! The prediction is Newton's law of cooling, `T(t) = A + (T0 − A)·e^(−k·t)`, A the air's temperature: ln(T − A) is a
//! line, fitted by weighted least squares that forget with 15 minutes, so that a chiller that weakens is seen. A miss is
//! predicted when even a slope three standard errors steeper comes too late, ten minutes into the batch at the soonest.
//! Both times are those of a first stage of two hours or more; of a shorter one they are as much shorter.

use serde::{Deserialize, Serialize};

use super::{
    CheckVerdict, CriticalLimit, DeviationKind, Judgement, Observation,
    record::{OpenDeviation, Tally},
};
use crate::{quality::Quality, reading::Micros};

/// How fast a batch must cool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoolingCurve {
    /// A batch begins when the value falls below this, in the tag's unit.
    pub start: f64,
    /// The temperature that everything tends to, for the prediction.
    pub air: f64,
    /// In order of time. The last one's temperature is the limit's `high`.
    pub stages: Vec<CoolingStage>,
}

/// One stage of a cooling curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoolingStage {
    /// To be reached, in the tag's unit.
    pub to: f64,
    /// Within this time of the batch's beginning, microseconds.
    pub within_us: Micros,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Batch {
    from_us: Micros,
    window_us: Micros,
    /// Whether it was seen to begin.
    is_whole: bool,
    stage: usize,
    is_late: bool,
    is_predicted_late: bool,
    fit: Fit,
}

/// Judges the batches of one chiller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoolingJudge {
    edge: String,
    pub(super) limit: CriticalLimit,
    curve: CoolingCurve,
    pub(super) now_us: Option<Micros>,
    heard_us: Option<Micros>,
    /// Last value at or above the start.
    warm_us: Option<Micros>,
    /// Whether any value was seen yet.
    is_started: bool,
    batch: Option<Batch>,
    deviation: OpenDeviation,
    tally: Tally,
}

impl CoolingJudge {
    /// A judge that has seen nothing.
    pub fn new(edge: &str, limit: CriticalLimit, curve: CoolingCurve) -> Self {
        Self {
            edge: edge.to_owned(),
            limit,
            curve,
            now_us: None,
            heard_us: None,
            warm_us: None,
            is_started: false,
            batch: None,
            deviation: OpenDeviation::default(),
            tally: Tally::default(),
        }
    }

    /// How fast a batch must cool.
    pub fn curve(&self) -> &CoolingCurve {
        &self.curve
    }

    /// Whether a deviation is open.
    pub fn is_deviating(&self) -> bool {
        self.deviation.is_open()
    }

    /// Whether nothing that cools is late.
    pub fn is_in_control(&self) -> bool {
        self.heard_us.is_some() && !self.deviation.is_open()
    }

    /// Puts another version of the limit in force; a batch that cools goes on under it.
    pub fn change_limit(&mut self, limit: CriticalLimit) -> Vec<Judgement> {
        let mut said = Vec::new();
        if let (Some(batch), Some(now_us)) = (&mut self.batch, self.now_us) {
            let verdict = if batch.is_late {
                CheckVerdict::NotMet
            } else {
                CheckVerdict::NotMonitored
            };
            said.push(self.tally.cut(&self.limit, &mut batch.window_us, now_us, verdict));
        }
        self.limit = limit;
        said
    }

    /// The process enters a state in which nothing is judged: a batch that cools is not finished and counts so.
    pub fn pause(&mut self) -> Vec<Judgement> {
        let mut said = Vec::new();
        if let Some(now_us) = self.now_us {
            self.end_batch(now_us, false, &mut said);
        }
        self.warm_us = None;
        said
    }

    /// Judging goes on.
    pub fn resume(&mut self, at_us: Micros) {
        let at_us = self.now_us.map_or(at_us, |now_us| now_us.max(at_us));
        self.now_us = Some(at_us);
        self.heard_us = Some(at_us);
    }

    /// The clock was set back by `by_us`: all that was seen keeps its distance from now.
    pub fn set_back(&mut self, by_us: Micros) {
        let seen = [&mut self.now_us, &mut self.heard_us, &mut self.warm_us];
        seen.into_iter().flatten().for_each(|time_us| *time_us -= by_us);
        if let Some(batch) = &mut self.batch {
            batch.from_us -= by_us;
            batch.window_us -= by_us;
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
            Observation::Gate { .. } => {}
            Observation::Tick { .. } => self.check_deadline(at_us, None, &mut said),
            // A core that stood still reached nothing; it was not heard of since.
            Observation::NoEvidence { since_us, .. } => {
                self.heard_us = self.heard_us.map(|heard_us| heard_us.min(since_us));
                self.check_gap(at_us, &mut said);
            }
        }
        self.deviation.extend(at_us, &mut said);
        said
    }

    fn good_value(&mut self, at_us: Micros, value: f64, said: &mut Vec<Judgement>) {
        self.heard_us = Some(at_us);
        if self.deviation.kind() == Some(DeviationKind::MonitoringGap) {
            self.deviation.close(at_us, said);
        }
        self.check_deadline(at_us, Some(value), said);
        self.begin_or_replace(at_us, value, said);
        if self.batch.is_none() {
            return;
        }
        self.tally.good(value);
        let reached = |stage: usize| self.target(stage).is_none_or(|target| value <= target);
        let stages = self.curve.stages.len();
        let stage = self.batch.as_ref().map_or(0, |batch| batch.stage);
        let stage = (stage..stages).find(|stage| !reached(*stage)).unwrap_or(stages);
        if let Some(batch) = &mut self.batch {
            batch.stage = stage;
            let forget_s = scaled_s(FORGET_S, &self.curve);
            batch
                .fit
                .add(at_us - batch.from_us, value - self.curve.air, forget_s);
        }
        if stage == stages {
            self.end_batch(at_us, true, said);
        } else {
            self.predict(at_us, said);
        }
    }

    fn begin_or_replace(&mut self, at_us: Micros, value: f64, said: &mut Vec<Judgement>) {
        let is_first = !std::mem::replace(&mut self.is_started, true);
        // Noise around the start is no new batch.
        if self.batch.is_some() && value >= self.curve.start + self.limit.clear_margin.max(1.0) {
            self.end_batch(at_us, false, said);
        }
        if value >= self.curve.start {
            self.warm_us = self.batch.is_none().then_some(at_us);
            return;
        }
        let last = self.curve.stages.len().saturating_sub(1);
        let is_warm = self.target(last).is_some_and(|target| value > target);
        if self.batch.is_none() && (self.warm_us.is_some() || is_first && is_warm) {
            // It began somewhere since the last value above: from there the time counts.
            let from_us = self.warm_us.take().unwrap_or(at_us);
            self.tally = Tally::default();
            self.batch = Some(Batch {
                from_us,
                window_us: from_us,
                is_whole: !is_first,
                stage: 0,
                is_late: false,
                is_predicted_late: false,
                fit: Fit::default(),
            });
        }
    }

    /// The temperature that a stage asks for; none beyond the last.
    fn target(&self, stage: usize) -> Option<f64> {
        let asked = self.curve.stages.get(stage)?;
        let is_last = stage + 1 == self.curve.stages.len();
        Some(self.limit.high.filter(|_| is_last).unwrap_or(asked.to))
    }

    fn check_deadline(&mut self, at_us: Micros, value: Option<f64>, said: &mut Vec<Judgement>) {
        let Some(batch) = &mut self.batch else {
            return;
        };
        let due = self.curve.stages.get(batch.stage);
        if batch.is_late || due.is_none_or(|stage| at_us - batch.from_us <= stage.within_us) {
            return;
        }
        batch.is_late = true;
        let window = (batch.from_us, at_us);
        let value = value.or_else(|| self.tally.range().map(|(least, _)| least));
        self.deviation.turn(DeviationKind::Cooling, at_us, value, said);
        let point = (self.edge.as_str(), &self.limit);
        self.deviation.open(
            point,
            DeviationKind::Cooling,
            window,
            (value, Quality::GOOD),
            said,
        );
    }

    fn end_batch(&mut self, at_us: Micros, is_finished: bool, said: &mut Vec<Judgement>) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        let verdict = match (batch.is_late || !is_finished, batch.is_whole) {
            (true, _) => CheckVerdict::NotMet,
            (false, false) => CheckVerdict::NotMonitored,
            (false, true) => CheckVerdict::Met,
        };
        let coldest = self.tally.range().map(|(least, _)| least);
        said.push(self.tally.end(&self.limit, (batch.window_us, at_us), verdict));
        if !is_finished {
            let point = (self.edge.as_str(), &self.limit);
            let window = (batch.from_us, at_us);
            self.deviation.open(
                point,
                DeviationKind::Cooling,
                window,
                (coldest, Quality::GOOD),
                said,
            );
        }
        self.deviation.close(at_us, said);
        if batch.is_predicted_late {
            said.push(Judgement::Predicted { at_us, active: false });
        }
    }

    fn predict(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        let Some(batch) = &self.batch else {
            return;
        };
        if batch.is_late {
            return;
        }
        let remaining: Vec<(f64, Micros)> = (batch.stage..self.curve.stages.len())
            .filter_map(|stage| {
                Some((
                    self.target(stage)? - self.curve.air,
                    self.curve.stages[stage].within_us,
                ))
            })
            .collect();
        let misses = |errors: f64| {
            let late =
                |(rise, within_us): &(f64, Micros)| batch.fit.reaches_us(*rise, errors) > *within_us as f64;
            remaining.iter().any(late)
        };
        let was = batch.is_predicted_late;
        // To be said it must be sure; to be taken back it must be likely otherwise.
        let is_enough = batch.fit.is_enough(scaled_s(SPAN_S_MIN, &self.curve));
        let is_late = is_enough && misses(if was { 0.0 } else { ERRORS_SURE });
        if was != is_late {
            said.push(Judgement::Predicted {
                at_us,
                active: is_late,
            });
            if let Some(batch) = &mut self.batch {
                batch.is_predicted_late = is_late;
            }
        }
    }

    fn check_gap(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        let heard_us = *self.heard_us.get_or_insert(at_us);
        if at_us - heard_us > self.limit.gap_us_max {
            let point = (self.edge.as_str(), &self.limit);
            let window = (heard_us, at_us);
            self.deviation.open(
                point,
                DeviationKind::MonitoringGap,
                window,
                (None, Quality::BAD),
                said,
            );
        }
    }
}

/// So many standard errors steeper the fitted slope may be and the batch is still late.
const ERRORS_SURE: f64 = 3.0;
const FORGET_S: f64 = 15.0 * 60.0;
const VALUES_MIN: u32 = 30;
const SPAN_S_MIN: f64 = 10.0 * 60.0;
/// The first stage for which these times are meant, seconds.
const STAGE_S: f64 = 120.0 * 60.0;

/// A time of the fit for this curve: shorter where the first stage is.
fn scaled_s(time_s: f64, curve: &CoolingCurve) -> f64 {
    let first = curve.stages.first().map(|stage| stage.within_us as f64 / 1e6);
    time_s * first.map_or(1.0, |first_s| (first_s / STAGE_S).min(1.0))
}

/// Sums of the weighted regression of ln(T − A) on time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Fit {
    values: u32,
    last_s: f64,
    weight: f64,
    t: f64,
    y: f64,
    tt: f64,
    ty: f64,
    yy: f64,
}

impl Fit {
    /// Takes a value that lies `rise` above the air's temperature; what is `forget_s` older counts a third as much.
    fn add(&mut self, since_us: Micros, rise: f64, forget_s: f64) {
        // So near the air's temperature noise is all there is.
        if rise < 1.0 {
            return;
        }
        let (t, y) = (since_us as f64 / 1e6, rise.ln());
        let keep = (-(t - self.last_s).max(0.0) / forget_s).exp();
        for sum in [
            &mut self.weight,
            &mut self.t,
            &mut self.y,
            &mut self.tt,
            &mut self.ty,
            &mut self.yy,
        ] {
            *sum *= keep;
        }
        self.weight += 1.0;
        self.t += t;
        self.y += y;
        self.tt += t * t;
        self.ty += t * y;
        self.yy += y * y;
        self.last_s = t;
        self.values += 1;
    }

    fn is_enough(&self, span_s_min: f64) -> bool {
        self.values >= VALUES_MIN && self.last_s >= span_s_min
    }

    /// When the curve reaches `rise` above the air's temperature, microseconds from the batch's beginning, with the
    /// slope taken so many standard errors steeper; infinite when never.
    fn reaches_us(&self, rise: f64, errors: f64) -> f64 {
        if rise <= 0.0 || self.weight <= 2.0 {
            return f64::INFINITY;
        }
        let (t_mean, y_mean) = (self.t / self.weight, self.y / self.weight);
        let spread = self.tt - self.weight * t_mean * t_mean;
        let slope = (self.ty - self.weight * t_mean * y_mean) / spread;
        let residual = (self.yy - self.weight * y_mean * y_mean - slope * slope * spread).max(0.0);
        let error = (residual / (self.weight - 2.0) / spread).sqrt();
        let steeper = slope - errors * error;
        if steeper < 0.0 {
            (t_mean + (rise.ln() - y_mean) / steeper) * 1e6
        } else {
            f64::INFINITY
        }
    }
}

#[cfg(test)]
#[path = "cooling_tests.rs"]
mod tests;
