//! What does the judge make of a signal that is lost, frozen, or of another time?

use super::*;

#[test]
fn f4_a_frozen_sensor_beside_a_moving_one_is_alarmed_within_a_minute_and_counts_as_not_monitored() {
    let mut engine = engine();
    let frozen = (0..60).map(|second| Plant {
        tt101: Some(73.2),
        tt102: 73.1 + noise(second),
        forward: true,
    });
    let script = normal(40).chain(frozen).chain(normal(60));
    let (events, stored) = play(&mut engine, 0, script);
    assert_eq!(alarms(&events, "sensor.stuck"), [true, false]);
    assert_eq!(
        deviations(&events),
        [
            (DeviationKind::SensorStuck, Phase::Opened),
            (DeviationKind::SensorStuck, Phase::Closed)
        ]
    );
    let doubtful: Vec<&Reading> = stored
        .iter()
        .filter(|reading| reading.quality == Quality::UNCERTAIN_SENSOR)
        .collect();
    assert!(!doubtful.is_empty());
    assert!(
        doubtful.iter().all(|reading| reading.value() == Some(73.2)),
        "the value stays readable"
    );
}

#[test]
fn f4_a_frozen_sensor_is_held_from_its_last_movement_on_also_when_the_agent_restarted_meanwhile() {
    for restart in [None, Some(10), Some(25)] {
        let mut engine = engine();
        let script: Vec<Plant> = normal(40).chain(frozen(60, true)).chain(normal(20)).collect();
        let (mut events, mut second) = (Vec::new(), 0);
        for part in script.chunks(restart.map_or(120, |after| 40 + after)) {
            events.extend(play(&mut engine, second, part.iter().copied()).0);
            second += part.len() as i64;
            let mut after = self::engine();
            for (code, state) in engine.snapshot() {
                after.restore(&code, &state, second * SECOND).unwrap();
            }
            engine = after;
        }
        let windows: Vec<(Micros, Micros)> = all_deviations(&events)
            .iter()
            .filter(|deviation| deviation.phase == Phase::Closed)
            .map(|deviation| (deviation.last_good_us / SECOND, deviation.until_us / SECOND))
            .collect();
        // The value of second 39 is the last that moved; 40 is the first that repeats, and 101 the first that moves.
        assert_eq!(windows, [(39, 101)], "{restart:?}");
    }
}

#[test]
fn a_sensor_that_is_stuck_while_product_is_diverted_holds_only_what_flowed() {
    let mut engine = engine();
    let diverted = frozen(20, true).map(|plant| Plant {
        forward: false,
        ..plant
    });
    let script = normal(40)
        .chain(diverted)
        .chain(frozen(40, true))
        .chain(normal(10));
    let (events, _) = play(&mut engine, 0, script);
    let opened = all_deviations(&events);
    assert_eq!(
        (opened[0].kind, opened[0].last_good_us / SECOND),
        (DeviationKind::SensorStuck, 59)
    );
}

#[test]
fn a_reading_that_the_clock_overtook_on_its_way_is_evidence_of_its_own_time_only() {
    let mut engine = engine();
    let mut events = play(&mut engine, 0, normal(10)).0;
    // Made at 10 s, here at 12 s: the ticks have come to 11.5 s.
    for quarter in 1..=8 {
        events.extend(engine.tick(10 * SECOND + quarter * SECOND / 4));
    }
    let mut readings = [Reading::new(TT101, 10 * SECOND, 73.3, Quality::GOOD)];
    events.extend(engine.observe(&mut readings, 12 * SECOND));
    for quarter in 1..=40 {
        events.extend(engine.tick(12 * SECOND + quarter * SECOND / 4));
    }
    let found = all_deviations(&events);
    assert_eq!(found[0].kind, DeviationKind::MonitoringGap);
    assert!(found.iter().all(|deviation| deviation.id == found[0].id));
    assert_eq!(found.last().unwrap().last_good_us, 10 * SECOND);
}

