//! What did many tags do between two times, what did they say at one time, and what do they say now?

use axum::{Json, extract::State};
use protocol::{Micros, Quality};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, permission::Permission, scope::Grants, tenancy::TenantTx},
    request::Query,
    series::query::{
        self, Asked, Bucket, Gap, POINTS_MAX, Point, SeriesEvent, SeriesLimit, TagSpec, TagTrend, fold::At,
        limits, overlay, trend,
    },
};

const POINTS_DEFAULT: usize = 600;
/// Tags of one trend, and points of all of them together.
const TREND_TAGS_MAX: usize = 20;
const POINTS_TOTAL_MAX: usize = 100_000;
/// Tags whose value at one time is asked for.
const LAST_TAGS_MAX: usize = 1_000;
const BACK_US_DEFAULT: Micros = 86_400_000_000;
const BACK_US_MAX: Micros = 31 * 86_400_000_000;

// === a range ===

/// Which series to give.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SeriesQuery {
    /// Numbers of 1 to 20 tags, separated by commas.
    tags: String,
    /// From this source time on.
    from_us: Micros,
    /// Before this source time.
    to_us: Micros,
    /// Most points a tag; 600 when absent.
    points: Option<usize>,
    /// Whether deviations, alarms and holds in the range are wanted too, as far as the caller may see them.
    events: Option<bool>,
    /// Whether the limits in force in the range are wanted too, as far as the caller may see them.
    limits: Option<bool>,
}

/// Time, value (null marks bad quality), quality.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeriesPoint(Micros, Option<f64>, u16);

/// Time and value.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeriesValue(Micros, f64);

/// What a stretch says. Values are those that are not bad; the mean is of the good ones alone, weighed by time.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeriesBucket {
    /// Start of it; it is `resolution_us` wide.
    from_us: Micros,
    /// Readings.
    n: u64,
    /// Good ones of them.
    n_good: u64,
    /// The first value.
    first: Option<SeriesValue>,
    /// The least.
    min: Option<SeriesValue>,
    /// The greatest.
    max: Option<SeriesValue>,
    /// The last value.
    last: Option<SeriesValue>,
    /// Time-weighted mean of the good values.
    mean: Option<f64>,
    /// Worst quality of the values.
    quality: u16,
}

/// A stretch without a usable value: no line is drawn through it.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeriesGap {
    /// Start.
    from_us: Micros,
    /// End.
    to_us: Micros,
    /// `silent`: nothing came; `bad`: only bad readings; `not_read`: its edge did not take them; `lost`: its edge had
    /// them and had to give them up.
    kind: &'static str,
    /// Why, where its edge said so.
    reason: Option<String>,
}

/// What one tag did.
#[derive(Debug, Serialize, ToSchema)]
pub struct TagSeries {
    tag_id: i32,
    /// Name of the tag.
    name: String,
    /// Unit of its values.
    unit: String,
    /// How often a reading is due; 0 on change.
    period_ms: i32,
    /// Width of a bucket; 0 when `points` are the readings themselves.
    resolution_us: Micros,
    /// The readings themselves; null when they are too many.
    points: Option<Vec<SeriesPoint>>,
    /// Buckets that hold readings; empty when there are points.
    buckets: Vec<SeriesBucket>,
    /// Stretches without a usable value, in order.
    gaps: Vec<SeriesGap>,
    /// Gaps beyond those.
    gaps_left_out: u64,
    /// Readings in the range.
    n: u64,
    /// Share of good ones among them, 0 to 1; null without readings.
    good_share: Option<f64>,
    /// Time-weighted mean of the good values.
    mean: Option<f64>,
    /// Seconds of the range in which a good value stood.
    good_s: f64,
    /// Critical limits and thresholds of alarm rules that were in force in the range; empty when not asked for.
    limits: Vec<SeriesLimit>,
}

/// Many tags over one range.
#[derive(Debug, Serialize, ToSchema)]
pub struct Series {
    from_us: Micros,
    to_us: Micros,
    /// In the order they were asked for.
    tags: Vec<TagSeries>,
    /// Deviations, alarms and holds, newest first; empty when not asked for.
    events: Vec<SeriesEvent>,
}

/// Gives what tags did, in as few points as asked for and without losing an extreme.
#[utoipa::path(get, path = "/plant-ops/series", operation_id = "read_series", tag = TAG, security(("bearer" = ["reading.read"])),
    params(SeriesQuery), responses((status = 200, description = "Series", body = Series)))]
