//! Does the whole plant work? Simulator, edge agent, hub and database as real processes on this machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step is a failed test"
)]

mod faults;
mod fleet;
mod foreign;
mod journeys;
mod kills;
mod pages;
mod plant;
mod shared;

#[path = "../support/mod.rs"]
mod support;

use plant::{Options, Plant};

/// A folder that goes with the test; with FOODFLOW_KEEP set it stays, logs and all.
fn folder() -> tempfile::TempDir {
    let keep = std::env::var_os("FOODFLOW_KEEP").is_some();
    let folder = tempfile::Builder::new()
        .prefix("foodflow-e2e-")
        .disable_cleanup(keep)
        .tempdir();
    folder.expect("a temporary folder")
}

/// A running plant in a temporary folder.
async fn plant() -> (tempfile::TempDir, Plant) {
    let folder = folder();
    let mut options = Options::on_free_ports(folder.path()).expect("free ports");
    options.no_fsync = true;
    (
        folder,
        Plant::start(options)
            .await
            .unwrap_or_else(|error| panic!("{error:#}")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_becomes_a_point_a_dip_becomes_a_held_lot_and_a_frame_becomes_a_verdict() {
    let (_folder, plant) = plant().await;
    for journey in [
        journeys::register_to_api(&plant).await,
        journeys::dip_to_hold(&plant).await,
        journeys::frame_to_verdict(&plant).await,
    ] {
        let journey = journey.unwrap_or_else(|error| panic!("{error:#}"));
        eprintln!(
            "{:<20} {:>8.1} ms   {}",
            journey.name, journey.latency_ms, journey.what
        );
    }
    plant.stop().expect("an orderly stop");
}
