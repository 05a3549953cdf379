//! T1: does SIGKILL at random moments lose or double anything that was on disk, with the hub away half of the time?
//!
//! The load's counters advance with every read, so that a lost or doubled reading shows: within one start of the
//! agent a counter has no hole, over all starts no value comes twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    path::Path,
    time::Duration,
};

use protocol::{event::Event, frame::FrameId, lane::Lane};
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{
    edge::{Edge, ask, count},
    hub::{Hub, Policy, Stored},
    load::Load,
};

/// Kills in the bounded run and in the full one (`make soak`).
const KILLS: u32 = 10;
const KILLS_SOAK: u32 = 200;
const FILTER: &str = "info,edge_agent::spool=debug";
/// Small frames, so that the backlog outgrows what keeps an identity of its own and is merged; a control point that
/// leaves a record every second.
const EXTRA: &str = "\n[spool]\nframe_age_max = \"20ms\"\nquota = \"64MiB\"\n[[ccp]]\ncode = \"CCP-1\"\n\
                     tag = \"TAG\"\nlow = 0.0\ncheck_every = \"1s\"\n";

/// Random numbers from a seed that a failing run prints, so that it can be repeated (`FOODFLOW_SEED`).
fn dice() -> (u64, rand::rngs::StdRng) {
    let given = std::env::var("FOODFLOW_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| edge_agent::clock::now_us().unsigned_abs());
    (seed, rand::rngs::StdRng::seed_from_u64(seed))
}

fn log(directory: &Path) -> std::fs::File {
    let path = directory.join("log.jsonl");
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_sigkill_at_random_moments_loses_nothing_that_was_stored_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let hub = Hub::start(Policy::Store).await;
    let load = Load::start(directory.path(), hub.address).await;
    let tag = load
        .config
        .split("name = \"LD-")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let config = load.config.clone() + &EXTRA.replace("TAG", &format!("LD-{tag}"));
    let kills = if std::env::var_os("FOODFLOW_SOAK").is_some() {
        KILLS_SOAK
    } else {
        KILLS
    };
    let (seed, mut rng) = dice();
    eprintln!("seed {seed}");
    for kill in 0..kills {
        let is_away = kill % 2 == 0;
        hub.set_policy(match (is_away, kill % 4) {
            (false, _) => Policy::Store,
            (true, 0) => Policy::RefuseConnection,
            (true, _) => Policy::Silent,
        });
        hub.drop_connections();
        let edge = Edge::start_logging(directory.path(), &config, log(directory.path()), FILTER).await;
        // The moment of the kill is what this test is about: a pause, not a wait for an event.
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..4_000))).await;
        edge.kill();
    }
    hub.set_policy(Policy::Store);
    let edge = Edge::start_logging(directory.path(), &config, log(directory.path()), FILTER).await;
    edge.until("a drained spool", |status| {
        count(&status["acknowledged"]) > 2_000 && status["backlog_frames"].as_u64() <= Some(40)
    })
    .await;
    assert_eq!(edge.stop().await, Some(0));
    let edge = Edge::start_logging(directory.path(), &config, log(directory.path()), FILTER).await;
    let named = named(directory.path());
    hub.until("every frame that was named", |stored| {
        named.iter().all(|id| stored.frames.contains_key(id))
    })
    .await;
    assert_eq!(edge.stop().await, Some(0));
    let stored = hub.stored.lock().unwrap();
    let merged = stored
        .frames
        .keys()
        .filter(|id| id.lane == Lane::Backfill)
        .count();
    eprintln!(
        "{kills} kills: {} frames ({merged} merged), {} readings stored, {} frames came again",
        stored.frames.len(),
        stored.readings(),
        stored.repeats
    );
    assert_no_reading_is_missing_or_doubled(&stored);
    assert_no_number_is_missing(&stored);
    assert_every_record_arrived(&stored, &directory.path().join("data"));
}

/// Every frame that the agent said it had made durable.
fn named(directory: &Path) -> BTreeSet<FrameId> {
    let text = std::fs::read_to_string(directory.join("log.jsonl")).unwrap();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let frames = lines.filter(|line| line["fields"]["message"] == "frame spooled");
    let named: BTreeSet<FrameId> = frames
        .map(|line| {
            let fields = &line["fields"];
            FrameId {
                boot: fields["boot"].as_str().unwrap().parse().unwrap(),
                lane: Lane::ALL[fields["lane"].as_u64().unwrap() as usize],
                seq: fields["seq"].as_u64().unwrap(),
            }
        })
        .collect();
    assert!(!named.is_empty(), "the agent's log names the frames it spooled");
    named
}

fn assert_no_reading_is_missing_or_doubled(stored: &Stored) {
    // Counters of 16 bits do not wrap within the test: 65,536 reads at 10 a second are two hours.
    let mut by_tag: BTreeMap<(Uuid, u32), BTreeMap<Uuid, BTreeSet<u64>>> = BTreeMap::new();
    for (id, frame) in &stored.frames {
        for reading in &frame.readings {
            let Some(value) = reading.value() else { continue };
            let boots = by_tag
                .entry((frame.header.dictionary, reading.tag.0))
                .or_default();
            assert!(
                boots.entry(id.boot).or_default().insert(value as u64),
                "tag {} has {value} twice in boot {}",
                reading.tag.0,
                id.boot
            );
        }
    }
    assert_eq!(by_tag.len(), 500, "every tag came");
    for ((_, tag), boots) in &by_tag {
        let mut seen = BTreeSet::new();
        for (boot, values) in boots {
            let (first, last) = (values.first().unwrap(), values.last().unwrap());
            assert_eq!(
                last - first + 1,
                values.len() as u64,
                "tag {tag} of boot {boot} has a hole"
            );
            assert!(
                values.iter().all(|value| seen.insert(*value)),
                "tag {tag} has a value in two boots"
            );
        }
    }
}

/// Frames of each boot and lane count up from 0 without a hole, merged or not.
fn assert_no_number_is_missing(stored: &Stored) {
    let mut next: BTreeMap<(Uuid, Lane), u64> = BTreeMap::new();
    for id in stored.frames.keys() {
        let next = next.entry((id.boot, id.lane)).or_default();
        assert_eq!(id.seq, *next, "a frame of {} {} is missing", id.boot, id.lane);
        *next += 1;
    }
}

/// What the legal record on the edge says is what the hub has.
fn assert_every_record_arrived(stored: &Stored, data_dir: &Path) {
    let (code, text) = ask(&["verify", "--records", "--json"], data_dir);
    assert_eq!(code, Some(0), "{text}");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let recorded: Vec<Value> = lines
        .filter(|line| !line["event"].is_null())
        .map(|line| line["event"].clone())
        .collect();
    assert!(
        recorded.len() > 3,
        "control points were recorded: {}",
        recorded.len()
    );
    let arrived: BTreeSet<String> = stored
        .events()
        .iter()
        .filter(|event| !matches!(event, Event::NotRead(_) | Event::Gap(_)))
        .map(|event| serde_json::to_value(event).unwrap().to_string())
        .collect();
    for event in &recorded {
        assert!(arrived.contains(&event.to_string()), "the hub never got {event}");
    }
}
