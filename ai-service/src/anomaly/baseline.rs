//! What is a tag's normal value, and how far from it is far? A centre and a spread over block means, one for each
//! hour of the week where there are enough blocks.
//!
//! ```text
//! mean      x̄ and s
//! median    median and 1.4826 · median |x − median|       (Rousseeuw, Croux 1993: 1.4826 makes it σ for a normal x)
//! moving    x̄ and mean |rᵢ − rᵢ₋₁| / 1.128, r = x − centre of its hour  (individuals chart, Montgomery §6.4)
//! ```
//! A spread is never less than a tenth of the whole's, nor than the least difference between two values: a sensor's
//! last digit is no anomaly.

use serde::{Deserialize, Serialize};

/// Hours of a week.
pub const CELLS: usize = 168;
/// Fewest blocks of an hour of the week that has a centre of its own.
const CELL_MIN: usize = 4;
/// Fewest blocks at all.
pub const BLOCKS_MIN: usize = 20;

/// How centre and spread are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Mean and standard deviation.
    Mean,
    /// Median and scaled median deviation: a tenth of outliers in the history moves it little.
    Median,
    /// Mean and moving range: for charts that look for drift.
    MovingRange,
}

/// Centre and spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normal {
    /// In the tag's unit.
    pub centre: f64,
    /// In the tag's unit, more than 0.
    pub spread: f64,
    /// Blocks it was taken from.
    pub n: u32,
}

/// What is normal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Of all hours.
    pub whole: Normal,
    /// By hour of the week; empty when the season does not matter. An hour with too few blocks has none.
    pub hours: Vec<Option<Normal>>,
}

/// There is too little to learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{blocks} blocks are too few to learn from: {BLOCKS_MIN} are needed, with values that differ")]
pub struct TooLittle {
    /// Blocks there are.
    pub blocks: usize,
}

impl Baseline {
    /// Learns from block means with their hour of the week (0 to 167).
    ///
    /// ```
    /// use ai_service::anomaly::baseline::{Baseline, Method};
    /// let blocks: Vec<(usize, f64)> = (0..99).map(|n| (n % 168, [1.0, 2.0, 3.0][n % 3])).collect();
    /// let learnt = Baseline::learn(&blocks, Method::Median, false)?;
    /// assert_eq!((learnt.whole.centre, learnt.whole.spread), (2.0, 1.4826));
    /// # Ok::<(), ai_service::anomaly::baseline::TooLittle>(())
    /// ```
    ///
    /// # Errors
    /// [`TooLittle`].
    pub fn learn(blocks: &[(usize, f64)], method: Method, is_seasonal: bool) -> Result<Self, TooLittle> {
        let usable: Vec<(usize, f64)> = blocks
            .iter()
            .copied()
            .filter(|(_, value)| value.is_finite())
            .collect();
        let values: Vec<f64> = usable.iter().map(|(_, value)| *value).collect();
        let few = TooLittle { blocks: values.len() };
        let step = least_step(&values)
            .filter(|_| values.len() >= BLOCKS_MIN)
            .ok_or(few)?;
        let whole = normal(&values, method, step);
        let hours = if is_seasonal {
            by_hour(&usable, method, (whole.spread / 10.0).max(step))
        } else {
            vec![]
        };
        let mut learnt = Self { whole, hours };
        if method == Method::MovingRange {
            learnt.take_moving_range(&usable, step);
        }
        Ok(learnt)
    }

    /// What is normal in an hour of the week; of all hours when the season does not matter.
    pub fn at(&self, hour: Option<usize>) -> Normal {
        hour.and_then(|hour| self.hours.get(hour).copied().flatten())
            .unwrap_or(self.whole)
    }

