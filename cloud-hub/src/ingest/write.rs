//! How is a batch stored? One transaction a tenant. When the database refuses the data, the frames are tried one
//! by one, so that the one at fault is found and the others go in; when it is away, the batch waits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use protocol::{
    Micros, Reading,
    ack::{Outcome, Subject},
    lane::Lane,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Context,
    acknowledge::Acks,
    dictionary::{Dictionaries, Mapping},
    event::{self, Events, bury},
    fleet::Issuing,
    frame::{self, Resolved},
    gather::Batch,
    read::{Content, Item, Status, misdating},
};
use crate::{
    broker::Settled,
    kernel::{
        bulk::{BulkConnection, BulkError, BulkTx},
        clock::{Clock, time_from_us},
        tenancy::TenantSlug,
    },
    series::bus::LiveKind,
};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often transactions may be in each other's way before the tenant's frames are given back to its edges.
const REPEATS_MAX: u32 = 5;
/// A tenant that was set aside is not asked again sooner than this times what asking took: what one tenant costs the
/// others is a tenth.
const PAUSE_FACTOR: u32 = 10;
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// Stores batches until there are no more or `stop` is cancelled.
pub(super) async fn run(context: Context, mut batches: mpsc::Receiver<Batch>, stop: CancellationToken) {
    let mut writer = Writer {
        context,
        connection: None,
        known: HashMap::new(),
        aside: HashMap::new(),
        stop: stop.clone(),
    };
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            batch = batches.recv() => batch,
        };
        let Some(batch) = batch else { return };
        let first_us = batch.first_us;
        let mut tenants: BTreeMap<TenantSlug, Vec<Item>> = BTreeMap::new();
        for item in batch.items {
            tenants.entry(item.tenant.clone()).or_default().push(item);
        }
        for (tenant, items) in tenants {
            writer.store(&tenant, items, first_us).await;
        }
    }
}

/// What is remembered of a tenant between transactions.
#[derive(Debug, Default)]
struct Known {
    edges: HashMap<String, Uuid>,
    dictionaries: Dictionaries,
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Stored,
    Rejected(String),
    NeedDictionary(Uuid),
}

struct Stored {
    verdicts: Vec<Verdict>,
    live: Vec<LiveKind>,
    readings: u64,
}

struct Writer {
    context: Context,
    connection: Option<BulkConnection>,
    known: HashMap<TenantSlug, Known>,
    /// Tenants that cannot be served now, and until when they are not asked.
    aside: HashMap<TenantSlug, Instant>,
    stop: CancellationToken,
}

