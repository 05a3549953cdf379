//! Does a supervisor see it? Headless Chromium signs in and walks the pages of a running plant.

use std::process::Command;

use reqwest::Method;
use serde_json::json;

use crate::{
    journeys,
    plant::{ADMIN, TENANT, repository},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_signs_in_and_sees_the_held_lot_the_live_line_and_the_defect() {
    let (_folder, plant) = crate::plant().await;
    journeys::register_to_api(&plant)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    journeys::frame_to_verdict(&plant)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    journeys::dip_to_hold(&plant)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    let message = json!({ "values": { "core": 82.4, "belt": 1.25 } });
    let sent = plant
        .call(
            Method::POST,
            "ingest/native?topic=v1/akron/l3/oven/telemetry",
            Some(message),
        )
        .await;
    assert!(matches!(sent, Ok((200, _))), "{sent:?}");
    let mut browser = Command::new("node");
    browser
        .arg("test/e2e.mjs")
        .current_dir(repository().join("cloud-hub/dashboard"));
    let screenshot = std::env::var_os("FOODFLOW_SCREENSHOT");
    if let Some(screenshot) = screenshot {
        browser.env("SCREENSHOT", screenshot);
    }
    browser
        .env("HUB_URL", plant.url())
        .env("EXPECT", "lines,ccps,holds,defects,record,integrators")
        .env("TENANT", TENANT)
        .env("EMAIL", ADMIN)
        .env("PASSWORD", &plant.options.password);
    let output = tokio::task::spawn_blocking(move || browser.output())
        .await
        .unwrap()
        .expect("node is installed");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the walk through the pages failed:\n{said}"
    );
    eprintln!("{said}");
}
