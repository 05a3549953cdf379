//! What time is it? The one place that asks the operating system; tests set their own.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, Utc};
use protocol::Micros;

/// A source of the present, in UTC microseconds.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    fixed_us: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The operating system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now_us` until it is set.
    pub fn fixed(now_us: Micros) -> Self {
        Self {
            fixed_us: Some(Arc::new(AtomicI64::new(now_us))),
        }
    }

    /// Moves a fixed clock; the system's clock is not moved.
    pub fn set(&self, now_us: Micros) {
        if let Some(fixed) = &self.fixed_us {
            fixed.store(now_us, Ordering::Relaxed);
        }
    }

    /// Now.
    pub fn now_us(&self) -> Micros {
        self.fixed_us.as_ref().map_or_else(
            || Utc::now().timestamp_micros(),
            |fixed| fixed.load(Ordering::Relaxed),
        )
    }

    /// Now, as SQL takes it.
    pub fn now(&self) -> DateTime<Utc> {
        time_from_us(self.now_us())
    }
}

/// 0001-01-01: PostgreSQL goes back to 4713 BC only, chrono to 262143 BC, and nothing here is older.
const EARLIEST_US: Micros = -62_135_596_800_000_000;

/// Microseconds as SQL takes them. Times that chrono or PostgreSQL cannot carry are clamped.
pub fn time_from_us(us: Micros) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(us.max(EARLIEST_US)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
