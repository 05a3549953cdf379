//! Do commands make the faults they should, at the times they should?

use super::*;
use crate::simulate::{plant::Plant, tags::TAGS};

const START_US: i64 = 10 * SECOND_US;

fn started(fault: Fault, seconds: Option<u32>) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.apply(Command::Start { fault, seconds }, START_US);
    scenario
}

fn at(scenario: &Scenario, seconds: f64) -> Faults {
    scenario.faults(START_US + (seconds * SECOND_US as f64) as i64)
}

/// Whether the dip acts, and whether the valve diverts.
fn htst(faults: &Faults, fault: Fault) -> (bool, bool) {
    (faults.since_us(fault).is_some(), faults.diverted)
}

fn windows(scenario: &Scenario) -> Vec<(String, i64, Option<i64>)> {
    let journal = scenario.journal().into_iter();
    journal
        .map(|truth| (truth.what, truth.from_us, truth.to_us))
        .collect()
}

#[test]
fn f1_diverts_within_a_second_and_returns_only_after_the_product_is_hot_again() {
    let f1 = started(Fault::F1, None);
    assert_eq!(at(&f1, -0.1), Faults::default());
    for (s, expected) in [
        (0.0, (true, false)),
        (1.0, (true, true)),
        (74.9, (true, true)),
        (75.0, (false, true)),
        (76.0, (false, false)),
    ] {
        assert_eq!(htst(&at(&f1, s), Fault::F1), expected, "{s} s");
    }
}

#[test]
fn f2_is_the_same_dip_in_forward_flow() {
    let f2 = started(Fault::F2, Some(20));
    for s in 0..20 {
        assert_eq!(htst(&at(&f2, f64::from(s)), Fault::F2), (true, false));
    }
    assert_eq!(at(&f2, 20.0), Faults::default());
}

#[test]
fn f4_freezes_until_normal() {
    let mut f4 = started(Fault::F4, None);
    assert_eq!(at(&f4, 3_600.0).since_us(Fault::F4), Some(START_US));
    let end_us = START_US + 4_000 * SECOND_US;
    f4.apply(Command::Normal, end_us);
    assert_eq!(at(&f4, 4_001.0), Faults::default());
    assert_eq!(windows(&f4), [("f4".to_owned(), START_US, Some(end_us))]);
}

#[test]
fn the_journal_tells_what_happened_where_and_from_when_to_when() {
    let end_us = START_US + 20 * SECOND_US;
    assert_eq!(
        windows(&started(Fault::F1, Some(20))),
        [
            ("f1".to_owned(), START_US, Some(end_us)),
            (
                "divert".to_owned(),
                START_US + DIVERT_AFTER_US,
                Some(end_us + DIVERT_AFTER_US)
            ),
        ]
    );
}

#[test]
fn a_new_fault_of_the_same_equipment_ends_the_running_one_and_others_go_on() {
    let mut scenario = started(Fault::F2, None);
    let later_us = START_US + 5 * SECOND_US;
    for fault in [Fault::F13, Fault::F4] {
        let seconds = Some(30);
        scenario.apply(Command::Start { fault, seconds }, later_us);
    }
    let end_us = Some(later_us + 30 * SECOND_US);
    assert_eq!(
        windows(&scenario),
        [
            ("f2".to_owned(), START_US, Some(later_us)),
            ("f13".to_owned(), later_us, end_us),
            ("f4".to_owned(), later_us, end_us)
        ]
    );
    assert_eq!(scenario.acting(later_us), [Fault::F13, Fault::F4]);
    assert_eq!(scenario.fault_at(later_us), Some(Fault::F4));
}

#[test]
fn a_divert_that_never_happened_is_not_in_the_journal() {
    let mut scenario = started(Fault::F1, None);
    let end_us = START_US + 100_000;
    scenario.apply(Command::Normal, end_us);
    assert_eq!(windows(&scenario), [("f1".to_owned(), START_US, Some(end_us))]);
    assert!(!at(&scenario, 1.0).diverted);
}

