//! What the judge of a critical control point must do: the scenarios of a pasteuriser, second by second.

use proptest::prelude::*;

use super::{super::deviation_id, *};
use crate::limit::{LimitError, said::verdicts};

const SECOND: Micros = 1_000_000;

fn holding_tube() -> CriticalLimit {
    CriticalLimit {
        ccp: "CCP-1".into(),
        line: Some("L1".into()),
        tag: "TT-101".into(),
        unit: "degC".into(),
        low: Some(72.0),
        high: None,
        clear_margin: 0.2,
        delay_us: 1_500_000,
        gap_us_max: 5 * SECOND,
        check_every_us: 60 * SECOND,
        period_us: SECOND,
        version: 3,
    }
}

fn value(second: i64, value: f64) -> Observation {
    Observation::Value {
        at_us: second * SECOND,
        after_us: second * SECOND,
        value,
        quality: Quality::GOOD,
    }
}

fn gate(second: i64, flowing: bool) -> Observation {
    Observation::Gate {
        at_us: second * SECOND,
        flowing,
    }
}

fn no_evidence(second: i64, since: i64) -> Observation {
    Observation::NoEvidence {
        at_us: second * SECOND,
        since_us: since * SECOND,
    }
}

fn run(observations: impl IntoIterator<Item = Observation>) -> (Judge, Vec<Judgement>) {
    let mut judge = Judge::new("akron-1", holding_tube());
    let said = observations
        .into_iter()
        .flat_map(|observation| judge.observe(observation))
        .collect();
    (judge, said)
}

fn deviations(said: &[Judgement]) -> Vec<(Phase, DeviationKind, i64, i64)> {
    let deviations = said.iter().filter_map(|judgement| match judgement {
        Judgement::Deviation(d) => Some((d.phase, d.kind, d.last_good_us / SECOND, d.until_us / SECOND)),
        _ => None,
    });
    deviations.collect()
}

#[test]
fn a_dip_that_the_valve_diverts_is_recorded_and_alarmed_but_no_deviation() {
    let before = (0..10).map(|s| value(s, 73.2));
    let dip = (10..85).flat_map(|s| [gate(s, s < 11), value(s, 71.1)]);
    let after = (85..130).flat_map(|s| [gate(s, true), value(s, 73.2)]);
    let (judge, said) = run(before.chain(dip).chain(after));
    assert_eq!(deviations(&said), []);
    assert!(!judge.is_diverted());
    assert_eq!(verdicts(&said), [CheckVerdict::Diverted, CheckVerdict::Diverted]);
    let diverted: Vec<_> = said
        .iter()
        .filter_map(|j| match j {
            Judgement::Diverted { active, .. } => Some(*active),
            _ => None,
        })
        .collect();
    assert_eq!(diverted, [true, false]);
}

#[test]
fn a_dip_with_the_valve_stuck_forward_is_a_deviation_from_the_last_good_to_the_first_clear_value() {
    let before = (0..10).map(|s| value(s, 73.2));
    let dip = (10..85).map(|s| value(s, if s == 40 { 70.9 } else { 71.1 }));
    let after = (85..90).map(|s| value(s, 73.2));
    let (judge, said) = run(before.chain(dip).chain(after));
    let found = deviations(&said);
    assert_eq!(found.first(), Some(&(Phase::Opened, DeviationKind::Limit, 9, 12)));
    assert_eq!(found.last(), Some(&(Phase::Closed, DeviationKind::Limit, 9, 85)));
    assert!(found.iter().filter(|d| d.0 == Phase::Extended).count() >= 6);
    let Some(Judgement::Deviation(closed)) = said.iter().rfind(|j| matches!(j, Judgement::Deviation(_)))
    else {
        panic!("none")
    };
    assert_eq!(closed.value_extreme, Some(70.9));
    assert_eq!(closed.limit_version, 3);
    assert_eq!(closed.id, deviation_id("akron-1", "CCP-1", 9 * SECOND));
    assert!(!judge.is_deviating());
}

#[test]
fn a_value_exactly_at_the_limit_meets_it_but_does_not_end_a_deviation() {
    let (judge, said) = run((0..10).map(|s| value(s, 72.0)));
    assert_eq!(deviations(&said), []);
    assert!(!judge.is_deviating());
    let (judge, _) = run((0..10).map(|s| value(s, if s < 5 { 71.0 } else { 72.0 })));
    assert!(judge.is_deviating());
}

#[test]
fn silence_with_product_flowing_is_a_deviation_of_its_own() {
    let ticks = (5..20).map(|s| Observation::Tick { at_us: s * SECOND });
    let (_, said) = run((0..5)
        .map(|s| value(s, 73.2))
        .chain(ticks)
        .chain([value(20, 73.2)]));
    assert_eq!(
        deviations(&said),
        [
            (Phase::Opened, DeviationKind::MonitoringGap, 4, 10),
            (Phase::Extended, DeviationKind::MonitoringGap, 4, 20),
            (Phase::Closed, DeviationKind::MonitoringGap, 4, 20),
        ]
        .into_iter()
        .filter(|d| d.0 != Phase::Extended)
        .collect::<Vec<_>>()
    );
}

