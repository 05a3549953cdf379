//! What does the ThingsBoard gateway cost for the same plant? The program of PyPI as its users run it, between the
//! simulator and mosquitto; the bench answers for the server what the gateway asks it at the start.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rumqttc::v5::{
    AsyncClient, Event, Incoming, MqttOptions,
    mqttbytes::{QoS, v5::Publish},
};
use serde_json::{Value, json};

use super::{Cost, cost_of};
use crate::support::load::Load;

const TAGS: u16 = 1_000;
const TELEMETRY: &str = "v1/gateway/telemetry";
const QUESTION: &str = "v1/devices/me/rpc/request/";
const ANSWER: &str = "v1/devices/me/rpc/response/";

/// A process that ends with the bench.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// 1,000 tags a second through the gateway; `None`, and said, where it is not installed.
pub(crate) async fn cost() -> Option<Cost> {
    let python = cache().join("venv-bench/bin/python");
    let Some(mosquitto) = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"]
        .into_iter()
        .find(|path| Path::new(path).exists() && python.exists())
    else {
        println!(
            "thingsboard-gateway or mosquitto is not installed (scripts/setup.sh bench): compared with published figures"
        );
        return None;
    };
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let conf = directory.path().join("mosquitto.conf");
    std::fs::write(
        &conf,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\n"),
    )
    .unwrap();
    let _broker = start(Command::new(mosquitto).arg("-c").arg(&conf));
    let load = format!("devices=1,tags={TAGS}");
    let load = Load::every(directory.path(), ([127, 0, 0, 1], port).into(), &load, "1s").await;
    configure(directory.path(), port, modbus_port(&load.config));
    let points = serve(port);
    let run = "from thingsboard_gateway.tb_gateway import daemon; daemon()";
    let gateway = start(
        Command::new(python)
            .args(["-c", run])
            .env("TB_GW_CONFIG_DIR", directory.path().join("config"))
            .env("TB_GW_LOGS_PATH", directory.path().join("logs")),
    );
    let first = async {
        while points.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let began = tokio::time::timeout(Duration::from_mins(1), first).await;
    began.expect("the gateway delivers within a minute");
    let cost = cost_of(gateway.0.id(), || points.load(Relaxed)).await;
    println!(
        "thingsboard-gateway: {:.1} MB, {:.1} % of a core, {:.0} readings/s delivered",
        cost.rss_mb, cost.cpu_percent, cost.delivered_per_s
    );
    Some(cost)
}

/// Where `scripts/setup.sh` puts what tests and benches talk to.
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(home, PathBuf::from)
        .join("foodflow")
}

fn start(command: &mut Command) -> Process {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Process(child.expect("an installed program starts"))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The simulator's port, from the configuration that it wrote for the agent.
fn modbus_port(config: &str) -> u16 {
    let (_, rest) = config.split_once("[[modbus]]").unwrap();
    let (_, rest) = rest.split_once("address = \"127.0.0.1:").unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}

/// The gateway's own two files (its documentation, version 3.8): no remote control, no statistics, every value of
/// every poll delivered with QoS 1.
fn configure(directory: &Path, mqtt: u16, modbus: u16) {
    let config = directory.join("config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::create_dir_all(directory.join("logs")).unwrap();
    let gateway = json!({
        "thingsboard": {
            "host": "127.0.0.1", "port": mqtt, "remoteShell": false, "remoteConfiguration": false,
            "statistics": {"enable": false, "enableCustom": false}, "deviceFiltering": {"enable": false},
            "maxPayloadSizeBytes": 65_536, "minPackSendDelayMS": 50, "minPackSizeToSend": 500,
            "checkConnectorsConfigurationInSeconds": 60, "handleDeviceRenaming": true,
            "security": {"type": "accessToken", "accessToken": "bench"}, "qos": 1,
            "reportStrategy": {"type": "ON_RECEIVED"},
        },
        "storage": {"type": "memory", "read_records_count": 100, "max_records_count": 100_000},
        "grpc": {"enabled": false},
        "connectors": [{"type": "modbus", "name": "Modbus", "configuration": "modbus.json"}],
    });
    let tag = |address: u16| json!({"tag": format!("t{address}"), "type": "16uint", "functionCode": 3, "objectsCount": 1, "address": address});
    let tags: Vec<Value> = (0..TAGS).map(tag).collect();
    let modbus = json!({"master": {"slaves": [{
        "host": "127.0.0.1", "port": modbus, "type": "tcp", "method": "socket", "timeout": 5, "byteOrder": "BIG",
        "wordOrder": "BIG", "retries": true, "retryOnEmpty": true, "retryOnInvalid": true, "pollPeriod": 1_000,
        "unitId": 1, "deviceName": "D1", "connectAttemptTimeMs": 5_000, "connectAttemptCount": 5,
        "waitAfterFailedAttemptsMs": 3_000, "attributes": [], "timeseries": tags, "attributeUpdates": [], "rpc": [],
    }]}});
    std::fs::write(config.join("tb_gateway.json"), gateway.to_string()).unwrap();
    std::fs::write(config.join("modbus.json"), modbus.to_string()).unwrap();
}

/// Stands for the server: answers the gateway's question for its limits with "none", and counts the points that come.
fn serve(port: u16) -> Arc<AtomicU64> {
    let points = Arc::new(AtomicU64::new(0));
    let count = points.clone();
    let mut options = MqttOptions::new("bench", "127.0.0.1", port);
    options.set_max_packet_size(Some(1 << 20));
    let (client, mut connection) = AsyncClient::new(options, 64);
    tokio::spawn(async move {
        loop {
            match connection.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    drop(client.try_subscribe("v1/#", QoS::AtMostOnce));
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) => take(&client, &publish, &count),
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    points
}

fn take(client: &AsyncClient, publish: &Publish, count: &AtomicU64) {
    let topic = String::from_utf8_lossy(&publish.topic);
    if let Some(id) = topic.strip_prefix(QUESTION) {
        let limits = json!({"messages": "0:0,"});
        let answer = json!({
            "maxPayloadSize": 65_536, "maxInflightMessages": 100, "rateLimits": limits, "gatewayRateLimits": limits,
        });
        drop(client.try_publish(
            format!("{ANSWER}{id}"),
            QoS::AtLeastOnce,
            false,
            answer.to_string(),
        ));
    } else if topic == TELEMETRY {
        let telemetry: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
        let values = telemetry["D1"].as_array().into_iter().flatten();
        let points = values.filter_map(|entry| Some(entry["values"].as_object()?.len() as u64));
        count.fetch_add(points.sum(), Relaxed);
    }
}
