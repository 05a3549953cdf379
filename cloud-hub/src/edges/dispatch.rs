//! When is a command sent, and how often? As soon as its edge is connected here and says so, in the order given, and
//! again every 30 seconds and at every new connection, until its answer is stored or it is too old. What is to be
//! sent is in the database, and so is who sent it: a hub that starts anew goes on where the last one was, and of several
//! hubs that reach an edge one sends.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use protocol::topic::{Channel, Topic};
use sqlx::FromRow;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{MissedTickBehavior, interval, sleep},
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
    sent_in: Option<String>,
    /// Whether it was sent so long ago that the edge is asked again.
    is_late: bool,
}

/// A command that this hub is to send.
#[derive(Debug, FromRow)]
struct Claimed {
    id: Uuid,
    edge: String,
    payload: Vec<u8>,
}

/// Of several hubs one sends. Whoever comes second finds it sent in the same session, or a moment ago.
const CLAIM: &str = "
WITH claimed AS (
    UPDATE edge_command c SET attempts = c.attempts + 1, sent_at = now(), sent_in = n.session,
        state = CASE WHEN c.state = 'waiting' THEN 'sent' ELSE c.state END
    FROM unnest($1::uuid[], $2::text[]) AS n (id, session)
    WHERE c.id = n.id AND c.state IN ('waiting', 'sent')
        AND (c.sent_at IS NULL OR c.sent_in IS DISTINCT FROM n.session OR c.sent_at <= now() - $3::interval)
    RETURNING c.id, c.number, c.edge_id, c.payload)
SELECT k.id, e.name AS edge, k.payload FROM claimed k JOIN edge e ON e.id = k.edge_id ORDER BY k.number";

/// What could not be published was not sent.
const RELEASE: &str = "
UPDATE edge_command SET attempts = greatest(attempts - 1, 0), sent_in = NULL, sent_at = NULL
WHERE id = ANY($1) AND state IN ('waiting', 'sent')";

