//! How long before the next attempt? Doubling pauses with jitter, so that edges do not all come back at once. Pure:
//! the randomness is an argument.

use std::time::Duration;

use rand::Rng;

/// Pauses that double from `min` to `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    current: Duration,
}

impl Backoff {
    /// Starts at `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            current: min,
        }
    }

    /// The next pause: between half and the whole of the current one, which then doubles.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let pause = self.current.mul_f64(rng.random_range(0.5..=1.0));
        self.current = (self.current * 2).min(self.max);
        pause
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.current = self.min;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let pauses: Vec<Duration> = (0..10).map(|_| backoff.next(&mut rng)).collect();
        assert!(pauses[0] <= Duration::from_secs(1));
        assert!(pauses[9] >= Duration::from_secs(15) && pauses[9] <= Duration::from_secs(30));
        assert_ne!(pauses[8], pauses[9]);
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_secs(1));
    }
}
