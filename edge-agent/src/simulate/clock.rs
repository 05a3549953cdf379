//! How does plant time relate to the time on the wall?
//! Monotonic, so that a step of the system clock moves neither the plant nor its journal.

use std::time::{Duration, Instant};

/// Plant time runs `speed` times as fast as wall time and starts at zero.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    started: Instant,
    started_utc_us: i64,
    speed: f64,
}

impl SimClock {
    /// Starts a plant now; `speed` must be positive and finite.
    pub fn start(speed: f64) -> Self {
        Self {
            started: Instant::now(),
            started_utc_us: chrono::Utc::now().timestamp_micros(),
            speed,
        }
    }

    /// Plant seconds a wall second.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Plant time now, microseconds.
    pub fn plant_us(&self) -> i64 {
        (self.started.elapsed().as_micros() as f64 * self.speed) as i64
    }

    /// UTC microseconds at which plant time was, or will be, `plant_us`.
    pub fn utc_us(&self, plant_us: i64) -> i64 {
        self.started_utc_us + (plant_us as f64 / self.speed) as i64
    }

    /// Wall time that `plant` plant time takes.
    pub fn wall(&self, plant: Duration) -> Duration {
        plant.div_f64(self.speed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_plant_packs_ten_seconds_into_one() {
        let clock = SimClock {
            started: Instant::now(),
            started_utc_us: 1_000_000,
            speed: 10.0,
        };
        assert_eq!(clock.utc_us(10_000_000), 2_000_000);
        assert_eq!(clock.wall(Duration::from_secs(10)), Duration::from_secs(1));
    }
}
