//! Does the front end keep its promises to real clients? rumqttc (5 and 3.1.1), Debian's mosquitto tools where
//! they are installed, and bare sockets that misbehave.

use std::{
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use rumqttc::{mqttbytes, v5};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::*;

const OWN: &str = "ff/v1/akron/akron-1/up/live";
const FOREIGN: &str = "ff/v1/akron/akron-2/up/live";
const ACK: &str = "ff/v1/akron/akron-1/ack";
const PATIENCE: Duration = Duration::from_secs(10);

// === the hub under test ===

/// Knows two devices of one tenant.
struct TwoDevices;

impl Authenticate for TwoDevices {
    fn authenticate(&self, username: String, password: Vec<u8>) -> BoxFuture<'static, Option<Device>> {
        async move {
            let (tenant, name) = username.split_once('/')?;
            let known =
                ["akron-1", "akron-2"].contains(&name) && password == format!("secret of {name}").as_bytes();
            known.then(|| Device {
                tenant: tenant.to_owned(),
                name: name.to_owned(),
            })
        }
        .boxed()
    }
}

type Held = Arc<Mutex<Vec<(String, oneshot::Sender<Settled>)>>>;

/// A front end whose ingest settles by what the payload says: `reject`, `retry`, `hold`, anything else is stored.
struct Hub {
    broker: Broker,
    seen: mpsc::Receiver<(Device, String, Bytes)>,
    held: Held,
}

async fn hub() -> Hub {
    hub_with(Limits {
        refusal_delay: Duration::ZERO,
        ..Limits::default()
    })
    .await
}

async fn hub_with(limits: Limits) -> Hub {
    hub_of(BrokerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        limits,
    })
    .await
}

async fn hub_of(config: BrokerConfig) -> Hub {
    let (uplink, mut uplinks) = uplinks(1 << 20);
    let broker = start(config, Arc::new(TwoDevices), uplink).await.unwrap();
    let (report, seen) = mpsc::channel(10_000);
    let held = Held::default();
    let keep = held.clone();
    tokio::spawn(async move {
        while let Some(taken) = uplinks.recv().await {
            let Uplink {
                device,
                topic,
                payload,
                settled,
            } = taken.uplink;
            let text = String::from_utf8_lossy(&payload).into_owned();
            report.send((device, topic, payload)).await.unwrap();
            let verdict = match text.as_str() {
                "reject" => Settled::Rejected {
                    reason: "no frame".to_owned(),
                },
                "retry" => Settled::Retry,
                _ if text.starts_with("hold") => {
                    keep.lock().unwrap().push((text, settled));
                    continue;
                }
                _ => Settled::Stored,
            };
            settled.send(verdict).ok();
        }
    });
    Hub { broker, seen, held }
}

impl Hub {
    fn port(&self) -> u16 {
        self.broker.local_addr.port()
    }

    async fn next(&mut self) -> (Device, String, Bytes) {
        timeout(PATIENCE, self.seen.recv())
            .await
            .expect("ingest got nothing in time")
            .unwrap()
    }

    fn v5_options(&self, edge: &str, client_id: &str) -> v5::MqttOptions {
        let mut options = v5::MqttOptions::new(client_id, "127.0.0.1", self.port());
        options.set_credentials(format!("akron/{edge}"), format!("secret of {edge}"));
        options.set_keep_alive(Duration::from_secs(5));
        options.set_max_packet_size(Some(1 << 20));
        options
    }

    async fn v5(&self, edge: &str, client_id: &str) -> V5Client {
        V5Client::connect(self.v5_options(edge, client_id)).await
    }
}

/// A rumqttc v5 client whose events are awaited one by one.
struct V5Client {
    client: v5::AsyncClient,
    events: v5::EventLoop,
}

impl V5Client {
    async fn connect(options: v5::MqttOptions) -> Self {
        let (client, events) = v5::AsyncClient::new(options, 64);
        let mut this = Self { client, events };
        this.wait(|packet| matches!(packet, v5::mqttbytes::v5::Packet::ConnAck(_)).then_some(()))
            .await;
        this
    }

