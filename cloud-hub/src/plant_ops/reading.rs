//! What did a tag do between two times?

use axum::{Json, extract::State};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, permission::Permission},
    request::Query,
    series::query::{POINTS_MAX, TagSpec, range},
};

const POINTS_DEFAULT: usize = 600;

/// Which readings to give.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadingQuery {
    /// The tag.
    tag_id: i32,
    /// From this source time on.
    from_us: Micros,
    /// Before this source time.
    to_us: Micros,
    /// About how many points; 600 when absent.
    points: Option<usize>,
}

/// Time, value (null marks bad quality), quality.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadingPoint(Micros, Option<f64>, u16);

/// Readings of one tag.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readings {
    tag_id: i32,
    from_us: Micros,
    to_us: Micros,
    /// 0 when the points are the readings themselves, else the width of a bucket that gives its first, least,
    /// greatest and last reading.
    resolution_us: Micros,
    /// In time order.
    points: Vec<ReadingPoint>,
}

/// Gives a tag's readings, thinned without losing an extreme.
#[utoipa::path(get, path = "/plant-ops/readings", operation_id = "list_readings", tag = TAG, security(("bearer" = ["reading.read"])),
    params(ReadingQuery), responses((status = 200, description = "Readings", body = Readings)))]
pub async fn list_readings(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ReadingQuery>,
) -> Result<Json<Readings>> {
    let points = query.points.unwrap_or(POINTS_DEFAULT);
    if query.from_us >= query.to_us {
        return Err(Error::Invalid("`from_us` must be before `to_us`".to_owned()));
    }
    if !(2..=POINTS_MAX).contains(&points) {
        return Err(Error::Invalid(format!("`points` must be 2 to {POINTS_MAX}")));
    }
    let mut tx = caller.begin(&app, Permission::ReadingRead).await?;
    let known: Option<(i32, i32)> = sqlx::query_as("SELECT id, period_ms FROM tag WHERE id = $1")
        .bind(query.tag_id)
        .fetch_optional(tx.conn())
        .await?;
    let (tag_id, period_ms) = known.ok_or(Error::NotFound { entity: "tag" })?;
    let tag = TagSpec {
        id: tag_id,
        period_us: Micros::from(period_ms) * 1_000,
    };
    let asked = (query.from_us, query.to_us);
    let found = range(&mut tx, tag, asked, points, app.clock.now_us()).await?;
    let points = found
        .points
        .iter()
        .map(|it| ReadingPoint(it.time_us, it.value, it.quality.code()));
    Ok(Json(Readings {
        tag_id,
        from_us: query.from_us,
        to_us: query.to_us,
        resolution_us: found.resolution_us,
        points: points.collect(),
    }))
}
