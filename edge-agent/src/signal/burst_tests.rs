//! What the burst detector must do: known run lengths, golden verdicts, and what nobody may wait for.

use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Made by `tests/golden/burst/make.py`, another way than here.
const CHARTS: &str = include_str!("../../tests/golden/burst/charts.csv");
const VERDICTS: &str = include_str!("../../tests/golden/burst/verdicts.csv");
const AKRON: BurstLimit = BurstLimit {
    usual: 0.004,
    burst: 0.045,
    false_alarm_every: 60_000,
};

/// How many pictures until the alarm, each with a defect by this chance.
fn pictures_until_alarm(chart: Chart, share: f64, random: &mut ChaCha8Rng) -> u32 {
    let mut state = State::default();
    let mut pictures = 1..=u32::MAX;
    let alarm = pictures.find(|_| state.take(chart, random.random::<f64>() < share));
    alarm.unwrap_or(u32::MAX)
}

#[test]
fn f8_the_charts_are_those_of_another_computation() {
    for row in CHARTS.lines().skip(1) {
        let cells: Vec<f64> = row.split(',').map(|cell| cell.parse().unwrap()).collect();
        let [usual, burst, every, step, limit, run, before, ..] = cells[..] else {
            panic!("{row}")
        };
        let chart = Chart::new(BurstLimit {
            usual,
            burst,
            false_alarm_every: every as u32,
        });
        assert_eq!(
            (f64::from(chart.step), f64::from(chart.limit)),
            (step, limit),
            "{row}"
        );
        assert!(
            (chart.run_length / run - 1.0).abs() < 1e-6,
            "{} of {row}",
            chart.run_length
        );
        assert!(before < every && run >= every, "{row}");
    }
}

#[test]
fn f8_golden_verdicts_raise_and_clear_where_they_should() {
    let (chart, mut state) = (Chart::new(AKRON), State::default());
    let mut changes = Vec::new();
    for (n, row) in VERDICTS.lines().skip(1).enumerate() {
        let (verdict, expected) = row.split_once(',').unwrap();
        let was = state.open.is_some();
        if verdict != "2" {
            let is_burst = state.take(chart, verdict == "1");
            state.open = is_burst.then_some(Uuid::nil());
        }
        assert_eq!(state.open.is_some(), expected == "1", "picture {n}");
        if state.open.is_some() != was {
            changes.push(n);
        }
    }
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(
        (2_000..2_180).contains(&changes[0]) && changes[1] > 2_400,
        "{changes:?}"
    );
}

#[test]
fn f8_at_the_usual_share_false_alarms_are_no_more_frequent_than_stated() {
    let chart = Chart::new(AKRON);
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let runs = 60;
    let mean = (0..runs)
        .map(|_| f64::from(pictures_until_alarm(chart, 0.004, &mut random)))
        .sum::<f64>()
        / f64::from(runs);
    // The run length is nearly exponential: the mean of 60 lies within four of its standard errors.
    let error = chart.run_length / f64::from(runs).sqrt();
    assert!(
        (mean - chart.run_length).abs() < 4.0 * error,
        "{mean} of {}",
        chart.run_length
    );
}

#[test]
fn f8_nine_of_ten_bursts_are_found_within_three_minutes_of_sixty_trays() {
    let chart = Chart::new(AKRON);
    let mut random = ChaCha8Rng::seed_from_u64(45);
    let found = (0..2_000).filter(|_| pictures_until_alarm(chart, 0.045, &mut random) <= 180);
    let found = found.count();
    // 0.895 by the exact distribution.
    assert!((1_730..1_850).contains(&found), "{found} of 2000");
}

fn inspection(verdict: Verdict) -> Inspection {
    let shot = crate::inspect::Shot {
        camera: "VS-306".to_owned(),
        line: Some("L3".to_owned()),
        taken_us: 0,
        arrived: std::time::Instant::now(),
        size_px: None,
        jpeg: Vec::new(),
    };
    Inspection {
        verdict,
        ..crate::inspect::not_performed(&shot, "")
    }
}

/// The alarms of a camera that sees these verdicts.
fn watched(burst: &mut Burst, verdicts: impl IntoIterator<Item = Verdict>) -> Vec<(bool, String)> {
    let mut events = Vec::new();
    for verdict in verdicts {
        let mut alarms = Alarms {
            at_us: 0,
            new_id: || Uuid::from_u128(8),
            events: &mut events,
        };
        burst.take(&inspection(verdict), &mut alarms);
    }
    let told = events.into_iter().map(|event| match event {
        protocol::event::Event::Alarm(alarm) => {
            assert_eq!((alarm.code.as_str(), alarm.subject.as_str()), (CODE, "VS-306"));
            assert_eq!(alarm.line.as_deref(), Some("L3"));
            (alarm.active, alarm.message)
        }
        other => panic!("{other:?}"),
    });
    told.collect()
}

