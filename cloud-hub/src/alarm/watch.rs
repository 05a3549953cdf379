//! Is a rule's condition true? Readings go in by their own time, turns come out. Pure and serialisable: the same
//! readings in the same order give the same turns, on whatever hub and however they arrived.
//!
//! ```text
//! no_data           now − last usable reading > window
//! threshold         value below `low` or above `high`, until `deadband` inside (the edge's own band)
//! rate              change per minute over the window, against the same band
//! zscore, mad       |block mean − centre of the season| / spread > score_max
//! cusum, ewma       drift of standardised block means beyond score_max (Page 1954; Roberts 1959)
//! isolation_forest  anomaly score of the asset's block means > score_max (Liu, Ting, Zhou 2008)
//! then              on-delay and off-delay, both in the time of the readings
//! ```
//! A block ends when the first reading after it comes. Only good values are judged by the statistical kinds;
//! threshold and rate judge uncertain ones too. While a rule is masked (the line stands) its condition is false.

use std::collections::VecDeque;

use ai_service::drift::{CusumSums, Ewma};
use protocol::{Micros, Quality, alarm::machine::AlarmBand};
use serde::{Deserialize, Serialize};

use super::model::Model;

/// How a rule judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing came for too long.
    NoData,
    /// Outside a band.
    Threshold,
    /// Changing too fast.
    Rate,
    /// Far from the mean of its season.
    ZScore,
    /// Far from the median of its season.
    Mad,
    /// Drifting: cumulated sum.
    Cusum,
    /// Drifting: exponentially weighted mean.
    Ewma,
    /// The asset's tags together are unusual.
    IsolationForest,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::NoData,
        Self::Threshold,
        Self::Rate,
        Self::ZScore,
        Self::Mad,
        Self::Cusum,
        Self::Ewma,
        Self::IsolationForest,
    ];

    /// Its name in SQL and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoData => "no_data",
            Self::Threshold => "threshold",
            Self::Rate => "rate",
            Self::ZScore => "zscore",
            Self::Mad => "mad",
            Self::Cusum => "cusum",
            Self::Ewma => "ewma",
            Self::IsolationForest => "isolation_forest",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether it needs a model of what is normal.
    pub const fn is_trained(self) -> bool {
        matches!(
            self,
            Self::ZScore | Self::Mad | Self::Cusum | Self::Ewma | Self::IsolationForest
        )
    }
}

/// What of a rule decides whether its condition is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// How it judges.
    pub kind: Kind,
    /// Of the value or its rate, with its deadband.
    pub band: AlarmBand,
    /// How long the condition must hold before it counts.
    pub on_delay_us: Micros,
    /// How long it must be over before it has ended.
    pub off_delay_us: Micros,
    /// Longest silence, span of a rate, length of a block; more than 0.
    pub window_us: Micros,
    /// See the kinds.
    pub score_max: f64,
    /// Whether the hour of the week matters.
    pub is_seasonal: bool,
    /// The tags that are judged: one, or all of an asset.
    pub tags: Vec<i32>,
    /// Judged only while this tag is above 0.
    pub running_tag: Option<i32>,
}

/// A reading of one of a rule's tags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Input {
    /// Which tag.
    pub tag_id: i32,
    /// Source time.
    pub time_us: Micros,
    /// The value; none when the quality is bad.
    pub value: Option<f64>,
    /// Its quality.
    pub quality: Quality,
}

/// The condition became true or false for good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// When, by the time of the readings.
    pub at_us: Micros,
    /// Which.
    pub is_active: bool,
    /// The value that was judged last.
    pub value: Option<f64>,
    /// Its score, where the kind has one.
    pub score: Option<f64>,
}

/// A block of one tag: its good values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Block {
    n: u32,
    sum: f64,
}

/// Follows one rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    is_true: bool,
    pending_us: Option<Micros>,
    is_active: bool,
    value: Option<f64>,
    score: Option<f64>,
    /// None: not known yet, and not masked.
    is_running: Option<bool>,
    last_us: Option<Micros>,
    /// For a rate: values of the window.
    recent: VecDeque<(Micros, f64)>,
    block_us: Option<Micros>,
    blocks: Vec<Block>,
    sums: CusumSums,
    mean: Ewma,
}

/// Most readings of a rate's window: the oldest goes first.
const RECENT_MAX: usize = 4_096;

impl Watch {
    /// Whether the condition counts as true, delays over.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// Takes a reading at or after the one before, and adds the turns it brings.
    pub fn take(&mut self, spec: &Spec, model: Option<&Model>, input: &Input, turns: &mut Vec<Turn>) {
        self.pass(spec, model, input.time_us, turns);
        if spec.running_tag == Some(input.tag_id) {
            self.is_running = input.value.map(|rate| rate > 0.0).or(self.is_running);
            if self.is_masked() && spec.kind != Kind::NoData {
                self.condition(input.time_us, false);
            }
        }
        let Some(place) = spec.tags.iter().position(|tag| *tag == input.tag_id) else {
            return;
        };
        let usable = input.value.filter(|_| !input.quality.is_bad());
        match spec.kind {
            Kind::NoData => {
                if let Some(value) = usable {
                    (self.last_us, self.value) = (Some(input.time_us), Some(value));
                    self.condition(input.time_us, false);
                }
            }
            Kind::Threshold | Kind::Rate => {
                if let Some(value) = usable {
                    self.judge_value(spec, input.time_us, value);
                }
            }
            _ => {
                if let Some(value) = usable.filter(|_| input.quality.is_good() && !self.is_masked()) {
                    self.fill_block(spec, input.time_us, place, value);
                }
            }
        }
        self.advance(spec, input.time_us, turns);
    }