    /// Drift is measured against what remains once the hour is taken away.
    fn take_moving_range(&mut self, blocks: &[(usize, f64)], step: f64) {
        let hour = |hour: usize| (!self.hours.is_empty()).then_some(hour);
        let rest: Vec<f64> = blocks
            .iter()
            .map(|(of, value)| value - self.at(hour(*of)).centre)
            .collect();
        let ranges: Vec<f64> = rest.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        let spread = (mean(&ranges) / 1.128).max(step);
        self.whole.spread = spread;
        for normal in self.hours.iter_mut().flatten() {
            normal.spread = spread;
        }
    }
}

fn by_hour(blocks: &[(usize, f64)], method: Method, floor: f64) -> Vec<Option<Normal>> {
    (0..CELLS)
        .map(|hour| {
            let own: Vec<f64> = blocks
                .iter()
                .filter(|(of, _)| *of == hour)
                .map(|(_, value)| *value)
                .collect();
            (own.len() >= CELL_MIN).then(|| normal(&own, method, floor))
        })
        .collect()
}

fn normal(values: &[f64], method: Method, floor: f64) -> Normal {
    let (centre, spread) = match method {
        Method::Median => {
            let centre = median(values.to_vec());
            let off = values.iter().map(|value| (value - centre).abs()).collect();
            (centre, 1.4826 * median(off))
        }
        Method::Mean | Method::MovingRange => {
            let centre = mean(values);
            let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
            (centre, (squares / (values.len().max(2) - 1) as f64).sqrt())
        }
    };
    Normal {
        centre,
        spread: spread.max(floor),
        n: values.len() as u32,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// The least difference between two values that differ; none when none do.
fn least_step(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let steps = sorted
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .filter(|step| *step > 0.0);
    steps.min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_outliers_moves_the_median_little_and_the_mean_much() {
        let blocks: Vec<(usize, f64)> = (0..200)
            .map(|n| {
                (
                    0,
                    if n % 10 == 0 {
                        500.0
                    } else {
                        70.0 + f64::from(n % 7) / 10.0
                    },
                )
            })
            .collect();
        let robust = Baseline::learn(&blocks, Method::Median, false).unwrap().whole;
        let plain = Baseline::learn(&blocks, Method::Mean, false).unwrap().whole;
        assert!(
            (robust.centre - 70.3).abs() < 0.2 && robust.spread < 1.0,
            "{robust:?}"
        );
        assert!(plain.spread > 100.0);
    }

    #[test]
    fn an_hour_of_the_week_has_its_own_normal_once_it_was_seen_often_enough() {
        let blocks: Vec<(usize, f64)> = (0..10 * CELLS)
            .map(|n| {
                (
                    n % CELLS,
                    if n % CELLS < 60 { 4.0 } else { 20.0 } + (n % 3) as f64 * 0.1,
                )
            })
            .collect();
        let learnt = Baseline::learn(&blocks, Method::Mean, true).unwrap();
        assert!((learnt.at(Some(3)).centre - 4.1).abs() < 0.11);
        assert!((learnt.at(Some(100)).centre - 20.1).abs() < 0.11);
        assert_eq!(learnt.at(None), learnt.whole);
    }

    #[test]
    fn what_never_moved_or_hardly_ran_teaches_nothing() {
        let still: Vec<(usize, f64)> = (0..500).map(|n| (n % CELLS, 4.0)).collect();
        assert!(Baseline::learn(&still, Method::Mean, false).is_err());
        assert!(Baseline::learn(&[(0, 1.0), (0, 2.0)], Method::Mean, false).is_err());
    }

    #[test]
    fn a_moving_range_does_not_take_a_slow_wave_for_noise() {
        let blocks: Vec<(usize, f64)> = (0..2_000)
            .map(|n| (0, (f64::from(n) / 100.0).sin() * 10.0 + f64::from(n % 2) * 0.2))
            .collect();
        let moving = Baseline::learn(&blocks, Method::MovingRange, false)
            .unwrap()
            .whole;
        assert!((0.15..0.3).contains(&moving.spread), "{moving:?}");
    }
}