#[test]
fn a_sensor_that_falls_silent_out_of_limit_is_not_waited_for_until_the_window_ends() {
    let endless = CriticalLimit {
        delay_us: 3 * SECOND,
        check_every_us: 3600 * SECOND,
        ..holding_tube()
    };
    let mut judge = Judge::new("akron-1", endless);
    let ticks = (6..30).map(|s| Observation::Tick { at_us: s * SECOND });
    let script = (0..5)
        .map(|s| value(s, 73.2))
        .chain([value(5, 71.0)])
        .chain(ticks);
    let said: Vec<Judgement> = script
        .flat_map(|observation| judge.observe(observation))
        .collect();
    assert_eq!(
        deviations(&said).first(),
        Some(&(Phase::Opened, DeviationKind::MonitoringGap, 4, 11))
    );
}

#[test]
fn a_clock_that_is_set_back_stops_no_judging() {
    let (mut judge, _) = run((0..600).map(|s| value(s, 73.2)));
    judge.set_back(500 * SECOND);
    let dip = (100..110).map(|s| value(s, 71.0));
    let said: Vec<Judgement> = dip.flat_map(|observation| judge.observe(observation)).collect();
    let found = deviations(&said);
    assert_eq!(
        found.first(),
        Some(&(Phase::Opened, DeviationKind::Limit, 99, 102))
    );
    // Set back once more with the deviation open: its window goes along, its name stays.
    judge.set_back(50 * SECOND);
    let said = judge.observe(value(60, 73.2));
    assert_eq!(deviations(&said), [(Phase::Closed, DeviationKind::Limit, 49, 60)]);
    let Some(Judgement::Deviation(closed)) = said.last() else {
        panic!("none")
    };
    assert_eq!(closed.id, deviation_id("akron-1", "CCP-1", 99 * SECOND));
}

#[test]
fn silence_after_the_clock_was_set_back_is_a_gap_as_ever() {
    let (mut judge, _) = run((0..600).map(|s| value(s, 73.2)));
    judge.set_back(500 * SECOND);
    let ticks = (100..120).map(|s| Observation::Tick { at_us: s * SECOND });
    let said: Vec<Judgement> = ticks.flat_map(|observation| judge.observe(observation)).collect();
    assert_eq!(
        deviations(&said).first(),
        Some(&(Phase::Opened, DeviationKind::MonitoringGap, 99, 105))
    );
}

#[test]
fn a_gap_while_the_agent_was_down_is_found_by_the_first_value_after_it() {
    let (mut judge, _) = run((0..5).map(|s| value(s, 73.2)));
    let saved = postcard::to_stdvec(&judge).unwrap();
    judge = postcard::from_bytes(&saved).unwrap();
    let said = judge.observe(value(600, 73.2));
    assert_eq!(
        deviations(&said),
        [
            (Phase::Opened, DeviationKind::MonitoringGap, 4, 600),
            (Phase::Closed, DeviationKind::MonitoringGap, 4, 600),
        ]
    );
}

#[test]
fn a_stuck_sensor_is_loss_of_monitoring_under_its_own_name() {
    let stuck = |s: i64| Observation::Value {
        at_us: s * SECOND,
        after_us: s * SECOND,
        value: f64::NAN,
        quality: Quality::BAD_SENSOR_FAILURE,
    };
    let (_, said) = run((0..5).map(|s| value(s, 73.2)).chain((5..15).map(stuck)));
    assert_eq!(
        deviations(&said),
        [(Phase::Opened, DeviationKind::SensorStuck, 4, 10)]
    );
}

fn stuck(second: i64) -> Observation {
    Observation::Value {
        at_us: second * SECOND,
        after_us: second * SECOND,
        value: 73.2,
        quality: Quality::BAD_SENSOR_FAILURE,
    }
}

#[test]
fn f4_values_that_turn_out_to_be_no_evidence_are_held_from_the_last_one_that_was() {
    let found = [stuck(40), no_evidence(40, 9), stuck(41), no_evidence(41, 9)];
    let script = (0..40)
        .map(|s| value(s, 73.2))
        .chain(found)
        .chain([value(42, 73.3)]);
    let (judge, said) = run(script);
    assert_eq!(
        deviations(&said),
        [
            (Phase::Opened, DeviationKind::SensorStuck, 9, 40),
            (Phase::Closed, DeviationKind::SensorStuck, 9, 42)
        ]
    );
    assert!(judge.is_in_control());
}

#[test]
fn a_deviation_that_is_open_reaches_back_under_its_name_when_what_was_before_it_was_no_evidence() {
    let script = (0..10)
        .map(|s| value(s, 72.001))
        .chain((10..14).map(|s| value(s, 71.999)));
    let (_, said) = run(script.chain([stuck(14), no_evidence(14, 4), stuck(15), value(16, 73.0)]));
    assert_eq!(
        deviations(&said),
        [
            (Phase::Opened, DeviationKind::Limit, 9, 12),
            (Phase::Extended, DeviationKind::Limit, 4, 14),
            (Phase::Closed, DeviationKind::Limit, 4, 16)
        ]
    );
    let ids: Vec<_> = said
        .iter()
        .filter_map(|judgement| match judgement {
            Judgement::Deviation(deviation) => Some(deviation.id),
            _ => None,
        })
        .collect();
    assert!(
        ids.iter()
            .all(|id| *id == deviation_id("akron-1", "CCP-1", 9 * SECOND))
    );
}

