//! Which lots are there, and may they leave?

use axum::{
    Json,
    extract::{RawQuery, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::Caller,
        export::{self, Asked, Exported, Format},
        permission::Permission,
    },
    request::{Page, Path, Query, Rows},
};

/// What may be done with a lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LotStatus {
    /// Being made.
    InProcess,
    /// Waits for a test or a paper.
    Quarantined,
    /// Under a hold.
    Held,
    /// Free to go.
    Released,
}

impl LotStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in_process",
            Self::Quarantined => "quarantined",
            Self::Held => "held",
            Self::Released => "released",
        }
    }
}

/// A traceable quantity of one item.
#[derive(Debug, Serialize, ToSchema)]
pub struct Lot {
    /// Stable id.
    pub id: Uuid,
    /// Traceability lot code.
    pub code: String,
    /// Code of what it is, where that is a SKU.
    pub sku: Option<String>,
    /// What it is, in words.
    pub item_name: String,
    /// `raw_material`, `packaging`, `wip`, `finished` or `rework`.
    pub kind: String,
    /// `released`, `held`, `quarantined` or `in_process`.
    #[schema(value_type = LotStatus)]
    pub status: String,
    /// How much of it there is.
    pub quantity: f64,
    /// Unit of the quantity.
    pub unit: String,
    /// From when it was produced.
    pub produced_from_us: Option<Micros>,
    /// Until when; null while it is being produced.
    pub produced_to_us: Option<Micros>,
    /// The batch it was made in.
    pub batch_id: Option<Uuid>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    code: String,
    sku: Option<String>,
    item_name: String,
    kind: String,
    status: String,
    quantity: f64,
    unit: String,
    produced_from: Option<DateTime<Utc>>,
    produced_to: Option<DateTime<Utc>>,
    batch_id: Option<Uuid>,
}

impl From<Row> for Lot {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            code: row.code,
            sku: row.sku,
            item_name: row.item_name,
            kind: row.kind,
            status: row.status,
            quantity: row.quantity,
            unit: row.unit,
            produced_from_us: row.produced_from.map(|time| time.timestamp_micros()),
            produced_to_us: row.produced_to.map(|time| time.timestamp_micros()),
            batch_id: row.batch_id,
        }
    }
}

/// Narrows the list of lots.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LotQuery {
    /// Only lots of this status.
    status: Option<LotStatus>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

const SELECT: &str = "
SELECT l.id, l.code, s.code AS sku, l.item_name, l.kind, l.status, l.quantity, l.unit,
    lower(l.produced_range) AS produced_from, upper(l.produced_range) AS produced_to, l.batch_id
FROM lot l LEFT JOIN sku s ON s.id = l.sku_id";

/// Lists lots, newest first.
#[utoipa::path(get, path = "/fsq/lots", operation_id = "list_lots", tag = TAG, security(("bearer" = ["lot.read"])), params(LotQuery),
    responses((status = 200, description = "Lots", body = Page<Lot>)))]
pub async fn list_lots(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<LotQuery>,
) -> Result<Json<Page<Lot>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::LotRead).await?;
    let sql = format!(
        "{SELECT} WHERE ($1::text IS NULL OR l.status = $1) AND ($2::uuid IS NULL OR l.id < $2) \
         ORDER BY l.id DESC LIMIT $3"
    );
    let found: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.status.map(LotStatus::as_str))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let lots = found.into_iter().map(Lot::from).collect();
    Ok(Json(Page::of(lots, rows, |lot: &Lot| lot.id.to_string())))
}

/// Which lots to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LotExportQuery {
    /// Only lots of this status.
    status: Option<LotStatus>,
    /// `csv` when absent.
    #[param(inline)]
    format: Option<Format>,
}

#[derive(Serialize, Deserialize, FromRow)]
struct ExportRow {
    id: Uuid,
    code: String,
    sku: Option<String>,
    item_name: String,
    kind: String,
    status: String,
    quantity: f64,
    unit: String,
    produced_from_us: Option<Micros>,
    produced_to_us: Option<Micros>,
    batch_id: Option<Uuid>,
}

const EXPORT: &str = "
SELECT l.id, l.code, s.code AS sku, l.item_name, l.kind, l.status, l.quantity, l.unit,
    (extract(epoch FROM lower(l.produced_range)) * 1000000)::bigint AS produced_from_us,
    (extract(epoch FROM upper(l.produced_range)) * 1000000)::bigint AS produced_to_us, l.batch_id
FROM lot l LEFT JOIN sku s ON s.id = l.sku_id
WHERE $1::text IS NULL OR l.status = $1 ORDER BY l.id";

/// Exports the lots, oldest first.
#[utoipa::path(get, path = "/fsq/lots/export", operation_id = "export_lots", tag = TAG, security(("bearer" = ["lot.read"])), params(LotExportQuery),
    responses(Exported))]
pub async fn export_lots(
    State(app): State<App>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    Query(query): Query<LotExportQuery>,
) -> Result<Response> {
    let tx = caller.begin(&app, Permission::LotRead).await?;
    let asked = Asked {
        entity: "lot",
        plural: "lots",
        query: raw.unwrap_or_default(),
        format: query.format.unwrap_or_default(),
    };
    let rows = sqlx::query_as::<_, ExportRow>(EXPORT).bind(query.status.map(LotStatus::as_str));
    export::answer(&app, tx, asked, rows).await
}

/// Reads one lot.
#[utoipa::path(get, path = "/fsq/lots/{id}", operation_id = "read_lot", tag = TAG, security(("bearer" = ["lot.read"])),
    params(("id" = Uuid, Path, description = "Lot")),
    responses((status = 200, description = "The lot", body = Lot)))]
pub async fn read_lot(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Json<Lot>> {
    let mut tx = caller.begin(&app, Permission::LotRead).await?;
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE l.id = $1")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(|row| Json(row.into()))
        .ok_or(Error::NotFound { entity: "lot" })
}