fn burst() -> Burst {
    Burst::new(BurstPlan {
        camera: "VS-306".to_owned(),
        line: Some("L3".to_owned()),
        limit: AKRON,
    })
}

#[test]
fn a_burst_is_one_alarm_that_names_the_count_and_ends_with_the_burst_also_across_a_restart() {
    let mut before = burst();
    let rejects = [Verdict::Reject; 4];
    let told = watched(&mut before, rejects);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].0 && told[0].1.starts_with("3 of the last 3 pictures"),
        "{told:?}"
    );
    let mut after = burst();
    after.restore(&before.save().unwrap()).unwrap();
    let told = watched(&mut after, [Verdict::Pass; 163]);
    assert_eq!(told, []);
    let told = watched(&mut after, [Verdict::Pass; 10]);
    assert_eq!(
        told.iter().map(|(active, _)| *active).collect::<Vec<_>>(),
        [false]
    );
}

#[test]
fn pictures_that_nobody_could_judge_raise_and_clear_nothing() {
    let mut burst = burst();
    assert_eq!(watched(&mut burst, [Verdict::Unknown; 500]), []);
    assert_eq!(watched(&mut burst, [Verdict::Reject; 3]).len(), 1);
    assert_eq!(watched(&mut burst, [Verdict::Unknown; 500]), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is called usual and a burst: the chart keeps its word about false alarms.
    #[test]
    fn a_chart_alarms_for_nothing_no_more_often_than_it_says(
        usual in 0.002..0.1_f64, times in 2.5..12.0_f64, seed in any::<u64>(),
    ) {
        let limit = BurstLimit { usual, burst: (usual * times).min(0.9), false_alarm_every: 2_000 };
        let chart = Chart::new(limit);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let runs = 50;
        let mean = (0..runs)
            .map(|_| f64::from(pictures_until_alarm(chart, usual, &mut random)))
            .sum::<f64>() / f64::from(runs);
        prop_assert!(chart.run_length >= 2_000.0);
        prop_assert!(mean > chart.run_length * (1.0 - 5.0 / f64::from(runs).sqrt()), "{} {:?}", mean, chart);
    }

    /// More defects never make the sum smaller: no pass is worse than a reject.
    #[test]
    fn a_defect_more_never_ends_a_burst(verdicts in prop::collection::vec(any::<bool>(), 1..300), at in any::<prop::sample::Index>()) {
        let chart = Chart::new(AKRON);
        let (mut fewer, mut more) = (State::default(), State::default());
        let at = at.index(verdicts.len());
        for (n, is_defect) in verdicts.into_iter().enumerate() {
            fewer.take(chart, is_defect && n != at);
            more.take(chart, is_defect || n == at);
            prop_assert!(more.sum >= fewer.sum);
        }
    }
}

/// The faults of a configuration whose camera has this `burst`.
fn faults(burst: &str) -> Vec<String> {
    let text = format!(
        "[edge]\nname = \"e\"\ntenant = \"t\"\n[hub]\nmqtt = \"127.0.0.1:1883\"\n[[camera]]\nname = \"VS-306\"\n\
         directory = \"c\"\nburst = {burst}\n"
    );
    match crate::config::parse(&text) {
        Ok(config) => {
            assert_eq!(config.signals.bursts.len(), 1);
            Vec::new()
        }
        Err(faults) => faults.into_iter().map(|fault| fault.message).collect(),
    }
}

#[test]
fn shares_that_make_no_burst_are_named_with_what_would() {
    assert_eq!(faults("{}"), [""; 0]);
    assert_eq!(
        faults("{ usual = 0.01, at = 0.02, false_alarm_every = 1000 }"),
        [""; 0]
    );
    for (burst, named) in [
        ("{ usual = 0.0 }", "`burst.usual`"),
        ("{ usual = 0.03 }", "at least twice `usual`"),
        ("{ at = 0.95 }", "at most 0.9"),
        ("{ false_alarm_every = 5 }", "false_alarm_every"),
        ("{ share = 0.1 }", "share"),
    ] {
        let found = faults(burst);
        assert!(
            found.iter().any(|fault| fault.contains(named)),
            "{burst}: {found:?}"
        );
    }
}
