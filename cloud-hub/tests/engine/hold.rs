//! From a deviation to lots on hold: in one transaction, the right lots, only ever more.

use protocol::{event::Event, lane::Lane, limit::Phase};

use crate::{
    ingest::Intake,
    support::{FrameMaker, TestDatabase, akron},
};
use cloud_hub::{
    broker::Settled,
    fsq::workflow::deviation,
    kernel::{bulk::BulkConnection, clock::Clock},
};

const HELD: &str = "SELECT count(*) FROM lot WHERE status = 'held'";
const MINUTE_US: i64 = 60_000_000;

async fn set_up() -> (TestDatabase, Intake, FrameMaker) {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    (test, intake, maker)
}

async fn tell(intake: &Intake, maker: &FrameMaker, seq: u64, event: Event) {
    let settled = intake
        .frame(maker, &maker.frame(Lane::Events, seq, vec![], vec![event]))
        .await;
    assert_eq!(settled, Settled::Stored);
}

async fn run(test: &TestDatabase, sql: &'static str) {
    let mut tx = test.db.begin(&akron()).await.unwrap();
    sqlx::raw_sql(sql).execute(tx.conn()).await.unwrap();
    tx.commit_unaudited("the test sets its scene").await.unwrap();
}

#[tokio::test]
async fn a_dip_holds_the_lot_being_filled_and_no_other_line() {
    let (test, intake, maker) = set_up().await;
    let dip = Clock::system().now_us() - MINUTE_US;
    tell(
        &intake,
        &maker,
        0,
        maker.deviation(Phase::Opened, dip, dip + 2_000_000),
    )
    .await;
    assert_eq!(test.count(&akron(), HELD).await, 1);
    let right = "SELECT count(*) FROM hold h JOIN hold_lot ON hold_lot.hold_id = h.id JOIN lot l ON l.id = lot_id \
                 JOIN batch b ON b.id = l.batch_id JOIN line ON line.id = b.line_id \
                 WHERE line.code = 'L1' AND b.state = 'running' AND NOT h.widened";
    assert_eq!(test.count(&akron(), right).await, 1);
    let noted = "SELECT count(*) FROM domain_event WHERE kind IN ('CCPViolation', 'HoldPlaced')";
    assert_eq!(test.count(&akron(), noted).await, 2);
}

#[tokio::test]
async fn telling_a_deviation_again_adds_lots_and_never_removes_one() {
    let (test, intake, maker) = set_up().await;
    let dip = Clock::system().now_us() - 120 * MINUTE_US + MINUTE_US;
    // Yesterday's and today's lots end and start so that the dip's product reached only the running one.
    tell(
        &intake,
        &maker,
        0,
        maker.deviation(Phase::Opened, dip, dip + MINUTE_US),
    )
    .await;
    assert_eq!(test.count(&akron(), HELD).await, 1);
    // The lot is split: a second one was filled half an hour after the dip.
    run(
        &test,
        "INSERT INTO lot (id, code, kind, item_name, status, quantity, unit, equipment_id, produced_range) \
         SELECT gen_random_uuid(), 'SECOND', 'finished', 'x', 'released', 1, 'units', e.id, \
           tstzrange(now() - interval '85 minutes', now()) FROM equipment e WHERE e.code = 'L1-FILL'; \
         UPDATE lot SET produced_range = tstzrange(lower(produced_range), lower(produced_range) + interval '1 second') \
         WHERE status = 'held'",
    )
    .await;
    tell(
        &intake,
        &maker,
        1,
        maker.deviation(Phase::Extended, dip, dip + 2 * MINUTE_US),
    )
    .await;
    assert_eq!(test.count(&akron(), HELD).await, 2, "added, and the first kept");
    tell(
        &intake,
        &maker,
        2,
        maker.deviation(Phase::Closed, dip, dip + 3 * MINUTE_US),
    )
    .await;
    // A late repetition of the opening neither reopens it nor frees anything.
    tell(
        &intake,
        &maker,
        3,
        maker.deviation(Phase::Opened, dip, dip + MINUTE_US),
    )
    .await;
    assert_eq!(test.count(&akron(), HELD).await, 2);
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM hold").await, 1);
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM deviation WHERE status = 'closed'")
            .await,
        1
    );
}

