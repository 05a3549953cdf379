//! Does the hub hold its own against a client that is not ours? Debian's `mosquitto_pub` with garbage, with a
//! foreign topic and with a wrong password.

use std::{process::Command, time::Duration};

use crate::plant::{EDGE, Plant, TENANT};

fn publish(plant: &Plant, password: &str, topic: &str, payload: &str) -> (bool, String) {
    let output = Command::new("mosquitto_pub")
        .args([
            "-V",
            "5",
            "-q",
            "1",
            "-h",
            "127.0.0.1",
            "-p",
            &plant.options.mqtt.port().to_string(),
        ])
        .args([
            "-i",
            "stranger",
            "-u",
            &format!("{TENANT}/{EDGE}"),
            "-P",
            password,
            "-t",
            topic,
            "-m",
            payload,
            "-d",
        ])
        .output()
        .expect("mosquitto_pub is installed: apt-get install mosquitto-clients");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_foreign_client_is_refused_with_a_reason_and_the_line_goes_on() {
    let (_folder, plant) = crate::plant().await;
    let identity =
        std::fs::read(plant.options.root.join("edge/identity.json")).expect("the edge is enrolled");
    let identity: serde_json::Value = serde_json::from_slice(&identity).unwrap();
    let password = identity["mqtt_password"].as_str().unwrap();
    let topic = format!("ff/v1/{TENANT}/{EDGE}/up/live");

    let (_, said) = publish(&plant, password, &topic, "{\"temperature\": 25}");
    assert!(
        said.contains("153")
            || said.contains("RC:153")
            || said.to_lowercase().contains("payload format invalid"),
        "PUBACK says that the payload format is invalid: {said}"
    );
    let (_, said) = publish(&plant, password, "ff/v1/cuyahoga/line-1/up/live", "x");
    assert!(
        said.contains("135") || said.to_lowercase().contains("not authorized"),
        "a foreign topic is refused: {said}"
    );
    let (ok, said) = publish(&plant, "wrong", &topic, "x");
    assert!(!ok, "a wrong password is refused: {said}");

    let before = plant.get("plant-ops/tags?name=TT-101").await.unwrap()["items"][0]["last"]["time_us"]
        .as_i64()
        .unwrap_or(0);
    let next = plant.wait_for("plant-ops/tags?name=TT-101", Duration::from_mins(1), |tags| {
        tags["items"][0]["last"]["time_us"]
            .as_i64()
            .filter(|at| *at > before + 2_000_000)
    });
    next.await.expect("readings go on arriving");
}
