//! Is a projection what the events make of it? Where each one stands, and making one anew from the first event.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;

use super::{NAMES, run::forget_others, state::wait_turn};
use crate::{
    app::App,
    error::{Error, Result},
    integrate::feed::{TAG, needs_everywhere},
    kernel::{audit::Deed, caller::Caller, permission::Permission, reply::Reply},
    request::Json as Body,
};

/// Where a projection stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectionState {
    /// Its name.
    name: String,
    /// The last event it has taken in.
    seq: i64,
    /// Events it has not taken in yet.
    behind: i64,
    /// Events that it could not take in, or that wait behind one of those.
    dead_letters: i64,
    /// While it is being made anew: the last event of the new rows.
    rebuilt_seq: Option<i64>,
    /// When it was last made anew.
    rebuilt_us: Option<Micros>,
}

/// Where all of them stand.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectionStates {
    /// By name.
    items: Vec<ProjectionState>,
}

/// What to make anew.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Name of a projection.
    projection: String,
}

#[derive(FromRow)]
struct Row {
    name: String,
    seq: i64,
    behind: i64,
    dead_letters: i64,
    rebuilt_seq: Option<i64>,
    rebuilt_at: Option<DateTime<Utc>>,
}

impl From<Row> for ProjectionState {
    fn from(row: Row) -> Self {
        Self {
            name: row.name,
            seq: row.seq,
            behind: row.behind,
            dead_letters: row.dead_letters,
            rebuilt_seq: row.rebuilt_seq,
            rebuilt_us: row.rebuilt_at.map(|at| at.timestamp_micros()),
        }
    }
}

async fn states(conn: &mut PgConnection, names: &[&str]) -> Result<Vec<ProjectionState>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT p.name, p.seq, (SELECT coalesce(max(e.seq), 0) FROM domain_event e) - p.seq AS behind, \
           (SELECT count(*) FROM event_dead_letter d WHERE d.projection = p.name AND d.generation = p.generation) \
             AS dead_letters, p.rebuilt_seq, p.rebuilt_at FROM projection p WHERE p.name = ANY($1) ORDER BY p.name",
    )
    .bind(names)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(ProjectionState::from).collect())
}

/// Lists the projections and how far each one is.
#[utoipa::path(get, path = "/events/projections", operation_id = "list_projections", tag = TAG, security(("bearer" = ["event.read"])),
    responses((status = 200, description = "Projections", body = ProjectionStates)))]
pub async fn list_projections(State(app): State<App>, caller: Caller) -> Result<Json<ProjectionStates>> {
    let mut tx = caller.begin(&app, Permission::EventRead).await?;
    needs_everywhere(&mut tx).await?;
    let items = states(tx.conn(), &NAMES).await?;
    Ok(Json(ProjectionStates { items }))
}

/// Makes a projection anew from the first event. Readers see the rows that are there until the new ones have caught
/// up. Asked again while it runs, it starts again.
#[utoipa::path(post, path = "/events/replay", operation_id = "replay_events", tag = TAG, security(("bearer" = ["tenant.configure"])),
    request_body = Replay, responses((status = 202, description = "It will be made anew", body = ProjectionState)))]
pub async fn replay_events(
    State(app): State<App>,
    caller: Caller,
    Body(replay): Body<Replay>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::TenantConfigure).await?;
    needs_everywhere(&mut tx).await?;
    let name = NAMES.into_iter().find(|name| *name == replay.projection);
    let name =
        name.ok_or_else(|| Error::Invalid(format!("`projection` must be one of {}", NAMES.join(", "))))?;
    let stand = wait_turn(tx.conn(), name).await?;
    let stand = stand.ok_or(Error::NotFound { entity: "projection" })?;
    forget_others(tx.conn(), name, stand.generation).await?;
    sqlx::query("UPDATE projection SET rebuilding = generation + 1, rebuilt_seq = 0 WHERE name = $1")
        .bind(name)
        .execute(tx.conn())
        .await?;
    let state = states(tx.conn(), &[name]).await?.pop();
    let state = state.ok_or(Error::NotFound { entity: "projection" })?;
    tx.audit(&Deed::on("rebuild", "projection", name).after(&state));
    let tenant = tx.tenant().clone();
    let reply = tx.finish(StatusCode::ACCEPTED, &state).await?;
    app.db.pulse().committed(&tenant);
    Ok(reply)
}
