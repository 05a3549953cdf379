//! How do messages get out? A duty of every hub: it takes what is due on lease and sends many at once, but few to any
//! one receiver, so that a slow one is in nobody's way. No transaction is open while a receiver is waited for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    queue, schedule,
    send::{Parcel, Sender},
};
use crate::{
    app::App,
    integrate::wake::{self, News, Wake},
    kernel::tenancy::{TenancyError, TenantSlug},
};

/// Requests under way at once, in all and to one webhook.
const REQUESTS_MAX: usize = 32;
const REQUESTS_OF_ONE_MAX: usize = 8;
/// How long requests under way may take once the hub is told to stop; the others are sent again later.
const DRAIN: Duration = Duration::from_secs(3);
const PURGE_EVERY: Duration = Duration::from_hours(1);

/// Sends webhooks of all tenants until `stop` is cancelled.
pub async fn run(app: App, stop: CancellationToken) {
    let sender = match Sender::new(&app.config.webhooks, app.clock.clone()) {
        Ok(sender) => sender,
        Err(error) => {
            tracing::error!(%error, "webhooks are not sent: no HTTP client");
            return stop.cancelled().await;
        }
    };
    let mut wake = Wake::new(&app);
    let mut dispatcher = Dispatcher::new(app, sender);
    loop {
        let soonest = dispatcher.soonest();
        let mut dirty = tokio::select! {
            () = stop.cancelled() => break,
            news = wake.next() => dispatcher.look(news).await,
            Some(done) = dispatcher.sends.join_next() => dispatcher.completed(done.ok()),
            () = wait(soonest) => dispatcher.due_now(),
        };
        while let Some(done) = dispatcher.sends.try_join_next() {
            dirty.extend(dispatcher.completed(done.ok()));
        }
        for tenant in dirty {
            if stop.is_cancelled() {
                break;
            }
            if let Err(error) = dispatcher.serve(&tenant).await {
                tracing::warn!(%tenant, %error, "webhooks wait for the database");
            }
        }
    }
    let drained = timeout(DRAIN, async {
        while dispatcher.sends.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::info!("webhooks under way are sent again by whoever runs next");
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

struct Dispatcher {
    app: App,
    sender: Sender,
    sends: JoinSet<TenantSlug>,
    all: Arc<Semaphore>,
    each: HashMap<Uuid, Arc<Semaphore>>,
    /// When a tenant has something due next.
    due: HashMap<TenantSlug, Instant>,
    /// Tenants for whom there was no room.
    starved: BTreeSet<TenantSlug>,
    purged: HashMap<TenantSlug, Instant>,
}

impl Dispatcher {
    fn new(app: App, sender: Sender) -> Self {
        Self {
            app,
            sender,
            sends: JoinSet::new(),
            all: Arc::new(Semaphore::new(REQUESTS_MAX)),
            each: HashMap::new(),
            due: HashMap::new(),
            starved: BTreeSet::new(),
            purged: HashMap::new(),
        }
    }

    async fn look(&mut self, news: News) -> BTreeSet<TenantSlug> {
        let is_general = news == News::Anyone;
        let tenants = match wake::tenants(&self.app, news).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(%error, "webhooks wait for the database");
                return BTreeSet::new();
            }
        };
        if is_general {
            self.purge(&tenants).await;
            // What was known of tenants and receivers that are gone.
            self.due.retain(|tenant, _| tenants.contains(tenant));
            self.purged.retain(|tenant, _| tenants.contains(tenant));
            self.each
                .retain(|_, room| room.available_permits() < REQUESTS_OF_ONE_MAX);
        }
        tenants
    }

    async fn purge(&mut self, tenants: &BTreeSet<TenantSlug>) {
        for tenant in tenants {
            let is_recent = self
                .purged
                .get(tenant)
                .is_some_and(|at| at.elapsed() < PURGE_EVERY);
            if is_recent {
                continue;
            }
            self.purged.insert(tenant.clone(), Instant::now());
            if let Err(error) = queue::purge(&self.app.db, tenant, self.app.clock.now()).await {
                tracing::warn!(%tenant, %error, "old deliveries could not be forgotten");
            }
        }
    }

    /// A request ended: there may be more for its tenant, and room for another's.
    fn completed(&mut self, tenant: Option<TenantSlug>) -> BTreeSet<TenantSlug> {
        let mut dirty = std::mem::take(&mut self.starved);
        dirty.extend(tenant);
        dirty
    }

    fn soonest(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    fn due_now(&mut self) -> BTreeSet<TenantSlug> {
        let now = Instant::now();
        let due: BTreeSet<TenantSlug> = self
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(tenant, _)| tenant.clone())
            .collect();
        self.due.retain(|tenant, _| !due.contains(tenant));
        due
    }

    /// Does what can be done for a tenant now, and notes when to come back.
    async fn serve(&mut self, tenant: &TenantSlug) -> Result<(), TenancyError> {
        let db = self.app.db.clone();
        while queue::fan_out(&db, tenant, self.app.clock.now()).await? {}
        self.due.remove(tenant);
        for (webhook_id, at) in queue::due(&db, tenant).await? {
            let now = self.app.clock.now();
            if at > now {
                self.come_back(tenant, at - now);
            } else {
                self.send_some(tenant, webhook_id, now).await?;
            }
        }
        Ok(())
    }

    fn come_back(&mut self, tenant: &TenantSlug, wait: chrono::Duration) {
        let at = Instant::now() + wait.to_std().unwrap_or_default();
        self.due
            .entry(tenant.clone())
            .and_modify(|known| *known = at.min(*known))
            .or_insert(at);
    }

    async fn send_some(
        &mut self,
        tenant: &TenantSlug,
        webhook_id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<(), TenancyError> {
        let one = self
            .each
            .entry(webhook_id)
            .or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_OF_ONE_MAX)))
            .clone();
        let room = one.available_permits().min(self.all.available_permits());
        if room == 0 {
            self.starved.insert(tenant.clone());
            return Ok(());
        }
        // Three times what a request may take: long enough that a living hub never loses one.
        let until = now + self.app.config.webhooks.timeout * 3;
        let (db, sealing) = (self.app.db.clone(), self.app.sealing_key.clone());
        let parcels = queue::claim(&db, &sealing, (tenant, webhook_id), room, (now, until)).await?;
        if parcels.len() == room {
            self.starved.insert(tenant.clone());
        }
        for parcel in parcels {
            // Nobody else takes permits: there are as many as there were.
            let permits = (
                one.clone().try_acquire_owned(),
                self.all.clone().try_acquire_owned(),
            );
            let (Ok(one), Ok(all)) = permits else { break };
            let (app, sender) = (self.app.clone(), self.sender.clone());
            self.sends
                .spawn(deliver(app, sender, tenant.clone(), parcel, (one, all)));
        }
        Ok(())
    }
}

/// Sends one and notes how it went. Without the note, the lease ends and it is sent again.
async fn deliver(
    app: App,
    sender: Sender,
    tenant: TenantSlug,
    parcel: Parcel,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> TenantSlug {
    let attempt = sender.send(&parcel).await;
    let next = schedule::next(
        attempt.outcome,
        parcel.failures,
        parcel.is_test,
        app.config.webhooks.retry_first,
        chance(),
    );
    let outcome = match next {
        schedule::Next::Delivered => "delivered",
        schedule::Next::Again(_) => "failed",
        schedule::Next::Dead => "dead",
    };
    metrics::counter!("foodflow_webhook_attempts_total", "outcome" => outcome).increment(1);
    let settled = queue::settle(&app.db, &tenant, &parcel, &attempt, next, app.clock.now()).await;
    if let Err(error) = settled {
        tracing::warn!(%tenant, %error, "an attempt of a webhook could not be noted; it will be repeated");
    }
    tenant
}

/// 0 to 1.
fn chance() -> f64 {
    let mut byte = [0u8; 1];
    match getrandom::fill(&mut byte) {
        Ok(()) => f64::from(byte[0]) / 255.0,
        Err(_) => 0.5,
    }
}
