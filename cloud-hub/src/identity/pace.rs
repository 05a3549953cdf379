//! How long does an answer take that must tell nothing? Up to the next fifth of a second, whatever was done for it,
//! so that its time does not say whether an account exists.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

const STEP: Duration = Duration::from_millis(200);

/// Started with the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace(Instant);

impl Pace {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Waits for the end of the step. Holds nothing but the request meanwhile.
    pub(super) async fn even(self) {
        sleep_until(self.0 + whole_steps(self.0.elapsed())).await;
    }
}

fn whole_steps(elapsed: Duration) -> Duration {
    let steps = elapsed.as_millis() / STEP.as_millis() + 1;
    STEP * u32::try_from(steps).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_it_took_the_answer_comes_at_the_end_of_a_step() {
        for (took_ms, answers_ms) in [(0, 200), (1, 200), (199, 200), (200, 400), (450, 600)] {
            let at = whole_steps(Duration::from_millis(took_ms));
            assert_eq!(at, Duration::from_millis(answers_ms));
        }
    }
}
