//! Does a sensor drift away from its reference? A two-sided tabular CUSUM (Page 1954; Montgomery, *Introduction to
//! Statistical Quality Control*, §9.1) over block means of the difference between the two, on source time.
//!
//! The first blocks are the baseline: their mean is what the difference should be, their standard deviation (at least
//! `floor`) the unit σ. Then `C⁺ = max(0, C⁺ + (mean − μ)/σ − 1)` and its mirror image grow with every block that lies
//! more than one σ off; [`DECISION`] σ of growth are drift. With k = 1 and h = 8 a false alarm is expected once in 10⁷
//! blocks of a difference that does not drift.

use protocol::Micros;
use serde::{Deserialize, Serialize};

/// Half the shift, in σ, that is looked for.
const SLACK: f64 = 1.0;
/// Growth of the sum, in σ, that is drift.
const DECISION: f64 = 8.0;
/// Fewest pairs in a block that counts.
const PAIRS_MIN: u32 = 5;

/// How drift is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DriftLimit {
    /// Length of a block, microseconds.
    pub block_us: Micros,
    /// Blocks of the baseline.
    pub baseline: u32,
    /// Least σ, in the tag's unit: what a block's mean may differ by without meaning anything.
    pub floor: f64,
}

/// Follows one tag and its reference; outlives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Drift {
    reference: Option<(Micros, f64)>,
    /// Start of the block at hand, its pairs and the sum of their differences.
    block: Option<(Micros, u32, f64)>,
    /// Blocks in the baseline, their mean and the sum of squares about it (Welford).
    learned: (u32, f64, f64),
    /// Sums above and below, in σ.
    sums: (f64, f64),
    is_drifting: bool,
}

impl Drift {
    /// Takes a value of the reference.
    pub(super) fn reference(&mut self, at_us: Micros, value: f64) {
        self.reference = Some((at_us, value));
    }

    /// Takes a value of the watched tag; whether it drifts.
    pub(super) fn take(&mut self, limit: &DriftLimit, at_us: Micros, value: f64) -> bool {
        let Some((reference_us, reference)) = self.reference else {
            return self.is_drifting;
        };
        if (at_us - reference_us).abs() > limit.block_us {
            return self.is_drifting;
        }
        let start_us = at_us - at_us.rem_euclid(limit.block_us);
        match &mut self.block {
            Some((of_us, pairs, sum)) if *of_us == start_us => {
                *pairs += 1;
                *sum += value - reference;
            }
            Some((of_us, pairs, sum)) if *of_us < start_us => {
                let ended = (*pairs >= PAIRS_MIN).then(|| *sum / f64::from(*pairs));
                self.block = Some((start_us, 1, value - reference));
                if let Some(mean) = ended {
                    self.end_block(limit, mean);
                }
            }
            // Late values belong to a block that was judged.
            Some(_) => {}
            None => self.block = Some((start_us, 1, value - reference)),
        }
        self.is_drifting
    }

    /// How far the sensor is off by the blocks so far, in σ of a block: the larger of both sums.
    pub(super) fn grown(&self) -> f64 {
        self.sums.0.max(self.sums.1)
    }

    fn end_block(&mut self, limit: &DriftLimit, mean: f64) {
        let (count, centre, squares) = self.learned;
        if count < limit.baseline {
            let count = count + 1;
            let moved = centre + (mean - centre) / f64::from(count);
            self.learned = (count, moved, squares + (mean - centre) * (mean - moved));
            return;
        }
        let deviation = (squares / f64::from(count.max(2) - 1)).sqrt();
        let score = (mean - centre) / deviation.max(limit.floor);
        self.sums.0 = (self.sums.0 + score - SLACK).max(0.0);
        self.sums.1 = (self.sums.1 - score - SLACK).max(0.0);
        // What brought the difference back (a calibration) ends it, and old growth does not hold it up for long.
        if self.sums.0.max(self.sums.1) > DECISION {
            self.is_drifting = true;
            self.sums = (self.sums.0.min(2.0 * DECISION), self.sums.1.min(2.0 * DECISION));
        } else if self.sums == (0.0, 0.0) {
            self.is_drifting = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const MINUTE: Micros = 60_000_000;
    const DAY: Micros = 24 * 60 * MINUTE;
    const LIMIT: DriftLimit = DriftLimit {
        block_us: 60 * MINUTE,
        baseline: 24,
        floor: 0.05,
    };

    /// Sum of three uniform numbers, standard deviation 1: near enough to a normal one.
    fn noise(random: &mut ChaCha8Rng) -> f64 {
        2.0 * (0..3).map(|_| random.random::<f64>()).sum::<f64>() - 3.0
    }

    /// Oven zones one reading a minute with the plant's noise of 0.8 °C; the day on which drift is found, if it is.
    fn day_found(seed: u64, days: i64, drift_per_day: impl Fn(f64) -> f64) -> Option<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut drift = Drift::default();
        (0..days * DAY / MINUTE).find_map(|minute| {
            let at_us = minute * MINUTE;
            let day = at_us as f64 / DAY as f64;
            // Both follow the oven, which is not constant itself.
            let oven = 3.0 * (day * 40.0).sin();
            drift.reference(at_us, 186.0 + oven + 0.8 * noise(&mut random));
            let value = 196.0 + oven + drift_per_day(day) + 0.8 * noise(&mut random);
            drift.take(&LIMIT, at_us, value).then_some(day)
        })
    }

    #[test]
    fn f3_a_drift_of_0_15_degrees_a_day_is_found_by_day_five() {
        for seed in 0..10 {
            // A day of baseline, then the drift begins.
            let found = day_found(seed, 8, |day| 0.15 * (day - 1.0).max(0.0)).expect("never found");
            assert!((1.0..6.0).contains(&found), "seed {seed}: day {found}");
        }
    }

    #[test]
    fn a_sensor_that_does_not_drift_is_left_alone_for_a_quarter() {
        for seed in 0..2 {
            assert_eq!(day_found(seed, 90, |_| 0.0), None, "seed {seed}");
        }
    }

    #[test]
    fn a_calibration_ends_it() {
        let mut drift = Drift::default();
        let mut is_drifting = Vec::new();
        for hour in 0..200i64 {
            let off = if (50..100).contains(&hour) { 1.0 } else { 0.0 };
            for minute in 0..60 {
                let at_us = (hour * 60 + minute) * MINUTE;
                drift.reference(at_us, 10.0);
                is_drifting.push(drift.take(&LIMIT, at_us, 10.0 + off + 0.01 * (minute % 3) as f64));
            }
        }
        assert!(is_drifting[99 * 60] && !is_drifting[199 * 60]);
    }

    #[test]
    fn what_was_learned_outlives_a_restart() {
        let mut drift = Drift::default();
        for minute in 0..3_000 {
            drift.reference(minute * MINUTE, 1.0);
            drift.take(&LIMIT, minute * MINUTE, 2.0);
        }
        let bytes = postcard::to_stdvec(&drift).unwrap();
        assert_eq!(postcard::from_bytes::<Drift>(&bytes).unwrap(), drift);
    }
}
