//! Does the agent follow devices that publish to a broker on the floor? Against a real mosquitto.

use std::{path::Path, time::Duration};

use protocol::{Quality, event::Event};

use crate::support::{
    broker::Broker,
    edge::{Edge, head, source},
    hub::{Hub, Policy, Stored},
};

fn config(hub: &Hub, broker: &Broker) -> String {
    let tag = |name: &str, topic: &str, more: &str| {
        format!("[[mqtt.tag]]\nname = \"{name}\"\ntopic = \"{topic}\"\n{more}")
    };
    head(Some(hub.address))
        + &format!(
            "[[mqtt]]\nname = \"floor\"\naddress = \"{}\"\nstatus_topic = \"plant/+/status\"\nerror_topic = \"err\"\n",
            broker.address
        )
        + &tag("RT-1", "plant/cold1/telemetry", "key = \"t\"\nperiod = \"1s\"\n")
        + &tag(
            "RT-2",
            "v1/gateway/telemetry",
            "key = \"t\"\ndevice = \"cold2\"\n",
        )
        + &tag("RT-3", "umh/v1/acme/akron/_historian/t", "")
        + &tag("RT-4", "plant/kept", "")
}

/// Value, quality and time of every reading of a tag.
fn readings(stored: &Stored, tag: &str) -> Vec<(Option<f64>, Quality, i64)> {
    let readings = stored.of(tag);
    readings
        .map(|reading| (reading.value(), reading.quality, reading.time_us))
        .collect()
}

fn has(stored: &Stored, tag: &str, value: f64) -> bool {
    readings(stored, tag)
        .iter()
        .any(|(found, ..)| *found == Some(value))
}

async fn lines(file: &Path, count: usize) -> Vec<serde_json::Value> {
    let waiting = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap();
            let lines: Vec<_> = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("no complaint came")
}

/// A broker, a hub and the agent between them, which has found the broker.
async fn floor() -> (tempfile::TempDir, Broker, Hub, Edge) {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path(), None).await;
    let hub = Hub::start(Policy::Store).await;
    let edge = Edge::start(directory.path(), &config(&hub, &broker)).await;
    edge.until("the broker", |status| source(status, "floor")["state"] == "up")
        .await;
    (directory, broker, hub, edge)
}

#[tokio::test]
async fn t29_devices_of_several_dialects_are_read_and_their_silence_is_on_record() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path(), None).await;
    broker.publish("plant/kept", b"7.5", &["-r"]);
    let hub = Hub::start(Policy::Store).await;
    let edge = Edge::start(directory.path(), &config(&hub, &broker)).await;
    edge.until("the broker", |status| source(status, "floor")["state"] == "up")
        .await;
    hub.until("the retained value", |stored| has(stored, "RT-4", 7.5))
        .await;
    broker.publish(
        "plant/cold1/telemetry",
        br#"{"ts":1795168800,"values":{"t":3.5,"h":80}}"#,
        &[],
    );
    broker.publish(
        "v1/gateway/telemetry",
        br#"{"cold2":[{"ts":1795168800000,"values":{"t":2.5}}],"cold9":[]}"#,
        &[],
    );
    broker.publish(
        "umh/v1/acme/akron/_historian/t",
        br#"{"value":1.5,"timestamp_ms":1795168800000}"#,
        &[],
    );
    for _ in 0..2 {
        broker.publish(
            "umh/v1/acme/akron/_historian/t",
            br#"{"value":1.5,"timestamp_ms":1795168800000}"#,
            &[],
        );
    }
    hub.until("all three", |stored| {
        has(stored, "RT-1", 3.5) && has(stored, "RT-2", 2.5) && has(stored, "RT-3", 1.5)
    })
    .await;
    hub.until("silence", |stored| {
        readings(stored, "RT-1")
            .iter()
            .any(|(_, quality, _)| *quality == Quality::BAD_TIMEOUT)
    })
    .await;
    let stored = hub.stored.lock().unwrap();
    assert_eq!(
        readings(&stored, "RT-3").len(),
        1,
        "what was sent again is one reading"
    );
    assert_eq!(readings(&stored, "RT-4")[0].1, Quality::UNCERTAIN_LAST_USABLE);
    let times = ["RT-1", "RT-2", "RT-3"].map(|tag| {
        let found = readings(&stored, tag);
        found
            .iter()
            .find(|(value, ..)| value.is_some())
            .map(|(_, _, time_us)| *time_us)
    });
    assert_eq!(
        times,
        [Some(1_795_168_800_000_000); 3],
        "source times are kept in every unit"
    );
}

