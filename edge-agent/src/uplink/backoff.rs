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

    /// The pause after a connection that was established is lost: anywhere in `spread`, since all edges of a hub lose
    /// it in the same moment. Pauses begin anew.
    pub fn after_loss(&mut self, spread: Duration, rng: &mut impl Rng) -> Duration {
        self.current = self.min;
        spread.mul_f64(rng.random_range(0.0..=1.0))
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
        assert!(backoff.after_loss(Duration::from_secs(5), &mut rng) <= Duration::from_secs(5));
        assert!(backoff.next(&mut rng) <= Duration::from_secs(1));
    }

    /// When each of so many edges is connected again, in seconds after the hub came back. All lost it at 0; an
    /// attempt while it is away fails at once, which is the worst case: a refused connection.
    fn returns(edges: u64, away: Duration, seed: u64) -> Vec<u64> {
        let (min, max) = crate::uplink::PAUSES;
        let one = |edge| {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed ^ (edge << 20));
            let mut backoff = Backoff::new(min, max);
            let mut at = backoff.after_loss(crate::uplink::RETURN_WITHIN, &mut rng);
            while at < away {
                at += backoff.next(&mut rng);
            }
            at.saturating_sub(away).as_secs()
        };
        (0..edges).map(one).collect()
    }

    fn most_in_one_second(returns: &[u64]) -> usize {
        let mut seconds = std::collections::BTreeMap::<u64, usize>::new();
        for second in returns {
            *seconds.entry(*second).or_default() += 1;
        }
        seconds.into_values().max().unwrap_or(0)
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn t9_of_500_edges_no_second_holds_more_than_three_in_ten_however_short_the_outage(
            away_ms in 0u64..3_600_000,
            seed in proptest::prelude::any::<u64>(),
        ) {
            let returns = returns(500, Duration::from_millis(away_ms), seed);
            proptest::prop_assert!(most_in_one_second(&returns) <= 150, "{}", most_in_one_second(&returns));
            proptest::prop_assert!(returns.iter().all(|second| *second <= 31));
        }

        #[test]
        fn t9_after_a_minute_no_second_holds_more_than_one_in_ten(
            away_ms in 60_000u64..3_600_000,
            seed in proptest::prelude::any::<u64>(),
        ) {
            let returns = returns(500, Duration::from_millis(away_ms), seed);
            proptest::prop_assert!(most_in_one_second(&returns) <= 50, "{}", most_in_one_second(&returns));
        }
    }
}
