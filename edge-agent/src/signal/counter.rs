//! How much was counted? A device's counter is followed through its rollover, its resets and gaps in its readings, and
//! becomes a total that only ever grows, and a rate.
//!
//! A counter whose value went down has rolled over or was reset. With `reset = "detect"`:
//! * *rollover* when what it would have counted, `max + step − before + now`, is plausible: at most `rate_max` times
//!   the time passed, or at most half of the counter's range where no `rate_max` is given;
//! * *reset* otherwise: `now` was counted since the reset, and what was counted between the reading before and the reset
//!   is not known, so the total is uncertain for that reading.
//!
//! A value that went up by more than `rate_max` allows is not believed: nothing is counted and the total is uncertain,
//! until [`CONFIRMATIONS`] such values in a row make it the new base (a counter that was preset).

use protocol::{Micros, Quality};
use serde::{Deserialize, Serialize};

/// So many implausible values in a row, each plausible after the one before, are the counter's new base.
const CONFIRMATIONS: u8 = 3;

/// What a value that went down means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WentDown {
    /// Told apart by plausibility.
    Detect,
    /// Always a rollover.
    Rollover,
    /// Always a reset.
    Reset,
}

/// How a counter counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Its greatest value; it goes on at 0.
    pub max: f64,
    /// The smallest step; every value is a multiple of it.
    pub step: f64,
    /// What a value that went down means.
    pub went_down: WentDown,
    /// Counted at most a second, when known.
    pub rate_max: Option<f64>,
    /// After a longer time without a reading a rollover may have gone unseen, microseconds.
    pub gap_us_max: Micros,
}

/// What is known of a counter; outlives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Counter {
    at_us: Micros,
    raw: f64,
    /// Total in steps: exact to 2^53.
    steps: u64,
    /// An implausible value that may be the new base, and how often it was confirmed.
    doubted: Option<(f64, u8)>,
}

/// What one reading of the counter said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counted {
    /// The total, in the counter's unit.
    pub total: f64,
    /// Counted a second since the reading before; none for the first reading, and where it is not known.
    pub rate: Option<f64>,
    /// Of total and rate.
    pub quality: Quality,
    /// What happened to the counter.
    pub what: Happening,
}

/// What happened to the counter between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// It counted, or stood still.
    Counted,
    /// It went past its greatest value.
    RolledOver,
    /// It was set to zero.
    WasReset,
    /// It cannot have counted so much.
    Doubted,
    /// It was set to another value.
    WasPreset,
}

impl Scale {
    /// Whether a raw value can be one of this counter.
    pub(super) fn holds(&self, raw: f64) -> bool {
        raw >= 0.0 && raw <= self.max
    }

    fn is_plausible(&self, counted: f64, passed_us: Micros) -> bool {
        match self.rate_max {
            Some(rate_max) => counted <= rate_max * passed_us as f64 / 1e6 + self.step,
            None => counted <= f64::midpoint(self.max, self.step),
        }
    }

    /// What was counted between two readings, and what happened.
    fn between(&self, before: f64, now: f64, passed_us: Micros) -> (f64, Happening) {
        if now >= before {
            let counted = now - before;
            let is_too_much = self.rate_max.is_some() && !self.is_plausible(counted, passed_us);
            return if is_too_much {
                (0.0, Happening::Doubted)
            } else {
                (counted, Happening::Counted)
            };
        }
        let rolled = self.max + self.step - before + now;
        let is_rollover = match self.went_down {
            WentDown::Detect => self.is_plausible(rolled, passed_us),
            WentDown::Rollover => true,
            WentDown::Reset => false,
        };
        if is_rollover {
            (rolled, Happening::RolledOver)
        } else {
            (now, Happening::WasReset)
        }
    }

