//! Does what the hub asks of a real agent happen, and does the hub hear of it? Limits, a replay, configurations.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::plant::{EDGE, Plant, now_us};

const SOON: Duration = Duration::from_mins(1);

/// Waits until the newest command of a kind is in a state.
async fn answered(plant: &Plant, kind: &str, state: &str) -> Value {
    let path = format!("edges/{EDGE}/commands");
    let found = plant.wait_for(&path, SOON, |list| {
        let items = list["items"].as_array()?;
        let of_kind = items.iter().find(|command| command["kind"] == kind)?;
        (of_kind["state"] == state).then(|| of_kind.clone())
    });
    found.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_a_replay_and_configurations_reach_the_agent_and_their_outcome_the_hub() {
    let (_folder, plant) = crate::plant().await;
    let acquired = plant.wait_for("plant-ops/tags?name=TT-101", SOON, |tags| {
        tags["items"][0]["last"]["value"].as_f64()
    });
    acquired.await.unwrap();

    let ccps = plant.get("fsq/ccps").await.unwrap();
    let ccp = ccps["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|ccp| ccp["code"] == "CCP-1")
        .unwrap();
    let version = ccp["limit_version"].as_i64().unwrap();
    let path = format!("fsq/ccps/{}/limit", ccp["id"].as_str().unwrap());
    let limit = json!({
        "low": 72.1, "high": null, "clear_margin": 0.2, "delay_us": 1_000_000, "gap_us_max": 5_000_000,
        "check_every_us": 1_000_000,
    });
    plant
        .change(&path, &format!("\"{version}\""), &limit)
        .await
        .unwrap();
    answered(&plant, "set_limits", "done").await;
    let kept = std::fs::read_to_string(plant.options.root.join("edge/limits.json")).unwrap();
    assert!(kept.contains("72.1"), "{kept}");

    let replay = json!({ "kind": "replay", "from_us": now_us() - 60_000_000, "to_us": now_us() });
    let (status, said) = plant
        .call(Method::POST, &format!("edges/{EDGE}/commands"), Some(replay))
        .await
        .unwrap();
    assert!((200..300).contains(&status), "{said}");
    answered(&plant, "replay", "done").await;

    let file = std::fs::read_to_string(plant.options.root.join("sim/edge.toml")).unwrap();
    let config = format!("edges/{EDGE}/config");
    let push = |toml: String| plant.call(Method::PUT, &config, Some(json!({ "toml": toml })));
    push(file.replace("[edge]", "[edje]")).await.unwrap();
    let refused = answered(&plant, "configure", "refused").await;
    assert!(refused["reason"].as_str().unwrap().contains("edje"), "{refused}");
    push(file + "\n# pushed\n").await.unwrap();
    let applied = plant.wait_for(&config, SOON, |config| {
        (config["state"] == "applied").then_some(())
    });
    applied.await.unwrap();
    let readings = plant.get("plant-ops/tags?name=TT-101").await.unwrap();
    let before_us = readings["items"][0]["last"]["time_us"].as_i64().unwrap();
    let goes_on = plant.wait_for("plant-ops/tags?name=TT-101", SOON, |tags| {
        (tags["items"][0]["last"]["time_us"].as_i64()? > before_us + 1_000_000).then_some(())
    });
    goes_on.await.unwrap();
}
