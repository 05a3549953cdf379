//! What the judge of a cooling curve must do: batches of soup in a blast chiller, every ten seconds.

use proptest::prelude::*;

use super::*;
use crate::limit::{
    Deviation, Phase,
    said::{self, verdicts},
};

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;

fn limit() -> CriticalLimit {
    CriticalLimit {
        ccp: "CCP-3".into(),
        line: Some("L2".into()),
        tag: "TT-204".into(),
        unit: "degC".into(),
        low: None,
        high: Some(5.0),
        clear_margin: 0.5,
        delay_us: 0,
        gap_us_max: 300 * SECOND,
        check_every_us: 60 * SECOND,
        period_us: 10 * SECOND,
        version: 4,
    }
}

fn judge() -> CoolingJudge {
    let stage = |to, minutes| CoolingStage {
        to,
        within_us: minutes * MINUTE,
    };
    let curve = CoolingCurve {
        start: 57.0,
        air: -2.0,
        stages: vec![stage(21.0, 120), stage(5.0, 360)],
    };
    CoolingJudge::new("akron-1", limit(), curve)
}

/// Deterministic noise of about ± 0.2.
fn noise(index: i64) -> f64 {
    0.2 * ((index * 7_919 % 101) as f64 / 50.5 - 1.0)
}

/// Newton cooling from 60 °C at `k` a minute for so many minutes.
fn cools(k: f64, air: f64, minutes: i64) -> impl Iterator<Item = (Micros, f64)> {
    (0..minutes * 6).map(move |index| {
        let t_min = index as f64 / 6.0;
        (
            index * 10 * SECOND,
            air + (60.0 - air) * (-k * t_min).exp() + noise(index),
        )
    })
}

fn run(judge: &mut CoolingJudge, values: impl Iterator<Item = (Micros, f64)>) -> Vec<Judgement> {
    let start_us = judge.now_us.map_or(0, |newest_us| newest_us + 10 * SECOND);
    let mut said = Vec::new();
    for (at_us, value) in values {
        said.extend(judge.observe(Observation::Value {
            at_us: start_us + at_us,
            after_us: start_us + at_us,
            value,
            quality: Quality::GOOD,
        }));
    }
    said
}

/// What was said of deviations when they opened and closed.
fn deviations(said: &[Judgement]) -> Vec<Deviation> {
    let mut deviations = said::deviations(said);
    deviations.retain(|deviation| deviation.phase != Phase::Extended);
    deviations
}

fn predictions(said: &[Judgement]) -> Vec<(Micros, bool)> {
    let predictions = said.iter().filter_map(|judgement| match judgement {
        Judgement::Predicted { at_us, active } => Some((*at_us / MINUTE, *active)),
        _ => None,
    });
    predictions.collect()
}

#[test]
fn batches_that_cool_as_they_should_are_met_without_a_warning() {
    for k in [0.011, 0.013, 0.015] {
        let mut judge = judge();
        let said = run(&mut judge, cools(k, -2.0, 240));
        assert_eq!(verdicts(&said), [CheckVerdict::Met], "{k}");
        assert_eq!((deviations(&said), predictions(&said)), (vec![], vec![]), "{k}");
    }
}

#[test]
fn f7_an_overloaded_chiller_is_predicted_more_than_an_hour_before_the_limit() {
    // 35 % less than a nominal 0.011.
    let mut judge = judge();
    let said = run(&mut judge, cools(0.011 * 0.65, -2.0, 320));
    let (minute, active) = predictions(&said)[0];
    assert!(active && minute < 60, "predicted at {minute} min");
    let found = deviations(&said);
    assert_eq!(found[0].kind, DeviationKind::Cooling);
    // The limit is two hours after the last value at or above 57 °C, some minutes after the loading.
    assert!((120..135).contains(&(found[0].detected_us / MINUTE)), "{found:?}");
    assert_eq!(found.last().unwrap().phase, Phase::Closed);
    assert_eq!(verdicts(&said), [CheckVerdict::NotMet]);
    assert_eq!(predictions(&said).last().map(|(_, active)| *active), Some(false));
}

#[test]
fn f7_a_curve_that_is_a_hundred_times_as_fast_is_predicted_as_early_in_it() {
    let slow = run(&mut judge(), cools(0.011 * 0.65, -2.0, 120));
    let curve = CoolingCurve {
        stages: [(21.0, 120), (5.0, 360)]
            .map(|(to, minutes)| CoolingStage {
                to,
                within_us: minutes * MINUTE / 100,
            })
            .to_vec(),
        ..judge().curve().clone()
    };
    let mut fast = CoolingJudge::new("akron-1", limit(), curve);
    let said = run(
        &mut fast,
        cools(0.011 * 0.65, -2.0, 120).map(|(at_us, value)| (at_us / 100, value)),
    );
    let first = |said: &[Judgement], unit_us: Micros| {
        said.iter().find_map(|judgement| match judgement {
            Judgement::Predicted { at_us, active: true } => Some(*at_us / unit_us),
            _ => None,
        })
    };
    assert!(first(&slow, MINUTE).is_some());
    assert_eq!(first(&said, MINUTE / 100), first(&slow, MINUTE));
}

