//! Do integrators' messages on a plant's own broker get in? A real Mosquitto with TLS and passwords, hubs that take
//! turns, and peers that know nothing of us.

use std::{path::Path, process::Stdio, time::Duration};

use cloud_hub::{
    config::{Config, ExternalMqtt, TapSettings},
    kernel::{clock::Clock, role::Role},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    client::Caller,
    clients::{held, node, waiting},
    mosquitto::{Mosquitto, server_certificate},
    support::{TestDatabase, TestHub, akron},
};

const PASSWORD: &str = "of-the-test";
const CLIENT: &str = "plant-broker";
const PATIENCE: Duration = Duration::from_secs(30);

/// A plant's broker and its folder.
struct Plant {
    dir: tempfile::TempDir,
    broker: Mosquitto,
    is_tls: bool,
}

impl Plant {
    async fn start(is_tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        server_certificate(dir.path());
        let at = |name: &str| dir.path().join(name).display().to_string();
        for (number, user) in ["hub", "press"].into_iter().enumerate() {
            let mut command = std::process::Command::new("mosquitto_passwd");
            command.args(["-b"].iter().chain((number == 0).then_some(&"-c")));
            let done = command.arg(at("passwords")).args([user, PASSWORD]).status();
            assert!(
                done.expect("mosquitto is installed: scripts/setup.sh test")
                    .success()
            );
        }
        std::fs::write(dir.path().join("hub-password"), PASSWORD).unwrap();
        let mut settings = format!("allow_anonymous false\npassword_file {}\n", at("passwords"));
        if is_tls {
            settings.extend([
                "certfile ",
                &at("server.pem"),
                "\nkeyfile ",
                &at("server.key"),
                "\n",
            ]);
        }
        let broker = Mosquitto::start(dir.path(), &settings).await;
        Self { dir, broker, is_tls }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(name)
    }

    /// A hub on `database` that reads everything there.
    async fn hub(&self, database: TestDatabase) -> TestHub {
        let scheme = if self.is_tls { "mqtts" } else { "mqtt" };
        let external = ExternalMqtt {
            url: format!("{scheme}://localhost:{}", self.broker.port),
            username: Some("hub".to_owned()),
            password_file: Some(self.at("hub-password")),
            ca_file: self.is_tls.then(|| self.at("server-ca.pem")),
            share_group: "foodflow".to_owned(),
            tap: vec![TapSettings {
                tenant: akron().as_str().to_owned(),
                client: CLIENT.to_owned(),
                root: String::new(),
                topics: vec!["#".to_owned()],
            }],
        };
        let configure = |config: &mut Config| config.mqtt.external = Some(external);
        TestHub::start_configured(database, configure).await
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args([
            "-V",
            "5",
            "-q",
            "1",
            "-h",
            "localhost",
            "-p",
            &self.broker.port.to_string(),
        ]);
        command.args(["-u", "press", "-P", PASSWORD]).kill_on_drop(true);
        if self.is_tls {
            command.arg("--cafile").arg(self.at("server-ca.pem"));
        }
        command
    }

    /// Publishes lines, each a message, by mosquitto_pub.
    async fn publish(&self, topic: &str, lines: &[String]) {
        let mut command = self.client("mosquitto_pub");
        let mut running = command
            .args(["-l", "-t", topic])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = running.stdin.take().unwrap();
        input
            .write_all((lines.join("\n") + "\n").as_bytes())
            .await
            .unwrap();
        drop(input);
        assert!(running.wait().await.unwrap().success());
    }
}

