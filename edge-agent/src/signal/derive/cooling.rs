//! How long will product take to cool? Crossing times of two temperatures, and the prediction of the second from
//! Newton's law, fitted to the readings so far.
//!
//! `T(t) = A + (T₀ − A)·e^(−kt)` makes `ln(T − A)` a straight line with the slope −k: a least-squares line over the
//! readings since the first crossing, older ones weighing less (time constant [`MEMORY_US`]), so that a chiller that
//! fails on the way is seen. The air temperature A is a constant or another tag.

use protocol::{Micros, Quality};
use serde::{Deserialize, Serialize};

/// Readings this old weigh 1/e.
const MEMORY_US: f64 = 30.0 * 60e6;
/// The line must rest on this many readings
const READINGS_MIN: u32 = 10;
/// over this time, before it predicts.
const SPAN_US_MIN: Micros = 5 * 60_000_000;
/// Product that is nearer to the air than this says nothing about k, in the tag's unit.
const NEAREST: f64 = 0.5;
/// Product that is this much warmer than `from` again is another load, in the tag's unit.
const REARM: f64 = 2.0;
const MINUTE_US: f64 = 60e6;

/// What is told of a cooling load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Minutes from crossing `from` to crossing `to`: predicted, and true once `to` is crossed.
    Predicted,
    /// Minutes since `from` was crossed, until `to` is.
    Elapsed,
    /// Newton's k per minute.
    Rate,
}

/// Which stretch of cooling is timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Time begins when product falls to this.
    pub from: f64,
    /// Time ends when product falls to this.
    pub to: f64,
    /// What is told.
    pub told: Told,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Phase {
    /// Nothing to cool, or its start was not seen.
    #[default]
    Waiting,
    Cooling {
        since_us: Micros,
        fit: Fit,
    },
    Done {
        took_us: Micros,
        k: Option<f64>,
    },
}

/// Weighted sums of a line through (minutes since the start, ln(T − A)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Fit {
    readings: u32,
    first_us: Micros,
    last_us: Micros,
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

/// A line `y = level − k·x`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    level: f64,
    k: f64,
}

impl Fit {
    fn add(&mut self, since_us: Micros, at_us: Micros, excess: f64) {
        if excess < NEAREST {
            return;
        }
        if self.readings == 0 {
            self.first_us = at_us;
        } else {
            let fade = (-((at_us - self.last_us).max(0) as f64) / MEMORY_US).exp();
            for sum in [
                &mut self.weight,
                &mut self.x,
                &mut self.y,
                &mut self.xx,
                &mut self.xy,
            ] {
                *sum *= fade;
            }
        }
        let (x, y) = ((at_us - since_us) as f64 / MINUTE_US, excess.ln());
        self.weight += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
        self.readings = self.readings.saturating_add(1);
        self.last_us = at_us;
    }

    fn line(&self) -> Option<Line> {
        if self.readings < READINGS_MIN || self.last_us - self.first_us < SPAN_US_MIN {
            return None;
        }
        let spread = self.weight * self.xx - self.x * self.x;
        if spread <= 0.0 {
            return None;
        }
        let slope = (self.weight * self.xy - self.x * self.y) / spread;
        let level = (self.y - slope * self.x) / self.weight;
        Some(Line { level, k: -slope })
    }
}

/// Follows one cooling product; outlives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cooling {
    phase: Phase,
    last: Option<(Micros, f64)>,
    air: Option<f64>,
    /// A crossing lies in a gap, or a doubtful reading went into it.
    is_doubtful: bool,
}