pub async fn read_series(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<Series>> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::ReadingRead).await?;
    let ids = tag_numbers(&query.tags, TREND_TAGS_MAX)?;
    let points = query.points.unwrap_or(POINTS_DEFAULT);
    if query.from_us >= query.to_us {
        return Err(Error::Invalid("`from_us` must be before `to_us`".to_owned()));
    }
    if !(4..=POINTS_MAX).contains(&points) || points * ids.len() > POINTS_TOTAL_MAX {
        return Err(Error::Invalid(format!(
            "`points` must be 4 to {POINTS_MAX}, and at most {POINTS_TOTAL_MAX} for all tags together"
        )));
    }
    let tags = known_tags(&mut tx, &ids).await?;
    let specs: Vec<TagSpec> = tags.iter().map(KnownTag::spec).collect();
    let asked = Asked {
        tags: &specs,
        from_us: query.from_us,
        to_us: query.to_us,
        points,
        now_us: app.clock.now_us(),
    };
    let found = trend(&mut tx, &asked).await?;
    let range = (query.from_us, query.to_us);
    let events = if query.events.unwrap_or(false) {
        let kinds = [
            ("deviation", Permission::DeviationRead),
            ("alarm", Permission::AlarmRead),
            ("hold", Permission::HoldRead),
        ];
        overlay(&mut tx, &ids, range, &visible(&grants, &kinds)).await?
    } else {
        vec![]
    };
    let in_force = if query.limits.unwrap_or(false) {
        let kinds = [("critical", Permission::CcpRead), ("rule", Permission::AlarmRead)];
        limits(&mut tx, &ids, range, &visible(&grants, &kinds)).await?
    } else {
        vec![]
    };
    Ok(Json(Series {
        from_us: query.from_us,
        to_us: query.to_us,
        tags: tags
            .into_iter()
            .zip(found)
            .map(|(tag, trend)| shown(tag, trend, &in_force))
            .collect(),
        events,
    }))
}

/// What happens on the lines of a series is told to who may read it there anyhow.
fn visible(grants: &Grants, kinds: &[(&'static str, Permission)]) -> Vec<&'static str> {
    let readings = grants.scope(Permission::ReadingRead);
    kinds
        .iter()
        .filter(|(_, permission)| grants.scope(*permission) == readings)
        .map(|(kind, _)| *kind)
        .collect()
}

fn shown(tag: KnownTag, trend: TagTrend, in_force: &[SeriesLimit]) -> TagSeries {
    TagSeries {
        limits: in_force
            .iter()
            .filter(|limit| limit.tag_id == tag.id)
            .cloned()
            .collect(),
        tag_id: tag.id,
        name: tag.name,
        unit: tag.unit,
        period_ms: tag.period_ms,
        resolution_us: trend.resolution_us,
        points: trend
            .points
            .as_deref()
            .map(|points| points.iter().map(SeriesPoint::of).collect()),
        buckets: trend.buckets.iter().map(SeriesBucket::of).collect(),
        gaps: trend.gaps.into_iter().map(SeriesGap::of).collect(),
        gaps_left_out: trend.gaps_left_out,
        n: trend.n,
        good_share: (trend.n > 0).then(|| trend.n_good as f64 / trend.n as f64),
        mean: trend.mean,
        good_s: trend.seconds,
    }
}

impl SeriesPoint {
    fn of(point: &Point) -> Self {
        Self(point.time_us, point.value, point.quality.code())
    }
}

impl SeriesBucket {
    fn of(bucket: &Bucket) -> Self {
        let value = |at: Option<At>| at.map(|at| SeriesValue(at.time_us, at.value));
        // A bucket of bad readings alone has no value to be good.
        let bad = bucket
            .bad
            .filter(|_| bucket.first.is_none())
            .map(|(_, quality)| quality);
        Self {
            from_us: bucket.from_us,
            n: bucket.n,
            n_good: bucket.n_good,
            first: value(bucket.first),
            min: value(bucket.min),
            max: value(bucket.max),
            last: value(bucket.last),
            mean: bucket.mean(),
            quality: bad.unwrap_or(bucket.quality).code(),
        }
    }
}

impl SeriesGap {
    fn of(gap: Gap) -> Self {
        Self {
            from_us: gap.from_us,
            to_us: gap.to_us,
            kind: gap.kind.as_str(),
            reason: gap.reason,
        }
    }
}

// === the tags of a question ===

#[derive(Debug, FromRow)]
pub(super) struct KnownTag {
    pub(super) id: i32,
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) period_ms: i32,
}

impl KnownTag {
    fn spec(&self) -> TagSpec {
        TagSpec {
            id: self.id,
            period_us: Micros::from(self.period_ms) * 1_000,
        }
    }
}

/// The numbers in a list, each once, in its order.
pub(super) fn tag_numbers(list: &str, most: usize) -> Result<Vec<i32>> {
    let mut ids = Vec::new();
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let id = word.parse().map_err(|_| {
            let shown: String = word.chars().take(20).collect();
            Error::Invalid(format!("`tags`: `{}` is no tag number", shown.escape_default()))
        })?;
        if !ids.contains(&id) {
            ids.push(id);
        }
        if ids.len() > most {
            return Err(Error::Invalid(format!("`tags` names at most {most} tags")));
        }
    }
    if ids.is_empty() {
        return Err(Error::Invalid("`tags` names at least one tag".to_owned()));
    }
    Ok(ids)
}

/// Those tags, in that order; all of them must be known to the caller.
pub(super) async fn known_tags(tx: &mut TenantTx, ids: &[i32]) -> Result<Vec<KnownTag>> {
    let found: Vec<KnownTag> = sqlx::query_as(
        "SELECT t.id, t.name, t.unit, t.period_ms FROM tag t WHERE t.id = ANY($1) ORDER BY array_position($1, t.id)",
    )
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    if found.len() == ids.len() {
        Ok(found)
    } else {
        Err(Error::NotFound { entity: "tag" })
    }
}

// === one time ===

/// What a tag says.
#[derive(Debug, Serialize, ToSchema)]
pub struct TagValue {
    tag_id: i32,
    /// Source time.
    time_us: Micros,
    /// Null marks bad quality.
    value: Option<f64>,
    /// High 16 bits of the OPC UA status code.
    quality: u16,
}

/// What tags say at one time.
#[derive(Debug, Serialize, ToSchema)]
pub struct TagValues {
    /// The time that was asked for; now, for last values.
    at_us: Micros,
    /// Tags that had said something by then.
    values: Vec<TagValue>,
}

/// Which values to give.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LastQuery {
    /// Numbers of tags, separated by commas, at most 1000; the first 1000 tags when absent. Unknown ones are left out.
    tags: Option<String>,
}

