//! What were integrators' clients told is wrong in the last day? By client and code, so that somebody
//! who has no MQTT client at hand sees it too.

use axum::{Json as Answer, extract::State};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};

use super::TAG;
use crate::{
    app::App,
    error::Result,
    kernel::{caller::Caller, hex::hex, permission::Permission},
    request::{Page, Query, Rows},
};

/// An error that a client was told.
#[derive(Debug, Serialize, ToSchema)]
pub struct IntegratorError {
    /// The client.
    client: String,
    /// What is wrong: `BAD_JSON`.
    code: String,
    /// The same as a number, by which it is documented: `E101`.
    number: String,
    /// How often in the last day.
    count: i64,
    /// Where the newest was published.
    topic: String,
    /// What would be right, as the newest was told.
    hint: String,
    /// The place itself, shortened.
    sample: String,
    /// When the first of the last day came.
    first_us: Micros,
    /// When the newest came.
    last_us: Micros,
}

#[derive(FromRow)]
struct ErrorRow {
    client: String,
    code: String,
    number: String,
    count: i64,
    topic: String,
    hint: String,
    sample: String,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
}

impl From<ErrorRow> for IntegratorError {
    fn from(row: ErrorRow) -> Self {
        Self {
            client: row.client,
            code: row.code,
            number: row.number,
            count: row.count,
            topic: row.topic,
            hint: row.hint,
            sample: row.sample,
            first_us: row.first_at.timestamp_micros(),
            last_us: row.last_at.timestamp_micros(),
        }
    }
}

/// Narrows the list of errors.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ErrorQuery {
    /// Only errors of this client.
    client: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

/// Hours are whole: the last day is the present hour and the 24 before it.
const ERRORS: &str = "
SELECT e.name AS client, i.code, max(i.number) AS number, sum(i.count)::bigint AS count,
    (array_agg(i.topic ORDER BY i.hour DESC))[1] AS topic, (array_agg(i.hint ORDER BY i.hour DESC))[1] AS hint,
    (array_agg(i.sample ORDER BY i.hour DESC))[1] AS sample, min(i.first_at) AS first_at, max(i.last_at) AS last_at
FROM integrator_error i JOIN edge e ON e.id = i.edge_id
WHERE i.hour > $1::timestamptz - interval '25 hours' AND ($2::text IS NULL OR e.name = $2)
    AND ($3::text IS NULL OR encode(convert_to(e.name || ' ' || i.code, 'UTF8'), 'hex') COLLATE \"C\" > $3)
GROUP BY e.name, i.code ORDER BY encode(convert_to(e.name || ' ' || i.code, 'UTF8'), 'hex') COLLATE \"C\" LIMIT $4";

/// Lists what clients were told is wrong in the last day, by client and code.
#[utoipa::path(get, path = "/integrator/errors", operation_id = "list_integrator_errors", tag = TAG, security(("bearer" = ["tag.adopt"])),
    params(ErrorQuery), responses((status = 200, description = "Errors", body = Page<IntegratorError>)))]
pub async fn list_integrator_errors(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ErrorQuery>,
) -> Result<Answer<Page<IntegratorError>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::TagAdopt).await?;
    let found: Vec<ErrorRow> = sqlx::query_as(ERRORS)
        .bind(app.clock.now())
        .bind(&query.client)
        .bind(&query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let errors = found.into_iter().map(IntegratorError::from).collect();
    Ok(Answer(Page::of(errors, rows, |error: &IntegratorError| {
        // Opaque: a cursor stands in logs and in other people's links, where no name belongs.
        hex(format!("{} {}", error.client, error.code).as_bytes())
    })))
}
