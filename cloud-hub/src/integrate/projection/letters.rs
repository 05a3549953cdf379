//! Which events could not be taken in, and why? Dead letters of the projections, and trying them again once the cause
//! is gone.

use std::collections::HashSet;

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{ActivityDays, Projection, SearchEntries, run::try_all, state::wait_turn};
use crate::{
    app::App,
    error::{Error, Result},
    integrate::{
        event,
        feed::{TAG, needs_everywhere},
    },
    kernel::{audit::Deed, caller::Caller, permission::Permission, reply::Reply},
    request::{Page, Path, Query, Rows},
};

/// Most events of one record that are tried at once.
const RETRIED_MAX: i64 = 1_000;

/// An event that a projection could not take in, or that waits behind one.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventDeadLetter {
    /// Stable id.
    id: Uuid,
    /// The projection.
    projection: String,
    /// Number of the event.
    seq: i64,
    /// Kind of the event.
    kind: String,
    /// Kind of record it happened to.
    aggregate: String,
    /// Which one.
    aggregate_id: Uuid,
    /// Why it is here.
    reason: String,
    /// Since when.
    at_us: Micros,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    projection: String,
    seq: i64,
    kind: String,
    aggregate: String,
    aggregate_id: Uuid,
    reason: String,
    at: DateTime<Utc>,
}

impl From<Row> for EventDeadLetter {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            projection: row.projection,
            seq: row.seq,
            kind: row.kind,
            aggregate: row.aggregate,
            aggregate_id: row.aggregate_id,
            reason: row.reason,
            at_us: row.at.timestamp_micros(),
        }
    }
}

/// What came of trying again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Retried {
    /// Events of the record that were taken in.
    taken_in: i64,
    /// Those that still wait.
    waiting: i64,
}

/// Narrows the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LetterQuery {
    /// Only those of this projection.
    projection: Option<String>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// Rows per page, 1 to 200; 100 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Lists events that projections could not take in, in the order of the events.
#[utoipa::path(get, path = "/events/dead-letters", operation_id = "list_event_dead_letters", tag = TAG, security(("bearer" = ["event.read"])), params(LetterQuery),
    responses((status = 200, description = "Dead letters", body = Page<EventDeadLetter>)))]
pub async fn list_event_dead_letters(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<LetterQuery>,
) -> Result<Json<Page<EventDeadLetter>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::EventRead).await?;
    needs_everywhere(&mut tx).await?;
    let found: Vec<Row> = sqlx::query_as(
        "SELECT d.id, d.projection, d.seq, e.kind, d.aggregate, d.aggregate_id, d.reason, d.at \
         FROM event_dead_letter d JOIN domain_event e ON e.seq = d.seq \
         JOIN projection p ON p.name = d.projection AND p.generation = d.generation \
         WHERE ($1::text IS NULL OR d.projection = $1) AND ($2::uuid IS NULL OR (d.seq, d.id) > \
           (SELECT c.seq, c.id FROM event_dead_letter c WHERE c.id = $2)) ORDER BY d.seq, d.id LIMIT $3",
    )
    .bind(query.projection)
    .bind(query.cursor)
    .bind(rows.fetched())
    .fetch_all(tx.conn())
    .await?;
    let letters = found.into_iter().map(EventDeadLetter::from).collect();
    Ok(Json(Page::of(letters, rows, |letter: &EventDeadLetter| {
        letter.id.to_string()
    })))
}

#[derive(FromRow)]
struct Letter {
    projection: String,
    generation: i32,
    aggregate: String,
    aggregate_id: Uuid,
}

/// Tries the waiting events of a dead letter's record again, in order, up to the first that is refused again.
#[utoipa::path(post, path = "/events/dead-letters/{id}/retry", operation_id = "retry_event_dead_letter", tag = TAG, security(("bearer" = ["tenant.configure"])),
    params(("id" = Uuid, Path, description = "Dead letter")), responses((status = 200, description = "What came of it", body = Retried)))]
pub async fn retry_event_dead_letter(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::TenantConfigure).await?;
    needs_everywhere(&mut tx).await?;
    let gone = || Error::NotFound {
        entity: "dead letter",
    };
    let letter: Option<Letter> = sqlx::query_as(
        "SELECT projection, generation, aggregate, aggregate_id FROM event_dead_letter WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let letter = letter.ok_or_else(gone)?;
    wait_turn(tx.conn(), &letter.projection).await?.ok_or_else(gone)?;
    let retried = match letter.projection.as_str() {
        SearchEntries::NAME => retry::<SearchEntries>(tx.conn(), &letter).await?,
        ActivityDays::NAME => retry::<ActivityDays>(tx.conn(), &letter).await?,
        _ => return Err(gone()),
    };
    tx.audit(&Deed::on("retry", "event_dead_letter", id).after(&retried));
    tx.finish(StatusCode::OK, &retried).await
}

async fn retry<P: Projection>(conn: &mut PgConnection, letter: &Letter) -> Result<Retried> {
    let waiting: Vec<i64> = sqlx::query_scalar(
        "SELECT seq FROM event_dead_letter WHERE projection = $1 AND generation = $2 AND aggregate = $3 \
         AND aggregate_id = $4 ORDER BY seq LIMIT $5",
    )
    .bind(P::NAME)
    .bind(letter.generation)
    .bind(&letter.aggregate)
    .bind(letter.aggregate_id)
    .bind(RETRIED_MAX)
    .fetch_all(&mut *conn)
    .await?;
    let events = event::of(conn, &waiting).await?;
    let mut taken_in = 0;
    for event in &events {
        // Its own letter is the one that is tried: it does not wait behind itself.
        let mut parked = HashSet::new();
        let one = std::slice::from_ref(event);
        let unfit = match P::change(event) {
            Err(unfit) => Some(unfit),
            Ok(_) => try_all::<P>(conn, letter.generation, one, &mut parked).await?,
        };
        if let Some(unfit) = unfit {
            settle::<P>(conn, letter.generation, event.seq, Some(&unfit.0)).await?;
            break;
        }
        settle::<P>(conn, letter.generation, event.seq, None).await?;
        taken_in += 1;
    }
    Ok(Retried {
        taken_in,
        waiting: waiting.len() as i64 - taken_in,
    })
}

/// Removes a letter that was taken in, or notes why it was refused again.
async fn settle<P: Projection>(
    conn: &mut PgConnection,
    generation: i32,
    seq: i64,
    reason: Option<&str>,
) -> Result<(), sqlx::Error> {
    let sql = if reason.is_some() {
        "UPDATE event_dead_letter SET reason = $4, at = now() WHERE projection = $1 AND generation = $2 AND seq = $3"
    } else {
        "DELETE FROM event_dead_letter WHERE projection = $1 AND generation = $2 AND seq = $3 AND $4::text IS NULL"
    };
    sqlx::query(sql)
        .bind(P::NAME)
        .bind(generation)
        .bind(seq)
        .bind(reason)
        .execute(conn)
        .await?;
    Ok(())
}
