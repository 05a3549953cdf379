//! Does folding keep extremes, gaps and the share of good readings, however coarse it is?

use proptest::prelude::*;

use super::*;
use crate::series::query::plan::{Wanted, plan};

const SECOND_US: Micros = 1_000_000;

fn point(second: i64, value: f64) -> Point {
    Point {
        time_us: second * SECOND_US,
        value: Some(value),
        quality: Quality::GOOD,
    }
}

fn bad(second: i64) -> Point {
    Point {
        time_us: second * SECOND_US,
        value: None,
        quality: Quality::BAD_TIMEOUT,
    }
}

fn raw_plan(to_s: i64, points: usize) -> Plan {
    let wanted = Wanted {
        from_us: 0,
        to_us: to_s * SECOND_US,
        points,
        rows: Some(0),
    };
    plan(&wanted)
}

fn folded(points: &[Point], to_s: i64, points_max: usize, period_us: Micros) -> TagTrend {
    let mut fold = Fold::new(&raw_plan(to_s, points_max), 0, Rules::of(period_us, points_max));
    for point in points {
        fold.reading(*point);
    }
    fold.finish(1, to_s * SECOND_US)
}

#[test]
fn a_line_is_not_drawn_through_silence_or_through_what_is_bad() {
    let mut points: Vec<Point> = (0..10).map(|second| point(second, 1.0)).collect();
    points.extend((20..25).map(|second| point(second, 2.0)));
    points.extend((25..28).map(bad));
    points.extend((28..40).map(|second| point(second, 3.0)));
    let trend = folded(&points, 60, 1_000, SECOND_US);
    let gaps: Vec<_> = trend
        .gaps
        .iter()
        .map(|gap| (gap.from_us / SECOND_US, gap.to_us / SECOND_US, gap.kind))
        .collect();
    assert_eq!(
        gaps,
        [
            (9, 20, GapKind::Silent),
            (25, 28, GapKind::Bad),
            (39, 60, GapKind::Silent)
        ]
    );
    assert_eq!((trend.n, trend.n_good, trend.resolution_us), (30, 27, 0));
}

#[test]
fn the_mean_weighs_by_time_and_takes_neither_bad_nor_uncertain_values() {
    // 10 for one second, then 20 for nine: by count 15, by time 19. On change, so that a value stands.
    let trend = folded(&[point(0, 10.0), point(1, 20.0)], 10, 100, 0);
    assert!((trend.mean.unwrap() - 19.0).abs() < 1e-9);
    let doubtful = Point {
        quality: Quality::UNCERTAIN,
        ..point(5, 1e6)
    };
    let trend = folded(&[point(0, 10.0), doubtful, point(8, 10.0)], 10, 100, 0);
    assert!((trend.mean.unwrap() - 10.0).abs() < 1e-9 && (trend.seconds - 7.0).abs() < 1e-9);
    assert_eq!((trend.n, trend.n_good), (3, 2));
}

#[test]
fn a_reading_before_the_range_says_what_stands_at_its_start() {
    let mut fold = Fold::new(&raw_plan(10, 100), 0, Rules::of(0, 100));
    fold.reading(point(-100, 7.0));
    let trend = fold.finish(1, 10 * SECOND_US);
    assert!((trend.mean.unwrap() - 7.0).abs() < 1e-9 && (trend.seconds - 10.0).abs() < 1e-9);
    assert_eq!(trend.n, 0);
}

#[test]
fn grains_of_a_rollup_and_readings_make_one_bucket() {
    let minute = 60 * SECOND_US;
    let plan = Plan {
        width_us: 2 * minute,
        ..raw_plan(240, 8)
    };
    let mut fold = Fold::new(&plan, 0, Rules::of(SECOND_US, 8));
    let at = |second: i64, value| At {
        time_us: second * SECOND_US,
        value,
    };
    fold.grain(&Grain {
        n: 60,
        n_good: 60,
        n_bad: 0,
        first_us: 0,
        last_us: 59 * SECOND_US,
        min: Some(at(7, 1.0)),
        max: Some(at(9, 9.0)),
        first: Some(2.0),
        last: Some(3.0),
        ends_good: true,
        weighted: 117.0,
        seconds: 59.0,
    });
    for second in 60..120 {
        fold.reading(point(second, 4.0));
    }
    let trend = fold.finish(1, 120 * SECOND_US);
    let [bucket] = &trend.buckets[..] else {
        panic!("{:?}", trend.buckets)
    };
    assert_eq!(
        (bucket.n, bucket.min.unwrap().value, bucket.max.unwrap().value),
        (120, 1.0, 9.0)
    );
    assert_eq!(
        (bucket.first.unwrap().value, bucket.last.unwrap().value),
        (2.0, 4.0)
    );
    assert!((trend.mean.unwrap() - 3.0).abs() < 1e-9);
    assert!(trend.gaps.is_empty());
}

proptest! {
    #[test]
    fn no_extreme_is_ever_lost_and_the_answer_is_as_small_as_asked(
        values in prop::collection::vec((1..5_i64, prop::option::weighted(0.9, -1e3..1e3_f64)), 1..400),
        points_max in 4..60_usize,
    ) {
        let mut second = 0;
        let readings: Vec<Point> = values.iter().map(|(step, value)| {
            second += step;
            value.map_or_else(|| bad(second), |value| point(second, value))
        }).collect();
        let trend = folded(&readings, second + 1, points_max, SECOND_US);
        let all = readings.iter().filter_map(|reading| reading.value);
        let (least, greatest) = all.fold((f64::MAX, f64::MIN), |(a, b), value| (a.min(value), b.max(value)));
        prop_assert_eq!(trend.n, readings.len() as u64);
        if let Some(points) = &trend.points {
            prop_assert_eq!(points, &readings);
        } else {
            prop_assert!(trend.buckets.len() * 4 <= points_max);
            let of = |pick: fn(&Bucket) -> Option<At>| {
                trend.buckets.iter().filter_map(pick).map(|at| at.value).collect::<Vec<_>>()
            };
            if least <= greatest {
                prop_assert!(of(|it| it.min).into_iter().fold(f64::MAX, f64::min).total_cmp(&least).is_eq());
                prop_assert!(of(|it| it.max).into_iter().fold(f64::MIN, f64::max).total_cmp(&greatest).is_eq());
            }
            for bucket in &trend.buckets {
                for at in [bucket.first, bucket.min, bucket.max, bucket.last].into_iter().flatten() {
                    let told = Point {
                        time_us: at.time_us,
                        value: Some(at.value),
                        quality: Quality::GOOD,
                    };
                    prop_assert!(readings.contains(&told));
                    prop_assert!((bucket.from_us..bucket.from_us + trend.resolution_us).contains(&at.time_us));
                }
            }
        }
        // A gap never covers a good reading.
        for gap in &trend.gaps {
            let inside = readings.iter().filter(|it| it.value.is_some());
            prop_assert!(inside.into_iter().all(|it| it.time_us <= gap.from_us || it.time_us >= gap.to_us), "{:?}", gap);
        }
        if let Some(mean) = trend.mean {
            prop_assert!((least - 1e-9..=greatest + 1e-9).contains(&mean));
        }
    }
}