impl Writer {
    /// Stores items of one tenant, however long the database is away. Items still here when the hub stops are
    /// dropped, which tells their senders to try again; so are those of a tenant that cannot be served now: its edges
    /// keep them, and nobody else waits.
    async fn store(&mut self, tenant: &TenantSlug, mut items: Vec<Item>, first_us: Micros) {
        let mut backoff = BACKOFF_MIN;
        let mut events = Events::Together;
        let mut repeats = 0;
        loop {
            if self.is_aside(tenant) {
                return;
            }
            let asked = Instant::now();
            match self.attempt(tenant, &items, events).await {
                Ok(stored) => return self.finish(tenant, items, stored, first_us).await,
                Err(BulkError::Refused(error)) => {
                    self.forget(tenant);
                    if items.len() > 1 {
                        for item in items {
                            Box::pin(self.store(tenant, vec![item], first_us)).await;
                        }
                        return;
                    }
                    // One event that cannot be stored does not take a deviation in the same frame with it.
                    if events == Events::Together && items.iter().any(|item| item.content.can_be_parted()) {
                        events = Events::OneByOne;
                        continue;
                    }
                    if !condemn(&mut items, &error) {
                        tracing::error!(%tenant, %error, "a dead letter was refused; its sender keeps it");
                        return;
                    }
                }
                Err(
                    error @ (BulkError::UnknownTenant
                    | BulkError::NotMigrated
                    | BulkError::Suspended
                    | BulkError::Unfit(_)),
                ) => return self.set_aside(tenant, &error, asked.elapsed()),
                Err(error @ BulkError::Repeat(_)) if repeats == REPEATS_MAX => {
                    return self.set_aside(tenant, &error, asked.elapsed());
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%tenant, %error, cause, "ingest waits for the database");
                    metrics::counter!("foodflow_ingest_retries_total").increment(1);
                    repeats += 1;
                    self.forget(tenant);
                    if matches!(error, BulkError::Unavailable(_)) {
                        self.connection = None;
                    }
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                    }
                }
            }
        }
    }

    fn is_aside(&mut self, tenant: &TenantSlug) -> bool {
        let is_aside = self
            .aside
            .get(tenant)
            .is_some_and(|until| Instant::now() < *until);
        if !is_aside {
            self.aside.remove(tenant);
        }
        is_aside
    }

    /// Gives a tenant's frames back to its edges for a while.
    fn set_aside(&mut self, tenant: &TenantSlug, error: &BulkError, took: Duration) {
        let pause = (took * PAUSE_FACTOR).max(PAUSE_MIN);
        tracing::warn!(%tenant, %error, pause_ms = pause.as_millis() as u64, "the tenant's frames wait at its edges");
        metrics::counter!("foodflow_ingest_set_aside_total").increment(1);
        self.forget(tenant);
        if let Some(connection) = &mut self.connection {
            connection.forget(tenant);
        }
        self.aside.insert(tenant.clone(), Instant::now() + pause);
    }

    /// What a transaction that did not commit taught is not known.
    fn forget(&mut self, tenant: &TenantSlug) {
        self.known.remove(tenant);
    }

    async fn attempt(
        &mut self,
        tenant: &TenantSlug,
        items: &[Item],
        events: Events,
    ) -> Result<Stored, BulkError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(BulkConnection::connect(&self.context.target.bulk).await?),
        };
        let known = self.known.entry(tenant.clone()).or_default();
        let mut tx = connection.begin(tenant).await?;
        let issuing = Issuing {
            tenant,
            authority: &self.context.authority,
            now: self.context.clock.now(),
        };
        let stored = store_items(&mut tx, known, items, events, (&self.context.clock, issuing)).await?;
        tx.commit().await?;
        known.dictionaries.committed();
        Ok(stored)
    }

    /// After the commit: tell live pages, the edges, and the broker, which then sends its PUBACKs.
    async fn finish(&self, tenant: &TenantSlug, items: Vec<Item>, stored: Stored, first_us: Micros) {
        let now_us = self.context.clock.now_us();
        metrics::counter!("foodflow_ingest_readings_total").increment(stored.readings);
        metrics::histogram!("foodflow_ingest_commit_seconds").record((now_us - first_us).max(0) as f64 / 1e6);
        for kind in stored.live {
            if let LiveKind::Samples {
                lane: Lane::Live,
                samples,
            } = &kind
            {
                let newest_us = samples
                    .iter()
                    .map(|sample| sample.time_us)
                    .max()
                    .unwrap_or(now_us);
                metrics::histogram!("foodflow_ingest_lag_seconds").record((now_us - newest_us) as f64 / 1e6);
            }
            self.context.live.publish(tenant, now_us, kind);
        }
        let mut acks = Acks::default();
        for (item, verdict) in items.iter().zip(&stored.verdicts) {
            if let Some((subject, outcome)) = acknowledgement(item, verdict) {
                acks.push(&item.edge, subject, outcome);
            }
        }
        acks.publish(tenant, self.context.publish.as_ref()).await;
        for (item, verdict) in items.into_iter().zip(stored.verdicts) {
            let settled = settle(&item, verdict);
            // Nobody waits when the device has left; the application's acknowledgement reaches it later.
            drop(item.settled.send(settled));
        }
    }
}

