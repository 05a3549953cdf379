//! What does the kernel cost beside the SQL it is there for? Requests a second of a read, a list and writes in one
//! tenant: over HTTP, through a tenant's transaction without HTTP, and as the same statements through bare sqlx, over
//! as many connections and in the same run. Also: how long it takes to make a tenant, and to verify a chain.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use cloud_hub::{
    kernel::{
        audit::{Actor, Deed, canonical},
        event::NewEvent,
        resource,
        role::Role,
        tenancy::{Db, TenantSlug},
    },
    router,
    tenant::provision,
};
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use support::{TestDatabase, TestHub, akron};
use uuid::Uuid;

/// Callers at once, and connections of each way.
const AT_ONCE: u32 = 8;
/// How long each way is measured in a round; debug builds only show that the benchmark works.
const MEASURED: Duration = if cfg!(debug_assertions) {
    Duration::from_millis(300)
} else {
    Duration::from_secs(4)
};
const ROUNDS: usize = if cfg!(debug_assertions) { 1 } else { 3 };
const SUPPLIERS: i64 = 2_000;
const TENANTS: usize = if cfg!(debug_assertions) { 2 } else { 10 };
/// A tenant is made within this.
const PROVISION_GOAL_S: f64 = 2.0;

const COLUMNS: &str = "t.approved_until, t.audit_score_pct, t.code, t.id, t.name, t.version";

/// What one way of doing something achieved.
#[derive(Clone, Copy, Debug)]
struct Figures {
    per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Does `deed` from [`AT_ONCE`] callers until the time is over.
async fn measure<F: AsyncFn(u64)>(deed: F) -> Figures {
    let number = AtomicU64::new(0);
    let started = Instant::now();
    let caller = async || {
        let mut took_us = Vec::new();
        while started.elapsed() < MEASURED {
            let before = Instant::now();
            deed(number.fetch_add(1, Ordering::Relaxed)).await;
            took_us.push(before.elapsed().as_secs_f64() * 1e6);
        }
        took_us
    };
    let all = futures_util::future::join_all((0..AT_ONCE).map(|_| caller())).await;
    let elapsed_s = started.elapsed().as_secs_f64();
    let mut took_us: Vec<f64> = all.into_iter().flatten().collect();
    took_us.sort_by(f64::total_cmp);
    let at = |share: f64| took_us[((took_us.len() - 1) as f64 * share) as usize];
    Figures {
        per_s: took_us.len() as f64 / elapsed_s,
        p50_us: at(0.5),
        p99_us: at(0.99),
    }
}

/// A pool whose connections have the tenant's role for good: what the same statements cost without the kernel.
async fn bare_pool(login: PgConnectOptions) -> PgPool {
    let schema = akron().schema();
    PgPoolOptions::new()
        .max_connections(AT_ONCE)
        .after_connect(move |connection, _| {
            let enter =
                format!("SET ROLE {schema}; SET search_path TO {schema}, public; SET foodflow.lines TO '*'");
            Box::pin(async move {
                connection.execute(AssertSqlSafe(enter)).await?;
                Ok(())
            })
        })
        .connect_with(login)
        .await
        .expect("the cluster runs")
}

struct Bench {
    hub: TestHub,
    db: Db,
    bare: PgPool,
    http: reqwest::Client,
    token: String,
    ids: Vec<Uuid>,
}

/// The three ways of one deed, the best round of each.
struct Ways {
    name: &'static str,
    bare: Figures,
    kernel: Figures,
    http: Figures,
}

impl Bench {
    async fn start() -> Self {
        // An error says that one is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let database = TestDatabase::create().await;
        let login = database.databases.login.requests.clone();
        let hub = TestHub::start_on(database).await;
        let bare = bare_pool(login.clone()).await;
        sqlx::query(
            "INSERT INTO supplier (id, code, name) \
             SELECT gen_random_uuid(), 'B-' || n, 'Supplier ' || n FROM generate_series(1, $1) n",
        )
        .bind(SUPPLIERS)
        .execute(&bare)
        .await
        .expect("suppliers can be stored");
        bare.execute("ANALYZE supplier").await.ok();
        let ids = sqlx::query_scalar("SELECT id FROM supplier")
            .fetch_all(&bare)
            .await
            .expect("they are there");
        Self {
            db: Db::new(login, AT_ONCE, Duration::from_secs(10)),
            token: hub.lasting_token(Role::Admin, 6 * 3600).await,
            http: reqwest::Client::new(),
            hub,
            bare,
            ids,
        }
    }

