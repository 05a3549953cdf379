//! What does each kind of rule find in a stream of readings, and what does it leave alone?

use super::*;
use crate::alarm::model::BlockMeans;

const SECOND: Micros = 1_000_000;

fn spec(kind: Kind) -> Spec {
    Spec {
        kind,
        band: AlarmBand {
            low: None,
            high: Some(5.0),
            deadband: 0.5,
        },
        on_delay_us: 0,
        off_delay_us: 0,
        window_us: 60 * SECOND,
        score_max: 4.0,
        is_seasonal: false,
        tags: vec![1],
        running_tag: None,
    }
}

fn reading(second: i64, value: f64) -> Input {
    Input {
        tag_id: 1,
        time_us: second * SECOND,
        value: Some(value),
        quality: Quality::GOOD,
    }
}

fn turns(spec: &Spec, model: Option<&Model>, inputs: &[Input]) -> Vec<(i64, bool)> {
    let (mut watch, mut turns) = (Watch::default(), Vec::new());
    watch.begin(0);
    for input in inputs {
        watch.take(spec, model, input, &mut turns);
    }
    turns
        .iter()
        .map(|turn| (turn.at_us / SECOND, turn.is_active))
        .collect()
}

#[test]
fn a_threshold_waits_for_its_delay_and_holds_within_its_deadband() {
    let slow = Spec {
        on_delay_us: 3 * SECOND,
        ..spec(Kind::Threshold)
    };
    let values = [4.0, 6.0, 4.0, 6.0, 6.0, 6.0, 6.0, 4.8, 4.8, 4.4, 4.0];
    let inputs: Vec<Input> = (0..)
        .zip(values)
        .map(|(second, value)| reading(second, value))
        .collect();
    assert_eq!(turns(&slow, None, &inputs), [(6, true), (9, false)]);
}

#[test]
fn a_bad_reading_neither_begins_nor_ends_an_alarm_of_a_value() {
    let bad = Input {
        value: None,
        quality: Quality::BAD_TIMEOUT,
        ..reading(2, 0.0)
    };
    let inputs = [
        reading(0, 4.0),
        reading(1, 6.0),
        bad,
        reading(3, 6.0),
        reading(4, 4.0),
    ];
    assert_eq!(
        turns(&spec(Kind::Threshold), None, &inputs),
        [(1, true), (4, false)]
    );
}

#[test]
fn silence_is_an_alarm_from_the_moment_the_window_was_over() {
    let inputs = [
        reading(0, 1.0),
        reading(30, 1.0),
        reading(200, 1.0),
        reading(230, 1.0),
    ];
    let silent = spec(Kind::NoData);
    assert_eq!(turns(&silent, None, &inputs), [(90, true), (200, false)]);
    let (mut watch, mut found) = (Watch::default(), Vec::new());
    watch.begin(0);
    watch.pass(&silent, None, 60 * SECOND, &mut found);
    assert!(found.is_empty());
    watch.pass(&silent, None, 61 * SECOND, &mut found);
    assert_eq!(
        found[0].at_us,
        60 * SECOND,
        "a tag that never spoke is silent too"
    );
}

#[test]
fn a_rate_is_the_change_per_minute_over_the_window() {
    let rising = |second: i64| reading(second, 10.0 + 0.1 * second as f64);
    let steep = |second: i64| reading(second, 22.0 + 0.3 * (second - 120) as f64);
    let inputs: Vec<Input> = (0..120).map(rising).chain((120..300).map(steep)).collect();
    // 6 a minute is more than 5 at once, half a window after the first reading.
    assert_eq!(turns(&spec(Kind::Rate), None, &inputs), [(30, true)]);
    let limit = Spec {
        band: AlarmBand {
            high: Some(12.0),
            ..spec(Kind::Rate).band
        },
        ..spec(Kind::Rate)
    };
    let found = turns(&limit, None, &inputs);
    assert!(matches!(found[..], [(121..=180, true)]), "{found:?}");
}

