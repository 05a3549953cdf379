//! How much may one socket, one device and one hub ask of the MQTT front end?
//! Every number the front end enforces is here, with its unit in its name.

use std::time::Duration;

use tokio::time::Instant;

/// The front end's limits; the defaults suit a plant with some hundred edges.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open sockets, authenticated or not; further ones are closed at accept.
    pub connections_max: usize,
    /// Open sessions of one device; more are told that the quota is used up.
    pub device_sessions_max: usize,
    /// Open sessions of one tenant.
    pub tenant_sessions_max: usize,
    /// Largest MQTT packet in bytes, headers included, in either direction.
    pub packet_bytes_max: usize,
    /// Publishes of one socket that wait for ingest before its socket is no longer read.
    pub pending_max: usize,
    /// Time for the TLS handshake and the CONNECT packet together.
    pub connect_timeout: Duration,
    /// Time that a peer may refuse to take bytes before its socket is closed.
    pub write_timeout: Duration,
    /// Keep-alive imposed on clients that ask for none or for more.
    pub keep_alive_max: Duration,
    /// Publishes per second of one socket; above it the socket is read more slowly.
    pub publishes_per_s_max: u32,
    /// Pause before a refused login is answered, which makes guessing slow.
    pub refusal_delay: Duration,
    /// How often the router must pass its loop-back probe.
    pub probe_every: Duration,
    /// How long one probe may take before the router is replaced.
    pub probe_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            device_sessions_max: 16,
            tenant_sessions_max: 2048,
            packet_bytes_max: 1024 * 1024 + 1024,
            pending_max: 256,
            connect_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            keep_alive_max: Duration::from_mins(10),
            publishes_per_s_max: 2_000,
            refusal_delay: Duration::from_millis(500),
            probe_every: Duration::from_secs(2),
            probe_timeout: Duration::from_secs(5),
        }
    }
}

/// A token bucket that holds one second's worth; the clock is an argument.
#[derive(Debug)]
pub(super) struct RateGate {
    per_s: f64,
    tokens: f64,
    filled_at: Instant,
}

impl RateGate {
    pub(super) fn new(per_s: u32, now: Instant) -> Self {
        Self {
            per_s: f64::from(per_s),
            tokens: f64::from(per_s),
            filled_at: now,
        }
    }

    /// Takes one token. When none is left the caller must wait until the returned instant.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let elapsed_s = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed_s * self.per_s).min(self.per_s);
        self.filled_at = now;
        self.tokens -= 1.0;
        (self.tokens < 0.0).then(|| now + Duration::from_secs_f64(-self.tokens / self.per_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_passes_and_the_next_publish_waits() {
        let start = Instant::now();
        let mut gate = RateGate::new(100, start);
        for _ in 0..100 {
            assert_eq!(gate.take(start), None);
        }
        let until = gate.take(start).expect("the bucket is empty");
        assert_eq!(until - start, Duration::from_millis(10));
    }

    #[test]
    fn the_gate_never_saves_more_than_one_second() {
        let start = Instant::now();
        let mut gate = RateGate::new(10, start);
        let later = start + Duration::from_hours(1);
        for _ in 0..10 {
            assert_eq!(gate.take(later), None);
        }
        assert!(gate.take(later).is_some());
    }
}
