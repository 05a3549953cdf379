//! How many bytes does a reading cost on the wire and on disk, how many readings a second does the spool take and
//! give, and what does a long backlog cost at the next start?
//!
//! Prints a line each and writes `edge.json` into `$FOODFLOW_BENCH_DIR` (default `target/bench` of the repository).
#![expect(clippy::print_stdout, reason = "a benchmark's answer goes to standard output")]

mod results;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use edge_agent::spool::{
    generation::directory_bytes,
    seal::Sealer,
    store::{Limits, Notes, Store},
};
use protocol::{Micros, Quality, Reading, frame::ClockState, lane::Lane, reading::Alias};
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use uuid::Uuid;

const START_US: Micros = 1_772_366_400_000_000;
const SECOND_US: Micros = 1_000_000;
const BOOT: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);
/// Neuron 3's disk cache: 1,000 tags a message, 13.4 bytes a sample (neuron-docs, mqtt/overview.md).
const NEURON_DISK_BYTES: f64 = 13.4;
/// JSON of the same readings (measured for platform.md).
const JSON_WIRE_BYTES: f64 = 63.9;
const MIB: f64 = (1 << 20) as f64;

/// An outage: how many tags, how fast a frame is cut, how long.
struct Scenario {
    what: &'static str,
    suffix: &'static str,
    tags: u32,
    frame: usize,
    seconds: i64,
}

fn main() {
    let scenarios = [
        Scenario {
            what: "50 tags at 1 Hz, frames of 250 ms, one hour",
            suffix: "",
            tags: 50,
            frame: 13,
            seconds: 3_600,
        },
        Scenario {
            what: "1,000 tags at 1 Hz, frames of 250 ms, one hour",
            suffix: "_250ms",
            tags: 1_000,
            frame: 250,
            seconds: 3_600,
        },
    ];
    let mut results = Vec::new();
    for scenario in &scenarios {
        outage(scenario, &mut results);
    }
    backlog(&mut results);
    results::write("edge.json", &results);
}

/// Slowly varying process values with the resolution of a transmitter, as registers give them.
struct Plant {
    rng: rand_chacha::ChaCha8Rng,
    levels: Vec<i64>,
}

impl Plant {
    fn new(tags: u32) -> Self {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let levels = (0..tags).map(|_| rng.random_range(200..9_000)).collect();
        Self { rng, levels }
    }

    fn second(&mut self, second: i64) -> Vec<Reading> {
        // The poll's own time, with the jitter that a poll has.
        let at = START_US + second * SECOND_US + self.rng.random_range(0..3_000);
        let mut out = Vec::with_capacity(self.levels.len());
        for (tag, level) in (0..).zip(&mut self.levels) {
            *level += self.rng.random_range(-3..=3);
            out.push(Reading::new(Alias(tag), at, *level as f64 / 100.0, Quality::GOOD));
        }
        out
    }
}

fn sealer(frame: usize) -> Sealer {
    Sealer::new(
        "akron-1",
        BOOT,
        Uuid::from_u128(2),
        frame,
        Duration::from_millis(250),
    )
}

fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("foodflow-bench-{name}-{}", std::process::id()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory).expect("an old bench directory can be deleted");
    }
    directory
}

fn open(directory: &Path) -> Store {
    let limits = Limits {
        quota_bytes: 8 << 30,
        generation_bytes: 64 << 20,
        keep_us: 0,
    };
    Store::open(directory, limits, BOOT, START_US)
        .expect("a store in the temporary directory")
        .0
}

fn settle(store: &mut Store) {
    while store.settle().expect("the disk takes it") {}
}

/// The hub is away: each second's frames are made durable as they come and merged meanwhile.
fn outage(scenario: &Scenario, results: &mut Vec<Value>) {
    let directory = directory("outage");
    let mut store = open(&directory);
    let (mut plant, mut sealer) = (Plant::new(scenario.tags), sealer(scenario.frame));
    let (mut sealed, mut readings, mut spent) = (0, 0, Duration::ZERO);
    let mut slowest = Duration::ZERO;
    for second in 0..scenario.seconds {
        let at_us = START_US + second * SECOND_US;
        let polled = plant.second(second);
        readings += polled.len();
        let begin = Instant::now();
        for chunk in polled.chunks(scenario.frame) {
            let begin = Instant::now();
            sealer.push(chunk.to_vec(), at_us);
            let records = sealer.seal_readings(at_us, ClockState::default(), Lane::Backfill);
            sealed += records.iter().map(|record| record.envelope.len()).sum::<usize>();
            store
                .append(&records, Notes::default())
                .expect("the disk takes it");
            store.settle().expect("the disk takes it");
            slowest = slowest.max(begin.elapsed());
        }
        spent += begin.elapsed();
    }
    let stored = Instant::now();
    store.begin_segment().expect("the disk takes it");
    settle(&mut store);
    let merging = stored.elapsed();
    let frames = store.totals().frames;
    store.close();
    let sealed = sealed as f64 / readings as f64;
    let disk = directory_bytes(&directory) as f64 / readings as f64;
    // The whole of it drained, without a network in between: what the disk gives.
    let (given, wire, rate) = drain(&directory);
    let wire = wire as f64 / readings as f64;
    assert_eq!(given, readings as u64, "every reading that went in came out");
    let taken = readings as f64 / (spent + merging).as_secs_f64();
    println!(
        "{}: {sealed:.2} bytes a reading as sealed, {wire:.2} as merged and sent, {disk:.2} on disk in {frames} \
         frames, {taken:.0} readings/s taken with fsync (slowest group {:.0} ms), {rate:.0} readings/s given",
        scenario.what,
        slowest.as_secs_f64() * 1e3
    );
    let suffix = scenario.suffix;
    results.push(at_most(
        &format!("wire/bytes_per_reading{suffix}"),
        wire,
        "bytes",
        JSON_WIRE_BYTES,
        12.0,
    ));
    results.push(at_most(
        &format!("edge/spool_bytes_per_reading{suffix}"),
        disk,
        "bytes",
        NEURON_DISK_BYTES,
        3.0,
    ));
    let goal = f64::from(scenario.tags);
    results.push(at_least(
        &format!("edge/spool_append_rate{suffix}"),
        taken,
        "readings/s",
        goal,
    ));
    if suffix == "_250ms" {
        results.push(at_least("edge/spool_drain_rate", rate, "readings/s", 500_000.0));
    }
    std::fs::remove_dir_all(&directory).expect("the store can be deleted");
}

