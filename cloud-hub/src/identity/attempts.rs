//! How often may somebody try who is not signed in? Each account and each source of requests has its own measure,
//! counted whether the account exists or not, in memory that does not grow with the number of those who try.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use protocol::Micros;

use super::{hashing::Hashing, source::Source};
use crate::{
    config::AttemptLimits,
    error::{Error, Result},
    kernel::secret,
};

const MINUTE_US: Micros = 60_000_000;
const LOGINS_A_MINUTE: usize = 10;
/// Mails to one address: enough for whoever did not find the first, too few to flood a mailbox.
const MAILS_A_QUARTER: usize = 5;
const QUARTER_US: Micros = 15 * MINUTE_US;
/// Refusals on record for one tenant a minute; a flood of the same says nothing more.
const NOTED_A_MINUTE: usize = 60;
/// Accounts or sources remembered; beyond this the ones whose time has passed are forgotten.
const KEYS_MAX: usize = 10_000;

/// What somebody who is not signed in may try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// Sign in with a password.
    Login,
    /// Use or end a session with its refresh token.
    Session,
    /// Have a mail sent: registration, password reset.
    Mail,
    /// Use a token of a mail.
    Token,
}

/// Recent attempts of those who are not signed in.
#[derive(Debug)]
pub struct Attempts {
    logins: Windows,
    mails: Windows,
    noted: Windows,
    sources: Buckets,
    limits: AttemptLimits,
    /// Admits to the password hash.
    pub hashing: Hashing,
}

impl Attempts {
    /// With the limits of the configuration.
    pub fn new(limits: AttemptLimits) -> Self {
        Self {
            logins: Windows::new(LOGINS_A_MINUTE, MINUTE_US),
            mails: Windows::new(MAILS_A_QUARTER, QUARTER_US),
            noted: Windows::new(NOTED_A_MINUTE, MINUTE_US),
            sources: Buckets::default(),
            limits,
            hashing: Hashing::default(),
        }
    }

    /// Counts a request of a source.
    ///
    /// # Errors
    /// [`Error::TooManyAttempts`].
    pub fn enter(&self, door: Door, source: Source, now_us: Micros) -> Result<()> {
        let a_minute = match door {
            Door::Login => self.limits.logins_per_source_min,
            Door::Session => self.limits.refreshes_per_source_min,
            Door::Mail => self.limits.mails_per_source_min,
            Door::Token => self.limits.tokens_per_source_min,
        };
        self.sources.take((door, source), a_minute, now_us)
    }

    /// Counts a sign-in of an account.
    ///
    /// # Errors
    /// [`Error::TooManyAttempts`] for the eleventh within a minute; it is not counted itself.
    pub fn login(&self, tenant: &str, email: &str, now_us: Micros) -> Result<()> {
        self.logins.take(&account(tenant, email), now_us)
    }

    /// Counts a mail to an address that somebody asks for.
    ///
    /// # Errors
    /// [`Error::TooManyAttempts`].
    pub fn mail(&self, tenant: &str, email: &str, now_us: Micros) -> Result<()> {
        self.mails.take(&account(tenant, email), now_us)
    }

    /// Whether one more refusal of a tenant goes into its audit chain, which nobody from outside may flood.
    pub fn is_noted(&self, tenant: &str, now_us: Micros) -> bool {
        let is_noted = self.noted.take(tenant, now_us).is_ok();
        if !is_noted {
            metrics::counter!("foodflow_identity_refusals_not_audited_total").increment(1);
        }
        is_noted
    }
}

fn account(tenant: &str, email: &str) -> String {
    format!("{tenant}\n{email}")
}

fn too_many(wait_us: Micros) -> Error {
    Error::TooManyAttempts {
        retry_after_s: wait_us.max(1).unsigned_abs().div_ceil(1_000_000),
    }
}

/// At most so many within any window of time, for each key.
#[derive(Debug)]
struct Windows {
    times_max: usize,
    window_us: Micros,
    recent: Mutex<HashMap<[u8; 32], VecDeque<Micros>>>,
}

impl Windows {
    fn new(times_max: usize, window_us: Micros) -> Self {
        Self {
            times_max,
            window_us,
            recent: Mutex::default(),
        }
    }

    fn take(&self, key: &str, now_us: Micros) -> Result<()> {
        let key = secret::digest(key);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= KEYS_MAX {
            recent.retain(|_, times| times.back().is_some_and(|last| now_us - last < self.window_us));
        }
        if recent.len() >= KEYS_MAX && !recent.contains_key(&key) {
            return Err(too_many(self.window_us));
        }
        let times = recent.entry(key).or_default();
        while times
            .front()
            .is_some_and(|first| now_us - first >= self.window_us)
        {
            times.pop_front();
        }
        if times.len() >= self.times_max {
            let oldest = times.front().copied().unwrap_or(now_us);
            return Err(too_many(oldest + self.window_us - now_us));
        }
        times.push_back(now_us);
        Ok(())
    }
}

