//! Is the agent an edge node to a Sparkplug host that this project did not write (PyPI's mqtt-spb-wrapper, with Eclipse
//! Tahu's payloads), over a real mosquitto?

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    broker::Broker,
    edge::{Edge, device, head},
    peer::{self, Peer},
    plc::{Behaviour, Plc},
};

struct Host(Peer);

impl Host {
    async fn start(broker: &Broker) -> Self {
        let python = peer::python("venv-sparkplug", "run scripts/setup.sh test");
        let port = broker.address.port().to_string();
        let mut host = Self(Peer::start(&python, "sparkplug_host.py", &[&port, "scada"]));
        host.until("the broker", |line| line["topic"] == "ready").await;
        host
    }

    async fn say(&mut self, text: &str) {
        self.0.say(text).await;
    }

    /// Every message up to the first that satisfies `enough`.
    async fn until(&mut self, what: &str, enough: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        let waiting = async {
            loop {
                let line: Value = serde_json::from_str(&self.0.line().await).unwrap();
                let is_it = enough(&line);
                seen.push(line);
                if is_it {
                    return;
                }
            }
        };
        let within = tokio::time::timeout(Duration::from_mins(1), waiting).await;
        assert!(within.is_ok(), "the host never saw {what}: {seen:#?}");
        seen
    }
}

/// A device, a broker, a host that sees everything, and the agent between them.
struct Scene {
    plc: Plc,
    host: Host,
    edge: Edge,
    _broker: Broker,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn start(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker::start(directory.path(), None).await;
        let plc = Plc::start(Behaviour::default()).await;
        let host = Host::start(&broker).await;
        let edge = Edge::start(directory.path(), &config(&broker, &plc, more)).await;
        Self {
            plc,
            host,
            edge,
            _broker: broker,
            _directory: directory,
        }
    }
}

fn config(broker: &Broker, plc: &Plc, more: &str) -> String {
    head(None)
        + &format!(
            "[sparkplug]\ngroup_id = \"akron\"\naddresses = [\"{}\"]\n{more}",
            broker.address
        )
        + &device("plc", plc.address, "200ms", "500ms", &[0, 1])
}

fn is_kind(kind: &'static str) -> impl Fn(&Value) -> bool {
    move |line| {
        line["topic"]
            .as_str()
            .is_some_and(|topic| topic.contains(&format!("/{kind}/")))
    }
}

fn metric(line: &Value, name: &str) -> Option<Value> {
    let metrics = line["payload"]["metrics"].as_array()?;
    metrics.iter().find(|metric| metric["name"] == name).cloned()
}

#[tokio::test]
async fn t30_births_data_rebirth_and_death_are_as_a_foreign_host_expects_them() {
    let mut scene = Scene::start("").await;
    let births = scene.host.until("the node's birth", is_kind("NBIRTH")).await;
    let birth = births.last().unwrap();
    assert_eq!(birth["topic"], "spBv1.0/akron/NBIRTH/akron-1");
    assert_eq!(
        (&birth["qos"], &birth["retain"]),
        (&Value::from(0), &Value::from(false))
    );
    assert_eq!(metric(birth, "Node Control/Rebirth").unwrap()["value"], false);
    assert_eq!(birth["payload"]["seq"], "0");
    let device_birth = scene.host.until("the device's birth", is_kind("DBIRTH")).await;
    let device_birth = device_birth.last().unwrap();
    assert_eq!(device_birth["topic"], "spBv1.0/akron/DBIRTH/akron-1/plc");
    assert!(metric(device_birth, "plc-0").is_some() && metric(device_birth, "plc-1").is_some());
    let data = scene.host.until("data", is_kind("DDATA")).await;
    let values: Vec<f64> = data.last().unwrap()["payload"]["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| metric["value"].as_f64().unwrap())
        .collect();
    assert_eq!(values, [1000.0, 1001.0]);
    scene.host.say("rebirth spBv1.0/akron/NCMD/akron-1").await;
    scene.host.until("a rebirth", is_kind("NBIRTH")).await;
    // The device goes: it dies alone. It comes back with a birth of its own.
    scene.plc.behave(|behaviour| behaviour.is_silent = true);
    scene.host.until("the device's death", is_kind("DDEATH")).await;
    scene.plc.behave(|behaviour| behaviour.is_silent = false);
    scene
        .host
        .until("the device's birth again", is_kind("DBIRTH"))
        .await;
    assert_eq!(scene.edge.stop().await, Some(0));
    scene.host.until("the node's death", is_kind("NDEATH")).await;
}

#[tokio::test]
async fn t30_a_node_that_is_killed_dies_by_its_will() {
    let mut scene = Scene::start("").await;
    let births = scene.host.until("the node's birth", is_kind("NBIRTH")).await;
    let born = metric(births.last().unwrap(), "bdSeq").unwrap()["value"].clone();
    scene.edge.kill();
    let seen = scene.host.until("the will", is_kind("NDEATH")).await;
    let death = seen.last().unwrap();
    assert_eq!(metric(death, "bdSeq").unwrap()["value"], born);
    assert_eq!(death["qos"], 1);
}

#[tokio::test]
async fn t30_a_node_waits_for_its_primary_host_and_sends_what_it_kept_as_historical() {
    let mut scene = Scene::start("primary_host = \"scada\"\n").await;
    scene
        .edge
        .until("readings", |status| status["acquired"].as_u64().unwrap() >= 10)
        .await;
    scene.host.say("state online 1000").await;
    let seen = scene.host.until("a birth", is_kind("NBIRTH")).await;
    assert!(
        !seen.iter().any(|line| is_kind("DDATA")(line)),
        "nothing before the birth"
    );
    let is_historical = |line: &Value| {
        is_kind("DDATA")(line)
            && line["payload"]["metrics"]
                .as_array()
                .unwrap()
                .iter()
                .any(|metric| metric["isHistorical"] == true)
    };
    scene.host.until("what was kept", is_historical).await;
    scene.host.say("state offline 900").await;
    scene
        .host
        .until("data goes on: the word is old", is_kind("DDATA"))
        .await;
    scene.host.say("state offline 2000").await;
    scene.host.until("the node's death", is_kind("NDEATH")).await;
}
