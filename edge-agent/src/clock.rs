//! What time is it, and how far may the answer be trusted? The only place that reads the clock.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use protocol::{Micros, frame::ClockState};

/// Microseconds since 1970 by the system clock; 0 for a clock set before that.
pub fn now_us() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| {
        Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
    })
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
