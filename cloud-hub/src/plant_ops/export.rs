//! How do readings and batches leave as a whole?

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::IntoParams;
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::Caller,
        clock::time_from_us,
        export::{self, Asked, Exported, Format, FormatParam},
        permission::Permission,
    },
    request::Query,
};

/// Which readings to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadingExportQuery {
    /// The tag; every tag when absent.
    tag_id: Option<i32>,
    /// From this source time on.
    from_us: Micros,
    /// Before this source time.
    to_us: Micros,
    /// `csv` when absent.
    #[param(inline)]
    format: Option<Format>,
}

#[derive(Serialize, Deserialize, FromRow)]
struct ReadingRow {
    tag: String,
    source_us: Micros,
    value: Option<f64>,
    unit: String,
    quality: String,
    quality_code: i32,
}

// The high half of an OPC UA status code is kept as signed bits; its two highest say good, uncertain or bad.
const READINGS: &str = "
SELECT t.name AS tag, (extract(epoch FROM r.time) * 1000000)::bigint AS source_us, r.value, t.unit,
    CASE (r.quality::int & 65535) >> 14 WHEN 0 THEN 'good' WHEN 1 THEN 'uncertain' ELSE 'bad' END AS quality,
    r.quality::int & 65535 AS quality_code
FROM reading r JOIN tag t ON t.id = r.tag_id
WHERE r.time >= $1 AND r.time < $2 AND ($3::int IS NULL OR r.tag_id = $3)
ORDER BY r.tag_id, r.time";

/// Exports readings as they were stored, none thinned out.
#[utoipa::path(get, path = "/plant-ops/readings/export", operation_id = "export_readings", tag = TAG, security(("bearer" = ["reading.read"])),
    params(ReadingExportQuery), responses(Exported))]
pub async fn export_readings(
    State(app): State<App>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    Query(query): Query<ReadingExportQuery>,
) -> Result<Response> {
    if query.from_us >= query.to_us {
        return Err(Error::Invalid("`from_us` must be before `to_us`".to_owned()));
    }
    let tx = caller.begin(&app, Permission::ReadingRead).await?;
    let rows = sqlx::query_as::<_, ReadingRow>(READINGS)
        .bind(time_from_us(query.from_us))
        .bind(time_from_us(query.to_us))
        .bind(query.tag_id);
    let asked = Asked {
        entity: "reading",
        plural: "readings",
        query: raw.unwrap_or_default(),
        format: query.format.unwrap_or_default(),
    };
    export::answer(&app, tx, asked, rows).await
}

#[derive(Serialize, Deserialize, FromRow)]
struct BatchRow {
    id: Uuid,
    code: String,
    sku: String,
    line: String,
    state: String,
    started_us: Option<Micros>,
    completed_us: Option<Micros>,
    lot_code: Option<String>,
}

const BATCHES: &str = "
SELECT b.id, b.code, s.code AS sku, l.code AS line, b.state,
    (extract(epoch FROM b.started_at) * 1000000)::bigint AS started_us,
    (extract(epoch FROM b.completed_at) * 1000000)::bigint AS completed_us,
    (SELECT x.code FROM lot x WHERE x.batch_id = b.id AND x.kind = 'finished'
        ORDER BY lower(x.produced_range) DESC NULLS LAST, x.id DESC LIMIT 1) AS lot_code
FROM batch b JOIN sku s ON s.id = b.sku_id JOIN line l ON l.id = b.line_id
ORDER BY b.id";

/// Exports the batches in the order they were planned.
#[utoipa::path(get, path = "/plant-ops/batches/export", operation_id = "export_batches", tag = TAG, security(("bearer" = ["batch.read"])),
    params(FormatParam), responses(Exported))]
pub async fn export_batches(
    State(app): State<App>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    Query(query): Query<FormatParam>,
) -> Result<Response> {
    let tx = caller.begin(&app, Permission::BatchRead).await?;
    let asked = Asked {
        entity: "batch",
        plural: "batches",
        query: raw.unwrap_or_default(),
        format: query.format.unwrap_or_default(),
    };
    export::answer(&app, tx, asked, sqlx::query_as::<_, BatchRow>(BATCHES)).await
}