#[test]
fn a_gap_and_a_freeze_that_follows_it_are_two_windows_that_leave_nothing_out() {
    let mut engine = engine();
    let dead = (0..10).map(|_| Plant {
        tt101: None,
        tt102: 73.0,
        forward: true,
    });
    let script = normal(40).chain(dead).chain(frozen(50, true)).chain(normal(10));
    let (events, _) = play(&mut engine, 0, script);
    let closed: Vec<Deviation> = all_deviations(&events)
        .into_iter()
        .filter(|deviation| deviation.phase == Phase::Closed)
        .collect();
    let windows: Vec<(DeviationKind, Micros, Micros)> = closed
        .iter()
        .map(|deviation| {
            (
                deviation.kind,
                deviation.last_good_us / SECOND,
                deviation.until_us / SECOND,
            )
        })
        .collect();
    assert_eq!(
        windows,
        [
            (DeviationKind::MonitoringGap, 39, 50),
            (DeviationKind::SensorStuck, 50, 101)
        ]
    );
    assert_ne!(closed[0].id, closed[1].id);
}

#[test]
fn a_dead_plc_is_a_monitoring_gap_after_the_allowed_time() {
    let mut engine = engine();
    let dead = (0..20).map(|second| Plant {
        tt101: None,
        tt102: 73.0 + noise(second),
        forward: true,
    });
    let (events, _) = play(&mut engine, 0, normal(30).chain(dead).chain(normal(10)));
    assert_eq!(
        deviations(&events),
        [
            (DeviationKind::MonitoringGap, Phase::Opened),
            (DeviationKind::MonitoringGap, Phase::Closed)
        ]
    );
}

#[test]
fn a_source_whose_clock_is_wrong_is_judged_by_the_receive_time() {
    let mut engine = engine();
    let mut events = Vec::new();
    for second in 0..60 {
        let at = (1_000 + second) * SECOND;
        let wrong = at - 540 * SECOND;
        let mut readings = [Reading::new(TT101, wrong, 73.0 + noise(second), Quality::GOOD)];
        events.extend(engine.observe(&mut readings, at));
        events.extend(engine.tick(at + SECOND / 2));
    }
    assert_eq!(deviations(&events), []);
}

#[test]
fn t25_a_lost_signal_is_its_own_alarm_and_a_gap_on_record_within_two_periods() {
    let two_periods = Point {
        limit: CriticalLimit {
            gap_us_max: SECOND * 3 / 2,
            ..point().limit
        },
        ..point()
    };
    for comes_as_bad in [true, false] {
        let mut engine = Engine::new("akron-1", std::slice::from_ref(&two_periods), || {
            Uuid::from_u128(7)
        });
        play(&mut engine, 0, normal(10));
        let mut events = Vec::new();
        // The last good reading was at 9 s; from now on the clock ticks and nothing good comes.
        for quarter in 4..=8 {
            let at = 9 * SECOND + quarter * SECOND / 4;
            if comes_as_bad && quarter % 4 == 0 {
                let mut readings = [Reading::bad(TT101, at, Quality::BAD_TIMEOUT)];
                events.extend(engine.observe(&mut readings, at));
            }
            events.extend(engine.tick(at));
        }
        assert_eq!(alarms(&events, "ccp.signal_lost"), [true], "{comes_as_bad}");
        let lag = SECOND / 2;
        events.extend(engine.tick(11 * SECOND + lag));
        let opened = all_deviations(&events);
        assert!(
            opened
                .iter()
                .any(|deviation| deviation.kind == DeviationKind::MonitoringGap
                    && deviation.detected_us <= 11 * SECOND
                    && deviation.last_good_us == 9 * SECOND),
            "{opened:?}"
        );
        let (events, _) = play(&mut engine, 12, normal(3));
        assert_eq!(alarms(&events, "ccp.signal_lost"), [false]);
    }
}
