//! Does SIGKILL at random moments lose or double anything that was on disk?

use std::{collections::BTreeMap, time::Duration};

use protocol::event::Event;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

use crate::support::{
    edge::{Edge, device, head},
    hub::{Hub, Policy},
    plc::{Behaviour, Plc},
};

/// Kills in the bounded version; `make soak` asks for more.
fn kills() -> u32 {
    std::env::var("FOODFLOW_SOAK_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(6)
}

#[tokio::test]
async fn sigkill_at_random_moments_loses_nothing_that_was_stored_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        counts: true,
        ..Behaviour::default()
    })
    .await;
    let hub = Hub::start(Policy::Store).await;
    let addresses: Vec<u16> = (0..50).collect();
    let config = head(Some(hub.address)) + &device("plc", plc.address, "20ms", "800ms", &addresses);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(20_260_301);
    for kill in 0..kills() {
        hub.set_policy(match kill % 3 {
            0 => Policy::Silent,
            1 => Policy::Store,
            _ => Policy::RefuseConnection,
        });
        let edge = Edge::start(directory.path(), &config).await;
        // The moment of the kill is what this test is about: a pause, not a wait for an event.
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..1200))).await;
        edge.kill();
    }
    hub.set_policy(Policy::Store);
    let edge = Edge::start(directory.path(), &config).await;
    edge.until("a drained spool", |status| {
        status["acknowledged"].as_u64() > Some(500) && status["backlog_frames"].as_u64() <= Some(2)
    })
    .await;
    assert_eq!(edge.stop().await, Some(0));
    let stored = hub.stored.lock().unwrap();
    // Polls are numbered by the device. Within one start no number may be missing, over all starts none may come
    // twice, and each number comes with all its 50 tags.
    let mut by_boot: BTreeMap<Uuid, BTreeMap<u64, usize>> = BTreeMap::new();
    for (id, frame) in &stored.frames {
        for reading in &frame.readings {
            let value = reading.value().expect("the device always answers") as u64;
            *by_boot.entry(id.boot).or_default().entry(value).or_default() += 1;
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for (boot, polls) in &by_boot {
        let (first, last) = (polls.keys().next().unwrap(), polls.keys().last().unwrap());
        assert_eq!(
            last - first + 1,
            polls.len() as u64,
            "a poll of boot {boot} is missing: {polls:?}"
        );
        for (poll, count) in polls {
            assert_eq!(*count, 50, "poll {poll} of boot {boot}");
            assert!(seen.insert(*poll), "poll {poll} came twice");
        }
    }
    assert!(by_boot.len() > 2, "several starts got something through");
    let stopped = stored
        .events()
        .into_iter()
        .filter(|event| matches!(event, Event::NotRead(record) if record.reason == "agent stopped"));
    assert!(stopped.count() > 0, "the time in which nothing ran is on record");
}
