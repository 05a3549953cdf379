//! When is a command sent, and how often? As soon as its edge is connected here and says so, in the order given, and
//! again every 30 seconds and at every new connection, until its answer is stored or it is too old. What is to be
//! sent is in the database: a hub that starts anew goes on where the last one was.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use protocol::topic::{Channel, Topic};
use sqlx::FromRow;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    app::App,
    broker::{Device, Sessions},
    ingest::Publish,
    kernel::tenancy::{TenancyError, TenantSlug},
    series::bus::{LiveEvent, LiveKind},
    tenant::provision,
};

/// How often what is due is looked for without any news.
const TURN: Duration = Duration::from_secs(10);
/// An edge that did not answer within this time is sent the command again.
const REPEAT_AFTER: Duration = Duration::from_secs(30);
/// News that comes in close succession is dealt with at once.
const GATHER: Duration = Duration::from_millis(50);
/// Commands that one edge is sent at a time: one that is never answered holds up only so many.
const WINDOW: usize = 16;

/// A command that is neither answered nor too old.
#[derive(Debug, FromRow)]
struct Open {
    id: Uuid,
    edge: String,
}

/// Sends until `stop` is cancelled.
pub async fn run(app: App, publish: Arc<dyn Publish>, sessions: Sessions, stop: CancellationToken) {
    let mut news = app.live.subscribe();
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut dispatch = Dispatch {
        app,
        publish,
        sessions,
        sent: HashMap::new(),
    };
    loop {
        let whose = tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => None,
            tenant = told(&mut news) => tenant,
        };
        let tenants = match whose {
            None => dispatch.everybody().await,
            Some(first) => {
                sleep(GATHER).await;
                let mut tenants = HashSet::from([first]);
                while let Ok(event) = news.try_recv() {
                    tenants.extend(edge_of(&event));
                }
                tenants
            }
        };
        for tenant in tenants {
            if let Err(error) = dispatch.turn(&tenant).await {
                tracing::warn!(%tenant, %error, "commands wait for the database");
            }
        }
    }
}

