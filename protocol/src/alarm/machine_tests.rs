//! What the alarm state machine must do: the life of an alarm as ISA-18.2 draws it, cuts in every state, and people
//! who act in two places at once.

use proptest::prelude::*;

use super::*;

const SECOND: Micros = 1_000_000;

fn rule() -> AlarmRule {
    AlarmRule {
        priority: 2,
        is_critical: false,
        is_latching: false,
        on_delay_us: 5 * SECOND,
        off_delay_us: 3 * SECOND,
        realarm_us: 0,
        shelve_us_max: 3_600 * SECOND,
        band: Some(AlarmBand {
            low: None,
            high: Some(5.0),
            deadband: 0.5,
        }),
    }
}

fn told() -> AlarmRule {
    AlarmRule {
        on_delay_us: 0,
        off_delay_us: 0,
        band: None,
        ..rule()
    }
}

fn machine() -> AlarmMachine {
    AlarmMachine::new(AlarmName {
        edge: "akron-1".into(),
        code: "tank.warm".into(),
        subject: "TT-403".into(),
        line: Some("L4".into()),
    })
}

fn value(second: i64, value: f64) -> AlarmInput {
    AlarmInput::Value {
        at_us: second * SECOND,
        value,
    }
}

fn condition(second: i64, is_true: bool) -> AlarmInput {
    AlarmInput::Condition {
        at_us: second * SECOND,
        is_true,
        occurrence: None,
    }
}

fn tick(second: i64) -> AlarmInput {
    AlarmInput::Tick {
        at_us: second * SECOND,
    }
}

fn deed(id: u128, acted: i64, verb: AlarmVerb) -> AlarmAction {
    AlarmAction {
        id: Uuid::from_u128(id),
        code: "tank.warm".into(),
        subject: "TT-403".into(),
        at_us: acted * SECOND,
        by: "avery".into(),
        second: None,
        reason: "defrost".into(),
        verb,
    }
}

fn act(second: i64, action: AlarmAction) -> AlarmInput {
    AlarmInput::Action {
        at_us: second * SECOND,
        action: Box::new(action),
    }
}

fn shelve(until: i64) -> AlarmVerb {
    AlarmVerb::Shelve {
        until_us: until * SECOND,
    }
}

fn run(machine: &mut AlarmMachine, rule: &AlarmRule, inputs: Vec<AlarmInput>) -> Vec<(i64, AlarmState)> {
    let changes = inputs.into_iter().flat_map(|input| machine.step(rule, input));
    changes.map(|change| (change.at_us / SECOND, change.to)).collect()
}

#[test]
fn t24_delays_and_deadband_keep_a_value_that_dances_at_the_limit_quiet() {
    let mut machine = machine();
    let dance = (0..60).map(|second| value(second, if second % 4 == 0 { 4.9 } else { 5.1 }));
    let seen = run(&mut machine, &rule(), dance.collect());
    // From second 1 on it is never half a degree inside: one alarm, five seconds later.
    assert_eq!(seen, [(6, AlarmState::Unacknowledged)]);
    let mut brief = super::tests::machine();
    let seen = run(
        &mut brief,
        &rule(),
        vec![
            value(0, 6.0),
            value(4, 4.0),
            value(8, 6.0),
            value(12, 4.0),
            tick(60),
        ],
    );
    assert_eq!(seen, []);
}

#[test]
fn t24_an_alarm_is_acknowledged_and_returns_to_normal() {
    let mut machine = machine();
    let seen = run(
        &mut machine,
        &rule(),
        vec![
            value(0, 6.0),
            tick(20),
            act(21, deed(1, 21, AlarmVerb::Acknowledge)),
            value(30, 4.0),
            tick(60),
        ],
    );
    assert_eq!(
        seen,
        [
            (5, AlarmState::Unacknowledged),
            (21, AlarmState::Acknowledged),
            (33, AlarmState::Normal)
        ]
    );
}

#[test]
fn t24_an_alarm_that_returned_waits_for_who_sees_it_and_a_latching_one_for_a_reset() {
    let latching = AlarmRule {
        is_latching: true,
        ..told()
    };
    let mut machine = machine();
    let seen = run(
        &mut machine,
        &latching,
        vec![
            condition(0, true),
            act(1, deed(1, 1, AlarmVerb::Reset)),
            condition(2, false),
            act(3, deed(2, 3, AlarmVerb::Acknowledge)),
            act(4, deed(3, 4, AlarmVerb::Reset)),
        ],
    );
    assert_eq!(
        seen,
        [
            (0, AlarmState::Unacknowledged),
            (1, AlarmState::Unacknowledged),
            (2, AlarmState::ReturnedUnacknowledged),
            (3, AlarmState::Latched),
            (4, AlarmState::Normal)
        ]
    );
}

#[test]
fn t24_shelving_ends_by_itself_and_shows_what_became_of_the_alarm() {
    let mut machine = machine();
    let seen = run(
        &mut machine,
        &told(),
        vec![
            act(0, deed(1, 0, shelve(100))),
            condition(10, true),
            tick(99),
            tick(250),
        ],
    );
    assert_eq!(
        seen,
        [
            (0, AlarmState::Shelved),
            (10, AlarmState::Shelved),
            (100, AlarmState::Unacknowledged)
        ]
    );
}

