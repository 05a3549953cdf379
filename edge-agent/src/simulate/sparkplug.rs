//! How does a Sparkplug B edge node behave whose host lost a message and whose metrics got new aliases (F12)?
//! Line 4's node, published to a broker: births, data by alias, a will, and a rebirth when it is asked for. What is
//! said is decided without IO.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};
use srad_types::payload::{DataType, Message as _, Metric, Payload, metric::Value};
use tokio_util::sync::CancellationToken;

use super::{
    fault::Fault,
    state::{Moment, PlantState},
    tags,
};

/// Name of the edge node; its group is `akron`.
pub const NODE: &str = "line4";
/// The metrics it publishes.
const METRICS: [&str; 4] = ["LT-404", "TT-406", "TT-407", "AT-408"];
const REBIRTH: &str = "Node Control/Rebirth";
/// Plant time from message to message.
const EVERY: Duration = Duration::from_secs(1);
/// But not more often than this in wall time.
const WALL_EVERY_MIN: Duration = Duration::from_millis(50);
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

fn topic(verb: &str) -> String {
    format!("spBv1.0/akron/{verb}/{NODE}")
}

/// What the node remembers from message to message.
#[derive(Debug, Default)]
struct Node {
    birth_death_seq: u64,
    seq: u8,
    /// Aliases run from the last metric to the first.
    reversed: bool,
    /// F12 did its work; it does so once each time it acts.
    disturbed: bool,
}

impl Node {
    /// The will of the next connection.
    fn death(&self) -> Vec<u8> {
        let bd_seq = metric(
            Some("bdSeq"),
            None,
            DataType::UInt64,
            Value::LongValue(self.birth_death_seq),
            0,
        );
        payload(vec![bd_seq], None, 0)
    }

    /// Every metric with its name, alias and value.
    fn birth(&mut self, moment: &Moment, at_ms: u64) -> Vec<u8> {
        self.seq = 0;
        let bd_seq = Value::LongValue(self.birth_death_seq);
        let mut metrics = vec![
            metric(Some("bdSeq"), None, DataType::UInt64, bd_seq, at_ms),
            metric(
                Some(REBIRTH),
                None,
                DataType::Boolean,
                Value::BooleanValue(false),
                at_ms,
            ),
        ];
        metrics.extend(self.values(moment).map(|(name, alias, value)| {
            metric(
                Some(name),
                Some(alias),
                DataType::Double,
                Value::DoubleValue(value),
                at_ms,
            )
        }));
        payload(metrics, Some(0), at_ms)
    }

    /// The values by alias alone. When F12 begins one sequence number is left out and the aliases turn round: a
    /// host that does not notice the first mislabels every tag by the second.
    fn data(&mut self, moment: &Moment, at_ms: u64) -> Vec<u8> {
        let acts = moment.since_us(Fault::F12).is_some();
        if acts && !self.disturbed {
            self.seq = self.seq.wrapping_add(1);
            self.reversed = !self.reversed;
        }
        self.disturbed = acts;
        self.seq = self.seq.wrapping_add(1);
        let metrics = self.values(moment).map(|(_, alias, value)| {
            metric(
                None,
                Some(alias),
                DataType::Double,
                Value::DoubleValue(value),
                at_ms,
            )
        });
        payload(metrics.collect(), Some(self.seq.into()), at_ms)
    }

    fn values(&self, moment: &Moment) -> impl Iterator<Item = (&'static str, u64, f64)> {
        let (moment, reversed) = (*moment, self.reversed);
        METRICS.into_iter().enumerate().filter_map(move |(n, name)| {
            let place = if reversed { METRICS.len() - 1 - n } else { n };
            let tag = tags::find(name)?;
            Some((name, place as u64 + 1, moment.value(tag)))
        })
    }
}

fn metric(name: Option<&str>, alias: Option<u64>, kind: DataType, value: Value, at_ms: u64) -> Metric {
    let mut metric = Metric::new();
    metric.name = name.map(str::to_owned);
    metric.alias = alias;
    metric.set_datatype(kind).set_timestamp(at_ms).set_value(value);
    metric
}

fn payload(metrics: Vec<Metric>, seq: Option<u64>, at_ms: u64) -> Vec<u8> {
    Payload {
        timestamp: Some(at_ms),
        metrics,
        seq,
        ..Payload::default()
    }
    .encode_to_vec()
}

/// Whether a command asks for a birth.
fn asks_for_birth(bytes: &[u8]) -> bool {
    Payload::decode(bytes).is_ok_and(|command| {
        command.metrics.iter().any(|metric| {
            metric.name.as_deref() == Some(REBIRTH) && metric.value == Some(Value::BooleanValue(true))
        })
    })
}

