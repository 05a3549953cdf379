//! A pretended device of an integrator: speaks MQTT 5 and hears its error and echo topics.

use std::time::Duration;

use cloud_hub::{kernel::clock::Clock, tenant::enrolment};
use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Packet, PubAck, PubAckReason, Publish, SubscribeReasonCode},
    },
};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use crate::support::{TestHub, akron};

const PATIENCE: Duration = Duration::from_secs(20);

/// User name and password of a newly enrolled device of Akron.
pub(crate) async fn credentials(hub: &TestHub, name: &str) -> (String, String) {
    let now = Clock::system().now();
    let code = enrolment::create_code(&hub.db, &akron(), name, now)
        .await
        .unwrap();
    let identity = enrolment::redeem(&hub.db, &code, now).await.unwrap();
    (identity.mqtt_username, identity.mqtt_password.expose().to_owned())
}

/// What a device hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(Publish),
    PubAck(u8, String),
    SubAck(Vec<SubscribeReasonCode>),
    Closed(String),
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) client: AsyncClient,
    heard: mpsc::UnboundedReceiver<Heard>,
    /// Heard while something else was waited for.
    kept: Vec<Heard>,
    connection: tokio::task::JoinHandle<()>,
    pub(crate) name: String,
}

/// A device that is dropped loses its connection, as by a power cut.
impl Drop for Device {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The number of a PUBACK's reason (MQTT 5, table 2-6).
fn number(reason: PubAckReason) -> u8 {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => 0,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    }
}

impl Device {
    /// Enrols and connects a device, and subscribes to its error and echo topics.
    pub(crate) async fn connect(hub: &TestHub, name: &str) -> Self {
        let login = credentials(hub, name).await;
        Self::with(hub, name, login).await
    }

    pub(crate) async fn with(hub: &TestHub, name: &str, login: (String, String)) -> Self {
        let mut device = Self::open(hub, name, login, |_| ());
        for kind in ["err", "echo"] {
            let granted = device.subscribe(&format!("v1/{kind}/{name}")).await;
            assert!(
                matches!(granted.as_slice(), [SubscribeReasonCode::Success(_)]),
                "{granted:?}"
            );
        }
        device
    }

    pub(crate) fn open(
        hub: &TestHub,
        name: &str,
        (user, password): (String, String),
        configure: impl FnOnce(&mut MqttOptions),
    ) -> Self {
        let address = hub.hub.mqtt;
        let mut options =
            MqttOptions::new(format!("{name}-client"), address.ip().to_string(), address.port());
        options
            .set_credentials(user, password)
            .set_keep_alive(Duration::from_secs(10))
            .set_max_packet_size(Some(4 << 20));
        configure(&mut options);
        let (client, mut events) = AsyncClient::new(options, 64);
        let (sender, heard) = mpsc::unbounded_channel();
        let connection = tokio::spawn(async move {
            loop {
                let said = match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => Heard::Message(publish),
                    Ok(Event::Incoming(Packet::PubAck(ack))) => {
                        let PubAck {
                            reason, properties, ..
                        } = ack;
                        let text = properties.and_then(|it| it.reason_string).unwrap_or_default();
                        Heard::PubAck(number(reason), text)
                    }
                    Ok(Event::Incoming(Packet::SubAck(ack))) => Heard::SubAck(ack.return_codes),
                    Ok(_) => continue,
                    Err(error) => {
                        drop(sender.send(Heard::Closed(error.to_string())));
                        return;
                    }
                };
                if sender.send(said).is_err() {
                    return;
                }
            }
        });
        Self {
            client,
            heard,
            kept: Vec::new(),
            connection,
            name: name.to_owned(),
        }
    }

    pub(crate) async fn next(&mut self) -> Heard {
        if self.kept.is_empty() {
            self.fresh().await
        } else {
            self.kept.remove(0)
        }
    }

    async fn fresh(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv())
            .await
            .expect("the hub says something in time")
            .expect("the connection's task lives")
    }

    /// The first thing heard that fits; what does not fit is kept for later, but a closed connection is not.
    pub(crate) async fn wait<T>(&mut self, fits: impl Fn(&Heard) -> Option<T>) -> T {
        for place in 0..self.kept.len() {
            if let Some(found) = fits(&self.kept[place]) {
                self.kept.remove(place);
                return found;
            }
        }
        loop {
            let heard = self.fresh().await;
            if let Some(found) = fits(&heard) {
                return found;
            }
            assert!(!matches!(heard, Heard::Closed(_)), "{heard:?}");
            self.kept.push(heard);
        }
    }

    /// What was heard so far and waited for by nobody is forgotten.
    pub(crate) fn forget(&mut self) {
        self.kept.clear();
        while self.heard.try_recv().is_ok() {}
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) -> Vec<SubscribeReasonCode> {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        self.wait(|heard| match heard {
            Heard::SubAck(codes) => Some(codes.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        let payload: Vec<u8> = payload.into();
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await
            .unwrap();
    }

    /// Publishes and waits for the PUBACK: its reason code as a number and its reason.
    pub(crate) async fn send(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> (u8, String) {
        self.publish(topic, payload).await;
        self.acknowledged().await
    }

    pub(crate) async fn acknowledged(&mut self) -> (u8, String) {
        self.wait(|heard| match heard {
            Heard::PubAck(code, reason) => Some((*code, reason.clone())),
            _ => None,
        })
        .await
    }

    /// The next message on one of its own topics, `err` or `echo`.
    pub(crate) async fn told(&mut self, kind: &str) -> Value {
        let topic = format!("v1/{kind}/{}", self.name);
        self.wait(|heard| match heard {
            Heard::Message(publish) if publish.topic == topic.as_bytes() => {
                Some(serde_json::from_slice(&publish.payload).unwrap())
            }
            _ => None,
        })
        .await
    }
}
