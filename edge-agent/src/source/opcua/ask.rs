//! What is the value of nodes that were silent? Reads them, in requests that the server accepts and within a period,
//! and tells an answer from a live server from one of a server that stands still.

use std::{sync::Arc, time::Duration};

use opcua::{
    client::Session,
    types::{DataValue, NodeId, VariableId, Variant},
};
use protocol::{Micros, Quality, Reading};

use super::{
    client::{self, Namespaces},
    config::NodePlan,
    decode, items,
    pulse::Pulse,
};
use crate::clock;

/// Limits of how long an answer may take: one period of the fastest node, within these.
const WITHIN_MIN: Duration = Duration::from_millis(500);

/// A session that can be asked.
pub struct Connection {
    /// The session.
    pub session: Arc<Session>,
    /// The server's namespaces.
    pub namespaces: Arc<Namespaces>,
    /// Most nodes in one request.
    pub reads_max: usize,
}

/// Who is asked for what.
#[derive(Debug)]
pub struct Question {
    /// The session.
    pub connection: Arc<Connection>,
    /// The namespace of nodes that name none.
    pub namespace_uri: String,
    /// The silent nodes.
    pub plans: Vec<NodePlan>,
    /// What was last heard of the server's clock,
    pub pulse: Pulse,
    /// and how long before the question.
    pub pulse_silent_for: Duration,
    /// How long the clock may stand still.
    pub patience: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("namespaces", &self.namespaces)
            .field("reads_max", &self.reads_max)
            .finish_non_exhaustive()
    }
}

impl Question {
    /// One reading for each node. A value that the server gives when asked is current even if its source time is
    /// old, so it gets the present time.
    pub async fn ask(self) -> Vec<Reading> {
        let shortest = self.plans.iter().map(|plan| plan.period).min();
        let within = shortest
            .unwrap_or(client::REQUEST_WITHIN)
            .clamp(WITHIN_MIN, client::REQUEST_WITHIN);
        match tokio::time::timeout(within, self.answers()).await {
            Ok(readings) => readings,
            Err(_) => self.all_bad(Quality::BAD_TIMEOUT),
        }
    }

    fn all_bad(&self, reason: Quality) -> Vec<Reading> {
        let now_us = clock::now_us();
        let bad = |plan: &NodePlan| Reading::bad(plan.alias, now_us, reason);
        self.plans.iter().map(bad).collect()
    }

    async fn answers(&self) -> Vec<Reading> {
        if self.pulse_silent_for >= self.patience && self.is_frozen().await {
            return self.all_bad(Quality::BAD_COMMUNICATION);
        }
        let mut readings = Vec::with_capacity(self.plans.len());
        for chunk in self.plans.chunks(self.connection.reads_max) {
            readings.extend(self.read(chunk).await);
        }
        readings
    }

    /// Whether the server's clock still stands where it stood when it was last heard.
    async fn is_frozen(&self) -> bool {
        let clock_node = NodeId::from(VariableId::Server_ServerStatus_CurrentTime);
        let read = client::read_chunk(&self.connection.session, &[clock_node]).await;
        let time = read.ok().and_then(|values| values.into_iter().next()?.value);
        match time {
            Some(Variant::DateTime(time)) => self.pulse.stands_at(*time),
            _ => false,
        }
    }

    async fn read(&self, plans: &[NodePlan]) -> Vec<Reading> {
        let Connection {
            session, namespaces, ..
        } = self.connection.as_ref();
        let nodes: Vec<Option<NodeId>> = plans
            .iter()
            .map(|plan| items::node_id(namespaces, &self.namespace_uri, plan))
            .collect();
        let known: Vec<NodeId> = nodes.iter().flatten().cloned().collect();
        let values = if known.is_empty() {
            Vec::new()
        } else {
            match client::read_chunk(session, &known).await {
                Ok(values) => values,
                Err(error) => {
                    tracing::debug!(%error, "silent nodes could not be read");
                    let now_us = clock::now_us();
                    let bad = |plan: &NodePlan| Reading::bad(plan.alias, now_us, Quality::BAD_TIMEOUT);
                    return plans.iter().map(bad).collect();
                }
            }
        };
        let now_us = clock::now_us();
        let mut values = values.into_iter();
        plans
            .iter()
            .zip(nodes)
            .map(|(plan, node)| {
                let value = node.and_then(|_| values.next());
                value.map_or_else(
                    || Reading::bad(plan.alias, now_us, Quality::BAD_ADDRESS),
                    |value| current(plan, &value, now_us),
                )
            })
            .collect()
    }
}

fn current(plan: &NodePlan, value: &DataValue, now_us: Micros) -> Reading {
    let mut reading = decode::reading(plan.alias, value, 0, now_us);
    reading.time_us = now_us;
    reading
}
