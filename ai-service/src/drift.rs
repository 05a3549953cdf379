//! Has a sensor begun to drift? Two-sided CUSUM and EWMA on standardised residuals.

use serde::{Deserialize, Serialize};

/// What in-control looks like, and how readily to alarm.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cusum {
    /// Mean in control, in the tag's unit.
    pub mean: f64,
    /// Standard deviation in control, in the tag's unit.
    pub sigma: f64,
    /// Allowance in sigmas; half the shift to be found.
    #[serde(default = "default_k")]
    pub k: f64,
    /// Alarm height in sigmas. 4.77 gives an in-control run length of 370.
    #[serde(default = "default_h")]
    pub h: f64,
}

fn default_k() -> f64 {
    0.5
}

fn default_h() -> f64 {
    4.77
}

/// What the sums say after the last value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Upward sum, in sigmas.
    pub high: f64,
    /// Downward sum, in sigmas.
    pub low: f64,
    /// Index of the first value at which either sum passed `h`.
    pub alarm_at: Option<usize>,
    /// Index at which the sum that alarmed last left zero: the estimate of when the drift began.
    pub began_at: Option<usize>,
}

/// The chart cannot be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "mean, sigma, k and h must be finite, sigma and h greater than 0, k not negative; values must be finite"
)]
pub struct DriftError;

impl Cusum {
    /// Runs the chart over `values`: `S⁺ = max(0, S⁺ + z − k)`, `S⁻ = max(0, S⁻ − z − k)` with `z = (x − mean)/sigma`
    /// (Page 1954; Montgomery, Statistical Quality Control, ch. 9).
    ///
    /// ```
    /// use ai_service::drift::Cusum;
    /// let chart = Cusum { mean: 196.0, sigma: 0.8, k: 0.5, h: 4.77 };
    /// // A step of two sigmas: each value adds 1.5, so the fourth passes 4.77.
    /// let found = chart.run(&[196.0, 197.6, 197.6, 197.6, 197.6])?;
    /// assert_eq!((found.alarm_at, found.began_at), (Some(4), Some(1)));
    /// # Ok::<(), ai_service::drift::DriftError>(())
    /// ```
    ///
    /// # Errors
    /// [`DriftError`] for parameters or values that are no numbers.
    pub fn run(&self, values: &[f64]) -> Result<Drift, DriftError> {
        let usable = [self.mean, self.sigma, self.k, self.h]
            .iter()
            .chain(values)
            .all(|number| number.is_finite());
        if !usable || self.sigma <= 0.0 || self.h <= 0.0 || self.k < 0.0 {
            return Err(DriftError);
        }
        let mut drift = Drift {
            high: 0.0,
            low: 0.0,
            alarm_at: None,
            began_at: None,
        };
        let (mut high_from, mut low_from) = (0, 0);
        for (index, value) in values.iter().enumerate() {
            let z = (value - self.mean) / self.sigma;
            if drift.high == 0.0 {
                high_from = index;
            }
            if drift.low == 0.0 {
                low_from = index;
            }
            drift.high = (drift.high + z - self.k).max(0.0);
            drift.low = (drift.low - z - self.k).max(0.0);
            if drift.alarm_at.is_none() && drift.high.max(drift.low) > self.h {
                drift.alarm_at = Some(index);
                drift.began_at = Some(if drift.high > self.h { high_from } else { low_from });
            }
        }
        Ok(drift)
    }
}

/// The sums of a CUSUM chart that is fed one standardised value after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CusumSums {
    high: f64,
    low: f64,
}

impl CusumSums {
    /// Half the shift, in sigmas, that is looked for.
    const SLACK: f64 = 0.5;

    /// Takes a standardised value and gives the larger sum, in sigmas, 0 to `most`: old growth does not hold an alarm
    /// up for long once the shift is gone. What is not finite is passed over.
    pub fn take(&mut self, z: f64, most: f64) -> f64 {
        if z.is_finite() {
            self.high = (self.high + z - Self::SLACK).clamp(0.0, most);
            self.low = (self.low - z - Self::SLACK).clamp(0.0, most);
        }
        self.high.max(self.low)
    }
}

/// An exponentially weighted moving average chart (Roberts 1959) that is fed one standardised value after another:
/// `m = λ·z + (1 − λ)·m`, in units of its own standard deviation `√(λ/(2 − λ)·(1 − (1 − λ)^2t))`, λ = 0.1. A limit of
/// 2.814 gives an in-control run length near 500.
///
/// ```
/// use ai_service::drift::Ewma;
/// let mut chart = Ewma::default();
/// // The first value has its own standard deviation, λ: 3 sigmas are 3.
/// assert!((chart.take(3.0) - 3.0).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ewma {
    mean: f64,
    n: u32,
}

impl Ewma {
    const LAMBDA: f64 = 0.1;

    /// Takes a standardised value and says how far the average is off, in its own standard deviations. What is not
    /// finite is passed over.
    pub fn take(&mut self, z: f64) -> f64 {
        let lambda = Self::LAMBDA;
        if z.is_finite() {
            self.n = self.n.saturating_add(1);
            self.mean += lambda * (z - self.mean);
        }
        let decay = (1.0 - lambda).powi(2 * self.n.min(10_000).cast_signed());
        let deviation = (lambda / (2.0 - lambda) * (1.0 - decay)).sqrt();
        if deviation > 0.0 {
            (self.mean / deviation).abs()
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_that_are_fed_one_by_one_find_a_shift_of_one_sigma_within_a_few_dozen_values() {
        let noise = |n: i32| [0.4, -0.6, 0.1, -0.2, 0.3][(n % 5) as usize];
        let (mut sums, mut mean) = (CusumSums::default(), Ewma::default());
        let calm = (0..200).map(|n| (sums.take(noise(n), 10.0), mean.take(noise(n))));
        assert!(calm.into_iter().all(|(sum, mean)| sum < 4.77 && mean < 2.814));
        let found = (0..40).find(|n| sums.take(noise(*n) + 1.0, 10.0) > 4.77);
        assert!(found.is_some());
        let found = (0..40).find(|n| mean.take(noise(*n) - 1.0) > 2.814);
        assert!(found.is_some());
        assert!((0..60).any(|n| sums.take(noise(n), 10.0) < 4.77), "it ends");
    }

    const CHART: Cusum = Cusum {
        mean: 0.0,
        sigma: 1.0,
        k: 0.5,
        h: 4.77,
    };

    #[test]
    fn a_process_in_control_does_not_alarm() {
        let values: Vec<f64> = (0..200).map(|n| [0.4, -0.6, 0.1, -0.2, 0.3][n % 5]).collect();
        assert_eq!(CHART.run(&values).unwrap().alarm_at, None);
    }

    #[test]
    fn a_downward_drift_is_found_as_an_upward_one_is() {
        let up: Vec<f64> = (0..40).map(|n| f64::from(n) * 0.15).collect();
        let down: Vec<f64> = up.iter().map(|value| -value).collect();
        assert_eq!(
            CHART.run(&up).unwrap().alarm_at,
            CHART.run(&down).unwrap().alarm_at
        );
        assert!(CHART.run(&up).unwrap().alarm_at.is_some());
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Cusum { sigma: 0.0, ..CHART }.run(&[1.0]), Err(DriftError));
        assert_eq!(CHART.run(&[f64::NAN]), Err(DriftError));
    }
}
