//! Does anything of one tenant ever reach another? Twenty tenants with a marked row in every table, thousands of
//! random requests of the whole API with other tenants' ids, cursors and names in them, and a look into every
//! answer. And does a connection that goes back to the pool forget whose it was, however its transaction ended?

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cloud_hub::{
    kernel::{
        role::Role,
        tenancy::{Db, TenantSlug},
    },
    tenant::{provision, user},
};
use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use crate::{
    hostile::Hostile,
    rows::{self, fill, fingerprints},
    specimen::{Access, Api, Given, Operation, Prepared, Raw, Sender},
    support::{TestDatabase, TestHub, akron},
};

const TENANTS: usize = 20;
/// The last of them never ask for anything: whatever changes in them was done by somebody else.
const QUIET: usize = 5;
const WORKERS: usize = 8;

/// What the hub itself moves in a tenant that nobody uses: it reviews what deviations hold, and says so; it notes
/// since when an alarm rule is as it is; its
/// projections take that in, and its webhooks move on. That nobody else did is said by the audit chain, below.
const MOVED_BY_THE_HUB: &[&str] = &[
    "alarm_rule_version",
    // Rules are judged by a duty of the hub, by time alone too.
    "alarm_state",
    "alarm_due",
    "alarm_entry",
    "projection",
    "activity_day",
    "search_entry",
    "webhook",
    "webhook_attempt",
    "webhook_delivery",
    "audit_event",
    "domain_event",
    "deviation",
    "hold",
    "hold_lot",
    "lot",
    // Rollups are made from the readings by a duty of the hub.
    "rollup_dirty",
    "rollup_1m",
    "rollup_1h",
    "rollup_1d",
];

struct Tenant {
    slug: TenantSlug,
    mark: String,
    token: String,
}

fn slug(number: usize) -> TenantSlug {
    TenantSlug::parse(&format!("iso-{number:02}")).unwrap()
}