#[test]
fn finished_entries_are_left_alone_by_normal() {
    let mut scenario = started(Fault::F2, Some(1));
    scenario.apply(Command::Normal, START_US + 50 * SECOND_US);
    assert_eq!(scenario.journal()[0].to_us, Some(START_US + SECOND_US));
}

#[test]
fn a_fault_ordered_ahead_is_struck_out_by_normal() {
    let mut scenario = started(Fault::F2, None);
    scenario.apply(Command::Normal, START_US - 1);
    assert!(scenario.journal().is_empty());
}

#[test]
fn a_missed_challenge_lasts_from_the_last_good_one_to_the_next_122_minutes_later() {
    let mut scenario = Scenario::new(1);
    let command = Command::Start {
        fault: Fault::F5,
        seconds: None,
    };
    scenario.apply(command, 80 * MINUTE_US);
    let truth = &scenario.journal()[0];
    let suspect = truth.suspect.unwrap();
    assert_eq!(
        (suspect.from_us, suspect.to_us),
        (60 * MINUTE_US, Some(182 * MINUTE_US))
    );
    assert_eq!(truth.expect[0].after_us, 125 * MINUTE_US);
    let tag = crate::simulate::tags::find("MD-401-CHALLENGE").unwrap();
    let shows = |min: i64| Plant::new(1).value(tag, min * MINUTE_US, &scenario.faults(min * MINUTE_US));
    let made: Vec<i64> = (0..300).filter(|min| shows(*min) > 0.0).collect();
    assert_eq!(made, [0, 60, 182, 240]);
}

#[test]
fn the_counter_stays_reset_after_f16() {
    let scenario = started(Fault::F16, None);
    let reset_us = START_US + COUNTER_RESET_AFTER_US;
    assert_eq!(scenario.faults(reset_us - 1).counter_reset_us, None);
    assert_eq!(
        scenario.faults(reset_us + 3_600 * SECOND_US).counter_reset_us,
        Some(reset_us)
    );
}

#[test]
fn the_same_seed_and_commands_give_the_same_truth_and_the_same_values_to_the_byte() {
    let run = || {
        let mut scenario = Scenario::new(7);
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            let seconds = None;
            scenario.apply(Command::Start { fault, seconds }, n as i64 * 300 * SECOND_US);
        }
        scenario.apply(Command::Normal, 2 * 3_600 * SECOND_US);
        let mut bits = Vec::new();
        for s in (0..9_000).step_by(37) {
            let faults = scenario.faults(s * SECOND_US);
            for tag in TAGS.iter() {
                let value = Plant::new(7).value(tag, s * SECOND_US, &faults);
                bits.push(value.to_bits());
            }
        }
        (scenario.truth_lines(), bits)
    };
    assert_eq!(run(), run());
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
    for n in 0..=DEFECTS_MAX {
        scenario.note_defect(n as i64, String::new());
    }
    for n in 0..=FAULTS_MAX {
        let (fault, seconds) = (Fault::F2, Some(1));
        scenario.apply(Command::Start { fault, seconds }, n as i64);
    }
    assert_eq!(scenario.journal().len(), DEFECTS_MAX + FAULTS_MAX);
}

/// What is to be found in each fault is written down, so that a change of it is a change that somebody sees.
/// `FOODFLOW_BLESS=1` writes the files anew.
#[test]
fn the_ground_truth_of_seed_1_is_the_one_written_down() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/truth");
    for fault in Fault::ALL {
        let mut scenario = Scenario::new(1);
        let seconds = (fault == Fault::F4).then_some(300);
        scenario.apply(Command::Start { fault, seconds }, 10 * MINUTE_US);
        let path = folder.join(format!("{}.ndjson", fault.name()));
        let lines = scenario.truth_lines();
        if std::env::var_os("FOODFLOW_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &lines).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(lines, written, "{}", path.display());
    }
}
