//! Does the register of alarms keep every alarm in the state that ISA-18.2 gives it? Scripted readings, no clock.

use protocol::{
    Quality,
    alarm::{
        AlarmVerb,
        machine::{AlarmBand, AlarmRule},
    },
};

use super::{config::Guidance, *};
use crate::ccp::config::Gate;

const SECOND: Micros = 1_000_000;
const TT403: Alias = Alias(0);
const CIP: Alias = Alias(1);

fn warm() -> TagAlarm {
    TagAlarm {
        code: "tag.high",
        tag: TT403,
        subject: "TT-403".to_owned(),
        line: Some("L4".to_owned()),
        unit: "degC".to_owned(),
        period_us: 30 * SECOND,
        rule: AlarmRule {
            priority: 2,
            is_critical: false,
            is_latching: false,
            on_delay_us: 0,
            off_delay_us: 0,
            realarm_us: 0,
            shelve_us_max: 3_600 * SECOND,
            band: Some(AlarmBand {
                low: None,
                high: Some(5.0),
                deadband: 0.5,
            }),
        },
        suppress_when: Some(Gate { tag: CIP, value: 1.0 }),
        mask: None,
        guidance: Guidance::default(),
    }
}

fn register() -> Register {
    Register::new("akron-1", AlarmPolicy::default(), &[warm()], &[])
}

fn good(tag: Alias, value: f64) -> Reading {
    Reading::new(tag, 0, value, Quality::GOOD)
}

fn changes(events: &[Event]) -> Vec<(&str, AlarmState)> {
    let changes = events.iter().filter_map(|event| match event {
        Event::AlarmChange(change) => Some((change.code.as_str(), change.to)),
        _ => None,
    });
    changes.collect()
}

fn told(events: &[Event]) -> Vec<bool> {
    let told = events.iter().filter_map(|event| match event {
        Event::Alarm(alarm) => Some(alarm.active),
        _ => None,
    });
    told.collect()
}

fn raised(code: &str, subject: &str, active: bool, at_us: Micros) -> Alarm {
    Alarm {
        id: Uuid::from_u128(5),
        at_us,
        code: code.to_owned(),
        subject: subject.to_owned(),
        line: None,
        active,
        message: "no reply".to_owned(),
    }
}

fn action(id: u128, (code, subject): (&str, &str), verb: AlarmVerb, at_us: Micros) -> AlarmAction {
    AlarmAction {
        id: Uuid::from_u128(id),
        code: code.to_owned(),
        subject: subject.to_owned(),
        at_us,
        by: "avery".to_owned(),
        second: None,
        reason: String::new(),
        verb,
    }
}

fn deviation(phase: Phase, kind: DeviationKind, id: u128, at_us: Micros) -> Deviation {
    Deviation {
        id: Uuid::from_u128(id),
        ccp: "CCP-1".to_owned(),
        kind,
        phase,
        detected_us: at_us,
        last_good_us: at_us - SECOND,
        until_us: at_us,
        value_extreme: Some(71.1),
        limit_low: Some(72.0),
        limit_high: None,
        limit_version: 3,
        quality: Quality::GOOD,
    }
}

#[test]
fn a_value_beyond_its_limit_is_told_once_and_until_it_is_well_inside() {
    let mut register = register();
    let mut events = Vec::new();
    for (second, value) in (0..).zip([4.0, 5.2, 4.8, 5.2, 4.4, 4.8]) {
        events.extend(register.observe(&[good(TT403, value)], second * SECOND));
    }
    assert_eq!(told(&events), [true, false]);
    assert_eq!(
        changes(&events),
        [
            ("tag.high", AlarmState::Unacknowledged),
            ("tag.high", AlarmState::ReturnedUnacknowledged)
        ]
    );
}

#[test]
fn a_tag_without_usable_values_is_an_alarm_of_its_own_and_does_not_end_another() {
    let mut register = register();
    register.observe(&[good(TT403, 6.0)], 0);
    let bad = Reading::bad(TT403, 0, Quality::BAD_TIMEOUT);
    let mut events = register.observe(&[bad], 30 * SECOND);
    events.extend(register.tick(100 * SECOND));
    assert_eq!(changes(&events), [("tag.bad", AlarmState::Unacknowledged)]);
    assert_eq!(register.status(100 * SECOND).counts.standing, 2);
}

#[test]
fn a_suppressed_alarm_is_not_told_and_is_told_when_it_still_stands_afterwards() {
    let mut register = register();
    let events = register.observe(&[good(TT403, 9.0), good(CIP, 1.0)], 0);
    assert_eq!(told(&events), Vec::<bool>::new());
    let events = register.observe(&[good(TT403, 9.0), good(CIP, 0.0)], SECOND);
    assert_eq!(told(&events), [true]);
}

#[test]
fn t24_a_restart_in_any_state_goes_on_where_it_was() {
    let mut before = register();
    let key = ("tag.high", "TT-403");
    let mut events = before.observe(&[good(TT403, 9.0)], 0);
    events.extend(before.act(action(1, key, AlarmVerb::Acknowledge, SECOND), SECOND));
    let shelve = AlarmVerb::Shelve {
        until_us: 60 * SECOND,
    };
    events.extend(before.act(action(2, key, shelve, 2 * SECOND), 2 * SECOND));
    let mut after = register();
    for (_, state) in before.snapshot() {
        after.restore(&state, 3 * SECOND).unwrap();
    }
    assert_eq!(after.status(3 * SECOND).shown, before.status(3 * SECOND).shown);
    assert_eq!(
        after.act(action(2, key, shelve, 2 * SECOND), 3 * SECOND),
        [],
        "done once, also across a restart"
    );
    for second in [10, 61, 90] {
        assert_eq!(after.tick(second * SECOND), before.tick(second * SECOND));
    }
}

