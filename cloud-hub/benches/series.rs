//! How fast is a chart, and how many may look? Thirty days of a 1 Hz tag over the HTTP handler, the last value of a
//! thousand tags, and the CPU that a live viewer costs, whose client is another process.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cloud_hub::{
    kernel::{clock::Clock, role::Role},
    series::bus::{LiveKind, Sample},
};
use protocol::lane::Lane;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use support::{TestDatabase, TestHub, akron};

const DAYS: i64 = if cfg!(debug_assertions) { 2 } else { 30 };
const TAGS: i64 = 1_000;
const ASKED: usize = if cfg!(debug_assertions) { 10 } else { 200 };
const VIEWERS: usize = if cfg!(debug_assertions) { 20 } else { 500 };
const WATCHED: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 15 });
/// Tags whose samples every viewer gets once a second.
const SAMPLED: i32 = 50;
const TREND_GOAL_MS: f64 = 20.0;
const LAST_GOAL_MS: f64 = 25.0;
const VIEWERS_GOAL: f64 = 1_000.0;
/// Says to the child who it is: address and token.
const CLIENT: &str = "FOODFLOW_BENCH_VIEWER";

struct Bench {
    hub: TestHub,
    http: reqwest::Client,
    token: String,
    now_us: i64,
}

/// Thirty days of one tag at 1 Hz and a thousand tags with a last value, rollups made.
async fn fill(database: &TestDatabase, now_us: i64) {
    let mut tx = database.db.begin(&akron()).await.expect("the tenant exists");
    let sql = format!(
        "INSERT INTO tag (name, unit, period_ms) SELECT 'B-' || n, 'degC', 1000 FROM generate_series(1, {TAGS}) n; \
         INSERT INTO tag_last (tag_id, time, value, quality) SELECT id, now(), 72, 0 FROM tag WHERE name LIKE 'B-%'; \
         INSERT INTO reading (time, tag_id, value, quality) SELECT to_timestamp({now_us} / 1000000 - s), \
           (SELECT id FROM tag WHERE name = 'B-1'), 72 + sin(s / 900.0) + (s % 17) / 20.0, 0 \
         FROM generate_series({DAYS} * 86400, 1, -1) s"
    );
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(tx.conn())
        .await
        .expect("it can be filled");
    tx.commit_unaudited("a benchmark's readings")
        .await
        .expect("the cluster runs");
    let mut owner = database.owner().await;
    for sql in [
        "SET search_path TO t_akron, public".to_owned(),
        format!(
            "INSERT INTO rollup_dirty (tag_ids, from_time, to_time) \
             SELECT ARRAY[(SELECT id FROM tag WHERE name = 'B-1')], h, h + interval '1 hour' \
             FROM generate_series(date_trunc('hour', now() - interval '{DAYS} days'), now(), interval '1 hour') h"
        ),
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut owner)
            .await
            .expect("it can be marked");
    }
    loop {
        let made: Option<i32> = sqlx::query_scalar("SELECT refresh_rollups(now(), 1000)")
            .fetch_one(&mut owner)
            .await
            .expect("rollups can be made");
        if made.is_none_or(|made| made == 0) {
            break;
        }
    }
    sqlx::raw_sql("ANALYZE")
        .execute(&mut owner)
        .await
        .expect("it can be analysed");
}

impl Bench {
    async fn start() -> Self {
        // An error says that one is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let now_us = Clock::system().now_us();
        let (database, now_us) = (
            TestDatabase::create().await,
            now_us - now_us.rem_euclid(1_000_000),
        );
        fill(&database, now_us).await;
        let hub = TestHub::start_configured(database, |config| {
            let many = std::num::NonZeroU32::new(100_000).expect("not 0");
            (config.http.requests_per_s, config.http.burst) = (many, many);
        });
        let hub = Box::pin(hub).await;
        Self {
            token: hub.token(Role::Supervisor).await,
            http: reqwest::Client::new(),
            now_us,
            hub,
        }
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.http.get(self.hub.url(path)).bearer_auth(&self.token);
        let answer = request.send().await.expect("the hub answers");
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("it is JSON")
    }

    /// Median and 99th percentile over HTTP, ms.
    async fn time(&self, path: &str) -> (f64, f64) {
        for _ in 0..5 {
            self.get(path).await;
        }
        let mut took_ms = Vec::with_capacity(ASKED);
        for _ in 0..ASKED {
            let before = Instant::now();
            self.get(path).await;
            took_ms.push(before.elapsed().as_secs_f64() * 1e3);
        }
        took_ms.sort_by(f64::total_cmp);
        (took_ms[ASKED / 2], took_ms[(ASKED - 1) * 99 / 100])
    }

