//! What does ingest cost beside the least that PostgreSQL can do? CPU microseconds per reading of the whole path
//! (decode, claim, COPY, newest values, commit) against a bare COPY BINARY of the same rows in the same run.
//! Counted are this process and every process of its private cluster.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};
use cloud_hub::{
    broker::{self, BrokerError, Device, Settled, Uplink, UplinkSender},
    edges::authority::DeviceAuthority,
    ingest::{self, Publish},
    kernel::{bulk::BulkConnection, clock::Clock},
    series::bus::LiveBus,
};
use futures_util::future::BoxFuture;
use protocol::{Micros, Quality, Reading, frame::Frame, lane::Lane, reading::Alias, topic::Channel};
use serde_json::json;
use support::{FrameMaker, TestDatabase, akron};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

const FRAMES: u64 = 1_000;
const ROWS_A_FRAME: i64 = 1_000;
const ROUNDS: u64 = 3;
const TAGS: i64 = 50;
/// Ingest may cost this many times a bare COPY.
const GOAL: f64 = 1.3;

struct Nowhere;

impl Publish for Nowhere {
    fn publish(&self, _: String, _: Bytes) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async { Ok(()) })
    }
}

#[derive(Clone, Copy)]
struct Cost {
    cpu_us_per_row: f64,
    rows_per_s: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let names: Vec<String> = (0..TAGS).map(|tag| format!("T-{tag}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let maker = FrameMaker::new("bench", &names);
    let from_us = Clock::system().now_us() - 20_000_000_000;
    let (mut bare, mut whole) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let frames = frames(&maker, from_us);
        // A fresh copy of the template each, so that neither measures the other's table growing.
        bare.push(measure_bare(&TestDatabase::create().await, &frames).await);
        whole.push(measure_ingest(&TestDatabase::create().await, &maker, &frames).await);
        println!(
            "round {round}: bare COPY {:.2} µs/row, ingest {:.2} µs/row",
            bare[round as usize].cpu_us_per_row, whole[round as usize].cpu_us_per_row
        );
    }
    report(best(&bare), best(&whole));
}

fn best(costs: &[Cost]) -> Cost {
    costs
        .iter()
        .copied()
        .min_by(|a, b| a.cpu_us_per_row.total_cmp(&b.cpu_us_per_row))
        .expect("there are rounds")
}

fn frames(maker: &FrameMaker, from_us: Micros) -> Vec<Frame> {
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
        maker.frame(Lane::Live, seq, readings.collect(), vec![])
    };
    (0..FRAMES).map(frame).collect()
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
    cost(before)
}

async fn measure_ingest(test: &TestDatabase, maker: &FrameMaker, frames: &[Frame]) -> Cost {
    let (uplinks, arriving) = broker::uplinks(64 << 20);
    let context = ingest::Context {
        target: test.databases.login.clone(),
        publish: Arc::new(Nowhere),
        live: LiveBus::new(),
        authority: {
            let dir = tempfile::tempdir().expect("there is room for two small files");
            DeviceAuthority::load_or_create(dir.path(), Clock::system().now()).expect("a key can be made")
        },
        clock: Clock::system(),
        settings: ingest::Settings {
            rows_max: 10_000,
            gather: std::time::Duration::from_millis(20),
        },
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(ingest::run(context, arriving, stop.clone()));
    put(&uplinks, maker, Channel::Dictionary, maker.dictionary.encode())
        .await
        .await
        .expect("it is settled");
    let payloads: Vec<Vec<u8>> = frames
        .iter()
        .map(|frame| frame.encode().expect("it fits"))
        .collect();
    let before = (cpu_us(), Instant::now());
    let mut waiting = Vec::new();
    for payload in payloads {
        waiting.push(put(&uplinks, maker, Channel::Up(Lane::Live), payload).await);
    }
    for settled in waiting {
        assert_eq!(settled.await.expect("it is settled"), Settled::Stored);
    }
    let cost = cost(before);
    stop.cancel();
    running.await.expect("ingest ends");
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM reading").await,
        FRAMES as i64 * ROWS_A_FRAME
    );
    cost
}

async fn put(
    uplinks: &UplinkSender,
    maker: &FrameMaker,
    channel: Channel,
    payload: Vec<u8>,
) -> oneshot::Receiver<Settled> {
    let (settled, waiting) = oneshot::channel();
    let uplink = Uplink {
        device: Device {
            tenant: "akron".to_owned(),
            name: maker.edge.clone(),
        },
        topic: maker.topic(channel),
        payload: payload.into(),
        settled,
    };
    uplinks.send(uplink).await.expect("ingest runs");
    waiting
}

fn cost((cpu_before, started): (f64, Instant)) -> Cost {
    let rows = FRAMES as f64 * ROWS_A_FRAME as f64;
    Cost {
        cpu_us_per_row: (cpu_us() - cpu_before) / rows,
        rows_per_s: rows / started.elapsed().as_secs_f64(),
    }
}

/// User and system time of this process and all its descendants so far, living and waited for.
fn cpu_us() -> f64 {
    const TICK_US: f64 = 10_000.0;
    let stats: Vec<Vec<u64>> = fs::read_dir("/proc")
        .expect("Linux")
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            let pid = text.split(' ').next()?.parse().ok()?;
            // After the name in parentheses: state, parent, …; times are fields 14 to 17 of the whole line.
            let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
            let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
            Some(vec![
                pid,
                number(1)?,
                number(11)? + number(12)? + number(13)? + number(14)?,
            ])
        })
        .collect();
    let mut family = vec![u64::from(std::process::id())];
    loop {
        let known = family.len();
        for stat in &stats {
            if family.contains(&stat[1]) && !family.contains(&stat[0]) {
                family.push(stat[0]);
            }
        }
        if family.len() == known {
            break;
        }
    }
    stats
        .iter()
        .filter(|stat| family.contains(&stat[0]))
        .map(|stat| stat[2] as f64 * TICK_US)
        .sum()
}

fn report(bare: Cost, whole: Cost) {
    let ratio = whole.cpu_us_per_row / bare.cpu_us_per_row;
    println!(
        "ingest {:.2} µs CPU a reading, bare COPY {:.2}: {ratio:.2} times",
        whole.cpu_us_per_row, bare.cpu_us_per_row
    );
    println!(
        "ingest {:.0} readings/s, bare COPY {:.0}",
        whole.rows_per_s, bare.rows_per_s
    );
    let entries = json!([
        { "name": "ingest/cpu_us_per_reading", "value": whole.cpu_us_per_row, "unit": "µs",
          "reference": bare.cpu_us_per_row, "ratio": ratio, "goal": GOAL, "pass": ratio <= GOAL },
        { "name": "ingest/readings_per_s", "value": whole.rows_per_s, "unit": "1/s",
          "reference": bare.rows_per_s, "ratio": whole.rows_per_s / bare.rows_per_s, "goal": 0.8,
          "pass": whole.rows_per_s >= bare.rows_per_s * 0.8 },
    ]);
    let dir = std::env::var_os("FOODFLOW_BENCH_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench"),
        PathBuf::from,
    );
    fs::create_dir_all(&dir).expect("the directory can be made");
    fs::write(dir.join("hub.json"), entries.to_string()).expect("the file can be written");
}
