//! T4, T5, T8: is anything freed before the hub has it, whatever the broker says, and does live data pass a backlog?
//! And what do the commands for a stopped agent say of its disk?

use std::{collections::BTreeMap, path::Path};

use protocol::lane::Lane;
use serde_json::Value;

use crate::support::{
    edge::{Edge, ask, count, device, head},
    hub::{Arrival, Hub, Policy, Stored},
    plc::{Behaviour, Plc},
};

async fn plant(hub: &Hub, hub_keys: &str) -> (tempfile::TempDir, Plc, Edge) {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        counts: true,
        ..Behaviour::default()
    })
    .await;
    let addresses: Vec<u16> = (0..100).collect();
    let config = head(Some(hub.address)).replace("[local]", &format!("{hub_keys}\n[local]"))
        + "[spool]\nframe_age_max = \"20ms\"\n"
        + &device("plc", plc.address, "20ms", "800ms", &addresses);
    let edge = Edge::start(directory.path(), &config).await;
    (directory, plc, edge)
}

/// The device numbers its polls: whether each came whole and once, from the first to the last that came.
fn is_whole(stored: &Stored) -> bool {
    let mut polls: BTreeMap<u64, usize> = BTreeMap::new();
    for reading in stored.frames.values().flat_map(|frame| &frame.readings) {
        if let Some(value) = reading.value() {
            *polls.entry(value as u64).or_default() += 1;
        }
    }
    let ends = polls.keys().next().zip(polls.keys().last());
    ends.is_some_and(|(first, last)| last - first + 1 == polls.len() as u64)
        && polls.values().all(|tags| *tags == 100)
}

#[tokio::test]
async fn t4_a_black_hole_broker_costs_nothing_of_what_was_published_into_it() {
    let hub = Hub::start(Policy::Store).await;
    let (_directory, _plc, edge) = plant(&hub, "").await;
    hub.until("readings", |stored| stored.readings() > 500).await;
    hub.set_policy(Policy::BlackHole);
    edge.until("that the connection is dead", |status| {
        status["uplink"]["state"] == "offline"
    })
    .await;
    let spooled = count(&edge.status().await["spooled"]) as usize;
    hub.set_policy(Policy::Store);
    // Live frames come first: what waited fills the hole before them.
    hub.until("all of it, each poll once", |stored| {
        stored.readings() >= spooled && is_whole(stored)
    })
    .await;
}

#[tokio::test]
async fn t5_a_broker_that_acknowledges_for_a_hub_that_does_not_frees_nothing() {
    let hub = Hub::start(Policy::Silent).await;
    let (_directory, _plc, edge) = plant(&hub, "").await;
    hub.until("frames on the wire", |stored| stored.topics.len() >= 60)
        .await;
    let status = edge
        .until("a backlog", |status| count(&status["backlog_readings"]) > 5_000)
        .await;
    assert_eq!(count(&status["acknowledged"]), 0);
    hub.set_policy(Policy::Store);
    hub.drop_connections();
    let spooled = count(&status["spooled"]) as usize;
    // Live frames come first: what waited fills the hole before them.
    hub.until("all of it, each poll once", |stored| {
        stored.readings() >= spooled && is_whole(stored)
    })
    .await;
}

