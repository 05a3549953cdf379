//! Where is a message published? Every topic of the edge–hub contract, built and parsed in one place.

use std::fmt;

use crate::lane::Lane;

/// First two levels of every topic; the second is the version of the contract.
pub const ROOT: &str = "ff/v1";

/// A topic of the contract, bound to a tenant and an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Tenant slug.
    pub tenant: String,
    /// Edge name.
    pub edge: String,
    /// What is published there.
    pub channel: Channel,
}

/// What is published on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Frames of one lane, edge to hub.
    Up(Lane),
    /// The tag dictionary, edge to hub.
    Dictionary,
    /// The edge's state of health, edge to hub; also its will.
    Status,
    /// Acknowledgements, hub to edge.
    Ack,
    /// Commands, hub to edge.
    Command,
}

impl Channel {
    /// Whether an edge publishes here (and the hub subscribes), or the reverse.
    pub const fn is_uplink(self) -> bool {
        matches!(self, Self::Up(_) | Self::Dictionary | Self::Status)
    }
}

/// Whether a tenant slug or edge name may stand in a topic: 1 to 63 of `a-z 0-9 - _`, not starting with `-`.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=63).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('-')
}

impl Topic {
    /// The topic of `channel` for one edge.
    pub fn new(tenant: &str, edge: &str, channel: Channel) -> Self {
        Self {
            tenant: tenant.to_owned(),
            edge: edge.to_owned(),
            channel,
        }
    }

    /// Parses a topic name; `None` for anything outside the contract.
    pub fn parse(topic: &str) -> Option<Self> {
        let rest = topic.strip_prefix(ROOT)?.strip_prefix('/')?;
        let mut levels = rest.split('/');
        let (tenant, edge) = (levels.next()?, levels.next()?);
        if !is_name(tenant) || !is_name(edge) {
            return None;
        }
        let channel = match (levels.next()?, levels.next()) {
            ("up", Some(lane)) => Channel::Up(lane.parse().ok()?),
            ("dict", None) => Channel::Dictionary,
            ("status", None) => Channel::Status,
            ("ack", None) => Channel::Ack,
            ("cmd", None) => Channel::Command,
            _ => return None,
        };
        levels.next().is_none().then(|| Self::new(tenant, edge, channel))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tenant,
            edge,
            channel,
        } = self;
        match channel {
            Channel::Up(lane) => write!(f, "{ROOT}/{tenant}/{edge}/up/{lane}"),
            Channel::Dictionary => write!(f, "{ROOT}/{tenant}/{edge}/dict"),
            Channel::Status => write!(f, "{ROOT}/{tenant}/{edge}/status"),
            Channel::Ack => write!(f, "{ROOT}/{tenant}/{edge}/ack"),
            Channel::Command => write!(f, "{ROOT}/{tenant}/{edge}/cmd"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_parses_back_to_itself() {
        let uplinks = Lane::ALL.map(Channel::Up);
        let others = [
            Channel::Dictionary,
            Channel::Status,
            Channel::Ack,
            Channel::Command,
        ];
        for channel in uplinks.into_iter().chain(others) {
            let topic = Topic::new("akron", "akron-1", channel);
            assert_eq!(Topic::parse(&topic.to_string()), Some(topic));
        }
    }

    #[test]
    fn a_topic_outside_the_contract_is_none() {
        let strange = [
            "",
            "ff/v1",
            "ff/v1/akron/akron-1",
            "ff/v1/akron/akron-1/up",
            "ff/v1/akron/akron-1/up/fast",
            "ff/v1/akron/akron-1/up/live/x",
            "ff/v1/akron/akron-1/ack/",
            "ff/v2/akron/akron-1/ack",
            "ff/v1/+/akron-1/ack",
            "ff/v1/akron/#",
            "ff/v1/Akron/akron-1/ack",
            "ff/v1/akron//ack",
            "$SYS/x",
        ];
        for topic in strange {
            assert_eq!(Topic::parse(topic), None, "{topic}");
        }
    }
}
