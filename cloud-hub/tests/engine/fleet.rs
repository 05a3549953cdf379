//! A tenant is made whole or not at all, goes without a trace but its tombstone, and one whose migration fails holds
//! up nobody else.

use std::{
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use cloud_hub::{
    broker::Settled,
    kernel::{
        audit::{GENESIS, link},
        clock::Clock,
        tenancy::{TenancyError, TenantSlug},
    },
    tenant::{
        fleet::{self, Standing},
        migrate::{Files, tenant_version},
        provision::{self, By, ProvisionError, Tenant},
    },
};
use protocol::{lane::Lane, topic::Channel};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    ingest::Intake,
    support::{FrameMaker, TestDatabase, akron},
};

/// The last file before the one that makes `supplier`.
const BEFORE_SUPPLIER: i64 = 9;

fn slug(name: &str) -> TenantSlug {
    TenantSlug::parse(name).unwrap()
}

fn tenant(name: &str) -> Tenant {
    Tenant {
        slug: slug(name),
        name: format!("Tenant {name}"),
    }
}

async fn sql(owner: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into()))
        .execute(owner)
        .await
        .unwrap();
}

async fn number(owner: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(owner).await.unwrap()
}

/// Roles, schemas and entries of that tenant. The tenant's lock is waited for, which whoever was at it holds until
/// its transaction has ended.
async fn traces(owner: &mut PgConnection, slug: &TenantSlug) -> i64 {
    let schema = slug.schema();
    sql(
        owner,
        format!("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('foodflow {schema}', 0)); COMMIT"),
    )
    .await;
    sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM pg_roles WHERE rolname = $1) + \
           (SELECT count(*) FROM pg_namespace WHERE nspname = $1) + \
           (SELECT count(*) FROM platform.tenant WHERE schema_name = $1)",
    )
    .bind(schema)
    .fetch_one(owner)
    .await
    .unwrap()
}

/// Polls a future at most so often, then drops it.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), times);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn a_tenant_whose_making_fails_at_any_step_leaves_nothing_and_can_be_made_again() {
    let test = TestDatabase::create().await;
    let (mut owner, new) = (test.owner().await, tenant("fresh"));
    sql(
        &mut owner,
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$",
    )
    .await;
    for step in [
        "CREATE SCHEMA",
        "GRANT",
        "CREATE TABLE",
        "CREATE POLICY",
        "CREATE INDEX",
        "REVOKE",
    ] {
        sql(
            &mut owner,
            format!("CREATE EVENT TRIGGER refusing ON ddl_command_end WHEN TAG IN ('{step}') EXECUTE FUNCTION refuse()"),
        )
        .await;
        let mut making = test.owner().await;
        let refused = provision::create(&mut making, &new, &By::command("test")).await;
        assert!(matches!(refused, Err(ProvisionError::Migrate(_))), "{step}");
        sql(&mut owner, "DROP EVENT TRIGGER refusing").await;
        assert_eq!(traces(&mut owner, &new.slug).await, 0, "{step}");
    }
    let last = Files::tenant().with(9_999, "boom", "SELECT 1 / 0".to_owned());
    let mut making = test.owner().await;
    provision::provision_with(&mut making, &new.slug, &new.name, &last)
        .await
        .unwrap_err();
    assert_eq!(traces(&mut owner, &new.slug).await, 0);
    provision::create(&mut making, &new, &By::command("test"))
        .await
        .unwrap();
    assert_eq!(traces(&mut owner, &new.slug).await, 3);
    assert_eq!(
        test.count(&new.slug, "SELECT count(*) FROM role WHERE is_builtin")
            .await,
        6
    );
}

#[tokio::test]
async fn a_tenant_whose_making_is_cancelled_anywhere_is_whole_or_leaves_nothing() {
    let test = TestDatabase::create().await;
    let (mut owner, new) = (test.owner().await, tenant("fresh"));
    let mut times = 1;
    loop {
        let mut making = test.owner().await;
        let done = polled(provision::create(&mut making, &new, &By::command("test")), times).await;
        drop(making);
        if let Some(done) = done {
            done.unwrap();
            break;
        }
        // A cancelled COMMIT that the server has is a commit: whole, though nobody was told.
        let left = traces(&mut owner, &new.slug).await;
        assert!(
            [0, 3].contains(&left),
            "cancelled at its {times}. poll it left {left}"
        );
        if left == 3 {
            break;
        }
        times = times * 3 / 2 + 1;
    }
    assert!(times > 10, "it was cancelled at several places");
    assert_eq!(traces(&mut owner, &new.slug).await, 3);
}

