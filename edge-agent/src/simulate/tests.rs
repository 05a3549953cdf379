//! Does the whole simulator answer real clients and say where it is?

use std::path::Path;

use ::opcua::{
    client::{ClientBuilder, IdentityToken},
    types::{
        EndpointDescription, MessageSecurityMode, NodeId, ReadValueId, TimestampsToReturn, UserTokenPolicy,
        Variant,
    },
};
use tokio::net::TcpListener;
use tokio_modbus::client::{Reader, tcp};

use super::*;

fn options(data_dir: &Path) -> Options {
    let agent = AgentSettings {
        hub_mqtt: "127.0.0.1:1883".into(),
        local_http: "127.0.0.1:0".into(),
        vision_manifest: "manifest.json".into(),
        vision_runtime: None,
        has_camera: true,
    };
    Options::on_free_ports(data_dir.to_owned(), 7, agent)
}

/// Reads one node with a real client, over a session of its own.
async fn read_node(url: &str, node: &str, pki: &Path) -> ::opcua::types::DataValue {
    let mut client = ClientBuilder::new()
        .application_name("simulator test")
        .application_uri("urn:foodflow:test")
        .pki_dir(pki)
        .session_retry_limit(3)
        .client()
        .unwrap();
    let endpoint: EndpointDescription = (
        url,
        "None",
        MessageSecurityMode::None,
        UserTokenPolicy::anonymous(),
    )
        .into();
    let (session, event_loop) = client
        .connect_to_matching_endpoint(endpoint, IdentityToken::Anonymous)
        .await
        .unwrap();
    let running = event_loop.spawn();
    assert!(session.wait_for_connection().await);
    let namespace = session.get_namespace_index(tags::NAMESPACE_URI).await.unwrap();
    let node: ReadValueId = NodeId::new(namespace, node).into();
    let values = session
        .read(&[node], TimestampsToReturn::Both, 0.0)
        .await
        .unwrap();
    session.disconnect().await.unwrap();
    running.await.unwrap();
    values.into_iter().next().unwrap()
}

#[tokio::test]
async fn an_opc_ua_client_reads_the_tray_core_with_its_source_time() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = Simulator::start(&options(dir.path())).await.unwrap();
    let url = simulator.ready().opcua.clone().unwrap();
    let value = read_node(&url, "L3.TT-310", &dir.path().join("client-pki")).await;
    let Some(Variant::Double(core_c)) = value.value else {
        panic!("no Double: {value:?}")
    };
    assert!((75.0..86.0).contains(&core_c), "{core_c}");
    let source = value.source_timestamp.unwrap().as_chrono();
    let age = chrono::Utc::now() - source;
    assert!(age.num_seconds().abs() < 30, "{age}");
    simulator.run_until(std::future::ready(())).await.unwrap();
}

#[tokio::test]
async fn ready_json_names_servers_that_answer_and_the_config_names_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = Simulator::start(&options(dir.path())).await.unwrap();
    let text = std::fs::read_to_string(dir.path().join("ready.json")).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(ready["pid"].as_u64(), Some(u64::from(std::process::id())));
    let modbus = ready["modbus"].as_str().unwrap();
    let mut plc = tcp::connect(modbus.parse().unwrap()).await.unwrap();
    // Unit 255 is what a bare Modbus TCP client sends: not the plant's unit.
    assert!(plc.read_holding_registers(0, 1).await.unwrap().is_err());
    assert!(
        tokio::net::TcpStream::connect(ready["control"].as_str().unwrap())
            .await
            .is_ok()
    );

    let config: toml::Table = std::fs::read_to_string(dir.path().join("edge.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(config["modbus"][0]["address"].as_str(), Some(modbus));
    assert_eq!(config["opcua"][0]["url"].as_str(), ready["opcua"].as_str());
    assert_eq!(
        config["camera"][0]["directory"].as_str(),
        ready["camera_dir"].as_str()
    );
    simulator.run_until(std::future::ready(())).await.unwrap();
}

#[tokio::test]
async fn a_load_serves_counters_and_a_matching_config() {
    let dir = tempfile::tempdir().unwrap();
    let load = Some("devices=2,tags=10".parse().unwrap());
    let simulator = Simulator::start(&Options {
        load,
        ..options(dir.path())
    })
    .await
    .unwrap();
    let mut plc = tcp::connect_slave(simulator.ready().modbus, tokio_modbus::Slave(2))
        .await
        .unwrap();
    assert_eq!(
        plc.read_holding_registers(0, 10).await.unwrap().unwrap().len(),
        10
    );
    let config: toml::Table = std::fs::read_to_string(dir.path().join("edge.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(config["modbus"].as_array().unwrap().len(), 2);
    simulator.run_until(std::future::ready(())).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named_and_no_ready_file_of_an_earlier_run_remains() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ready.json"), "{}").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let opcua = taken.local_addr().unwrap();
    let error = Simulator::start(&Options {
        opcua,
        ..options(dir.path())
    })
    .await
    .unwrap_err();
    assert!(matches!(error, SimulateError::Bind { server: "opc ua", address, .. } if address == opcua));
    assert!(!dir.path().join("ready.json").exists());
}
