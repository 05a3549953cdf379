//! When is there something to do for a consumer of events, and for which tenants? At once after a commit in this
//! process; after a look at every tenant now and then for what other hubs committed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    app::App,
    kernel::{
        pulse::Beat,
        tenancy::{TenancyError, TenantSlug},
    },
    series::bus::{LiveEvent, LiveKind},
    tenant::provision,
};

/// Commits of this process are told at once; this is for those of others.
const LOOK: Duration = Duration::from_secs(5);

/// Whose events to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// These tenants have some.
    Of(BTreeSet<TenantSlug>),
    /// Anyone may.
    Anyone,
}

/// Tells one consumer.
#[derive(Debug)]
pub(super) struct Wake {
    beats: broadcast::Receiver<Beat>,
    /// Ingest commits on connections of its own and tells live pages.
    live: broadcast::Receiver<Arc<LiveEvent>>,
    looks: Interval,
}

impl Wake {
    pub(super) fn new(app: &App) -> Self {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            beats: app.db.pulse().subscribe(),
            live: app.live.subscribe(),
            looks,
        }
    }

    /// Waits for news. Nothing is lost when the wait is given up.
    pub(super) async fn next(&mut self) -> News {
        let first = loop {
            let news = tokio::select! {
                _ = self.looks.tick() => Some(News::Anyone),
                beat = self.beats.recv() => of_beat(beat),
                told = self.live.recv() => of_live(told),
            };
            if let Some(news) = news {
                break news;
            }
        };
        self.with_more(first)
    }

    /// What else is waiting: many commits of one tenant are one reason to look.
    fn with_more(&mut self, first: News) -> News {
        let News::Of(mut tenants) = first else {
            return first;
        };
        while let Ok(beat) = self.beats.try_recv() {
            if let Beat::Committed(tenant) = beat {
                tenants.insert(tenant);
            }
        }
        News::Of(tenants)
    }
}

fn of_beat(beat: Result<Beat, RecvError>) -> Option<News> {
    match beat {
        Ok(Beat::Committed(tenant)) => Some(News::Of(BTreeSet::from([tenant]))),
        Ok(Beat::Stopping) | Err(RecvError::Closed) => None,
        Err(RecvError::Lagged(_)) => Some(News::Anyone),
    }
}

fn of_live(told: Result<Arc<LiveEvent>, RecvError>) -> Option<News> {
    let told = told.ok()?;
    // A listener that missed some of these is told again within one look.
    let has_event = matches!(told.kind, LiveKind::Deviation { .. } | LiveKind::Hold { .. });
    has_event.then(|| News::Of(BTreeSet::from([told.tenant.clone()])))
}

/// Every active tenant.
pub(super) async fn everyone(app: &App) -> Result<BTreeSet<TenantSlug>, TenancyError> {
    let mut tx = app.db.platform().await?;
    let tenants = provision::tenants(tx.conn()).await?;
    Ok(tenants.into_iter().map(|tenant| tenant.slug).collect())
}

/// Those the news is of.
pub(super) async fn tenants(app: &App, news: News) -> Result<BTreeSet<TenantSlug>, TenancyError> {
    match news {
        News::Of(tenants) => Ok(tenants),
        News::Anyone => everyone(app).await,
    }
}