/// A bucket for each door and source that leaks evenly: one number each, the time at which it is empty again.
#[derive(Debug, Default)]
struct Buckets {
    empty_at_us: Mutex<HashMap<(Door, Option<Source>), Micros>>,
}

impl Buckets {
    fn take(&self, (door, source): (Door, Source), a_minute: u32, now_us: Micros) -> Result<()> {
        let mut empty_at_us = self.empty_at_us.lock().unwrap_or_else(PoisonError::into_inner);
        if empty_at_us.len() >= KEYS_MAX {
            empty_at_us.retain(|_, at| *at > now_us);
        }
        // When even so there is no room, all newcomers share one bucket.
        let is_known = empty_at_us.contains_key(&(door, Some(source)));
        let source = (is_known || empty_at_us.len() < KEYS_MAX).then_some(source);
        let empty_at = empty_at_us.entry((door, source)).or_insert(now_us);
        let drop_us = MINUTE_US / Micros::from(a_minute.max(1));
        let filled_to = (*empty_at).max(now_us) + drop_us;
        if filled_to - now_us > MINUTE_US {
            return Err(too_many(filled_to - now_us - MINUTE_US));
        }
        *empty_at = filled_to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts() -> Attempts {
        Attempts::new(AttemptLimits {
            logins_per_source_min: 3,
            refreshes_per_source_min: 60,
            mails_per_source_min: 1,
            tokens_per_source_min: 1,
        })
    }

    fn source(last: u8) -> Source {
        Source(std::net::Ipv4Addr::new(192, 0, 2, last).into())
    }

    #[test]
    fn the_eleventh_attempt_in_a_minute_is_refused_and_told_when_to_return() {
        let attempts = attempts();
        for second in 0..10 {
            attempts.login("akron", "a@b.c", second * 1_000_000).unwrap();
        }
        let refused = attempts.login("akron", "a@b.c", 10_000_000).unwrap_err();
        assert!(
            matches!(refused, Error::TooManyAttempts { retry_after_s: 50 }),
            "{refused:?}"
        );
        attempts.login("akron", "other@b.c", 10_000_000).unwrap();
        attempts.login("other", "a@b.c", 10_000_000).unwrap();
        attempts.login("akron", "a@b.c", 60_000_000).unwrap();
        assert!(attempts.login("akron", "a@b.c", 60_500_000).is_err());
    }

    #[test]
    fn memory_is_bounded_however_many_accounts_are_tried() {
        let attempts = attempts();
        for number in 0..KEYS_MAX {
            attempts.login("akron", &number.to_string(), 0).unwrap();
        }
        assert!(attempts.login("akron", "one more", 1).is_err());
        attempts.login("akron", "one more", MINUTE_US).unwrap();
        assert_eq!(attempts.logins.recent.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_source_has_a_measure_for_each_door_that_refills_evenly() {
        let attempts = attempts();
        for _ in 0..3 {
            attempts.enter(Door::Login, source(1), 0).unwrap();
        }
        let refused = attempts.enter(Door::Login, source(1), 0).unwrap_err();
        assert!(
            matches!(refused, Error::TooManyAttempts { retry_after_s: 20 }),
            "{refused:?}"
        );
        attempts.enter(Door::Session, source(1), 0).unwrap();
        attempts.enter(Door::Login, source(2), 0).unwrap();
        attempts.enter(Door::Login, source(1), 20_000_000).unwrap();
        assert!(attempts.enter(Door::Login, source(1), 20_000_000).is_err());
    }

    #[test]
    fn memory_is_bounded_however_many_sources_try() {
        let attempts = attempts();
        for number in 0..2 * u32::try_from(KEYS_MAX).unwrap() {
            let address = std::net::Ipv4Addr::from(number);
            drop(attempts.enter(Door::Login, Source(address.into()), 0));
        }
        assert!(attempts.sources.empty_at_us.lock().unwrap().len() <= KEYS_MAX + 1);
        assert!(
            attempts.enter(Door::Login, source(1), 0).is_err(),
            "newcomers share"
        );
        attempts.enter(Door::Login, source(1), MINUTE_US).unwrap();
    }

    #[test]
    fn a_flood_of_refusals_does_not_grow_the_chain() {
        let attempts = attempts();
        let noted = (0..1_000).filter(|_| attempts.is_noted("akron", 0)).count();
        assert_eq!(noted, NOTED_A_MINUTE);
        assert!(attempts.is_noted("cuyahoga", 0));
    }
}