    fn id(&self, number: u64) -> Uuid {
        self.ids[number as usize % self.ids.len()]
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Value {
        let response = request
            .bearer_auth(&self.token)
            .send()
            .await
            .expect("the hub answers");
        assert!(response.status().is_success(), "{response:?}");
        response.json().await.expect("it is JSON")
    }

    fn url(&self, path: &str) -> String {
        self.hub.url(&format!("/api/v1/fsq/suppliers{path}"))
    }

    async fn read(&self) -> Ways {
        let sql = || AssertSqlSafe(format!("SELECT {COLUMNS} FROM supplier t WHERE t.id = $1"));
        let bare = async || {
            measure(async |number| {
                let row = sqlx::query(sql())
                    .bind(self.id(number))
                    .fetch_one(&self.bare)
                    .await;
                row.expect("it is there");
            })
            .await
        };
        let kernel = async || {
            measure(async |number| {
                let mut tx = self.db.begin(&akron()).await.expect("the tenant is there");
                let row = sqlx::query(sql())
                    .bind(self.id(number))
                    .fetch_one(tx.conn())
                    .await;
                row.expect("it is there");
            })
            .await
        };
        let http = async || {
            measure(async |number| {
                self.ask(self.http.get(self.url(&format!("/{}", self.id(number)))))
                    .await;
            })
            .await
        };
        rounds("read", bare, kernel, http).await
    }

    async fn list(&self) -> Ways {
        let sql = || {
            AssertSqlSafe(format!(
                "SELECT {COLUMNS} FROM supplier t WHERE t.id > $1 ORDER BY t.id LIMIT 101"
            ))
        };
        let bare = async || {
            measure(async |_| {
                let rows = sqlx::query(sql()).bind(Uuid::nil()).fetch_all(&self.bare).await;
                assert_eq!(rows.expect("they are there").len(), 101);
            })
            .await
        };
        let kernel = async || {
            measure(async |_| {
                let mut tx = self.db.begin(&akron()).await.expect("the tenant is there");
                let rows = sqlx::query(sql()).bind(Uuid::nil()).fetch_all(tx.conn()).await;
                assert_eq!(rows.expect("they are there").len(), 101);
            })
            .await
        };
        let http = async || {
            measure(async |_| {
                let page = self.ask(self.http.get(self.url(""))).await;
                assert_eq!(page["items"].as_array().map(Vec::len), Some(100));
            })
            .await
        };
        rounds("list", bare, kernel, http).await
    }

    /// The bare way writes the row, its audit entry and its event in one transaction, as the kernel does: a write
    /// that leaves no trace would be another deed.
    async fn create(&self) -> Ways {
        let sql =
            || AssertSqlSafe("INSERT INTO supplier AS t (id, code, name) VALUES ($1, $2, $3)".to_owned());
        let bare = async || {
            measure(async |number| {
                let id = Uuid::now_v7();
                let (entry, event) = trace(id, number);
                let mut tx = self.bare.begin().await.expect("the cluster runs");
                let made = sqlx::query(sql())
                    .bind(id)
                    .bind(format!("b{id}"))
                    .bind("Bare")
                    .execute(&mut *tx)
                    .await;
                made.expect("it can be stored");
                let said = sqlx::query("SELECT record($1, $2)")
                    .bind([entry])
                    .bind([event])
                    .execute(&mut *tx)
                    .await;
                said.expect("it can be recorded");
                tx.commit().await.expect("the cluster runs");
            })
            .await
        };
        let kernel = async || {
            measure(async |number| {
                let id = Uuid::now_v7();
                let mut tx = self
                    .db
                    .begin_as(&akron(), Actor::Hub { duty: "bench" })
                    .await
                    .expect("it is there");
                let made = sqlx::query(sql())
                    .bind(id)
                    .bind(format!("k{id}"))
                    .bind("Kernel")
                    .execute(tx.conn())
                    .await;
                made.expect("it can be stored");
                let record = json!({ "id": id, "number": number });
                tx.audit(&Deed::on("create", "supplier", id).after(&record));
                tx.event(&NewEvent::new("SupplierCreated", "supplier", id, record));
                tx.commit().await.expect("the cluster runs");
            })
            .await
        };
        let http = async || {
            measure(async |_| {
                let body = json!({ "code": format!("h{}", Uuid::now_v7()), "name": "Over HTTP" });
                self.ask(self.http.post(self.url("")).json(&body)).await;
            })
            .await
        };
        rounds("create", bare, kernel, http).await
    }
}

/// An audit entry and an event as the kernel writes them.
fn trace(id: Uuid, number: u64) -> (String, String) {
    let record = json!({ "id": id, "number": number });
    let entry = json!({ "action": "create", "actor": { "kind": "hub", "id": "bench", "name": null }, "after": record,
        "at_us": 1, "before": null, "correlation_id": "bench", "entity": "supplier", "entity_id": id, "why": null });
    let event = json!({ "aggregate": "supplier", "aggregate_id": id, "at_us": 1, "correlation_id": "bench",
        "kind": "SupplierCreated", "payload": record });
    (canonical(&entry), canonical(&event))
}

/// Each way in turn, several times; the best of each, so that what else the machine did is no part of it.
async fn rounds(
    name: &'static str,
    bare: impl AsyncFn() -> Figures,
    kernel: impl AsyncFn() -> Figures,
    http: impl AsyncFn() -> Figures,
) -> Ways {
    let (mut all_bare, mut all_kernel, mut all_http) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        all_bare.push(bare().await);
        all_kernel.push(kernel().await);
        all_http.push(http().await);
    }
    let best = |all: Vec<Figures>| {
        all.into_iter()
            .max_by(|a, b| a.per_s.total_cmp(&b.per_s))
            .expect("there are rounds")
    };
    Ways {
        name,
        bare: best(all_bare),
        kernel: best(all_kernel),
        http: best(all_http),
    }
}

impl Ways {
    /// What the table shows: how often each way can be done, beside the bare one; and how long the slow ones take.
    fn entries(&self) -> Vec<Value> {
        let Self {
            name,
            bare,
            kernel,
            http,
        } = self;
        for (way, figures) in [
            ("bare sqlx", bare),
            ("tenant's transaction", kernel),
            ("HTTP", http),
        ] {
            let Figures {
                per_s,
                p50_us,
                p99_us,
            } = figures;
            println!("{name:8} {way:22} {per_s:>9.0}/s  p50 {p50_us:>8.0} µs  p99 {p99_us:>8.0} µs");
        }
        let rate = |way: &str, figures: &Figures| {
            json!({ "name": format!("kernel/{name}_{way}_per_s"), "value": figures.per_s, "unit": "1/s",
                "reference": bare.per_s, "ratio": figures.per_s / bare.per_s })
        };
        vec![
            rate("tx", kernel),
            rate("http", http),
            json!({ "name": format!("kernel/{name}_http_p50"), "value": http.p50_us, "unit": "µs",
                "reference": bare.p50_us, "ratio": http.p50_us / bare.p50_us }),
            json!({ "name": format!("kernel/{name}_http_p99"), "value": http.p99_us, "unit": "µs",
                "reference": bare.p99_us, "ratio": http.p99_us / bare.p99_us }),
        ]
    }
}

/// The median time in which a tenant is made: role, schema, every migration and grant, its entry.
async fn provisioning(hub: &TestHub) -> Value {
    let owner = hub.hub.app.owner.as_ref().expect("a test knows the owner");
    let mut owner = owner.requests.connect().await.expect("the cluster runs");
    let mut took_s = Vec::new();
    for number in 0..TENANTS {
        let slug = TenantSlug::parse(&format!("bench-{number}")).expect("a constant slug");
        let before = Instant::now();
        provision::provision(&mut owner, &slug, "Bench")
            .await
            .expect("it can be made");
        took_s.push(before.elapsed().as_secs_f64());
    }
    took_s.sort_by(f64::total_cmp);
    let median_s = took_s[TENANTS / 2];
    println!(
        "a tenant is made in {median_s:.3} s, at worst {:.3} s",
        took_s[TENANTS - 1]
    );
    json!({ "name": "kernel/provision_tenant", "value": median_s, "unit": "s", "goal": PROVISION_GOAL_S,
        "pass": median_s <= PROVISION_GOAL_S })
}

/// How fast the chain that the writes left is verified.
async fn verifying(bench: &Bench) -> Option<Value> {
    let document = serde_json::to_value(router::document()).expect("it serialises");
    let paths = document["paths"].as_object().expect("there are paths").iter();
    let mut operations =
        paths.flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |it| (path, it)));
    let (path, (method, _)) = operations.find(|(_, (_, of))| of["operationId"] == "verify_audit")?;
    let rows = bench
        .hub
        .count(&akron(), "SELECT count(*) FROM audit_event")
        .await as f64;
    let method = method.to_uppercase().parse().expect("a method");
    let before = Instant::now();
    let said = bench.ask(bench.http.request(method, bench.hub.url(path))).await;
    let rows_per_s = rows / before.elapsed().as_secs_f64();
    println!("{rows} entries verified at {rows_per_s:.0}/s: {said}");
    // 100 million within five minutes.
    Some(
        json!({ "name": "kernel/verify_audit", "value": rows_per_s, "unit": "rows/s", "goal": 333_333.0,
        "pass": rows_per_s >= 333_333.0 }),
    )
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let bench = Box::pin(Bench::start()).await;
    // The columns above are the record's own.
    let known = resource::columns::<cloud_hub::fsq::resources::supplier::Supplier>();
    assert!(known.iter().all(|column| COLUMNS.contains(column)), "{known:?}");
    let mut entries = Vec::new();
    for ways in [bench.read().await, bench.list().await, bench.create().await] {
        entries.extend(ways.entries());
    }
    entries.push(provisioning(&bench.hub).await);
    entries.extend(verifying(&bench).await);
    let dir = std::env::var_os("FOODFLOW_BENCH_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench"),
        PathBuf::from,
    );
    fs::create_dir_all(&dir).expect("the directory can be made");
    fs::write(dir.join("kernel.json"), Value::from(entries).to_string()).expect("the file can be written");
}
