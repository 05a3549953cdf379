//! Does the front end keep its promises to real clients? rumqttc (5 and 3.1.1), Debian's mosquitto tools where
//! they are installed, and bare sockets that misbehave.

mod mqtt5;
mod other_clients;
mod sockets;
mod tls;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use rumqttc::v5;
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
