//! Does the edge node follow its primary host from one server to the next? Two real mosquittos, and a host that comes
//! and goes on each of them by a clock of its own.

use std::time::Duration;

use protocol::sparkplug::decode;
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use srad_types::payload::metric;

use crate::support::{
    broker::Broker,
    edge::{Edge, device, head},
    plc::{Behaviour, Plc},
};

const WITHIN: Duration = Duration::from_mins(1);

/// One server, and the host's client on it.
struct Server {
    broker: Broker,
    client: AsyncClient,
    events: EventLoop,
    _directory: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker::start(directory.path(), None).await;
        let mut options = MqttOptions::new("host", "127.0.0.1", broker.address.port());
        options.set_max_packet_size(Some(1 << 20));
        let (client, events) = AsyncClient::new(options, 64);
        client.try_subscribe("spBv1.0/akron/#", QoS::AtLeastOnce).unwrap();
        let mut server = Self {
            broker,
            client,
            events,
            _directory: directory,
        };
        server
            .events_until(|event| matches!(event, Event::Incoming(Packet::SubAck(_))).then_some(()))
            .await;
        server
    }

    async fn events_until<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(found) = wanted(&self.events.poll().await.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(WITHIN, waiting)
            .await
            .expect("it never happened on this server")
    }

    async fn says(&mut self, host: &str, online: bool, timestamp: u64) {
        let state = format!("{{\"online\":{online},\"timestamp\":{timestamp}}}");
        let topic = format!("spBv1.0/STATE/{host}");
        self.client
            .try_publish(topic, QoS::AtLeastOnce, true, state)
            .unwrap();
        self.events_until(|event| matches!(event, Event::Incoming(Packet::PubAck(_))).then_some(()))
            .await;
    }

    /// What the node says next on this server, with the number of its session where the message bears it.
    async fn next(&mut self) -> (String, Option<u64>) {
        self.events_until(|event| match event {
            Event::Incoming(Packet::Publish(publish)) => {
                let topic = std::str::from_utf8(&publish.topic).unwrap();
                let kind = topic.split('/').nth(2).unwrap().to_owned();
                let payload = decode(&publish.payload).unwrap();
                let bd_seq = payload.metrics.iter().find_map(|metric| match metric.value {
                    Some(metric::Value::LongValue(number)) if metric.name.as_deref() == Some("bdSeq") => {
                        Some(number)
                    }
                    _ => None,
                });
                Some((kind, bd_seq))
            }
            _ => None,
        })
        .await
    }

    /// Everything up to a message of a kind.
    async fn until(&mut self, kind: &str) -> Vec<(String, Option<u64>)> {
        let mut seen = vec![self.next().await];
        while seen.last().is_some_and(|(last, _)| last != kind) {
            seen.push(self.next().await);
        }
        seen
    }
}

#[tokio::test]
async fn tck_id_operational_behavior_primary_application_state_with_multiple_servers_walk() {
    let (mut one, mut other) = (Server::start().await, Server::start().await);
    // On the first server the host is away, whatever another host says there; to the second it came long before.
    one.says("scada", false, 5_000).await;
    one.says("historian", true, 6_000).await;
    other.says("scada", true, 1_000).await;
    let (directory, plc) = (
        tempfile::tempdir().unwrap(),
        Plc::start(Behaviour::default()).await,
    );
    let config = head(None)
        + &format!(
            "[sparkplug]\ngroup_id = \"akron\"\naddresses = [\"{}\", \"{}\"]\nprimary_host = \"scada\"\n",
            one.broker.address, other.broker.address
        )
        + &device("plc", plc.address, "200ms", "500ms", &[0, 1]);
    let edge = Edge::start(directory.path(), &config).await;
    let seen = other.until("DDATA").await;
    assert_eq!(seen[0].0, "NBIRTH", "{seen:?}");
    let session = seen[0].1.unwrap();
    assert!(session > 0, "the first connection was to the other server");

    one.says("scada", true, 9_000).await;
    other.says("scada", false, 1_000).await;
    let seen = other.until("NDEATH").await;
    assert_eq!(seen.last().unwrap().1, Some(session));
    let seen = one.until("DDATA").await;
    let births: Vec<_> = seen.iter().filter(|(kind, _)| kind == "NBIRTH").collect();
    assert_eq!(births.len(), 1, "{seen:?}");
    let not_born = seen.iter().take_while(|(kind, _)| kind != "NBIRTH");
    for (kind, number) in not_born {
        assert_eq!(
            kind, "NDEATH",
            "the will of a session that was never born: {seen:?}"
        );
        assert!(number.unwrap() < session);
    }
    assert!(births[0].1.unwrap() > session);

    assert_eq!(edge.stop().await, Some(0));
    let seen = one.until("NDEATH").await;
    assert_eq!(seen.last().unwrap().1, births[0].1);
    // One server at a time: the second one heard nothing after the death but the will of the same session.
    let end = "spBv1.0/akron/END/x";
    other
        .client
        .try_publish(end, QoS::AtLeastOnce, false, "")
        .unwrap();
    let after = other.until("END").await;
    for (kind, number) in &after[..after.len() - 1] {
        assert_eq!((kind.as_str(), *number), ("NDEATH", Some(session)), "{after:?}");
    }
}
