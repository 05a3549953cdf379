//! How much came together over time? Lethality (F₀, pasteurisation units) and totals, integrated exactly for a value
//! that runs straight from one reading to the next.
//!
//! Lethality is `F = ∫ 10^((T − Tref)/z) dt` (Bigelow 1921; Ball 1923). Over a straight ramp from T₁ to T₂ in the time
//! Δt the integral is `z/(r·ln 10) · (10^((T₂−Tref)/z) − 10^((T₁−Tref)/z))` with `r = (T₂ − T₁)/Δt`. It is computed as
//! `Δt · 10^((T₁−Tref)/z) · (e^x − 1)/x` with `x = (T₂ − T₁)·ln 10/z`: the same number, also where r is near 0.

use protocol::Micros;
use serde::{Deserialize, Serialize};

/// What is integrated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Integrand {
    /// Minutes at the reference temperature that kill as much.
    Lethality {
        /// Reference temperature, in the tag's unit.
        reference: f64,
        /// Temperature difference for a tenfold rate, in the tag's unit; greater than 0.
        z: f64,
    },
    /// The value itself, which is a rate per this time, microseconds.
    Rate {
        /// The time in the rate's unit: an hour for L/h.
        per_us: Micros,
    },
}

const MINUTE_US: f64 = 60e6;

impl Integrand {
    /// The integral from one value to the next.
    ///
    /// ```
    /// use edge_agent::signal::Integrand;
    /// let lethality = Integrand::Lethality { reference: 121.11, z: 10.0 };
    /// assert_eq!(lethality.between(121.11, 121.11, 180_000_000), 3.0);
    /// // 20 minutes at 62 °C in beer: 38.81 pasteurisation units.
    /// let beer = Integrand::Lethality { reference: 60.0, z: 1.0 / 1.393f64.log10() };
    /// assert!((beer.between(62.0, 62.0, 1_200_000_000) - 38.81).abs() < 0.005);
    /// ```
    pub fn between(&self, first: f64, second: f64, passed_us: Micros) -> f64 {
        match *self {
            Self::Lethality { reference, z } => {
                let minutes = passed_us as f64 / MINUTE_US;
                let x = (second - first) * std::f64::consts::LN_10 / z;
                let mean = if x == 0.0 { 1.0 } else { x.exp_m1() / x };
                minutes * 10f64.powf((first - reference) / z) * mean
            }
            // Halves first: the sum of two doubles may be none.
            Self::Rate { per_us } => (first / 2.0 + second / 2.0) * (passed_us as f64 / per_us as f64),
        }
    }
}

/// A sum that is kept to the last digit over millions of terms (Neumaier 1974).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, term: f64) {
        let sum = self.sum + term;
        self.lost += if self.sum.abs() >= term.abs() {
            (self.sum - sum) + term
        } else {
            (term - sum) + self.sum
        };
        self.sum = sum;
    }

    fn total(self) -> f64 {
        self.sum + self.lost
    }
}

/// What became of a value that was handed to an integral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was used.
    Used,
    /// Too long after the last: the time between counts nothing, and the integral is a lower bound until its reset.
    AfterGap,
    /// Not later than the last one.
    Late,
}

/// An integral over source time; outlives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Integral {
    sum: Sum,
    last: Option<(Micros, f64)>,
    is_broken: bool,
    is_doubtful: bool,
}

impl Integral {
    /// Takes a value. While closed, time passes and nothing comes together.
    pub(super) fn take(
        &mut self,
        integrand: &Integrand,
        (at_us, value): (Micros, f64),
        is_open: bool,
        gap_us_max: Micros,
    ) -> Taken {
        if !is_open {
            self.last = None;
            return Taken::Used;
        }
        let Some((last_us, last)) = self.last else {
            self.last = Some((at_us, value));
            return Taken::Used;
        };
        if at_us <= last_us {
            return Taken::Late;
        }
        self.last = Some((at_us, value));
        if at_us - last_us > gap_us_max {
            self.is_broken = true;
            return Taken::AfterGap;
        }
        self.sum.add(integrand.between(last, value, at_us - last_us));
        Taken::Used
    }

    /// A value that is not fully trusted went into it.
    pub(super) fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// Begins anew at 0.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Minutes, or the unit of the total.
    pub(super) fn total(&self) -> f64 {
        self.sum.total()
    }

    /// Whether something is missing in it: it is a lower bound.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether it is exact as far as its readings are.
    pub(super) fn is_sound(&self) -> bool {
        !self.is_broken && !self.is_doubtful
    }

