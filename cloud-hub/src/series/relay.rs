//! What happened on other hubs of the same database? The database tells at each commit which alarm, deviation, hold,
//! batch, defect or edge changed (`tell_hubs`); this hub reads it and tells its own live pages. What it wrote itself it
//! told already. Where it may have missed something it says so: pages then ask anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bus::LiveKind;
use crate::{
    alarm::list,
    app::App,
    kernel::{
        database::Target,
        ear::{Ear, Hearing},
        tenancy::{TenancyError, TenantSlug, TenantTx},
    },
    tenant::provision,
};

const PAUSE: Duration = Duration::from_secs(1);
/// How soon a connection that died silently is noticed, and another hub that came.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// News in close succession is read together.
const GATHER: Duration = Duration::from_millis(20);

/// Tells this hub's live pages what other hubs committed.
#[derive(Debug)]
pub struct Relay {
    ear: Ear,
    hearing: Option<Hearing>,
}

impl Relay {
    /// Listens from now on, where the database is there; `own` is the name of this hub.
    pub async fn start(target: &Target, own: &str) -> Self {
        let ear = Ear::new(target, own);
        let hearing = ear.listen().await.ok();
        Self { ear, hearing }
    }

    /// Tells live pages until `stop`.
    pub async fn run(mut self, app: App, stop: CancellationToken) {
        let mut is_owed = self.hearing.is_none();
        loop {
            let lost = tokio::select! {
                () = stop.cancelled() => return,
                lost = self.follow(&app, is_owed) => lost,
            };
            let Err(error) = lost;
            tracing::warn!(%error, "what other hubs commit is not heard; live pages are told to ask anew when it is");
            is_owed = true;
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// Hears one connection to its end. `is_owed`: something may have been missed before it.
    async fn follow(&mut self, app: &App, is_owed: bool) -> Result<Infallible, TenancyError> {
        let mut hearing = match self.hearing.take() {
            Some(hearing) => hearing,
            None => self.ear.listen().await?,
        };
        if is_owed {
            tell_missed(app).await?;
        }
        let mut checks = interval(CHECK_EVERY);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = hearing.next() => {
                    let mut news = News::default();
                    news.note(&heard?, self.ear.own());
                    sleep(GATHER).await;
                    while let Some(more) = hearing.at_hand() {
                        news.note(&more, self.ear.own());
                    }
                    tell(app, news).await?;
                }
                _ = checks.tick() => app.live.share(self.ear.has_others(&mut hearing).await?),
            }
        }
    }
}

async fn tell_missed(app: &App) -> Result<(), TenancyError> {
    for tenant in provision::tenant_slugs(&app.db).await? {
        app.live.relay(&tenant, app.clock.now_us(), LiveKind::Missed);
    }
    Ok(())
}

// === what is heard ===

/// Rows that changed, by tenant and table.
#[derive(Debug, Default, PartialEq, Eq)]
struct News(BTreeMap<TenantSlug, BTreeMap<String, BTreeSet<Uuid>>>);

