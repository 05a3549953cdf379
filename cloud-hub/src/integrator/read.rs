//! What does one message of an integrator say? The dialects by `protocol::integrator`, Sparkplug by the client's own
//! host. No database, no sockets.

use bytes::Bytes;
use protocol::{
    Micros,
    integrator::{Code, Dialect, Discovery, Fact, Message, Received, Refused, announced, facts, understand},
    sparkplug::{
        NAMESPACE, Outgoing,
        host::{Effect, Host},
    },
};
use tokio::sync::oneshot;

use crate::broker::{OpenMessage, Settled, without_tenant};

/// Values of a device that went away.
#[derive(Debug)]
pub(super) struct Stale {
    pub(super) device: String,
    pub(super) names: Vec<String>,
    /// When it went.
    pub(super) at_us: Micros,
}

/// A message, read.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Who sent it.
    pub(super) client: String,
    /// Its topic, without the tenant.
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) received_us: Micros,
    /// How it is written.
    pub(super) dialect: &'static str,
    pub(super) facts: Vec<Fact>,
    pub(super) refused: Vec<Refused>,
    /// Devices that came or went.
    pub(super) presence: Vec<(String, bool)>,
    /// Values that were announced: device, name, what was said of it.
    pub(super) announced: Vec<(String, String, Discovery)>,
    /// Alarms raised (with a text) or cleared: device, name, text.
    pub(super) alarms: Vec<(String, String, Option<String>)>,
    /// Values that are stale.
    pub(super) stale: Vec<Stale>,
    /// To be published.
    pub(super) asks: Vec<Outgoing>,
    /// Who waits for what becomes of it.
    pub(super) settled: Option<oneshot::Sender<Settled>>,
    /// Who wants to be told of every value.
    pub(super) answer: Option<oneshot::Sender<serde_json::Value>>,
}

impl Said {
    /// Whether nothing of it can be taken.
    pub(super) fn is_refused_whole(&self) -> bool {
        let says_nothing = self.facts.is_empty()
            && self.presence.is_empty()
            && self.announced.is_empty()
            && self.alarms.is_empty()
            && self.stale.is_empty();
        says_nothing && !self.refused.is_empty()
    }

    /// What a host made of a message.
    pub(super) fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Readings { items, .. } => {
                    let received = Received {
                        client: &self.client,
                        topic: &self.topic,
                        payload: &[],
                        is_retained: false,
                        received_us: self.received_us,
                    };
                    let (facts, refused) = facts(items, &received);
                    self.facts.extend(facts);
                    self.refused.extend(refused);
                }
                Effect::Born { path } => self.presence.push((path, true)),
                Effect::Stale {
                    path: device,
                    metrics: names,
                    at_us,
                } => {
                    self.presence.push((device.clone(), false));
                    self.stale.push(Stale { device, names, at_us });
                }
                Effect::Ask(outgoing) => self.asks.push(outgoing),
                Effect::Refused(refused) => self.refused.push(refused),
                Effect::Ignored { why } => {
                    tracing::debug!(client = self.client, topic = self.topic, why, "ignored");
                }
            }
        }
    }

    fn announce(&mut self, discovery: Discovery) {
        if let Some((device, name)) = announced(&discovery, &self.client) {
            self.announced.push((device, name, discovery));
        } else {
            let hint = "no dialect reads values from its `state_topic`";
            let refused = Refused::new(Code::BadTopic, hint, &discovery.state_topic);
            self.refused.push(refused);
        }
    }

    fn take(&mut self, message: Message) {
        let client = self.client.clone();
        let device = |device: Option<String>| device.unwrap_or_else(|| client.clone());
        match message {
            Message::Presence {
                device: named,
                is_online,
            } => self.presence.push((device(named), is_online)),
            Message::Alarm {
                device: named,
                name,
                text,
            } => self.alarms.push((device(named), name, text)),
            Message::Discovery(discovery) => self.announce(discovery),
            Message::Readings(_) | Message::Other => {}
        }
    }
}