    /// The source's clock was set back: what has come together stays, and the time until the next value counts nothing.
    pub(super) fn set_back(&mut self) {
        self.is_broken |= self.last.is_some();
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;
    const F0: Integrand = Integrand::Lethality {
        reference: 121.11,
        z: 10.0,
    };
    const RAMP: Integrand = Integrand::Lethality {
        reference: 70.0,
        z: 7.5,
    };

    fn integrate(integrand: &Integrand, samples: impl Iterator<Item = (Micros, f64)>) -> Integral {
        let mut integral = Integral::default();
        for sample in samples {
            integral.take(integrand, sample, true, 3_600 * SECOND);
        }
        integral
    }

    /// 60 to 80 °C at 2 °C a minute, sampled every so many seconds.
    fn ramp(every_s: i64) -> f64 {
        let samples = (0..=600 / every_s).map(|n| (n * every_s * SECOND, 60.0 + (n * every_s) as f64 / 30.0));
        integrate(&RAMP, samples).total()
    }

    #[test]
    fn e5_the_lethal_rate_at_110_degrees() {
        let rate = F0.between(110.0, 110.0, 60 * SECOND);
        assert!((rate - 0.077_446).abs() < 5e-7, "{rate}");
        assert!((rate - 10f64.powf(-1.111)).abs() < 1e-15);
    }

    #[test]
    fn e5_three_minutes_at_the_reference_are_three() {
        let samples = (0..=180).map(|second| (second * SECOND, 121.11));
        assert!((integrate(&F0, samples).total() - 3.0).abs() < 1e-12);
    }

    #[test]
    fn e5_a_straight_ramp_is_exact_at_any_sampling() {
        let exact =
            7.5 / (2.0 * std::f64::consts::LN_10) * (10f64.powf(10.0 / 7.5) - 10f64.powf(-10.0 / 7.5));
        assert!((exact - 35.0116).abs() < 5e-5, "{exact}");
        for every_s in [1, 10, 60, 600] {
            let error = (ramp(every_s) - exact).abs();
            assert!(error < 1e-9, "{every_s} s: {error:e}");
        }
    }

    #[test]
    fn e5_beer_for_twenty_minutes_at_62_degrees() {
        let beer = Integrand::Lethality {
            reference: 60.0,
            z: 1.0 / 1.393f64.log10(),
        };
        let samples = (0..=120).map(|n| (n * 10 * SECOND, 62.0));
        let total = integrate(&beer, samples).total();
        assert!((total - 1.393f64.powi(2) * 20.0).abs() < 1e-9, "{total}");
        assert!((total - 38.81).abs() < 0.005);
    }

    #[test]
    fn a_flow_becomes_a_volume() {
        let flow = Integrand::Rate {
            per_us: 3_600 * SECOND,
        };
        let samples = (0..=1_800).map(|second| (second * SECOND, 9_000.0));
        assert!((integrate(&flow, samples).total() - 4_500.0).abs() < 1e-9);
    }

    #[test]
    fn a_gap_counts_nothing_and_leaves_a_lower_bound() {
        let mut integral = Integral::default();
        let mut take = |second: i64| integral.take(&F0, (second * SECOND, 121.11), true, 5 * SECOND);
        assert_eq!(
            (take(0), take(5), take(11)),
            (Taken::Used, Taken::Used, Taken::AfterGap)
        );
        assert_eq!(take(11), Taken::Late);
        assert!((integral.total() - 5.0 / 60.0).abs() < 1e-12);
        assert!(integral.is_broken() && !integral.is_sound());
        integral.reset();
        assert!(integral.is_sound() && integral.total() == 0.0);
    }

    #[test]
    fn while_its_gate_is_closed_nothing_comes_together_and_nothing_is_missing() {
        let mut integral = Integral::default();
        for second in 0..600 {
            let is_open = !(100..500).contains(&second);
            integral.take(&F0, (second * SECOND, 121.11), is_open, 5 * SECOND);
        }
        assert!(
            (integral.total() - 198.0 / 60.0).abs() < 1e-9,
            "{}",
            integral.total()
        );
        assert!(integral.is_sound());
    }

    proptest! {
        #[test]
        fn straight_lines_may_be_cut_anywhere(
            first in 20.0..130.0f64, second in 20.0..130.0f64, passed_s in 2i64..3_600, at in 0.01..0.99f64,
        ) {
            let cut_us = ((passed_s * SECOND) as f64 * at) as Micros;
            let share = cut_us as f64 / (passed_s * SECOND) as f64;
            let middle = first + (second - first) * share;
            let whole = F0.between(first, second, passed_s * SECOND);
            let parts = F0.between(first, middle, cut_us) + F0.between(middle, second, passed_s * SECOND - cut_us);
            prop_assert!((whole - parts).abs() <= 1e-12 * whole.max(1e-300) + 1e-300, "{whole} {parts}");
        }

        #[test]
        fn a_million_terms_lose_nothing(terms in proptest::collection::vec(0.0..1e-3f64, 1..500)) {
            let mut sum = Sum { sum: 1e6, lost: 0.0 };
            for term in &terms {
                sum.add(*term);
            }
            let exact: f64 = terms.iter().sum();
            prop_assert!((sum.total() - 1e6 - exact).abs() < 3e-10);
        }
    }
}
