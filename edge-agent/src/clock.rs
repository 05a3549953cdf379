//! What time is it, and how far may the answer be trusted? The only place that reads the clock.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::{Micros, frame::ClockState};

/// Microseconds since 1970 by the system clock; 0 for a clock set before that.
pub fn now_us() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| {
        Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
    })
}

/// A smaller step is within what slewing and scheduling do, and a judge that waits it out loses nothing.
const STEP_US_MIN: Micros = 500_000;

/// Notices that the system clock was set back: what it says is compared with what passed since the last look. A
/// step forward is not told apart from a machine that slept, and sleeping is not monitoring.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetBack {
    looked: Option<(Micros, Duration)>,
}

impl SetBack {
    /// Takes what the clock says, and the time since any fixed moment by a clock that cannot be set; says by how
    /// much the clock was set back since the last look.
    pub fn look(&mut self, now_us: Micros, steady: Duration) -> Option<Micros> {
        let (before_us, before) = self.looked.replace((now_us, steady))?;
        let passed_us = Micros::try_from(steady.saturating_sub(before).as_micros()).unwrap_or(0);
        let behind_us = before_us.saturating_add(passed_us) - now_us;
        (behind_us >= STEP_US_MIN).then_some(behind_us)
    }
}

/// Whether the operating system says that its clock is synchronised. Only systemd-timesyncd and chrony leave a
/// mark that can be read without privileges; without one the clock counts as not synchronised.
pub fn state() -> ClockState {
    const MARKS: [&str; 2] = ["/run/systemd/timesync/synchronized", "/run/chrony/synchronized"];
    ClockState {
        synced: MARKS.iter().any(|mark| Path::new(mark).exists()),
        error_us_max: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_is_noticed_once_and_by_how_much() {
        let mut set_back = SetBack::default();
        let second = Duration::from_secs(1);
        assert_eq!(set_back.look(100_000_000, Duration::ZERO), None);
        assert_eq!(set_back.look(101_000_300, second), None);
        assert_eq!(set_back.look(42_000_300, second * 2), Some(60_000_000));
        assert_eq!(set_back.look(43_000_300, second * 3), None);
        // Asleep for an hour: time passed.
        assert_eq!(set_back.look(3_643_000_300, second * 4), None);
    }
}