/// What a mosquitto_sub that has begun to listen hears next.
async fn line(listening: &mut BufReader<&mut tokio::process::ChildStdout>) -> String {
    let mut line = String::new();
    timeout(PATIENCE, listening.read_line(&mut line))
        .await
        .expect("something is heard")
        .unwrap();
    line
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = std::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn readings(hub: &TestHub) -> i64 {
    hub.count(&akron(), "SELECT count(*) FROM reading").await
}

async fn adopt(hub: &TestHub, name: &str) {
    let supervisor = Caller::with_role(hub, Role::Supervisor).await;
    let id = supervisor.items("/integrator/pending-tags").await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/integrator/pending-tags/{id}/adopt");
    supervisor
        .send(Method::POST, &path, Some(json!({ "name": name })))
        .await
        .ok();
}

fn values(from: i64, count: i64, now_us: i64) -> Vec<String> {
    let value = |second: i64| json!({ "value": second, "ts": now_us - second * 1_000_000 }).to_string();
    (from..from + count).map(value).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_on_a_plants_broker_over_tls_is_stored_once_while_hubs_take_turns_and_are_away() {
    let plant = Plant::start(true).await;
    let database = TestDatabase::create().await;
    let (first, second) = (
        plant.hub(database.again()).await,
        plant.hub(database.again()).await,
    );
    let (topic, now_us) = ("v1/plant/l1/oven/zone1", Clock::system().now_us());
    until("a hub reads the broker", || async {
        plant.publish(topic, &values(0, 1, now_us)).await;
        !waiting(&first, CLIENT).await.is_empty()
    })
    .await;
    assert_eq!(waiting(&second, CLIENT).await, [held("oven", "zone1", "0")]);
    adopt(&second, "TT-900").await;
    plant.publish(topic, &values(1, 50, now_us)).await;
    until("both hubs' readings are there", || async {
        readings(&first).await == 51
    })
    .await;

    // The hub that reads loses its way to the database: the other one goes on with the session.
    let mut owner = database.owner().await;
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted \
         AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('lead tap akron/plant-broker', 0)",
    )
    .fetch_one(&mut owner)
    .await
    .unwrap();
    assert_eq!(ended, 1, "one hub holds the tap");
    plant.publish(topic, &values(51, 50, now_us)).await;
    until("what came meanwhile is there", || async {
        readings(&first).await == 101
    })
    .await;

    // Nobody reads: the broker keeps what comes.
    first.hub.stop().await;
    second.hub.stop().await;
    plant.publish(topic, &values(101, 60, now_us)).await;
    let third = plant.hub(database.again()).await;
    until("what the broker kept is there", || async {
        readings(&third).await == 161
    })
    .await;
    let distinct = "SELECT count(DISTINCT time) FROM reading";
    assert_eq!(third.count(&akron(), distinct).await, 161, "each once");
    third.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_and_echoes_are_told_on_the_plants_broker_and_frames_and_strange_topics_do_no_harm() {
    let plant = Plant::start(false).await;
    let hub = plant.hub(TestDatabase::create().await).await;
    let mut listener = plant.client("mosquitto_sub");
    listener
        .args(["-t", "v1/err/+", "-F", "%q %t %p"])
        .stdout(Stdio::piped());
    let mut listener: Child = listener.spawn().unwrap();
    let mut listening = BufReader::new(listener.stdout.as_mut().unwrap());
    until("a hub reads the broker", || async {
        plant.publish("v1/plant/l1/oven/t", &["4.5".to_owned()]).await;
        !waiting(&hub, CLIENT).await.is_empty()
    })
    .await;
    plant
        .publish("ff/v1/akron/press-7/up/live", &["no frame".to_owned()])
        .await;
    plant
        .publish(
            "some/cleaning/robot",
            &["online".to_owned(), "{temperature:25}".to_owned()],
        )
        .await;
    let heard = line(&mut listening).await;
    let (head, payload) = heard.split_at(heard.find('{').unwrap());
    assert_eq!(head, "1 v1/err/plant-broker ", "at QoS 1");
    let error: Value = serde_json::from_str(payload).unwrap();
    assert_eq!(
        (&error["code"], &error["topic"]),
        (&json!("BAD_JSON"), &json!("some/cleaning/robot"))
    );
    assert_eq!(waiting(&hub, CLIENT).await, [held("oven", "t", "4.5")]);
    hub.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparkplug_node_on_the_plants_broker_finds_its_host_and_answers_its_request() {
    let plant = Plant::start(false).await;
    let hub = plant.hub(TestDatabase::create().await).await;
    let mut listener = plant.client("mosquitto_sub");
    listener
        .args(["-t", "spBv1.0/STATE/foodflow", "-F", "%q %r %p"])
        .stdout(Stdio::piped());
    let mut listener: Child = listener.spawn().unwrap();
    let mut listening = BufReader::new(listener.stdout.as_mut().unwrap());
    let state = line(&mut listening).await;
    assert!(
        state.starts_with("1 ") && state.contains("\"online\":true"),
        "{state}"
    );
    let node = node("sparkplug_client.cjs")
        .env("MQTT_PORT", plant.broker.port.to_string())
        .env("MQTT_USER", "press")
        .env("MQTT_PASSWORD", PASSWORD)
        .env("DEVICE", "tahu-1")
        .env(
            "NODE_PATH",
            crate::clients::cache().join("peer-mqtt/node_modules"),
        )
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, node)
        .await
        .expect("it hears the host's request")
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let its = waiting(&hub, CLIENT).await;
    assert!(
        its.contains(&held("akron/tahu/oven", "temperature", "181.5")),
        "{its:?}"
    );
    assert!(its.contains(&held("akron/tahu", "uptime", "7")), "{its:?}");
    // Somebody says that the host is gone: it knows better.
    plant
        .publish(
            "spBv1.0/STATE/foodflow",
            &["{\"online\":false,\"timestamp\":1}".to_owned()],
        )
        .await;
    assert!(line(&mut listening).await.contains("false"));
    assert!(line(&mut listening).await.contains("\"online\":true"));
    hub.hub.stop().await;
    // It may have heard the wrong word over two filters, and said twice what is right.
    while !line(&mut listening).await.contains("\"online\":false") {}
}

/// The host's state as a mosquitto_sub hears it: QoS, whether it is kept, topic, whether online, timestamp.
fn said(line: &str) -> (String, bool, i64) {
    let (head, payload) = line.split_at(line.find('{').unwrap());
    let state: Value = serde_json::from_str(payload).unwrap();
    let timestamp = state["timestamp"].as_i64().unwrap();
    (head.to_owned(), state["online"].as_bool().unwrap(), timestamp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tck_id_operational_behavior_host_application_connect_will_is_said_by_the_plants_broker_when_a_hub_is_cut_off()
 {
    let plant = Plant::start(false).await;
    let mut listener = plant.client("mosquitto_sub");
    listener
        .args(["-t", "spBv1.0/STATE/+", "--retain-as-published"])
        .args(["-F", "%q %r %t %p"])
        .stdout(Stdio::piped());
    let mut listener: Child = listener.spawn().unwrap();
    let mut listening = BufReader::new(listener.stdout.as_mut().unwrap());
    let hub = plant.hub(TestDatabase::create().await).await;
    let kept = "1 1 spBv1.0/STATE/foodflow ".to_owned();
    let (head, is_online, born) = said(&line(&mut listening).await);
    assert_eq!((&head, is_online), (&kept, true));

    // Whoever comes under its name has the broker cut it off, as a machine that loses its line is.
    let mut other = plant.client("mosquitto_pub");
    let other = other
        .args(["-i", "foodflow-tap-foodflow-akron-plant-broker"])
        .args(["-t", "v1/x", "-m", "1"]);
    assert!(other.status().await.unwrap().success());
    let (head, is_online, died) = said(&line(&mut listening).await);
    assert_eq!((&head, is_online), (&kept, false));
    assert_eq!(died, born, "the will is of the connection that was born then");
    let (head, is_online, again) = said(&line(&mut listening).await);
    assert_eq!((&head, is_online), (&kept, true));
    assert!(again > born, "each connection has its own");
    hub.hub.stop().await;
    // It may have found the will kept, and said twice what is right.
    let (head, ended) = loop {
        let (head, is_online, at) = said(&line(&mut listening).await);
        if !is_online {
            break (head, at);
        }
    };
    assert_eq!(head, kept);
    assert!(ended > again, "it says goodbye itself, and when");
}
