//! What does a Sparkplug host make of what edge nodes publish? Births name metrics and their aliases, a gap in the
//! sequence waits for its missing message and then asks for everything anew, a death makes values stale. Pure: topic,
//! bytes and times in, effects out. What an alias means is known from the newest birth alone, or not at all.

mod birth;
mod node;
mod state;
mod value;

use std::collections::BTreeMap;

use self::node::{Heard, Node};
use super::{NAMESPACE, Outgoing, decode, is_name};
use crate::{
    Micros,
    integrator::{Code, Item, Refused},
};

pub use self::state::HostSelf;

/// Most edge nodes that one host follows.
pub const NODES_MAX: usize = 1_000;
/// Most metrics of an edge node and its devices together.
pub const METRICS_MAX: usize = 20_000;
/// Most messages of a node that wait for a missing one: with more the gap is given up at once.
const HELD_MAX: usize = 100;

/// How patient a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a missing message is waited for, in microseconds (tck-id-operational-behavior-host-reordering-param).
    pub reorder_us: Micros,
    /// A node is not asked for its birth more often than this, in microseconds.
    pub rebirth_us: Micros,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            reorder_us: 2_000_000,
            rebirth_us: 5_000_000,
        }
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node is there: every metric it will ever have.
    NodeBirth,
    /// Values of a node.
    NodeData,
    /// A node is gone.
    NodeDeath,
    /// A device of a node is there.
    DeviceBirth,
    /// Values of a device.
    DeviceData,
    /// A device is gone.
    DeviceDeath,
    /// A request of a host, to a node or a device.
    Command,
}

/// A topic, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group.
    pub group: String,
    /// What the message is.
    pub kind: Kind,
    /// The edge node.
    pub node: String,
    /// The device, for messages of devices.
    pub device: Option<String>,
}

impl Place {
    /// Takes a topic apart; none for anything that is no message of an edge node.
    pub fn parse(topic: &str) -> Option<Self> {
        let mut levels = topic.split('/');
        if levels.next()? != NAMESPACE {
            return None;
        }
        let (group, kind, node, device) = (levels.next()?, levels.next()?, levels.next()?, levels.next());
        let kind = match (kind, device.is_some()) {
            ("NBIRTH", false) => Kind::NodeBirth,
            ("NDATA", false) => Kind::NodeData,
            ("NDEATH", false) => Kind::NodeDeath,
            ("DBIRTH", true) => Kind::DeviceBirth,
            ("DDATA", true) => Kind::DeviceData,
            ("DDEATH", true) => Kind::DeviceDeath,
            ("NCMD", false) | ("DCMD", true) => Kind::Command,
            _ => return None,
        };
        let is_whole = levels.next().is_none()
            && [Some(group), Some(node), device]
                .into_iter()
                .flatten()
                .all(is_name);
        is_whole.then(|| Self {
            group: group.to_owned(),
            kind,
            node: node.to_owned(),
            device: device.map(str::to_owned),
        })
    }

    /// `GROUP/NODE` or `GROUP/NODE/DEVICE`: how readings name where they come from.
    pub fn path(&self) -> String {
        path(&self.group, &self.node, self.device.as_deref())
    }
}

fn path(group: &str, node: &str, device: Option<&str>) -> String {
    match device {
        Some(device) => format!("{group}/{node}/{device}"),
        None => format!("{group}/{node}"),
    }
}

/// What follows from what was heard.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Values; `device` of every item is a [`Place::path`].
    Readings {
        /// The values, in the order in which they were sent.
        items: Vec<Item>,
        /// Values from before: they are no news of the present.
        is_historical: bool,
    },
    /// A node or a device is there.
    Born {
        /// Its [`Place::path`].
        path: String,
    },
    /// A node or a device is gone; what its metrics said last is stale from now on.
    Stale {
        /// Its [`Place::path`].
        path: String,
        /// The metrics that are stale.
        metrics: Vec<String>,
        /// When it was known; of a device whose node said that it died: when that was.
        at_us: Micros,
    },
    /// To be published: the node is asked for its birth.
    Ask(Outgoing),
    /// A message, or part of one, that says nothing we may believe.
    Refused(Refused),
    /// A death of an earlier connection (its `bdSeq` is not the birth's), or a message that came before: it changes nothing.
    Ignored {
        /// For the log.
        why: &'static str,
    },
}

