//! What is each line doing: running or not and since when, how fast, which batch, and what is wrong there?
//! State comes from the line's rate tag, never from somebody's typing.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use protocol::{Micros, Quality, quality::Status};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::tenancy::TenantTx,
    kernel::{caller::Caller, permission::Permission},
    request::{ListQuery, Page, Path, Query, Rows},
};

/// A rate older than this says nothing about now.
const RATE_AGE_US_MAX: Micros = 60_000_000;

/// Whether a line makes product now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineState {
    /// The rate is above zero.
    Running,
    /// The rate is zero.
    Stopped,
    /// No rate that can be trusted.
    Unknown,
}

/// Decides a line's state from its newest rate.
pub fn line_state(rate: Option<(Micros, Option<f64>, Quality)>, now_us: Micros) -> LineState {
    match rate {
        Some((time_us, Some(rate), quality))
            // A rate of a time to come says nothing of now, and must not excuse a silent control point.
            if (-RATE_AGE_US_MAX..=RATE_AGE_US_MAX).contains(&(now_us - time_us)) && quality.status() != Status::Bad =>
        {
            if rate > 0.0 {
                LineState::Running
            } else {
                LineState::Stopped
            }
        }
        _ => LineState::Unknown,
    }
}

/// The batch that runs on a line.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunningBatch {
    /// Stable id.
    pub id: Uuid,
    /// Batch code.
    pub code: String,
    /// Code of what is made.
    pub sku: String,
    /// Traceability code of the finished lot, once there is one.
    pub lot_code: Option<String>,
}

/// A production line as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Line {
    /// Stable id.
    pub id: Uuid,
    /// Code, for example `L1`.
    pub code: String,
    /// Name for people.
    pub name: String,
    /// The plant it stands in.
    pub plant_id: Uuid,
    /// Running, stopped or unknown.
    pub state: LineState,
    /// Since when it is in that state, if that began within the last eight hours.
    pub since_us: Option<Micros>,
    /// Newest rate.
    pub rate_per_min: Option<f64>,
    /// Rate it should reach.
    pub target_per_min: Option<f64>,
    /// The batch that runs.
    pub batch: Option<RunningBatch>,
    /// Open holds that arose here or hold a lot made here.
    pub open_holds: i64,
    /// Open deviations of this line's control points.
    pub open_deviations: i64,
    /// Tags shown first on the line's page.
    pub key_tags: Vec<i32>,
    /// The tag that carries the rate.
    pub rate_tag_id: Option<i32>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    code: String,
    name: String,
    plant_id: Uuid,
    target_per_min: f64,
    rate_tag_id: Option<i32>,
    rate_time: Option<DateTime<Utc>>,
    rate: Option<f64>,
    rate_quality: Option<i16>,
    batch_id: Option<Uuid>,
    batch_code: Option<String>,
    batch_sku: Option<String>,
    batch_lot: Option<String>,
    open_holds: i64,
    open_deviations: i64,
    key_tags: Vec<i32>,
}

const SELECT: &str = "
SELECT l.id, l.code, l.name, l.plant_id, l.target_per_min, t.id AS rate_tag_id,
    r.time AS rate_time, r.value AS rate, r.quality AS rate_quality,
    b.id AS batch_id, b.code AS batch_code, s.code AS batch_sku, lot.code AS batch_lot,
    (SELECT count(*) FROM hold h WHERE h.status = 'open' AND (
        EXISTS (SELECT FROM deviation d JOIN ccp c ON c.id = d.ccp_id WHERE d.id = h.deviation_id AND c.line_id = l.id)
        OR EXISTS (SELECT FROM hold_lot hl JOIN lot x ON x.id = hl.lot_id JOIN batch xb ON xb.id = x.batch_id
            WHERE hl.hold_id = h.id AND xb.line_id = l.id))) AS open_holds,
    (SELECT count(*) FROM deviation d JOIN ccp c ON c.id = d.ccp_id
        WHERE d.status = 'open' AND c.line_id = l.id) AS open_deviations,
    ARRAY(SELECT k.id FROM unnest(l.key_tags) WITH ORDINALITY AS n (name, place)
        JOIN tag k ON k.name = n.name ORDER BY n.place) AS key_tags
FROM line l
LEFT JOIN tag t ON t.name = l.rate_tag
LEFT JOIN tag_last r ON r.tag_id = t.id
LEFT JOIN batch b ON b.line_id = l.id AND b.state = 'running'
LEFT JOIN sku s ON s.id = b.sku_id
LEFT JOIN LATERAL (SELECT x.code FROM lot x WHERE x.batch_id = b.id AND x.kind = 'finished'
    ORDER BY lower(x.produced_range) DESC NULLS LAST, x.id DESC LIMIT 1) lot ON true";