/// Readings handed out and acknowledged, the bytes they travelled in, and how many a second.
fn drain(directory: &Path) -> (u64, usize, f64) {
    let mut store = open(directory);
    let (mut readings, mut bytes, mut after) = (0, 0, None);
    let begin = Instant::now();
    loop {
        let found = store.after(Lane::Live, after, 16).expect("the disk gives it");
        let Some((last, _)) = found.last() else { break };
        after = Some(last.ordinal);
        bytes += found
            .iter()
            .map(|(_, record)| record.envelope.len())
            .sum::<usize>();
        let keys: Vec<_> = found.iter().map(|(key, _)| *key).collect();
        readings += store
            .remove(&keys)
            .iter()
            .map(|meta| u64::from(meta.readings))
            .sum::<u64>();
        store.tend(START_US);
    }
    (readings, bytes, readings as f64 / begin.elapsed().as_secs_f64())
}

/// A backlog of a gigabyte of bytes that do not compress: what it costs in memory, and at the next start.
fn backlog(results: &mut Vec<Value>) {
    let bytes: u64 = std::env::var("FOODFLOW_BENCH_BACKLOG_MIB")
        .ok()
        .and_then(|mib| mib.parse::<u64>().ok())
        .unwrap_or(1_024)
        << 20;
    let directory = directory("backlog");
    let mut store = open(&directory);
    let mut sealer = sealer(4_000);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(8);
    let before = rss_bytes();
    let mut at_us = START_US;
    while store.disk_bytes() < bytes {
        for _ in 0..32 {
            at_us += SECOND_US;
            let readings =
                (0..4_000).map(|tag| Reading::new(Alias(tag), at_us, rng.random::<f64>(), Quality::GOOD));
            sealer.push(readings.collect(), at_us);
        }
        let records = sealer.seal_readings(at_us, ClockState::default(), Lane::Backfill);
        store
            .append(&records, Notes::default())
            .expect("the disk takes it");
        settle(&mut store);
    }
    let grown = rss_bytes().saturating_sub(before) as f64 / MIB;
    let waiting = store.totals();
    // Killed, not closed.
    drop(store);
    let begin = Instant::now();
    let mut store = open(&directory);
    let opened_ms = begin.elapsed().as_secs_f64() * 1e3;
    assert_eq!(store.totals(), waiting, "what waited before waits now");
    let begin = Instant::now();
    let first = store
        .after(Lane::Live, None, 16)
        .expect("the disk gives it")
        .len();
    let first_ms = begin.elapsed().as_secs_f64() * 1e3;
    println!(
        "{:.0} MiB of backlog in {} frames: {grown:.0} MiB of memory, opened in {opened_ms:.1} ms, first {first} \
         frames after {first_ms:.0} ms more",
        bytes as f64 / MIB,
        waiting.frames
    );
    results.push(at_most("edge/spool_backlog_memory", grown, "MiB", 832.0, 50.0));
    results.push(at_most("edge/spool_open", opened_ms, "ms", 300.0, 300.0));
    results.push(at_most(
        "edge/spool_first_frames",
        first_ms,
        "ms",
        2_000.0,
        2_000.0,
    ));
    drop(store);
    std::fs::remove_dir_all(&directory).expect("the store can be deleted");
}

fn rss_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn at_most(name: &str, value: f64, unit: &str, reference: f64, goal: f64) -> Value {
    json!({
        "name": name, "value": value, "unit": unit, "reference": reference, "ratio": value / reference,
        "goal": goal, "pass": value <= goal,
    })
}

fn at_least(name: &str, value: f64, unit: &str, goal: f64) -> Value {
    json!({
        "name": name, "value": value, "unit": unit, "reference": goal, "ratio": value / goal, "goal": goal,
        "pass": value >= goal,
    })
}
