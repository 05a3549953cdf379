//! What the judge of a hold time must do: a kettle of soup, second by second.

use proptest::prelude::*;

use super::*;
use crate::limit::{
    Phase,
    said::{deviations, verdicts},
};

const SECOND: Micros = 1_000_000;

fn limit() -> CriticalLimit {
    CriticalLimit {
        ccp: "CCP-2".into(),
        line: Some("L2".into()),
        tag: "TT-201".into(),
        unit: "degC".into(),
        low: Some(74.0),
        high: None,
        clear_margin: 0.0,
        delay_us: 0,
        gap_us_max: 5 * SECOND,
        check_every_us: 60 * SECOND,
        period_us: SECOND,
        version: 2,
    }
}

fn judge() -> HoldTimeJudge {
    let hold = HoldTime {
        hold_us: 15 * SECOND,
        cycle_above: 40.0,
    };
    HoldTimeJudge::new("akron-1", limit(), hold)
}

fn value(second: i64, value: f64) -> Observation {
    Observation::Value {
        at_us: second * SECOND,
        after_us: second * SECOND,
        value,
        quality: Quality::GOOD,
    }
}

fn run(judge: &mut HoldTimeJudge, values: &[f64]) -> Vec<Judgement> {
    let start = judge.now_us.map_or(0, |newest_us| newest_us / SECOND + 1);
    let observations = (start..).zip(values).map(|(second, v)| value(second, *v));
    let mut said = Vec::new();
    for observation in observations {
        said.extend(judge.observe(observation));
    }
    said
}

/// Idle, then a batch that stays at 76 °C for so many seconds, then idle.
fn batch(held_s: usize) -> Vec<f64> {
    [
        vec![20.0; 3],
        vec![60.0; 5],
        vec![76.0; held_s],
        vec![60.0; 5],
        vec![20.0; 3],
    ]
    .concat()
}

#[test]
fn a_batch_that_is_held_long_enough_is_met() {
    let mut judge = judge();
    let said = run(&mut judge, &batch(16));
    assert_eq!(
        (verdicts(&said), deviations(&said)),
        (vec![CheckVerdict::Met], vec![])
    );
    assert!(judge.is_in_control());
}

#[test]
fn a_batch_that_is_held_too_short_is_a_deviation_of_that_batch_alone() {
    let mut judge = judge();
    let mut said = run(&mut judge, &batch(15));
    assert!(judge.is_deviating());
    said.extend(run(&mut judge, &batch(20)));
    assert_eq!(verdicts(&said), [CheckVerdict::NotMet, CheckVerdict::Met]);
    let found = deviations(&said);
    let seen: Vec<_> = found
        .iter()
        .map(|d| (d.kind, d.phase, d.last_good_us / SECOND, d.until_us / SECOND))
        .collect();
    // From the last idle value before the batch to the first after it.
    assert_eq!(
        seen,
        [
            (DeviationKind::HoldTime, Phase::Opened, 2, 28),
            (DeviationKind::HoldTime, Phase::Closed, 2, 28)
        ]
    );
    assert_eq!((found[0].value_extreme, found[0].limit_version), (Some(76.0), 2));
}

#[test]
fn what_a_stuck_sensor_said_was_not_held() {
    for (since, held) in [(20, true), (12, false)] {
        let mut judge = judge();
        let mut said = run(&mut judge, &[vec![20.0; 3], vec![76.0; 30]].concat());
        // Found twice, as long as it repeats itself.
        for _ in 0..2 {
            said.extend(judge.observe(Observation::NoEvidence {
                at_us: 33 * SECOND,
                since_us: since * SECOND,
            }));
        }
        said.extend(run(&mut judge, &[20.0]));
        let verdict = if held {
            CheckVerdict::Met
        } else {
            CheckVerdict::NotMet
        };
        assert_eq!(verdicts(&said), [verdict]);
        // Held or not: nobody knows what the batch did since.
        assert_eq!(deviations(&said)[0].kind, DeviationKind::MonitoringGap);
    }
}

#[test]
fn a_dip_below_the_limit_begins_the_hold_anew() {
    let mut judge = judge();
    let values = [vec![20.0], vec![76.0; 10], vec![73.9], vec![76.0; 10], vec![20.0]].concat();
    assert_eq!(verdicts(&run(&mut judge, &values)), [CheckVerdict::NotMet]);
}

