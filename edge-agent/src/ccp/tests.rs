//! Do the fault scenarios of the plant end as food safety wants? Scripted readings, no clock.

use protocol::{
    Quality,
    limit::{Check, CheckVerdict, CriticalLimit, Deviation, DeviationKind, Phase},
    reading::Alias,
};

use super::{
    config::{Gate, React, Stuck},
    *,
};

const TT101: Alias = Alias(0);
const TT102: Alias = Alias(1);
const ZS106: Alias = Alias(2);
const SECOND: Micros = 1_000_000;

fn point() -> Point {
    Point {
        limit: CriticalLimit {
            ccp: "CCP-1".to_owned(),
            line: Some("L1".to_owned()),
            tag: "TT-101".to_owned(),
            unit: "degC".to_owned(),
            low: Some(72.0),
            high: None,
            clear_margin: 0.2,
            delay_us: SECOND,
            gap_us_max: 5 * SECOND,
            check_every_us: 60 * SECOND,
            period_us: SECOND,
            version: 1,
        },
        kind: ControlKind::Limit,
        tag: TT101,
        not_during: None,
        react: None,
        gate: Some(Gate {
            tag: ZS106,
            value: 1.0,
        }),
        stuck: Some(Stuck {
            reference: TT102,
            window: std::time::Duration::from_secs(30),
            floor: 0.005,
        }),
    }
}

fn engine() -> Engine {
    Engine::new("akron-1", &[point()], || Uuid::from_u128(7))
}

/// A second of the plant: the holding tube, its recorder and the diversion valve.
#[derive(Clone, Copy)]
struct Plant {
    tt101: Option<f64>,
    tt102: f64,
    forward: bool,
}

/// Runs seconds of the plant; returns the events and every stored reading of TT-101.
fn play(
    engine: &mut Engine,
    from: Micros,
    script: impl IntoIterator<Item = Plant>,
) -> (Vec<Event>, Vec<Reading>) {
    let (mut events, mut stored) = (Vec::new(), Vec::new());
    for (second, plant) in (from..).zip(script) {
        let at = second * SECOND;
        let good = |tag, value| Reading::new(tag, at, value, Quality::GOOD);
        let tt101 = plant
            .tt101
            .map_or(Reading::bad(TT101, at, Quality::BAD_TIMEOUT), |value| {
                good(TT101, value)
            });
        // The valve comes last in the poll: it must still count before the value.
        let mut readings = [
            tt101,
            good(TT102, plant.tt102),
            good(ZS106, f64::from(u8::from(plant.forward))),
        ];
        events.extend(engine.observe(&mut readings, at));
        stored.push(readings[0]);
        for quarter in 1..4 {
            events.extend(engine.tick(at + quarter * SECOND / 4));
        }
    }
    (events, stored)
}

fn noise(second: i64) -> f64 {
    0.04 * (second % 5) as f64
}

fn normal(seconds: i64) -> impl Iterator<Item = Plant> {
    (0..seconds).map(|second| Plant {
        tt101: Some(73.2 + noise(second)),
        tt102: 73.1 + noise(second + 2),
        forward: true,
    })
}

fn deviations(events: &[Event]) -> Vec<(DeviationKind, Phase)> {
    let phases = events.iter().filter_map(|event| match event {
        Event::Deviation(deviation) => Some((deviation.kind, deviation.phase)),
        _ => None,
    });
    phases.filter(|(_, phase)| *phase != Phase::Extended).collect()
}

fn alarms(events: &[Event], code: &str) -> Vec<bool> {
    let raised = events.iter().filter_map(|event| match event {
        Event::Alarm(alarm) if alarm.code == code => Some(alarm.active),
        _ => None,
    });
    raised.collect()
}

/// 75 s at 71.1 °C; the valve diverts after one second, or does not.
fn dip(valve_works: bool) -> impl Iterator<Item = Plant> {
    (0..75).map(move |second| Plant {
        tt101: Some(71.1 + noise(second)),
        tt102: 71.0 + noise(second + 2),
        forward: !valve_works || second < 1,
    })
}