#[tokio::test]
async fn t29_a_message_that_cannot_be_read_is_answered_and_the_connection_kept() {
    let (directory, broker, hub, edge) = floor().await;
    let file = directory.path().join("complaints.txt");
    let _collector = broker.collect("err", &file);
    // The collector has subscribed once a refused message of its own came through.
    let mut first = 0;
    while std::fs::read_to_string(&file).unwrap().is_empty() {
        broker.publish("plant/kept", b"\"unfinished", &[]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        first += 1;
        assert!(first < 100);
    }
    let before = std::fs::read_to_string(&file).unwrap().lines().count();
    let megabyte = vec![b'x'; 1 << 20];
    let strange: [(&str, &[u8], &str, u64); 5] = [
        ("plant/cold1/telemetry", b"{t:25}", "E101", 1),
        ("v1/gateway/telemetry", br#"{"cold2":{"t":1}}"#, "E106", 0),
        ("umh/v1/acme/akron/_historian/t", b"\xff\xfe\x00", "E102", 0),
        ("plant/kept", br#"{"value":1,"ts":"yesterday"}"#, "E107", 0),
        (
            "plant/cold1/telemetry",
            &[b"\"".as_slice(), &megabyte].concat(),
            "E104",
            0,
        ),
    ];
    for (topic, payload, ..) in &strange {
        broker.publish(topic, payload, &[]);
    }
    let said = lines(&file, before + strange.len()).await;
    for (topic, _, number, offset) in strange {
        let complaint = said[before..]
            .iter()
            .find(|one| one["topic"] == topic && one["number"] == number)
            .unwrap_or_else(|| panic!("nobody said {number} of {topic}: {said:?}"));
        assert!(!complaint["hint"].as_str().unwrap().is_empty());
        if offset > 0 {
            assert_eq!(complaint["offset"], offset);
        }
    }
    // Plain status words and unknown devices are no errors, and the connection is the same.
    broker.publish("plant/cold1/status", b"online", &[]);
    broker.publish("plant/cold1/telemetry", br#"{"t":4.5}"#, &[]);
    hub.until("a good reading", |stored| has(stored, "RT-1", 4.5))
        .await;
    let malformed = |stored: &Stored| {
        let events = stored.events();
        events
            .into_iter()
            .any(|event| matches!(event, Event::Alarm(alarm) if alarm.code == "source.malformed"))
    };
    hub.until("the alarm", malformed).await;
    assert_eq!(source(&edge.status().await, "floor")["state"], "up");
}

#[tokio::test]
async fn a_broker_that_goes_and_comes_back_is_followed_again() {
    let (directory, broker, hub, edge) = floor().await;
    let address = broker.address;
    drop(broker);
    edge.until("the loss", |status| source(status, "floor")["state"] == "down")
        .await;
    hub.until("bad readings", |stored| {
        readings(stored, "RT-2")
            .iter()
            .any(|(_, quality, _)| *quality == Quality::BAD_NOT_CONNECTED)
    })
    .await;
    let broker = Broker::start(directory.path(), Some(address)).await;
    edge.until("the broker again", |status| {
        source(status, "floor")["state"] == "up"
    })
    .await;
    broker.publish("plant/cold1/telemetry", br#"{"t":5.5}"#, &[]);
    hub.until("a good reading", |stored| has(stored, "RT-1", 5.5))
        .await;
}
