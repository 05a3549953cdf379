//! How are the edges: in touch, how far behind, on which version?

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{TAG, config::EdgeConfigState};
use crate::{
    app::App,
    error::Result,
    kernel::tenancy::TenantTx,
    kernel::{caller::Caller, permission::Permission},
    request::{ListQuery, Page, Query, Rows},
};

/// An edge reports every ten seconds; three missed reports mean that it is away.
const SILENT_US_MAX: Micros = 35_000_000;

/// Whether an edge is in touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeState {
    /// It reports.
    Online,
    /// It did.
    Offline,
    /// It never has.
    Never,
    /// It calls over HTTP when it has something to say, and is not missed when it does not.
    OnDemand,
}

/// An edge and its health.
#[derive(Debug, Serialize, ToSchema)]
pub struct Edge {
    /// Stable id.
    pub id: Uuid,
    /// Name, unique in the tenant.
    pub name: String,
    /// Whether it is in touch.
    pub state: EdgeState,
    /// When it last said anything.
    pub last_seen_us: Option<Micros>,
    /// When its last frame was stored.
    pub last_frame_us: Option<Micros>,
    /// How old its newest reading was when it was stored.
    pub lag_ms: Option<i64>,
    /// Frames that wait on it.
    pub backlog_frames: Option<i64>,
    /// Source time of the oldest record that waits on it.
    pub oldest_us: Option<Micros>,
    /// Its software.
    pub version: Option<String>,
    /// Names its last start.
    pub boot: Option<Uuid>,
    /// When its credentials were taken away; null while they are good.
    pub revoked_us: Option<Micros>,
    /// Newest configuration that it was sent from here; null when it was sent none.
    pub config_revision: Option<i64>,
    /// What it made of that configuration.
    #[schema(value_type = Option<EdgeConfigState>)]
    pub config_state: Option<String>,
    /// Commands that it has not answered yet.
    pub commands_open: i64,
    /// End of its newest client certificate; null when it has none from here.
    pub certificate_until_us: Option<Micros>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    is_online: bool,
    is_sessionless: bool,
    boot: Option<Uuid>,
    software: Option<String>,
    last_seen_at: Option<DateTime<Utc>>,
    last_frame_at: Option<DateTime<Utc>>,
    newest_time: Option<DateTime<Utc>>,
    backlog_frames: Option<i64>,
    oldest_time: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    config_revision: Option<i64>,
    config_state: Option<String>,
    commands_open: i64,
    certificate_until: Option<DateTime<Utc>>,
}

fn edge_state(is_online: bool, last_seen_us: Option<Micros>, now_us: Micros) -> EdgeState {
    match last_seen_us {
        None => EdgeState::Never,
        Some(seen_us) if is_online && now_us - seen_us <= SILENT_US_MAX => EdgeState::Online,
        Some(_) => EdgeState::Offline,
    }
}

fn present(row: Row, now_us: Micros) -> Edge {
    let micros = |time: DateTime<Utc>| time.timestamp_micros();
    let last_seen_us = row.last_seen_at.max(row.last_frame_at).map(micros);
    let lag = row
        .last_frame_at
        .zip(row.newest_time)
        .map(|(stored, newest)| stored - newest);
    Edge {
        id: row.id,
        name: row.name,
        state: if row.is_sessionless {
            EdgeState::OnDemand
        } else {
            edge_state(row.is_online, last_seen_us, now_us)
        },
        last_seen_us,
        last_frame_us: row.last_frame_at.map(micros),
        lag_ms: lag.map(|lag| lag.num_milliseconds().max(0)),
        backlog_frames: row.backlog_frames,
        oldest_us: row.oldest_time.map(micros),
        version: row.software,
        boot: row.boot,
        revoked_us: row.revoked_at.map(micros),
        config_revision: row.config_revision,
        config_state: row.config_state,
        commands_open: row.commands_open,
        certificate_until_us: row.certificate_until.map(micros),
    }
}

/// Every edge of a tenant, by name, up to `limit`, after the edge `cursor`.
///
/// # Errors
/// When the database does not answer.
pub async fn edges(tx: &mut TenantTx, cursor: Option<Uuid>, limit: i64, now_us: Micros) -> Result<Vec<Edge>> {
    let found: Vec<Row> = sqlx::query_as(
        "SELECT e.id, e.name, e.is_online, e.is_sessionless, e.boot, e.software, e.last_seen_at, e.last_frame_at, \
           e.newest_time, e.backlog_frames, e.oldest_time, e.revoked_at, g.revision AS config_revision, g.state AS config_state, \
           (SELECT count(*) FROM edge_command c WHERE c.edge_id = e.id AND c.state IN ('waiting', 'sent')) \
             AS commands_open, \
           (SELECT max(x.not_after) FROM edge_certificate x WHERE x.edge_id = e.id AND x.revoked_at IS NULL) \
             AS certificate_until \
         FROM edge e LEFT JOIN LATERAL (SELECT n.revision, n.state FROM edge_config n WHERE n.edge_id = e.id \
           ORDER BY n.revision DESC LIMIT 1) g ON true \
         WHERE $1::uuid IS NULL OR e.name > (SELECT p.name FROM edge p WHERE p.id = $1) ORDER BY e.name LIMIT $2",
    )
    .bind(cursor)
    .bind(limit)
    .fetch_all(tx.conn())
    .await?;
    Ok(found.into_iter().map(|row| present(row, now_us)).collect())
}

/// Lists the edges by name, each with its health.
#[utoipa::path(get, path = "/edges", operation_id = "list_edges", tag = TAG, security(("bearer" = ["edge.read"])), params(ListQuery),
    responses((status = 200, description = "Edges", body = Page<Edge>)))]
pub async fn list_edges(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Edge>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::EdgeRead).await?;
    let found = edges(&mut tx, query.cursor, rows.fetched(), app.clock.now_us()).await?;
    Ok(Json(Page::of(found, rows, |edge| edge.id.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_that_misses_three_reports_is_offline_even_if_it_never_said_goodbye() {
        assert_eq!(edge_state(true, None, 0), EdgeState::Never);
        assert_eq!(edge_state(true, Some(0), SILENT_US_MAX), EdgeState::Online);
        assert_eq!(edge_state(true, Some(0), SILENT_US_MAX + 1), EdgeState::Offline);
        assert_eq!(edge_state(false, Some(0), 1), EdgeState::Offline);
    }
}