#[test]
fn f1_a_dip_with_the_product_diverted_is_recorded_and_alarmed_but_no_deviation() {
    let mut engine = engine();
    let script = normal(60).chain(dip(true)).chain(normal(60));
    let (events, _) = play(&mut engine, 0, script);
    assert_eq!(deviations(&events), []);
    assert_eq!(alarms(&events, "ccp.diverted"), [true, false]);
    let verdicts: Vec<CheckVerdict> = events
        .iter()
        .filter_map(|event| match event {
            Event::CcpCheck(check) => Some(check.verdict),
            _ => None,
        })
        .collect();
    assert!(verdicts.contains(&CheckVerdict::Diverted), "{verdicts:?}");
}

#[test]
fn f2_a_dip_with_the_valve_stuck_forward_is_a_deviation_that_closes_again() {
    let mut engine = engine();
    let script = normal(60).chain(dip(false)).chain(normal(60));
    let (events, _) = play(&mut engine, 0, script);
    assert_eq!(
        deviations(&events),
        [
            (DeviationKind::Limit, Phase::Opened),
            (DeviationKind::Limit, Phase::Closed)
        ]
    );
    let opened = events.iter().find_map(|event| match event {
        Event::Deviation(deviation) => Some(deviation.clone()),
        _ => None,
    });
    let opened = opened.unwrap();
    assert_eq!(opened.last_good_us, 59 * SECOND);
    assert!(
        opened.detected_us <= 63 * SECOND,
        "found at {}",
        opened.detected_us
    );
}

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
fn an_unknown_valve_position_counts_as_product_flowing() {
    let mut engine = engine();
    let mut events = Vec::new();
    for second in 0..20 {
        let at = second * SECOND;
        let mut readings = [
            Reading::new(TT101, at, if second < 5 { 73.0 } else { 71.0 }, Quality::GOOD),
            Reading::bad(ZS106, at, Quality::BAD_TIMEOUT),
        ];
        events.extend(engine.observe(&mut readings, at));
    }
    assert_eq!(deviations(&events), [(DeviationKind::Limit, Phase::Opened)]);
}