impl News {
    /// Takes in one message; what this hub wrote itself, and what cannot be read, is nothing new.
    fn note(&mut self, payload: &str, own: &str) {
        // The writer's name comes first, because it may hold spaces.
        let mut parts = payload.rsplitn(4, ' ');
        let (Some(id), Some(table), Some(schema)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let slug = schema.strip_prefix("t_").map(|name| name.replace('_', "-"));
        let tenant = slug.and_then(|slug| TenantSlug::parse(&slug).ok());
        let (Some(tenant), Ok(id)) = (tenant, id.parse()) else {
            return;
        };
        if parts.next() != Some(own) {
            let tables = self.0.entry(tenant).or_default();
            tables.entry(table.to_owned()).or_default().insert(id);
        }
    }
}

async fn tell(app: &App, news: News) -> Result<(), TenancyError> {
    for (tenant, tables) in news.0 {
        let mut told = Vec::new();
        let mut tx = match app.db.begin(&tenant).await {
            Ok(tx) => tx,
            // Removed, or not migrated here yet: nobody looks on.
            Err(TenancyError::UnknownTenant | TenancyError::NotMigrated(_)) => continue,
            Err(error) => return Err(error),
        };
        let mut lines = BTreeSet::new();
        for (table, ids) in tables {
            let ids = Vec::from_iter(ids);
            told.extend(read(&mut tx, &table, &ids, &mut lines).await?);
        }
        drop(tx);
        told.extend(lines.into_iter().map(|id| LiveKind::Line { id }));
        for kind in told {
            app.live.relay(&tenant, app.clock.now_us(), kind);
        }
    }
    Ok(())
}

const DEVIATIONS: &str = "
SELECT d.id, d.version, c.line_id FROM deviation d JOIN ccp c ON c.id = d.ccp_id WHERE d.id = ANY($1)";
const HOLDS: &str = "
SELECT h.id, h.version, c.line_id FROM hold h LEFT JOIN deviation d ON d.id = h.deviation_id
LEFT JOIN ccp c ON c.id = d.ccp_id WHERE h.id = ANY($1)";
const BATCHES: &str = "SELECT line_id FROM batch WHERE id = ANY($1)";
const EDGES: &str = "SELECT name FROM edge WHERE id = ANY($1)";

/// Rows as live pages are told of them, and the lines that they belong to.
async fn read(
    tx: &mut TenantTx,
    table: &str,
    ids: &[Uuid],
    lines: &mut BTreeSet<Uuid>,
) -> Result<Vec<LiveKind>, TenancyError> {
    Ok(match table {
        "alarm" => {
            let alarms = list::find_all(tx, ids).await?;
            lines.extend(alarms.iter().filter_map(|alarm| alarm.line_id));
            let kind = |alarm: list::Alarm| LiveKind::Alarm {
                line_id: alarm.line_id,
                alarm: Arc::new(json!(alarm)),
            };
            alarms.into_iter().map(kind).collect()
        }
        "deviation" | "hold" => {
            let is_hold = table == "hold";
            let sql = if is_hold { HOLDS } else { DEVIATIONS };
            let rows: Vec<(Uuid, i32, Option<Uuid>)> =
                sqlx::query_as(sql).bind(ids).fetch_all(tx.conn()).await?;
            lines.extend(rows.iter().filter_map(|(.., line_id)| *line_id));
            let kind = |(id, version, _)| {
                if is_hold {
                    LiveKind::Hold { id, version }
                } else {
                    LiveKind::Deviation { id, version }
                }
            };
            rows.into_iter().map(kind).collect()
        }
        "vision_result" => ids.iter().map(|id| LiveKind::Defect { id: *id }).collect(),
        "batch" => {
            let of: Vec<Uuid> = sqlx::query_scalar(BATCHES).bind(ids).fetch_all(tx.conn()).await?;
            lines.extend(of);
            vec![]
        }
        "edge" => {
            let names: Vec<String> = sqlx::query_scalar(EDGES).bind(ids).fetch_all(tx.conn()).await?;
            names.into_iter().map(|name| LiveKind::Edge { name }).collect()
        }
        _ => vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_writer_its_tenant_and_a_row() {
        let id = Uuid::from_u128(7);
        let mut news = News::default();
        for payload in [
            format!("foodflow-hub:aa t_lake_shore alarm {id}"),
            format!("some tool t_lake_shore alarm {id}"),
            format!("foodflow-hub:own t_lake_shore hold {id}"),
            format!("foodflow-hub:aa public alarm {id}"),
            "foodflow-hub:aa t_lake_shore alarm x".to_owned(),
            String::new(),
        ] {
            news.note(&payload, "foodflow-hub:own");
        }
        let tenant = TenantSlug::parse("lake-shore").unwrap();
        let alarms = BTreeMap::from([("alarm".to_owned(), BTreeSet::from([id]))]);
        assert_eq!(news, News(BTreeMap::from([(tenant, alarms)])));
    }
}
