//! How effective was a line? Overall equipment effectiveness in the terms of ISO 22400-2.

use serde::{Deserialize, Serialize};

/// What happened on a line in an interval. Times in minutes, quantities in units.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Production {
    /// Scheduled shift time.
    pub scheduled_min: f64,
    /// Stops that were planned (breaks, cleaning): not busy time.
    pub planned_stop_min: f64,
    /// Stops that were not planned.
    pub unplanned_down_min: f64,
    /// Units produced, good or not.
    pub total: f64,
    /// Units rejected.
    pub scrap: f64,
    /// Ideal rate of the product made.
    pub ideal_per_min: f64,
}

/// Effectiveness and its three factors, each a share of 1, with the minutes behind them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Oee {
    /// Planned busy time, minutes.
    pub busy_min: f64,
    /// Time run, minutes.
    pub run_min: f64,
    /// Time run / planned busy time.
    pub availability: f64,
    /// Ideal time of what was produced / time run. Above 1 the ideal rate is wrong; it is never clipped.
    pub performance: f64,
    /// Good units / units.
    pub quality: f64,
    /// Ideal time of the good units / planned busy time.
    pub oee: f64,
    /// Minutes lost to stops, to speed and to rejects; with the good minutes they add up to the busy time.
    pub lost_min: Losses,
}

/// Minutes lost, by cause.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Losses {
    /// To unplanned stops.
    pub stops: f64,
    /// To running below the ideal rate.
    pub speed: f64,
    /// To units that were rejected.
    pub rejects: f64,
}

/// Why there is no effectiveness to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OeeError {
    /// A number is negative, NaN or infinite.
    #[error("all quantities must be finite and not negative")]
    NotAQuantity,
    /// No busy time, or an ideal rate of zero.
    #[error("planned busy time and ideal rate must be greater than 0")]
    NothingPlanned,
    /// More stopped than planned, or more scrap than units.
    #[error(
        "unplanned stops exceed the busy time, or scrap exceeds the total: check for stops counted twice"
    )]
    Contradiction,
}

/// Computes effectiveness: `OEE = good · ideal time / planned busy time` (ISO 22400-2; MESA KPI-ML).
///
/// ```
/// // Akron, line 3, 13 October 2026, shift A.
/// use ai_service::oee::{Production, effectiveness};
/// let shift = Production { scheduled_min: 480.0, planned_stop_min: 30.0, unplanned_down_min: 54.0,
///     total: 20_305.0, scrap: 853.0, ideal_per_min: 60.0 };
/// let oee = effectiveness(&shift)?;
/// assert!((oee.availability - 0.8800).abs() < 5e-5);
/// assert!((oee.performance - 0.8546).abs() < 5e-5);
/// assert!((oee.quality - 0.9580).abs() < 5e-5);
/// assert!((oee.oee - 0.7204).abs() < 5e-5);
/// # Ok::<(), ai_service::oee::OeeError>(())
/// ```
///
/// # Errors
/// [`OeeError`] when the record contradicts itself; nothing is clipped into range.
pub fn effectiveness(made: &Production) -> Result<Oee, OeeError> {
    let all = [
        made.scheduled_min,
        made.planned_stop_min,
        made.unplanned_down_min,
        made.total,
        made.scrap,
        made.ideal_per_min,
    ];
    if !all
        .iter()
        .all(|quantity| quantity.is_finite() && *quantity >= 0.0)
    {
        return Err(OeeError::NotAQuantity);
    }
    let busy_min = made.scheduled_min - made.planned_stop_min;
    if busy_min <= 0.0 || made.ideal_per_min <= 0.0 {
        return Err(OeeError::NothingPlanned);
    }
    let run_min = busy_min - made.unplanned_down_min;
    if run_min < 0.0 || made.scrap > made.total {
        return Err(OeeError::Contradiction);
    }
    let (ideal_min, good_min) = (
        made.total / made.ideal_per_min,
        (made.total - made.scrap) / made.ideal_per_min,
    );
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    Ok(Oee {
        busy_min,
        run_min,
        availability: run_min / busy_min,
        performance: share(ideal_min, run_min),
        quality: share(good_min, ideal_min),
        oee: good_min / busy_min,
        lost_min: Losses {
            stops: made.unplanned_down_min,
            speed: run_min - ideal_min,
            rejects: ideal_min - good_min,
        },
    })
}

/// Effectiveness of several intervals or lines together: a ratio of sums, never a mean of percentages.
///
/// ```
/// // Akron's four lines on 13 October 2026: 71.8 %, where the mean of the four percentages says 71.3 %.
/// use ai_service::oee::roll_up;
/// let plant = roll_up([(0.781, 1200.0), (0.664, 900.0), (0.693, 900.0), (0.712, 900.0)]);
/// assert!((plant.unwrap() - 0.7178).abs() < 5e-5);
/// ```
pub fn roll_up(oee_and_busy_min: impl IntoIterator<Item = (f64, f64)>) -> Option<f64> {
    let (good, busy) = oee_and_busy_min
        .into_iter()
        .fold((0.0, 0.0), |(good, busy), (oee, busy_min)| {
            (good + oee * busy_min, busy + busy_min)
        });
    (busy > 0.0).then_some(good / busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIFT: Production = Production {
        scheduled_min: 480.0,
        planned_stop_min: 30.0,
        unplanned_down_min: 54.0,
        total: 20_305.0,
        scrap: 853.0,
        ideal_per_min: 60.0,
    };

    #[test]
    fn losses_and_good_minutes_add_up_to_the_busy_time() {
        let oee = effectiveness(&SHIFT).unwrap();
        let lost = oee.lost_min.stops + oee.lost_min.speed + oee.lost_min.rejects;
        assert!((lost + oee.oee * oee.busy_min - oee.busy_min).abs() < 1e-9);
    }

    #[test]
    fn a_rate_above_ideal_shows_instead_of_being_clipped() {
        let oee = effectiveness(&Production {
            total: 30_000.0,
            ..SHIFT
        })
        .unwrap();
        assert!(oee.performance > 1.0);
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        let refused = |made| effectiveness(&made).unwrap_err();
        assert_eq!(
            refused(Production {
                unplanned_down_min: 500.0,
                ..SHIFT
            }),
            OeeError::Contradiction
        );
        assert_eq!(
            refused(Production {
                scrap: 30_000.0,
                ..SHIFT
            }),
            OeeError::Contradiction
        );
        assert_eq!(
            refused(Production {
                planned_stop_min: 480.0,
                ..SHIFT
            }),
            OeeError::NothingPlanned
        );
        assert_eq!(
            refused(Production {
                total: f64::NAN,
                ..SHIFT
            }),
            OeeError::NotAQuantity
        );
    }
}
