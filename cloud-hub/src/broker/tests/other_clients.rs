//! Do other clients find what they expect: rumqttc's 3.1.1 and Debian's mosquitto tools?

use std::process::{Command, Output, Stdio};

use rumqttc::mqttbytes;

use super::*;

fn v4_options(hub: &Hub, client_id: &str) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(client_id, "127.0.0.1", hub.port());
    options.set_credentials("akron/akron-1", "secret of akron-1");
    options.set_keep_alive(Duration::from_secs(5));
    options
}

#[tokio::test]
async fn a_3_1_1_client_publishes_subscribes_and_is_closed_for_a_foreign_publish() {
    let mut hub = hub().await;
    let (client, mut events) = rumqttc::AsyncClient::new(v4_options(&hub, "four"), 16);
    let qos = mqttbytes::QoS::AtLeastOnce;
    client.subscribe(ACK, qos).await.unwrap();
    client.subscribe("#", qos).await.unwrap();
    client.publish(OWN, qos, false, "frame").await.unwrap();
    client.publish(OWN, qos, false, "reject").await.unwrap();
    let mut subacks = Vec::new();
    let mut pubacks = 0;
    while pubacks < 2 || subacks.len() < 2 {
        match timeout(PATIENCE, events.poll()).await.unwrap().unwrap() {
            rumqttc::Event::Incoming(mqttbytes::v4::Packet::SubAck(ack)) => subacks.push(ack.return_codes[0]),
            rumqttc::Event::Incoming(mqttbytes::v4::Packet::PubAck(_)) => pubacks += 1,
            _ => {}
        }
    }
    let granted = mqttbytes::v4::SubscribeReasonCode::Success(qos);
    assert_eq!(subacks, [granted, mqttbytes::v4::SubscribeReasonCode::Failure]);
    assert_eq!(hub.next().await.2, "frame");
    hub.broker
        .downlink
        .publish(ACK, Bytes::from_static(b"acked"), false)
        .await
        .unwrap();
    loop {
        let event = timeout(PATIENCE, events.poll()).await.unwrap().unwrap();
        if let rumqttc::Event::Incoming(mqttbytes::v4::Packet::Publish(publish)) = event {
            assert_eq!(publish.payload, "acked");
            break;
        }
    }
    client.publish(FOREIGN, qos, false, "not mine").await.unwrap();
    let closed = async { while events.poll().await.is_ok() {} };
    timeout(PATIENCE, closed)
        .await
        .expect("3.1.1 knows no other refusal than closing");
}

/// Runs a mosquitto tool as akron-1; `None` where the tools are not installed.
pub(super) async fn mosquitto(hub: &Hub, tool: &'static str, arguments: &[&str]) -> Option<Output> {
    let port = hub.port().to_string();
    let common = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-u",
        "akron/akron-1",
        "-P",
        "secret of akron-1",
    ];
    let mut command = Command::new(tool);
    command.args(common).args(arguments).stdin(Stdio::null());
    match tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
    {
        Ok(output) => Some(output),
        Err(source) if source.kind() == io::ErrorKind::NotFound => None,
        Err(source) => panic!("{tool}: {source}"),
    }
}

#[tokio::test]
async fn mosquitto_publishes_its_own_topic_and_is_refused_a_foreign_one() {
    let mut hub = hub().await;
    for version in ["5", "311"] {
        let own = ["-V", version, "-q", "1", "-t", OWN, "-m", "frame"];
        let Some(output) = mosquitto(&hub, "mosquitto_pub", &own).await else {
            return;
        };
        assert!(output.status.success(), "MQTT {version}: {output:?}");
        assert_eq!(hub.next().await.2, "frame");
    }
    let foreign = ["-V", "5", "-q", "1", "-t", FOREIGN, "-m", "x"];
    let output = mosquitto(&hub, "mosquitto_pub", &foreign).await.unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("Not authorized"),
        "{output:?}"
    );
    let guessed = ["-V", "5", "-P", "guess", "-q", "1", "-t", OWN, "-m", "x"];
    let output = mosquitto(&hub, "mosquitto_pub", &guessed).await.unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("Not authorized"));
}

#[tokio::test]
async fn mosquitto_subscribes_to_its_own_topic_and_is_refused_everything() {
    let hub = hub().await;
    for version in ["5", "311"] {
        let downlink = hub.broker.downlink.clone();
        // Retained, so that it does not matter which of the two is first.
        downlink
            .publish(ACK, Bytes::from_static(b"kept"), true)
            .await
            .unwrap();
        let own = ["-V", version, "-q", "1", "-t", ACK, "-C", "1", "-W", "10"];
        let Some(output) = mosquitto(&hub, "mosquitto_sub", &own).await else {
            return;
        };
        assert_eq!(output.stdout, b"kept\n", "MQTT {version}: {output:?}");
        let all = ["-V", version, "-q", "1", "-t", "#", "-C", "1", "-W", "3"];
        let output = mosquitto(&hub, "mosquitto_sub", &all).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("denied"), "MQTT {version}: {output:?}");
    }
}
