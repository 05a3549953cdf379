//! How do the oven's tray cores come over MQTT? A gateway beside line 3's PLC publishes them with the PLC's times, and
//! what it had to keep back (F11) it hands over message by message with the times at which it was measured. OPC UA has no
//! word for that: there a replayed value looks like one of a clock that is behind.

use std::{collections::VecDeque, time::Duration};

use rumqttc::{AsyncClient, EventLoop, MqttOptions, QoS};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    fault::Fault,
    plant::MINUTE_US,
    state::{Moment, PlantState},
    tags,
};

/// The tag that goes this way.
pub const TAG: &str = "TT-310";
/// Where it is published.
pub const TOPIC: &str = "foodflow/v1/akron/L3/oven/telemetry";
/// Published so often in wall time at the most.
pub const WALL_EVERY_MIN: Duration = Duration::from_millis(100);
/// How often a value is kept while none can be handed over.
const KEPT_EVERY_US: i64 = MINUTE_US;
/// Messages that wait for the broker; of the kept ones no more are handed over at once.
const CHANNEL: usize = 256;
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// What a device keeps back while F11 acts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Buffer {
    /// Since when it keeps values back.
    since_us: Option<i64>,
    /// Times of values that it has still to hand over.
    pending: VecDeque<i64>,
}

/// What is to be published now.
#[derive(Debug, PartialEq)]
pub(super) enum Publish {
    /// What the plant shows.
    Live,
    /// These old values; none while values are only being kept.
    Late(Vec<i64>),
}

impl Buffer {
    /// What is due at `now_us`, with at most `at_once` kept values.
    pub(super) fn step(&mut self, kept_since_us: Option<i64>, now_us: i64, at_once: usize) -> Publish {
        if kept_since_us.is_some() {
            self.since_us = kept_since_us;
            return Publish::Late(Vec::new());
        }
        if let Some(since_us) = self.since_us.take() {
            let times = (1..).map(|n| since_us + n * KEPT_EVERY_US);
            self.pending.extend(times.take_while(|at_us| *at_us <= now_us));
        }
        if self.pending.is_empty() {
            return Publish::Live;
        }
        let count = at_once.min(self.pending.len());
        Publish::Late(self.pending.drain(..count).collect())
    }
}

/// Publishes to the broker at `host:port` until `stop`, connecting anew when the broker is lost.
pub async fn serve(plant: PlantState, (host, port): (String, u16), stop: CancellationToken) {
    let mut buffer = Buffer::default();
    while !stop.is_cancelled() {
        let mut options = MqttOptions::new("foodflow-simulator-oven", host.as_str(), port);
        options.set_clean_session(true);
        let (client, events) = AsyncClient::new(options, CHANNEL);
        tokio::select! {
            () = stop.cancelled() => return,
            error = publish(&plant, &mut buffer, &client, events) => {
                tracing::warn!(%error, %host, port, "oven gateway: no broker");
            }
        }
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

async fn publish(
    plant: &PlantState,
    buffer: &mut Buffer,
    client: &AsyncClient,
    mut events: EventLoop,
) -> Box<dyn std::error::Error + Send + Sync> {
    let period_ms = tags::find(TAG).map_or(1_000, |tag| tag.period_ms);
    let every = plant.clock.wall(Duration::from_millis(period_ms.into()));
    let mut tick = tokio::time::interval(every.max(WALL_EVERY_MIN));
    loop {
        tokio::select! {
            event = events.poll() => {
                if let Err(error) = event {
                    return error.into();
                }
            }
            _ = tick.tick() => {
                for payload in due(plant, buffer) {
                    if let Err(error) = client.try_publish(TOPIC, QoS::AtLeastOnce, false, payload) {
                        return error.into();
                    }
                }
            }
        }
    }
}

/// The messages that are due now.
fn due(plant: &PlantState, buffer: &mut Buffer) -> Vec<String> {
    let now = plant.now();
    let moments = match buffer.step(now.since_us(Fault::F11), now.at_us(), CHANNEL / 2) {
        Publish::Live => vec![now],
        Publish::Late(times) => times.into_iter().map(|at_us| plant.at(at_us)).collect(),
    };
    moments
        .iter()
        .filter_map(|moment| message(plant, moment))
        .collect()
}

/// One value with its time, UTC microseconds. Instruments resolve thousandths.
fn message(plant: &PlantState, moment: &Moment) -> Option<String> {
    let value = (moment.value(tags::find(TAG)?) * 1_000.0).round() / 1_000.0;
    let ts = plant.clock.utc_us(moment.at_us());
    Some(json!({ "ts": ts, "values": { TAG: value } }).to_string())
}

#[cfg(test)]
mod tests {
    use protocol::integrator::{Dialect, parse};

    use super::*;

    #[test]
    fn what_was_kept_back_is_handed_over_in_order_and_then_the_tag_is_live_again() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.step(None, 0, 2), Publish::Live);
        let since_us = Some(5 * MINUTE_US);
        assert_eq!(buffer.step(since_us, 7 * MINUTE_US, 2), Publish::Late(Vec::new()));
        let now_us = 8 * MINUTE_US + 30_000_000;
        let minutes = |buffer: &mut Buffer| match buffer.step(None, now_us, 2) {
            Publish::Late(times) => times.iter().map(|us| us / MINUTE_US).collect(),
            Publish::Live => Vec::new(),
        };
        assert_eq!(minutes(&mut buffer), [6, 7]);
        assert_eq!(minutes(&mut buffer), [8]);
        assert_eq!(buffer.step(None, now_us, 2), Publish::Live);
    }

    #[test]
    fn a_message_is_of_the_native_dialect_and_bears_the_time_of_its_value() {
        let plant = PlantState::start(1, 100.0);
        let text = message(&plant, &plant.at(90 * MINUTE_US)).unwrap();
        let parsed = parse(Dialect::Native, TOPIC, text.as_bytes());
        assert!(parsed.is_ok(), "{parsed:?}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["ts"].as_i64(), Some(plant.clock.utc_us(90 * MINUTE_US)));
    }
}
