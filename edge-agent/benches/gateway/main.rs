//! What does it cost to poll a plant and deliver it? The agent's program against the simulator, beside the ThingsBoard
//! gateway (PyPI) on the same simulator in the same run where it is installed, and beside published figures otherwise;
//! and how soon a killed agent asks its devices again.
//!
//! Prints a line each and writes `gateway.json` into `$FOODFLOW_BENCH_DIR` (default `target/bench` of the repository).
#![expect(clippy::print_stdout, reason = "a benchmark's answer goes to standard output")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shares the tests' agent, load and hub, which fail by panicking"
)]

#[path = "../results/mod.rs"]
mod results;
#[path = "../../tests/support/mod.rs"]
mod support;
mod thingsboard;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    edge::{Edge, count, device, head},
    hub::{Hub, Policy},
    load::Load,
    plc::{Behaviour, Plc},
};

/// Before it is measured, a program gets over its start.
const WARM_UP: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(30);
/// `/proc` counts processor time in these (USER_HZ, the same on every Linux platform).
const TICKS_PER_S: f64 = 100.0;
const RESTARTS: usize = 9;

/// What a process costs while it delivers.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Processor time over wall time, % of one core.
    cpu_percent: f64,
    /// Resident memory, MB of 2^20 bytes.
    rss_mb: f64,
    /// Readings that arrived at the other end.
    delivered_per_s: f64,
}

/// Figures of others: what they are called, and memory and processor time.
struct Reference {
    what: String,
    rss_mb: f64,
    cpu_percent: f64,
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let rows = runtime.block_on(async {
        let small = agent_cost("devices=1,tags=1000").await;
        let peer = thingsboard::cost().await;
        let mut rows = costs(
            "1k_tags_s",
            small,
            1_000.0,
            (20.0, 2.0),
            &beside_thingsboard(peer),
        )
        .to_vec();
        let large = agent_cost("devices=100,tags=1000").await;
        // NeuronEX 3.2.1, Modbus TCP, 100,000 tags/s: 497 MB, 30 % of four cores (its documentation, performance).
        let neuron = Reference {
            what: "Neuron, published".to_owned(),
            rss_mb: 497.0,
            cpu_percent: 120.0,
        };
        rows.extend(costs("100k_tags_s", large, 100_000.0, (100.0, 60.0), &neuron));
        rows.push(restart().await);
        rows
    });
    results::write("gateway.json", &rows);
}

/// The peer's cost in this run; ThingsBoard gateway 3.8.5 cost 70 MB and 19 % of a core when it was measured elsewhere.
fn beside_thingsboard(peer: Option<Cost>) -> Reference {
    let published = Reference {
        what: "ThingsBoard gateway, measured before".to_owned(),
        rss_mb: 70.0,
        cpu_percent: 19.0,
    };
    peer.map_or(published, |cost| Reference {
        what: "ThingsBoard gateway, this run".to_owned(),
        rss_mb: cost.rss_mb,
        cpu_percent: cost.cpu_percent,
    })
}

/// The agent polls a load once a second and delivers it to a hub that stores it.
async fn agent_cost(load: &str) -> Cost {
    let directory = tempfile::tempdir().unwrap();
    let hub = Hub::start(Policy::Store).await;
    let load = Load::every(directory.path(), hub.address, load, "1s").await;
    let edge = Edge::start(directory.path(), &load.config).await;
    let stored = hub.stored.clone();
    let cost = cost_of(edge.pid(), || {
        let mut stored = stored.lock().unwrap();
        let readings = stored
            .arrivals
            .iter()
            .map(|arrival| arrival.readings as u64)
            .sum();
        // What came is counted, not kept.
        stored.frames.clear();
        stored.envelopes.clear();
        readings
    })
    .await;
    let status = edge.status().await;
    assert_eq!(count(&status["lost"]), 0, "the agent lost readings");
    cost
}

/// Measures a process that is already running.
async fn cost_of(pid: u32, delivered: impl Fn() -> u64) -> Cost {
    tokio::time::sleep(WARM_UP).await;
    let (from, cpu_s, count) = (Instant::now(), cpu_s(pid), delivered());
    tokio::time::sleep(MEASURED).await;
    let wall_s = from.elapsed().as_secs_f64();
    Cost {
        cpu_percent: 100.0 * (self::cpu_s(pid) - cpu_s) / wall_s,
        rss_mb: rss_mb(pid),
        delivered_per_s: (delivered() - count) as f64 / wall_s,
    }
}

/// User and system time of a process, seconds (proc(5), fields 14 and 15).
fn cpu_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_S
}

fn rss_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn costs(name: &str, ours: Cost, due_per_s: f64, goals: (f64, f64), reference: &Reference) -> [Value; 2] {
    println!(
        "{name}: {:.1} MB, {:.2} % of a core, {:.0} readings/s delivered; {}: {:.1} MB, {:.1} %",
        ours.rss_mb,
        ours.cpu_percent,
        ours.delivered_per_s,
        reference.what,
        reference.rss_mb,
        reference.cpu_percent
    );
    // A second more or less may fall into the half minute that is measured.
    let is_whole = ours.delivered_per_s >= 0.96 * due_per_s;
    let row = |what: &str, unit: &str, value: f64, reference: f64, goal: f64| {
        json!({
            "name": format!("edge/{what}_{name}"), "value": value, "unit": unit, "reference": reference,
            "ratio": value / reference, "goal": goal, "pass": is_whole && value <= goal,
        })
    };
    [
        row("memory", "MB", ours.rss_mb, reference.rss_mb, goals.0),
        row(
            "cpu",
            "% of a core",
            ours.cpu_percent,
            reference.cpu_percent,
            goals.1,
        ),
    ]
}

/// From the start of a program that was killed to the first request that reaches a device, 10,000 tags; the median.
async fn restart() -> Value {
    const GOAL_MS: f64 = 300.0;
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let addresses: Vec<u16> = (0..1_000).collect();
    let devices = (0..10).map(|n| device(&format!("line-{n}"), plc.address, "1s", "500ms", &addresses));
    let config = head(None) + &devices.collect::<String>();
    let mut took_ms = Vec::new();
    for _ in 0..=RESTARTS {
        let asked = plc.asked().len();
        let from = Instant::now();
        let starting = Edge::start(directory.path(), &config);
        let (edge, ()) = tokio::join!(starting, plc.until_asked(asked));
        took_ms.push((plc.asked()[asked].at - from).as_secs_f64() * 1e3);
        edge.kill();
    }
    // The first start was none after a kill.
    took_ms.remove(0);
    took_ms.sort_by(f64::total_cmp);
    let median_ms = took_ms[RESTARTS / 2];
    println!("restart to the first poll, 10,000 tags: median {median_ms:.0} ms, all {took_ms:.0?}");
    json!({
        "name": "edge/restart_to_first_poll_10k_tags", "value": median_ms, "unit": "ms", "reference": GOAL_MS,
        "ratio": median_ms / GOAL_MS, "goal": GOAL_MS, "pass": median_ms <= GOAL_MS,
    })
}
