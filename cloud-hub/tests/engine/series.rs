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
    let few = query::range(&mut tx, tag, from, to, 20).await.unwrap();
    assert!(
        few.points.len() <= 21 && few.resolution_us > 0,
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
            .any(|point| point.value.is_none() && point.quality == Quality::BAD_TIMEOUT)
    );
    assert!(few.points.is_sorted_by_key(|point| point.time_us));

    let raw = query::range(&mut tx, tag, from, from + 10_000_000, 20)
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
    let found = query::range(&mut tx, 1, now - 6_000_000_000, now, 100)
        .await
        .unwrap();
    assert!(!found.points.is_empty());
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM reading").await, 4_000);
    drop(tx);
    cluster.stop().await;
}
