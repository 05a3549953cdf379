//! Is a rollup what the readings say, in whatever order they came? And do partitions, retention, compression and the
//! conversion to a hypertable lose nothing? Everything runs on plain PostgreSQL, and on TimescaleDB where it is installed.

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use chrono::{DateTime, Utc};
use cloud_hub::{
    broker::Settled,
    embedded::OWNER_ROLE,
    kernel::clock::{Clock, time_from_us},
    series::{
        convert::{ConvertError, convert},
        partitions, report, upkeep,
    },
    tenant::settings::StorageSettings,
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use protocol::{Quality, Reading, lane::Lane, reading::Alias, topic::Channel};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::{
    ingest::Intake,
    support::{FrameMaker, TestDatabase, akron, cuyahoga, start_cluster, start_cluster_with},
};

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
/// 2000-01-01, where buckets begin.
const ORIGIN_US: i64 = 946_684_800_000_000;
const CASES: u32 = 8;
const CASES_SOAK: u32 = 200;

/// Whether the PostgreSQL that tests use has TimescaleDB; says so loudly when it has not.
pub(crate) fn has_timescale() -> bool {
    let program = std::env::var_os("FOODFLOW_PG_BIN").map_or_else(
        || PathBuf::from("pg_config"),
        |dir| PathBuf::from(dir).join("pg_config"),
    );
    let library_dir = Command::new(program).arg("--pkglibdir").output();
    let is_there = library_dir.is_ok_and(|output| {
        let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        PathBuf::from(dir).join("timescaledb.so").exists()
    });
    if !is_there {
        eprintln!("SKIPPED: TimescaleDB is not installed, so its storage forms were not tested");
    }
    is_there
}

async fn refresh(test: &TestDatabase, until: DateTime<Utc>) {
    loop {
        let mut tx = test.db.begin(&akron()).await.unwrap();
        let marks: Option<i32> = sqlx::query_scalar("SELECT refresh_rollups($1, 7)")
            .bind(until)
            .fetch_one(tx.conn())
            .await
            .unwrap();
        tx.commit_unaudited("rollups follow from the readings")
            .await
            .unwrap();
        if marks.expect("nobody else is at it") == 0 {
            return;
        }
    }
}

fn far_future() -> DateTime<Utc> {
    time_from_us(Clock::system().now_us() + 400 * DAY_US)
}

// === a bucket, computed here ===

type Row = (
    i64,
    i32,
    i32,
    i32,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    f64,
    f64,
    f64,
);

fn is_good(quality: Quality) -> bool {
    quality.code() < 0x4000
}

/// What buckets of `width_us` of these readings must be; `hold_s` is as long as a value stands for what follows.
fn buckets(readings: &[Reading], width_us: i64, hold_s: f64) -> Vec<Row> {
    let mut by_bucket: BTreeMap<i64, Vec<Reading>> = BTreeMap::new();
    for reading in readings {
        let bucket = (reading.time_us - ORIGIN_US).div_euclid(width_us) * width_us + ORIGIN_US;
        by_bucket.entry(bucket).or_default().push(*reading);
    }
    let of_bucket = |(bucket, mut readings): (i64, Vec<Reading>)| {
        // As SQL orders: nothing comes after every value.
        let order = |reading: &Reading| {
            (
                reading.time_us,
                reading.value().is_none(),
                reading.quality.to_i16(),
            )
        };
        readings.sort_by(|a, b| {
            let values = a.value().unwrap_or(0.0).total_cmp(&b.value().unwrap_or(0.0));
            let (a, b) = (order(a), order(b));
            (a.0, a.1).cmp(&(b.0, b.1)).then(values).then(a.2.cmp(&b.2))
        });
        let values = || readings.iter().filter_map(Reading::value);
        let good = |reading: &&Reading| is_good(reading.quality) && reading.value().is_some();
        let (mut tw_sum, mut tw_seconds) = (0.0, 0.0);
        for pair in readings.windows(2) {
            if good(&&pair[0]) {
                let held = ((pair[1].time_us - pair[0].time_us) as f64 / 1e6).min(hold_s);
                tw_sum += pair[0].value().unwrap() * held;
                tw_seconds += held;
            }
        }
        (
            bucket,
            readings.len() as i32,
            readings.iter().filter(good).count() as i32,
            readings
                .iter()
                .filter(|reading| reading.value().is_none())
                .count() as i32,
            values().reduce(f64::min),
            values().reduce(f64::max),
            readings[0].value(),
            readings[readings.len() - 1].value(),
            readings.iter().filter(good).filter_map(Reading::value).sum(),
            tw_sum,
            tw_seconds,
        )
    };
    by_bucket.into_iter().map(of_bucket).collect()
}

fn assert_same(what: &str, found: &[Row], expected: &[Row]) {
    let exact = |row: &Row| (row.0, row.1, row.2, row.3, row.4, row.5, row.6, row.7, row.8);
    assert_eq!(
        found.iter().map(exact).collect::<Vec<_>>(),
        expected.iter().map(exact).collect::<Vec<_>>(),
        "{what}"
    );
    for (found, expected) in found.iter().zip(expected) {
        // Sums of products are added up in another order.
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(
            near(found.9, expected.9) && near(found.10, expected.10),
            "{what}: {found:?} {expected:?}"
        );
    }
}

const COLUMNS: &str = "(extract(epoch FROM bucket) * 1000000)::int8, n, n_good, n_bad, min, max, first, last, sum_good, \
                       tw_sum, tw_seconds";

async fn stored(test: &TestDatabase, view: &str, tag: i32) -> Vec<Row> {
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let sql = format!("SELECT {COLUMNS} FROM {view} WHERE tag_id = $1 ORDER BY 1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(tag)
        .fetch_all(tx.conn())
        .await
        .unwrap()
}

async fn series(test: &TestDatabase, tag: i32, (from_us, to_us): (i64, i64), width_us: i64) -> Vec<Row> {
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let sql =
        format!("SELECT {COLUMNS} FROM reading_series($1, $2, $3, $4 * interval '1 microsecond') ORDER BY 1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(tag)
        .bind(time_from_us(from_us))
        .bind(time_from_us(to_us))
        .bind(width_us)
        .fetch_all(tx.conn())
        .await
        .unwrap()
}

// === any order of arrival ===

/// Readings of two days, in quarters so that sums are exact: mostly good, some uncertain, some bad, some at one time.
fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let one = (0..3_u32, 0..200_i64, 0..2_000_i64, 0..400_i32, 0..20_u8).prop_map(
        |(tag, place, ms, quarters, fate)| {
            // Bursts within minutes, minutes within a few hours, of two days.
            let time_us = (place % 4) * 13 * HOUR_US + (place / 4) * 40_000_000 + ms * 37_000;
            match fate {
                0 => Reading::bad(Alias(tag), time_us, Quality::BAD_TIMEOUT),
                1 => Reading::new(
                    Alias(tag),
                    time_us,
                    f64::from(quarters) / 4.0,
                    Quality::from_i16(0x4000),
                ),
                _ => Reading::new(Alias(tag), time_us, f64::from(quarters) / 4.0, Quality::GOOD),
            }
        },
    );
    prop::collection::vec(one, 50..400)
}

async fn rollups_are_what_the_readings_say(test: &TestDatabase) {
    let intake = Intake::start(test);
    let is_soak = std::env::var_os("FOODFLOW_SOAK").is_some();
    let cases = if is_soak { CASES_SOAK } else { CASES };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let begin_us =
        ORIGIN_US + (Clock::system().now_us() - ORIGIN_US).div_euclid(DAY_US) * DAY_US - 3 * DAY_US;
    let strategy = (
        readings(),
        prop::collection::vec((1..60_usize, 0..4_u8), 1..40),
        any::<u64>(),
    );
    for case in 0..cases {
        let (mut readings, parts, seed) = strategy.new_tree(&mut runner).unwrap().current();
        let edge = format!("order-{case}");
        let tags: Vec<String> = (0..3).map(|tag| format!("{edge}-{tag}")).collect();
        let maker = FrameMaker::new(&edge, &tags.iter().map(String::as_str).collect::<Vec<_>>());
        intake.dictionary(&maker).await;
        for reading in &mut readings {
            reading.time_us += begin_us;
        }
        shuffle(&mut readings, seed);
        // In parts of any size, now and then with the rollups made in between, some sent twice.
        let (mut left, mut seq) = (readings.as_slice(), 0);
        for (size, what) in parts.iter().cycle() {
            let (part, rest) = left.split_at((*size).min(left.len()));
            let frame = maker.frame(Lane::Backfill, seq, part.to_vec(), vec![]);
            for _ in 0..=usize::from(*what == 1) {
                assert_eq!(intake.frame(&maker, &frame).await, Settled::Stored);
            }
            if *what == 2 {
                refresh(test, far_future()).await;
            }
            (left, seq) = (rest, seq + 1);
            if left.is_empty() {
                break;
            }
        }
        check_case(test, &tags, &readings, begin_us, seed).await;
    }
}

async fn check_case(test: &TestDatabase, tags: &[String], readings: &[Reading], begin_us: i64, seed: u64) {
    for (alias, name) in (0..).zip(tags) {
        let mut tx = test.db.begin(&akron()).await.unwrap();
        let tag: i32 = sqlx::query_scalar("SELECT id FROM tag WHERE name = $1")
            .bind(name)
            .fetch_one(tx.conn())
            .await
            .unwrap();
        drop(tx);
        let of_tag: Vec<Reading> = readings
            .iter()
            .filter(|reading| reading.tag == Alias(alias))
            .copied()
            .collect();
        // Exact before the rollups are made, for any range and width.
        let width_us =
            [MINUTE_US, 5 * MINUTE_US, HOUR_US, 6 * HOUR_US, DAY_US, 90_000_000][(seed % 6) as usize];
        let range = (
            begin_us + (seed % 7_777) as i64 * 1_000_000,
            begin_us + 2 * DAY_US + (seed % 991) as i64 * 1_000_000,
        );
        let within: Vec<Reading> = of_tag
            .iter()
            .filter(|it| (range.0..range.1).contains(&it.time_us))
            .copied()
            .collect();
        assert_same(
            "before",
            &series(test, tag, range, width_us).await,
            &buckets(&within, width_us, 300.0),
        );
        refresh(test, far_future()).await;
        for (view, width_us) in [
            ("reading_1m", MINUTE_US),
            ("reading_1h", HOUR_US),
            ("reading_1d", DAY_US),
        ] {
            assert_same(
                view,
                &stored(test, view, tag).await,
                &buckets(&of_tag, width_us, 300.0),
            );
        }
        assert_same(
            "after",
            &series(test, tag, range, width_us).await,
            &buckets(&within, width_us, 300.0),
        );
    }
}

fn shuffle(readings: &mut [Reading], seed: u64) {
    use rand::{SeedableRng as _, seq::SliceRandom as _};
    readings.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
}

#[tokio::test]
async fn rollups_are_what_the_readings_say_in_any_order_of_arrival() {
    rollups_are_what_the_readings_say(&TestDatabase::create().await).await;
}

// === partitions, retention, compression ===

/// Stores 2,000 readings; as an edge does, again and again until they are stored.
async fn put_day(intake: &Intake, maker: &FrameMaker, seq: u64, from_us: i64) {
    let readings = (0..2_000).map(|second| {
        Reading::new(
            Alias(0),
            from_us + second * 1_000_000,
            (second % 50) as f64,
            Quality::GOOD,
        )
    });
    let frame = maker.frame(Lane::Backfill, seq, readings.collect(), vec![]);
    let channel = Channel::Up(Lane::Backfill);
    loop {
        let settled = intake.put(maker, channel, frame.encode().unwrap()).await;
        match settled.await {
            Ok(settled) => return assert_eq!(settled, Settled::Stored),
            // Given back: somebody holds a lock.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

const READINGS: &str = "SELECT count(*) FROM reading";

#[tokio::test]
async fn a_day_that_came_late_gets_its_partition_and_keeps_every_reading() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let noon_us =
        ORIGIN_US + (Clock::system().now_us() - ORIGIN_US).div_euclid(DAY_US) * DAY_US - 30 * DAY_US;
    put_day(&intake, &maker, 0, noon_us).await;
    let now = Clock::system().now();
    assert_eq!(
        report::of_tenant(&test.db, &akron(), now)
            .await
            .unwrap()
            .stray_readings,
        2_000
    );
    assert_eq!(
        partitions::ensure(&test.db, &akron(), &Clock::system())
            .await
            .unwrap(),
        1
    );
    let after = report::of_tenant(&test.db, &akron(), now).await.unwrap();
    assert_eq!((after.stray_readings, after.partitions_ahead_days), (0, Some(7)));
    assert_eq!(test.count(&akron(), READINGS).await, 2_000);
    put_day(&intake, &maker, 1, noon_us + 3_600_000_000).await;
    assert_eq!(test.count(&akron(), READINGS).await, 4_000);
    assert!(after.faults().is_empty(), "{:?}", after.faults());
}

async fn retention_drops_readings_and_keeps_what_they_were(test: &TestDatabase) {
    let (intake, maker) = (Intake::start(test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let today_us = ORIGIN_US + (Clock::system().now_us() - ORIGIN_US).div_euclid(DAY_US) * DAY_US;
    put_day(&intake, &maker, 0, today_us - 20 * DAY_US).await;
    put_day(&intake, &maker, 1, today_us - 2 * DAY_US).await;
    partitions::ensure(&test.db, &akron(), &Clock::system())
        .await
        .unwrap();
    let kept = StorageSettings {
        reading_days: Some(7),
        minute_days: None,
    };
    let now = Clock::system().now();
    // Nothing goes before it is counted.
    assert_eq!(upkeep::retain(&test.db, &akron(), kept, now).await.unwrap(), 0);
    assert_eq!(test.count(&akron(), READINGS).await, 4_000);
    refresh(test, far_future()).await;
    upkeep::compress(&test.db, &akron(), now).await.unwrap();
    assert_eq!(upkeep::retain(&test.db, &akron(), kept, now).await.unwrap(), 1);
    assert_eq!(test.count(&akron(), READINGS).await, 2_000);
    let counted = "SELECT sum(n)::int8 FROM reading_1d";
    assert_eq!(test.count(&akron(), counted).await, 4_000);
    // A straggler of a dropped day does not make its rollup forget the day.
    let late = Reading::new(Alias(0), today_us - 20 * DAY_US, 1.0, Quality::GOOD);
    intake
        .frame(&maker, &maker.frame(Lane::Backfill, 2, vec![late], vec![]))
        .await;
    refresh(test, far_future()).await;
    assert_eq!(test.count(&akron(), counted).await, 4_000);
    let last = "SELECT count(*) FROM tag_last WHERE received_at IS NOT NULL";
    assert_eq!(test.count(&akron(), last).await, 1);
}

#[tokio::test]
async fn retention_drops_readings_and_keeps_their_rollups() {
    retention_drops_readings_and_keeps_what_they_were(&TestDatabase::create().await).await;
}

#[tokio::test]
async fn a_tenant_may_not_write_rollups_or_reach_around_a_partitioned_table() {
    let test = TestDatabase::create().await;
    let today = Clock::system().now().format("%Y%m%d");
    for sql in [
        "UPDATE rollup_1h SET n = 0".to_owned(),
        "DELETE FROM rollup_dirty".to_owned(),
        "DELETE FROM storage_horizon".to_owned(),
        format!("DELETE FROM reading_{today}"),
        "SELECT attach_range('reading', 'x', 'time', now(), now())".to_owned(),
    ] {
        let mut tx = test.db.begin(&akron()).await.unwrap();
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()))
            .execute(tx.conn())
            .await;
        let code = refused
            .unwrap_err()
            .as_database_error()
            .unwrap()
            .code()
            .map(std::borrow::Cow::into_owned);
        assert_eq!(code.as_deref(), Some("42501"), "{sql}");
    }
}

// === fairness ===

#[tokio::test]
async fn a_tenant_that_floods_does_not_hold_up_another() {
    let test = TestDatabase::create().await;
    let intake = Intake::start(&test);
    let flood = FrameMaker::new("e1", &["TT-101"]);
    let quiet = FrameMaker::new("e9", &["TT-901"]).in_tenant(cuyahoga().as_str());
    intake.dictionary(&flood).await;
    intake.dictionary(&quiet).await;
    let from_us = Clock::system().now_us() - HOUR_US;
    let mut waiting = Vec::new();
    for seq in 0..400 {
        let frame = flood.live(seq, from_us + seq as i64 * 1_000, 500);
        waiting.push(
            intake
                .put(&flood, Channel::Up(Lane::Live), frame.encode().unwrap())
                .await,
        );
    }
    assert_eq!(
        intake.frame(&quiet, &quiet.live(0, from_us, 10)).await,
        Settled::Stored
    );
    let all = waiting.len();
    waiting.retain_mut(|one| one.try_recv().is_err());
    assert!(
        waiting.len() > all / 2,
        "only {} of {all} frames that came before had to wait",
        waiting.len()
    );
    for one in waiting {
        assert_eq!(one.await.unwrap(), Settled::Stored);
    }
    assert_eq!(test.count(&akron(), READINGS).await, 200_000);
}

// === TimescaleDB ===

#[tokio::test]
async fn a_server_without_timescaledb_refuses_the_conversion_with_reasons() {
    let test = TestDatabase::create().await;
    let mut owner = test.owner().await;
    let refused = convert(&mut owner, &akron()).await.unwrap_err();
    let ConvertError::Refused(reasons) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("shared_preload_libraries")),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn on_timescaledb_rollups_retention_and_compression_do_the_same() {
    if !has_timescale() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_cluster_with(dir.path(), Some("timescaledb")).await;
    let test = TestDatabase::create_on(&cluster).await;
    assert_eq!(
        test.count(
            &akron(),
            "SELECT count(*) FROM pg_class WHERE relname = 'reading' AND relkind = 'p'"
        )
        .await,
        0
    );
    rollups_are_what_the_readings_say(&test).await;
    let report = report::of_tenant(&test.db, &akron(), Clock::system().now())
        .await
        .unwrap();
    assert_eq!(report.form, "timescaledb-community");
    let compressed = upkeep::compress(&test.db, &akron(), Clock::system().now())
        .await
        .unwrap();
    assert!(compressed > 0, "days that are over are compressed");
    // Late readings go into compressed chunks, which are compressed again.
    let before = test.count(&akron(), READINGS).await;
    let maker = FrameMaker::new("late", &["TT-999"]);
    let intake = Intake::start(&test);
    intake.dictionary(&maker).await;
    put_day(&intake, &maker, 0, Clock::system().now_us() - 3 * DAY_US).await;
    assert_eq!(test.count(&akron(), READINGS).await, before + 2_000);
    assert!(
        upkeep::compress(&test.db, &akron(), Clock::system().now())
            .await
            .unwrap()
            > 0
    );
    // So does a correction.
    let mut tx = test.db.begin(&akron()).await.unwrap();
    sqlx::query(
        "SELECT revise_reading(r.tag_id, r.time, 71.25, 0::int2, 2, t.edge_id) \
         FROM (SELECT min(r.time) AS time, r.tag_id FROM reading r GROUP BY r.tag_id) r \
         JOIN tag t ON t.id = r.tag_id WHERE t.name = 'TT-999'",
    )
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("a test").await.unwrap();
    let corrected = "SELECT count(*) FROM reading r JOIN tag t ON t.id = r.tag_id \
        WHERE t.name = 'TT-999' AND r.value = 71.25 \
        AND r.time = (SELECT min(x.time) FROM reading x WHERE x.tag_id = r.tag_id)";
    assert_eq!(test.count(&akron(), corrected).await, 1);
    assert_eq!(test.count(&akron(), READINGS).await, before + 2_000);
    cluster.stop().await;
}

#[tokio::test]
async fn on_timescaledb_retention_drops_chunks_and_keeps_rollups() {
    if !has_timescale() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_cluster_with(dir.path(), Some("timescaledb")).await;
    let test = TestDatabase::create_on(&cluster).await;
    retention_drops_readings_and_keeps_what_they_were(&test).await;
    cluster.stop().await;
}

const IS_PLAIN: &str = "SELECT (storage_form() = 'plain')::int::int8";

/// Polls a future some times and then drops it, as a process that is stopped does.
async fn stop_after<F: Future>(polls: usize, future: F) {
    let (mut future, mut left) = (std::pin::pin!(future), polls);
    std::future::poll_fn(|context| {
        left -= 1;
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
}

#[tokio::test]
async fn on_timescaledbs_apache_licence_all_but_compression_does_the_same() {
    if !has_timescale() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_cluster_with(dir.path(), Some("timescaledb")).await;
    let mut owner = cluster
        .address()
        .options("postgres", OWNER_ROLE)
        .connect()
        .await
        .unwrap();
    let data: String = sqlx::query_scalar("SHOW data_directory")
        .fetch_one(&mut owner)
        .await
        .unwrap();
    let settings = std::fs::OpenOptions::new()
        .append(true)
        .open(PathBuf::from(data).join("postgresql.conf"));
    std::io::Write::write_all(&mut settings.unwrap(), b"\ntimescaledb.license = 'apache'\n").unwrap();
    owner.close().await.unwrap();
    cluster.stop().await;
    let cluster = start_cluster_with(dir.path(), Some("timescaledb")).await;
    let test = TestDatabase::create_on(&cluster).await;
    let report = report::of_tenant(&test.db, &akron(), Clock::system().now())
        .await
        .unwrap();
    assert_eq!(
        (report.form.as_str(), report.lacks().len()),
        ("timescaledb-apache", 1)
    );
    retention_drops_readings_and_keeps_what_they_were(&test).await;
    rollups_are_what_the_readings_say(&test).await;
    assert_eq!(
        upkeep::compress(&test.db, &akron(), far_future()).await.unwrap(),
        0
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_database_that_gains_timescaledb_is_converted_without_losing_a_reading() {
    if !has_timescale() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_cluster(dir.path()).await;
    let test = TestDatabase::create_on(&cluster).await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let today_us = ORIGIN_US + (Clock::system().now_us() - ORIGIN_US).div_euclid(DAY_US) * DAY_US;
    for (seq, days) in [(0, 40), (1, 5), (2, 1), (3, 0)] {
        put_day(&intake, &maker, seq, today_us - days * DAY_US).await;
    }
    partitions::ensure(&test.db, &akron(), &Clock::system())
        .await
        .unwrap();
    put_day(&intake, &maker, 4, today_us - 100 * DAY_US).await;
    test.db.close().await;
    cluster.stop().await;

    let cluster = start_cluster_with(dir.path(), Some("timescaledb")).await;
    let test = TestDatabase::reopen_on(&cluster);
    // Stopped at any point, with readings that come meanwhile, it goes on where it was.
    let intake = Intake::start(&test);
    let mut expected = 10_000;
    for (seq, polls) in (10..).zip([5, 15, 30, 45, 60]) {
        let mut owner = test.owner().await;
        stop_after(polls, convert(&mut owner, &akron())).await;
        if test.count(&akron(), IS_PLAIN).await == 1 {
            put_day(&intake, &maker, seq, today_us - 5 * DAY_US + seq as i64).await;
            expected += 2_000;
        }
    }
    assert!(expected > 10_000, "it was stopped half way");
    drop(intake);
    let mut owner = test.owner().await;
    let done = convert(&mut owner, &akron()).await.unwrap();
    assert!(done.was_done || done.readings == expected, "{done:?}");
    assert!(convert(&mut owner, &akron()).await.unwrap().was_done);
    owner.close().await.unwrap();
    assert_eq!(test.count(&akron(), READINGS).await, expected);
    let intake = Intake::start(&test);
    intake.dictionary(&maker).await;
    put_day(&intake, &maker, 5, today_us - 3 * DAY_US).await;
    refresh(&test, far_future()).await;
    assert_eq!(
        test.count(&akron(), "SELECT sum(n)::int8 FROM reading_1d").await,
        expected + 2_000
    );
    assert!(
        upkeep::compress(&test.db, &akron(), Clock::system().now())
            .await
            .unwrap()
            >= 4
    );
    assert_eq!(test.count(&akron(), READINGS).await, expected + 2_000);
    cluster.stop().await;
}