/// Provisions a tenant with an admin and marked rows in every table.
async fn settle(hub: &TestHub, owner: &mut PgConnection, number: usize) -> (Tenant, rows::Rows) {
    let (slug, mark) = (slug(number), format!("mk{number:02}zq"));
    provision::provision(owner, &slug, &format!("Tenant {mark}"))
        .await
        .unwrap();
    let rows = fill(owner, &slug, &mark, 2).await;
    let mut tx = hub.db.begin(&slug).await.unwrap();
    let email = format!("admin@{mark}.example");
    user::put(
        &mut tx,
        &email,
        &format!("Admin {mark}"),
        Role::Admin,
        "no password",
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let token = hub.token_in(&slug, Role::Admin).await;
    (Tenant { slug, mark, token }, rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_to_any_request_holds_anything_of_another_tenant() {
    let soak = std::env::var_os("FOODFLOW_SOAK").is_some();
    let requests = if soak { 200_000 } else { 10_000 };
    let requests = std::env::var("FOODFLOW_REQUESTS").map_or(requests, |it| it.parse().unwrap());
    let started = std::time::Instant::now();
    let seed: u64 = std::env::var("FOODFLOW_SEED")
        .ok()
        .map_or_else(rand::random, |it| it.parse().unwrap());
    eprintln!("{requests} requests, FOODFLOW_SEED={seed}");
    // Why a request broke the hub is in its log and nowhere else.
    drop(
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .try_init(),
    );
    let hub = TestHub::start().await;
    let api = Api::read();
    let mut owner = rows::owner(&hub).await;
    let (mut tenants, mut ids, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..TENANTS {
        let (tenant, rows) = settle(&hub, &mut owner, number).await;
        let found = rows.values().flatten().filter_map(|row| row["id"].as_str());
        ids.extend(found.filter_map(|id| Uuid::try_parse(id).ok()));
        words.extend([tenant.slug.to_string(), tenant.slug.schema()]);
        words.push(format!("'; SELECT * FROM {}.supplier; --", tenant.slug.schema()));
        tenants.push(tenant);
    }
    let sender = Sender::to(&hub);
    words.extend(cursors(&api, &sender, &tenants).await);
    let (acting, quiet) = tenants.split_at(TENANTS - QUIET);
    let mut before = BTreeMap::new();
    for tenant in quiet {
        before.insert(tenant.slug.clone(), fingerprints(&mut owner, &tenant.slug).await);
    }

    eprintln!("settled after {:?}", started.elapsed());
    let hostile = Hostile {
        api: &api,
        ids: &ids,
        words: &words,
    };
    let tally = storm(&hostile, &sender, acting, &tenants, requests, seed).await;
    let served: usize = tally
        .iter()
        .filter(|(status, _)| **status < 300)
        .map(|(_, count)| count)
        .sum();
    eprintln!("done after {:?}", started.elapsed());
    eprintln!("answers by status: {tally:?}");
    assert!(
        served > requests / 10,
        "the requests must be good enough to be served: {tally:?}"
    );

    for tenant in quiet {
        let after = fingerprints(&mut owner, &tenant.slug).await;
        let before = &before[&tenant.slug];
        let changed: Vec<&String> = after
            .keys()
            .filter(|table| after.get(*table) != before.get(*table))
            .collect();
        let unexpected: Vec<_> = changed
            .iter()
            .filter(|table| !MOVED_BY_THE_HUB.contains(&table.as_str()))
            .collect();
        assert!(
            unexpected.is_empty(),
            "{} was changed by somebody else in {unexpected:?}",
            tenant.slug
        );
        let mut tx = hub.db.begin(&tenant.slug).await.unwrap();
        let strangers: Vec<String> = sqlx::query_scalar(
            "SELECT event FROM audit_event WHERE actor_kind <> 'hub' AND seq > $1 ORDER BY seq",
        )
        .bind(1_i64)
        .fetch_all(tx.conn())
        .await
        .unwrap();
        assert!(strangers.is_empty(), "{}: {strangers:?}", tenant.slug);
    }
}

/// Where other tenants' lists go on: `next` of their first pages, in every order that a list has.
async fn cursors(api: &Api, sender: &Sender, tenants: &[Tenant]) -> Vec<String> {
    let mut found = Vec::new();
    let lists = api
        .operations
        .iter()
        .filter(|it| it.parameters.iter().any(|of| of.name == "cursor"));
    for operation in lists {
        for tenant in tenants.iter().take(3) {
            let given = Given::from([("limit".to_owned(), 1.into())]);
            let raw = sender
                .send(&api.least(operation, &given), Some(&tenant.token))
                .await;
            found.extend(raw.json()["next"].as_str().map(str::to_owned));
        }
    }
    assert!(
        !found.is_empty(),
        "no list of a tenant with marked rows has a second page"
    );
    found
}

/// Sends random requests from random tenants and looks into every answer; how many answers had which status.
async fn storm(
    hostile: &Hostile<'_>,
    sender: &Sender,
    acting: &[Tenant],
    all: &[Tenant],
    requests: usize,
    seed: u64,
) -> BTreeMap<u16, usize> {
    let operations: Vec<&Operation> = hostile.api.operations.iter().filter(|it| is_tried(it)).collect();
    let (sent, tally) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let worker = async |worker: u64| {
        let mut rng = StdRng::seed_from_u64(seed ^ worker);
        while sent.fetch_add(1, Ordering::Relaxed) < requests {
            let operation = operations.choose(&mut rng).unwrap();
            let tenant = acting.choose(&mut rng).unwrap();
            let prepared = hostile.request(operation, &mut rng);
            let raw = sender.send(&prepared, Some(&tenant.token)).await;
            look(&raw, &prepared, operation, tenant, all);
            assert!(raw.status != 500, "{} broke: {prepared:?} {raw:?}", operation.id);
            *tally.lock().unwrap().entry(raw.status.as_u16()).or_default() += 1;
        }
    };
    let workers = (0..WORKERS as u64).map(worker);
    futures_util::future::join_all(workers).await;
    tally.into_inner().unwrap()
}

/// All but what would hash a password for every request, and what is no tenant's.
fn is_tried(operation: &Operation) -> bool {
    matches!(operation.access, Access::Permissions(_) | Access::SignedIn)
}

fn look(raw: &Raw, prepared: &Prepared, operation: &Operation, tenant: &Tenant, all: &[Tenant]) {
    let text = format!("{:?} {}", raw.headers, raw.text).to_lowercase();
    for other in all.iter().filter(|other| other.slug != tenant.slug) {
        assert!(
            !text.contains(&other.mark),
            "{} told {} of {}: {prepared:?} {raw:?}",
            operation.id,
            tenant.slug,
            other.slug
        );
    }
}

/// What of a connection could outlive its transaction.
const STATE: &str = "SELECT concat_ws(' ', current_user, session_user, current_setting('search_path'), \
    coalesce(nullif(current_setting('foodflow.lines', true), ''), '-'))";

async fn state(db: &Db) -> String {
    let mut tx = db.platform().await.unwrap();
    sqlx::query_scalar(STATE).fetch_one(tx.conn()).await.unwrap()
}

#[tokio::test]
async fn a_connection_forgets_whose_it_was_however_its_transaction_ended() {
    let test = TestDatabase::create().await;
    // One connection: whoever comes next has the very one.
    let db = Db::new(test.databases.login.requests.clone(), 1, Duration::from_secs(10));
    let fresh = state(&db).await;
    assert!(
        fresh.starts_with("foodflow_app foodflow_app ") && fresh.ends_with(" -"),
        "{fresh}"
    );

    let tx = db.begin(&akron()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(state(&db).await, fresh, "after a commit");

    drop(db.begin(&akron()).await.unwrap());
    assert_eq!(state(&db).await, fresh, "after a transaction that was dropped");

    let mut tx = db.begin(&akron()).await.unwrap();
    sqlx::query("SELECT 1 / 0").execute(tx.conn()).await.unwrap_err();
    drop(tx);
    assert_eq!(state(&db).await, fresh, "after a statement that failed");

    let panicking = db.clone();
    let panicked = tokio::spawn(async move {
        let _tx = panicking.begin(&akron()).await.unwrap();
        panic!("on purpose");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(state(&db).await, fresh, "after a panic");

    let cancelled = db.clone();
    let asleep = Arc::new(tokio::sync::Notify::new());
    let told = asleep.clone();
    let task = tokio::spawn(async move {
        let mut tx = cancelled.begin(&akron()).await.unwrap();
        told.notify_one();
        sqlx::query("SELECT pg_sleep(1)")
            .execute(tx.conn())
            .await
            .unwrap();
    });
    asleep.notified().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(
        state(&db).await,
        fresh,
        "after a request that was given up in the middle of a statement"
    );

    // What a statement of the hub could set by mistake ends with its transaction too.
    let mut tx = db.begin(&akron()).await.unwrap();
    let sql = "SELECT set_config('foodflow.lines', '{}', true)";
    sqlx::query(sql).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(state(&db).await, fresh, "after a narrowed transaction");
}

async fn refused(conn: &mut PgConnection, sql: String) -> bool {
    let mut point = conn.begin().await.unwrap();
    let answer = sqlx::query(AssertSqlSafe(sql)).execute(&mut *point).await;
    let is_refused = answer.is_err_and(|error| {
        error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| code == "42501")
    });
    point.rollback().await.unwrap();
    is_refused
}

#[tokio::test]
async fn sql_outside_a_tenants_transaction_reaches_no_table_of_any_tenant() {
    let hub = TestHub::start().await;
    let mut owner = rows::owner(&hub).await;
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT table_schema::text, table_name::text FROM information_schema.tables WHERE table_schema LIKE 't\\_%'",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    let schemas: BTreeSet<&str> = tables.iter().map(|(schema, _)| schema.as_str()).collect();
    assert!(
        schemas.len() >= 2 && tables.len() > 60,
        "{} tables of {schemas:?}",
        tables.len()
    );
    let mut open = Vec::new();
    let mut login = hub.db.platform().await.unwrap();
    for (schema, table) in &tables {
        for sql in [
            format!("SELECT FROM {schema}.{table}"),
            format!("DELETE FROM {schema}.{table}"),
        ] {
            if !refused(login.conn(), sql.clone()).await {
                open.push(format!("login role: {sql}"));
            }
        }
    }
    drop(login);
    let mut inside = hub.db.begin(&akron()).await.unwrap();
    for (schema, table) in tables.iter().filter(|(schema, _)| *schema != akron().schema()) {
        for sql in [
            format!("SELECT FROM {schema}.{table}"),
            format!("DELETE FROM {schema}.{table}"),
        ] {
            if !refused(inside.conn(), sql.clone()).await {
                open.push(format!("a tenant's role: {sql}"));
            }
        }
    }
    for sql in [
        "SELECT FROM platform.enroll_code",
        "SELECT FROM platform.edge_registry",
        "SELECT FROM platform.tenant",
    ] {
        if !refused(inside.conn(), sql.to_owned()).await {
            open.push(format!("a tenant's role: {sql}"));
        }
    }
    assert!(open.is_empty(), "{}", open.join("\n"));
}

/// Where a connection may be taken without a tenant: the kernel, the owner's work on the fleet, the private cluster.
const MAY_CONNECT: &[&str] = &[
    "kernel/",
    "tenant/",
    "embedded/",
    "cli/",
    "hub.rs",
    "hub/",
    "bin/",
];

#[test]
fn only_the_kernel_and_the_owners_work_hold_a_connection_without_a_tenant() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found, mut files) = (vec![root.clone()], Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let place = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            for word in [
                "PgPool",
                "PgListener",
                "PgConnectOptions",
                "ConnectOptions",
                ".requests.connect()",
            ] {
                let is_used = lines.clone().any(|line| line.contains(word));
                if is_used && !MAY_CONNECT.iter().any(|may| place.starts_with(may)) {
                    found.push(format!("{place} uses {word}"));
                }
            }
        }
    }
    assert!(files > 60, "{files} files were read");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_mark_is_found_in_what_holds_it() {
    let tenant = |number: usize| Tenant {
        slug: slug(number),
        mark: format!("mk{number:02}zq"),
        token: String::new(),
    };
    let all = [tenant(1), tenant(2)];
    let api = Api::read();
    let operation = &api.operations[0];
    let raw = |text: &str| Raw {
        status: reqwest::StatusCode::OK,
        headers: reqwest::header::HeaderMap::new(),
        text: text.to_owned(),
    };
    let prepared = api.least(operation, &Given::new());
    look(
        &raw("{\"name\": \"MK01ZQ of oneself\"}"),
        &prepared,
        operation,
        &all[0],
        &all,
    );
    let caught =
        std::panic::catch_unwind(|| look(&raw("Mk02zqsupplier0"), &prepared, operation, &all[0], &all));
    assert!(caught.is_err(), "another tenant's mark is seen, in capitals too");
    let _: Value = raw("{}").json();
}
