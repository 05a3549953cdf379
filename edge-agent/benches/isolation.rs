//! How regularly is a living PLC polled while 49 others are dead, and what does a reading cost the Modbus source?
//!
//! Prints a line each and writes `modbus.json` into `$FOODFLOW_BENCH_DIR` (default `target/bench` of the repository).
#![expect(clippy::print_stdout, reason = "a benchmark's answer goes to standard output")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shares the tests' PLC, which fails by panicking"
)]

#[path = "../tests/support/jitter.rs"]
mod jitter;
#[path = "../tests/support/plc.rs"]
mod plc;
mod results;

use std::{
    hint::black_box,
    net::SocketAddr,
    time::{Duration, Instant},
};

use edge_agent::{
    config,
    health::SourceHealth,
    source::{
        Outlet,
        modbus::{self, Lines, group::decode_block, plan},
    },
};
use jitter::Jitter;
use plc::{Behaviour, Plc, dead_ones};
use serde_json::json;
use tokio::{sync::mpsc, sync::watch, task::JoinSet};

const PERIOD: Duration = Duration::from_millis(100);
const POLLS: u32 = 300;
/// Share of the period that 99 of 100 polls must stay within.
const GOAL_PERCENT: f64 = 5.0;
/// ThingsBoard gateway 3.8.5: 0.19 ms of CPU a Modbus tag.
const THINGSBOARD_NS: f64 = 190_000.0;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let jitter = runtime.block_on(isolation());
    println!(
        "poll jitter of the living PLC of 50 over {} polls:\n{jitter}",
        jitter.polls()
    );
    let p99 = jitter.percent(0.99);
    let decode_ns = decoding_ns();
    println!("from registers to a reading: {decode_ns:.1} ns");
    results::write(
        "modbus.json",
        &[
            json!({
                "name": "modbus/poll_jitter_p99_49_of_50_dead", "value": p99, "unit": "% of the period",
                "reference": GOAL_PERCENT, "ratio": p99 / GOAL_PERCENT, "goal": GOAL_PERCENT, "pass": p99 <= GOAL_PERCENT,
            }),
            json!({
                "name": "modbus/decode_ns_per_reading", "value": decode_ns, "unit": "ns",
                "reference": THINGSBOARD_NS, "ratio": decode_ns / THINGSBOARD_NS, "goal": 100.0, "pass": decode_ns <= 100.0,
            }),
        ],
    );
}

/// Polls one living PLC among 20 that never answer, 15 that refuse and 14 that cannot be reached.
async fn isolation() -> Jitter {
    let living = Plc::start(Behaviour::default()).await;
    let (_black_holes, dead) = dead_ones().await;
    let addresses = [&[living.address][..], &dead].concat();
    let (tx, mut rx) = mpsc::channel(4096);
    let mut tasks = JoinSet::new();
    let lines = Lines::default();
    for device in config::parse(&config_of(&addresses, 1)).expect("valid").modbus {
        let outlet = Outlet::new(tx.clone(), SourceHealth::new("modbus", &device.name));
        tasks.spawn(modbus::run(watch::channel(device).1, lines.clone(), outlet));
    }
    let draining = async { while rx.recv().await.is_some() {} };
    drop(tokio::time::timeout(PERIOD * POLLS, draining).await);
    Jitter::of(&living.asked(), PERIOD)
}

/// A device an address, each with so many neighbouring registers.
fn config_of(addresses: &[SocketAddr], registers: u16) -> String {
    let head = "[edge]\nname = \"bench\"\ntenant = \"bench\"\n[hub]\nmqtt = \"127.0.0.1:9\"\n";
    let devices = addresses.iter().enumerate().map(|(index, address)| {
        let tags: Vec<String> = (0..registers)
            .map(|register| {
                format!(
                    "[[modbus.group.tag]]\nname = \"T-{index}-{register}\"\naddress = {register}\nscale_digits = 1\n"
                )
            })
            .collect();
        format!(
            "[[modbus]]\nname = \"plc{index}\"\naddress = \"{address}\"\n[[modbus.group]]\nperiod = \"{}ms\"\n{}",
            PERIOD.as_millis(),
            tags.concat()
        )
    });
    head.to_owned() + &devices.collect::<String>()
}

/// Nanoseconds from the registers of a reply to one reading.
fn decoding_ns() -> f64 {
    const ROUNDS: u32 = 10_000;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let device = config::parse(&config_of(&[nowhere], 120))
        .expect("valid")
        .modbus
        .remove(0);
    let tags = &device.groups[0].tags;
    let places: Vec<plan::Place> = tags.iter().map(|tag| tag.place).collect();
    let members: Vec<usize> = (0..places.len()).collect();
    let block = plan::blocks(&places, &members, device.limits).remove(0);
    let registers: Vec<u16> = (0..block.count).collect();
    let begin = Instant::now();
    for round in 0..ROUNDS {
        let mut readings = Vec::with_capacity(tags.len());
        decode_block(&block, &registers, tags, i64::from(round), &mut readings);
        black_box(readings);
    }
    begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS) / tags.len() as f64
}