/// Turns an item that the database refuses into a dead letter; false when it is one already.
fn condemn(items: &mut [Item], error: &tokio_postgres::Error) -> bool {
    let Some(item) = items.first_mut() else {
        return false;
    };
    let subject = match &item.content {
        Content::Frame(frame, _) => Some(Subject::Frame(frame.header.id)),
        Content::Dictionary(id, _) => Some(Subject::Dictionary(*id)),
        Content::Status(_) => None,
        Content::Unusable { .. } => return false,
    };
    let reason = error
        .as_db_error()
        .map_or_else(|| error.to_string(), |db| db.message().to_owned());
    item.content = Content::Unusable {
        subject,
        reason: format!("the database refuses it: {reason}"),
    };
    true
}

fn acknowledgement(item: &Item, verdict: &Verdict) -> Option<(Subject, Outcome)> {
    let subject = match &item.content {
        Content::Frame(frame, _) => Subject::Frame(frame.header.id),
        Content::Dictionary(id, _) => Subject::Dictionary(*id),
        Content::Unusable { subject, .. } => (*subject)?,
        Content::Status(_) => return None,
    };
    let outcome = match verdict {
        Verdict::Stored => Outcome::Stored,
        Verdict::Rejected(reason) => Outcome::Rejected {
            reason: reason.clone(),
        },
        Verdict::NeedDictionary(id) => Outcome::NeedDictionary(*id),
    };
    Some((subject, outcome))
}

fn settle(item: &Item, verdict: Verdict) -> Settled {
    let outcome = match &verdict {
        Verdict::Stored => "stored",
        Verdict::Rejected(_) => "rejected",
        Verdict::NeedDictionary(_) => "need_dictionary",
    };
    if !matches!(item.content, Content::Status(_)) {
        metrics::counter!("foodflow_ingest_messages_total", "outcome" => outcome).increment(1);
    }
    match verdict {
        Verdict::Rejected(reason) => {
            tracing::warn!(tenant = %item.tenant, edge = %item.edge, topic = %item.topic, %reason, "kept as a dead letter");
            Settled::Rejected { reason }
        }
        // Not stored, but not the transport's business either: the application's acknowledgement says so.
        Verdict::Stored | Verdict::NeedDictionary(_) => Settled::Stored,
    }
}

async fn store_items(
    tx: &mut BulkTx<'_>,
    known: &mut Known,
    items: &[Item],
    events: Events,
    (clock, issuing): (&Clock, Issuing<'_>),
) -> Result<Stored, BulkError> {
    let mut verdicts = Vec::with_capacity(items.len());
    let (mut live, mut frames) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let verdict = judge(tx, known, (index, item), clock, &mut frames).await?;
        if let Verdict::Rejected(reason) = &verdict {
            bury(tx, &item.edge, &item.topic, &item.payload, reason).await?;
        }
        if matches!(item.content, Content::Status(_)) {
            live.push(LiveKind::Edge {
                name: item.edge.clone(),
            });
        }
        verdicts.push(verdict);
    }
    let claimed = frame::claim(tx, frames).await?;
    let readings = claimed
        .iter()
        .map(|resolved| resolved.frame.readings.len() as u64)
        .sum();
    for (lane, samples) in frame::store_readings(tx, &claimed).await? {
        live.push(LiveKind::Samples { lane, samples });
    }
    frame::keep_unsynced(tx, &claimed, |index| items[index].payload.as_ref()).await?;
    for resolved in claimed.iter().filter(|resolved| !resolved.misdated.is_empty()) {
        let item = &items[resolved.index];
        let (bytes, reason) = (
            serde_json::to_vec(resolved.misdated).unwrap_or_default(),
            misdating(resolved.misdated),
        );
        tracing::warn!(edge = %item.edge, %reason, "kept as a dead letter");
        bury(tx, &item.edge, &item.topic, &bytes, &reason).await?;
    }
    let filed = event::store(tx, &claimed, events, issuing).await?;
    for unfiled in filed.unfiled {
        let item = &items[unfiled.index];
        bury(tx, &item.edge, &item.topic, &unfiled.bytes, &unfiled.reason).await?;
    }
    live.extend(filed.live);
    frame::note_edges(tx, &claimed, clock.now()).await?;
    Ok(Stored {
        verdicts,
        live,
        readings,
    })
}

