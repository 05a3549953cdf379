//! Which faults are active when, and what is the truth a detector will be scored against?
//! Pure: commands and times in, faults and journal out. All times are plant time in microseconds.

use std::collections::VecDeque;

use serde::Serialize;

use super::plant::{Faults, SECOND_US};

/// Length of the HTST dip unless a command says otherwise.
pub const DIP_S: u32 = 75;

/// The working valve has left forward flow this long after the dip: "within one second", and early enough that
/// two polls one second apart cannot both see cold product in forward flow.
const DIVERT_AFTER_US: i64 = 800_000;

/// Oldest journal entries beyond this are dropped.
const JOURNAL_MAX: usize = 10_000;

/// Most defect trays one burst command may ask for.
pub const BURST_MAX: u32 = 10_000;

/// A fault that changes what the HTST line shows; one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// HTST dip, the flow-diversion valve works.
    F1,
    /// HTST dip, the flow-diversion valve is stuck forward.
    F2,
    /// `TT-101` frozen while `TT-102` moves.
    F4,
}

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

/// One entry of the ground truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// `f1`, `f2`, `f4`, `divert` or `defect`.
    pub what: &'static str,
    /// The tag on which it shows.
    pub tag: &'static str,
    /// First moment.
    pub from_us: i64,
    /// First moment it is over; a scheduled end may lie ahead. `None` while open-ended.
    pub to_us: Option<i64>,
    /// More, such as the class of a defect and its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Active {
    fault: Fault,
    from_us: i64,
    to_us: Option<i64>,
}

/// The fault that acts, the trays still to be spoiled and the journal.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    active: Option<Active>,
    burst_left: u32,
    journal: VecDeque<Truth>,
}

impl Scenario {
    /// Applies a command at plant time `now_us`.
    pub fn apply(&mut self, command: Command, now_us: i64) {
        match command {
            Command::Start { fault, seconds } => {
                self.end_fault(now_us);
                self.start_fault(fault, seconds, now_us);
            }
            Command::DefectBurst { count } => self.burst_left = count.min(BURST_MAX),
            Command::Normal => {
                self.end_fault(now_us);
                self.burst_left = 0;
            }
        }
    }

    /// The faults acting on the plant at `at_us`.
    pub fn faults(&self, at_us: i64) -> Faults {
        let Some(active) = self.active else {
            return Faults::default();
        };
        let within = |from_us: i64, to_us: Option<i64>| at_us >= from_us && to_us.is_none_or(|to| at_us < to);
        let acts = within(active.from_us, active.to_us);
        match active.fault {
            Fault::F1 => {
                let (from_us, to_us) = divert_window(&active);
                Faults {
                    dip: acts,
                    diverted: within(from_us, to_us),
                    frozen_since_us: None,
                }
            }
            Fault::F2 => Faults {
                dip: acts,
                ..Faults::default()
            },
            Fault::F4 => Faults {
                frozen_since_us: acts.then_some(active.from_us),
                ..Faults::default()
            },
        }
    }

    /// The fault acting at `at_us`, for display.
    pub fn fault_at(&self, at_us: i64) -> Option<Fault> {
        let active = self.active?;
        let (_, until_us) = if active.fault == Fault::F1 {
            divert_window(&active)
        } else {
            (0, active.to_us)
        };
        until_us.is_none_or(|to| at_us < to).then_some(active.fault)
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
        self.note(Truth {
            what: "defect",
            tag: "VS-306",
            from_us: at_us,
            to_us: Some(at_us),
            detail: Some(detail),
        });
    }

    /// The ground truth, oldest first.
    pub fn journal(&self) -> impl Iterator<Item = &Truth> {
        self.journal.iter()
    }

    fn start_fault(&mut self, fault: Fault, seconds: Option<u32>, now_us: i64) {
        let seconds = match fault {
            Fault::F1 | Fault::F2 => Some(seconds.unwrap_or(DIP_S)),
            Fault::F4 => seconds,
        };
        let to_us = seconds.map(|s| now_us + i64::from(s) * SECOND_US);
        let active = Active {
            fault,
            from_us: now_us,
            to_us,
        };
        self.active = Some(active);
        let what = match fault {
            Fault::F1 => "f1",
            Fault::F2 => "f2",
            Fault::F4 => "f4",
        };
        self.note(Truth {
            what,
            tag: "TT-101",
            from_us: now_us,
            to_us,
            detail: None,
        });
        if fault == Fault::F1 {
            let (from_us, to_us) = divert_window(&active);
            self.note(Truth {
                what: "divert",
                tag: "ZS-106",
                from_us,
                to_us,
                detail: None,
            });
        }
    }

    /// Ends the active fault and cuts its entries in the journal short; what never began is struck out.
    fn end_fault(&mut self, now_us: i64) {
        if self.active.take().is_none() {
            return;
        }
        let still_open = |truth: &Truth| truth.to_us.is_none_or(|to| to > now_us);
        self.journal
            .retain(|truth| truth.from_us <= now_us || !still_open(truth));
        for truth in self.journal.iter_mut().filter(|truth| still_open(truth)) {
            truth.to_us = Some(now_us);
        }
    }

