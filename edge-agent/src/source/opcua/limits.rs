//! How much may one request ask for? What the configuration says, what the server declares, and what was learned from
//! refusals: a request that was too large is halved and stays halved.

use std::time::Duration;

use opcua::{
    client::Session,
    types::{NodeId, StatusCode, VariableId, Variant},
};

use super::client::read_chunk;

/// Longest patience with a server whose clock stands still; see [`Learned::pulse_patience`].
const PULSE_PATIENCE_MAX: Duration = Duration::from_mins(1);

/// Most operations in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Monitored items to create or delete.
    pub items: usize,
    /// Nodes to read.
    pub reads: usize,
}

/// What the agent knows of a server beyond one session.
#[derive(Clone, Debug)]
pub struct Learned {
    items_max: usize,
    /// Grows each time that a standing clock ended a session, so that a server with a coarse clock is not
    /// left again and again.
    pub pulse_patience: Duration,
    /// The server's clock is so far from the agent's that the channel's lifetime must not be judged by it.
    pub is_skewed: bool,
}

impl Learned {
    /// Before the first session.
    pub fn new(publish: Duration) -> Self {
        Self {
            items_max: usize::MAX,
            pulse_patience: super::pulse::patience(publish),
            is_skewed: false,
        }
    }

    /// A request for this many items was too large.
    pub fn too_large(&mut self, items: usize) {
        self.items_max = (items / 2).max(1);
    }

    /// A session was ended because the server's clock stood still.
    pub fn clock_stood_still(&mut self) {
        self.pulse_patience = (self.pulse_patience * 2).min(PULSE_PATIENCE_MAX.max(self.pulse_patience));
    }

    /// The limits of a session, from what is configured and declared; a declared 0 is no limit (Part 5 §6.3.11).
    pub fn limits(&self, configured: usize, declared: Declared) -> Limits {
        let bounded = |declared: u32| match declared {
            0 => configured,
            limit => configured.min(limit as usize),
        };
        Limits {
            items: bounded(declared.items_per_call).min(self.items_max).max(1),
            reads: bounded(declared.nodes_per_read).max(1),
        }
    }
}

/// What a server declares under `ServerCapabilities.OperationLimits`; 0 where it declares nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// `MaxNodesPerRead`.
    pub nodes_per_read: u32,
    /// `MaxMonitoredItemsPerCall`.
    pub items_per_call: u32,
    /// `MaxNodesPerBrowse`.
    pub nodes_per_browse: u32,
}

/// Asks the server for its limits; a server that does not answer declares none.
pub async fn declared(session: &Session) -> Declared {
    let nodes = [
        VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
        VariableId::Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
    ];
    let mut found = [0; 3];
    for (limit, node) in found.iter_mut().zip(nodes) {
        // One by one: a server may well allow only one node a request.
        let Ok(values) = read_chunk(session, &[NodeId::from(node)]).await else {
            return Declared::default();
        };
        if let Some(Variant::UInt32(value)) = values.first().and_then(|value| value.value.as_ref()) {
            *limit = *value;
        }
    }
    Declared {
        nodes_per_read: found[0],
        items_per_call: found[1],
        nodes_per_browse: found[2],
    }
}

/// Whether a smaller request may succeed where this one failed.
pub fn is_too_large(status: StatusCode) -> bool {
    [
        StatusCode::BadTooManyOperations,
        StatusCode::BadTcpMessageTooLarge,
        StatusCode::BadRequestTooLarge,
        StatusCode::BadResponseTooLarge,
        StatusCode::BadEncodingLimitsExceeded,
    ]
    .contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_smallest_of_configured_declared_and_learned_holds() {
        let mut learned = Learned::new(SECOND);
        let declared = Declared {
            nodes_per_read: 100,
            items_per_call: 0,
            nodes_per_browse: 0,
        };
        let limits = |learned: &Learned| learned.limits(500, declared);
        assert_eq!(
            limits(&learned),
            Limits {
                items: 500,
                reads: 100
            }
        );
        learned.too_large(500);
        assert_eq!(limits(&learned).items, 250);
        learned.too_large(1);
        assert_eq!(limits(&learned).items, 1);
    }

    #[test]
    fn patience_with_a_standing_clock_grows_to_a_minute() {
        let mut learned = Learned::new(SECOND);
        for _ in 0..10 {
            learned.clock_stood_still();
        }
        assert_eq!(learned.pulse_patience, PULSE_PATIENCE_MAX);
    }
}
