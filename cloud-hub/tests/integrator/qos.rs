//! With which quality of service does what the hub says arrive? Seen by Debian's mosquitto_sub and PyPI's paho: its
//! state, errors and echoes with the one that was asked for, its commands with QoS 0, as Sparkplug wants.

use std::{process::Stdio, time::Duration};

use cloud_hub::kernel::clock::Clock;
use protocol::{
    Quality, Reading,
    reading::Alias,
    sparkplug::{
        HostState,
        edge_node::{EdgeNode, MetricPlan},
    },
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    clients::{peer, python},
    device::{Device, credentials},
    support::TestHub,
};

const PATIENCE: Duration = Duration::from_secs(20);
const STATE: &str = "spBv1.0/STATE/foodflow";
const COMMAND: &str = "spBv1.0/akron/NCMD/n1";

/// A running mosquitto_sub: QoS, retained or not, topic and payload (hexadecimal) of every message.
struct Listener {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Listener {
    async fn start(hub: &TestHub, name: &str, protocol: &str, qos: &str, topics: &[&str]) -> Self {
        let (user, password) = credentials(hub, name).await;
        let port = hub.hub.mqtt.port().to_string();
        let mut command = Command::new("mosquitto_sub");
        command
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-i",
                name,
                "-V",
                protocol,
                "-q",
                qos,
            ])
            .args(["-u", &user, "-P", &password, "-F", "%q %r %t %x"]);
        for topic in topics {
            command.args(["-t", topic]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_sub is installed: scripts/setup.sh test");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, lines }
    }

    /// QoS, whether retained, topic, payload.
    async fn next(&mut self) -> (String, String, String, Vec<u8>) {
        let line = timeout(PATIENCE, self.lines.next_line())
            .await
            .expect("nothing was heard")
            .unwrap()
            .expect("mosquitto_sub ended");
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (qos, retained, topic, hex) = (word(), word(), word(), word());
        let payload = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap());
        (qos, retained, topic, payload.collect())
    }
}

fn state(payload: &[u8]) -> HostState {
    serde_json::from_slice(payload).unwrap()
}

/// Data of a node whose birth the hub did not hear: it asks for one.
async fn be_unknown(device: &mut Device) {
    let plan = MetricPlan {
        alias: Alias(0),
        name: "TT-1".to_owned(),
        unit: String::new(),
    };
    let mut node = EdgeNode::new("akron", "n1", [("htst".to_owned(), vec![plan])]).unwrap();
    let now_us = Clock::system().now_us();
    drop((node.connect(now_us), node.birth(|_| true, now_us)));
    let reading = Reading::new(Alias(0), now_us, 72.5, Quality::GOOD);
    for data in node.data(&[reading], false, now_us) {
        device.send(&data.topic, data.payload).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tck_id_host_topic_phid_birth_qos_1_retained_death_qos_1_and_ncmd_qos_0_as_mosquitto_sub_hears_them()
{
    let hub = TestHub::start().await;
    let mut listeners = Vec::new();
    for (name, protocol, qos) in [
        ("sub-5", "mqttv5", "1"),
        ("sub-3", "mqttv311", "1"),
        ("sub-0", "mqttv5", "0"),
    ] {
        let mut listener = Listener::start(&hub, name, protocol, qos, &[COMMAND, STATE]).await;
        let (heard, retained, topic, payload) = listener.next().await;
        assert_eq!(
            (heard.as_str(), retained.as_str(), topic.as_str()),
            (qos, "1", STATE),
            "{name}"
        );
        assert!(state(&payload).online);
        listeners.push((qos, listener));
    }
    let mut device = Device::connect(&hub, "line-pc").await;
    be_unknown(&mut device).await;
    for (_, listener) in &mut listeners {
        let (heard, retained, topic, payload) = listener.next().await;
        assert_eq!(
            (heard.as_str(), retained.as_str(), topic.as_str()),
            ("0", "0", COMMAND),
            "tck-id-topics-ncmd-mqtt, whatever was asked for"
        );
        assert!(!payload.is_empty());
    }
    hub.hub.stop().await;
    for (qos, mut listener) in listeners {
        let (heard, _, topic, payload) = listener.next().await;
        assert_eq!((heard.as_str(), topic.as_str()), (qos, STATE));
        assert!(
            !state(&payload).online,
            "tck-id-operational-behavior-host-application-termination"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho_hears_errors_echoes_and_the_state_with_qos_1_and_is_told_that_no_session_is_kept() {
    let hub = TestHub::start().await;
    let said = peer(&hub, "paho-qos", python("venv-test", "paho_qos.py")).await;
    let of = |what: &str| {
        said.iter()
            .filter(|line| line["what"] == what)
            .cloned()
            .collect::<Vec<_>>()
    };
    for connected in of("connected") {
        assert_eq!(connected["session_present"], false);
        assert_eq!(connected["expiry_s"], 0);
    }
    assert_eq!(of("connected").len(), 3);
    let states = of(STATE);
    assert_eq!(states.len(), 2, "again after it came back: the state is retained");
    for state in states {
        assert_eq!((&state["qos"], &state["retain"]), (&1.into(), &true.into()));
    }
    for topic in ["v1/echo/paho-qos", "v1/err/paho-qos"] {
        let heard = of(topic);
        assert!(!heard.is_empty(), "{topic}: {said:?}");
        assert!(heard.iter().all(|line| line["qos"] == 1), "{heard:?}");
    }
}