#[tokio::test]
async fn of_two_hubs_that_make_the_same_tenant_one_does_and_one_is_told() {
    let test = TestDatabase::create().await;
    let (mut one, mut two) = (test.owner().await, test.owner().await);
    let (new, by) = (tenant("fresh"), By::command("test"));
    let (first, second) = tokio::join!(
        provision::create(&mut one, &new, &by),
        provision::create(&mut two, &new, &by)
    );
    let told = match (first, second) {
        (Ok(()), Err(told)) | (Err(told), Ok(())) => told,
        other => panic!("{other:?}"),
    };
    assert!(matches!(told, ProvisionError::Exists(_)), "{told}");
    assert_eq!(
        test.count(&new.slug, "SELECT count(*) FROM audit_event").await,
        1,
        "it was made once"
    );
}

#[tokio::test]
async fn a_tenant_that_was_deleted_leaves_a_tombstone_with_the_end_of_its_chain_and_never_comes_back() {
    let test = TestDatabase::create().await;
    let (mut owner, gone) = (test.owner().await, tenant("gone"));
    let by = By {
        why: Some("the contract ended".to_owned()),
        ..By::command("test")
    };
    provision::create(&mut owner, &gone, &by).await.unwrap();
    let active = provision::remove(&mut owner, &gone.slug, 1, &by).await;
    assert!(matches!(active, Err(ProvisionError::Active)));
    sql(
        &mut owner,
        "UPDATE platform.tenant SET status = 'suspended', version = 2 WHERE slug = 'gone'",
    )
    .await;
    let stale = provision::remove(&mut owner, &gone.slug, 1, &by).await;
    assert!(matches!(stale, Err(ProvisionError::Stale)));
    let end: Vec<u8> = sqlx::query_scalar("SELECT hash FROM t_gone.audit_event WHERE seq = 1")
        .fetch_one(&mut owner)
        .await
        .unwrap();

    provision::remove(&mut owner, &gone.slug, 2, &by).await.unwrap();
    assert_eq!(traces(&mut owner, &gone.slug).await, 0);
    assert!(matches!(
        test.db.begin(&gone.slug).await,
        Err(TenancyError::UnknownTenant)
    ));
    let tombstone: (i64, Vec<u8>, String, String) = sqlx::query_as(
        "SELECT last_seq, last_hash, because, deleted_by FROM platform.tombstone WHERE slug = 'gone'",
    )
    .fetch_one(&mut owner)
    .await
    .unwrap();
    assert_eq!(
        tombstone,
        (
            1,
            end,
            "the contract ended".to_owned(),
            "operator:test".to_owned()
        )
    );
    let again = provision::create(&mut owner, &gone, &by).await;
    assert!(matches!(again, Err(ProvisionError::Retired(_))));
    let twice = provision::remove(&mut owner, &gone.slug, 2, &by).await;
    assert!(matches!(twice, Err(ProvisionError::Unknown)));
}

#[tokio::test]
async fn a_tenant_is_not_deleted_under_a_transaction_that_uses_it() {
    let test = TestDatabase::create().await;
    let (mut owner, gone) = (test.owner().await, tenant("gone"));
    provision::create(&mut owner, &gone, &By::command("test"))
        .await
        .unwrap();
    sql(
        &mut owner,
        "UPDATE platform.tenant SET status = 'suspended' WHERE slug = 'gone'",
    )
    .await;
    let mut tx = test.db.begin(&gone.slug).await.unwrap();
    sqlx::query("SELECT code FROM lot")
        .fetch_all(tx.conn())
        .await
        .unwrap();
    provision::remove(&mut owner, &gone.slug, 1, &By::command("test"))
        .await
        .unwrap_err();
    sqlx::query("SELECT code FROM lot")
        .fetch_all(tx.conn())
        .await
        .unwrap();
    drop(tx);
    provision::remove(&mut owner, &gone.slug, 1, &By::command("test"))
        .await
        .unwrap();
    assert_eq!(traces(&mut owner, &gone.slug).await, 0);
}

