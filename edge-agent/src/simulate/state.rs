//! What do all servers of the simulator share?
//! One plant, one clock, one scenario; every answer is computed at the moment it is asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    clock::SimClock,
    fault::Fault,
    plant::{Faults, Plant},
    scenario::Scenario,
    tags::{self, SimTag, Table},
    writes::WriteLog,
};

/// The running plant, shared by its servers.
#[derive(Debug, Clone)]
pub struct PlantState {
    /// Seed of everything random.
    pub seed: u64,
    /// Plant time against wall time.
    pub clock: SimClock,
    /// What was written to its outputs.
    pub writes: Arc<WriteLog>,
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
            writes: Arc::default(),
            plant: Plant::new(seed),
            scenario: Arc::new(Mutex::new(Scenario::new(seed))),
        }
    }

    /// The plant now.
    pub fn now(&self) -> Moment {
        self.at(self.clock.plant_us())
    }

    /// The plant at another moment, by what is known of its faults now.
    pub fn at(&self, at_us: i64) -> Moment {
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

    /// Since when a fault acts, if it does.
    pub fn since_us(&self, fault: Fault) -> Option<i64> {
        self.faults.since_us(fault)
    }

    /// What a register or bit holds, or `None` when nothing is mapped there.
    pub fn register(&self, table: Table, address: u16) -> Option<u16> {
        self.plant
            .register(tags::at(table, address)?, self.at_us, &self.faults)
    }
}
