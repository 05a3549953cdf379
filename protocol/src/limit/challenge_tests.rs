//! What the judge of a challenge must do: a metal detector that gets its test pieces every hour.

use proptest::prelude::*;

use super::*;
use crate::limit::{Deviation, Phase, said::verdicts};

const MINUTE: Micros = 60_000_000;

fn limit(period_us: Micros) -> CriticalLimit {
    CriticalLimit {
        ccp: "CCP-5".into(),
        line: Some("L4".into()),
        tag: "MD-401".into(),
        unit: String::new(),
        low: Some(1.0),
        high: None,
        clear_margin: 0.0,
        delay_us: 0,
        gap_us_max: 3_600_000_000,
        check_every_us: 60_000_000,
        period_us,
        version: 1,
    }
}

fn judge(period_us: Micros) -> ChallengeJudge {
    let challenge = Challenge {
        every_us: 60 * MINUTE,
        grace_us: 5 * MINUTE,
        idle: Some(-1.0),
    };
    ChallengeJudge::new("akron-1", limit(period_us), challenge)
}

fn value(minute: i64, value: f64) -> Observation {
    Observation::Value {
        at_us: minute * MINUTE,
        after_us: minute * MINUTE,
        value,
        quality: Quality::GOOD,
    }
}

fn tick(minute: i64) -> Observation {
    Observation::Tick {
        at_us: minute * MINUTE,
    }
}

fn run(observations: impl IntoIterator<Item = Observation>) -> Vec<Judgement> {
    let mut judge = judge(0);
    let said = observations
        .into_iter()
        .flat_map(|observation| judge.observe(observation));
    said.collect()
}

fn deviations(said: &[Judgement]) -> Vec<(DeviationKind, Phase, Micros, Micros)> {
    let seen = said.iter().filter_map(|judgement| match judgement {
        Judgement::Deviation(Deviation {
            kind,
            phase,
            last_good_us,
            detected_us,
            until_us,
            ..
        }) if *phase != Phase::Extended => {
            let at_us = if *phase == Phase::Closed {
                until_us
            } else {
                detected_us
            };
            Some((*kind, *phase, last_good_us / MINUTE, at_us / MINUTE))
        }
        _ => None,
    });
    seen.collect()
}

#[test]
fn f5_a_challenge_that_is_not_made_is_missed_after_its_grace_and_product_since_the_last_good_one_is_suspect()
{
    let said = run([value(10, 1.0)]
        .into_iter()
        .chain((11..132).map(tick))
        .chain([value(132, 1.0)]));
    assert_eq!(
        deviations(&said),
        [
            (DeviationKind::MissedCheck, Phase::Opened, 10, 75),
            (DeviationKind::MissedCheck, Phase::Closed, 10, 132)
        ]
    );
}

#[test]
fn f6_a_challenge_that_fails_makes_everything_since_the_last_good_one_suspect() {
    let said = run([value(0, 1.0), value(55, 0.0), value(70, 1.0)]);
    assert_eq!(
        deviations(&said),
        [
            (DeviationKind::Challenge, Phase::Opened, 0, 55),
            (DeviationKind::Challenge, Phase::Closed, 0, 70)
        ]
    );
    assert_eq!(
        verdicts(&said),
        [CheckVerdict::Met, CheckVerdict::NotMet, CheckVerdict::Met]
    );
}

#[test]
fn f5_f6_a_challenge_that_is_polled_counts_from_the_poll_before_it_and_ends_a_window_where_it_is_seen() {
    let mut judge = judge(1_000_000);
    let polled = |minute: i64, result: f64| Observation::Value {
        at_us: minute * MINUTE,
        after_us: (minute - 2) * MINUTE,
        value: result,
        quality: Quality::GOOD,
    };
    let results = [
        (10, -1.0),
        (12, 1.0),
        (14, 1.0),
        (16, -1.0),
        (60, 0.0),
        (62, -1.0),
        (70, 1.0),
    ];
    let said: Vec<_> = results
        .into_iter()
        .flat_map(|(minute, result)| judge.observe(polled(minute, result)))
        .collect();
    assert_eq!(
        deviations(&said),
        [
            (DeviationKind::Challenge, Phase::Opened, 10, 60),
            (DeviationKind::Challenge, Phase::Closed, 10, 70)
        ]
    );
    let said: Vec<_> = (71..140).flat_map(|minute| judge.observe(tick(minute))).collect();
    assert_eq!(
        deviations(&said),
        [(DeviationKind::MissedCheck, Phase::Opened, 68, 135)]
    );
}