impl Cooling {
    /// Takes the product's temperature. `air` is the temperature of what cools it.
    pub(super) fn take(
        &mut self,
        stretch: &Stretch,
        (at_us, value): (Micros, f64),
        air: f64,
        gap_us_max: Micros,
    ) {
        let before = self.last.filter(|(last_us, _)| at_us > *last_us);
        if before.is_none() && self.last.is_some() {
            return;
        }
        self.last = Some((at_us, value));
        self.air = Some(air);
        if value > stretch.from + REARM {
            (self.phase, self.is_doubtful) = (Phase::Waiting, false);
            return;
        }
        let crossing_of = |level: f64| crossing(before?, (at_us, value), level);
        let is_gap = before.is_some_and(|(last_us, _)| at_us - last_us > gap_us_max);
        match &mut self.phase {
            Phase::Waiting => {
                if let Some(since_us) = crossing_of(stretch.from) {
                    self.is_doubtful = is_gap;
                    let mut fit = Fit::default();
                    fit.add(since_us, at_us, value - air);
                    self.phase = Phase::Cooling { since_us, fit };
                }
            }
            Phase::Cooling { since_us, fit } => {
                fit.add(*since_us, at_us, value - air);
                if let Some(until_us) = crossing_of(stretch.to) {
                    self.is_doubtful |= is_gap;
                    self.phase = Phase::Done {
                        took_us: until_us - *since_us,
                        k: fit.line().map(|line| line.k),
                    };
                }
            }
            Phase::Done { .. } => {}
        }
    }

    /// What is told now; none while there is nothing to tell.
    pub(super) fn told(&self, stretch: &Stretch) -> Option<Result<(f64, Quality), Quality>> {
        let quality = if self.is_doubtful {
            Quality::UNCERTAIN
        } else {
            Quality::GOOD
        };
        let value = match (&self.phase, stretch.told) {
            (Phase::Waiting, _) => return None,
            (Phase::Cooling { since_us, .. }, Told::Elapsed) => {
                let (at_us, _) = self.last?;
                (at_us - since_us) as f64 / MINUTE_US
            }
            (Phase::Cooling { fit, .. }, Told::Rate) => fit.line()?.k,
            (Phase::Cooling { fit, .. }, Told::Predicted) => {
                let Some(minutes) = predict(fit.line()?, stretch.to, self.air?) else {
                    // It will never be cold enough as it is going: no number says that.
                    return Some(Err(Quality::BAD_OUT_OF_RANGE));
                };
                minutes
            }
            (Phase::Done { took_us, .. }, Told::Predicted | Told::Elapsed) => *took_us as f64 / MINUTE_US,
            (Phase::Done { k, .. }, Told::Rate) => (*k)?,
        };
        Some(Ok((value, quality)))
    }

    /// A value that is not fully trusted went into it.
    pub(super) fn doubt(&mut self) {
        self.is_doubtful |= matches!(self.phase, Phase::Cooling { .. });
    }