/// The name of a dialect in configurations and answers.
fn dialect_name(dialect: Dialect) -> &'static str {
    let found = Dialect::ALL.iter().find(|(_, known)| *known == dialect);
    found.map_or("unknown", |(name, _)| *name)
}

/// Whether a topic begins with another tenant's name: `NAME/v1/…`.
fn is_anothers(topic: &str, tenant: &str) -> bool {
    let mut levels = topic.split('/');
    let (first, second, third) = (levels.next(), levels.next(), levels.next());
    first.is_some_and(|first| first != tenant && first != "umh" && !first.is_empty())
        && second == Some("v1")
        && third.is_some()
}

/// Reads a message, as a message of `dialect` where that is known.
pub(super) fn read(
    message: OpenMessage,
    dialect: Option<Dialect>,
    host: &mut Host,
    received_us: Micros,
) -> Said {
    let OpenMessage {
        device,
        topic,
        payload,
        settled,
        is_retained,
    } = message;
    let mut said = Said {
        topic: without_tenant(&topic, &device.tenant).to_owned(),
        client: device.name,
        payload,
        received_us,
        dialect: "unknown",
        settled: Some(settled),
        ..Said::default()
    };
    if is_anothers(&said.topic, &device.tenant) {
        let hint = format!(
            "a topic begins with `v1/` or with your tenant's name, `{}/v1/`: whose it is, your credentials say",
            device.tenant
        );
        said.refused
            .push(Refused::new(Code::NotYourTopic, hint, &said.topic));
        return said;
    }
    if dialect.is_none()
        && said
            .topic
            .strip_prefix(NAMESPACE)
            .is_some_and(|rest| rest.starts_with('/'))
    {
        said.dialect = "sparkplug";
        let effects = host.hear(&said.topic, &said.payload, received_us);
        said.apply(effects);
        return said;
    }
    let received = Received {
        client: &said.client,
        topic: &said.topic,
        payload: &said.payload,
        is_retained,
        received_us,
    };
    match understand(dialect, &received) {
        Ok(understood) => {
            said.dialect = dialect_name(understood.dialect);
            (said.facts, said.refused) = (understood.facts, understood.refused);
            if let Some(message) = understood.message {
                said.take(message);
            }
        }
        Err(refused) => said.refused.push(refused),
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Device;

    fn said(topic: &str, payload: &str) -> Said {
        let message = OpenMessage {
            device: Device {
                tenant: "akron".to_owned(),
                name: "press-7".to_owned(),
            },
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            is_retained: false,
            settled: oneshot::channel().0,
        };
        read(message, None, &mut Host::default(), 1_795_168_800_000_000)
    }

    #[test]
    fn a_topic_with_another_tenants_name_is_refused_and_ones_own_name_may_be_left_out() {
        for (topic, payload) in [("v1/plant/l1/oven/t", "4.1"), ("akron/v1/plant/l1/oven/t", "4.1")] {
            let said = said(topic, payload);
            assert_eq!(
                (said.facts[0].device.as_str(), said.facts[0].name.as_str()),
                ("oven", "t")
            );
        }
        let foreign = said("cuyahoga/v1/plant/l1/oven/t", "4.1");
        assert!(foreign.facts.is_empty());
        assert_eq!(foreign.refused[0].code, Code::NotYourTopic);
        assert!(foreign.is_refused_whole());
        assert!(
            said(
                "umh/v1/acme/akron/_historian/t",
                "{\"value\":1,\"timestamp_ms\":1795168800000}"
            )
            .refused
            .is_empty()
        );
    }

    #[test]
    fn status_words_are_presence_and_never_errors() {
        for topic in [
            "v1/plant/l1/oven/status",
            "tele/oven/LWT",
            "zigbee2mqtt/oven/availability",
        ] {
            let said = said(topic, "offline");
            assert_eq!(said.presence, [("oven".to_owned(), false)], "{topic}");
            assert!(said.refused.is_empty());
        }
    }
}
