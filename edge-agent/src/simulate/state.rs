//! What do all servers of the simulator share?
//! One plant, one clock, one scenario; every answer is computed at the moment it is asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{clock::SimClock, plant::Faults, plant::Plant, scenario::Scenario, tags, tags::SimTag};

/// The running plant, shared by its servers.
#[derive(Debug, Clone)]
pub struct PlantState {
    /// Seed of everything random.
    pub seed: u64,
    /// Plant time against wall time.
    pub clock: SimClock,
    plant: Plant,
    scenario: Arc<Mutex<Scenario>>,
}

/// The plant at one moment: every value read from it belongs together.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    plant: Plant,
    faults: Faults,
    at_us: i64,
}

impl PlantState {
    /// A plant that starts now.
    pub fn start(seed: u64, speed: f64) -> Self {
        Self {
            seed,
            clock: SimClock::start(speed),
            plant: Plant::new(seed),
            scenario: Arc::default(),
        }
    }

    /// The plant now.
    pub fn now(&self) -> Moment {
        let at_us = self.clock.plant_us();
        Moment {
            plant: self.plant,
            faults: self.scenario().faults(at_us),
            at_us,
        }
    }

    /// The scenario, locked; never held across an await.
    pub fn scenario(&self) -> MutexGuard<'_, Scenario> {
        // The scenario is consistent between statements, so a panic elsewhere does not spoil it.
        self.scenario.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Moment {
    /// Plant time of this moment.
    pub fn at_us(&self) -> i64 {
        self.at_us
    }

    /// What `tag` shows.
    pub fn value(&self, tag: &SimTag) -> f64 {
        self.plant.value(tag, self.at_us, &self.faults)
    }

    /// What the holding register at `address` holds, or `None` when nothing is mapped there.
    pub fn register(&self, address: u16) -> Option<u16> {
        self.plant
            .register(tags::at_holding(address)?, self.at_us, &self.faults)
    }
}
