//! What time is it, and how far may the answer be trusted? The only place that reads the clock.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use protocol::{Micros, Quality, Reading, event::ClockStep, frame::ClockState};

/// Microseconds since 1970 by the system clock; 0 for a clock set before that.
pub fn now_us() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| {
        Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
    })
}

/// Time since the machine started, sleep included, by a clock that nobody can set.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// A smaller step is within what slewing and scheduling do, and a judge that waits it out loses nothing.
const STEP_US_MIN: Micros = 500_000;

/// Notices that the system clock was set: what it says is compared with what passed since the last look by a clock
/// that goes on while the machine sleeps, so that sleeping is no step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    looked: Option<(Micros, Duration)>,
    was_synced: bool,
}

impl Steps {
    /// Takes what the clock says, the time since the machine started and whether the clock is synchronised; says
    /// how the clock was set since the last look. While it is not synchronised every step corrects what was sealed
    /// before it: a clock that started in 1970 tells the true times once it is set.
    ///
    /// ```
    /// use edge_agent::clock::Steps;
    /// use std::time::Duration;
    /// let mut steps = Steps::default();
    /// assert_eq!(steps.look(5_000_000, Duration::from_secs(5), false), None);
    /// let step = steps.look(1_764_000_006_000_000, Duration::from_secs(6), true).unwrap();
    /// assert_eq!((step.by_us, step.correction_us), (1_764_000_000_000_000, 1_764_000_000_000_000));
    /// ```
    pub fn look(&mut self, now_us: Micros, since_boot: Duration, is_synced: bool) -> Option<ClockStep> {
        let was_synced = std::mem::replace(&mut self.was_synced, is_synced);
        let (before_us, before) = self.looked.replace((now_us, since_boot))?;
        let passed_us = Micros::try_from(since_boot.saturating_sub(before).as_micros()).unwrap_or(0);
        let by_us = now_us - before_us.saturating_add(passed_us);
        (by_us.abs() >= STEP_US_MIN).then_some(ClockStep {
            at_us: now_us,
            by_us,
            is_synced,
            correction_us: if was_synced { 0 } else { by_us },
        })
    }
}

/// A source may be this far ahead of the receive time.
const AHEAD_US_MAX: Micros = 10 * 60 * 1_000_000;
/// A source may be this far behind the receive time.
const BEHIND_US_MAX: Micros = 7 * 24 * 3_600 * 1_000_000;

/// Marks good readings whose source time cannot be right. They keep value and time: what the source said is evidence.
pub fn mark_times(readings: &mut [Reading], received_us: Micros) {
    for reading in readings {
        let ahead_us = reading.time_us.saturating_sub(received_us);
        let is_likely = (-BEHIND_US_MAX..=AHEAD_US_MAX).contains(&ahead_us);
        if !is_likely && reading.quality.is_good() {
            reading.quality = Quality::UNCERTAIN_TIME;
        }
    }
}

/// Whether the operating system says that its clock is synchronised, and to within what. The kernel is asked; where
/// it does not say, the marks of systemd-timesyncd and chrony count.
pub fn state() -> ClockState {
    const MARKS: [&str; 2] = ["/run/systemd/timesync/synchronized", "/run/chrony/synchronized"];
    kernel_state().unwrap_or_else(|| ClockState {
        synced: MARKS.iter().any(|mark| Path::new(mark).exists()),
        error_us_max: None,
    })
}

/// What the kernel knows of its clock (adjtimex(2), reading only); none where it does not say that it is synchronised.
fn kernel_state() -> Option<ClockState> {
    #[expect(
        unsafe_code,
        reason = "the kernel's own word on the clock has no safe binding; all-zero is a valid timex and asks for no change"
    )]
    let (answer, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    let is_synced = (0..libc::TIME_ERROR).contains(&answer) && timex.status & libc::STA_UNSYNC == 0;
    is_synced.then(|| ClockState {
        synced: true,
        error_us_max: u64::try_from(timex.maxerror).ok(),
    })
}

#[cfg(test)]
mod tests {
    use protocol::reading::Alias;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn t21_a_clock_that_is_set_back_or_forward_is_noticed_once_and_by_how_much() {
        let mut steps = Steps::default();
        let by = |step: Option<ClockStep>| step.map(|step| step.by_us);
        assert_eq!(steps.look(100_000_000, Duration::ZERO, true), None);
        assert_eq!(steps.look(101_000_300, SECOND, true), None);
        assert_eq!(by(steps.look(42_000_300, SECOND * 2, true)), Some(-60_000_000));
        assert_eq!(steps.look(43_000_300, SECOND * 3, true), None);
        assert_eq!(
            by(steps.look(3_644_000_300, SECOND * 4, true)),
            Some(3_600_000_000)
        );
        // Asleep for an hour: time passed, nothing was set.
        assert_eq!(steps.look(7_245_000_300, SECOND * 3_605, true), None);
    }

    #[test]
    fn t21_only_steps_of_an_unsynchronised_clock_correct_what_was_sealed_before() {
        let mut steps = Steps::default();
        assert_eq!(steps.look(0, Duration::ZERO, false), None);
        let first = steps.look(1_700_000_001_000_000, SECOND, true).unwrap();
        assert_eq!(first.correction_us, 1_700_000_000_000_000);
        let second = steps.look(1_699_996_402_000_000, SECOND * 2, true).unwrap();
        assert_eq!((second.by_us, second.correction_us), (-3_600_000_000, 0));
    }

    #[test]
    fn t21_a_leap_second_smear_is_no_step() {
        let mut steps = Steps::default();
        // One second spread over a day, looked at four times a second.
        for look in 0..345_600_i64 {
            let smeared_us = look * 250_000 - look * 1_000_000 / 345_600;
            let since = Duration::from_millis(look.unsigned_abs() * 250);
            assert_eq!(steps.look(smeared_us, since, true), None);
        }
    }

    #[test]
    fn t22_a_source_time_that_cannot_be_right_is_accepted_with_a_flag() {
        const DAY_US: Micros = 86_400_000_000;
        let now_us = 1_764_000_000_000_000;
        let times_us = [
            now_us,
            now_us + AHEAD_US_MAX,
            now_us + AHEAD_US_MAX + 1,
            now_us - 7 * DAY_US,
            now_us - 7 * DAY_US - 1,
            0,
            Micros::MIN,
            Micros::MAX,
        ];
        let mut readings = times_us.map(|time_us| Reading::new(Alias(0), time_us, 1.5, Quality::GOOD));
        mark_times(&mut readings, now_us);
        let marked = readings.map(|reading| reading.quality == Quality::UNCERTAIN_TIME);
        assert_eq!(marked, [false, false, true, false, true, true, true, true]);
        for (reading, time_us) in readings.iter().zip(times_us) {
            assert_eq!((reading.time_us, reading.value()), (time_us, Some(1.5)));
        }
        let mut bad = [Reading::bad(Alias(0), 0, Quality::BAD_TIMEOUT)];
        mark_times(&mut bad, now_us);
        assert_eq!(
            bad[0].quality,
            Quality::BAD_TIMEOUT,
            "why there is no value stays"
        );
    }

    #[test]
    fn the_kernel_is_asked_without_setting_anything() {
        let before = since_boot();
        let state = state();
        assert!(since_boot() >= before);
        assert!(state.synced || state.error_us_max.is_none());
    }
}
