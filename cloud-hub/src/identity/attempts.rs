//! How often may somebody guess a password? Ten attempts a minute for each tenant and address, counted whether
//! the account exists or not; and only a few hashes are computed at once, because each takes memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use protocol::Micros;
use tokio::sync::Semaphore;

use crate::{
    error::{Error, Result},
    kernel::secret,
};

const ATTEMPTS_MAX: usize = 10;
const WINDOW_US: Micros = 60_000_000;
/// Accounts remembered; beyond this the ones whose window has passed are forgotten.
const ACCOUNTS_MAX: usize = 10_000;
const HASHES_AT_ONCE: usize = 4;

/// Recent sign-in attempts, by digest of tenant and address.
#[derive(Debug)]
pub struct Attempts {
    recent: Mutex<HashMap<[u8; 32], VecDeque<Micros>>>,
    /// Admits to the password hash.
    pub hashing: Semaphore,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            recent: Mutex::default(),
            hashing: Semaphore::new(HASHES_AT_ONCE),
        }
    }
}

impl Attempts {
    /// Counts an attempt.
    ///
    /// # Errors
    /// [`Error::TooManyAttempts`] for the eleventh within a minute; it is not counted itself.
    pub fn admit(&self, tenant: &str, email: &str, now_us: Micros) -> Result<()> {
        let account = secret::digest(&format!("{tenant}\n{email}"));
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= ACCOUNTS_MAX {
            recent.retain(|_, times| times.back().is_some_and(|last| now_us - last < WINDOW_US));
        }
        if recent.len() >= ACCOUNTS_MAX && !recent.contains_key(&account) {
            return Err(Error::TooManyAttempts { retry_after_s: 60 });
        }
        let times = recent.entry(account).or_default();
        while times.front().is_some_and(|first| now_us - first >= WINDOW_US) {
            times.pop_front();
        }
        if times.len() >= ATTEMPTS_MAX {
            let oldest = times.front().copied().unwrap_or(now_us);
            let wait_us = (oldest + WINDOW_US - now_us).max(1);
            return Err(Error::TooManyAttempts {
                retry_after_s: (wait_us as u64).div_ceil(1_000_000),
            });
        }
        times.push_back(now_us);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_attempt_in_a_minute_is_refused_and_told_when_to_return() {
        let attempts = Attempts::default();
        for second in 0..10 {
            attempts.admit("akron", "a@b.c", second * 1_000_000).unwrap();
        }
        let refused = attempts.admit("akron", "a@b.c", 10_000_000).unwrap_err();
        assert!(
            matches!(refused, Error::TooManyAttempts { retry_after_s: 50 }),
            "{refused:?}"
        );
        attempts.admit("akron", "other@b.c", 10_000_000).unwrap();
        attempts.admit("other", "a@b.c", 10_000_000).unwrap();
        attempts.admit("akron", "a@b.c", 60_000_000).unwrap();
        assert!(attempts.admit("akron", "a@b.c", 60_500_000).is_err());
    }

    #[test]
    fn memory_is_bounded_however_many_accounts_are_tried() {
        let attempts = Attempts::default();
        for number in 0..ACCOUNTS_MAX {
            attempts.admit("akron", &number.to_string(), 0).unwrap();
        }
        assert!(attempts.admit("akron", "one more", 1).is_err());
        attempts.admit("akron", "one more", WINDOW_US).unwrap();
        assert_eq!(attempts.recent.lock().unwrap().len(), 1);
    }
}
