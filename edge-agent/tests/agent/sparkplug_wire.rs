//! What does the agent's Sparkplug edge node put on the wire? CONNECT with its will, subscriptions, births, data and its
//! end, as a line to a real mosquitto sees them. Each test names the assertions that it shows.

use protocol::sparkplug::decode;
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{LastWill, Packet, Publish},
};
use srad_types::payload::{DataType, Payload, metric};

use crate::support::{
    broker::Broker,
    edge::{Edge, device, head},
    plc::{Behaviour, Plc},
    tap::Tap,
};

/// A device, a broker behind a line, and the agent.
struct Scene {
    tap: Tap,
    edge: Edge,
    broker: Broker,
    plc: Plc,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn start(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker::start(directory.path(), None).await;
        let plc = Plc::start(Behaviour::default()).await;
        let tap = Tap::start(broker.address).await;
        let config = head(None)
            + &format!(
                "[sparkplug]\ngroup_id = \"akron\"\naddresses = [\"{}\"]\n{more}",
                tap.address
            )
            + &device("plc", plc.address, "200ms", "500ms", &[0, 1]);
        let edge = Edge::start(directory.path(), &config).await;
        Self {
            tap,
            edge,
            broker,
            plc,
            _directory: directory,
        }
    }
}

fn published(packet: &Packet) -> Option<(&str, &Publish)> {
    match packet {
        Packet::Publish(publish) => Some((std::str::from_utf8(&publish.topic).unwrap(), publish)),
        _ => None,
    }
}

fn is_kind(kind: &'static str) -> impl Fn(&Packet) -> bool {
    move |packet| published(packet).is_some_and(|(topic, _)| topic.contains(&format!("/{kind}/")))
}

fn bd_seq(payload: &Payload) -> u64 {
    let metric = payload
        .metrics
        .iter()
        .find(|metric| metric.name.as_deref() == Some("bdSeq"))
        .unwrap();
    assert_eq!(metric.datatype, Some(DataType::Int64 as u32));
    match metric.value {
        Some(metric::Value::LongValue(number)) => number,
        ref other => panic!("{other:?}"),
    }
}

/// Checks a CONNECT; the number in its will.
fn connected(packet: &Packet) -> u64 {
    let Packet::Connect(connect, Some(will), _) = packet else {
        panic!("the first packet is {packet:?}");
    };
    let LastWill {
        topic,
        message,
        qos,
        retain,
        ..
    } = will;
    assert!(
        connect.clean_start,
        "tck-id-principles-persistence-clean-session-50"
    );
    let expiry = connect.properties.as_ref().unwrap().session_expiry_interval;
    assert_eq!(expiry, Some(0));
    assert_eq!(topic, "spBv1.0/akron/NDEATH/akron-1");
    assert_eq!((*qos, *retain), (QoS::AtLeastOnce, false));
    let payload = decode(message).unwrap();
    assert_eq!((payload.metrics.len(), payload.seq), (1, None));
    bd_seq(&payload)
}

#[tokio::test]
async fn tck_id_message_flow_edge_node_connects_subscribes_and_is_born_before_it_says_anything() {
    let mut scene = Scene::start("").await;
    let seen = scene.tap.until(is_kind("DDATA")).await;
    let will = connected(&seen[0]);
    assert_eq!(will, 0, "tck-id-topics-nbirth-bdseq-increment");
    let mut subscribed = Vec::new();
    for packet in &seen {
        if let Packet::Subscribe(subscribe) = packet {
            let filters = subscribe.filters.iter();
            subscribed.extend(filters.map(|filter| (filter.path.clone(), filter.qos)));
        }
    }
    assert_eq!(
        subscribed,
        [
            ("spBv1.0/akron/NCMD/akron-1".to_owned(), QoS::AtLeastOnce),
            ("spBv1.0/akron/DCMD/akron-1/+".to_owned(), QoS::AtLeastOnce)
        ]
    );
    let first = seen.iter().position(|packet| published(packet).is_some());
    let last_filter = seen
        .iter()
        .rposition(|packet| matches!(packet, Packet::Subscribe(_)));
    assert!(last_filter < first, "it listens before it is born");
    let said: Vec<_> = seen.iter().filter_map(published).collect();
    let topics: Vec<&str> = said.iter().map(|(topic, _)| *topic).collect();
    assert_eq!(topics[0], "spBv1.0/akron/NBIRTH/akron-1");
    let device_birth = topics
        .iter()
        .position(|topic| *topic == "spBv1.0/akron/DBIRTH/akron-1/plc");
    let data = topics.iter().position(|topic| topic.contains("DATA"));
    assert!(device_birth < data, "tck-id-payloads-dbirth-order");
    for (at, (topic, publish)) in said.iter().enumerate() {
        assert_eq!((publish.qos, publish.retain), (QoS::AtMostOnce, false), "{topic}");
        let payload = decode(&publish.payload).unwrap();
        assert_eq!(payload.seq, Some(at as u64), "{topic}");
        assert!(payload.timestamp.is_some(), "{topic}");
    }
    assert_eq!(bd_seq(&decode(&said[0].1.payload).unwrap()), will);
    scene.plc.behave(|behaviour| behaviour.is_silent = true);
    let seen = scene.tap.until(is_kind("DDEATH")).await;
    let (topic, death) = seen.last().and_then(published).unwrap();
    assert_eq!(topic, "spBv1.0/akron/DDEATH/akron-1/plc");
    assert_eq!((death.qos, death.retain), (QoS::AtMostOnce, false));
}