/// Where the present state began: after the last reading of the opposite kind, or at the first reading ever.
const SINCE: &str = "
SELECT CASE WHEN o.time IS NOT NULL
    THEN (SELECT min(r.time) FROM reading r WHERE r.tag_id = $1 AND r.time > o.time)
    ELSE (SELECT f.time FROM (SELECT r.time FROM reading r WHERE r.tag_id = $1 ORDER BY r.time LIMIT 1) f
        WHERE f.time > $3) END
FROM (SELECT (SELECT r.time FROM reading r WHERE r.tag_id = $1 AND r.time > $3 AND (r.value > 0) = NOT $2
    ORDER BY r.time DESC LIMIT 1) AS time) o";

async fn since(
    tx: &mut TenantTx,
    tag_id: i32,
    state: LineState,
    now: DateTime<Utc>,
) -> Result<Option<Micros>> {
    if state == LineState::Unknown {
        return Ok(None);
    }
    let since: Option<DateTime<Utc>> = sqlx::query_scalar(SINCE)
        .bind(tag_id)
        .bind(state == LineState::Running)
        .bind(now - chrono::Duration::hours(8))
        .fetch_one(tx.conn())
        .await?;
    Ok(since.map(|time| time.timestamp_micros()))
}

async fn present(app: &App, tx: &mut TenantTx, row: Row) -> Result<Line> {
    let rate = row.rate_time.zip(row.rate_quality);
    let rate = rate.map(|(time, quality)| (time.timestamp_micros(), row.rate, Quality::from_i16(quality)));
    let state = line_state(rate, app.clock.now_us());
    let since_us = match row.rate_tag_id {
        Some(tag_id) => since(tx, tag_id, state, app.clock.now()).await?,
        None => None,
    };
    let batch = row.batch_id.zip(row.batch_code).zip(row.batch_sku);
    Ok(Line {
        id: row.id,
        code: row.code,
        name: row.name,
        plant_id: row.plant_id,
        state,
        since_us,
        rate_per_min: if state == LineState::Unknown {
            None
        } else {
            row.rate
        },
        target_per_min: Some(row.target_per_min),
        batch: batch.map(|((id, code), sku)| RunningBatch {
            id,
            code,
            sku,
            lot_code: row.batch_lot,
        }),
        open_holds: row.open_holds,
        open_deviations: row.open_deviations,
        key_tags: row.key_tags,
        rate_tag_id: row.rate_tag_id,
    })
}

/// Lists the lines by code, each as it is now.
#[utoipa::path(get, path = "/plant-ops/lines", operation_id = "list_lines", tag = TAG, security(("bearer" = ["plant.read"])), params(ListQuery),
    responses((status = 200, description = "Lines", body = Page<Line>)))]
pub async fn list_lines(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Line>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::PlantRead).await?;
    let sql = format!(
        "{SELECT} WHERE $1::uuid IS NULL OR l.code > (SELECT c.code FROM line c WHERE c.id = $1) \
         ORDER BY l.code LIMIT $2"
    );
    let found: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let mut lines = Vec::with_capacity(found.len());
    for row in found {
        lines.push(present(&app, &mut tx, row).await?);
    }
    Ok(Json(Page::of(lines, rows, |line| line.id.to_string())))
}

/// Reads one line as it is now.
#[utoipa::path(get, path = "/plant-ops/lines/{id}", operation_id = "read_line", tag = TAG, security(("bearer" = ["plant.read"])),
    params(("id" = Uuid, Path, description = "Line")),
    responses((status = 200, description = "The line", body = Line)))]
pub async fn read_line(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Json<Line>> {
    let mut tx = caller.begin(&app, Permission::PlantRead).await?;
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE l.id = $1")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    let row = row.ok_or(Error::NotFound { entity: "line" })?;
    present(&app, &mut tx, row).await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_runs_while_a_fresh_rate_is_above_zero() {
        let now_us = 100_000_000;
        let state = |age_us, value, quality| line_state(Some((now_us - age_us, value, quality)), now_us);
        assert_eq!(state(0, Some(79.5), Quality::GOOD), LineState::Running);
        assert_eq!(state(0, Some(0.0), Quality::GOOD), LineState::Stopped);
        assert_eq!(state(60_000_001, Some(79.5), Quality::GOOD), LineState::Unknown);
        assert_eq!(state(0, None, Quality::BAD), LineState::Unknown);
        assert_eq!(line_state(None, now_us), LineState::Unknown);
    }
}