/// One host over all edge nodes of a tenant.
#[derive(Debug, Default)]
pub struct Host {
    patience: Patience,
    nodes: BTreeMap<(String, String), Node>,
}

impl Host {
    /// A host that has heard nothing yet.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            nodes: BTreeMap::new(),
        }
    }

    /// Takes a message of an edge node.
    pub fn hear(&mut self, topic: &str, payload: &[u8], received_us: Micros) -> Vec<Effect> {
        let Some(place) = Place::parse(topic) else {
            let hint = "Sparkplug's topics are spBv1.0/<group>/<NBIRTH|NDATA|NDEATH>/<node> and …/<DBIRTH|DDATA|DDEATH>/<node>/<device>";
            return vec![refused(Code::BadTopic, hint, topic)];
        };
        if place.kind == Kind::Command {
            let hint = "commands are the host's to publish, not a device's";
            return vec![refused(Code::NotYourTopic, hint, topic)];
        }
        let payload = match decode(payload) {
            Ok(payload) => payload,
            Err(why) => return vec![refused(Code::BadPayload, why, "")],
        };
        let key = (place.group.clone(), place.node.clone());
        if !self.nodes.contains_key(&key) && self.nodes.len() >= NODES_MAX {
            let hint = format!("{NODES_MAX} edge nodes are known here already");
            return vec![refused(Code::TooManyTags, hint, &place.path())];
        }
        let node = self.nodes.entry(key).or_default();
        let mut out = Vec::new();
        node.hear(
            Heard {
                place,
                payload,
                received_us,
            },
            self.patience,
            &mut out,
        );
        out
    }

    /// Time passes: gaps that were waited for long enough are given up.
    pub fn tick(&mut self, now_us: Micros) -> Vec<Effect> {
        let mut out = Vec::new();
        for ((group, node), state) in &mut self.nodes {
            state.tick((group, node), now_us, self.patience, &mut out);
        }
        out
    }

    /// When [`Host::tick`] has something to do; none: never, as things stand.
    pub fn due_us(&self) -> Option<Micros> {
        let waiting = self.nodes.values().filter_map(Node::waiting_since);
        waiting
            .min()
            .map(|since| since.saturating_add(self.patience.reorder_us))
    }

    /// Whether a node or a device is there; none when it was never heard of.
    pub fn is_online(&self, group: &str, node: &str, device: Option<&str>) -> Option<bool> {
        self.nodes
            .get(&(group.to_owned(), node.to_owned()))?
            .is_online(device)
    }

    /// The connection over which the nodes spoke was lost: they are stale, whatever they meant to say.
    pub fn lost(&mut self, at_us: Micros) -> Vec<Effect> {
        let mut out = Vec::new();
        for ((group, node), state) in &mut self.nodes {
            state.die((group, node), at_us, &mut out);
        }
        out
    }
}

fn refused(code: Code, hint: impl Into<String>, sample: &str) -> Effect {
    Effect::Refused(Refused::new(code, hint, sample))
}

/// What asks a node for its birth (tck-id-operational-behavior-data-commands-ncmd-rebirth-verb).
pub fn rebirth(group: &str, node: &str, now_us: Micros) -> Outgoing {
    use srad_types::payload::{DataType, Metric, Payload, metric};
    let mut metric = Metric::new();
    metric
        .set_name("Node Control/Rebirth".to_owned())
        .set_datatype(DataType::Boolean)
        .set_timestamp(super::milliseconds(now_us))
        .set_value(metric::Value::BooleanValue(true));
    let payload = Payload {
        timestamp: Some(super::milliseconds(now_us)),
        metrics: vec![metric],
        ..Payload::default()
    };
    Outgoing {
        topic: format!("{NAMESPACE}/{group}/NCMD/{node}"),
        payload: payload.into(),
        is_acknowledged: false,
    }
}
