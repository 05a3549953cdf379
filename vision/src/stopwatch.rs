//! How long did a stage take? The only place in this crate that reads a clock.

use std::time::Instant;

/// Measures consecutive stages: each `lap_us` returns the time since the one before it.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    last: Instant,
}

impl Stopwatch {
    #[allow(
        clippy::disallowed_methods,
        reason = "stage timings are part of an inspection; nothing is decided by them"
    )]
    pub(crate) fn start() -> Self {
        Self { last: Instant::now() }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "stage timings are part of an inspection; nothing is decided by them"
    )]
    pub(crate) fn lap_us(&mut self) -> u32 {
        let now = Instant::now();
        let lap = now.duration_since(self.last);
        self.last = now;
        u32::try_from(lap.as_micros()).unwrap_or(u32::MAX)
    }
}