/// Publishes to the broker at `host:port` until `stop`, connecting anew when the broker is lost.
pub async fn serve(plant: PlantState, (host, port): (String, u16), stop: CancellationToken) {
    let mut node = Node::default();
    while !stop.is_cancelled() {
        let mut options = MqttOptions::new(format!("foodflow-simulator-{NODE}"), host.as_str(), port);
        options.set_clean_session(true);
        options.set_last_will(LastWill::new(
            topic("NDEATH"),
            node.death(),
            QoS::AtLeastOnce,
            false,
        ));
        let (client, events) = AsyncClient::new(options, 64);
        tokio::select! {
            () = stop.cancelled() => return,
            error = publish(&plant, &mut node, &client, events) => {
                tracing::warn!(%error, %host, port, "sparkplug: no broker");
            }
        }
        node.birth_death_seq = (node.birth_death_seq + 1) % 256;
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

async fn publish(
    plant: &PlantState,
    node: &mut Node,
    client: &AsyncClient,
    mut events: EventLoop,
) -> Box<dyn std::error::Error + Send + Sync> {
    let mut tick = tokio::time::interval(plant.clock.wall(EVERY).max(WALL_EVERY_MIN));
    let mut is_born = false;
    loop {
        let moment = plant.now();
        let at_ms = plant.clock.utc_us(moment.at_us()).max(0).cast_unsigned() / 1_000;
        let message = tokio::select! {
            event = events.poll() => match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    if let Err(error) = client.try_subscribe(topic("NCMD"), QoS::AtLeastOnce) {
                        return error.into();
                    }
                    is_born = true;
                    Some(("NBIRTH", node.birth(&moment, at_ms)))
                }
                Ok(Event::Incoming(Packet::Publish(command))) if asks_for_birth(&command.payload) => {
                    Some(("NBIRTH", node.birth(&moment, at_ms)))
                }
                Ok(_) => None,
                Err(error) => return error.into(),
            },
            _ = tick.tick(), if is_born => Some(("NDATA", node.data(&moment, at_ms))),
        };
        if let Some((verb, bytes)) = message
            && let Err(error) = client.try_publish(topic(verb), QoS::AtMostOnce, false, bytes)
        {
            return error.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{plant::SECOND_US, scenario::Command};

    fn decode(bytes: &[u8]) -> Payload {
        Payload::decode(bytes).unwrap()
    }

    #[test]
    fn f12_skips_one_number_and_turns_the_aliases_round_until_a_birth_names_them_again() {
        let plant = PlantState::start(1, 1.0);
        let seconds = Some(60);
        let fault = Fault::F12;
        plant
            .scenario()
            .apply(Command::Start { fault, seconds }, 10 * SECOND_US);
        let mut node = Node::default();
        let birth = decode(&node.birth(&plant.at(0), 0));
        let alias_of = |payload: &Payload, name: &str| {
            let named = payload
                .metrics
                .iter()
                .find(|metric| metric.name.as_deref() == Some(name));
            named.unwrap().alias.unwrap()
        };
        assert_eq!((birth.seq, alias_of(&birth, "AT-408")), (Some(0), 4));
        let seqs: Vec<u64> = (8..13)
            .map(|s| decode(&node.data(&plant.at(s * SECOND_US), 0)).seq.unwrap())
            .collect();
        assert_eq!(seqs, [1, 2, 4, 5, 6]);
        // By the old birth, alias 4 is the pH: now it carries the tank's level.
        let data = decode(&node.data(&plant.at(13 * SECOND_US), 0));
        let fourth = data
            .metrics
            .iter()
            .find(|metric| metric.alias == Some(4))
            .unwrap();
        assert!(matches!(fourth.value, Some(Value::DoubleValue(level)) if level > 60.0));
        let birth = decode(&node.birth(&plant.at(14 * SECOND_US), 0));
        assert_eq!((birth.seq, alias_of(&birth, "AT-408")), (Some(0), 1));
    }

    #[test]
    fn the_will_and_the_birth_carry_the_same_number() {
        let mut node = Node {
            birth_death_seq: 7,
            ..Node::default()
        };
        let bd_seq = |payload: Payload| payload.metrics[0].value.clone();
        let death = bd_seq(decode(&node.death()));
        let birth = bd_seq(decode(&node.birth(&PlantState::start(1, 1.0).at(0), 0)));
        assert_eq!((&death, &birth), (&Some(Value::LongValue(7)), &death));
    }

    #[test]
    fn only_a_rebirth_command_that_is_true_is_obeyed() {
        let command = |value| {
            let metric = metric(
                Some(REBIRTH),
                None,
                DataType::Boolean,
                Value::BooleanValue(value),
                0,
            );
            payload(vec![metric], None, 0)
        };
        assert!(asks_for_birth(&command(true)));
        assert!(!asks_for_birth(&command(false)) && !asks_for_birth(b"\xff\xff"));
    }
}
