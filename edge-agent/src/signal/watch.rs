//! Does a sensor behave like one? Limits on how fast a value may change, on how far it may jump, and on how long it may
//! stand still. Pure: times come with the values; alarms and qualities are made of the answers elsewhere.

use std::collections::VecDeque;

use protocol::Micros;

/// Most values kept of a window; bounds memory at any sample rate.
const VALUES_MAX: usize = 4_096;

/// A value may change by at most `max` within `per`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// In the tag's unit.
    pub max: f64,
    /// Within this time, microseconds.
    pub per_us: Micros,
}

/// Watches how fast a value changes.
#[derive(Clone, Debug)]
pub(super) struct RateWatch {
    limit: RateLimit,
    window: VecDeque<(Micros, f64)>,
}

impl RateWatch {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            window: VecDeque::new(),
        }
    }

    /// Takes a value; by how much it differs from the least or the greatest of the last `per`, when that is more than
    /// allowed. A value that is not later than the last says nothing.
    pub(super) fn take(&mut self, at_us: Micros, value: f64) -> Option<f64> {
        if self.window.back().is_some_and(|(last_us, _)| at_us <= *last_us) {
            if self
                .window
                .back()
                .is_some_and(|(last_us, _)| last_us - at_us > self.limit.per_us)
            {
                // The source's clock was set back: begin anew rather than wait for it.
                self.window.clear();
            } else {
                return None;
            }
        }
        while self
            .window
            .front()
            .is_some_and(|(first_us, _)| at_us.saturating_sub(*first_us) > self.limit.per_us)
        {
            self.window.pop_front();
        }
        if self.window.len() == VALUES_MAX {
            self.window.pop_front();
        }
        self.window.push_back((at_us, value));
        let furthest = self.window.iter().map(|(_, other)| value - other);
        let change = furthest.fold(
            0.0f64,
            |most, change| {
                if change.abs() > most.abs() { change } else { most }
            },
        );
        (change.abs() > self.limit.max).then_some(change)
    }
}

/// A value that differs by more than `max` from the last one believed is not believed, until `confirm` in a row agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JumpLimit {
    /// In the tag's unit.
    pub max: f64,
    /// So many values that agree with each other make a jump a true step.
    pub confirm: u8,
}

/// Watches for values that stand alone.
#[derive(Clone, Debug)]
pub(super) struct JumpWatch {
    limit: JumpLimit,
    believed: Option<f64>,
    doubted: Option<(f64, u8)>,
}

impl JumpWatch {
    pub(super) fn new(limit: JumpLimit) -> Self {
        Self {
            limit,
            believed: None,
            doubted: None,
        }
    }

    /// Takes a value; whether it is an outlier.
    pub(super) fn take(&mut self, value: f64) -> bool {
        let near = |other: f64| (value - other).abs() <= self.limit.max;
        if self.believed.is_none_or(near) {
            self.believed = Some(value);
            self.doubted = None;
            return false;
        }
        let agreeing = match self.doubted {
            Some((other, agreeing)) if near(other) => agreeing.saturating_add(1),
            _ => 1,
        };
        if agreeing >= self.limit.confirm {
            self.believed = Some(value);
            self.doubted = None;
            return false;
        }
        self.doubted = Some((value, agreeing));
        true
    }
}

/// A value that stays within `floor` for `window` stands still.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StillLimit {
    /// In the tag's unit.
    pub floor: f64,
    /// For this long, microseconds.
    pub window_us: Micros,
}

/// Watches for a value that stands still, without a reference: for signals that are never quiet.
#[derive(Clone, Debug)]
pub(super) struct StillWatch {
    limit: StillLimit,
    /// Least and greatest value since the time.
    since: Option<(Micros, f64, f64)>,
}

impl StillWatch {
    pub(super) fn new(limit: StillLimit) -> Self {
        Self { limit, since: None }
    }

    /// Takes a value; whether the signal has stood still for the whole window.
    pub(super) fn take(&mut self, at_us: Micros, value: f64) -> bool {
        let (since_us, low, high) = self.since.unwrap_or((at_us, value, value));
        let (low, high) = (low.min(value), high.max(value));
        if high - low >= self.limit.floor || at_us < since_us {
            self.since = Some((at_us, value, value));
            return false;
        }
        self.since = Some((since_us, low, high));
        at_us.saturating_sub(since_us) >= self.limit.window_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn a_change_faster_than_allowed_is_found_within_its_window_and_ends_with_it() {
        let mut watch = RateWatch::new(RateLimit {
            max: 2.0,
            per_us: 60 * SECOND,
        });
        let value = |second: i64| if second < 100 { 4.0 } else { 7.0 };
        let found: Vec<i64> = (0..300)
            .filter(|second| watch.take(second * SECOND, value(*second)).is_some())
            .collect();
        assert_eq!((found.first(), found.last()), (Some(&100), Some(&159)));
    }

    #[test]
    fn slow_change_is_allowed_however_far_it_goes() {
        let mut watch = RateWatch::new(RateLimit {
            max: 2.0,
            per_us: 60 * SECOND,
        });
        assert!((0..10_000).all(|second| watch.take(second * SECOND, second as f64 * 0.03).is_none()));
    }

    #[test]
    fn a_fall_is_told_with_its_sign() {
        let mut watch = RateWatch::new(RateLimit {
            max: 2.0,
            per_us: 60 * SECOND,
        });
        assert_eq!(watch.take(0, 10.0), None);
        assert_eq!(watch.take(SECOND, 7.0), Some(-3.0));
    }

    #[test]
    fn one_value_that_stands_alone_is_an_outlier_and_a_true_step_is_believed_after_three() {
        let mut watch = JumpWatch::new(JumpLimit { max: 5.0, confirm: 3 });
        let outliers: Vec<bool> = [20.0, 20.5, 85.0, 20.4, 60.0, 60.5, 61.0, 60.8]
            .map(|value| watch.take(value))
            .to_vec();
        assert_eq!(outliers, [false, false, true, false, true, true, false, false]);
    }

    #[test]
    fn a_signal_that_is_never_quiet_stands_still_only_when_it_does() {
        let mut watch = StillWatch::new(StillLimit {
            floor: 0.01,
            window_us: 30 * SECOND,
        });
        let noisy = (0..100).any(|second| watch.take(second * SECOND, (second % 2) as f64));
        assert!(!noisy);
        let frozen: Vec<bool> = (100..140)
            .map(|second| watch.take(second * SECOND, 3.0))
            .collect();
        assert_eq!(frozen.iter().position(|is_still| *is_still), Some(30));
        assert!(!watch.take(141 * SECOND, 3.5));
    }
}
