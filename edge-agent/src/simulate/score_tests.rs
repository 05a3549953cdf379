//! Is a good agent told from a bad one?

use protocol::{Quality, event::Alarm, limit::DeviationKind};
use uuid::Uuid;

use super::*;
use crate::simulate::{
    fault::Fault,
    plant::SECOND_US,
    scenario::{Command, Scenario},
};

const EPOCH_US: i64 = 1_000_000_000_000;
const SPEED: f64 = 10.0;

fn truth(fault: Fault) -> Vec<Truth> {
    let mut scenario = Scenario::new(1);
    let seconds = None;
    scenario.apply(Command::Start { fault, seconds }, 100 * SECOND_US);
    scenario.journal()
}

/// UTC at which plant time was so many seconds.
fn utc(plant_s: f64) -> i64 {
    EPOCH_US + (plant_s * 1e6 / SPEED) as i64
}

fn deviation(
    ccp: &str,
    kind: DeviationKind,
    phase: Phase,
    (from_s, found_s, to_s): (f64, f64, f64),
) -> Event {
    Event::Deviation(Deviation {
        id: protocol::limit::deviation_id("akron-1", ccp, utc(from_s)),
        ccp: ccp.to_owned(),
        kind,
        phase,
        detected_us: utc(found_s),
        last_good_us: utc(from_s),
        until_us: utc(to_s),
        value_extreme: Some(71.1),
        limit_low: Some(72.0),
        limit_high: None,
        limit_version: 1,
        quality: Quality::GOOD,
    })
}

fn dip(from_s: f64, found_s: f64, to_s: f64) -> Vec<Event> {
    let limit = DeviationKind::Limit;
    vec![
        deviation("CCP-1", limit, Phase::Opened, (from_s, found_s, found_s)),
        deviation("CCP-1", limit, Phase::Closed, (from_s, found_s, to_s)),
    ]
}

fn alarm(code: &str, subject: &str, at_s: f64) -> Event {
    Event::Alarm(Alarm {
        id: Uuid::nil(),
        at_us: utc(at_s),
        code: code.to_owned(),
        subject: subject.to_owned(),
        line: None,
        active: true,
        message: String::new(),
    })
}

fn report(fault: Fault, events: &[Event]) -> Report {
    let timing = Timing {
        epoch_us: EPOCH_US,
        speed: SPEED,
        slack_s: 0.0,
    };
    score(&truth(fault), events, timing, 1_000 * SECOND_US)
}

#[test]
fn a_dip_that_is_found_in_time_and_held_exactly_passes() {
    let report = report(Fault::F2, &dip(99.0, 102.5, 176.0));
    assert!(report.is_passed(), "{report:?}");
    let outcome = &report.outcomes[0];
    assert_eq!(outcome.findings[0].latency_s, Some(1.5));
    let held = outcome.held.unwrap();
    assert_eq!((held.true_s, held.missed_s, held.extra_s), (75.0, 0.0, 2.0));
    assert!((held.over_hold_share - 0.002).abs() < 1e-12);
}

#[test]
fn product_that_is_not_held_is_missed_and_seen() {
    let held = report(Fault::F2, &dip(120.0, 121.0, 176.0)).outcomes[0]
        .held
        .unwrap();
    assert_eq!((held.missed_s, held.extra_s), (20.0, 1.0));
    let held = report(Fault::F2, &[]).outcomes[0].held.unwrap();
    assert_eq!((held.missed_s, held.found_s), (75.0, 0.0));
}

#[test]
fn an_open_deviation_holds_until_now() {
    let events = &dip(99.0, 102.0, 176.0)[..1];
    let held = report(Fault::F2, events).outcomes[0].held.unwrap();
    assert_eq!((held.missed_s, held.extra_s), (0.0, 826.0));
}

#[test]
fn too_late_and_never_are_told_apart() {
    let verdict = |events: &[Event]| report(Fault::F2, events).outcomes[0].findings[0].verdict;
    assert_eq!(verdict(&dip(99.0, 120.0, 176.0)), Verdict::Late);
    assert_eq!(verdict(&[]), Verdict::Missing);
    // A gap is not a breached limit.
    let gap = deviation(
        "CCP-1",
        DeviationKind::MonitoringGap,
        Phase::Opened,
        (99.0, 102.0, 102.0),
    );
    assert_eq!(verdict(&[gap]), Verdict::Missing);
}

#[test]
fn a_deviation_of_diverted_product_is_a_violation_and_its_alarm_is_not_false() {
    let diverted = alarm("ccp.diverted", "CCP-1", 101.0);
    assert!(report(Fault::F1, std::slice::from_ref(&diverted)).is_passed());
    let mut events = dip(99.0, 102.0, 176.0);
    events.push(diverted);
    let report = report(Fault::F1, &events);
    assert_eq!(report.outcomes[0].findings[1].verdict, Verdict::Violated);
    assert!(!report.is_passed() && report.false_alarms.is_empty());
}

#[test]
fn what_belongs_to_no_fault_is_false() {
    let mut events = dip(99.0, 102.0, 176.0);
    events.extend(dip(500.0, 502.0, 510.0));
    events.push(alarm("sensor.stuck", "TT-101", 130.0));
    let report = report(Fault::F2, &events);
    assert_eq!(report.false_deviations, ["CCP-1 limit"]);
    assert_eq!(report.false_alarms, ["sensor.stuck TT-101"]);
    assert!(!report.is_passed());
}

#[test]
fn a_late_deviation_is_one_about_the_past() {
    let (hour, gap) = (3_600.0, DeviationKind::MonitoringGap);
    let window = (100.0, 112.0, 2.0 * hour + 101.0);
    let silent = deviation("CCP-4", gap, Phase::Closed, window);
    let late = deviation(
        "CCP-4",
        DeviationKind::Limit,
        Phase::Closed,
        (1_880.0, 2.0 * hour + 130.0, 2_040.0),
    );
    let timing = Timing {
        epoch_us: EPOCH_US,
        speed: SPEED,
        slack_s: 0.0,
    };
    let until_us = 8_000 * SECOND_US;
    let report = score(&truth(Fault::F11), &[silent.clone(), late], timing, until_us);
    assert!(report.is_passed(), "{report:?}");
    let now = deviation(
        "CCP-4",
        DeviationKind::Limit,
        Phase::Closed,
        (2.0 * hour + 120.0, 2.0 * hour + 130.0, 2.0 * hour + 140.0),
    );
    let report = score(&truth(Fault::F11), &[silent, now], timing, until_us);
    assert_eq!(report.outcomes[0].findings[1].verdict, Verdict::Missing);
}

#[test]
fn records_are_read_bare_or_wrapped_and_other_lines_are_passed_over() {
    let event = serde_json::to_string(&alarm("source.down", "plc", 1.0)).unwrap();
    let lines = format!("{event}\n{{\"seq\":1,\"event\":{event}}}\n\n{{\"reading\":1}}\n");
    assert_eq!(read_events(&lines).unwrap().len(), 2);
    assert!(
        read_events("{}\nnot json")
            .unwrap_err()
            .to_string()
            .starts_with("line 2 ")
    );
}