#[tokio::test]
async fn the_platforms_chain_links_and_the_login_role_can_only_add_to_it() {
    let test = TestDatabase::create().await;
    let mut owner = test.owner().await;
    for name in ["one", "two", "three"] {
        provision::create(&mut owner, &tenant(name), &By::command("test"))
            .await
            .unwrap();
    }
    let rows: Vec<(i64, String, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT seq, event, prev_hash, hash FROM platform.audit_event ORDER BY seq")
            .fetch_all(&mut owner)
            .await
            .unwrap();
    assert_eq!(rows.len(), 3);
    let mut last = GENESIS;
    for (seq, event, prev_hash, hash) in rows {
        assert_eq!(prev_hash, last);
        last = link(&last, seq, &event);
        assert_eq!(hash, last, "{event}");
    }
    for forbidden in [
        "INSERT INTO platform.audit_event SELECT * FROM platform.audit_event",
        "UPDATE platform.audit_event SET event = '{}'",
        "DELETE FROM platform.audit_event",
        "UPDATE platform.tenant SET slug = 'x'",
        "UPDATE platform.tenant SET schema_name = 't_akron'",
        "DELETE FROM platform.tenant",
        "DELETE FROM platform.tombstone",
    ] {
        let mut tx = test.db.platform().await.unwrap();
        let refused = sqlx::query(forbidden).execute(tx.conn()).await.unwrap_err();
        let code = refused.as_database_error().unwrap().code();
        assert_eq!(code.as_deref(), Some("42501"), "{forbidden}");
    }
    let stays = number(
        &mut owner,
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = 'platform.tenant'::regclass \
           AND confdeltype <> 'c'",
    )
    .await;
    assert_eq!(stays, 0, "what belongs to a tenant goes with it");
}

fn fleet_size() -> usize {
    if std::env::var_os("FOODFLOW_SOAK").is_some() {
        1_000
    } else {
        10
    }
}

fn of<'a>(report: &'a [Standing], name: &str) -> &'a Standing {
    report.iter().find(|standing| standing.tenant == name).unwrap()
}

#[tokio::test]
async fn a_migration_that_fails_in_one_tenant_passes_in_all_others_and_is_taken_up_again() {
    let test = TestDatabase::create().await;
    let (mut owner, earlier) = (test.owner().await, Files::tenant().until(BEFORE_SUPPLIER));
    let mut took = Vec::new();
    for number in 0..fleet_size() {
        let (name, started) = (format!("f{number:04}"), Instant::now());
        provision::provision_with(&mut owner, &slug(&name), "A tenant", &earlier)
            .await
            .unwrap();
        took.push(started.elapsed());
    }
    took.sort_unstable();
    eprintln!(
        "provisioning: median {:?} of {}",
        took[took.len() / 2],
        took.len()
    );
    sql(&mut owner, "CREATE TABLE t_f0003.supplier (in_the_way int)").await;
    sql(
        &mut owner,
        "UPDATE platform.tenant SET status = 'suspended' WHERE slug = 'f0005'",
    )
    .await;

    let done = test.databases.migrate().await.unwrap();
    let failed: Vec<&str> = done.failed.iter().map(|(slug, _)| slug.as_str()).collect();
    assert_eq!(failed, ["f0003"]);
    let report = fleet::report(&mut owner, &Files::tenant()).await.unwrap();
    let broken = of(&report, "f0003");
    assert_eq!(
        (broken.word(), broken.schema_version),
        ("failed", BEFORE_SUPPLIER)
    );
    let cause = broken.migration_error.as_deref().unwrap();
    assert!(
        cause.contains("migration 10 failed") && cause.contains("supplier"),
        "{cause}"
    );
    let current = report.iter().filter(|standing| standing.word() == "current");
    assert_eq!(
        current.count(),
        fleet_size() - 1 + 2,
        "and both demonstration tenants"
    );
    assert_eq!(of(&report, "f0005").status, "suspended");
    assert_eq!(
        number(&mut owner, "SELECT count(*) FROM t_f0003.schema_migration").await,
        BEFORE_SUPPLIER
    );
    assert!(matches!(
        test.db.begin(&slug("f0003")).await,
        Err(TenancyError::NotMigrated(BEFORE_SUPPLIER))
    ));
    test.db.begin(&slug("f0004")).await.unwrap();

    sql(&mut owner, "DROP TABLE t_f0003.supplier").await;
    let files = (tenant_version() - BEFORE_SUPPLIER) as usize;
    let done = test.databases.migrate().await.unwrap();
    assert!(
        done.failed.is_empty() && (1..=files).contains(&done.applied),
        "{done:?}"
    );
    test.db.begin(&slug("f0003")).await.unwrap();
    assert_eq!(test.databases.migrate().await.unwrap().applied, 0);
}

