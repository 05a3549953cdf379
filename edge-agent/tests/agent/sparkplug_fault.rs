//! Can a Sparkplug host get through F12 without mislabelling a tag? A host written for this test follows the rule:
//! at a gap in the sequence it asks for a birth and believes nothing until that came.

use std::{
    collections::HashMap,
    path::Path,
    process::{Child, Command as Process, Stdio},
    time::Duration,
};

use edge_agent::simulate::{fault::Fault, scenario::Command, sparkplug, state::PlantState};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use srad_types::payload::{DataType, Message as _, Metric, Payload, metric::Value};
use tokio_util::sync::CancellationToken;

const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// A broker of this test's own; killed when dropped.
struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    async fn start(directory: &Path) -> Self {
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let file = directory.join("mosquitto.conf");
        let config = format!("listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n");
        std::fs::write(&file, config).unwrap();
        let mut process = Process::new(MOSQUITTO);
        process
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = process.spawn().unwrap();
        tokio::time::timeout(Duration::from_secs(30), async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("mosquitto never listened");
        Self { child, port }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the host knows of the node.
#[derive(Default)]
struct Host {
    names: HashMap<u64, String>,
    next_seq: Option<u64>,
    /// A birth was asked for and has not come.
    has_asked: bool,
    births: usize,
    gaps: usize,
    /// Name and value of every metric it believed, and after how many births.
    believed: Vec<(usize, String, f64)>,
}

impl Host {
    /// Takes a message; true when a birth has to be asked for.
    fn take(&mut self, topic: &str, payload: &Payload) -> bool {
        if topic.contains("/NBIRTH/") {
            self.births += 1;
            self.next_seq = Some(1);
            self.has_asked = false;
            let named = payload
                .metrics
                .iter()
                .filter_map(|metric| Some((metric.alias?, metric.name.clone()?)));
            self.names = named.collect();
            return false;
        }
        if !topic.contains("/NDATA/") {
            return false;
        }
        if self.next_seq.is_none() || payload.seq != self.next_seq {
            self.gaps += usize::from(self.next_seq.take().is_some());
            return !std::mem::replace(&mut self.has_asked, true);
        }
        self.next_seq = payload.seq.map(|seq| (seq + 1) % 256);
        for metric in &payload.metrics {
            if let (Some(name), Some(Value::DoubleValue(value))) = (
                metric.alias.and_then(|alias| self.names.get(&alias)),
                &metric.value,
            ) {
                self.believed.push((self.births, name.clone(), *value));
            }
        }
        false
    }
}

fn rebirth() -> Vec<u8> {
    let mut metric = Metric::new();
    metric
        .set_name("Node Control/Rebirth".to_owned())
        .set_datatype(DataType::Boolean)
        .set_value(Value::BooleanValue(true));
    Payload {
        metrics: vec![metric],
        ..Payload::default()
    }
    .encode_to_vec()
}

/// Listens until `enough`, asking for births where it has to.
async fn listen(
    host: &mut Host,
    (client, events): (&AsyncClient, &mut EventLoop),
    enough: impl Fn(&Host) -> bool,
) {
    let listening = async {
        while !enough(host) {
            let Event::Incoming(Packet::Publish(message)) = events.poll().await.unwrap() else {
                continue;
            };
            let payload = Payload::decode(&message.payload[..]).unwrap_or_default();
            if host.take(&message.topic, &payload) {
                let topic = format!("spBv1.0/akron/NCMD/{}", sparkplug::NODE);
                client
                    .try_publish(topic, QoS::AtLeastOnce, false, rebirth())
                    .unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), listening)
        .await
        .expect("the node never said enough");
}

#[tokio::test]
async fn f12_a_host_that_asks_for_a_birth_at_the_gap_mislabels_nothing() {
    if !Path::new(MOSQUITTO).exists() {
        eprintln!("skipped: {MOSQUITTO} is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path()).await;
    let plant = PlantState::start(1, 10.0);
    let stop = CancellationToken::new();
    let options = MqttOptions::new("host", "127.0.0.1", broker.port);
    let (client, mut events) = AsyncClient::new(options, 64);
    client.try_subscribe("spBv1.0/akron/#", QoS::AtLeastOnce).unwrap();
    let at = ("127.0.0.1".to_owned(), broker.port);
    let node = tokio::spawn(sparkplug::serve(plant.clone(), at, stop.clone()));
    let mut host = Host::default();
    listen(&mut host, (&client, &mut events), |host| {
        host.believed.len() >= 12
    })
    .await;
    let before = host.births;
    let start = Command::Start {
        fault: Fault::F12,
        seconds: None,
    };
    plant.scenario().apply(start, plant.clock.plant_us());
    listen(&mut host, (&client, &mut events), |host| {
        host.believed
            .iter()
            .filter(|(births, ..)| *births > before)
            .count()
            >= 12
    })
    .await;
    assert_eq!((host.births, host.gaps), (before + 1, 1));
    for (births, name, value) in &host.believed {
        let range = match name.as_str() {
            "LT-404" => 60.0..80.0,
            "TT-406" => 95.0..100.0,
            "TT-407" => 2.0..6.0,
            _ => 3.5..4.6,
        };
        assert!(range.contains(value), "after birth {births}: {name} {value}");
    }
    stop.cancel();
    node.await.unwrap();
}