    /// What is over by `at_us` without a further reading: a block, a silence, a delay.
    pub fn pass(&mut self, spec: &Spec, model: Option<&Model>, at_us: Micros, turns: &mut Vec<Turn>) {
        if spec.kind.is_trained() {
            self.end_block(spec, model, at_us, turns);
        }
        if spec.kind == Kind::NoData
            && let Some(last_us) = self.last_us
        {
            let silent_us = last_us.saturating_add(spec.window_us);
            if at_us > silent_us && !self.is_masked() {
                self.condition(silent_us, true);
            }
        }
        self.advance(spec, at_us, turns);
    }

    /// Start of the block at hand.
    pub fn block_us(&self) -> Option<Micros> {
        self.block_us
    }

    /// Another model: what was cumulated by the one before means nothing.
    pub fn forget_drift(&mut self) {
        (self.sums, self.mean) = (CusumSums::default(), Ewma::default());
    }

    /// Silence is counted from here when nothing came since.
    pub fn begin(&mut self, at_us: Micros) {
        self.last_us = Some(self.last_us.unwrap_or(at_us));
    }

    /// Delays that run out by `at_us`.
    pub fn advance(&mut self, spec: &Spec, at_us: Micros, turns: &mut Vec<Turn>) {
        while let Some(since_us) = self.pending_us {
            let delay_us = if self.is_active {
                spec.off_delay_us
            } else {
                spec.on_delay_us
            };
            let due_us = since_us.saturating_add(delay_us);
            if due_us > at_us {
                return;
            }
            self.pending_us = None;
            self.is_active = !self.is_active;
            turns.push(Turn {
                at_us: due_us,
                is_active: self.is_active,
                value: self.value,
                score: self.score,
            });
        }
    }

    fn is_masked(&self) -> bool {
        self.is_running == Some(false)
    }

    fn condition(&mut self, at_us: Micros, is_true: bool) {
        self.is_true = is_true;
        if is_true == self.is_active {
            self.pending_us = None;
        } else {
            self.pending_us.get_or_insert(at_us);
        }
    }

    fn judge_value(&mut self, spec: &Spec, at_us: Micros, value: f64) {
        let judged = if spec.kind == Kind::Rate {
            self.rate_per_min(spec, at_us, value)
        } else {
            Some(value)
        };
        let Some(judged) = judged.filter(|it| it.is_finite()) else {
            return;
        };
        self.value = Some(judged);
        let is_true = !self.is_masked() && spec.band.is_alarming(judged, self.is_true);
        self.condition(at_us, is_true);
    }

    /// Change per minute since the oldest value of the window; none before the window is half full.
    fn rate_per_min(&mut self, spec: &Spec, at_us: Micros, value: f64) -> Option<f64> {
        let oldest_us = at_us.saturating_sub(spec.window_us);
        while self
            .recent
            .front()
            .is_some_and(|(time_us, _)| *time_us < oldest_us)
            || self.recent.len() >= RECENT_MAX
        {
            self.recent.pop_front();
        }
        self.recent.push_back((at_us, value));
        let (from_us, from) = *self.recent.front()?;
        let span_us = at_us - from_us;
        (span_us * 2 >= spec.window_us).then(|| (value - from) / (span_us as f64 / 60e6))
    }

    fn fill_block(&mut self, spec: &Spec, at_us: Micros, place: usize, value: f64) {
        if self.block_us.is_none() {
            self.block_us = Some(at_us - at_us.rem_euclid(spec.window_us));
            self.blocks = vec![Block::default(); spec.tags.len()];
        }
        if let Some(block) = self.blocks.get_mut(place) {
            block.n += 1;
            block.sum += value;
        }
    }

    /// Judges the block at hand when `at_us` is beyond it.
    fn end_block(&mut self, spec: &Spec, model: Option<&Model>, at_us: Micros, turns: &mut Vec<Turn>) {
        let Some(from_us) = self.block_us.filter(|from_us| at_us >= from_us + spec.window_us) else {
            return;
        };
        self.block_us = None;
        let means: Option<Vec<f64>> = self
            .blocks
            .iter()
            .map(|block| (block.n > 0).then(|| block.sum / f64::from(block.n)))
            .collect();
        let end_us = from_us + spec.window_us;
        let Some((means, model)) = means.zip(model) else {
            return;
        };
        let Some(score) = self.score_of(spec, model, from_us, &means) else {
            return;
        };
        self.advance(spec, end_us, turns);
        (self.value, self.score) = (means.first().copied(), Some(score));
        self.condition(end_us, score > spec.score_max);
        self.advance(spec, end_us, turns);
    }

    fn score_of(&mut self, spec: &Spec, model: &Model, from_us: Micros, means: &[f64]) -> Option<f64> {
        let value = *means.first()?;
        let z = |model: &Model| model.standardised(value, from_us, spec.is_seasonal);
        let score = match spec.kind {
            Kind::ZScore | Kind::Mad => z(model)?.abs(),
            Kind::Cusum => self.sums.take(z(model)?, 2.0 * spec.score_max),
            Kind::Ewma => self.mean.take(z(model)?),
            Kind::IsolationForest => model.forest()?.score(means)?,
            Kind::NoData | Kind::Threshold | Kind::Rate => return None,
        };
        score.is_finite().then_some(score)
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
