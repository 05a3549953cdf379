//! What does ingest cost beside the least that PostgreSQL can do? CPU microseconds per reading and readings a second of
//! the whole path (MQTT front end, decode, claim, COPY, newest values, rollup marks, commit, PUBACK) against a bare COPY
//! BINARY of the same rows in the same run; how late live readings are while a day's backlog drains; bytes on disk.
//! On every storage form that is installed. Counted are this process, without the thread that plays the edge, and every
//! process of its private cluster.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, BytesMut};
use cloud_hub::{
    broker::{self, Authenticate, Broker, BrokerConfig, Device, Downlinks},
    edges::authority::DeviceAuthority,
    embedded::Cluster,
    ingest,
    kernel::{bulk::BulkConnection, clock::Clock},
    series::{bus::LiveBus, report, upkeep},
};
use common::{cpu_us, join, publish, write};
use futures_util::future::BoxFuture;
use protocol::{Micros, Quality, Reading, frame::Frame, lane::Lane, reading::Alias, topic::Channel};
use serde_json::{Value, json};
use support::{FrameMaker, TestDatabase, akron, start_cluster_with};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const FRAMES: u64 = 1_000;
const ROWS_A_FRAME: i64 = 1_000;
/// After one that nobody counts; the middle one by its ratio is told.
const ROUNDS: usize = 5;
const TAGS: i64 = 50;
/// A day of the same tags at 1 Hz.
const BACKLOG_FRAMES: u64 = 86_400 * TAGS as u64 / ROWS_A_FRAME as u64;
const LIVE_EVERY: Duration = Duration::from_millis(200);
/// Ingest may cost this many times a bare COPY, and be this much slower.
const CPU_GOAL: f64 = 1.3;
const RATE_GOAL: f64 = 0.8;
const LIVE_LAG_S_GOAL: f64 = 2.0;
/// Measured elsewhere for the same table with its index, loaded in one go.
const BYTES_PLAIN: f64 = 92.0;
const BYTES_GOAL_COMPRESSED: f64 = 10.0;

#[derive(Clone, Copy)]
struct Cost {
    cpu_us_per_row: f64,
    rows_per_s: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut rows = measure_form("plain", &mut PlainDatabases).await;
    if has_timescale() {
        rows.extend(measure_form("timescaledb-community", &mut HyperDatabases::default()).await);
    } else {
        println!("TimescaleDB is not installed: its storage forms were not measured");
    }
    write(&Value::Array(rows), "hub.json");
}

// === where it runs ===

/// Gives empty databases of one storage form.
trait Databases {
    async fn next(&mut self) -> TestDatabase;
}

struct PlainDatabases;

impl Databases for PlainDatabases {
    async fn next(&mut self) -> TestDatabase {
        TestDatabase::create().await
    }
}

#[derive(Default)]
struct HyperDatabases {
    /// The last one runs until the next is asked for.
    cluster: Option<(Cluster, tempfile::TempDir)>,
}

impl Databases for HyperDatabases {
    async fn next(&mut self) -> TestDatabase {
        if let Some((cluster, _dir)) = self.cluster.take() {
            cluster.stop().await;
        }
        let dir = tempfile::tempdir().expect("there is room");
        let cluster = start_cluster_with(dir.path(), Some("timescaledb")).await;
        let test = TestDatabase::create_on(&cluster).await;
        self.cluster = Some((cluster, dir));
        test
    }
}

fn has_timescale() -> bool {
    let program = std::env::var_os("FOODFLOW_PG_BIN").map_or_else(
        || PathBuf::from("pg_config"),
        |dir| PathBuf::from(dir).join("pg_config"),
    );
    let said = std::process::Command::new(program).arg("--pkglibdir").output();
    said.is_ok_and(|said| {
        let dir = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        PathBuf::from(dir).join("timescaledb.so").exists()
    })
}

/// The hub's way in: front end and ingest.
struct Intake {
    broker: Broker,
    running: JoinHandle<()>,
    stop: CancellationToken,
}

struct AnyEdge;

impl Authenticate for AnyEdge {
    fn authenticate(&self, username: String, _: Vec<u8>) -> BoxFuture<'static, Option<Device>> {
        Box::pin(std::future::ready(Some(Device {
            tenant: akron().as_str().to_owned(),
            name: username,
        })))
    }
}

impl Intake {
    async fn start(test: &TestDatabase) -> Self {
        let (uplinks, arriving) = broker::uplinks(64 << 20);
        let config = BrokerConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            tls: None,
            limits: broker::Limits {
                publishes_per_s_max: 1_000_000,
                ..broker::Limits::default()
            },
        };
        let broker = broker::start(config, Arc::new(AnyEdge), uplinks)
            .await
            .expect("a port is free");
        let dir = tempfile::tempdir().expect("there is room for two small files");
        let context = ingest::Context {
            target: test.databases.login.clone(),
            publish: Arc::new(Downlinks {
                near: broker.downlink.clone(),
                far: None,
            }),
            live: LiveBus::new(),
            authority: DeviceAuthority::load_or_create(dir.path(), Clock::system().now())
                .expect("a key can be made"),
            clock: Clock::system(),
            settings: ingest::Settings {
                rows_max: 10_000,
                gather: Duration::from_millis(20),
            },
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(ingest::run(context, arriving, stop.clone()));
        Self {
            broker,
            running,
            stop,
        }
    }

