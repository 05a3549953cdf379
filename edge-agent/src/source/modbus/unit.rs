//! Is this unit worth asking? A unit that does not answer is left alone for a while and then probed with one request,
//! so that it costs the others behind the same gateway little. Pure: the time is an argument.

use std::time::{Duration, Instant};

use protocol::Quality;

/// This many requests without an answer in a row suspend a unit.
const FAILURES_MAX: u32 = 2;
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a unit gives no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The quality of the readings not taken.
    pub quality: Quality,
    /// For a person.
    pub reason: String,
}

/// What is known of a unit from its answers so far.
#[derive(Clone, Debug)]
pub struct Unit {
    failures: u32,
    pause: Duration,
    suspended_until: Option<Instant>,
    trouble: Option<Trouble>,
}

impl Default for Unit {
    fn default() -> Self {
        Self {
            failures: 0,
            pause: PAUSE_MIN,
            suspended_until: None,
            trouble: None,
        }
    }
}

impl Unit {
    /// The quality of a reading that is due while the unit is suspended; nothing when it is to be asked.
    pub fn suspended(&self, now: Instant) -> Option<Quality> {
        self.suspended_until.filter(|until| now < *until)?;
        self.trouble.as_ref().map(|trouble| trouble.quality)
    }

    /// It answered, if only with a refusal. True when it had not before.
    pub fn answered(&mut self) -> bool {
        let was_troubled = self.trouble.is_some();
        if was_troubled || self.failures > 0 {
            *self = Self::default();
        }
        was_troubled
    }

    /// It did not answer. True when it had until now.
    pub fn failed(&mut self, trouble: Trouble, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.suspended_until = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        self.unreachable(trouble)
    }

    /// It could not be asked, for want of a connection. True when it could until now.
    pub fn unreachable(&mut self, trouble: Trouble) -> bool {
        self.trouble.replace(trouble).is_none()
    }

    /// Why it gives no values, if it gives none.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Trouble {
        Trouble {
            quality: Quality::BAD_TIMEOUT,
            reason: "no reply".to_owned(),
        }
    }

    #[test]
    fn one_lost_reply_suspends_nothing() {
        let now = Instant::now();
        let mut unit = Unit::default();
        assert!(unit.failed(silent(), now));
        assert_eq!(unit.suspended(now), None);
        assert!(unit.answered());
        assert!(unit.failed(silent(), now), "counted from the start again");
        assert_eq!(unit.suspended(now), None);
    }

    #[test]
    fn t14_a_silent_unit_is_probed_ever_more_rarely_but_at_least_every_half_minute() {
        let mut now = Instant::now();
        let mut unit = Unit::default();
        unit.failed(silent(), now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(!unit.failed(silent(), now));
            let from = now;
            while unit.suspended(now).is_some() {
                now += Duration::from_millis(100);
            }
            pauses.push((now - from).as_millis());
        }
        assert_eq!(pauses[..4], [500, 1000, 2000, 4000]);
        assert_eq!(pauses[8..], [30_000, 30_000]);
    }

    #[test]
    fn a_unit_that_answers_its_probe_is_asked_as_before() {
        let now = Instant::now();
        let mut unit = Unit::default();
        for _ in 0..5 {
            unit.failed(silent(), now);
        }
        assert_eq!(unit.suspended(now), Some(Quality::BAD_TIMEOUT));
        assert!(unit.answered());
        assert_eq!((unit.suspended(now), unit.trouble()), (None, None));
        assert!(!unit.answered(), "said once");
    }
}