    async fn trend(&self) -> Vec<Value> {
        let id = self
            .hub
            .count(&akron(), "SELECT id::int8 FROM tag WHERE name = 'B-1'")
            .await;
        let from_us = self.now_us - DAYS * 86_400_000_000;
        let path = format!(
            "/api/v1/plant-ops/series?tags={id}&from_us={from_us}&to_us={}&points=600",
            self.now_us
        );
        let answer = self.get(&path).await;
        assert_eq!(answer["tags"][0]["n"], DAYS * 86_400, "every reading counts");
        let (p50, p99) = self.time(&path).await;
        println!("{DAYS} days of a 1 Hz tag: p50 {p50:.1} ms, p99 {p99:.1} ms");
        vec![
            json!({ "name": "series/trend_30d_p50", "value": p50, "unit": "ms", "goal": TREND_GOAL_MS,
                "pass": p50 <= TREND_GOAL_MS, "reference": format!("{DAYS} days at 1 Hz, 600 points") }),
            json!({ "name": "series/trend_30d_p99", "value": p99, "unit": "ms" }),
        ]
    }

    async fn last(&self) -> Vec<Value> {
        let path = "/api/v1/plant-ops/series/last";
        let answer = self.get(path).await;
        assert!(
            answer["values"]
                .as_array()
                .is_some_and(|all| all.len() == TAGS as usize)
        );
        let (p50, p99) = self.time(path).await;
        println!("last value of {TAGS} tags: p50 {p50:.1} ms, p99 {p99:.1} ms");
        vec![
            json!({ "name": "series/last_1000_p50", "value": p50, "unit": "ms", "goal": LAST_GOAL_MS,
                "pass": p50 <= LAST_GOAL_MS }),
            json!({ "name": "series/last_1000_p99", "value": p99, "unit": "ms" }),
        ]
    }

    /// Viewers that one core serves, each with the samples of fifty tags a second.
    async fn viewers(&self) -> Vec<Value> {
        let mut client = viewers(&self.hub.hub.http.to_string(), &self.token);
        self.publish_for(Duration::from_secs(2)).await;
        let before = (cpu_s(), Instant::now());
        self.publish_for(WATCHED).await;
        let (cpu_s, wall_s) = (cpu_s() - before.0, before.1.elapsed().as_secs_f64());
        client.kill().expect("it runs");
        let said = client.wait_with_output().expect("it ended");
        let bytes = String::from_utf8_lossy(&said.stdout);
        let per_core = VIEWERS as f64 * wall_s / cpu_s;
        println!(
            "{VIEWERS} viewers cost {:.2} of a core: {per_core:.0} a core ({})",
            cpu_s / wall_s,
            bytes.trim()
        );
        vec![
            json!({ "name": "series/sse_viewers_per_core", "value": per_core, "unit": "viewers", "goal": VIEWERS_GOAL,
            "pass": per_core >= VIEWERS_GOAL, "reference": format!("{VIEWERS} viewers, {SAMPLED} samples a second each") }),
        ]
    }

    async fn publish_for(&self, time: Duration) {
        let started = Instant::now();
        let mut turns = tokio::time::interval(Duration::from_secs(1));
        while started.elapsed() < time {
            turns.tick().await;
            let now_us = self.hub.hub.app.clock.now_us();
            let sample = |tag_id| Sample {
                tag_id,
                time_us: now_us,
                value: Some(f64::from(tag_id) + 0.25),
                quality: 0,
                simulated: false,
            };
            let samples = (1..=SAMPLED).map(sample).collect();
            let kind = LiveKind::Samples {
                lane: Lane::Live,
                samples,
            };
            self.hub.hub.app.live.publish(&akron(), now_us, kind);
        }
    }
}

/// Starts the process that looks on.
fn viewers(address: &str, token: &str) -> Child {
    let mut client = Command::new(std::env::current_exe().expect("this program"))
        .env(CLIENT, format!("{address} {token}"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut ready = [0; 6];
    client
        .stdout
        .as_mut()
        .expect("it is piped")
        .read_exact(&mut ready)
        .expect("the viewers connect");
    client
}

/// Opens the streams and takes what comes until it is killed.
fn look_on(to: &str) {
    let (address, token) = to.split_once(' ').expect("address and token");
    let open = || {
        let mut stream = std::net::TcpStream::connect(address).expect("the hub listens");
        let request =
            format!("GET /api/v1/live HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the hub reads");
        let mut first = [0; 1_024];
        let read = stream.read(&mut first).expect("the hub answers");
        assert!(first[..read].starts_with(b"HTTP/1.1 200"));
        stream.set_nonblocking(true).expect("it can be");
        stream
    };
    let mut streams: Vec<_> = (0..VIEWERS).map(|_| open()).collect();
    println!("ready");
    let mut bytes = vec![0; 1 << 16];
    loop {
        for stream in &mut streams {
            // Nothing there is no error here.
            while matches!(stream.read(&mut bytes), Ok(1..)) {}
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// User and system time of this process.
fn cpu_s() -> f64 {
    const TICKS_A_S: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |place: usize| {
        fields
            .get(place)
            .and_then(|it| it.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS_A_S
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn bench() {
    let bench = Box::pin(Bench::start()).await;
    let mut entries = bench.trend().await;
    entries.extend(bench.last().await);
    entries.extend(bench.viewers().await);
    let dir = std::env::var_os("FOODFLOW_BENCH_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench"),
        PathBuf::from,
    );
    fs::create_dir_all(&dir).expect("the directory can be made");
    fs::write(dir.join("series.json"), Value::from(entries).to_string()).expect("the file can be written");
}

fn main() {
    match std::env::var(CLIENT) {
        Ok(to) => look_on(&to),
        Err(_) => bench(),
    }
}
