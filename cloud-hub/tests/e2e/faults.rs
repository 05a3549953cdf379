//! What must the whole system conclude from a fault at the plant? Scenarios F1 and F4 of the Akron plant
//! (F2 is the journey from dip to hold).

use std::time::Duration;

use crate::journeys::open_deviations;

#[tokio::test(flavor = "multi_thread")]
async fn a_dip_that_the_valve_diverts_is_recorded_but_holds_nothing() {
    let (_folder, plant) = crate::plant().await;
    // A good value first, so that the dip is the only thing that happens.
    plant
        .wait_for("plant-ops/tags?name=TT-101", Duration::from_mins(1), |t| {
            t["items"][0]["last"]["value"].as_f64()
        })
        .await
        .unwrap();
    plant.scenario("f1?seconds=8").await.unwrap();
    let low = plant.wait_for("plant-ops/tags?name=TT-101", Duration::from_secs(30), |tags| {
        tags["items"][0]["last"]["value"]
            .as_f64()
            .filter(|value| *value < 72.0)
    });
    low.await.expect("the dip is recorded");
    let diverted = plant.wait_for("fsq/ccps", Duration::from_secs(30), |ccps| {
        ccps["items"]
            .as_array()?
            .iter()
            .any(|ccp| ccp["code"] == "CCP-1" && ccp["state"] == "diverted")
            .then_some(())
    });
    diverted.await.expect("the board shows that product is diverted");
    let back = plant.wait_for("plant-ops/tags?name=TT-101", Duration::from_secs(30), |tags| {
        tags["items"][0]["last"]["value"]
            .as_f64()
            .filter(|value| *value > 72.5)
    });
    back.await.expect("the dip ends");
    assert_eq!(
        open_deviations(&plant, "CCP-1").await.unwrap(),
        Vec::<serde_json::Value>::new()
    );
    let all = plant.get("fsq/deviations").await.unwrap();
    assert_eq!(all["items"], serde_json::json!([]), "no deviation at all");
    assert_eq!(
        plant.get("fsq/holds").await.unwrap()["items"],
        serde_json::json!([]),
        "no hold"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_sensor_is_loss_of_monitoring_within_a_minute() {
    let (_folder, plant) = crate::plant().await;
    plant
        .wait_for("plant-ops/tags?name=TT-101", Duration::from_mins(1), |t| {
            t["items"][0]["last"]["value"].as_f64()
        })
        .await
        .unwrap();
    let start_us = plant.scenario("f4").await.unwrap();
    let found = plant.wait_for(
        "fsq/deviations?status=open",
        Duration::from_secs(90),
        |deviations| {
            deviations["items"]
                .as_array()?
                .iter()
                .find(|d| d["ccp_code"] == "CCP-1" && d["kind"] == "sensor_stuck")
                .cloned()
        },
    );
    let deviation = found.await.expect("a stuck sensor is found");
    let found_us = deviation["detected_us"].as_i64().unwrap();
    assert!(
        found_us - start_us < 60_000_000,
        "found after {} s",
        (found_us - start_us) / 1_000_000
    );
}