    /// Whether a whole turn may have gone unseen.
    fn may_hide_a_turn(&self, passed_us: Micros, what: Happening) -> bool {
        match self.rate_max {
            Some(rate_max) => rate_max * passed_us as f64 / 1e6 >= self.max + self.step,
            None => passed_us > self.gap_us_max && what == Happening::RolledOver,
        }
    }
}

impl Counter {
    /// The first reading is the base from which is counted.
    pub(super) fn start(at_us: Micros, raw: f64) -> Self {
        Self {
            at_us,
            raw,
            steps: 0,
            doubted: None,
        }
    }

    /// What the first reading says: nothing was counted yet.
    pub(super) fn first(&self, scale: &Scale) -> Counted {
        self.said(scale, None, Quality::GOOD, Happening::Counted)
    }

    /// The total so far.
    pub(super) fn total(&self, scale: &Scale) -> f64 {
        self.steps as f64 * scale.step
    }

    /// Time of the newest reading.
    pub(super) fn at_us(&self) -> Micros {
        self.at_us
    }

    /// The clock that times come from was set back by `by_us`.
    pub(super) fn set_back(&mut self, by_us: Micros) {
        self.at_us = self.at_us.saturating_sub(by_us);
    }

    /// Takes a raw value that the [`Scale`] holds, later than the one before.
    pub(super) fn take(&mut self, scale: &Scale, at_us: Micros, raw: f64) -> Counted {
        let passed_us = at_us.saturating_sub(self.at_us);
        let (mut counted, mut what) = scale.between(self.raw, raw, passed_us);
        if what == Happening::Doubted {
            let confirmed = self.confirmed(scale, raw, passed_us);
            if confirmed < CONFIRMATIONS {
                self.doubted = Some((raw, confirmed));
                return self.said(scale, None, Quality::UNCERTAIN_SENSOR, what);
            }
            (counted, what) = (0.0, Happening::WasPreset);
        }
        self.doubted = None;
        self.steps += (counted / scale.step).round() as u64;
        (self.at_us, self.raw) = (at_us, raw);
        let is_doubtful = matches!(what, Happening::WasReset | Happening::WasPreset)
            || scale.may_hide_a_turn(passed_us, what);
        if is_doubtful {
            return self.said(scale, None, Quality::UNCERTAIN, what);
        }
        let rate = counted / (passed_us as f64 / 1e6);
        self.said(scale, Some(rate), Quality::GOOD, what)
    }

    /// How many implausible values in a row, this one included, follow from each other.
    fn confirmed(&self, scale: &Scale, raw: f64, passed_us: Micros) -> u8 {
        match self.doubted {
            Some((before, confirmed)) if raw >= before && scale.is_plausible(raw - before, passed_us) => {
                confirmed + 1
            }
            _ => 1,
        }
    }