#[test]
fn evidence_that_is_taken_back_for_less_than_the_allowed_gap_is_no_deviation_yet() {
    let script = (0..10)
        .map(|s| value(s, 73.2))
        .chain([stuck(10), no_evidence(10, 6)]);
    let (mut judge, said) = run(script);
    assert_eq!(deviations(&said), []);
    let said = judge.observe(stuck(12));
    assert_eq!(
        deviations(&said),
        [(Phase::Opened, DeviationKind::SensorStuck, 6, 12)]
    );
}

#[test]
fn nothing_is_judged_against_product_while_it_is_diverted_and_silent() {
    let ticks = (5..60).map(|s| Observation::Tick { at_us: s * SECOND });
    let (_, said) = run((0..5)
        .map(|s| value(s, 73.2))
        .chain([gate(5, false)])
        .chain(ticks));
    assert_eq!(deviations(&said), []);
}

#[test]
fn t27_a_limit_change_ends_the_window_and_is_stamped_on_what_follows() {
    let (mut judge, _) = run((0..5).map(|s| value(s, 73.2)));
    let said = judge.change_limit(CriticalLimit {
        low: Some(74.4),
        version: 4,
        delay_us: 0,
        ..holding_tube()
    });
    assert!(
        matches!(&said[..], [Judgement::Check(c)] if (c.limit_version, c.good, c.verdict) == (3, 5, CheckVerdict::Met))
    );
    let said = judge.observe(value(5, 73.2));
    assert!(
        matches!(&said[..], [Judgement::Deviation(d)] if d.limit_version == 4 && d.limit_low == Some(74.4))
    );
}

#[test]
fn impossible_limits_are_refused_by_name() {
    let base = holding_tube();
    let none = CriticalLimit {
        low: None,
        ..base.clone()
    };
    assert_eq!(none.check(), Err(LimitError::NoLimit));
    let crossed = CriticalLimit {
        high: Some(71.0),
        ..base.clone()
    };
    assert_eq!(crossed.check(), Err(LimitError::Impossible));
    let nan = CriticalLimit {
        low: Some(f64::NAN),
        ..base.clone()
    };
    assert_eq!(nan.check(), Err(LimitError::NotFinite));
    let endless = CriticalLimit {
        gap_us_max: 0,
        ..base.clone()
    };
    assert_eq!(endless.check(), Err(LimitError::BadDuration));
    assert_eq!(base.check(), Ok(()));
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let at = 0i64..600;
    prop_oneof![
        6 => (at.clone(), 68.0..76.0f64).prop_map(|(s, v)| value(s, v)),
        1 => (at.clone(), any::<u16>()).prop_map(|(s, code)| Observation::Value {
            at_us: s * SECOND, after_us: s * SECOND, value: 1.0, quality: Quality::from_code(code) }),
        1 => (at.clone(), any::<bool>()).prop_map(|(s, flowing)| gate(s, flowing)),
        1 => at.clone().prop_map(|s| Observation::Tick { at_us: s * SECOND }),
        1 => (at, 0i64..60).prop_map(|(s, ago)| no_evidence(s, s - ago)),
    ]
}

proptest! {
    /// Whatever comes in whatever order: phases alternate properly, windows never run backwards, and replaying
    /// the same observations gives the same judgements to the byte.
    #[test]
    fn deviations_open_once_and_close_once(observations in prop::collection::vec(any_observation(), 0..400)) {
        let (_, said) = run(observations.iter().copied());
        let mut open = None;
        for judgement in &said {
            let Judgement::Deviation(d) = judgement else { continue };
            prop_assert!(d.until_us >= d.last_good_us);
            match d.phase {
                Phase::Opened => prop_assert_eq!(open.replace(d.id), None),
                Phase::Extended => prop_assert_eq!(open, Some(d.id)),
                Phase::Closed => prop_assert_eq!(open.take(), Some(d.id)),
            }
        }
        let (_, again) = run(observations);
        prop_assert_eq!(said, again);
    }

    /// Restarting from the saved state at any point changes nothing.
    #[test]
    fn a_saved_judge_goes_on_as_if_nothing_happened(
        observations in prop::collection::vec(any_observation(), 1..200), cut in any::<prop::sample::Index>(),
    ) {
        let (_, whole) = run(observations.iter().copied());
        let (first, second) = observations.split_at(cut.index(observations.len()));
        let (judge, mut said) = run(first.iter().copied());
        let mut judge: Judge = postcard::from_bytes(&postcard::to_stdvec(&judge).unwrap()).unwrap();
        said.extend(second.iter().flat_map(|observation| judge.observe(*observation)));
        prop_assert_eq!(said, whole);
    }
}
