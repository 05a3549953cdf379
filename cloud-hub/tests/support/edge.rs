//! A pretended edge: makes dictionaries and frames, and speaks MQTT 5 like a real one.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use cloud_hub::tenant::enrolment::Identity;
use protocol::{
    Micros, Quality, Reading,
    ack::{self, Acknowledgement},
    event::Event,
    frame::{ClockState, Frame, FrameId, Header},
    lane::Lane,
    limit::{Deviation, DeviationKind, Phase, deviation_id},
    reading::Alias,
    tag::{Dictionary, Tag},
    topic::{Channel, Topic},
};
use rumqttc::v5::{
    AsyncClient, Event as MqttEvent, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Makes what one edge would send.
#[derive(Clone, Debug)]
pub struct FrameMaker {
    pub tenant: String,
    pub edge: String,
    pub boot: Uuid,
    pub dictionary: Dictionary,
}

impl FrameMaker {
    /// An edge with these tags, aliased 0, 1, 2 …
    pub fn new(edge: &str, tags: &[&str]) -> Self {
        let tags = tags.iter().enumerate().map(|(index, name)| Tag {
            alias: Alias(index as u32),
            name: (*name).to_owned(),
            unit: "degC".to_owned(),
            description: String::new(),
            line: Some("L1".to_owned()),
            period_ms: 1_000,
            simulated: true,
        });
        Self {
            tenant: "akron".to_owned(),
            edge: edge.to_owned(),
            boot: Uuid::now_v7(),
            dictionary: Dictionary { tags: tags.collect() },
        }
    }

    pub fn frame(&self, lane: Lane, seq: u64, readings: Vec<Reading>, events: Vec<Event>) -> Frame {
        Frame {
            header: Header {
                id: FrameId {
                    boot: self.boot,
                    lane,
                    seq,
                },
                edge: self.edge.clone(),
                dictionary: self.dictionary.id(),
                sealed_us: readings
                    .last()
                    .map_or(1_700_000_000_000_000, |reading| reading.time_us),
                clock: ClockState::default(),
                readings: 0,
                events: 0,
            },
            readings,
            events,
        }
    }

    /// A live frame of `count` readings of alias 0, a second apart, from `from_us`.
    pub fn live(&self, seq: u64, from_us: Micros, count: i64) -> Frame {
        let reading = |second| Reading::new(Alias(0), from_us + second * 1_000_000, 73.2, Quality::GOOD);
        self.frame(Lane::Live, seq, (0..count).map(reading).collect(), vec![])
    }

    /// What the edge says of a dip at CCP-1.
    pub fn deviation(&self, phase: Phase, last_good_us: Micros, until_us: Micros) -> Event {
        Event::Deviation(Deviation {
            id: deviation_id(&self.edge, "CCP-1", last_good_us),
            ccp: "CCP-1".to_owned(),
            kind: DeviationKind::Limit,
            phase,
            detected_us: last_good_us + 2_000_000,
            last_good_us,
            until_us,
            value_extreme: Some(71.1),
            limit_low: Some(72.0),
            limit_high: None,
            limit_version: 1,
            quality: Quality::GOOD,
        })
    }

    pub fn topic(&self, channel: Channel) -> String {
        Topic::new(&self.tenant, &self.edge, channel).to_string()
    }

    /// The same edge in another tenant.
    pub fn in_tenant(mut self, tenant: &str) -> Self {
        tenant.clone_into(&mut self.tenant);
        self
    }
}

/// An enrolled edge on an MQTT connection; acknowledgements arrive in `acks`.
#[derive(Debug)]
pub struct MqttEdge {
    pub client: AsyncClient,
    pub acks: mpsc::UnboundedReceiver<Acknowledgement>,
    edge: String,
}

impl MqttEdge {
    pub async fn connect(address: SocketAddr, identity: &Identity) -> Self {
        let mut options = MqttOptions::new(&identity.edge, address.ip().to_string(), address.port());
        options
            .set_credentials(&identity.mqtt_username, identity.mqtt_password.expose())
            .set_keep_alive(Duration::from_secs(10))
            .set_max_packet_size(Some(2 << 20));
        let (client, mut events) = AsyncClient::new(options, 16);
        let (sender, acks) = mpsc::unbounded_channel();
        let (subscribed, ready) = tokio::sync::oneshot::channel();
        let topic = Topic::new(&identity.tenant, &identity.edge, Channel::Ack).to_string();
        client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
        tokio::spawn(async move {
            let mut subscribed = Some(subscribed);
            while let Ok(event) = events.poll().await {
                match event {
                    MqttEvent::Incoming(Packet::SubAck(_)) => {
                        if let Some(subscribed) = subscribed.take() {
                            subscribed.send(()).expect("the test waits for it");
                        }
                    }
                    MqttEvent::Incoming(Packet::Publish(publish)) => {
                        for ack in ack::decode(&publish.payload).unwrap() {
                            drop(sender.send(ack));
                        }
                    }
                    _ => {}
                }
            }
        });
        ready.await.unwrap();
        Self {
            client,
            acks,
            edge: identity.edge.clone(),
        }
    }

    /// Publishes and does not wait.
    pub async fn send(&self, channel: Channel, payload: Vec<u8>) {
        let topic = Topic::new("akron", &self.edge, channel).to_string();
        let payload = Bytes::from(payload);
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await
            .unwrap();
    }

    /// The next acknowledgement.
    pub async fn acknowledged(&mut self) -> Acknowledgement {
        tokio::time::timeout(Duration::from_secs(20), self.acks.recv())
            .await
            .expect("the hub acknowledges in time")
            .expect("the connection lives")
    }
}
