//! When is a value out of its limit a deviation, and what does product flow, cleaning and lateness do to it?

use super::*;

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

#[test]
fn a_value_out_of_limit_is_not_shown_as_in_control_while_the_delay_runs() {
    let mut engine = engine();
    play(&mut engine, 0, normal(10));
    assert_eq!(engine.status()[0].state, "in_control");
    play(&mut engine, 10, dip(false).take(1));
    assert_eq!(engine.status()[0].state, "unknown");
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