#[test]
fn a_missed_challenge_that_then_fails_is_a_failed_one() {
    let mut judge = judge(0);
    let said: Vec<_> = [value(0, 1.0), tick(65), value(80, 0.0)]
        .into_iter()
        .flat_map(|observation| judge.observe(observation))
        .collect();
    let last = said.iter().rev().find_map(|judgement| match judgement {
        Judgement::Deviation(deviation) => Some((deviation.kind, deviation.phase)),
        _ => None,
    });
    assert_eq!(last, Some((DeviationKind::Challenge, Phase::Extended)));
}

#[test]
fn nothing_is_due_while_no_product_flows() {
    let stop = Observation::Gate {
        at_us: 10 * MINUTE,
        flowing: false,
    };
    let start = Observation::Gate {
        at_us: 300 * MINUTE,
        flowing: true,
    };
    let said = run([value(0, 1.0), stop]
        .into_iter()
        .chain((11..300).map(tick))
        .chain([start, tick(304), tick(305)]));
    assert_eq!(
        deviations(&said),
        [(DeviationKind::MissedCheck, Phase::Opened, 0, 305)]
    );
}

#[test]
fn a_polled_result_that_stands_is_one_challenge() {
    let mut polled = judge(1_000_000);
    let mut made = 0;
    for (minute, result) in (0..).zip([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0]) {
        let said = polled.observe(value(minute, result));
        made += said
            .iter()
            .filter(|judgement| matches!(judgement, Judgement::Check(_)))
            .count();
    }
    assert_eq!(made, 2);
}

proptest! {
    #[test]
    fn product_is_in_control_exactly_while_the_last_challenge_passed_and_none_is_overdue(
        made in prop::collection::vec((1..90i64, any::<bool>()), 1..20),
    ) {
        let mut judge = judge(0);
        let mut minute = 0;
        let mut last = None;
        for (pause, passed) in made {
            for at in minute + 1..=minute + pause {
                judge.observe(tick(at));
            }
            minute += pause;
            let overdue_before = last.is_some_and(|_| pause >= 65);
            prop_assert_eq!(judge.is_in_control(), last == Some(true) && !overdue_before);
            judge.observe(value(minute, f64::from(u8::from(passed))));
            prop_assert_eq!(judge.is_in_control(), passed);
            last = Some(passed);
        }
    }

    #[test]
    fn a_restart_or_a_clock_set_back_changes_nothing(
        made in prop::collection::vec((1..90i64, any::<bool>()), 1..20),
        back in 0..10_000i64,
    ) {
        let (mut through, mut cut) = (judge(0), judge(0));
        let (mut minute, mut cut_minute) = (0, 0);
        for (index, (pause, passed)) in made.into_iter().enumerate() {
            if index == 3 {
                cut.set_back(back * MINUTE);
                cut_minute -= back;
            }
            let saved = postcard::to_stdvec(&cut).unwrap();
            cut = postcard::from_bytes(&saved).unwrap();
            for _ in 0..pause {
                minute += 1;
                cut_minute += 1;
                through.observe(tick(minute));
                cut.observe(tick(cut_minute));
            }
            let result = f64::from(u8::from(passed));
            through.observe(value(minute, result));
            cut.observe(value(cut_minute, result));
            prop_assert_eq!(cut.is_deviating(), through.is_deviating());
            prop_assert_eq!(
                cut.due_us().map(|due_us| due_us - cut_minute * MINUTE),
                through.due_us().map(|due_us| due_us - minute * MINUTE)
            );
        }
    }
}