    fn said(&self, scale: &Scale, rate: Option<f64>, quality: Quality, what: Happening) -> Counted {
        Counted {
            total: self.total(scale),
            rate,
            quality,
            what,
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "whole steps are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;
    const U16: Scale = Scale {
        max: 65_535.0,
        step: 1.0,
        went_down: WentDown::Detect,
        rate_max: None,
        gap_us_max: 60 * SECOND,
    };

    fn follow(scale: &Scale, raws: &[f64]) -> Vec<Counted> {
        let mut counter = Counter::start(0, raws[0]);
        let rest = raws[1..].iter().zip(1..);
        rest.map(|(raw, second)| counter.take(scale, second * SECOND, *raw))
            .collect()
    }

    #[test]
    fn f16_a_counter_that_goes_from_65535_to_0_has_counted_one() {
        let said = follow(&U16, &[65_533.0, 65_535.0, 0.0, 4.0]);
        let totals: Vec<f64> = said.iter().map(|counted| counted.total).collect();
        assert_eq!(totals, [2.0, 3.0, 7.0]);
        assert_eq!(said[1].what, Happening::RolledOver);
        assert_eq!((said[1].rate, said[1].quality), (Some(1.0), Quality::GOOD));
    }

    #[test]
    fn f16_a_reset_counts_what_came_after_it_and_says_that_something_is_missing() {
        let said = follow(&U16, &[30_000.0, 30_010.0, 3.0, 5.0]);
        assert_eq!(said[1].what, Happening::WasReset);
        assert_eq!((said[1].total, said[1].rate), (13.0, None));
        assert_eq!(said[1].quality, Quality::UNCERTAIN);
        assert_eq!((said[2].total, said[2].quality), (15.0, Quality::GOOD));
    }

    #[test]
    fn a_known_rate_tells_a_reset_near_the_top_from_a_rollover() {
        let scale = Scale {
            rate_max: Some(5.0),
            ..U16
        };
        let said = follow(&scale, &[65_000.0, 3.0, 8.0]);
        assert_eq!(said[0].what, Happening::WasReset);
        let said = follow(&scale, &[65_534.0, 2.0]);
        assert_eq!((said[0].what, said[0].total), (Happening::RolledOver, 4.0));
    }

    #[test]
    fn a_single_wild_value_is_not_counted_and_three_are_the_new_base() {
        let scale = Scale {
            rate_max: Some(5.0),
            ..U16
        };
        let said = follow(&scale, &[100.0, 60_000.0, 103.0]);
        assert_eq!((said[0].what, said[0].total), (Happening::Doubted, 0.0));
        assert_eq!((said[1].what, said[1].total), (Happening::Counted, 3.0));
        let said = follow(&scale, &[100.0, 60_000.0, 60_001.0, 60_002.0, 60_004.0]);
        assert_eq!(said[2].what, Happening::WasPreset);
        assert_eq!((said[3].total, said[3].quality), (2.0, Quality::GOOD));
    }

    #[test]
    fn a_turn_that_a_gap_may_hide_is_uncertain() {
        let mut counter = Counter::start(0, 65_000.0);
        let counted = counter.take(&U16, 120 * SECOND, 100.0);
        assert_eq!(
            (counted.what, counted.quality),
            (Happening::RolledOver, Quality::UNCERTAIN)
        );
        let scale = Scale {
            rate_max: Some(100.0),
            ..U16
        };
        let mut counter = Counter::start(0, 0.0);
        let counted = counter.take(&scale, 3_600 * SECOND, 10.0);
        assert_eq!(counted.quality, Quality::UNCERTAIN);
    }

    #[test]
    fn a_word_of_the_configuration_settles_what_going_down_means() {
        for (went_down, total) in [(WentDown::Rollover, 35_539.0), (WentDown::Reset, 3.0)] {
            let scale = Scale { went_down, ..U16 };
            assert_eq!(follow(&scale, &[30_000.0, 3.0])[0].total, total);
        }
    }

    proptest! {
        #[test]
        fn totals_never_fall_and_equal_what_was_counted_through_any_number_of_turns(
            start in 0u64..65_536, steps in proptest::collection::vec(0u64..30_000, 1..200),
        ) {
            let mut counter = Counter::start(0, start as f64);
            let (mut raw, mut truth, mut before) = (start, 0u64, 0.0);
            for (step, second) in steps.iter().zip(1..) {
                raw = (raw + step) % 65_536;
                truth += step;
                let counted = counter.take(&U16, second * SECOND, raw as f64);
                prop_assert!(counted.total >= before);
                before = counted.total;
                prop_assert_eq!(counted.total, truth as f64);
            }
        }

        #[test]
        fn totals_never_fall_whatever_the_counter_says(
            raws in proptest::collection::vec(0.0..65_535.0f64, 2..200), rate_max in proptest::option::of(0.1..1e5f64),
        ) {
            let scale = Scale { rate_max, ..U16 };
            let mut before = 0.0;
            for counted in follow(&scale, &raws) {
                prop_assert!(counted.total >= before && counted.total.is_finite());
                prop_assert!(counted.rate.is_none_or(|rate| rate >= 0.0));
                before = counted.total;
            }
        }
    }
}