    /// Polls until a packet answers `wanted`.
    async fn wait<T>(&mut self, wanted: impl Fn(v5::mqttbytes::v5::Packet) -> Option<T>) -> T {
        let found = async {
            loop {
                if let v5::Event::Incoming(packet) = self.events.poll().await.expect("the connection holds")
                    && let Some(found) = wanted(packet)
                {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("no such packet in time")
    }

    /// Polls until the connection ends.
    async fn wait_for_end(&mut self) -> v5::ConnectionError {
        let end = async {
            loop {
                if let Err(end) = self.events.poll().await {
                    return end;
                }
            }
        };
        timeout(PATIENCE, end).await.expect("the connection did not end")
    }

    async fn publish(&self, topic: &str, payload: &str) {
        let qos = v5::mqttbytes::QoS::AtLeastOnce;
        self.client
            .publish(topic, qos, false, payload.to_owned())
            .await
            .unwrap();
    }

    async fn puback(&mut self) -> v5::mqttbytes::v5::PubAck {
        self.wait(|packet| match packet {
            v5::mqttbytes::v5::Packet::PubAck(ack) => Some(ack),
            _ => None,
        })
        .await
    }

    async fn subscribe(&mut self, filter: &str) -> v5::mqttbytes::v5::SubscribeReasonCode {
        self.client
            .subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce)
            .await
            .unwrap();
        self.wait(|packet| match packet {
            v5::mqttbytes::v5::Packet::SubAck(ack) => Some(ack.return_codes[0]),
            _ => None,
        })
        .await
    }

    async fn message(&mut self) -> Bytes {
        self.wait(|packet| match packet {
            v5::mqttbytes::v5::Packet::Publish(publish) => Some(publish.payload),
            _ => None,
        })
        .await
    }
}

use v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};

// === MQTT 5 by rumqttc ===

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

// === 3.1.1 by rumqttc ===

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

// === sockets that misbehave ===

async fn raw(hub: &Hub) -> TcpStream {
    TcpStream::connect(hub.broker.local_addr).await.unwrap()
}

/// A bare socket with a session: CONNECT, MQTT 5, keep-alive 1 s, as akron-1.
async fn raw_v5(hub: &Hub, client_id: &str) -> TcpStream {
    let mut body = b"\x00\x04MQTT\x05\xc2\x00\x01\x00".to_vec();
    for text in [client_id, "akron/akron-1", "secret of akron-1"] {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let mut socket = raw(hub).await;
    socket.write_all(&[0x10, body.len() as u8]).await.unwrap();
    socket.write_all(&body).await.unwrap();
    let mut head = [0; 2];
    socket.read_exact(&mut head).await.unwrap();
    let mut connack = vec![0; usize::from(head[1])];
    socket.read_exact(&mut connack).await.unwrap();
    assert_eq!((head[0], connack[1]), (0x20, 0), "CONNACK accepts");
    socket
}

/// What the hub still says before it closes.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut bytes))
        .await
        .expect("the hub closes")
        .ok();
    bytes
}

#[tokio::test]
async fn garbage_on_one_socket_does_not_disturb_another() {
    let hub = hub().await;
    let mut edge = hub.v5("akron-1", "good").await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xFF; 64],
        &[0x10, 4, 0, 4, b'M', b'Q'],
        &[0x20, 2, 0, 0],
    ] {
        let mut socket = raw(&hub).await;
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        assert!(rest(&mut socket).await.is_empty(), "{garbage:?}");
    }
    // Inside a session, too: packets that only a server sends make rumqttd's codec panic.
    for (garbage, code) in [
        (&[0x20, 2, 0, 0][..], 0x82),
        (&[0xB0, 4, 0, 1, 0, 0], 0x82),
        (&[0x82, 3, 0, 1, 0], 0x81),
    ] {
        let mut socket = raw_v5(&hub, "bad").await;
        socket.write_all(garbage).await.unwrap();
        assert_eq!(rest(&mut socket).await, [0xE0, 2, code, 0], "{garbage:?}");
    }
    edge.publish(OWN, "frame").await;
    assert_eq!(edge.puback().await.reason, PubAckReason::Success);
}

