//! What does a host say of itself? Online and offline on its own topic, retained; and online again when somebody says
//! that it is offline while it is not.

use super::super::{HostState, Outgoing, is_name, milliseconds, state_topic};
use crate::Micros;

/// What a host says of itself over one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSelf {
    topic: String,
    /// The same in will and birth (tck-id-host-topic-phid-birth-payload-timestamp).
    timestamp: u64,
}

impl HostSelf {
    /// A host that is about to connect; none when its name cannot stand in a topic.
    pub fn new(host: &str, now_us: Micros) -> Option<Self> {
        is_name(host).then(|| Self {
            topic: state_topic(host),
            timestamp: milliseconds(now_us),
        })
    }

    /// The topic of its state; to be subscribed to as well (tck-id-host-topic-phid-birth-sub-required).
    pub fn topic(&self) -> &str {
        &self.topic
    }

    fn say(&self, online: bool, timestamp: u64) -> Outgoing {
        Outgoing {
            topic: self.topic.clone(),
            payload: format!("{{\"online\":{online},\"timestamp\":{timestamp}}}").into_bytes(),
            is_acknowledged: true,
        }
    }

    /// The will, retained: what is said when the connection is lost.
    pub fn will(&self) -> Outgoing {
        self.say(false, self.timestamp)
    }

    /// The birth, retained: what is said first.
    pub fn birth(&self) -> Outgoing {
        self.say(true, self.timestamp)
    }

    /// The death, retained: what is said before leaving on purpose, with a time of its own.
    pub fn death(&self, now_us: Micros) -> Outgoing {
        self.say(false, milliseconds(now_us).max(self.timestamp))
    }

    /// What somebody said on this host's topic. That it is offline, while it is not, is answered with the birth again:
    /// its time stays the will's (tck-id-message-flow-hid-sparkplug-state-message-delivered).
    pub fn heard(&self, topic: &str, payload: &[u8]) -> Option<Outgoing> {
        let said: HostState = serde_json::from_slice(payload).ok()?;
        (topic == self.topic && !said.online).then(|| self.birth())
    }
}