fn frozen(seconds: i64, reference_moves: bool) -> impl Iterator<Item = Plant> {
    (0..seconds).map(move |second| Plant {
        tt101: Some(73.2),
        tt102: 73.1 + if reference_moves { noise(second) } else { 0.0 },
        forward: true,
    })
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

#[test]
fn a_value_out_of_limit_is_not_shown_as_in_control_while_the_delay_runs() {
    let mut engine = engine();
    play(&mut engine, 0, normal(10));
    assert_eq!(engine.status()[0].state, "in_control");
    play(&mut engine, 10, dip(false).take(1));
    assert_eq!(engine.status()[0].state, "unknown");
}

fn checks(events: &[Event]) -> Vec<Check> {
    let checks = events.iter().filter_map(|event| match event {
        Event::CcpCheck(check) => Some(check.clone()),
        _ => None,
    });
    checks.collect()
}

fn all_deviations(events: &[Event]) -> Vec<Deviation> {
    let deviations = events.iter().filter_map(|event| match event {
        Event::Deviation(deviation) => Some(deviation.clone()),
        _ => None,
    });
    deviations.collect()
}

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

#[test]
fn nothing_is_judged_while_the_process_is_cleaned_and_the_record_says_so() {
    const STATE: Alias = Alias(3);
    let cleaned = Point {
        not_during: Some(Gate {
            tag: STATE,
            value: 3.0,
        }),
        ..point()
    };
    let mut engine = Engine::new("akron-1", &[cleaned], || Uuid::from_u128(7));
    let mut events = Vec::new();
    for second in 0..200 {
        let at = second * SECOND;
        let is_cip = (50..150).contains(&second);
        let mut readings = [
            Reading::new(
                TT101,
                at,
                if is_cip { 40.0 } else { 73.2 + noise(second) },
                Quality::GOOD,
            ),
            Reading::new(STATE, at, if is_cip { 3.0 } else { 1.0 }, Quality::GOOD),
        ];
        events.extend(engine.observe(&mut readings, at));
        events.extend(engine.tick(at + SECOND / 2));
    }
    assert_eq!(deviations(&events), []);
    assert_eq!(alarms(&events, "ccp.not_judged"), [true, false]);
    let windows = checks(&events);
    assert!(windows.iter().all(|check| check.verdict == CheckVerdict::Met));
    assert!(
        windows
            .iter()
            .any(|check| check.to_us <= 50 * SECOND && check.to_us > 49 * SECOND),
        "{windows:?}"
    );
    assert!(
        windows
            .iter()
            .all(|check| check.to_us <= 50 * SECOND || check.from_us >= 150 * SECOND)
    );
}

#[test]
fn f11_late_readings_are_judged_when_they_come_and_no_earlier_record_is_touched() {
    let mut engine = engine();
    play(&mut engine, 10_000, normal(60));
    let before = serde_json::to_value(engine.status()).unwrap();
    let late: Vec<Reading> = (0..600)
        .map(|second| {
            let value = if (200..300).contains(&second) { 71.0 } else { 73.2 };
            Reading::new(TT101, second * SECOND, value, Quality::GOOD)
        })
        .collect();
    let events = engine.observe_late(&late, 10_060 * SECOND);
    let found = all_deviations(&events);
    assert_eq!(
        found
            .iter()
            .map(|d| (d.phase, d.last_good_us / SECOND, d.until_us / SECOND))
            .collect::<Vec<_>>(),
        [(Phase::Opened, 199, 202), (Phase::Closed, 199, 300)]
    );
    assert!(
        found
            .iter()
            .all(|deviation| deviation.detected_us == 10_060 * SECOND)
    );
    assert_eq!(serde_json::to_value(engine.status()).unwrap(), before);
    // The same replay again is the same deviation.
    assert_eq!(
        all_deviations(&engine.observe_late(&late, 10_060 * SECOND))[0].id,
        found[0].id
    );
}

#[test]
fn f11_late_readings_that_come_one_by_one_are_one_pass_also_across_a_restart() {
    let late = |second: i64| {
        let value = if (20..30).contains(&second) { 71.0 } else { 73.2 };
        [Reading::new(TT101, second * SECOND, value, Quality::GOOD)]
    };
    for ends in [60, 25] {
        let mut before = engine();
        let mut events: Vec<Event> = (0..22)
            .flat_map(|second| before.observe_late(&late(second), 10_000 * SECOND + second))
            .collect();
        let mut after = engine();
        for (code, state) in before.snapshot() {
            after.restore(&code, &state, 10_000 * SECOND).unwrap();
        }
        events.extend(
            (22..ends).flat_map(|second| after.observe_late(&late(second), 10_000 * SECOND + second)),
        );
        // Nothing more comes: what is open ends with the last that came.
        events.extend(after.tick(10_020 * SECOND));
        let windows: Vec<(Phase, i64, i64)> = all_deviations(&events)
            .iter()
            .filter(|deviation| deviation.kind == DeviationKind::Limit)
            .map(|d| (d.phase, d.last_good_us / SECOND, d.until_us / SECOND))
            .collect();
        let until = if ends == 60 { 30 } else { 24 };
        assert_eq!(windows, [(Phase::Opened, 19, 22), (Phase::Closed, 19, until)]);
    }
}

#[test]
fn an_output_follows_the_deviation_and_a_held_one_waits_for_a_person() {
    for hold_until_reset in [false, true] {
        let reacting = Point {
            react: Some(React {
                output: "stop".to_owned(),
                on_deviation: 1.0,
                on_clear: 0.0,
                hold_until_reset,
            }),
            ..point()
        };
        let mut engine = Engine::new("akron-1", std::slice::from_ref(&reacting), || Uuid::from_u128(7));
        let wanted = |engine: &Engine| engine.wanted()["stop"];
        play(&mut engine, 0, normal(30));
        assert!(wanted(&engine) < 0.5);
        play(&mut engine, 30, dip(false).take(10));
        assert!(wanted(&engine) > 0.5);
        let mut restarted = Engine::new("akron-1", &[reacting], || Uuid::from_u128(7));
        restarted
            .restore("CCP-1", &engine.snapshot()[0].1, 40 * SECOND)
            .unwrap();
        assert!(wanted(&restarted) > 0.5);
        play(&mut engine, 40, normal(10));
        assert_eq!(wanted(&engine) > 0.5, hold_until_reset);
        engine.release("CCP-1");
        assert!(wanted(&engine) < 0.5);
    }
}