#[tokio::test]
async fn a_socket_that_never_connects_is_closed_and_blocks_nobody() {
    let limits = Limits {
        connect_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let hub = hub_with(limits).await;
    let mut silent = raw(&hub).await;
    let mut halves = raw(&hub).await;
    halves.write_all(&[0x10]).await.unwrap();
    let mut edge = hub.v5("akron-1", "good").await;
    edge.publish(OWN, "frame").await;
    assert_eq!(edge.puback().await.reason, PubAckReason::Success);
    assert!(rest(&mut silent).await.is_empty());
    assert!(rest(&mut halves).await.is_empty());
}

#[tokio::test]
async fn a_client_that_goes_silent_is_closed_after_one_and_a_half_keep_alives() {
    let hub = hub().await;
    let started = tokio::time::Instant::now();
    let mut socket = raw_v5(&hub, "silent").await;
    assert_eq!(rest(&mut socket).await, [0xE0, 2, 0x8D, 0]);
    assert!(started.elapsed() >= Duration::from_millis(1400));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_does_not_hold_up_another() {
    let limits = Limits {
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let hub = hub_with(limits).await;
    let mut deaf = raw_v5(&hub, "deaf").await;
    let mut subscribe = vec![0x82, 0, 0, 1, 0, 0, ACK.len() as u8];
    subscribe.extend_from_slice(ACK.as_bytes());
    subscribe.push(0);
    subscribe[1] = (subscribe.len() - 2) as u8;
    deaf.write_all(&subscribe).await.unwrap();
    let mut edge = hub.v5("akron-1", "good").await;
    edge.subscribe(ACK).await;
    for number in 0..60u32 {
        let mut payload = vec![0; 200_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        hub.broker
            .downlink
            .publish(ACK, payload.into(), false)
            .await
            .unwrap();
        assert_eq!(edge.message().await[..4], number.to_be_bytes());
    }
    drop(deaf);
}

#[tokio::test]
async fn the_socket_is_not_read_while_too_much_is_pending() {
    let limits = Limits {
        pending_max: 4,
        ..Limits::default()
    };
    let mut hub = hub_with(limits).await;
    let mut edge = hub.v5("akron-1", "eager").await;
    for number in 0..12 {
        edge.publish(OWN, &format!("hold {number}")).await;
    }
    let settle = async {
        let mut released = 0;
        while released < 12 {
            hub.next().await;
            let held = hub.held.lock().unwrap().len();
            assert!(held <= 4, "{held} publishes pending at ingest");
            if held == 4 || released + held == 12 {
                for (_, settled) in hub.held.lock().unwrap().drain(..) {
                    settled.send(Settled::Stored).unwrap();
                    released += 1;
                }
            }
        }
    };
    let acks = async {
        for _ in 0..12 {
            edge.puback().await;
        }
    };
    tokio::join!(settle, acks);
}

#[tokio::test]
async fn sockets_above_the_connection_limit_are_closed_at_once() {
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let hub = hub_with(limits).await;
    let _first = hub.v5("akron-1", "a").await;
    let _second = hub.v5("akron-1", "b").await;
    let mut third = raw(&hub).await;
    assert!(rest(&mut third).await.is_empty());
}

#[tokio::test]
async fn a_shutdown_says_so_to_its_clients() {
    let hub = hub().await;
    let mut socket = raw_v5(&hub, "a").await;
    hub.broker.shutdown().await;
    assert_eq!(rest(&mut socket).await, [0xE0, 2, 0x8B, 0]);
}

// === Debian's mosquitto clients ===

/// Runs a mosquitto tool as akron-1; `None` where the tools are not installed.
async fn mosquitto(hub: &Hub, tool: &'static str, arguments: &[&str]) -> Option<Output> {
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

/// A self-signed certificate for localhost; `None` where openssl is not installed.
fn certificate(dir: &std::path::Path) -> Option<TlsListener> {
    let (cert_file, key_file) = (dir.join("hub.pem"), dir.join("hub.key"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    command.args([
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-days",
        "2",
    ]);
    command.arg("-keyout").arg(&key_file).arg("-out").arg(&cert_file);
    let made = command.stdin(Stdio::null()).output().ok()?;
    assert!(made.status.success(), "{made:?}");
    let listen = "127.0.0.1:0".parse().unwrap();
    Some(TlsListener {
        listen,
        cert_file,
        key_file,
        devices: None,
    })
}

#[tokio::test]
async fn tls_carries_the_same_rules_and_a_half_open_handshake_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tls) = certificate(dir.path()) else {
        return;
    };
    let authority = tls.cert_file.to_str().unwrap().to_owned();
    let limits = Limits {
        connect_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let config = BrokerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Some(tls),
        limits,
    };
    let mut hub = hub_of(config).await;
    let address = hub.broker.tls_addr.unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let port = address.port().to_string();
    let common = [
        "-h",
        "localhost",
        "--cafile",
        &authority,
        "-V",
        "5",
        "-q",
        "1",
        "-m",
        "frame",
    ];
    let own = [&common[..], &["-p", &port, "-t", OWN]].concat();
    let Some(output) = mosquitto(&hub, "mosquitto_pub", &own).await else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    assert_eq!(hub.next().await.1, OWN);
    let foreign = [&common[..], &["-p", &port, "-t", FOREIGN]].concat();
    let output = mosquitto(&hub, "mosquitto_pub", &foreign).await.unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("Not authorized"),
        "{output:?}"
    );
    assert!(rest(&mut silent).await.is_empty());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let nowhere: PathBuf = "/nowhere/hub.pem".into();
    let listen = "127.0.0.1:0".parse().unwrap();
    let tls = TlsListener {
        listen,
        cert_file: nowhere.clone(),
        key_file: nowhere,
        devices: None,
    };
    let config = BrokerConfig {
        listen,
        tls: Some(tls),
        limits: Limits::default(),
    };
    let (uplink, _uplinks) = uplinks(1);
    let refused = start(config, Arc::new(TwoDevices), uplink).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot use the TLS file /nowhere/hub.pem");
}