#[test]
fn t24_shelving_longer_than_allowed_is_refused_on_record() {
    let mut machine = machine();
    let changes = machine.step(&told(), act(0, deed(1, 0, shelve(7_200))));
    assert!(matches!(&changes[..], [change] if matches!(change.cause, AlarmCause::Refused { .. })));
    assert_eq!(machine.state(), AlarmState::Normal);
}

#[test]
fn t24_a_critical_alarm_is_never_suppressed_and_hidden_only_by_two_people() {
    let critical = AlarmRule {
        is_critical: true,
        priority: 1,
        ..told()
    };
    let mut machine = machine();
    machine.step(&critical, condition(0, true));
    let suppress = AlarmInput::Suppress {
        at_us: SECOND,
        is_suppressed: true,
    };
    assert_eq!(machine.step(&critical, suppress), []);
    for (id, second) in [
        (1, None),
        (2, Some("avery".to_owned())),
        (3, Some(" ".to_owned())),
    ] {
        for (offset, verb) in [(0, shelve(60)), (10, AlarmVerb::TakeOutOfService)] {
            let action = AlarmAction {
                second: second.clone(),
                ..deed(id + offset, 2, verb)
            };
            let changes = machine.step(&critical, act(2, action));
            assert!(matches!(changes[0].cause, AlarmCause::Refused { .. }));
            assert_eq!(
                (changes[0].from, changes[0].to),
                (machine.state(), AlarmState::Unacknowledged)
            );
        }
    }
    let action = AlarmAction {
        second: Some("blake".to_owned()),
        ..deed(9, 3, shelve(60))
    };
    let changes = machine.step(&critical, act(3, action));
    assert_eq!((changes[0].to, changes[0].priority), (AlarmState::Shelved, 1));
}

#[test]
fn t24_what_came_and_went_while_the_process_suppressed_it_is_owed_nothing() {
    let mut machine = machine();
    let suppress = |second: i64, is_suppressed| AlarmInput::Suppress {
        at_us: second * SECOND,
        is_suppressed,
    };
    let seen = run(
        &mut machine,
        &told(),
        vec![
            suppress(0, true),
            condition(1, true),
            condition(2, false),
            suppress(3, false),
            suppress(4, true),
            condition(5, true),
            suppress(6, false),
        ],
    );
    assert_eq!(seen.last(), Some(&(6, AlarmState::Unacknowledged)));
    assert!(seen.contains(&(3, AlarmState::Normal)));
}

#[test]
fn an_acknowledged_alarm_that_stays_asks_again() {
    let asking = AlarmRule {
        realarm_us: 60 * SECOND,
        ..told()
    };
    let mut machine = machine();
    let seen = run(
        &mut machine,
        &asking,
        vec![
            condition(0, true),
            act(10, deed(1, 10, AlarmVerb::Acknowledge)),
            tick(200),
        ],
    );
    assert_eq!(seen.last(), Some(&(70, AlarmState::Unacknowledged)));
}

#[test]
fn t26_an_acknowledgement_of_an_earlier_occurrence_does_not_silence_a_later_one() {
    let mut machine = machine();
    run(
        &mut machine,
        &told(),
        vec![condition(0, true), condition(10, false), condition(30, true)],
    );
    let late = act(40, deed(1, 5, AlarmVerb::Acknowledge));
    let changes = machine.step(&told(), late.clone());
    assert!(matches!(changes[0].cause, AlarmCause::Refused { .. }));
    assert_eq!(machine.state(), AlarmState::Unacknowledged);
    assert_eq!(machine.step(&told(), late), [], "an action is done once");
}

#[test]
fn t26_of_two_who_decided_otherwise_the_later_deed_stands_and_both_are_on_record() {
    for order in [[0, 1], [1, 0]] {
        let deeds = [deed(1, 10, shelve(500)), deed(2, 20, AlarmVerb::Unshelve)];
        let mut machine = machine();
        let records: Vec<AlarmChange> = order
            .iter()
            .flat_map(|index| machine.step(&told(), act(30, deeds[*index].clone())))
            .collect();
        assert_eq!(records.len(), 2);
        assert_eq!(machine.state(), AlarmState::Normal);
    }
}

#[test]
fn a_clock_that_is_set_back_keeps_delays_and_shelvings_as_long_as_they_were() {
    let mut machine = machine();
    run(
        &mut machine,
        &rule(),
        vec![value(1_000, 6.0), act(1_001, deed(1, 1_001, shelve(1_100)))],
    );
    machine.set_back(900 * SECOND);
    let seen = run(
        &mut machine,
        &rule(),
        vec![tick(104), tick(106), tick(199), tick(201)],
    );
    assert_eq!(
        seen,
        [(105, AlarmState::Shelved), (200, AlarmState::Unacknowledged)]
    );
}

