//! How many requests a second may one caller make? A token bucket for each; callers are spread over a fixed number
//! of buckets by a keyed hash, so that memory has a bound and nobody can choose whose bucket to empty.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    num::NonZeroU32,
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

/// With a thousand callers at once, one in four hundred shares a bucket.
const BUCKETS: u64 = 1 << 18;

/// Counts requests by caller.
#[derive(Debug)]
pub(super) struct Rate {
    buckets: DefaultKeyedRateLimiter<u64>,
    clock: DefaultClock,
    places: RandomState,
}

impl Rate {
    pub(super) fn new(per_s: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            buckets: RateLimiter::dashmap(Quota::per_second(per_s).allow_burst(burst)),
            clock: DefaultClock::default(),
            places: RandomState::new(),
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// In how many seconds to come back, when it is one too many.
    pub(super) fn admit(&self, caller: impl Hash) -> Result<(), u64> {
        let bucket = self.places.hash_one(caller) % BUCKETS;
        self.buckets.check_key(&bucket).map_err(|refusal| {
            let wait = refusal.wait_time_from(self.clock.now());
            // The time may have come between the refusal and the look at the clock; "at once" would invite a loop.
            (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_too_fast_is_told_when_to_come_back_and_others_are_not_held_up() {
        let rate = Rate::new(NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        for _ in 0..3 {
            rate.admit("a").unwrap();
        }
        assert_eq!(rate.admit("a"), Err(1));
        rate.admit("b").unwrap();
    }

    #[test]
    fn memory_is_bounded_however_many_callers_there_are() {
        let rate = Rate::new(NonZeroU32::MIN, NonZeroU32::MIN);
        for caller in 0..2 * BUCKETS {
            // Two that share a bucket are one too many.
            assert!(matches!(rate.admit(caller), Ok(()) | Err(1)));
        }
        assert!(rate.buckets.len() as u64 <= BUCKETS);
    }
}
