//! Which product must not leave, and why?

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, types};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{TAG, deviation::OpenStatus};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, permission::Permission},
    request::{Page, Path, Query, Rows},
};

/// A lot under a hold.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HeldLot {
    /// The lot.
    pub lot_id: Uuid,
    /// Its traceability code.
    pub lot_code: String,
    /// Code of what it is; empty where that is no SKU.
    pub sku: String,
    /// How much of it there is.
    pub quantity: f64,
    /// Unit of the quantity.
    pub unit: String,
    /// Its status now.
    pub status: String,
}

/// A hold.
#[derive(Debug, Serialize, ToSchema)]
pub struct Hold {
    /// Stable id.
    pub id: Uuid,
    /// Number for people, for example `H-101`.
    pub code: String,
    /// `open` or `closed`.
    #[schema(value_type = OpenStatus)]
    pub status: String,
    /// The deviation that placed it; null when it is on a line out of the caller's reach.
    pub deviation_id: Option<Uuid>,
    /// Why, in a sentence.
    pub reason: String,
    /// When.
    pub placed_us: Micros,
    /// Whether whole batches are held because the flow of product was not known well enough.
    pub widened: bool,
    /// What is held, as far as the caller's lines reach.
    pub lots: Vec<HeldLot>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    code: String,
    status: String,
    deviation_id: Option<Uuid>,
    reason: String,
    placed_at: DateTime<Utc>,
    widened: bool,
    lots: types::Json<Vec<HeldLot>>,
}

impl From<Row> for Hold {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            code: row.code,
            status: row.status,
            deviation_id: row.deviation_id,
            reason: row.reason,
            placed_us: row.placed_at.timestamp_micros(),
            widened: row.widened,
            lots: row.lots.0,
        }
    }
}

/// Narrows the list of holds.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HoldQuery {
    /// Only holds of this status.
    status: Option<OpenStatus>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

const SELECT: &str = "
SELECT h.id, h.code, h.status, d.id AS deviation_id, h.reason, h.placed_at, h.widened,
    coalesce((SELECT jsonb_agg(jsonb_build_object('lot_id', l.id, 'lot_code', l.code,
            'sku', coalesce(s.code, ''), 'quantity', l.quantity, 'unit', l.unit, 'status', l.status)
            ORDER BY l.code)
        FROM hold_lot hl JOIN lot l ON l.id = hl.lot_id LEFT JOIN sku s ON s.id = l.sku_id
        WHERE hl.hold_id = h.id), '[]') AS lots
FROM hold h LEFT JOIN deviation d ON d.id = h.deviation_id";

/// Lists holds, newest first.
#[utoipa::path(get, path = "/fsq/holds", operation_id = "list_holds", tag = TAG, security(("bearer" = ["hold.read"])), params(HoldQuery),
    responses((status = 200, description = "Holds", body = Page<Hold>)))]
pub async fn list_holds(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<HoldQuery>,
) -> Result<Json<Page<Hold>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::HoldRead).await?;
    let sql = format!(
        "{SELECT} WHERE ($1::text IS NULL OR h.status = $1) AND ($2::uuid IS NULL OR (h.placed_at, h.id) < \
           (SELECT p.placed_at, p.id FROM hold p WHERE p.id = $2)) \
         ORDER BY h.placed_at DESC, h.id DESC LIMIT $3"
    );
    let found: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.status.map(OpenStatus::as_str))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let holds = found.into_iter().map(Hold::from).collect();
    Ok(Json(Page::of(holds, rows, |hold: &Hold| hold.id.to_string())))
}

/// Reads one hold.
#[utoipa::path(get, path = "/fsq/holds/{id}", operation_id = "read_hold", tag = TAG, security(("bearer" = ["hold.read"])),
    params(("id" = Uuid, Path, description = "Hold")),
    responses((status = 200, description = "The hold", body = Hold)))]
pub async fn read_hold(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Json<Hold>> {
    let mut tx = caller.begin(&app, Permission::HoldRead).await?;
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE h.id = $1")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(|row| Json(row.into()))
        .ok_or(Error::NotFound { entity: "hold" })
}