fn any_verb() -> impl Strategy<Value = AlarmVerb> {
    prop_oneof![
        Just(AlarmVerb::Acknowledge),
        (0..900i64).prop_map(shelve),
        Just(AlarmVerb::Unshelve),
        Just(AlarmVerb::Reset),
        Just(AlarmVerb::TakeOutOfService),
        Just(AlarmVerb::ReturnToService),
    ]
}

fn any_action() -> impl Strategy<Value = AlarmAction> {
    (0..12u128, 0..400i64, any_verb(), any::<bool>()).prop_map(|(id, acted, verb, has_second)| AlarmAction {
        second: has_second.then(|| "blake".to_owned()),
        ..deed(id, acted, verb)
    })
}

fn any_input() -> impl Strategy<Value = AlarmInput> {
    let second = 0..400i64;
    prop_oneof![
        (second.clone(), 0.0..10.0f64).prop_map(|(at, v)| value(at, v)),
        (second.clone(), any::<bool>()).prop_map(|(at, is_true)| condition(at, is_true)),
        second.clone().prop_map(tick),
        (second.clone(), any::<bool>()).prop_map(|(at, is_suppressed)| AlarmInput::Suppress {
            at_us: at * SECOND,
            is_suppressed
        }),
        (second, any_action()).prop_map(|(at, action)| act(at, action)),
    ]
}

fn any_rule() -> impl Strategy<Value = AlarmRule> {
    (any::<bool>(), any::<bool>(), 0..20i64, 0..20i64, 0..100i64).prop_map(
        |(is_critical, is_latching, on, off, again)| AlarmRule {
            is_critical,
            is_latching,
            on_delay_us: on * SECOND,
            off_delay_us: off * SECOND,
            realarm_us: again * SECOND,
            ..rule()
        },
    )
}

/// Actions with distinct ids.
fn any_deeds() -> impl Strategy<Value = Vec<AlarmAction>> {
    prop::collection::vec(any_action(), 1..8).prop_map(|deeds| {
        let numbered = deeds.into_iter().zip(1..);
        numbered
            .map(|(deed, id)| AlarmAction {
                id: Uuid::from_u128(id),
                ..deed
            })
            .collect()
    })
}

/// What can be seen of a machine, now and for the hours to come.
fn seen(machine: &AlarmMachine, rule: &AlarmRule) -> Vec<(i64, AlarmState, bool)> {
    let mut machine = machine.clone();
    let mut states = vec![(0, machine.state(), machine.is_active())];
    for second in [500, 700, 900, 2_000] {
        machine.step(rule, tick(second));
        states.push((second, machine.state(), machine.is_active()));
    }
    states
}

proptest! {
    #[test]
    fn t24_a_power_cut_in_any_state_changes_nothing(
        rule in any_rule(),
        inputs in prop::collection::vec(any_input(), 1..60),
    ) {
        let (mut through, mut cut) = (machine(), machine());
        for input in inputs {
            let expected = through.step(&rule, input.clone());
            let saved = postcard::to_stdvec(&cut).unwrap();
            cut = postcard::from_bytes(&saved).unwrap();
            prop_assert_eq!(cut.step(&rule, input), expected);
            prop_assert_eq!(&cut, &through);
        }
    }

    #[test]
    fn t26_actions_end_in_the_same_state_in_whatever_order_and_number_they_arrive(
        rule in any_rule(),
        before in prop::collection::vec((0..400i64, any::<bool>()), 0..8),
        (deeds, shuffled) in any_deeds().prop_flat_map(|deeds| {
            let doubled = [deeds.clone(), deeds.clone()].concat();
            (Just(deeds), Just(doubled).prop_shuffle())
        }),
    ) {
        let mut start = machine();
        for (second, is_true) in before {
            start.step(&rule, condition(second, is_true));
        }
        start.step(&rule, tick(400));
        let deliver = |order: &[AlarmAction]| {
            let mut machine = start.clone();
            let records = order.iter().flat_map(|deed| machine.step(&rule, act(400, deed.clone())));
            (records.count(), machine)
        };
        let (in_order, shuffled) = (deliver(&deeds), deliver(&shuffled));
        prop_assert_eq!(seen(&in_order.1, &rule), seen(&shuffled.1, &rule));
        // Every deed is on record, once. An alarm that asks again adds its own record.
        if rule.realarm_us == 0 {
            prop_assert_eq!((in_order.0, shuffled.0), (deeds.len(), deeds.len()));
        }
    }

    #[test]
    fn t24_a_critical_alarm_is_hidden_only_after_two_different_people_agreed(
        inputs in prop::collection::vec(any_input(), 1..60),
    ) {
        let critical = AlarmRule { is_critical: true, ..rule() };
        let mut machine = machine();
        let mut agreed = false;
        for input in inputs {
            if let AlarmInput::Action { action, .. } = &input {
                agreed |= action.second.is_some();
            }
            machine.step(&critical, input);
            let hidden = matches!(
                machine.state(),
                AlarmState::Shelved | AlarmState::Suppressed | AlarmState::OutOfService
            );
            prop_assert!(!hidden || agreed);
        }
    }
}
