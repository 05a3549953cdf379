//! Does the agent understand devices that this project did not write: PyPI's pymodbus and asyncua?
//!
//! Needs the virtual environment that `make test` creates (`scripts/test-venv.sh`); fails with that remedy without it.
#![allow(
    unreachable_pub,
    reason = "support code is shared by test binaries, not exported"
)]
#![allow(clippy::unwrap_used, reason = "a test's support code fails by panicking")]

mod support;

mod peers {
    mod opcua;
}

use std::path::PathBuf;

use protocol::Quality;
use support::{
    edge::{Edge, PROGRAM, head, source},
    hub::{Hub, Policy, Stored},
    peer::{self, Peer},
};
use tokio::process::Command;

fn python() -> PathBuf {
    let given = std::env::var_os("FOODFLOW_TEST_PYTHON").map(PathBuf::from);
    given.unwrap_or_else(|| {
        let remedy =
            "run scripts/test-venv.sh, or set FOODFLOW_TEST_PYTHON to a Python with pymodbus and asyncua";
        peer::python("venv-test", remedy)
    })
}

/// A Python server; killed when dropped.
struct Server {
    peer: Peer,
    port: u16,
}

impl Server {
    async fn start(script: &str, port: u16) -> Self {
        let mut peer = Peer::start(&python(), script, &[&port.to_string()]);
        let port = peer.line().await.trim().parse().unwrap();
        Self { peer, port }
    }

    async fn stop(self) -> u16 {
        self.peer.kill().await;
        self.port
    }
}

fn readings(stored: &Stored, tag: &str) -> Vec<(i64, Option<f64>, Quality)> {
    let readings = stored.of(tag);
    readings
        .map(|reading| (reading.time_us, reading.value(), reading.quality))
        .collect()
}

fn modbus_tag(name: &str, rest: &str) -> String {
    format!("[[modbus.group.tag]]\nname = \"{name}\"\n{rest}\n")
}

#[tokio::test]
async fn pymodbus_registers_floats_coils_and_an_illegal_address() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Server::start("modbus_server.py", 0).await;
    let hub = Hub::start(Policy::Store).await;
    let config = head(Some(hub.address))
        + &format!(
            "[[modbus]]\nname = \"plc\"\naddress = \"127.0.0.1:{}\"\n[[modbus.group]]\nperiod = \"200ms\"\n",
            peer.port
        )
        + &modbus_tag("HOLDING", "address = 5")
        + &modbus_tag("FLOAT", "address = 10\ntype = \"f32\"")
        + &modbus_tag("INPUT", "address = 7\nkind = \"input\"\nscale_digits = 1")
        + &modbus_tag("COIL", "address = 2\nkind = \"coil\"")
        + &modbus_tag("LAST", "address = 99")
        + &modbus_tag("BEYOND", "address = 103");
    let _edge = Edge::start(directory.path(), &config).await;
    hub.until("readings", |stored| readings(stored, "BEYOND").len() >= 3)
        .await;
    let stored = hub.stored.lock().unwrap();
    for (tag, expected) in [
        ("HOLDING", Some(105.0)),
        ("FLOAT", Some(73.25)),
        ("INPUT", Some(10.7)),
        ("COIL", Some(1.0)),
        ("LAST", Some(199.0)),
        ("BEYOND", None),
    ] {
        for (_, value, quality) in readings(&stored, tag) {
            assert_eq!(value, expected, "{tag} {quality}");
        }
    }
    assert!(
        readings(&stored, "BEYOND")
            .iter()
            .all(|(_, _, quality)| *quality == Quality::BAD_ADDRESS)
    );
}

fn opcua_config(hub: &Hub, port: u16) -> String {
    let tag = |name: &str, node: &str| {
        format!(
            "[[opcua.tag]]\nname = \"{name}\"\nnode = \"{node}\"\nsampling = \"200ms\"\nperiod = \"1s\"\n"
        )
    };
    head(Some(hub.address))
        + &format!(
            "[[opcua]]\nname = \"oven\"\nurl = \"opc.tcp://127.0.0.1:{port}/\"\nnamespace_uri = \"urn:foodflow:akron\"\n\
             publish = \"200ms\"\n"
        )
        + &tag("TT-310", "s=L3.TT-310")
        + &tag("STATIC", "s=L3.STATIC")
        + &tag("MISSING", "s=L3.NOPE")
}

#[tokio::test]
async fn asyncua_values_come_with_source_times_and_survive_a_restart_of_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Server::start("opcua_server.py", 0).await;
    let hub = Hub::start(Policy::Store).await;
    let edge = Edge::start(directory.path(), &opcua_config(&hub, peer.port)).await;
    hub.until("values", |stored| {
        readings(stored, "TT-310")
            .iter()
            .filter(|(_, value, _)| value.is_some())
            .count()
            >= 10
            && readings(stored, "STATIC")
                .iter()
                .filter(|(_, value, _)| value.is_some())
                .count()
                >= 3
            && readings(stored, "MISSING").len() >= 3
    })
    .await;
    {
        let stored = hub.stored.lock().unwrap();
        let values: Vec<_> = readings(&stored, "TT-310")
            .into_iter()
            .filter(|(_, value, _)| value.is_some())
            .collect();
        assert!(values.is_sorted_by(|a, b| a.0 <= b.0), "source times rise");
        assert!(values.is_sorted_by(|a, b| a.1 <= b.1), "the value rises");
        // A value that never changes is asked for, and is as good as one that does.
        assert!(
            readings(&stored, "STATIC")
                .iter()
                .all(|(_, value, _)| *value == Some(5.5))
        );
        assert!(
            readings(&stored, "MISSING")
                .iter()
                .all(|(_, _, quality)| *quality == Quality::BAD_ADDRESS)
        );
    }
    let port = peer.stop().await;
    edge.until("the lost session", |status| {
        source(status, "oven")["state"] == "down"
    })
    .await;
    hub.until("bad readings while the server is away", |stored| {
        readings(stored, "TT-310")
            .last()
            .is_some_and(|(_, _, quality)| *quality == Quality::BAD_NOT_CONNECTED)
    })
    .await;
    let before = readings(&hub.stored.lock().unwrap(), "TT-310").len();
    let _again = Server::start("opcua_server.py", port).await;
    hub.until("values after the restart", |stored| {
        let later = readings(stored, "TT-310");
        later[before..]
            .iter()
            .filter(|(_, value, _)| value.is_some())
            .count()
            >= 5
    })
    .await;
}

#[tokio::test]
async fn browse_lists_asyncua_nodes_as_a_configuration_writes_them() {
    let peer = Server::start("opcua_server.py", 0).await;
    let url = format!("opc.tcp://127.0.0.1:{}/", peer.port);
    let output = Command::new(PROGRAM)
        .args(["browse", "--json", "--url", &url])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let nodes: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let moving = nodes.iter().find(|node| node["path"] == "/TT-310").unwrap();
    assert_eq!(
        (&moving["node"], &moving["namespace_uri"]),
        (&"s=L3.TT-310".into(), &"urn:foodflow:akron".into())
    );
}
