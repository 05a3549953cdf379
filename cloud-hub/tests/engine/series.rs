//! A range query never loses a reading out of limit, however few points are asked for.

use cloud_hub::{kernel::clock::Clock, series::query};
use protocol::{Quality, Reading, lane::Lane, reading::Alias};

use crate::{
    ingest::Intake,
    storage::has_timescale,
    support::{FrameMaker, TestDatabase, akron, start_cluster_with},
};

#[tokio::test]
async fn one_dip_among_thousands_of_readings_is_in_the_answer() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let from = Clock::system().now_us() - 3 * 3_600_000_000;
    let readings = (0..9_000).map(|second| {
        let at = from + second * 1_000_000;
        match second {
            4_321 => Reading::new(Alias(0), at, 71.1, Quality::GOOD),
            7_000 => Reading::bad(Alias(0), at, Quality::BAD_TIMEOUT),
            _ => Reading::new(
                Alias(0),
                at,
                73.0 + 0.1 * f64::from((second % 7) as i32),
                Quality::GOOD,
            ),
        }
    });
    intake
        .frame(
            &maker,
            &maker.frame(Lane::Backfill, 0, readings.collect(), vec![]),
        )
        .await;

    let mut tx = test.db.begin(&akron()).await.unwrap();
    let tag: i32 = sqlx::query_scalar("SELECT id FROM tag WHERE name = 'TT-101'")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    let to = from + 9_000 * 1_000_000;
    let spec = query::TagSpec {
        id: tag,
        period_us: 1_000_000,
    };
    let now = Clock::system().now_us();
    let few = query::range(&mut tx, spec, (from, to), 20, now).await.unwrap();
    assert!(
        few.points.len() <= 25 && few.resolution_us > 0,
        "{}",
        few.points.len()
    );
    let dip = few
        .points
        .iter()
        .find(|point| point.value == Some(71.1))
        .expect("the dip is in");
    assert_eq!(dip.time_us, from + 4_321 * 1_000_000);
    assert!(
        few.points
            .iter()
            .any(|point| point.value.is_none() && point.quality.is_bad())
    );
    assert!(few.points.is_sorted_by_key(|point| point.time_us));

    let raw = query::range(&mut tx, spec, (from, from + 10_000_000), 20, now)
        .await
        .unwrap();
    assert_eq!((raw.resolution_us, raw.points.len()), (0, 10));
    let last = query::last(&mut tx, &[tag]).await.unwrap();
    assert_eq!(last[0].1.time_us, from + 8_999 * 1_000_000);
}

#[tokio::test]
async fn on_timescaledb_the_same_names_do_the_same() {
    if !has_timescale() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_cluster_with(dir.path(), Some("timescaledb")).await;
    let test = TestDatabase::create_on(&cluster).await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    intake
        .frame(
            &maker,
            &maker.live(0, Clock::system().now_us() - 5_000_000_000, 4_000),
        )
        .await;
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let form: String = sqlx::query_scalar("SELECT storage_form()")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    assert!(form.starts_with("timescaledb-"), "{form}");
    let made: i32 = sqlx::query_scalar("SELECT ensure_partitions(current_date, current_date + 7)")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    assert_eq!(made, 0, "a hypertable makes its own");
    let now = Clock::system().now_us();
    let spec = query::TagSpec {
        id: 1,
        period_us: 1_000_000,
    };
    let found = query::range(&mut tx, spec, (now - 6_000_000_000, now), 100, now)
        .await
        .unwrap();
    assert!(!found.points.is_empty());
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM reading").await, 4_000);
    drop(tx);
    cluster.stop().await;
}

