//! Is MQTT 5 kept as rumqttc understands it: acknowledgements, refusals, wills and takeovers?

use rumqttc::v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};

use super::*;

#[tokio::test]
async fn a_publish_to_its_own_topic_reaches_ingest_and_is_acknowledged() {
    let mut hub = hub().await;
    let mut edge = hub.v5("akron-1", "a").await;
    edge.publish(OWN, "frame").await;
    assert_eq!(edge.puback().await.reason, PubAckReason::Success);
    let (device, topic, payload) = hub.next().await;
    assert_eq!(
        (device.tenant.as_str(), device.name.as_str()),
        ("akron", "akron-1")
    );
    assert_eq!((topic.as_str(), &payload[..]), (OWN, &b"frame"[..]));
}

#[tokio::test]
async fn a_foreign_publish_is_refused_and_the_connection_stays() {
    let mut hub = hub().await;
    let mut edge = hub.v5("akron-1", "a").await;
    edge.publish(FOREIGN, "not mine").await;
    assert_eq!(edge.puback().await.reason, PubAckReason::NotAuthorized);
    edge.publish(OWN, "mine").await;
    assert_eq!(edge.puback().await.reason, PubAckReason::Success);
    assert_eq!(
        hub.next().await.2,
        "mine",
        "the foreign publish never reached ingest"
    );
}

#[tokio::test]
async fn a_rejected_payload_is_answered_0x99_and_the_connection_stays() {
    let hub = hub().await;
    let mut edge = hub.v5("akron-1", "a").await;
    edge.publish(OWN, "reject").await;
    let ack = edge.puback().await;
    assert_eq!(ack.reason, PubAckReason::PayloadFormatInvalid);
    assert_eq!(ack.properties.unwrap().reason_string.as_deref(), Some("no frame"));
    edge.publish(OWN, "frame").await;
    assert_eq!(edge.puback().await.reason, PubAckReason::Success);
}

#[tokio::test]
async fn acknowledgements_come_in_order_and_only_after_ingest_settled() {
    let mut hub = hub().await;
    let mut edge = hub.v5("akron-1", "a").await;
    for payload in ["hold first", "second", "hold third"] {
        edge.publish(OWN, payload).await;
    }
    let poll_all = async {
        for _ in 0..3 {
            hub.next().await;
        }
    };
    // The client must be polled for its publishes to leave; no PUBACK may come meanwhile.
    tokio::select! {
        () = poll_all => {}
        ack = edge.puback() => panic!("acknowledged before ingest settled: {ack:?}"),
    }
    let mut held: Vec<_> = std::mem::take(&mut *hub.held.lock().unwrap());
    assert_eq!(held.len(), 2, "the third arrived before the first was settled");
    let (_, third) = held.pop().unwrap();
    third.send(Settled::Stored).unwrap();
    let (_, first) = held.pop().unwrap();
    first.send(Settled::Stored).unwrap();
    let mut pkids = Vec::new();
    for _ in 0..3 {
        pkids.push(edge.puback().await.pkid);
    }
    assert_eq!(pkids, [1, 2, 3]);
}