    async fn stop(self) {
        self.broker.shutdown().await;
        self.stop.cancel();
        self.running.await.expect("ingest ends");
    }
}

// === measuring ===

fn maker(edge: &str) -> FrameMaker {
    let names: Vec<String> = (0..TAGS).map(|tag| format!("{edge}-{tag}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    FrameMaker::new(edge, &names)
}

fn frames(maker: &FrameMaker, lane: Lane, count: u64, from_us: Micros) -> Vec<Frame> {
    let frame = |seq: u64| {
        let readings = (0..ROWS_A_FRAME).map(|row| {
            let second = seq as i64 * ROWS_A_FRAME / TAGS + row / TAGS;
            let value = 70.0 + ((row * 7 + second) % 500) as f64 / 100.0;
            Reading::new(
                Alias((row % TAGS) as u32),
                from_us + second * 1_000_000,
                value,
                Quality::GOOD,
            )
        });
        maker.frame(lane, seq, readings.collect(), vec![])
    };
    (0..count).map(frame).collect()
}

fn messages(maker: &FrameMaker, frames: &[Frame]) -> Vec<(String, Vec<u8>)> {
    let message = |frame: &Frame| {
        let topic = maker.topic(Channel::Up(frame.header.id.lane));
        (topic, frame.encode().expect("it fits"))
    };
    frames.iter().map(message).collect()
}

async fn introduce(intake: &Intake, maker: &FrameMaker) {
    let dictionary = vec![(maker.topic(Channel::Dictionary), maker.dictionary.encode())];
    join(publish(
        intake.broker.local_addr,
        (&maker.edge, "any"),
        dictionary,
        1,
        None,
    ))
    .await;
}

async fn measure_form(form: &str, databases: &mut impl Databases) -> Vec<Value> {
    let maker = maker("bench");
    let mut pairs = Vec::new();
    for round in 0..=ROUNDS {
        let from_us = Clock::system().now_us() - 20_000_000_000;
        let frames = frames(&maker, Lane::Live, FRAMES, from_us);
        // A fresh database each, so that neither measures the other's table growing.
        let bare = measure_bare(&databases.next().await, &frames).await;
        let whole = measure_whole(&databases.next().await, &maker, &frames).await;
        println!(
            "{form}, round {round}: bare COPY {:.2} µs/row at {:.0}/s, ingest {:.2} µs/row at {:.0}/s",
            bare.cpu_us_per_row, bare.rows_per_s, whole.cpu_us_per_row, whole.rows_per_s
        );
        if round > 0 {
            pairs.push((bare, whole));
        }
    }
    let test = databases.next().await;
    let lag_s = measure_live_lag(&test).await;
    let bytes = measure_bytes(&test).await;
    println!(
        "{form}: live readings {lag_s:.2} s late at most while a day drains; {bytes:.1} bytes a reading on disk"
    );
    let cpu = middle(&pairs, |cost| cost.cpu_us_per_row);
    let rate = middle(&pairs, |cost| cost.rows_per_s);
    report_rows(form, cpu, rate, lag_s, bytes)
}

/// Of what both took in each round, the round whose ratio is the middle one: bare, whole.
fn middle(pairs: &[(Cost, Cost)], of: fn(&Cost) -> f64) -> (f64, f64) {
    let mut taken: Vec<(f64, f64)> = pairs.iter().map(|(bare, whole)| (of(bare), of(whole))).collect();
    taken.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    taken[taken.len() / 2]
}

async fn measure_bare(test: &TestDatabase, frames: &[Frame]) -> Cost {
    let mut connection = BulkConnection::connect(&test.databases.login.bulk)
        .await
        .expect("the cluster runs");
    let before = (cpu_us(), Instant::now());
    for some in frames.chunks(10) {
        let mut bytes = BytesMut::with_capacity(some.len() * 50_000);
        bytes.put_slice(b"PGCOPY\n\xff\r\n\0");
        bytes.put_u64(0);
        for reading in some.iter().flat_map(|frame| &frame.readings) {
            bytes.put_i16(4);
            bytes.put_i32(8);
            bytes.put_i64(reading.time_us - 946_684_800_000_000);
            bytes.put_i32(4);
            bytes.put_i32(reading.tag.0 as i32 + 1);
            bytes.put_i32(8);
            bytes.put_f64(reading.value);
            bytes.put_i32(2);
            bytes.put_i16(0);
        }
        bytes.put_i16(-1);
        let mut tx = connection.begin(&akron()).await.expect("the tenant exists");
        tx.copy_in(
            "COPY reading (time, tag_id, value, quality) FROM STDIN (FORMAT binary)",
            bytes,
        )
        .await
        .expect("the rows are good");
        tx.commit().await.expect("the cluster runs");
    }
    cost(before, 0.0)
}

async fn measure_whole(test: &TestDatabase, maker: &FrameMaker, frames: &[Frame]) -> Cost {
    let intake = Intake::start(test).await;
    introduce(&intake, maker).await;
    let messages = messages(maker, frames);
    let before = (cpu_us(), Instant::now());
    let edge = publish(
        intake.broker.local_addr,
        (&maker.edge, "any"),
        messages,
        128,
        None,
    );
    let (edge_cpu_us, _) = join(edge).await;
    let cost = cost(before, edge_cpu_us);
    intake.stop().await;
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM reading").await,
        FRAMES as i64 * ROWS_A_FRAME
    );
    cost
}

/// The latest that a live reading was stored, in seconds after it was sent, while another edge of the same tenant drains a
/// day's backlog as fast as it can.
async fn measure_live_lag(test: &TestDatabase) -> f64 {
    let intake = Intake::start(test).await;
    let (backlog, live) = (maker("backlog"), maker("live"));
    introduce(&intake, &backlog).await;
    introduce(&intake, &live).await;
    let now_us = Clock::system().now_us();
    let of_a_day = frames(&backlog, Lane::Backfill, BACKLOG_FRAMES, now_us - 90_000_000_000);
    let of_a_day = messages(&backlog, &of_a_day);
    let of_now: Vec<Frame> = (0..2_000).map(|seq| live.live(seq, now_us, 1)).collect();
    let of_now = messages(&live, &of_now);
    let started = Instant::now();
    let draining = publish(intake.broker.local_addr, ("backlog", "any"), of_a_day, 64, None);
    let mut worst_s = 0.0_f64;
    for message in of_now {
        let one = publish(
            intake.broker.local_addr,
            ("live", "any"),
            vec![message],
            1,
            Some(LIVE_EVERY),
        );
        let (_, waited) = join(one).await;
        worst_s = worst_s.max(waited[0].as_secs_f64());
        if draining.is_finished() {
            break;
        }
    }
    join(draining).await;
    let readings = BACKLOG_FRAMES as f64 * ROWS_A_FRAME as f64;
    println!(
        "a day of {TAGS} tags drained at {:.0} readings/s",
        readings / started.elapsed().as_secs_f64()
    );
    intake.stop().await;
    worst_s
}

/// Disk space of readings and their index; compressed where the form can, as after some days.
async fn measure_bytes(test: &TestDatabase) -> f64 {
    let later = Clock::system().now() + chrono::Duration::days(3);
    upkeep::compress(&test.db, &akron(), later)
        .await
        .expect("the cluster runs");
    let found = report::of_tenant(&test.db, &akron(), later)
        .await
        .expect("the cluster runs");
    let readings = test.count(&akron(), "SELECT count(*) FROM reading").await;
    found.reading_bytes as f64 / readings as f64
}

fn cost((cpu_before, started): (f64, Instant), not_counted_us: f64) -> Cost {
    let rows = FRAMES as f64 * ROWS_A_FRAME as f64;
    Cost {
        cpu_us_per_row: (cpu_us() - cpu_before - not_counted_us) / rows,
        rows_per_s: rows / started.elapsed().as_secs_f64(),
    }
}

// === reporting ===

fn report_rows(
    form: &str,
    (bare_cpu_us, cpu_us): (f64, f64),
    (bare_rate, rate): (f64, f64),
    lag_s: f64,
    bytes: f64,
) -> Vec<Value> {
    let name = |what: &str| match form {
        "plain" => format!("ingest/{what}"),
        form => format!("ingest/{what} ({form})"),
    };
    let (cpu_ratio, rate_ratio) = (cpu_us / bare_cpu_us, rate / bare_rate);
    // Without compression there is nothing to reach: it is told beside what such tables take elsewhere.
    let (goal, reference) = match form {
        "timescaledb-community" => (Some(BYTES_GOAL_COMPRESSED), None),
        _ => (None, Some(BYTES_PLAIN)),
    };
    vec![
        json!({ "name": name("cpu_us_per_reading"), "value": cpu_us, "unit": "µs",
            "reference": bare_cpu_us, "ratio": cpu_ratio, "goal": CPU_GOAL, "pass": cpu_ratio <= CPU_GOAL }),
        json!({ "name": name("readings_per_s"), "value": rate, "unit": "1/s",
            "reference": bare_rate, "ratio": rate_ratio, "goal": RATE_GOAL, "pass": rate_ratio >= RATE_GOAL }),
        json!({ "name": name("live_lag_s_while_a_day_drains"), "value": lag_s, "unit": "s", "reference": null,
            "ratio": lag_s / LIVE_LAG_S_GOAL, "goal": LIVE_LAG_S_GOAL, "pass": lag_s <= LIVE_LAG_S_GOAL }),
        json!({ "name": name("bytes_per_reading"), "value": bytes, "unit": "bytes", "reference": reference,
            "ratio": bytes / goal.or(reference).unwrap_or(bytes), "goal": goal, "pass": goal.map(|goal| bytes <= goal) }),
    ]
}
