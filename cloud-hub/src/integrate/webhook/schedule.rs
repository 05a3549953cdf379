//! What follows an attempt? Delivered, tried again later, or given up: ten attempts in a little more than a day.

use std::time::Duration;

/// Attempts before a delivery is given up.
const ATTEMPTS_MAX: i32 = 10;
/// Each wait is this many times the one before.
const FACTOR: u32 = 3;
/// The longest wait, also when a receiver asks for more.
const WAIT_MAX: Duration = Duration::from_hours(24);
/// A webhook that failed for this long is switched off.
pub(super) const FAILING_MAX: chrono::Duration = chrono::Duration::days(5);

/// How the receiver took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// 2xx.
    Taken,
    /// 410: it does not want any more.
    Gone,
    /// Anything else, and how long it asked to be left alone.
    Failed { retry_after: Option<Duration> },
}

/// What becomes of the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Delivered,
    Again(Duration),
    Dead,
}

/// Decides. `failures` were before this attempt; `chance` is 0 to 1 and spreads the waits by a fifth either way, so
/// that a receiver that comes back is not met by everybody at once. A test is tried once.
pub(super) fn next(outcome: Outcome, failures: i32, is_test: bool, first: Duration, chance: f64) -> Next {
    let retry_after = match outcome {
        Outcome::Taken => return Next::Delivered,
        Outcome::Gone => return Next::Dead,
        Outcome::Failed { retry_after } => retry_after,
    };
    if is_test || failures + 1 >= ATTEMPTS_MAX {
        return Next::Dead;
    }
    let wait = first.saturating_mul(FACTOR.saturating_pow(failures.max(0).unsigned_abs()));
    let spread = wait.min(WAIT_MAX).mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0));
    Next::Again(spread.max(retry_after.unwrap_or_default()).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(10);

    fn failed(failures: i32, chance: f64) -> Next {
        next(
            Outcome::Failed { retry_after: None },
            failures,
            false,
            FIRST,
            chance,
        )
    }

    #[test]
    fn ten_attempts_are_spread_over_a_little_more_than_a_day() {
        let mut total = Duration::ZERO;
        for failures in 0..9 {
            let Next::Again(wait) = failed(failures, 0.5) else {
                panic!("given up after {failures}")
            };
            total += wait;
        }
        assert_eq!(failed(9, 0.5), Next::Dead);
        let hours = total.as_secs() / 3_600;
        assert_eq!(hours, 27);
        assert_eq!(failed(0, 0.0), Next::Again(Duration::from_secs(8)));
        assert_eq!(failed(0, 1.0), Next::Again(Duration::from_secs(12)));
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_up_to_a_day() {
        let asks = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            next(Outcome::Failed { retry_after }, 0, false, FIRST, 0.5)
        };
        assert_eq!(asks(600), Next::Again(Duration::from_mins(10)));
        assert_eq!(asks(1), Next::Again(FIRST));
        assert_eq!(asks(u64::MAX), Next::Again(WAIT_MAX));
    }

    #[test]
    fn a_test_is_tried_once_and_gone_is_gone() {
        let outcome = Outcome::Failed { retry_after: None };
        assert_eq!(next(outcome, 0, true, FIRST, 0.5), Next::Dead);
        assert_eq!(next(Outcome::Gone, 0, false, FIRST, 0.5), Next::Dead);
        assert_eq!(next(Outcome::Taken, 3, false, FIRST, 0.5), Next::Delivered);
    }
}