/// Sends until `stop` is cancelled.
pub async fn run(app: App, publish: Arc<dyn Publish>, sessions: Sessions, stop: CancellationToken) {
    let mut news = app.live.subscribe();
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut dispatch = Dispatch {
        app,
        publish,
        sessions,
        tried: HashMap::new(),
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

impl Open {
    /// Whether it is sent in this session: nobody sent it yet, or the edge did not answer for a while, or the edge came
    /// anew. `tried` is the session in which this hub sent it last: where another hub sent it since, the edge is there.
    fn is_due(&self, session: &str, tried: Option<&str>) -> bool {
        let is_new_here = self.sent_in.as_deref() != Some(session) && tried != Some(session);
        self.sent_in.is_none() || self.is_late || is_new_here
    }
}

struct Dispatch {
    app: App,
    publish: Arc<dyn Publish>,
    sessions: Sessions,
    /// In which session this hub sent the open commands of a tenant last.
    tried: HashMap<TenantSlug, HashMap<Uuid, String>>,
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

    /// The edges of a tenant that can be reached from here, each with its session: on a broker that hubs share it is
    /// the same for all of them.
    fn reached(&self, tenant: &TenantSlug) -> HashMap<String, String> {
        let connected = self.sessions.connected().into_iter();
        connected
            .filter(|(device, _)| device.tenant == tenant.as_str())
            .map(|(Device { name, .. }, number)| match number {
                0 => (name, "shared".to_owned()),
                _ => (name, format!("{}-{number}", self.app.name)),
            })
            .collect()
    }

    /// Sends what is due to the edges of one tenant that can be reached from here.
    async fn turn(&mut self, tenant: &TenantSlug) -> Result<(), TenancyError> {
        let reached = self.reached(tenant);
        if reached.is_empty() {
            return Ok(());
        }
        let due = self.due(tenant, &reached).await?;
        if due.is_empty() {
            return Ok(());
        }
        let mut claimed = self.claim(tenant, &due).await?.into_iter();
        let mut sent = 0;
        let unsent: Vec<Uuid> = loop {
            let Some(command) = claimed.next() else {
                break vec![];
            };
            let topic = Topic::new(tenant.as_str(), &command.edge, Channel::Command).to_string();
            if let Err(error) = self.publish.publish(topic, command.payload.into()).await {
                tracing::warn!(%tenant, edge = command.edge, %error, "a command could not be published");
                // What comes later is not sent before it.
                break std::iter::once(command.id)
                    .chain(claimed.map(|it| it.id))
                    .collect();
            }
            sent += 1;
        };
        metrics::counter!("foodflow_edge_commands_sent_total").increment(sent);
        self.release(tenant, &unsent).await
    }

    /// Commands to send now, each with the session in which its edge is.
    async fn due(
        &mut self,
        tenant: &TenantSlug,
        reached: &HashMap<String, String>,
    ) -> Result<Vec<(Uuid, String)>, TenancyError> {
        let names: Vec<&String> = reached.keys().collect();
        let mut tx = self.app.db.begin(tenant).await?;
        let open: Vec<Open> = sqlx::query_as(
            "SELECT c.id, e.name AS edge, c.sent_in, coalesce(c.sent_at <= now() - $3::interval, false) AS is_late \
             FROM edge_command c JOIN edge e ON e.id = c.edge_id \
             WHERE c.state IN ('waiting', 'sent') AND (c.expires_at IS NULL OR c.expires_at > $1) \
               AND e.name = ANY($2) AND e.revoked_at IS NULL ORDER BY c.number",
        )
        .bind(self.app.clock.now())
        .bind(names)
        .bind(REPEAT_AFTER)
        .fetch_all(tx.conn())
        .await?;
        drop(tx);
        let (mut windows, mut due) = (HashMap::<&str, usize>::new(), Vec::new());
        let (before, mut after) = (self.tried.remove(tenant).unwrap_or_default(), HashMap::new());
        for command in &open {
            let Some(session) = reached.get(&command.edge) else {
                continue;
            };
            let place = windows.entry(&command.edge).or_default();
            *place += 1;
            let tried = before.get(&command.id);
            if *place <= WINDOW && command.is_due(session, tried.map(String::as_str)) {
                due.push((command.id, session.clone()));
                after.insert(command.id, session.clone());
            } else if let Some(tried) = tried {
                after.insert(command.id, tried.clone());
            }
        }
        self.tried.insert(tenant.clone(), after);
        Ok(due)
    }

    /// Those of the commands that no other hub sends, in the order given. It is noted before they are sent.
    async fn claim(&self, tenant: &TenantSlug, due: &[(Uuid, String)]) -> Result<Vec<Claimed>, TenancyError> {
        let (ids, sessions): (Vec<Uuid>, Vec<String>) = due.iter().cloned().unzip();
        let mut tx = self.app.db.begin(tenant).await?;
        let claimed = sqlx::query_as(CLAIM)
            .bind(ids)
            .bind(sessions)
            .bind(REPEAT_AFTER)
            .fetch_all(tx.conn())
            .await?;
        tx.commit_unaudited("how often a command was sent is no deed")
            .await?;
        Ok(claimed)
    }

    async fn release(&mut self, tenant: &TenantSlug, unsent: &[Uuid]) -> Result<(), TenancyError> {
        if unsent.is_empty() {
            return Ok(());
        }
        let mut tx = self.app.db.begin(tenant).await?;
        sqlx::query(RELEASE).bind(unsent).execute(tx.conn()).await?;
        tx.commit_unaudited("how often a command was sent is no deed")
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sent_in: Option<&str>, is_late: bool) -> Open {
        Open {
            id: Uuid::nil(),
            edge: "e1".to_owned(),
            sent_in: sent_in.map(str::to_owned),
            is_late,
        }
    }

    #[test]
    fn a_command_is_repeated_after_its_time_and_at_once_in_a_new_session() {
        assert!(open(None, false).is_due("hub-7", None));
        assert!(!open(Some("hub-7"), false).is_due("hub-7", Some("hub-7")));
        assert!(open(Some("hub-7"), true).is_due("hub-7", Some("hub-7")));
        assert!(open(Some("hub-7"), false).is_due("hub-8", Some("hub-7")));
    }

    #[test]
    fn what_another_hub_sent_is_sent_again_only_where_the_edge_came_since() {
        // On a broker that they share the session is one.
        assert!(!open(Some("shared"), false).is_due("shared", None));
        // The edge came to this hub; the other one still has its old session.
        assert!(open(Some("other-3"), false).is_due("hub-9", None));
        assert!(!open(Some("hub-9"), false).is_due("other-3", Some("other-3")));
    }
}
