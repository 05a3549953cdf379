//! Which readings did their sources correct, and what did they say before?

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use protocol::{Micros, Quality};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, clock::time_from_us, permission::Permission},
    request::Query,
};

/// Readings of one answer, each with all its versions.
const READINGS_MAX: i64 = 1_000;

/// Which corrections to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VersionQuery {
    /// The tag.
    tag_id: i32,
    /// From this source time on.
    from_us: Micros,
    /// Before this source time.
    to_us: Micros,
}

/// One version of a reading.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadingVersion {
    /// Time of the reading.
    time_us: Micros,
    /// In the order in which the versions came, from 1.
    number: i32,
    /// As the source numbers it.
    rev: Option<i64>,
    /// Value; null marks bad quality.
    value: Option<f64>,
    /// Quality.
    quality: u16,
    /// The client that sent it.
    client: Option<String>,
    /// When the hub noted it; of the first version, when the second came.
    recorded_us: Micros,
    /// Whether it is the one that holds.
    is_current: bool,
}

/// Versions of a tag's readings.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadingVersions {
    tag_id: i32,
    /// By time and number.
    versions: Vec<ReadingVersion>,
    /// From where on there are more; null: these are all.
    next_from_us: Option<Micros>,
}

#[derive(FromRow)]
struct Row {
    time: DateTime<Utc>,
    number: i32,
    rev: Option<i64>,
    value: Option<f64>,
    quality: i16,
    client: Option<String>,
    recorded_at: DateTime<Utc>,
    is_current: bool,
    next: Option<DateTime<Utc>>,
}

const SELECT: &str = "
WITH t AS (
    SELECT DISTINCT time FROM reading_version WHERE tag_id = $1 AND time >= $2 AND time < $3 ORDER BY time LIMIT $4 + 1
), last AS (
    SELECT time FROM t ORDER BY time OFFSET $4 LIMIT 1
)
SELECT v.time, v.number, v.rev, v.value, v.quality, e.name AS client, v.recorded_at,
    row_number() OVER (PARTITION BY v.time ORDER BY v.rev DESC NULLS LAST, v.number DESC) = 1 AS is_current,
    (SELECT time FROM last) AS next
FROM reading_version v JOIN t ON t.time = v.time LEFT JOIN edge e ON e.id = v.edge_id
WHERE v.tag_id = $1 AND v.time < coalesce((SELECT time FROM last), 'infinity') ORDER BY v.time, v.number";

/// Gives every version of those readings of a tag that their source numbered or corrected.
#[utoipa::path(get, path = "/plant-ops/series/versions", operation_id = "list_reading_versions", tag = TAG, security(("bearer" = ["reading.read"])),
    params(VersionQuery), responses((status = 200, description = "Versions", body = ReadingVersions)))]
pub async fn list_reading_versions(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<VersionQuery>,
) -> Result<Json<ReadingVersions>> {
    let VersionQuery {
        tag_id,
        from_us,
        to_us,
    } = query;
    if from_us >= to_us {
        return Err(Error::Invalid("`from_us` must be before `to_us`".to_owned()));
    }
    let mut tx = caller.begin(&app, Permission::ReadingRead).await?;
    let known: Option<i32> = sqlx::query_scalar("SELECT id FROM tag WHERE id = $1")
        .bind(tag_id)
        .fetch_optional(tx.conn())
        .await?;
    known.ok_or(Error::NotFound { entity: "tag" })?;
    let rows: Vec<Row> = sqlx::query_as(SELECT)
        .bind(tag_id)
        .bind(time_from_us(from_us))
        .bind(time_from_us(to_us))
        .bind(READINGS_MAX)
        .fetch_all(tx.conn())
        .await?;
    let next = rows.first().and_then(|row| row.next);
    Ok(Json(ReadingVersions {
        tag_id,
        versions: rows.into_iter().map(ReadingVersion::from).collect(),
        next_from_us: next.map(|at| at.timestamp_micros()),
    }))
}

impl From<Row> for ReadingVersion {
    fn from(row: Row) -> Self {
        Self {
            time_us: row.time.timestamp_micros(),
            number: row.number,
            rev: row.rev,
            value: row.value,
            quality: Quality::from_i16(row.quality).code(),
            client: row.client,
            recorded_us: row.recorded_at.timestamp_micros(),
            is_current: row.is_current,
        }
    }
}