#[tokio::test]
async fn a_run_over_the_fleet_that_is_cut_off_goes_on_where_it_stopped() {
    let test = TestDatabase::create().await;
    let (mut owner, earlier) = (test.owner().await, Files::tenant().until(BEFORE_SUPPLIER));
    for name in ["a", "b", "c"] {
        provision::provision_with(&mut owner, &slug(name), "A tenant", &earlier)
            .await
            .unwrap();
    }
    let (mut times, mut behind) = (8, 3);
    while behind > 0 {
        let mut migrating = test.owner().await;
        let files = Files::tenant();
        drop(polled(fleet::tenants(&mut migrating, &files, None), times).await);
        drop(migrating);
        for name in ["a", "b", "c"] {
            traces(&mut owner, &slug(name)).await;
        }
        for standing in fleet::report(&mut owner, &files).await.unwrap() {
            let schema = slug(&standing.tenant).schema();
            let newest: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
                "SELECT max(version) FROM {schema}.schema_migration"
            )))
            .fetch_one(&mut owner)
            .await
            .unwrap();
            assert_eq!(
                newest, standing.schema_version,
                "the entry says what the schema is"
            );
        }
        let left = fleet::report(&mut owner, &files).await.unwrap();
        behind = left.iter().filter(|standing| !standing.is_served()).count();
        times += 8;
    }
}

#[tokio::test]
async fn a_program_runs_on_the_schema_of_the_next_one() {
    let test = TestDatabase::create().await;
    let mut owner = test.owner().await;
    let next = Files::tenant().with(
        9_999,
        "expands",
        "ALTER TABLE lot ADD COLUMN colour text; CREATE TABLE later (id int)".to_owned(),
    );
    let done = fleet::tenants(&mut owner, &next, None).await.unwrap();
    assert_eq!((done.applied, done.failed.len()), (2, 0));
    let restarted = test.databases.migrate().await.unwrap();
    assert_eq!((restarted.applied, restarted.failed.len()), (0, 0));
    let report = fleet::report(&mut owner, &Files::tenant()).await.unwrap();
    assert_eq!(of(&report, "akron").word(), "newer");
    assert!(test.count(&akron(), "SELECT count(*) FROM lot").await > 0);

    let later = next.with(
        10_000,
        "contracts",
        "-- contract: 999.0.0 no longer reads it\nALTER TABLE lot DROP COLUMN colour".to_owned(),
    );
    fleet::tenants(&mut owner, &later, Some(&akron())).await.unwrap();
    let refused = test.databases.migrate().await.unwrap();
    let (tenant, cause) = &refused.failed[0];
    assert_eq!((refused.failed.len(), tenant), (1, &akron()));
    assert!(cause.contains("999.0.0"), "{cause}");
}

/// Sends until it is stored: what an edge does.
async fn stored_at_last(intake: &Intake, maker: &FrameMaker, channel: Channel, payload: Vec<u8>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let waiting = intake.put(maker, channel, payload.clone()).await;
        if waiting.await == Ok(Settled::Stored) {
            return;
        }
    }
    panic!("it was never stored");
}

