//! T31: does the agent's memory stay where it is at 10,000 tags a second, with the hub cut off again and again?

use std::time::Duration;

use crate::support::{
    edge::{Edge, count},
    hub::{Hub, Policy},
    load::Load,
};

/// An hour with a cut each minute, or a short form of it.
fn plan() -> (usize, Duration) {
    if std::env::var_os("FOODFLOW_SOAK").is_some() {
        (60, Duration::from_mins(1))
    } else {
        (12, Duration::from_secs(3))
    }
}

/// What allocators and page caches do by themselves; a leak of a byte a reading is more in the short form already.
const GROWTH_KIB_MAX: u64 = 4 * 1024;

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[tokio::test]
async fn t31_memory_stays_where_it_is_at_ten_thousand_tags_a_second_with_the_hub_cut_off_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let hub = Hub::start(Policy::Store).await;
    let load = Load::of(directory.path(), hub.address, "devices=10,tags=100,advance=tick").await;
    let edge = Edge::start(directory.path(), &load.config).await;
    edge.until("readings at the hub", |status| {
        count(&status["acknowledged"]) > 20_000
    })
    .await;
    let (cuts, pause) = plan();
    let mut samples = Vec::new();
    for _ in 0..cuts {
        hub.drop_connections();
        // A soak takes its time: what is looked at is what time does.
        tokio::time::sleep(pause).await;
        samples.push(edge.resident_kib());
        // What the test's hub keeps is not the agent's.
        hub.stored.lock().unwrap().frames.clear();
        hub.stored.lock().unwrap().envelopes.clear();
    }
    let third = cuts / 3;
    let (early, late) = (median(&samples[third..2 * third]), median(&samples[2 * third..]));
    eprintln!("resident KiB: {samples:?}");
    assert!(late <= early + GROWTH_KIB_MAX, "{samples:?}");
    let status = edge
        .until("a drained spool", |status| {
            status["backlog_frames"].as_u64() <= Some(40)
        })
        .await;
    assert_eq!(count(&status["lost"]), 0);
}
