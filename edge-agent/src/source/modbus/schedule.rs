//! When is a group due, and what was missed? Pure: elapsed time in, due numbers out.

use std::time::Duration;

/// The due times of one poll group: `phase + n * period` after the start.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    phase: Duration,
    period: Duration,
    next: u64,
}

/// Due times that passed while the source was busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// How long after the start the first was due.
    pub first: Duration,
    /// How long after the start the last was due.
    pub last: Duration,
    /// How many.
    pub count: u32,
}

impl Schedule {
    /// The `index`-th of `groups` groups: phases are spread over the period, so that groups of equal period do
    /// not all ask at once.
    pub fn new(period: Duration, index: usize, groups: usize) -> Self {
        Self::after(Duration::ZERO, period, index, groups)
    }

    /// Like [`new`](Self::new), for a group that begins `elapsed` after the start.
    pub fn after(elapsed: Duration, period: Duration, index: usize, groups: usize) -> Self {
        Self {
            phase: elapsed + period.mul_f64(index as f64 / groups.max(1) as f64),
            period,
            next: 0,
        }
    }

    /// The period.
    pub const fn period(&self) -> Duration {
        self.period
    }

    fn due_at(&self, number: u64) -> Duration {
        let nanos = self.period.as_nanos().saturating_mul(u128::from(number));
        self.phase
            .saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// How long after the start it is due next.
    pub fn next_due(&self) -> Duration {
        self.due_at(self.next)
    }

    /// Takes the poll that is due now, and names those before it that can no longer be taken. A poll is missed
    /// when a later one is due already.
    pub fn take(&mut self, elapsed: Duration) -> Option<Missed> {
        let late = elapsed.saturating_sub(self.next_due());
        let skipped = u64::try_from(late.as_nanos() / self.period.as_nanos().max(1)).unwrap_or(u64::MAX);
        let missed = (skipped > 0).then(|| Missed {
            first: self.next_due(),
            last: self.due_at(self.next + skipped - 1),
            count: u32::try_from(skipped).unwrap_or(u32::MAX),
        });
        self.next = self.next.saturating_add(skipped).saturating_add(1);
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_poll_that_takes_longer_than_the_period_is_an_overrun_and_no_queue_grows() {
        let mut schedule = Schedule::new(SECOND, 0, 1);
        let mut elapsed = Duration::ZERO;
        let (mut taken, mut missed) = (0, 0);
        for _ in 0..20 {
            elapsed = elapsed.max(schedule.next_due());
            missed += schedule.take(elapsed).map_or(0, |missed| missed.count);
            taken += 1;
            elapsed += Duration::from_millis(1500);
        }
        let due = schedule.next_due().as_secs() as u32;
        assert_eq!(taken + missed, due, "every due poll was taken or reported");
        assert!(missed >= 9);
    }

    #[test]
    fn a_little_jitter_is_no_overrun() {
        let mut schedule = Schedule::new(SECOND, 0, 1);
        for second in 0..10 {
            assert_eq!(schedule.take(SECOND * second + Duration::from_millis(400)), None);
        }
    }

    #[test]
    fn the_due_times_of_a_short_period_do_not_end_after_some_years() {
        let mut schedule = Schedule::new(Duration::from_millis(10), 0, 1);
        let years = SECOND * (3 * 365 * 86_400);
        let missed = schedule.take(years).map(|missed| missed.count);
        assert_eq!(missed, Some(u32::MAX));
        assert_eq!(schedule.next_due(), years + Duration::from_millis(10));
    }

    #[test]
    fn groups_of_equal_period_start_at_different_times() {
        let phases: Vec<Duration> = (0..4)
            .map(|index| Schedule::new(SECOND, index, 4).next_due())
            .collect();
        assert_eq!(phases, [0, 250, 500, 750].map(Duration::from_millis));
    }
}
