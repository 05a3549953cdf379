//! Do clients that this project did not write get their values in, and hear what is wrong? Debian's mosquitto_pub,
//! PyPI's paho and mqtt-spb-wrapper, npm's mqtt and sparkplug-client, and a flow in Node-RED.

use std::{path::PathBuf, process::Stdio, time::Duration};

use cloud_hub::kernel::role::Role;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::{client::Caller, device::credentials, support::TestHub};

const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn cache() -> PathBuf {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        given.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    cache.join("foodflow")
}

fn installed(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{}: missing; run scripts/setup.sh test",
        path.display()
    );
    path
}

fn script(name: &str) -> String {
    format!("{}/tests/peers/mqtt/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a peer with the hub's port and a device's credentials; the JSON lines it prints.
pub(crate) async fn peer(hub: &TestHub, name: &str, mut command: Command) -> Vec<Value> {
    let (user, password) = credentials(hub, name).await;
    let output = command
        .env("MQTT_PORT", hub.hub.mqtt.port().to_string())
        .env("MQTT_USER", user)
        .env("MQTT_PASSWORD", password)
        .env("DEVICE", name)
        .env("NODE_PATH", cache().join("peer-mqtt/node_modules"))
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output)
        .await
        .expect("the peer ends in time")
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{errors}");
    said.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

pub(crate) fn node(name: &str) -> Command {
    installed(cache().join("peer-mqtt/node_modules/mqtt"));
    let mut command = Command::new("node");
    command.arg(script(name));
    command
}

pub(crate) fn python(environment: &str, name: &str) -> Command {
    let mut command = Command::new(installed(cache().join(environment).join("bin/python")));
    command.arg(script(name));
    command
}

/// What waits to be adopted of a client: device, name, newest value.
pub(crate) async fn waiting(hub: &TestHub, client: &str) -> Vec<(String, String, String)> {
    let supervisor = Caller::with_role(hub, Role::Supervisor).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = supervisor.items("/integrator/pending-tags").await;
    let mut its: Vec<_> = all
        .iter()
        .filter(|it| it["client"] == client)
        .map(|it| (text(&it["device"]), text(&it["name"]), text(&it["sample"])))
        .collect();
    its.sort();
    its
}

pub(crate) fn held(device: &str, name: &str, sample: &str) -> (String, String, String) {
    (device.to_owned(), name.to_owned(), sample.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_made_for_thingsboard_shows_its_access_token_alone() {
    let hub = TestHub::start().await;
    let (_, token) = credentials(&hub, "press-7").await;
    let port = hub.hub.mqtt.port().to_string();
    let publish = |token: String| {
        // As ThingsBoard's own guide has it.
        let mut command = Command::new("mosquitto_pub");
        command.args([
            "-d",
            "-q",
            "1",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-t",
            "v1/devices/me/telemetry",
        ]);
        command
            .args(["-u", &token, "-m", "{\"temperature\":25}"])
            .output()
    };
    let installed = "mosquitto_pub is installed: scripts/setup.sh test";
    assert!(publish(token.clone()).await.expect(installed).status.success());
    assert_eq!(
        waiting(&hub, "press-7").await,
        [held("press-7", "temperature", "25")]
    );
    let mut wrong = token;
    wrong.pop();
    for stranger in [wrong, String::new()] {
        assert!(!publish(stranger).await.expect(installed).status.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_pub_publishes_a_plain_number_in_both_protocols() {
    let hub = TestHub::start().await;
    let (user, password) = credentials(&hub, "press-7").await;
    for (protocol, value) in [("mqttv311", "4.5"), ("mqttv5", "5.5")] {
        let sent = Command::new("mosquitto_pub")
            .args([
                "-V",
                protocol,
                "-q",
                "1",
                "-h",
                "127.0.0.1",
                "-p",
                &hub.hub.mqtt.port().to_string(),
            ])
            .args([
                "-u",
                &user,
                "-P",
                &password,
                "-t",
                "v1/plant/l1/oven/t",
                "-m",
                value,
            ])
            .output()
            .await
            .expect("mosquitto_pub is installed: scripts/setup.sh test");
        assert!(sent.status.success(), "{sent:?}");
    }
    assert_eq!(waiting(&hub, "press-7").await, [held("oven", "t", "5.5")]);
    let refused = Command::new("mosquitto_pub")
        .args([
            "-V",
            "5",
            "-q",
            "1",
            "-d",
            "-h",
            "127.0.0.1",
            "-p",
            &hub.hub.mqtt.port().to_string(),
        ])
        .args([
            "-u",
            &user,
            "-P",
            &password,
            "-t",
            "v1/plant/l1/oven/telemetry",
            "-m",
            "{temperature:25}",
        ])
        .output()
        .await
        .unwrap();
    let said =
        String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("153"), "PUBACK 0x99: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho_publishes_and_reads_its_error_and_reason_code() {
    let hub = TestHub::start().await;
    let said = peer(&hub, "paho-1", python("venv-test", "paho_client.py")).await;
    let of = |what: &str| {
        said.iter()
            .find(|line| line["what"] == what)
            .unwrap_or_else(|| panic!("no {what} in {said:?}"))
    };
    assert_eq!(of("good")["reason"], 0);
    assert_eq!(of("bad")["reason"], 0x99);
    assert!(
        of("bad")["text"].as_str().unwrap().starts_with("E101"),
        "{said:?}"
    );
    assert_eq!(of("error")["said"]["code"], "BAD_JSON");
    assert_eq!(of("error")["said"]["offset"], 1);
    assert_eq!(waiting(&hub, "paho-1").await, [held("paho-1", "t", "21.5")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_mqtt_publishes_and_hears_its_echo() {
    let hub = TestHub::start().await;
    let said = peer(&hub, "node-1", node("mqtt_client.cjs")).await;
    let echo = said.iter().find(|line| line["what"] == "echo").unwrap();
    assert_eq!(
        (&echo["said"]["dialect"], &echo["said"]["counts"]["held"]),
        (&"thingsboard".into(), &2.into())
    );
    assert_eq!(
        waiting(&hub, "node-1").await,
        [held("node-1", "h", "80"), held("node-1", "t", "4.1")]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_sparkplug_client_is_born_and_answers_a_request_for_its_birth() {
    let hub = TestHub::start().await;
    let said = peer(&hub, "tahu-1", node("sparkplug_client.cjs")).await;
    assert!(
        said.iter().any(|line| line["what"] == "rebirth"),
        "the host's request was heard: {said:?}"
    );
    let its = waiting(&hub, "tahu-1").await;
    assert!(
        its.contains(&held("akron/tahu/oven", "temperature", "181.5")),
        "{its:?}"
    );
    assert!(its.contains(&held("akron/tahu", "uptime", "7")), "{its:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pypi_mqtt_spb_wrapper_is_born_and_its_data_have_its_names() {
    let hub = TestHub::start().await;
    let said = peer(&hub, "spb-1", python("venv-sparkplug", "spb_node.py")).await;
    assert!(said.iter().any(|line| line["what"] == "done"), "{said:?}");
    let its = waiting(&hub, "spb-1").await;
    assert!(
        its.iter().any(|(device, name, sample)| device == "akron/spb/oven"
            && name == "DATA/temperature"
            && sample == "72.5"),
        "{its:?}"
    );
}

/// As an integrator would draw it: inject, change, MQTT out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_red_flow_publishes_as_an_integrator_would_draw_it() {
    let red = installed(cache().join("peer-mqtt/node_modules/node-red/red.js"));
    let hub = TestHub::start().await;
    let (user, password) = credentials(&hub, "red-1").await;
    let folder = tempfile::tempdir().unwrap();
    let flow = std::fs::read_to_string(script("node_red_flow.json")).unwrap();
    let flow = flow.replace("@PORT@", &hub.hub.mqtt.port().to_string());
    std::fs::write(folder.path().join("flow.json"), flow).unwrap();
    let login = serde_json::json!({ "broker": { "user": user, "password": password } });
    std::fs::write(folder.path().join("flow_cred.json"), login.to_string()).unwrap();
    std::fs::write(
        folder.path().join("settings.js"),
        "module.exports = { uiPort: 0, uiHost: '127.0.0.1', httpAdminRoot: false, httpNodeRoot: false, credentialSecret: false, flowFile: 'flow.json', logging: { console: { level: 'info' } } };",
    )
    .unwrap();
    let mut red = Command::new("node")
        .arg(&red)
        .args(["--userDir", &folder.path().display().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(red.stdout.take().unwrap()).lines();
    let mut log = Vec::new();
    let arrived = async {
        let mut looks = tokio::time::interval(Duration::from_millis(300));
        loop {
            tokio::select! {
                line = lines.next_line() => match line.unwrap() {
                    Some(line) => log.push(line),
                    None => return false,
                },
                _ = looks.tick() => {
                    if waiting(&hub, "red-1").await == [held("mixer", "speed", "42")] {
                        return true;
                    }
                }
            }
        }
    };
    let arrived = timeout(PATIENCE, arrived).await.unwrap_or(false);
    assert!(arrived, "{}", log.join("\n"));
}
