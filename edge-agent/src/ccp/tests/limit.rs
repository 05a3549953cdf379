//! Under which version of a limit is a reading judged when the limit changes?

use super::*;

fn version(version: u32, low: f64) -> CriticalLimit {
    CriticalLimit {
        low: Some(low),
        version,
        ..point().limit
    }
}

#[test]
fn t27_a_limit_change_mid_batch_leaves_every_record_under_the_version_its_readings_came_under() {
    let mut engine = engine();
    let (mut events, _) = play(&mut engine, 0, normal(30));
    events.extend(engine.set_limits(vec![version(2, 73.5)], 30 * SECOND).unwrap());
    let (after, _) = play(&mut engine, 30, normal(40));
    events.extend(after);
    let seen: Vec<(u32, u32)> = checks(&events)
        .iter()
        .map(|check| (check.limit_version, check.good))
        .collect();
    assert_eq!(seen[0], (1, 30));
    assert!(seen[1..].iter().all(|(version, _)| *version == 2), "{seen:?}");
    let found = all_deviations(&events);
    assert!(
        !found.is_empty(),
        "what met the old limit does not meet the new one"
    );
    assert!(
        found
            .iter()
            .all(|deviation| (deviation.limit_version, deviation.limit_low) == (2, Some(73.5)))
    );
}

#[test]
fn t27_a_deviation_that_is_open_at_the_change_stays_under_its_version() {
    let mut engine = engine();
    play(&mut engine, 0, normal(30).chain(dip(false).take(10)));
    engine.set_limits(vec![version(2, 71.0)], 40 * SECOND).unwrap();
    let (events, _) = play(&mut engine, 40, normal(10));
    let closed = all_deviations(&events);
    assert_eq!(
        closed
            .iter()
            .map(|deviation| (deviation.phase, deviation.limit_version))
            .collect::<Vec<_>>(),
        [(Phase::Closed, 1)]
    );
}

#[test]
fn t27_limits_come_in_force_all_or_none_and_never_go_back() {
    let mut engine = engine();
    let unknown = CriticalLimit {
        ccp: "CCP-9".to_owned(),
        ..version(2, 73.0)
    };
    let fault = engine.set_limits(vec![version(2, 73.0), unknown], 0).unwrap_err();
    assert!(fault.contains("CCP-9"), "{fault}");
    assert_eq!(engine.limits()[0].version, 1);
    let other_unit = CriticalLimit {
        unit: "degF".to_owned(),
        ..version(2, 160.0)
    };
    assert!(
        engine
            .set_limits(vec![other_unit], 0)
            .unwrap_err()
            .contains("degF")
    );
    engine.set_limits(vec![version(3, 73.0)], 0).unwrap();
    assert!(
        engine
            .set_limits(vec![version(2, 72.0)], 0)
            .unwrap_err()
            .contains("not newer")
    );
    assert!(
        engine
            .set_limits(vec![version(3, 72.0)], 0)
            .unwrap_err()
            .contains("not newer")
    );
    assert_eq!(
        engine.set_limits(vec![version(3, 73.0)], 0),
        Ok(Vec::new()),
        "the same again changes nothing"
    );
    assert_eq!(engine.limits()[0].low, Some(73.0));
}

#[test]
fn t27_a_pushed_limit_outlives_a_restart_and_a_configured_newer_one_ends_the_window() {
    let mut before = engine();
    play(&mut before, 0, normal(10));
    before.set_limits(vec![version(5, 72.5)], 10 * SECOND).unwrap();
    play(&mut before, 10, normal(10));
    let saved = before.snapshot();
    let mut after = engine();
    assert_eq!(after.restore("CCP-1", &saved[0].1, 21 * SECOND), Ok(Vec::new()));
    assert_eq!(after.limits()[0].version, 5);
    let newer = Point {
        limit: version(6, 72.0),
        ..point()
    };
    let mut after = Engine::new("akron-1", &[newer], || Uuid::from_u128(7));
    let events = after.restore("CCP-1", &saved[0].1, 21 * SECOND).unwrap();
    assert_eq!(
        checks(&events)
            .iter()
            .map(|check| check.limit_version)
            .collect::<Vec<_>>(),
        [5]
    );
    assert_eq!(after.limits()[0].version, 6);
}