/// Decides on one item and stores it, except for a frame's rows: those of all frames go in together.
async fn judge<'a>(
    tx: &mut BulkTx<'_>,
    known: &mut Known,
    (index, item): (usize, &'a Item),
    clock: &Clock,
    frames: &mut Vec<Resolved<'a>>,
) -> Result<Verdict, BulkError> {
    let edge_id = edge_id(tx, known, &item.edge).await?;
    Ok(match &item.content {
        Content::Status(status) => {
            note_status(tx, edge_id, status, clock).await?;
            Verdict::Stored
        }
        Content::Dictionary(id, dictionary) => {
            let stored = known.dictionaries.store(tx, edge_id, *id, dictionary).await?;
            stored.map_or_else(Verdict::Rejected, |()| Verdict::Stored)
        }
        Content::Unusable { reason, .. } => Verdict::Rejected(reason.clone()),
        Content::Frame(frame, misdated) => {
            let id = frame.header.dictionary;
            match known.dictionaries.find(tx, edge_id, id).await? {
                None => Verdict::NeedDictionary(id),
                Some(mapping) => resolve((index, edge_id, &item.edge), (frame, misdated), mapping, frames),
            }
        }
    })
}

fn resolve<'a>(
    (index, edge_id, edge): (usize, Uuid, &'a str),
    (frame, misdated): (&'a protocol::frame::Frame, &'a [Reading]),
    mapping: Arc<Mapping>,
    frames: &mut Vec<Resolved<'a>>,
) -> Verdict {
    if let Some(alias) = frame::unknown_alias(frame, &mapping) {
        return Verdict::Rejected(format!("alias {alias} is not in the frame's dictionary"));
    }
    frames.push(Resolved {
        index,
        edge_id,
        edge,
        frame,
        misdated,
        mapping,
    });
    Verdict::Stored
}

/// The row of an edge; enrolling made it, and a frame that comes first makes it too.
async fn edge_id(tx: &mut BulkTx<'_>, known: &mut Known, edge: &str) -> Result<Uuid, BulkError> {
    if let Some(id) = known.edges.get(edge) {
        return Ok(*id);
    }
    tx.execute(
        "INSERT INTO edge (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        &[&Uuid::now_v7(), &edge],
    )
    .await?;
    let rows = tx.query("SELECT id FROM edge WHERE name = $1", &[&edge]).await?;
    let id = rows.first().map_or_else(Uuid::nil, |row| row.get(0));
    known.edges.insert(edge.to_owned(), id);
    Ok(id)
}

async fn note_status(
    tx: &mut BulkTx<'_>,
    edge_id: Uuid,
    status: &Status,
    clock: &Clock,
) -> Result<(), BulkError> {
    tx.execute(
        "UPDATE edge SET is_online = $2, boot = coalesce($3, boot), software = coalesce($4, software), \
           last_seen_at = CASE WHEN $2 THEN $5 ELSE last_seen_at END, \
           backlog_frames = CASE WHEN $2 THEN $6 ELSE backlog_frames END, \
           oldest_time = CASE WHEN $2 THEN $7 ELSE oldest_time END WHERE id = $1",
        &[
            &edge_id,
            &status.online,
            &status.boot,
            &status.version,
            &clock.now(),
            &status.backlog_frames.map(u64::cast_signed),
            &status.oldest_us.map(time_from_us),
        ],
    )
    .await?;
    Ok(())
}
