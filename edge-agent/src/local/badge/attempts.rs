//! How often was a badge tried in vain? Five wrong PINs in a row lock it for a quarter of an hour. Pure: times are
//! arguments.

use std::collections::HashMap;

use protocol::Micros;

/// Wrong PINs in a row that lock a badge.
const WRONG_MAX: u32 = 5;
/// How long a lock lasts.
const LOCKED_US: Micros = 15 * MINUTE_US;
const MINUTE_US: Micros = 60_000_000;

/// Wrong tries by badge. Only configured badges, and one entry for all others, are ever counted.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    by_badge: HashMap<String, Tried>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tried {
    wrong: u32,
    locked_at_us: Option<Micros>,
}

impl Attempts {
    /// Minutes until a lock ends, rounded up; none when there is none.
    pub(super) fn locked(&mut self, badge: &str, now_us: Micros) -> Option<i64> {
        let tried = self.by_badge.get_mut(badge)?;
        let passed_us = now_us - tried.locked_at_us?;
        // A clock that was set back must not lock for longer.
        if (0..LOCKED_US).contains(&passed_us) {
            return Some((LOCKED_US - passed_us + MINUTE_US - 1) / MINUTE_US);
        }
        *tried = Tried::default();
        None
    }

    /// Counts a wrong PIN; how many are left.
    pub(super) fn wrong(&mut self, badge: &str, now_us: Micros) -> u32 {
        let tried = self.by_badge.entry(badge.to_owned()).or_default();
        tried.wrong += 1;
        if tried.wrong >= WRONG_MAX {
            tried.locked_at_us = Some(now_us);
        }
        WRONG_MAX.saturating_sub(tried.wrong)
    }

    /// Forgets wrong PINs after a right one.
    pub(super) fn right(&mut self, badge: &str) {
        self.by_badge.remove(badge);
    }
}