/// Whose edge there is news of; none when news was missed, so that everybody's must be looked at.
async fn told(news: &mut Receiver<Arc<LiveEvent>>) -> Option<TenantSlug> {
    loop {
        match news.recv().await {
            Ok(event) => {
                if let Some(tenant) = edge_of(&event) {
                    return Some(tenant);
                }
            }
            Err(RecvError::Lagged(_)) => return None,
            // The bus lives as long as the hub: only the turns are left then.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn edge_of(event: &LiveEvent) -> Option<TenantSlug> {
    matches!(event.kind, LiveKind::Edge { .. }).then(|| event.tenant.clone())
}

/// In which session a command was last sent, and when.
#[derive(Clone, Copy, Debug)]
struct Sending {
    session: u64,
    at: Instant,
}

impl Sending {
    /// Whether it is sent again in this session.
    fn is_due(self, session: u64, now: Instant) -> bool {
        self.session != session || now.duration_since(self.at) >= REPEAT_AFTER
    }
}

struct Dispatch {
    app: App,
    publish: Arc<dyn Publish>,
    sessions: Sessions,
    sent: HashMap<Uuid, Sending>,
}

impl Dispatch {
    /// Every tenant, whose commands are looked at for their age too.
    async fn everybody(&mut self) -> HashSet<TenantSlug> {
        let tenants = provision::tenant_slugs(&self.app.db)
            .await
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "commands wait for the database");
                Vec::new()
            });
        self.sent.retain(|_, sending| sending.at.elapsed() < REPEAT_AFTER);
        for tenant in &tenants {
            if let Err(error) = self.expire(tenant).await {
                tracing::warn!(%tenant, %error, "the age of commands could not be looked at");
            }
        }
        tenants.into_iter().collect()
    }

    async fn expire(&self, tenant: &TenantSlug) -> Result<(), TenancyError> {
        let mut tx = self.app.db.begin(tenant).await?;
        sqlx::query(
            "UPDATE edge_command SET state = 'expired' WHERE state IN ('waiting', 'sent') AND expires_at <= $1",
        )
        .bind(self.app.clock.now())
        .execute(tx.conn())
        .await?;
        tx.commit_unaudited("that nobody answered in time follows from the record and the clock")
            .await
    }

    /// Sends what is due to the edges of one tenant that are connected here.
    async fn turn(&mut self, tenant: &TenantSlug) -> Result<(), TenancyError> {
        let connected: HashMap<String, u64> = self
            .sessions
            .connected()
            .into_iter()
            .filter(|(device, _)| device.tenant == tenant.as_str())
            .map(|(Device { name, .. }, session)| (name, session))
            .collect();
        if connected.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let due = self.due(tenant, &connected, now).await?;
        let mut sent = Vec::new();
        for (open, payload) in due {
            let topic = Topic::new(tenant.as_str(), &open.edge, Channel::Command).to_string();
            if let Err(error) = self.publish.publish(topic, payload.into()).await {
                tracing::warn!(%tenant, edge = open.edge, %error, "a command could not be published");
                // What comes later is not sent before it.
                break;
            }
            let session = connected.get(&open.edge).copied().unwrap_or_default();
            self.sent.insert(open.id, Sending { session, at: now });
            sent.push(open.id);
        }
        self.note(tenant, &sent, self.app.clock.now()).await
    }

    async fn due(
        &self,
        tenant: &TenantSlug,
        connected: &HashMap<String, u64>,
        now: Instant,
    ) -> Result<Vec<(Open, Vec<u8>)>, TenancyError> {
        let names: Vec<&String> = connected.keys().collect();
        let mut tx = self.app.db.begin(tenant).await?;
        let open: Vec<Open> = sqlx::query_as(
            "SELECT c.id, e.name AS edge FROM edge_command c JOIN edge e ON e.id = c.edge_id \
             WHERE c.state IN ('waiting', 'sent') AND (c.expires_at IS NULL OR c.expires_at > $1) \
               AND e.name = ANY($2) AND e.revoked_at IS NULL ORDER BY c.number",
        )
        .bind(self.app.clock.now())
        .bind(names)
        .fetch_all(tx.conn())
        .await?;
        let mut windows: HashMap<String, usize> = HashMap::new();
        let mut due = Vec::new();
        for command in open {
            let place = windows.entry(command.edge.clone()).or_default();
            *place += 1;
            let session = connected.get(&command.edge).copied().unwrap_or_default();
            let is_due = |sending: &Sending| sending.is_due(session, now);
            if *place > WINDOW || !self.sent.get(&command.id).is_none_or(is_due) {
                continue;
            }
            let payload: Vec<u8> = sqlx::query_scalar("SELECT payload FROM edge_command WHERE id = $1")
                .bind(command.id)
                .fetch_one(tx.conn())
                .await?;
            due.push((command, payload));
        }
        Ok(due)
    }

    async fn note(&self, tenant: &TenantSlug, sent: &[Uuid], at: DateTime<Utc>) -> Result<(), TenancyError> {
        if sent.is_empty() {
            return Ok(());
        }
        metrics::counter!("foodflow_edge_commands_sent_total").increment(sent.len() as u64);
        let mut tx = self.app.db.begin(tenant).await?;
        sqlx::query(
            "UPDATE edge_command SET attempts = attempts + 1, sent_at = $2, \
               state = CASE WHEN state = 'waiting' THEN 'sent' ELSE state END WHERE id = ANY($1)",
        )
        .bind(sent)
        .bind(at)
        .execute(tx.conn())
        .await?;
        tx.commit_unaudited("how often a command was sent is no deed")
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_repeated_after_its_time_and_at_once_in_a_new_session() {
        let at = Instant::now();
        let sending = Sending { session: 7, at };
        assert!(!sending.is_due(7, at + Duration::from_secs(29)));
        assert!(sending.is_due(7, at + REPEAT_AFTER));
        assert!(sending.is_due(8, at + Duration::from_millis(1)));
    }
}
