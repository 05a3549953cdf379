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

    /// The next pause: anywhere between half of `min` and the current one, which then doubles.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let least = self.min / 2;
        let pause = least
            + self
                .current
                .saturating_sub(least)
                .mul_f64(rng.random_range(0.0..=1.0));
        self.current = (self.current * 2).min(self.max);
        pause
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.current = self.min;
    }

    /// The pause after a connection that was established is lost: anywhere in `spread`, since all edges of a hub lose
    /// it in the same moment; those after it are at least as spread.
    pub fn after_loss(&mut self, spread: Duration, rng: &mut impl Rng) -> Duration {
        self.reset();
        self.current = (spread * 2).clamp(self.min, self.max);
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
        assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(500)));
        assert!(pauses.iter().max() > Some(&Duration::from_secs(15)));
        assert!(pauses.iter().max() <= Some(&Duration::from_secs(30)));
        assert!(backoff.after_loss(Duration::from_secs(5), &mut rng) <= Duration::from_secs(5));
        assert!(backoff.next(&mut rng) <= Duration::from_secs(10));
        backoff.reset();
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
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

        /// Shares of 500: two in five at worst, in the seconds after a hub that was away for less than ten.
        #[test]
        fn t9_of_500_edges_no_second_after_an_outage_of_any_length_holds_more_than_its_share(
            (away_ms, share) in proptest::prelude::prop_oneof![
                (0u64..10_000, proptest::prelude::Just(200)),
                (10_000u64..60_000, proptest::prelude::Just(120)),
                (60_000u64..3_600_000, proptest::prelude::Just(70)),
            ],
            seed in proptest::prelude::any::<u64>(),
        ) {
            let returns = returns(500, Duration::from_millis(away_ms), seed);
            let most = most_in_one_second(&returns);
            proptest::prop_assert!(most <= share, "{most} in one second after {away_ms} ms");
            proptest::prop_assert!(returns.iter().all(|second| *second <= 30));
        }
    }
}