#[test]
fn a_state_that_cannot_be_read_leaves_the_alarms_as_they_are() {
    let mut register = register();
    for bytes in [&b""[..], b"\x09", b"\x01garbage"] {
        assert!(register.restore(bytes, 0).is_err());
    }
    assert_eq!(register.status(0).shown, []);
}

#[test]
fn what_the_program_raises_gets_the_state_of_its_code() {
    let mut register = register();
    let events = register.condition(&raised("source.down", "oven", true, SECOND));
    let Event::AlarmChange(change) = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (change.id, change.priority, change.to),
        (Uuid::from_u128(5), 2, AlarmState::Unacknowledged)
    );
    let events = register.condition(&raised("clock.set_back", "akron-1", true, 2 * SECOND));
    assert_eq!(
        changes(&events),
        [
            ("clock.set_back", AlarmState::Unacknowledged),
            ("clock.set_back", AlarmState::ReturnedUnacknowledged)
        ]
    );
}

#[test]
fn a_source_that_is_up_after_a_restart_clears_what_was_known_before() {
    let mut before = register();
    before.condition(&raised("source.down", "oven", true, SECOND));
    let mut after = register();
    after.restore(&before.snapshot()[0].1, 2 * SECOND).unwrap();
    assert_eq!(told(&after.source_is_up("oven", 3 * SECOND)), [false]);
    assert_eq!(after.source_is_up("oven", 4 * SECOND), []);
}

#[test]
fn an_open_deviation_is_an_active_critical_alarm_that_one_person_cannot_hide() {
    let mut register = register();
    register.deviation(&deviation(Phase::Opened, DeviationKind::Limit, 1, 10 * SECOND));
    let board = register.status(11 * SECOND);
    let shown = &board.shown[0];
    assert_eq!(
        (shown.code.as_str(), shown.priority, shown.is_critical),
        ("ccp.limit", 1, true)
    );
    let shelve = AlarmVerb::Shelve {
        until_us: 100 * SECOND,
    };
    let events = register.act(
        action(1, ("ccp.limit", "CCP-1"), shelve, 12 * SECOND),
        12 * SECOND,
    );
    assert!(matches!(&events[..], [Event::AlarmChange(change)]
            if matches!(change.cause, AlarmCause::Refused { .. }) && change.limit_version == Some(3)));
    let events = register.deviation(&deviation(Phase::Closed, DeviationKind::Limit, 1, 20 * SECOND));
    assert_eq!(
        changes(&events),
        [("ccp.limit", AlarmState::ReturnedUnacknowledged)]
    );
}

#[test]
fn a_gap_that_turns_out_to_be_out_of_limit_goes_on_under_the_other_name() {
    let mut register = register();
    register.deviation(&deviation(
        Phase::Opened,
        DeviationKind::MonitoringGap,
        1,
        10 * SECOND,
    ));
    let events = register.deviation(&deviation(Phase::Extended, DeviationKind::Limit, 1, 12 * SECOND));
    assert_eq!(
        changes(&events),
        [
            ("ccp.monitoring_gap", AlarmState::ReturnedUnacknowledged),
            ("ccp.limit", AlarmState::Unacknowledged)
        ]
    );
}

#[test]
fn an_alarm_whose_deviation_no_judge_knows_any_more_ends_at_the_restart() {
    let mut register = register();
    register.deviation(&deviation(Phase::Opened, DeviationKind::Limit, 1, 10 * SECOND));
    assert_eq!(register.keep_open(&["CCP-1".to_owned()], 11 * SECOND), []);
    assert_eq!(
        changes(&register.keep_open(&[], 11 * SECOND)),
        [("ccp.limit", AlarmState::ReturnedUnacknowledged)]
    );
}

#[test]
fn a_late_deviation_does_not_end_the_alarm_of_one_that_is_open() {
    let mut register = register();
    register.deviation(&deviation(Phase::Opened, DeviationKind::Limit, 1, 10 * SECOND));
    register.deviation(&deviation(Phase::Opened, DeviationKind::Limit, 2, 11 * SECOND));
    assert_eq!(
        register.deviation(&deviation(Phase::Closed, DeviationKind::Limit, 2, 12 * SECOND)),
        []
    );
    assert_eq!(register.status(12 * SECOND).counts.standing, 1);
}

#[test]
fn an_action_on_an_alarm_that_never_was_is_refused_on_record() {
    let mut register = register();
    let events = register.act(action(1, ("no.such", "x"), AlarmVerb::Acknowledge, 0), 0);
    assert!(
        matches!(&events[..], [Event::AlarmChange(change)] if matches!(change.cause, AlarmCause::Refused { .. }))
    );
}

#[test]
fn f20_in_a_flood_the_first_alarm_and_the_most_urgent_are_shown_and_the_rest_is_counted() {
    let mut register = register();
    register.condition(&raised("source.down", "ups", true, 0));
    for second in 1..60 {
        register.condition(&raised(
            "sensor.rate",
            &format!("PT-{second}"),
            true,
            second * SECOND,
        ));
    }
    register.deviation(&deviation(Phase::Opened, DeviationKind::Limit, 1, 61 * SECOND));
    let board = register.status(62 * SECOND);
    let shown: Vec<&str> = board.shown.iter().map(|alarm| alarm.code.as_str()).collect();
    assert_eq!(shown, ["ccp.limit", "source.down"]);
    let flood = board.flood.unwrap();
    assert_eq!(
        (flood.first_subject.as_str(), flood.others["sensor.rate"]),
        ("ups", 59)
    );
    assert_eq!(board.counts.standing, 61);
}