    /// Another load.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// When a straight line between two readings falls to a level.
fn crossing(before: (Micros, f64), now: (Micros, f64), level: f64) -> Option<Micros> {
    let ((before_us, warm), (now_us, cold)) = (before, now);
    if !(warm > level && cold <= level) {
        return None;
    }
    let share = (warm - level) / (warm - cold);
    Some(before_us + ((now_us - before_us) as f64 * share).round() as Micros)
}

/// Minutes since the start at which the line reaches `to`.
fn predict(line: Line, to: f64, air: f64) -> Option<f64> {
    let excess = to - air;
    let minutes = (line.level - excess.ln()) / line.k;
    (excess > 0.0 && line.k > 0.0 && minutes.is_finite()).then_some(minutes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SECOND: Micros = 1_000_000;
    const AIR: f64 = -2.0;
    const FIRST: Stretch = Stretch {
        from: 57.0,
        to: 21.0,
        told: Told::Predicted,
    };

    fn newton(k: f64, minute: f64) -> f64 {
        AIR + 62.0 * (-k * minute).exp()
    }

    fn truth(k: f64) -> f64 {
        (59.0f64 / 23.0).ln() / k
    }

    /// A load at one reading every ten seconds; what was told at each.
    fn load(k: f64, noise: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut cooling = Cooling::default();
        let mut out = Vec::new();
        for n in 0..2_400 {
            let minute = f64::from(n) / 6.0;
            let spread: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
            let value = newton(k, minute) + noise * spread;
            cooling.take(&FIRST, (i64::from(n) * 10 * SECOND, value), AIR, 60 * SECOND);
            if let Some(Ok((told, _))) = cooling.told(&FIRST) {
                out.push((minute, told));
            }
        }
        out
    }

    #[test]
    fn the_crossing_times_of_a_clean_curve_are_found_to_the_second() {
        for k in [0.011, 0.013, 0.015] {
            let took = load(k, 0.0, 1).last().unwrap().1;
            assert!((took - truth(k)).abs() < 1.0 / 60.0, "{took} {}", truth(k));
        }
    }

    #[test]
    fn f7_an_overloaded_chiller_is_predicted_to_miss_more_than_an_hour_ahead() {
        // 57 to 21 °C within 120 minutes; k of 0.011 less 35 %.
        let k = 0.011 * 0.65;
        assert!(truth(k) > 120.0);
        for seed in 0..10 {
            let told = load(k, 0.2, seed);
            // From 50 minutes before the limit back to the first crossing at about a minute and a half.
            let by = told.iter().filter(|(minute, _)| (20.0..60.0).contains(minute));
            let missed = by.clone().filter(|(_, predicted)| *predicted > 120.0).count();
            assert_eq!(missed, by.count(), "seed {seed}");
        }
    }

    #[test]
    fn a_chiller_in_order_is_not_accused() {
        for seed in 0..20 {
            let told = load(0.0125, 0.2, seed);
            assert!(
                told.iter().all(|(_, predicted)| *predicted < 120.0),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn air_that_is_too_warm_is_no_number() {
        let mut cooling = Cooling::default();
        for n in 0..600 {
            let value = 22.0 + 40.0 * (-0.02 * f64::from(n) / 6.0).exp();
            cooling.take(&FIRST, (i64::from(n) * 10 * SECOND, value), 22.0, 60 * SECOND);
        }
        assert_eq!(cooling.told(&FIRST), Some(Err(Quality::BAD_OUT_OF_RANGE)));
    }

    #[test]
    fn a_load_whose_start_was_not_seen_is_not_timed() {
        let mut cooling = Cooling::default();
        for n in 0..100 {
            cooling.take(&FIRST, (n * 10 * SECOND, 50.0), AIR, 60 * SECOND);
        }
        assert_eq!(cooling.told(&FIRST), None);
    }

    #[test]
    fn a_crossing_in_a_gap_is_uncertain_and_the_next_load_is_not() {
        let mut cooling = Cooling::default();
        cooling.take(&FIRST, (0, 58.0), AIR, 60 * SECOND);
        cooling.take(&FIRST, (600 * SECOND, 50.0), AIR, 60 * SECOND);
        let elapsed = Stretch {
            told: Told::Elapsed,
            ..FIRST
        };
        assert!(matches!(
            cooling.told(&elapsed),
            Some(Ok((_, Quality::UNCERTAIN)))
        ));
        cooling.take(&FIRST, (700 * SECOND, 62.0), AIR, 60 * SECOND);
        assert_eq!(cooling.told(&elapsed), None);
        cooling.take(&FIRST, (710 * SECOND, 57.0), AIR, 60 * SECOND);
        assert_eq!(cooling.told(&elapsed), Some(Ok((0.0, Quality::GOOD))));
    }

    proptest! {
        #[test]
        fn a_clean_curve_is_predicted_to_a_thousandth(k in 0.004..0.03f64, air in -10.0..10.0f64) {
            let mut cooling = Cooling::default();
            let truth = ((57.0 - air) / (21.0 - air)).ln() / k;
            for n in 0..240 {
                let value = air + (60.0 - air) * (-k * f64::from(n) / 6.0).exp();
                cooling.take(&FIRST, (i64::from(n) * 10 * SECOND, value), air, 60 * SECOND);
                if let Some(Ok((told, _))) = cooling.told(&FIRST) {
                    prop_assert!((told / truth - 1.0).abs() < 1e-3, "{told} {truth}");
                }
            }
        }
    }
}