#[test]
fn a_core_that_stands_still_is_not_monitored_since_it_last_moved() {
    let mut judge = judge();
    let mut said = run(&mut judge, cools(0.013, -2.0, 40));
    said.extend(judge.observe(Observation::NoEvidence {
        at_us: 40 * MINUTE,
        since_us: 30 * MINUTE,
    }));
    let found = deviations(&said);
    assert_eq!(
        (found[0].kind, found[0].last_good_us),
        (DeviationKind::MonitoringGap, 30 * MINUTE)
    );
}

#[test]
fn a_chiller_that_weakens_in_the_middle_is_seen() {
    let mut judge = judge();
    let whole = cools(0.013, -2.0, 30).last().unwrap().1;
    let mut said = run(&mut judge, cools(0.013, -2.0, 30));
    assert_eq!(predictions(&said), []);
    let weak = (0..600).map(|index| {
        let t_min = index as f64 / 6.0;
        (
            index * 10 * SECOND,
            -2.0 + (whole + 2.0) * (-0.004 * t_min).exp() + noise(index),
        )
    });
    said.extend(run(&mut judge, weak));
    assert!(
        predictions(&said).first().is_some_and(|(minute, _)| *minute < 75),
        "{:?}",
        predictions(&said)
    );
}

#[test]
fn a_batch_that_is_taken_out_before_it_is_cold_is_a_deviation() {
    let mut judge = judge();
    let mut said = run(&mut judge, cools(0.013, -2.0, 60));
    said.extend(run(&mut judge, cools(0.013, -2.0, 240)));
    assert_eq!(verdicts(&said), [CheckVerdict::NotMet, CheckVerdict::Met]);
    let phases: Vec<_> = deviations(&said).iter().map(|d| (d.kind, d.phase)).collect();
    assert_eq!(
        phases,
        [
            (DeviationKind::Cooling, Phase::Opened),
            (DeviationKind::Cooling, Phase::Closed)
        ]
    );
}

#[test]
fn a_batch_that_was_not_seen_to_begin_is_not_called_monitored() {
    let mut judge = judge();
    let said = run(&mut judge, cools(0.013, -2.0, 240).skip(300));
    assert_eq!(verdicts(&said), [CheckVerdict::NotMonitored]);
}

#[test]
fn an_air_temperature_that_differs_from_the_configured_one_raises_no_false_warning() {
    for air in [-4.0, 0.0, 2.0] {
        let mut judge = judge();
        let said = run(&mut judge, cools(0.013, air, 300));
        assert_eq!(
            predictions(&said).iter().filter(|(_, active)| *active).count(),
            0,
            "{air}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_restart_anywhere_changes_no_verdict(k in 0.006..0.02f64) {
        let (mut through, mut cut) = (judge(), judge());
        for (at_us, value) in cools(k, -2.0, 200) {
            let observation = Observation::Value { at_us, after_us: at_us, value, quality: Quality::GOOD };
            let saved = postcard::to_stdvec(&cut).unwrap();
            cut = postcard::from_bytes(&saved).unwrap();
            prop_assert_eq!(cut.observe(observation), through.observe(observation));
        }
        prop_assert_eq!(cut, through);
    }

    #[test]
    fn a_batch_is_met_exactly_when_every_stage_is_reached_in_time(k in 0.005..0.02f64) {
        let mut judge = judge();
        let said = run(&mut judge, cools(k, -2.0, 480));
        let late_21 = (59.0f64 / 23.0).ln() / k > 120.0;
        let late_5 = (59.0f64 / 7.0).ln() / k > 360.0;
        // Noise and one period at the limit itself may go either way.
        let near = ((59.0f64 / 23.0).ln() / k - 120.0).abs() < 2.0;
        if !near {
            let expected = if late_21 || late_5 { CheckVerdict::NotMet } else { CheckVerdict::Met };
            prop_assert_eq!(verdicts(&said), [expected]);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_changes_no_verdict(k in 0.006..0.02f64, cut in 1..600usize) {
        let values: Vec<_> = cools(k, -2.0, 300).collect();
        let (mut plain, mut stepped) = (judge(), judge());
        let expected = verdicts(&run(&mut plain, values.iter().copied()));
        let mut said = run(&mut stepped, values[..cut].iter().copied());
        stepped.set_back(3_600 * SECOND);
        let begun_us = values[cut].0;
        said.extend(run(&mut stepped, values[cut..].iter().map(|(at_us, value)| (at_us - begun_us, *value))));
        prop_assert_eq!(verdicts(&said), expected);
    }
}
