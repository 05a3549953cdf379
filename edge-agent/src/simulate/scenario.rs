//! Which faults are active when?
//! Pure: commands and times in, faults and ground truth out. All times are plant time in microseconds. Nothing is
//! forgotten when a fault ends, so that the plant of any moment can be asked for again.

use std::collections::VecDeque;

use super::{
    fault::Fault,
    plant::{Faults, MINUTE_US, SECOND_US, last_challenge_us, next_load_us},
    truth::{self, Truth},
};

/// The working valve has left forward flow this long after the dip: "within one second", and early enough that
/// two polls one second apart cannot both see cold product in forward flow.
const DIVERT_AFTER_US: i64 = 800_000;
/// F16: the counter is reset this long after the fault began.
pub const COUNTER_RESET_AFTER_US: i64 = 150 * SECOND_US;
/// F5: so long from the last challenge that passed to the next.
const MISSED_US: i64 = 122 * MINUTE_US;
/// F7: the overloaded load stays in for two usual ones.
const OVERLOAD_US: i64 = 400 * MINUTE_US;
/// Oldest drawn defects beyond this are dropped.
const DEFECTS_MAX: usize = 10_000;
/// Oldest faults beyond this are dropped.
const FAULTS_MAX: usize = 1_000;

/// Most defect trays one burst command may ask for.
pub const BURST_MAX: u32 = 10_000;

/// What the operator of the simulator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Start a fault, for so long, or for its usual time.
    Start {
        /// Which.
        fault: Fault,
        /// Duration override, plant seconds.
        seconds: Option<u32>,
    },
    /// Draw a defect on each of the next `count` trays.
    DefectBurst {
        /// How many trays.
        count: u32,
    },
    /// End every fault now.
    Normal,
}

/// One fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    /// Which.
    pub fault: Fault,
    /// First moment.
    pub from_us: i64,
    /// First moment it is over; none while open-ended.
    pub to_us: Option<i64>,
}

impl Active {
    fn covers(&self, at_us: i64) -> bool {
        at_us >= self.from_us && self.to_us.is_none_or(|to_us| at_us < to_us)
    }

    /// The moment it ended, if that is past at `at_us`.
    fn ended_us(&self, at_us: i64) -> Option<i64> {
        self.to_us.filter(|to_us| *to_us <= at_us)
    }
}

/// The faults so far, the trays still to be spoiled and those that were.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    seed: u64,
    faults: VecDeque<Active>,
    burst_left: u32,
    defects: VecDeque<Truth>,
}

impl Scenario {
    /// A scenario without faults, for the plant of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Applies a command at plant time `now_us`, which may lie ahead.
    pub fn apply(&mut self, command: Command, now_us: i64) {
        match command {
            Command::Start { fault, seconds } => {
                self.end(now_us, |active| {
                    active.fault.script().group == fault.script().group
                });
                let to_us = match (fault, seconds.or(fault.script().seconds)) {
                    (Fault::F5, Some(_)) if seconds.is_none() => {
                        Some(last_challenge_us(now_us, 0.0) + MISSED_US)
                    }
                    (Fault::F7, Some(_)) if seconds.is_none() => Some(next_load_us(now_us) + OVERLOAD_US),
                    (_, seconds) => seconds.map(|s| now_us + i64::from(s) * SECOND_US),
                };
                if self.faults.len() == FAULTS_MAX {
                    self.faults.pop_front();
                }
                self.faults.push_back(Active {
                    fault,
                    from_us: now_us,
                    to_us,
                });
            }
            Command::DefectBurst { count } => self.burst_left = count.min(BURST_MAX),
            Command::Normal => {
                self.end(now_us, |_| true);
                self.burst_left = 0;
            }
        }
    }

    /// The faults acting on the plant at `at_us`.
    pub fn faults(&self, at_us: i64) -> Faults {
        let mut faults = Faults::default();
        for active in &self.faults {
            if active.covers(at_us) {
                faults = faults.with(active.fault, active.from_us);
            }
            match active.fault {
                Fault::F1 => faults.diverted |= is_diverted(active, at_us),
                Fault::F5 | Fault::F6 => faults.made_up_us = active.ended_us(at_us).or(faults.made_up_us),
                Fault::F16 => {
                    let reset_us = active.from_us + COUNTER_RESET_AFTER_US;
                    let happened = at_us >= reset_us && active.to_us.is_none_or(|to_us| to_us > reset_us);
                    faults.counter_reset_us = happened.then_some(reset_us).or(faults.counter_reset_us);
                }
                _ => {}
            }
        }
        faults
    }

    /// The fault acting at `at_us` that began last, for display.
    pub fn fault_at(&self, at_us: i64) -> Option<Fault> {
        let acts = |active: &&Active| active.covers(at_us) || is_diverted(active, at_us);
        self.faults.iter().rev().find(acts).map(|active| active.fault)
    }

    /// Every fault acting at `at_us`, in the order in which they began.
    pub fn acting(&self, at_us: i64) -> Vec<Fault> {
        let acting = self.faults.iter().filter(|active| active.covers(at_us));
        acting.map(|active| active.fault).collect()
    }

    /// How many trays of a burst are still to come.
    pub fn burst_left(&self) -> u32 {
        self.burst_left
    }

    /// Takes one tray off the burst; true when this tray is to be spoiled.
    pub fn take_burst_tray(&mut self) -> bool {
        let due = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        due
    }

    /// Notes a tray with drawn defects.
    pub fn note_defect(&mut self, at_us: i64, detail: String) {
        if self.defects.len() == DEFECTS_MAX {
            self.defects.pop_front();
        }
        self.defects.push_back(Truth {
            detail: Some(detail),
            ..truth::plain("defect", "VS-306", at_us, Some(at_us))
        });
    }

    /// The ground truth, by time.
    pub fn journal(&self) -> Vec<Truth> {
        let of_faults = self.faults.iter().flat_map(|active| truth::of(active, self.seed));
        let mut journal: Vec<Truth> = of_faults.chain(self.defects.iter().cloned()).collect();
        journal.sort_by_key(|truth| truth.from_us);
        journal
    }

    /// The ground truth as lines of JSON: the same commands at the same times give the same bytes.
    pub fn truth_lines(&self) -> String {
        let lines = self.journal().into_iter().map(|truth| {
            let line = serde_json::to_string(&truth).expect("strings and numbers are JSON");
            line + "\n"
        });
        lines.collect()
    }

    /// Ends what is chosen; what has not begun is struck out.
    fn end(&mut self, now_us: i64, chosen: impl Fn(&Active) -> bool) {
        self.faults
            .retain(|active| active.from_us <= now_us || !chosen(active));
        for active in self.faults.iter_mut().filter(|active| chosen(active)) {
            if active.to_us.is_none_or(|to_us| to_us > now_us) {
                active.to_us = Some(now_us);
            }
        }
    }
}

/// The valve leaves forward flow after the dip begins and comes back as long after it ends.
pub fn divert_window(active: &Active) -> (i64, Option<i64>) {
    (
        active.from_us + DIVERT_AFTER_US,
        active.to_us.map(|to| to + DIVERT_AFTER_US),
    )
}

fn is_diverted(active: &Active, at_us: i64) -> bool {
    let (from_us, to_us) = divert_window(active);
    // A dip ended before the valve moved never moved it.
    let moved = active.to_us.is_none_or(|end_us| end_us > from_us);
    active.fault == Fault::F1 && moved && at_us >= from_us && to_us.is_none_or(|to_us| at_us < to_us)
}

#[cfg(test)]
#[path = "scenario_tests.rs"]
mod tests;