/// A day of a 1 Hz tag with one dip, one silence and a bad minute.
async fn a_day(test: &TestDatabase) -> (Intake, FrameMaker, i64) {
    let (intake, maker) = (Intake::start(test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let now_us = Clock::system().now_us();
    let from = now_us - 26 * 3_600_000_000;
    let from = from - from.rem_euclid(3_600_000_000) + 17_000_000;
    for (seq, start) in (0..).zip((0..86_400).step_by(9_000)) {
        let seconds = start..(start + 9_000).min(86_400);
        let silent = 30_000..30_600;
        let readings = seconds
            .filter(|second| !silent.contains(second))
            .map(|second: i64| {
                let at = from + second * 1_000_000;
                match second {
                    50_000 => Reading::new(Alias(0), at, 60.0, Quality::GOOD),
                    70_000..70_060 => Reading::bad(Alias(0), at, Quality::BAD_TIMEOUT),
                    _ => Reading::new(Alias(0), at, 72.0 + (second % 11) as f64 / 10.0, Quality::GOOD),
                }
            });
        let frame = maker.frame(Lane::Backfill, seq, readings.collect(), vec![]);
        intake.frame(&maker, &frame).await;
    }
    (intake, maker, from)
}

#[tokio::test]
async fn rollups_and_readings_tell_the_same_of_a_day_and_late_readings_correct_both() {
    let test = TestDatabase::create().await;
    let (intake, maker, from) = a_day(&test).await;
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let tag: i32 = sqlx::query_scalar("SELECT id FROM tag WHERE name = 'TT-101'")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    let spec = |period_us| query::TagSpec { id: tag, period_us };
    let to = from + 86_400 * 1_000_000;
    let ask = |tags: &'static [query::TagSpec], points| query::Asked {
        tags,
        from_us: from,
        to_us: to,
        points,
        now_us: Clock::system().now_us(),
    };
    let tags: &'static [query::TagSpec] = Vec::leak(vec![spec(1_000_000)]);
    let dirty = query::trend(&mut tx, &ask(tags, 400)).await.unwrap().remove(0);
    drop(tx);
    // Rollups are made: the answer stays.
    let mut tx = test.db.begin(&akron()).await.unwrap();
    for _ in 0..100 {
        let made: Option<i32> = sqlx::query_scalar("SELECT refresh_rollups(now() + interval '1 day', 1000)")
            .fetch_one(tx.conn())
            .await
            .unwrap();
        if made == Some(0) {
            break;
        }
    }
    tx.commit_unaudited("a test's").await.unwrap();
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let rolled = query::trend(&mut tx, &ask(tags, 400)).await.unwrap().remove(0);
    assert_eq!((rolled.n, rolled.n_good), (85_800, 85_740));
    assert_eq!((rolled.n, rolled.n_good), (dirty.n, dirty.n_good));
    assert!((rolled.mean.unwrap() - dirty.mean.unwrap()).abs() < 1e-9);
    let least = |trend: &query::TagTrend| {
        let all = trend.buckets.iter().filter_map(|bucket| bucket.min);
        all.min_by(|a, b| a.value.total_cmp(&b.value)).unwrap()
    };
    assert_eq!(
        (least(&rolled).value, least(&rolled).time_us),
        (60.0, from + 50_000 * 1_000_000)
    );
    assert!(rolled.buckets.len() * 4 <= 400 && rolled.resolution_us > 60_000_000);
    let silent = rolled
        .gaps
        .iter()
        .find(|gap| gap.kind == query::GapKind::Silent)
        .unwrap();
    assert_eq!(
        (silent.from_us, silent.to_us),
        (from + 29_999 * 1_000_000, from + 30_600 * 1_000_000)
    );
    // The same from the readings alone.
    let raw = query::trend(&mut tx, &ask(tags, 10_000)).await.unwrap().remove(0);
    assert_eq!((raw.n, raw.n_good), (rolled.n, rolled.n_good));
    assert!(
        (raw.mean.unwrap() - rolled.mean.unwrap()).abs() < 1e-9,
        "{:?} {:?}",
        raw.mean,
        rolled.mean
    );
    assert!((raw.seconds - rolled.seconds).abs() < 1e-6);
    assert!(
        raw.gaps.iter().any(|gap| gap.kind == query::GapKind::Bad),
        "{:?}",
        raw.gaps
    );
    drop(tx);

    let late = (30_000..30_600)
        .map(|second: i64| Reading::new(Alias(0), from + second * 1_000_000, 50.0, Quality::GOOD));
    intake
        .frame(&maker, &maker.frame(Lane::Backfill, 99, late.collect(), vec![]))
        .await;
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let corrected = query::trend(&mut tx, &ask(tags, 400)).await.unwrap().remove(0);
    assert_eq!((corrected.n, least(&corrected).value), (86_400, 50.0));
    assert!(
        corrected
            .gaps
            .iter()
            .all(|gap| gap.kind != query::GapKind::Silent)
    );
    let then = query::as_of(&mut tx, &[tag], from + 50_000 * 1_000_000 + 1, 1_000_000)
        .await
        .unwrap();
    assert_eq!(then[0].1.value, Some(60.0));
    let before = query::as_of(&mut tx, &[tag], from - 1, 86_400_000_000)
        .await
        .unwrap();
    assert!(before.is_empty());
}