#[tokio::test]
async fn tck_id_topics_nbirth_bdseq_increment_on_every_connect_and_matches_its_birth() {
    let mut scene = Scene::start("").await;
    for number in 0..3 {
        let seen = scene.tap.until(is_kind("NBIRTH")).await;
        assert_eq!(connected(&seen[0]), number);
        let (_, birth) = seen.last().and_then(published).unwrap();
        assert_eq!(bd_seq(&decode(&birth.payload).unwrap()), number);
        scene.tap.cut();
        scene.tap.until_closed().await;
    }
}

#[tokio::test]
async fn tck_id_operational_behavior_edge_node_intentional_disconnect_ndeath_and_no_disconnect_packet() {
    let mut scene = Scene::start("").await;
    scene.tap.until(is_kind("DDATA")).await;
    assert_eq!(scene.edge.stop().await, Some(0));
    let seen = scene.tap.until_closed().await;
    let (topic, death) = seen.iter().rev().find_map(published).unwrap();
    assert_eq!(topic, "spBv1.0/akron/NDEATH/akron-1");
    assert_eq!((death.qos, death.retain), (QoS::AtLeastOnce, false));
    let payload = decode(&death.payload).unwrap();
    assert_eq!((bd_seq(&payload), payload.seq), (0, None));
    assert!(
        !seen.iter().any(|packet| matches!(packet, Packet::Disconnect(_))),
        "tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt50: none that would take the will back"
    );
}

#[tokio::test]
async fn tck_id_message_flow_edge_node_phid_offline_says_its_death_and_leaves() {
    let mut scene = Scene::start("primary_host = \"scada\"\n").await;
    let state = |online: bool, timestamp: u64| {
        let said = format!("{{\"online\":{online},\"timestamp\":{timestamp}}}");
        let topic = "spBv1.0/STATE/scada";
        scene.broker.publish(topic, said.as_bytes(), &["-r"]);
    };
    state(true, 2_000);
    let seen = scene.tap.until(is_kind("DDATA")).await;
    let asked = |packet: &Packet| match packet {
        Packet::Subscribe(subscribe) => subscribe
            .filters
            .iter()
            .any(|filter| filter.path == "spBv1.0/STATE/scada" && filter.qos == QoS::AtLeastOnce),
        _ => false,
    };
    let listened = seen.iter().position(asked);
    let born = seen.iter().position(is_kind("NBIRTH"));
    assert!(
        listened.is_some() && listened < born,
        "tck-id-message-flow-edge-node-birth-publish-phid-wait"
    );
    state(false, 2_000);
    let seen = scene.tap.until_closed().await;
    let (topic, _) = seen.iter().rev().find_map(published).unwrap();
    assert_eq!(topic, "spBv1.0/akron/NDEATH/akron-1");
    let again = scene
        .tap
        .until(|packet| matches!(packet, Packet::Connect(..)))
        .await;
    assert_eq!(connected(&again[0]), 1, "it begins again");
    state(true, 3_000);
    scene.tap.until(is_kind("NBIRTH")).await;
}
