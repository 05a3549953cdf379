//! Two hubs that reach the same edge over the plant's own broker: is a command sent by one of them, once?

use std::{
    collections::HashMap,
    process::{Child, Command, Stdio},
    time::Duration,
};

use cloud_hub::{config::ExternalMqtt, kernel::role::Role};
use protocol::{
    command,
    topic::{Channel, Topic},
};
use reqwest::Method;
use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

use crate::support::{FrameMaker, TestDatabase, TestHub, akron};

const COMMANDS: usize = 20;

struct Mosquitto {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().ok();
    }
}

impl Mosquitto {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let file = dir.path().join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n");
        std::fs::write(&file, text).unwrap();
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed: apt-get install mosquitto");
        Self {
            child,
            port,
            _dir: dir,
        }
    }

    async fn hub(&self, database: TestDatabase) -> TestHub {
        let url = format!("mqtt://127.0.0.1:{}", self.port);
        let started = TestHub::start_configured(database, |config| {
            config.mqtt.external = Some(ExternalMqtt {
                url,
                username: None,
                password_file: None,
                ca_file: None,
                share_group: "hubs".to_owned(),
                tap: vec![],
            });
        });
        Box::pin(started).await
    }
}

/// An edge on that broker, which answers nothing; what it is sent comes out.
fn edge(maker: &FrameMaker, port: u16) -> (AsyncClient, mpsc::UnboundedReceiver<Uuid>) {
    let mut options = MqttOptions::new(&maker.edge, "127.0.0.1", port);
    options
        .set_clean_start(true)
        .set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 64);
    let (sender, commands) = mpsc::unbounded_channel();
    let (topic, asking) = (
        Topic::new(&maker.tenant, &maker.edge, Channel::Command).to_string(),
        client.clone(),
    );
    tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    asking.try_subscribe(&topic, QoS::AtLeastOnce).ok();
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let command = command::decode(&publish.payload).unwrap();
                    if sender.send(command.id).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                // Not up yet.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    (client, commands)
}

async fn order(hub: &TestHub, token: &str, number: usize) -> Uuid {
    let body = json!({ "kind": "alarm", "code": "warm", "subject": format!("TT-{number}"), "deed": "acknowledge",
        "reason": "seen" });
    let answer = reqwest::Client::new()
        .request(Method::POST, hub.url("/api/v1/edges/e1/commands"))
        .bearer_auth(token)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    let made: Value = answer.json().await.unwrap();
    made["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hubs_that_reach_an_edge_one_sends_a_command_and_sends_it_once() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let (broker, database) = (Mosquitto::start(), TestDatabase::create().await);
    let hubs = [
        broker.hub(database.again()).await,
        broker.hub(database.again()).await,
    ];
    let maker = FrameMaker::new("e1", &["TT-1"]);
    let (client, mut commands) = edge(&maker, broker.port);
    // Each message goes to one of the hubs: both have heard of the edge once each has stored some of its frames.
    let heard = async {
        let topic = maker.topic(Channel::Dictionary);
        loop {
            let bytes = maker.dictionary.encode();
            client
                .publish(&topic, QoS::AtLeastOnce, false, bytes)
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let reached = hubs.iter().filter(|hub| hub.hub.reaches(&akron(), "e1"));
            if reached.count() == hubs.len() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(30), heard)
        .await
        .expect("both hubs hear of the edge");
    let tokens = [hubs[0].token(Role::Admin).await, hubs[1].token(Role::Admin).await];
    let mut given = Vec::new();
    for number in 0..COMMANDS {
        let at = number % 2;
        given.push(order(&hubs[at], &tokens[at], number).await);
    }
    let mut sent: HashMap<Uuid, usize> = HashMap::new();
    while sent.len() < COMMANDS {
        // Sixteen at a time while none is answered: the rest is answered for.
        let next = timeout(Duration::from_secs(20), commands.recv()).await;
        let id = next.expect("commands are sent in time").unwrap();
        *sent.entry(id).or_default() += 1;
        let mut tx = database.db.begin(&akron()).await.unwrap();
        sqlx::query("UPDATE edge_command SET state = 'done', answered_at = now() WHERE id = $1 AND $2")
            .bind(id)
            .bind(sent.len() <= COMMANDS / 2)
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit_unaudited("a test's answer").await.unwrap();
    }
    // Both look again every ten seconds, and within thirty nothing is repeated.
    while let Ok(Some(id)) = timeout(Duration::from_secs(12), commands.recv()).await {
        *sent.entry(id).or_default() += 1;
    }
    assert!(given.iter().all(|id| sent.get(id) == Some(&1)), "{sent:?}");
    let noted = "SELECT count(*) FROM edge_command WHERE attempts = 1 AND sent_in = 'shared'";
    assert_eq!(hubs[0].count(&akron(), noted).await, COMMANDS as i64);
}