#[tokio::test]
async fn t8_live_data_passes_a_backlog_that_keeps_to_its_rate_and_its_order() {
    const CAP: f64 = 8_000.0;
    let hub = Hub::start(Policy::RefuseConnection).await;
    let (_directory, _plc, edge) = plant(&hub, "drain_readings_per_s = 8000").await;
    // More than keeps an identity of its own: most of it is merged.
    edge.until("a backlog", |status| count(&status["backlog_readings"]) > 80_000)
        .await;
    hub.set_policy(Policy::Store);
    let spooled = count(&edge.status().await["spooled"]) as usize;
    hub.until("all of it", |stored| stored.readings() > spooled + 10_000)
        .await;
    edge.until("a drained spool", |status| {
        count(&status["backlog_readings"]) <= 3_000
    })
    .await;
    hub.until("each poll once", is_whole).await;
    let stored = hub.stored.lock().unwrap();
    let of = |lane| stored.arrivals.iter().filter(move |arrival| arrival.lane == lane);
    let backlog: Vec<&Arrival> = of(Lane::Backfill).collect();
    assert!(
        backlog.iter().any(|arrival| arrival.id.lane == Lane::Backfill),
        "parts were merged"
    );
    assert!(
        backlog.is_sorted_by_key(|arrival| arrival.sealed_us),
        "the backlog came in order"
    );
    let (first, last) = (backlog[0], backlog[backlog.len() - 1]);
    let took_s = (last.arrived_us - first.arrived_us) as f64 / 1e6;
    let readings: usize = backlog.iter().map(|arrival| arrival.readings).sum();
    // A second's worth may run ahead, and one frame more than was left.
    assert!(
        readings as f64 <= CAP * (took_s + 1.0) + 10_000.0,
        "{readings} readings in {took_s} s"
    );
    let live: Vec<&Arrival> = of(Lane::Live).collect();
    let meanwhile: Vec<&&Arrival> = live
        .iter()
        .filter(|arrival| arrival.arrived_us < last.arrived_us)
        .collect();
    assert!(!meanwhile.is_empty(), "live frames did not wait for the backlog");
    let mut lags: Vec<i64> = meanwhile
        .iter()
        .map(|arrival| arrival.arrived_us - arrival.sealed_us)
        .collect();
    lags.sort_unstable();
    let median = lags[lags.len() / 2];
    eprintln!(
        "{readings} readings of backlog in {took_s:.1} s; {} live frames meanwhile, median lag {median} us, longest {} us",
        lags.len(),
        lags[lags.len() - 1]
    );
    assert!(median < 2_000_000, "live data is {median} us behind");
}

/// Runs the program; its exit code and what it answered.
#[tokio::test]
async fn a_stopped_agents_spool_is_listed_verified_and_exported_and_stays_as_it_is() {
    let hub = Hub::start(Policy::RefuseConnection).await;
    let (_directory, _plc, edge) = plant(&hub, "").await;
    edge.until("a backlog", |status| count(&status["backlog_readings"]) > 30_000)
        .await;
    let data_dir = edge.data_dir.clone();
    let (code, _) = ask(&["spool", "ls", "--json"], &data_dir);
    assert_eq!(code, Some(2), "a running agent's spool is not looked at");
    assert_eq!(edge.stop().await, Some(0));
    let (code, text) = ask(&["spool", "ls", "--json"], &data_dir);
    let listed: Value = serde_json::from_str(&text).unwrap();
    let readings = count(&listed["readings"]);
    assert!(code == Some(0) && readings > 30_000, "{text}");
    let (code, text) = ask(&["spool", "verify", "--json"], &data_dir);
    assert_eq!(code, Some(0), "{text}");
    let (code, table) = ask(
        &["spool", "export", "--format", "csv", "--tag", "plc-7"],
        &data_dir,
    );
    assert_eq!(
        (code, table.lines().count() as u64),
        (Some(0), readings / 100 + 1)
    );
    assert!(
        table.lines().nth(1).unwrap().contains("Z,plc-7,"),
        "{:?}",
        table.lines().nth(1)
    );
    let (_, lines) = ask(&["spool", "export"], &data_dir);
    let rows = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(rows.filter(|row| !row["tag"].is_null()).count() as u64, readings);
    let (code, nothing) = ask(&["spool", "export", "--to", "2001-01-01T00:00:00Z"], &data_dir);
    assert_eq!((code, nothing.lines().count()), (Some(0), 0));
    // Damage is told, and costs one record.
    let log = std::fs::read_dir(data_dir.join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let log = log
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .max_by_key(|path| path.metadata().unwrap().len());
    let log = log.unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    std::fs::write(&log, &bytes).unwrap();
    let (code, text) = ask(&["spool", "verify", "--json"], &data_dir);
    let verified: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, count(&verified["records_lost_estimate"])),
        (Some(1), 1),
        "{text}"
    );
    assert_eq!(std::fs::read(&log).unwrap(), bytes, "looking changed nothing");
    assert_eq!(ask(&["spool", "ls"], Path::new("/nonexistent")).0, Some(2));
    assert_eq!(ask(&["verify"], Path::new("/nonexistent")).0, Some(2));
}
