//! How does another system follow what happens without being called? It reads the event store from where it stopped,
//! and may wait for what comes next.

use std::time::Duration;

use axum::{Json, extract::State};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;
use uuid::Uuid;

use super::event::{self, DomainEvent, Wanted};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::Caller,
        permission::Permission,
        pulse::Beat,
        tenancy::{TenantSlug, TenantTx},
    },
    request::{Page, Query, Rows},
};

/// The tag of the operations on events.
pub(super) const TAG: &str = "events";

const WAIT_S_MAX: i64 = 25;
/// Events that another hub committed are found at this pace.
const LOOK: Duration = Duration::from_secs(1);

/// Narrows the feed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeedQuery {
    /// Only events from this number on: one more than the last one seen.
    #[param(minimum = 0)]
    from_seq: Option<i64>,
    /// Only this kind, or kinds with this beginning: `BatchStarted`, `Batch*`.
    kind: Option<String>,
    /// Only events of this kind of record.
    aggregate: Option<String>,
    /// Only events of this record.
    aggregate_id: Option<Uuid>,
    /// Seconds to wait for an event when there is none, 0 to 25; 0 when absent. Of one tenant four requests wait at
    /// once; any more are answered without waiting.
    #[param(minimum = 0, maximum = 25)]
    wait_s: Option<i64>,
    /// `next` of the page before.
    cursor: Option<i64>,
    /// Rows per page, 1 to 200; 100 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Events carry records of every line: they are for those who hold the permission everywhere.
pub(super) async fn needs_everywhere(tx: &mut TenantTx) -> Result<()> {
    let is_everywhere: bool = sqlx::query_scalar("SELECT is_everywhere()")
        .fetch_one(tx.conn())
        .await?;
    if is_everywhere {
        Ok(())
    } else {
        Err(Error::OutOfScope)
    }
}

/// Lists events in the order in which they happened. A consumer that keeps the last `seq` it has dealt with misses
/// none: numbers follow the order of commits and have no gaps.
#[utoipa::path(get, path = "/events", operation_id = "list_events", tag = TAG, security(("bearer" = ["event.read"])), params(FeedQuery),
    responses((status = 200, description = "Events, oldest first", body = Page<DomainEvent>)))]
pub async fn list_events(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<FeedQuery>,
) -> Result<Json<Page<DomainEvent>>> {
    let rows = Rows::parse(query.limit)?;
    let wait_s = query.wait_s.unwrap_or(0);
    if !(0..=WAIT_S_MAX).contains(&wait_s) {
        return Err(Error::Invalid(format!("`wait_s` must be 0 to {WAIT_S_MAX}")));
    }
    let from = match query.from_seq {
        Some(seq) if seq < 0 => return Err(Error::Invalid("`from_seq` must be 0 or more".to_owned())),
        Some(seq) => seq.saturating_sub(1),
        None => -1,
    };
    let after = query.cursor.unwrap_or(0).max(from);
    let wanted = Wanted {
        kind: query.kind,
        aggregate: query.aggregate,
        aggregate_id: query.aggregate_id,
    };
    let until = Instant::now() + Duration::from_secs(wait_s.unsigned_abs());
    let mut beats = app.db.pulse().subscribe();
    let mut place = None;
    loop {
        let mut tx = caller.begin(&app, Permission::EventRead).await?;
        needs_everywhere(&mut tx).await?;
        let events = event::after(tx.conn(), after, rows.fetched(), &wanted).await?;
        // Nobody waits with a connection in hand.
        drop(tx);
        if !events.is_empty() || Instant::now() >= until {
            let page = Page::of(events, rows, |event: &DomainEvent| event.seq.to_string());
            return Ok(Json(page));
        }
        place = place.or_else(|| app.db.pulse().place(&caller.tenant));
        if place.is_none() {
            return Ok(Json(nothing()));
        }
        let look = until.min(Instant::now() + LOOK);
        if timeout_at(look, committed(&mut beats, &caller.tenant)).await == Ok(Ended(true)) {
            return Ok(Json(nothing()));
        }
    }
}

const fn nothing() -> Page<DomainEvent> {
    Page {
        items: Vec::new(),
        next: None,
    }
}

#[derive(Debug, PartialEq)]
struct Ended(bool);

/// Returns when the tenant has new events, or nobody should wait any longer.
async fn committed(beats: &mut tokio::sync::broadcast::Receiver<Beat>, tenant: &TenantSlug) -> Ended {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match beats.recv().await {
            Ok(Beat::Committed(of)) if of == *tenant => return Ended(false),
            Ok(Beat::Committed(_)) => {}
            Err(RecvError::Lagged(_)) => return Ended(false),
            Ok(Beat::Stopping) | Err(RecvError::Closed) => return Ended(true),
        }
    }
}
