//! How is a batch stored? In one transaction, in which each tenant has its part. When the database refuses the data, the
//! frames are tried one by one, so that the one at fault is found and the others go in; when it is away, the batch waits.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use protocol::{
    Micros,
    ack::{Outcome, Subject},
    lane::Lane,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    acknowledge::Acks,
    board::Board,
    event::Events,
    fleet::Issuing,
    gather::Batch,
    read::{Content, Item},
    store::{self, Known, Stored, Verdict},
};
use crate::{
    broker::Settled,
    kernel::{
        bulk::{BulkConnection, BulkError},
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
pub(super) async fn run(
    context: Context,
    board: Board,
    mut batches: mpsc::Receiver<Batch>,
    stop: CancellationToken,
) {
    let mut writer = Writer {
        context,
        board,
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
        writer.store_all(tenants, first_us).await;
    }
}

struct Writer {
    context: Context,
    board: Board,
    connection: Option<BulkConnection>,
    known: HashMap<TenantSlug, Known>,
    /// Tenants that cannot be served now, and until when they are not asked.
    aside: HashMap<TenantSlug, Instant>,
    stop: CancellationToken,
}

/// What became of each tenant's part in a shared transaction; none: its part failed and is undone.
type Parts = Vec<(TenantSlug, Vec<Item>, Option<Stored>)>;

impl Writer {
    /// Stores a batch. Several tenants share one commit; one whose part fails is tried again by itself, and so is each
    /// when the whole fails.
    async fn store_all(&mut self, mut tenants: BTreeMap<TenantSlug, Vec<Item>>, first_us: Micros) {
        tenants.retain(|tenant, _| !self.is_aside(tenant));
        if tenants.len() > 1 {
            let parts = self.attempt_together(tenants).await;
            for (tenant, items, stored) in parts {
                match stored {
                    Some(stored) => self.finish(&tenant, items, stored, first_us).await,
                    None => self.store(&tenant, items, first_us).await,
                }
            }
            return;
        }
        for (tenant, items) in tenants {
            self.store(&tenant, items, first_us).await;
        }
    }

    async fn attempt_together(&mut self, tenants: BTreeMap<TenantSlug, Vec<Item>>) -> Parts {
        let mut parts: Parts = Vec::with_capacity(tenants.len());
        for (tenant, items) in tenants {
            parts.push((tenant, items, None));
        }
        if let Err(error) = self.fill(&mut parts).await {
            tracing::debug!(%error, "a shared transaction failed; its tenants are stored one by one");
            metrics::counter!("foodflow_ingest_shared_failed_total").increment(1);
            if matches!(error, BulkError::Unavailable(_)) {
                self.connection = None;
            }
            for (tenant, _, stored) in &mut parts {
                *stored = None;
                self.known.remove(tenant);
            }
        }
        parts
    }

    async fn fill(&mut self, parts: &mut Parts) -> Result<(), BulkError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(BulkConnection::connect(&self.context.target.bulk).await?),
        };
        let mut shared = connection.begin_shared().await?;
        for (tenant, items, stored) in parts.iter_mut() {
            let issuing = Issuing {
                tenant,
                authority: &self.context.authority,
                now: self.context.clock.now(),
            };
            let known = self.known.entry(tenant.clone()).or_default();
            let part = async {
                let mut tx = shared.enter(tenant).await?;
                let stored = store::items(&mut tx, known, items, Events::Together, issuing).await?;
                tx.commit().await?;
                Ok(stored)
            };
            match part.await {
                Ok(part) => *stored = Some(part),
                Err(error @ BulkError::Unavailable(_)) => return Err(error),
                Err(_) => {
                    self.known.remove(tenant);
                    shared.undo().await?;
                }
            }
        }
        shared.commit().await?;
        for (tenant, ..) in parts.iter() {
            if let Some(known) = self.known.get_mut(tenant) {
                known.dictionaries.committed();
            }
        }
        Ok(())
    }

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
        let stored = store::items(&mut tx, known, items, events, issuing).await?;
        tx.commit().await?;
        known.dictionaries.committed();
        Ok(stored)
    }

    /// After the commit: tell live pages, the edges, and the broker, which then sends its PUBACKs.
    async fn finish(&self, tenant: &TenantSlug, items: Vec<Item>, stored: Stored, first_us: Micros) {
        let now_us = self.context.clock.now_us();
        metrics::counter!("foodflow_ingest_readings_total").increment(stored.readings);
        if let Some(newest_us) = stored.newest_us {
            self.board.committed(tenant, newest_us);
        }
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