#[test]
fn what_was_not_seen_was_not_held() {
    let mut judge = judge();
    run(&mut judge, &[20.0, 60.0, 76.0, 76.0]);
    let mut said = judge.observe(value(20, 76.0));
    for second in 21..30 {
        said.extend(judge.observe(value(second, 76.0)));
    }
    said.extend(judge.observe(value(30, 20.0)));
    assert_eq!(verdicts(&said), [CheckVerdict::NotMet]);
    let kinds: Vec<_> = deviations(&said).iter().map(|d| (d.kind, d.phase)).collect();
    assert_eq!(
        kinds,
        [
            (DeviationKind::MonitoringGap, Phase::Opened),
            (DeviationKind::HoldTime, Phase::Extended)
        ]
    );
}

#[test]
fn silence_between_batches_is_a_gap_unless_a_gate_tells_that_nothing_runs() {
    let mut ungated = judge();
    run(&mut ungated, &[20.0]);
    let tick = Observation::Tick { at_us: 30 * SECOND };
    assert_eq!(
        deviations(&ungated.observe(tick))[0].kind,
        DeviationKind::MonitoringGap
    );
    let mut gated = judge();
    run(&mut gated, &[20.0]);
    gated.observe(Observation::Gate {
        at_us: SECOND,
        flowing: false,
    });
    assert_eq!(gated.observe(tick), []);
}

#[test]
fn t27_a_change_within_a_batch_ends_its_window_and_begins_the_hold_anew() {
    let mut judge = judge();
    let mut said = run(&mut judge, &[vec![20.0], vec![76.0; 10]].concat());
    said.extend(judge.change_limit(CriticalLimit {
        low: Some(75.0),
        version: 3,
        ..limit()
    }));
    said.extend(run(&mut judge, &[vec![76.0; 10], vec![20.0]].concat()));
    let versions: Vec<_> = said
        .iter()
        .filter_map(|judgement| match judgement {
            Judgement::Check(check) => Some((check.limit_version, check.verdict)),
            _ => None,
        })
        .collect();
    assert_eq!(
        versions,
        [(2, CheckVerdict::NotMonitored), (3, CheckVerdict::NotMet)]
    );
}

proptest! {
    #[test]
    fn every_cycle_is_met_exactly_when_some_stretch_of_it_was_held(values in prop::collection::vec(prop_oneof![
        Just(20.0), Just(60.0), Just(74.0), Just(76.0), Just(76.0), Just(76.0)
    ], 1..200)) {
        let mut judge = judge();
        let mut said = run(&mut judge, &values);
        said.extend(run(&mut judge, &[20.0]));
        let expected: Vec<bool> = values
            .split(|value| *value < 40.0)
            .filter(|cycle| !cycle.is_empty())
            .map(|cycle| cycle.split(|value| *value < 74.0).any(|held| held.len() >= 16))
            .collect();
        let met: Vec<bool> = verdicts(&said).iter().map(|verdict| *verdict == CheckVerdict::Met).collect();
        prop_assert_eq!(met, expected);
    }

    #[test]
    fn a_restart_anywhere_changes_no_verdict(
        values in prop::collection::vec(15.0..80.0f64, 1..100),
        gaps in prop::collection::vec(1..9i64, 100),
    ) {
        let (mut through, mut cut) = (judge(), judge());
        let mut second = 0;
        for (v, gap) in values.iter().zip(&gaps) {
            second += gap;
            let saved = postcard::to_stdvec(&cut).unwrap();
            cut = postcard::from_bytes(&saved).unwrap();
            prop_assert_eq!(cut.observe(value(second, *v)), through.observe(value(second, *v)));
        }
        prop_assert_eq!(cut, through);
    }

    #[test]
    fn a_clock_that_is_set_back_changes_no_verdict(held_s in 1..30usize, cut in 1..20usize) {
        let values = batch(held_s);
        let (mut plain, mut stepped) = (judge(), judge());
        let expected = verdicts(&run(&mut plain, &values));
        let (first, rest) = values.split_at(cut.min(values.len()));
        let mut said = run(&mut stepped, first);
        stepped.set_back(3_600 * SECOND);
        said.extend(run(&mut stepped, rest));
        prop_assert_eq!(verdicts(&said), expected);
    }
}