#[tokio::test]
async fn a_message_that_ingest_cannot_take_now_ends_the_connection_without_puback() {
    let hub = hub().await;
    let mut edge = hub.v5("akron-1", "a").await;
    edge.publish(OWN, "retry").await;
    let ended = async {
        loop {
            match edge.events.poll().await {
                Ok(v5::Event::Incoming(v5::mqttbytes::v5::Packet::PubAck(ack))) => panic!("{ack:?}"),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn a_device_hears_its_own_downlink_and_no_other() {
    let hub = hub().await;
    let mut edge = hub.v5("akron-1", "a").await;
    assert_eq!(
        edge.subscribe(ACK).await,
        SubscribeReasonCode::Success(v5::mqttbytes::QoS::AtLeastOnce)
    );
    for refused in [
        "#",
        "ff/v1/akron/#",
        "ff/v1/akron/akron-2/ack",
        "$share/g/ff/v1/akron/akron-1/ack",
    ] {
        assert_eq!(
            edge.subscribe(refused).await,
            SubscribeReasonCode::NotAuthorized,
            "{refused}"
        );
    }
    let downlink = hub.broker.downlink.clone();
    downlink
        .publish("ff/v1/akron/akron-2/ack", Bytes::from_static(b"other"), false)
        .await
        .unwrap();
    for number in 0..300 {
        downlink
            .publish(ACK, Bytes::from(format!("ack {number}")), false)
            .await
            .unwrap();
    }
    for number in 0..300 {
        assert_eq!(edge.message().await, format!("ack {number}"));
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let hub = hub().await;
    let mut options = hub.v5_options("akron-1", "a");
    options.set_credentials("akron/akron-1", "guess");
    let (_client, mut events) = v5::AsyncClient::new(options, 8);
    let refused = timeout(PATIENCE, events.poll()).await.unwrap().unwrap_err();
    let code = v5::mqttbytes::v5::ConnectReturnCode::NotAuthorized;
    assert!(
        matches!(refused, v5::ConnectionError::ConnectionRefused(found) if found == code),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_second_connection_with_the_same_client_id_takes_over() {
    let hub = hub().await;
    let mut old = hub.v5("akron-1", "same").await;
    let mut stranger = hub.v5("akron-2", "same").await;
    let mut new = hub.v5("akron-1", "same").await;
    old.wait_for_end().await;
    new.publish(OWN, "frame").await;
    assert_eq!(new.puback().await.reason, PubAckReason::Success);
    stranger.publish(FOREIGN, "frame").await;
    assert_eq!(
        stranger.puback().await.reason,
        PubAckReason::Success,
        "another device's equal id is another client"
    );
}

#[tokio::test]
async fn the_will_of_a_vanished_client_reaches_ingest_and_that_of_a_polite_one_does_not() {
    let mut hub = hub().await;
    let status = "ff/v1/akron/akron-1/status";
    let qos = v5::mqttbytes::QoS::AtLeastOnce;
    for (payload, is_polite) in [("polite", true), ("vanished", false)] {
        let mut options = hub.v5_options("akron-1", payload);
        options.set_last_will(v5::mqttbytes::v5::LastWill::new(
            status, payload, qos, false, None,
        ));
        let mut edge = V5Client::connect(options).await;
        if is_polite {
            edge.client.disconnect().await.unwrap();
            edge.wait_for_end().await;
        }
        drop(edge);
    }
    let (_, topic, payload) = hub.next().await;
    assert_eq!((topic.as_str(), &payload[..]), (status, &b"vanished"[..]));
}

#[tokio::test]
async fn a_will_on_a_foreign_topic_is_refused_at_connect() {
    let hub = hub().await;
    let mut options = hub.v5_options("akron-1", "a");
    let qos = v5::mqttbytes::QoS::AtLeastOnce;
    options.set_last_will(v5::mqttbytes::v5::LastWill::new(
        "ff/v1/akron/akron-2/status",
        "x",
        qos,
        false,
        None,
    ));
    let (_client, mut events) = v5::AsyncClient::new(options, 8);
    assert!(timeout(PATIENCE, events.poll()).await.unwrap().is_err());
}

#[tokio::test]
async fn qos_2_and_oversized_publishes_end_the_connection() {
    let limits = Limits {
        packet_bytes_max: 4096,
        ..Limits::default()
    };
    let hub = hub_with(limits).await;
    let mut edge = raw_v5(&hub, "two").await;
    // PUBLISH with QoS 2, topic "t", packet id 1, no properties.
    edge.write_all(&[0x34, 6, 0, 1, b't', 0, 1, 0]).await.unwrap();
    assert_eq!(rest(&mut edge).await, [0xE0, 2, 0x9B, 0]);
    let mut edge = raw_v5(&hub, "big").await;
    edge.write_all(&[0x32, 0xFF, 0xFF, 0x7F]).await.unwrap();
    assert_eq!(rest(&mut edge).await, [0xE0, 2, 0x95, 0]);
}

/// Options under which every QoS 1 message is acknowledged by hand.
fn by_hand(hub: &Hub) -> v5::MqttOptions {
    let mut options = hub.v5_options("akron-1", "by-hand");
    options.set_manual_acks(true);
    options
}

#[tokio::test]
async fn acknowledgements_out_of_order_cost_nothing() {
    let hub = hub().await;
    let mut edge = V5Client::connect(by_hand(&hub)).await;
    edge.subscribe(ACK).await;
    let downlink = hub.broker.downlink.clone();
    for round in 0..30 {
        let mut heard = Vec::new();
        for number in 0..10 {
            let payload = Bytes::from(format!("{round} {number}"));
            downlink.publish(ACK, payload, false).await.unwrap();
        }
        while heard.len() < 10 {
            let publish = edge
                .wait(|packet| match packet {
                    v5::mqttbytes::v5::Packet::Publish(publish) => Some(publish),
                    _ => None,
                })
                .await;
            assert_eq!(publish.payload, format!("{round} {}", heard.len()));
            heard.push(publish);
        }
        for publish in heard.iter().rev() {
            edge.client.ack(publish).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_message_too_large_for_its_client_holds_up_none_after_it() {
    let hub = hub().await;
    let mut options = hub.v5_options("akron-1", "small");
    options.set_max_packet_size(Some(200));
    let mut edge = V5Client::connect(options).await;
    edge.subscribe(ACK).await;
    let downlink = hub.broker.downlink.clone();
    for number in 0..300 {
        let payload = if number % 3 == 0 {
            "x".repeat(500)
        } else {
            format!("ack {number}")
        };
        downlink.publish(ACK, payload.into(), false).await.unwrap();
    }
    for number in (0..300).filter(|number| number % 3 != 0) {
        assert_eq!(edge.message().await, format!("ack {number}"));
    }
}

#[tokio::test]
async fn what_is_published_with_qos_0_comes_with_qos_0_between_what_comes_with_qos_1() {
    let hub = hub().await;
    let mut edge = hub.v5("akron-1", "a").await;
    edge.subscribe(ACK).await;
    let downlink = hub.broker.downlink.clone();
    for number in 0..300 {
        let payload = Bytes::from(format!("{number}"));
        if number % 2 == 0 {
            downlink.publish_at_most_once(ACK, payload).await.unwrap();
        } else {
            downlink.publish(ACK, payload, false).await.unwrap();
        }
    }
    for number in 0..300u16 {
        let publish = edge
            .wait(|packet| match packet {
                v5::mqttbytes::v5::Packet::Publish(publish) => Some(publish),
                _ => None,
            })
            .await;
        assert_eq!(publish.payload, number.to_string());
        assert_eq!(publish.qos as u16, number % 2, "{number}");
        let properties = publish.properties.unwrap_or_default();
        assert!(
            properties.user_properties.is_empty(),
            "the hub's own mark stays inside"
        );
    }
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_ends_the_session() {
    let hub = hub().await;
    let mut socket = raw_v5(&hub, "odd").await;
    socket.write_all(b"\x40\x02\x00\x07").await.unwrap();
    assert_eq!(
        rest(&mut socket).await,
        b"\xe0\x02\x82\x00",
        "DISCONNECT, protocol error"
    );
}
