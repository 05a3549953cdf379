//! Who is told what became of their frames? Each edge, in batches, after the commit.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use protocol::{
    ack::{self, ACKS_MAX, Acknowledgement, Outcome, Subject},
    topic::{Channel, Topic},
};

use crate::{
    broker::{BrokerError, Downlinks},
    kernel::tenancy::TenantSlug,
};

/// The way to the edges.
pub trait Publish: Send + Sync + 'static {
    /// Publishes `payload` on `topic`.
    fn publish(&self, topic: String, payload: Bytes) -> BoxFuture<'_, Result<(), BrokerError>>;
}

impl Publish for Downlinks {
    fn publish(&self, topic: String, payload: Bytes) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move { Self::publish(self, &topic, payload).await })
    }
}

/// Acknowledgements of one batch, by edge.
#[derive(Debug, Default)]
pub(super) struct Acks(BTreeMap<String, Vec<Acknowledgement>>);

impl Acks {
    pub(super) fn push(&mut self, edge: &str, subject: Subject, outcome: Outcome) {
        self.0
            .entry(edge.to_owned())
            .or_default()
            .push(Acknowledgement { subject, outcome });
    }

    /// Publishes them. A lost acknowledgement costs a repetition, nothing else: the edge sends again and the
    /// frame is found stored.
    pub(super) async fn publish(self, tenant: &TenantSlug, publish: &dyn Publish) {
        for (edge, acks) in self.0 {
            let topic = Topic::new(tenant.as_str(), &edge, Channel::Ack).to_string();
            for some in acks.chunks(ACKS_MAX) {
                let sent = publish.publish(topic.clone(), ack::encode(some).into()).await;
                if let Err(error) = sent {
                    metrics::counter!("foodflow_ingest_acks_lost_total").increment(some.len() as u64);
                    tracing::warn!(%topic, %error, "acknowledgements could not be published");
                }
            }
        }
    }
}