fn baseline(kind: Kind) -> Model {
    let blocks: Vec<BlockMeans> = (0..200)
        .map(|n| BlockMeans {
            from_us: n * 60 * SECOND,
            means: vec![10.0 + [0.1, -0.1, 0.2, -0.2, 0.0][(n % 5) as usize]],
        })
        .collect();
    Model::learn(kind, None, &blocks, 1).unwrap()
}

#[test]
fn a_block_is_judged_against_what_is_normal_and_only_while_the_line_runs() {
    let model = baseline(Kind::Mad);
    let mut masked = spec(Kind::Mad);
    masked.running_tag = Some(9);
    let rate = |second: i64, value: f64| Input {
        tag_id: 9,
        ..reading(second, value)
    };
    let mut inputs = vec![rate(0, 40.0)];
    inputs.extend((1..120).map(|second| reading(second, 10.0)));
    inputs.extend((120..300).map(|second| reading(second, 14.0)));
    let found = turns(&masked, Some(&model), &inputs);
    assert_eq!(found, [(180, true)], "the first strange block ends at 180 s");
    inputs.push(rate(300, 0.0));
    inputs.extend((301..900).map(|second| reading(second, 0.0)));
    assert_eq!(turns(&masked, Some(&model), &inputs), [(180, true), (300, false)]);
    assert_eq!(
        turns(&masked, None, &inputs),
        [],
        "without a model nothing is strange"
    );
}

#[test]
fn a_slow_drift_is_found_by_both_charts_and_not_by_a_single_block() {
    for (kind, score_max) in [(Kind::Cusum, 5.0), (Kind::Ewma, 2.814), (Kind::ZScore, 6.0)] {
        let model = baseline(kind);
        let spec = Spec {
            score_max,
            ..spec(kind)
        };
        let drift = |minute: i64| if minute < 20 { 0.0 } else { 0.15 };
        let inputs: Vec<Input> = (0..120 * 6)
            .map(|ten| {
                let minute = ten / 6;
                let noise = [0.1, -0.1, 0.2, -0.2, 0.0][(minute % 5) as usize];
                reading(ten * 10, 10.0 + noise + drift(minute))
            })
            .collect();
        let found = turns(&spec, Some(&model), &inputs);
        if kind == Kind::ZScore {
            assert!(found.is_empty(), "{found:?}");
        } else {
            assert!(
                matches!(found.first(), Some((1_200..=4_000, true))),
                "{kind:?} {found:?}"
            );
        }
    }
}

#[test]
fn the_tags_of_an_asset_are_strange_together_though_each_is_normal() {
    let pair = |n: i64| [70.0 + (n % 50) as f64, 3.0 + 0.1 * (n % 50) as f64];
    let blocks: Vec<BlockMeans> = (0..400)
        .map(|n| BlockMeans {
            from_us: n * 60 * SECOND,
            means: pair(n * 7).to_vec(),
        })
        .collect();
    let model = Model::learn(Kind::IsolationForest, None, &blocks, 5).unwrap();
    let forest = Spec {
        tags: vec![1, 2],
        score_max: 0.58,
        ..spec(Kind::IsolationForest)
    };
    let normal = model.forest().unwrap().score(&pair(21)).unwrap();
    let strange = model.forest().unwrap().score(&[71.0, 7.8]).unwrap();
    assert!(normal < 0.55 && strange > 0.6, "{normal} {strange}");
    let block = |minute: i64, [a, b]: [f64; 2]| {
        [
            reading(minute * 60, a),
            Input {
                tag_id: 2,
                ..reading(minute * 60 + 1, b)
            },
        ]
    };
    let mut inputs: Vec<Input> = (0..10)
        .flat_map(|minute| block(minute, pair(20 + minute)))
        .collect();
    inputs.extend((10..12).flat_map(|minute| block(minute, [71.0, 7.8])));
    inputs.extend((12..14).flat_map(|minute| block(minute, pair(22))));
    assert_eq!(turns(&forest, Some(&model), &inputs), [(660, true), (780, false)]);
}