/// Which values to give, as of when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AsOfQuery {
    /// Numbers of tags, separated by commas, at most 1000.
    tags: String,
    /// Source time.
    at_us: Micros,
    /// How old a value may be then; a day when absent, at most 31 days.
    #[param(minimum = 1)]
    back_us: Option<Micros>,
}

impl TagValue {
    fn of((tag_id, point): (i32, Point)) -> Self {
        Self {
            tag_id,
            time_us: point.time_us,
            value: point.value,
            quality: point.quality.code(),
        }
    }
}

const LAST_VALUES: &str = "
SELECT l.tag_id, (extract(epoch FROM l.time) * 1000000)::bigint, l.value, l.quality
FROM tag t JOIN tag_last l ON l.tag_id = t.id WHERE $1::int4[] IS NULL OR t.id = ANY($1) ORDER BY t.id LIMIT $2";

/// Gives what up to a thousand tags say now.
#[utoipa::path(get, path = "/plant-ops/series/last", operation_id = "read_last_values", tag = TAG, security(("bearer" = ["reading.read"])),
    params(LastQuery), responses((status = 200, description = "Values", body = TagValues)))]
pub async fn read_last_values(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<LastQuery>,
) -> Result<Json<TagValues>> {
    let mut tx = caller.begin(&app, Permission::ReadingRead).await?;
    let ids = query
        .tags
        .as_deref()
        .map(|list| tag_numbers(list, LAST_TAGS_MAX))
        .transpose()?;
    let rows: Vec<(i32, Micros, Option<f64>, i16)> = sqlx::query_as(LAST_VALUES)
        .bind(ids)
        .bind(LAST_TAGS_MAX as i64)
        .fetch_all(tx.conn())
        .await?;
    let value = |(tag_id, time_us, value, quality): (i32, Micros, Option<f64>, i16)| TagValue {
        tag_id,
        time_us,
        value,
        quality: Quality::from_i16(quality).code(),
    };
    Ok(Json(TagValues {
        at_us: app.clock.now_us(),
        values: rows.into_iter().map(value).collect(),
    }))
}

/// Gives what tags said at one time: for each the newest reading at or before it.
#[utoipa::path(get, path = "/plant-ops/series/as-of", operation_id = "read_series_as_of", tag = TAG, security(("bearer" = ["reading.read"])),
    params(AsOfQuery), responses((status = 200, description = "Values", body = TagValues)))]
pub async fn read_series_as_of(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AsOfQuery>,
) -> Result<Json<TagValues>> {
    let mut tx = caller.begin(&app, Permission::ReadingRead).await?;
    let ids = tag_numbers(&query.tags, LAST_TAGS_MAX)?;
    let back_us = query.back_us.unwrap_or(BACK_US_DEFAULT);
    if !(1..=BACK_US_MAX).contains(&back_us) {
        return Err(Error::Invalid(format!("`back_us` must be 1 to {BACK_US_MAX}")));
    }
    known_tags(&mut tx, &ids).await?;
    let found = query::as_of(&mut tx, &ids, query.at_us, back_us).await?;
    Ok(Json(TagValues {
        at_us: query.at_us,
        values: found.into_iter().map(TagValue::of).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tags_is_read_once_each_and_refused_when_it_is_none() {
        assert_eq!(tag_numbers("3, 1,3,", 2).unwrap(), [3, 1]);
        for wrong in ["", ",", "1,x", "1,2,3", "99999999999"] {
            assert!(tag_numbers(wrong, 2).is_err(), "{wrong}");
        }
    }
}