#[tokio::test]
async fn frames_of_a_tenant_that_cannot_be_served_wait_at_its_edges_and_hold_up_nobody() {
    let test = TestDatabase::create().await;
    let (mut owner, late) = (test.owner().await, slug("late"));
    let earlier = Files::tenant().until(BEFORE_SUPPLIER);
    provision::provision_with(&mut owner, &late, "Late", &earlier)
        .await
        .unwrap();
    let intake = Intake::start(&test);
    let (healthy, waiting) = (
        FrameMaker::new("e1", &["TT-101"]),
        FrameMaker::new("e2", &["TT-101"]).in_tenant("late"),
    );
    let dictionary = |maker: &FrameMaker| maker.dictionary.encode();
    let now_us = Clock::system().now_us();

    // Behind: given back, while the other tenant in the same batch is stored.
    let given_back = intake
        .put(&waiting, Channel::Dictionary, dictionary(&waiting))
        .await;
    assert_eq!(intake.dictionary(&healthy).await, Settled::Stored);
    given_back.await.unwrap_err();
    assert_eq!(
        intake.frame(&healthy, &healthy.live(0, now_us, 5)).await,
        Settled::Stored
    );
    assert!(intake.acked.all().iter().all(|ack| ack.subject
        != protocol::ack::Subject::Dictionary(waiting.dictionary.id())
        || waiting.dictionary.id() == healthy.dictionary.id()));

    // Migrated: stored without anybody's help.
    test.databases.migrate().await.unwrap();
    stored_at_last(&intake, &waiting, Channel::Dictionary, dictionary(&waiting)).await;
    let frame = waiting.live(0, now_us, 7).encode().unwrap();
    stored_at_last(&intake, &waiting, Channel::Up(Lane::Live), frame).await;
    assert_eq!(test.count(&late, "SELECT count(*) FROM reading").await, 7);

    // Suspended: given back again.
    sql(
        &mut owner,
        "UPDATE platform.tenant SET status = 'suspended' WHERE slug = 'late'",
    )
    .await;
    let frame = waiting.live(1, now_us, 7).encode().unwrap();
    let given_back = intake.put(&waiting, Channel::Up(Lane::Live), frame).await;
    given_back.await.unwrap_err();
    assert_eq!(
        intake.frame(&healthy, &healthy.live(1, now_us, 5)).await,
        Settled::Stored
    );
    assert_eq!(test.count(&late, "SELECT count(*) FROM reading").await, 7);
}

#[tokio::test]
async fn a_tenant_whose_tables_are_locked_or_gone_holds_up_nobody() {
    let test = TestDatabase::create().await;
    let (mut owner, other) = (test.owner().await, slug("other"));
    provision::provision(&mut owner, &other, "Other").await.unwrap();
    let intake = Intake::start(&test);
    let (healthy, ill) = (
        FrameMaker::new("e1", &["TT-101"]),
        FrameMaker::new("e2", &["TT-101"]).in_tenant("other"),
    );
    let now_us = Clock::system().now_us();
    intake.dictionary(&healthy).await;
    intake.dictionary(&ill).await;

    sql(
        &mut owner,
        "BEGIN; LOCK TABLE t_other.frame IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    let frame = ill.live(0, now_us, 3).encode().unwrap();
    let locked_out = intake.put(&ill, Channel::Up(Lane::Live), frame.clone()).await;
    for seq in 0..3 {
        let stored = intake.frame(&healthy, &healthy.live(seq, now_us, 5)).await;
        assert_eq!(stored, Settled::Stored);
    }
    locked_out.await.unwrap_err();
    sql(&mut owner, "ROLLBACK; ALTER TABLE t_other.frame RENAME TO hidden").await;
    let without_table = intake.put(&ill, Channel::Up(Lane::Live), frame.clone()).await;
    without_table.await.unwrap_err();
    assert_eq!(
        intake.frame(&healthy, &healthy.live(3, now_us, 5)).await,
        Settled::Stored
    );
    sql(&mut owner, "ALTER TABLE t_other.hidden RENAME TO frame").await;
    stored_at_last(&intake, &ill, Channel::Up(Lane::Live), frame).await;
    assert_eq!(test.count(&other, "SELECT count(*) FROM reading").await, 3);
}
