//! Does what the judge knew outlive a restart, and a clock that is set?

use super::*;

#[test]
fn a_state_that_an_earlier_version_saved_is_read() {
    let mut before = engine();
    play(&mut before, 0, normal(60).chain(dip(false).take(10)));
    let (code, state) = before.snapshot().swap_remove(0);
    // What was added since stands behind it.
    let (_, rest): (OldState, _) = postcard::take_from_bytes(&state).unwrap();
    let old = &state[..state.len() - rest.len()];
    let mut after = engine();
    after.restore(&code, old, 70 * SECOND).unwrap();
    let (events, _) = play(&mut after, 70, normal(10));
    assert_eq!(deviations(&events), [(DeviationKind::Limit, Phase::Closed)]);
}

/// The state of a control point as version 0.1 saved it.
#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only its length in bytes is used")]
struct OldState {
    judge: protocol::limit::ControlJudge,
    alarms: [Option<Uuid>; 5],
    is_paused: bool,
    is_held: bool,
}

#[test]
fn a_deviation_survives_a_restart_and_is_not_opened_twice() {
    let mut before = engine();
    let (events, _) = play(&mut before, 0, normal(60).chain(dip(false).take(20)));
    assert_eq!(deviations(&events), [(DeviationKind::Limit, Phase::Opened)]);
    let mut after = engine();
    for (code, state) in before.snapshot() {
        after.restore(&code, &state, Micros::MAX).unwrap();
    }
    let (events, _) = play(&mut after, 82, dip(false).take(10).chain(normal(10)));
    assert_eq!(deviations(&events), [(DeviationKind::Limit, Phase::Closed)]);
}

#[test]
fn a_diverted_alarm_that_was_open_at_a_restart_is_cleared_under_its_identity() {
    let mut before = engine();
    play(&mut before, 0, normal(60).chain(dip(true).take(20)));
    let mut after = Engine::new("akron-1", &[point()], || Uuid::from_u128(8));
    for (code, state) in before.snapshot() {
        after.restore(&code, &state, Micros::MAX).unwrap();
    }
    let (events, _) = play(&mut after, 81, normal(5));
    let cleared = events.iter().find_map(|event| match event {
        Event::Alarm(alarm) if alarm.code == "ccp.diverted" => Some((alarm.id, alarm.active)),
        _ => None,
    });
    assert_eq!(cleared, Some((Uuid::from_u128(7), false)));
}

#[test]
fn a_state_that_cannot_be_read_leaves_the_judge_as_it_is() {
    let mut engine = engine();
    assert!(engine.restore("CCP-1", b"garbage", 0).is_err());
    assert!(engine.restore("CCP-9", b"", 0).is_err());
    let (events, _) = play(&mut engine, 0, normal(10));
    assert_eq!(deviations(&events), []);
}

#[test]
fn a_stuck_sensor_stays_stuck_through_a_restart_and_a_quiet_reference_until_it_moves() {
    let mut before = engine();
    let (events, _) = play(&mut before, 0, frozen(60, true));
    assert_eq!(deviations(&events), [(DeviationKind::SensorStuck, Phase::Opened)]);
    let mut after = engine();
    for (code, state) in before.snapshot() {
        after.restore(&code, &state, 60 * SECOND).unwrap();
    }
    let (events, stored) = play(&mut after, 61, frozen(60, false));
    assert_eq!(deviations(&events), []);
    assert_eq!(alarms(&events, "sensor.stuck"), Vec::<bool>::new());
    assert!(stored.iter().all(|reading| !reading.quality.is_good()));
    let (events, _) = play(&mut after, 121, normal(5));
    assert_eq!(deviations(&events), [(DeviationKind::SensorStuck, Phase::Closed)]);
    assert_eq!(alarms(&events, "sensor.stuck"), [false]);
}

#[test]
fn a_dip_and_a_silence_are_found_at_once_after_the_clock_was_set_back() {
    let mut engine = engine();
    play(&mut engine, 3_600, normal(60));
    engine.set_back(3_600 * SECOND);
    let (events, _) = play(&mut engine, 60, dip(false).take(10).chain(normal(10)));
    assert_eq!(
        deviations(&events),
        [
            (DeviationKind::Limit, Phase::Opened),
            (DeviationKind::Limit, Phase::Closed)
        ]
    );
    engine.set_back(50 * SECOND);
    let events: Vec<Event> = (30..40).flat_map(|second| engine.tick(second * SECOND)).collect();
    assert_eq!(
        deviations(&events),
        [(DeviationKind::MonitoringGap, Phase::Opened)]
    );
}

#[test]
fn a_state_saved_before_the_clock_was_set_back_is_judged_from_now_on() {
    let mut before = engine();
    play(&mut before, 3_600, normal(60));
    let mut after = engine();
    for (code, state) in before.snapshot() {
        after.restore(&code, &state, 100 * SECOND).unwrap();
    }
    let (events, _) = play(&mut after, 100, dip(false).take(10));
    assert_eq!(deviations(&events), [(DeviationKind::Limit, Phase::Opened)]);
}
