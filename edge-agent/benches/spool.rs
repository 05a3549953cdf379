//! How many bytes does a reading cost on the wire and on disk, and how many readings a second does the spool take?
//!
//! Prints a line each and writes `edge.json` into `$FOODFLOW_BENCH_DIR` (default `target/bench` of the repository).
#![expect(clippy::print_stdout, reason = "a benchmark's answer goes to standard output")]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use edge_agent::spool::{
    record::Record,
    seal::Sealer,
    store::{Limits, Notes, Store},
};
use protocol::{Micros, Quality, Reading, frame::ClockState, reading::Alias};
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use uuid::Uuid;

const START_US: Micros = 1_772_366_400_000_000;
const SECOND_US: Micros = 1_000_000;
/// Neuron 3's disk cache: 1,000 tags a message, 13.4 bytes a sample (neuron-docs, mqtt/overview.md).
const NEURON_DISK_BYTES: f64 = 13.4;
/// JSON of the same readings (measured for platform.md).
const JSON_WIRE_BYTES: f64 = 63.9;

fn main() {
    let scenarios = [
        ("50 sensors at 1 Hz, frames of 1,000", readings(50, 2_000), 1_000),
        (
            "1,000 tags at 1 Hz, a frame each 250 ms",
            readings(1_000, 100),
            250,
        ),
    ];
    let mut results = Vec::new();
    for (index, (what, readings, frame)) in scenarios.iter().enumerate() {
        let suffix = if index == 0 { "" } else { "_250ms" };
        let begin = Instant::now();
        let records = seal(readings, *frame);
        let sealing = begin.elapsed();
        let wire =
            records.iter().map(|record| record.envelope.len()).sum::<usize>() as f64 / readings.len() as f64;
        let (disk, rate) = store(&records, readings.len(), sealing);
        println!(
            "{what}: {wire:.2} bytes a reading on the wire, {disk:.2} on disk, {rate:.0} readings/s stored"
        );
        results.push(result(
            &format!("wire/bytes_per_reading{suffix}"),
            wire,
            "bytes",
            JSON_WIRE_BYTES,
            3.0,
        ));
        results.push(result(
            &format!("edge/spool_bytes_per_reading{suffix}"),
            disk,
            "bytes",
            NEURON_DISK_BYTES,
            3.0,
        ));
        results.push(json!({
            "name": format!("edge/spool_append_rate{suffix}"), "value": rate, "unit": "readings/s",
            "reference": 100_000.0, "ratio": rate / 100_000.0, "goal": 100_000.0, "pass": rate >= 100_000.0,
        }));
    }
    write(&results);
}

/// Slowly varying process values with the resolution of a transmitter, as registers give them.
fn readings(tags: u32, seconds: i64) -> Vec<Reading> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut levels: Vec<i64> = (0..tags).map(|_| rng.random_range(200..9_000)).collect();
    let mut out = Vec::with_capacity(tags as usize * seconds as usize);
    for second in 0..seconds {
        // The poll's own time, with the jitter that a poll has.
        let at = START_US + second * SECOND_US + rng.random_range(0..3_000);
        for (tag, level) in (0..tags).zip(&mut levels) {
            *level += rng.random_range(-3..=3);
            out.push(Reading::new(Alias(tag), at, *level as f64 / 100.0, Quality::GOOD));
        }
    }
    out
}

fn seal(readings: &[Reading], frame: usize) -> Vec<Record> {
    let mut sealer = Sealer::new(
        "akron-1",
        Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
        Uuid::from_u128(2),
        frame,
        Duration::from_millis(250),
    );
    let mut records = Vec::new();
    for (chunk, at) in readings.chunks(frame).zip(START_US..) {
        sealer.push(chunk.to_vec(), at);
        records.extend(sealer.seal_readings(at, ClockState::default()));
    }
    records
}

/// Bytes on disk a reading, and readings a second through sealing, append, flush and fsync, four frames at a time as
/// in group commit. Repeated with new frames until a store's fixed size (six idle segments, 3 MiB) no longer counts,
/// as it does not in a generation of 256 MiB.
fn store(records: &[Record], readings: usize, sealing: Duration) -> (f64, f64) {
    const ROUNDS: usize = 100;
    let directory = std::env::temp_dir().join(format!("foodflow-bench-{}", std::process::id()));
    let limits = Limits {
        quota_bytes: 1 << 40,
        generation_bytes: 1 << 40,
    };
    let (mut store, _) =
        Store::open(&directory, limits, START_US).expect("a store in the temporary directory");
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        for group in records.chunks(4) {
            store.append(group, Notes::default()).expect("the disk takes it");
        }
    }
    let spent = begin.elapsed() + sealing * ROUNDS as u32;
    let rate = (readings * ROUNDS) as f64 / spent.as_secs_f64();
    drop(store);
    let disk = size(&directory) as f64 / (readings * ROUNDS) as f64;
    std::fs::remove_dir_all(&directory).expect("the store can be deleted");
    (disk, rate)
}

fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("the directory can be listed");
    entries
        .map(|entry| {
            let entry = entry.expect("the directory can be listed");
            let metadata = entry.metadata().expect("the file is there");
            if metadata.is_dir() {
                size(&entry.path())
            } else {
                metadata.len()
            }
        })
        .sum()
}

fn result(name: &str, value: f64, unit: &str, reference: f64, goal: f64) -> Value {
    json!({
        "name": name, "value": value, "unit": unit, "reference": reference, "ratio": value / reference,
        "goal": goal, "pass": value <= goal,
    })
}

fn write(results: &[Value]) {
    let directory = std::env::var_os("FOODFLOW_BENCH_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&directory).expect("the bench directory can be made");
    let text = serde_json::to_string_pretty(results).expect("plain data serialises");
    std::fs::write(directory.join("edge.json"), text).expect("the bench directory can be written");
}
