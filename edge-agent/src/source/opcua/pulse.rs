//! Is the server alive behind its answers? Pure: its own clock, `ServerStatus.CurrentTime`, is watched like a tag. While
//! it stands still and nothing else comes either, keep-alives and answers to Read prove nothing.

use std::time::Duration;

use opcua::types::DateTime;
use protocol::Micros;

/// The handle of the item that watches the server's clock; no slot has it.
pub const HANDLE: u32 = u32::MAX;

/// How often the server's clock is sampled.
pub fn sampling(publish: Duration) -> Duration {
    publish.max(Duration::from_secs(1))
}

/// How long the server's clock may stand still: two of its periods and a publish, as for a tag.
pub fn patience(publish: Duration) -> Duration {
    sampling(publish) * 2 + publish
}

/// What was last heard of the server's clock, in times of the agent's own steady clock.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    server_time: Option<DateTime>,
    alive_us: Micros,
}

impl Pulse {
    /// Alive as of now.
    pub fn new(now_us: Micros) -> Self {
        Self {
            server_time: None,
            alive_us: now_us,
        }
    }

    /// The server's clock was reported. The same time again is no sign of life; an earlier one is (it was set).
    pub fn beat(&mut self, server_time: DateTime, now_us: Micros) {
        if self.server_time != Some(server_time) {
            self.server_time = Some(server_time);
            self.alive_us = now_us;
        }
    }

    /// A value of a tag came: the server samples, whatever its clock says.
    pub fn value(&mut self, now_us: Micros) {
        self.alive_us = now_us;
    }

    /// For how long there was no sign of life.
    pub fn silent_for(&self, now_us: Micros) -> Duration {
        Duration::from_micros(u64::try_from(now_us - self.alive_us).unwrap_or(0))
    }

    /// Whether the clock, read just now, stands where it stood when it was last heard.
    pub fn stands_at(&self, read: DateTime) -> bool {
        self.server_time == Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: Micros = 1_000_000;

    fn at(second: u16) -> DateTime {
        DateTime::ymd_hms(2026, 3, 1, 12, 0, second)
    }

    #[test]
    fn t19_a_clock_that_stands_still_is_no_sign_of_life() {
        let mut pulse = Pulse::new(0);
        pulse.beat(at(1), SECOND_US);
        pulse.beat(at(1), 5 * SECOND_US);
        assert_eq!(pulse.silent_for(5 * SECOND_US), Duration::from_secs(4));
        assert!(pulse.stands_at(at(1)) && !pulse.stands_at(at(2)));
    }

    #[test]
    fn values_are_a_sign_of_life_while_the_clock_is_coarse() {
        let mut pulse = Pulse::new(0);
        pulse.beat(at(1), SECOND_US);
        pulse.value(4 * SECOND_US);
        assert_eq!(pulse.silent_for(5 * SECOND_US), Duration::from_secs(1));
    }

    #[test]
    fn a_clock_that_was_set_back_is_alive() {
        let mut pulse = Pulse::new(0);
        pulse.beat(at(9), SECOND_US);
        pulse.beat(at(1), 2 * SECOND_US);
        assert_eq!(pulse.silent_for(2 * SECOND_US), Duration::ZERO);
    }
}
