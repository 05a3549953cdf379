//! Which points are measured, where, within which limits, and what did each say last?

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use protocol::{Micros, Quality};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::Result,
    kernel::{caller::Caller, permission::Permission},
    request::{Page, Query, Rows},
};

/// The newest reading of a tag.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LastReading {
    /// Source time.
    pub time_us: Micros,
    /// Null marks bad quality.
    pub value: Option<f64>,
    /// High 16 bits of the OPC UA status code.
    pub quality: u16,
}

impl LastReading {
    /// From the columns of `tag_last`, which are null together.
    pub fn from_columns(
        time: Option<DateTime<Utc>>,
        value: Option<f64>,
        quality: Option<i16>,
    ) -> Option<Self> {
        let quality = Quality::from_i16(quality?).code();
        Some(Self {
            time_us: time?.timestamp_micros(),
            value,
            quality,
        })
    }
}

/// A measured point.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tag {
    /// Number, stable within the tenant.
    pub id: i32,
    /// Name, for example `TT-101`.
    pub name: String,
    /// What it measures.
    pub description: String,
    /// Unit of its values.
    pub unit: String,
    /// The line it belongs to.
    pub line_id: Option<Uuid>,
    /// Name of the edge that reads it.
    pub edge: Option<String>,
    /// How often a reading is due; 0 means on change.
    pub period_ms: i32,
    /// Lowest value that its control point allows.
    pub limit_low: Option<f64>,
    /// Highest value that its control point allows.
    pub limit_high: Option<f64>,
    /// The control point that watches it.
    pub ccp_id: Option<Uuid>,
    /// Its newest reading.
    pub last: Option<LastReading>,
}

#[derive(FromRow)]
struct Row {
    id: i32,
    name: String,
    description: String,
    unit: String,
    line_id: Option<Uuid>,
    edge: Option<String>,
    period_ms: i32,
    limit_low: Option<f64>,
    limit_high: Option<f64>,
    ccp_id: Option<Uuid>,
    time: Option<DateTime<Utc>>,
    value: Option<f64>,
    quality: Option<i16>,
}

impl From<Row> for Tag {
    fn from(row: Row) -> Self {
        Self {
            last: LastReading::from_columns(row.time, row.value, row.quality),
            id: row.id,
            name: row.name,
            description: row.description,
            unit: row.unit,
            line_id: row.line_id,
            edge: row.edge,
            period_ms: row.period_ms,
            limit_low: row.limit_low,
            limit_high: row.limit_high,
            ccp_id: row.ccp_id,
        }
    }
}

/// Narrows the list of tags.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TagQuery {
    /// Only tags of this line.
    line_id: Option<Uuid>,
    /// Only the tag of this name.
    name: Option<String>,
    /// `next` of the page before.
    cursor: Option<i32>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

const SELECT: &str = "
SELECT t.id, t.name, t.description, t.unit, t.line_id, e.name AS edge, t.period_ms,
    c.limit_low, c.limit_high, c.id AS ccp_id, r.time, r.value, r.quality
FROM tag t
LEFT JOIN edge e ON e.id = t.edge_id
LEFT JOIN tag_last r ON r.tag_id = t.id
LEFT JOIN LATERAL (SELECT x.id, x.limit_low, x.limit_high FROM ccp x WHERE x.tag_name = t.name
    ORDER BY x.code LIMIT 1) c ON true
WHERE ($1::uuid IS NULL OR t.line_id = $1) AND ($2::text IS NULL OR t.name = $2)
    AND ($3::int IS NULL OR t.name > (SELECT p.name FROM tag p WHERE p.id = $3))
ORDER BY t.name LIMIT $4";

/// Lists tags by name, each with its newest reading.
#[utoipa::path(get, path = "/plant-ops/tags", operation_id = "list_tags", tag = TAG, security(("bearer" = ["plant.read"])), params(TagQuery),
    responses((status = 200, description = "Tags", body = Page<Tag>)))]
pub async fn list_tags(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<TagQuery>,
) -> Result<Json<Page<Tag>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::PlantRead).await?;
    let found: Vec<Row> = sqlx::query_as(SELECT)
        .bind(query.line_id)
        .bind(query.name)
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let tags = found.into_iter().map(Tag::from).collect();
    Ok(Json(Page::of(tags, rows, |tag: &Tag| tag.id.to_string())))
}