#[tokio::test]
async fn what_was_made_of_a_held_lot_is_held_too() {
    let (test, intake, maker) = set_up().await;
    run(
        &test,
        "INSERT INTO lot (id, code, kind, item_name, status, quantity, unit) \
         VALUES ('00000000-0000-0000-0000-000000000001', 'REWORK', 'rework', 'x', 'released', 1, 'kg'); \
         INSERT INTO lot_edge (parent_id, child_id, quantity, unit, at) \
         SELECT l.id, '00000000-0000-0000-0000-000000000001', 1, 'kg', now() FROM lot l \
         JOIN batch b ON b.id = l.batch_id JOIN line ON line.id = b.line_id \
         WHERE line.code = 'L1' AND b.state = 'running'",
    )
    .await;
    let dip = Clock::system().now_us() - MINUTE_US;
    tell(&intake, &maker, 0, maker.deviation(Phase::Opened, dip, dip + 1)).await;
    assert_eq!(
        test.count(
            &akron(),
            "SELECT count(*) FROM lot WHERE status = 'held' AND code = 'REWORK'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn without_flow_links_the_whole_batch_is_held_and_the_hold_says_so() {
    let (test, intake, maker) = set_up().await;
    run(&test, "DELETE FROM flow_link").await;
    let dip = Clock::system().now_us() - MINUTE_US;
    tell(&intake, &maker, 0, maker.deviation(Phase::Opened, dip, dip + 1)).await;
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM hold WHERE widened")
            .await,
        1
    );
    assert_eq!(test.count(&akron(), HELD).await, 1);
}

#[tokio::test]
async fn an_event_about_an_unknown_point_is_kept_without_its_neighbours_being_lost() {
    let (test, intake, maker) = set_up().await;
    let dip = Clock::system().now_us() - MINUTE_US;
    let Event::Deviation(mut unknown) = maker.deviation(Phase::Opened, dip, dip) else {
        panic!()
    };
    unknown.ccp = "CCP-9".to_owned();
    let events = vec![
        Event::Deviation(unknown),
        maker.deviation(Phase::Opened, dip, dip),
    ];
    intake
        .frame(&maker, &maker.frame(Lane::Events, 0, vec![], events))
        .await;
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM deviation").await, 1);
    assert_eq!(
        test.count(
            &akron(),
            "SELECT count(*) FROM dead_letter WHERE reason LIKE '%CCP-9%'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_lot_that_begins_after_the_deviation_ended_is_held_when_its_product_arrives() {
    let (test, intake, maker) = set_up().await;
    let now = Clock::system().now();
    let dip = now.timestamp_micros() - 30 * MINUTE_US;
    // The lot of the dip's own time ends before the product of the dip reaches the filler.
    run(
        &test,
        "UPDATE lot SET produced_range = tstzrange(lower(produced_range), now() - interval '25 minutes') \
         WHERE status = 'in_process'",
    )
    .await;
    tell(
        &intake,
        &maker,
        0,
        maker.deviation(Phase::Closed, dip, dip + MINUTE_US),
    )
    .await;
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM hold").await, 0);
    run(
        &test,
        "INSERT INTO lot (id, code, kind, item_name, status, quantity, unit, equipment_id, produced_range) \
         SELECT gen_random_uuid(), 'NEXT', 'finished', 'x', 'in_process', 1, 'units', e.id, \
           tstzrange(now() - interval '10 minutes', NULL) FROM equipment e WHERE e.code = 'L1-FILL'",
    )
    .await;
    let mut connection = BulkConnection::connect(&test.databases.login.bulk).await.unwrap();
    for added in [1, 0] {
        let mut tx = connection.begin(&akron()).await.unwrap();
        let held = deviation::review(&mut tx, now - chrono::Duration::hours(1), now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(held.iter().map(|held| held.added).sum::<usize>(), added);
    }
    assert_eq!(
        test.count(
            &akron(),
            "SELECT count(*) FROM lot WHERE status = 'held' AND code = 'NEXT'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn ingest_and_the_review_that_place_a_hold_at_once_agree_on_one() {
    let (test, intake, maker) = set_up().await;
    run(
        &test,
        "UPDATE lot SET produced_range = NULL, batch_id = NULL, equipment_id = NULL; DELETE FROM batch_interval; \
         UPDATE batch SET state = 'planned', started_at = NULL, completed_at = NULL",
    )
    .await;
    let dip = Clock::system().now_us() - MINUTE_US;
    tell(
        &intake,
        &maker,
        0,
        maker.deviation(Phase::Opened, dip, dip + 2_000_000),
    )
    .await;
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM hold").await, 0);
    run(
        &test,
        "UPDATE batch SET state = 'running', started_at = now() - interval '1 hour' WHERE id = \
           (SELECT b.id FROM batch b JOIN line l ON l.id = b.line_id WHERE l.code = 'L1' LIMIT 1); \
         UPDATE lot SET batch_id = (SELECT id FROM batch WHERE state = 'running') WHERE id = (SELECT id FROM lot LIMIT 1)",
    )
    .await;
    let (now, since) = (
        Clock::system().now(),
        Clock::system().now() - chrono::Duration::hours(24),
    );
    let bulk = &test.databases.login.bulk;
    let mut one = BulkConnection::connect(bulk).await.unwrap();
    let mut other = BulkConnection::connect(bulk).await.unwrap();
    let mut first = one.begin(&akron()).await.unwrap();
    assert_eq!(deviation::review(&mut first, since, now).await.unwrap().len(), 1);
    let second = tokio::spawn(async move {
        let mut second = other.begin(&akron()).await.unwrap();
        let held = deviation::review(&mut second, since, now).await.unwrap();
        second.commit().await.unwrap();
        held.len()
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while test.count(&akron(), waits).await == 0 {
        assert!(!second.is_finished());
        tokio::task::yield_now().await;
    }
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), 0, "nothing was left to add");
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM hold").await, 1);
    assert_eq!(test.count(&akron(), HELD).await, 1);
}