    fn note(&mut self, truth: Truth) {
        if self.journal.len() == JOURNAL_MAX {
            self.journal.pop_front();
        }
        self.journal.push_back(truth);
    }
}

/// The valve leaves forward flow after the dip begins and comes back as long after it ends.
fn divert_window(active: &Active) -> (i64, Option<i64>) {
    (
        active.from_us + DIVERT_AFTER_US,
        active.to_us.map(|to| to + DIVERT_AFTER_US),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_US: i64 = 10 * SECOND_US;

    fn started(fault: Fault, seconds: Option<u32>) -> Scenario {
        let mut scenario = Scenario::default();
        scenario.apply(Command::Start { fault, seconds }, START_US);
        scenario
    }

    fn at(scenario: &Scenario, seconds: f64) -> Faults {
        scenario.faults(START_US + (seconds * SECOND_US as f64) as i64)
    }

    #[test]
    fn f1_diverts_within_a_second_and_returns_only_after_the_product_is_hot_again() {
        let f1 = started(Fault::F1, None);
        assert_eq!(at(&f1, -0.1), Faults::default());
        assert_eq!(
            at(&f1, 0.0),
            Faults {
                dip: true,
                ..Faults::default()
            }
        );
        assert_eq!(
            at(&f1, 1.0),
            Faults {
                dip: true,
                diverted: true,
                frozen_since_us: None
            }
        );
        assert!(at(&f1, 74.9).dip && at(&f1, 74.9).diverted);
        assert_eq!(
            at(&f1, 75.0),
            Faults {
                diverted: true,
                ..Faults::default()
            }
        );
        assert_eq!(at(&f1, 76.0), Faults::default());
    }

    #[test]
    fn f2_is_the_same_dip_in_forward_flow() {
        let f2 = started(Fault::F2, Some(20));
        for s in 0..20 {
            assert_eq!(
                at(&f2, f64::from(s)),
                Faults {
                    dip: true,
                    ..Faults::default()
                }
            );
        }
        assert_eq!(at(&f2, 20.0), Faults::default());
    }

    #[test]
    fn f4_freezes_until_normal() {
        let mut f4 = started(Fault::F4, None);
        assert_eq!(at(&f4, 3_600.0).frozen_since_us, Some(START_US));
        f4.apply(Command::Normal, START_US + 4_000 * SECOND_US);
        assert_eq!(at(&f4, 4_001.0), Faults::default());
        let truth = f4.journal().next().unwrap();
        assert_eq!(
            (truth.what, truth.to_us),
            ("f4", Some(START_US + 4_000 * SECOND_US))
        );
    }

    #[test]
    fn the_journal_tells_what_happened_where_and_from_when_to_when() {
        let f1 = started(Fault::F1, Some(20));
        let entries: Vec<_> = f1
            .journal()
            .map(|t| (t.what, t.tag, t.from_us, t.to_us))
            .collect();
        let end_us = START_US + 20 * SECOND_US;
        assert_eq!(
            entries,
            [
                ("f1", "TT-101", START_US, Some(end_us)),
                (
                    "divert",
                    "ZS-106",
                    START_US + DIVERT_AFTER_US,
                    Some(end_us + DIVERT_AFTER_US)
                ),
            ]
        );
    }

    #[test]
    fn a_new_fault_ends_the_running_one_and_the_journal_says_so() {
        let mut scenario = started(Fault::F2, None);
        let later_us = START_US + 5 * SECOND_US;
        scenario.apply(
            Command::Start {
                fault: Fault::F4,
                seconds: Some(30),
            },
            later_us,
        );
        let entries: Vec<_> = scenario.journal().map(|t| (t.what, t.to_us)).collect();
        assert_eq!(
            entries,
            [("f2", Some(later_us)), ("f4", Some(later_us + 30 * SECOND_US))]
        );
        assert!(!scenario.faults(later_us).dip);
    }

    #[test]
    fn a_divert_that_never_happened_is_not_in_the_journal() {
        let mut scenario = started(Fault::F1, None);
        scenario.apply(Command::Normal, START_US + 100_000);
        let entries: Vec<_> = scenario.journal().map(|t| (t.what, t.to_us)).collect();
        assert_eq!(entries, [("f1", Some(START_US + 100_000))]);
    }

    #[test]
    fn finished_entries_are_left_alone_by_normal() {
        let mut scenario = started(Fault::F2, Some(1));
        scenario.apply(Command::Normal, START_US + 50 * SECOND_US);
        assert_eq!(
            scenario.journal().next().unwrap().to_us,
            Some(START_US + SECOND_US)
        );
    }

    #[test]
    fn a_burst_spoils_exactly_the_trays_asked_for() {
        let mut scenario = Scenario::default();
        scenario.apply(Command::DefectBurst { count: 3 }, 0);
        let spoiled = (0..10).filter(|_| scenario.take_burst_tray()).count();
        assert_eq!((spoiled, scenario.burst_left()), (3, 0));
    }

    #[test]
    fn the_journal_is_bounded() {
        let mut scenario = Scenario::default();
        for n in 0..=JOURNAL_MAX {
            scenario.note_defect(n as i64, String::new());
        }
        assert_eq!(scenario.journal().count(), JOURNAL_MAX);
        assert_eq!(scenario.journal().next().unwrap().from_us, 1);
    }
}
