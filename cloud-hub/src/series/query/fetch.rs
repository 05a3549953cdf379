//! How do readings and rollups come out of the database? Segment by segment of the plan, row by row into the fold:
//! what is in memory is the answer, however long the range.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use protocol::{Micros, Quality};
use sqlx::AssertSqlSafe;

use super::{
    Point,
    fold::{At, Fold, Gap, GapKind, Grain, Rules, TagTrend},
    last::as_of,
    plan::{Plan, Segment, Wanted, plan},
};
use crate::kernel::{
    clock::time_from_us,
    tenancy::{TenancyError, TenantTx},
};

/// A tag that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagSpec {
    /// Its number.
    pub id: i32,
    /// How often a reading of it is due; 0 on change.
    pub period_us: Micros,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Of which tags, each once.
    pub tags: &'a [TagSpec],
    /// From this source time on.
    pub from_us: Micros,
    /// Before this source time, after `from_us`.
    pub to_us: Micros,
    /// Most points a tag.
    pub points: usize,
    /// Now: what is still to come is no gap.
    pub now_us: Micros,
}

/// How far back a value may stand that was said before the range.
const STANDING_US_MAX: Micros = 86_400_000_000;

/// 9999-12-31: nothing here is later.
const LATEST_US: Micros = 253_402_214_400_000_000;

type ReadingRow = (i32, DateTime<Utc>, Option<f64>, i16);

/// What the tags did, in the order they were asked for.
///
/// # Errors
/// [`TenancyError`].
pub async fn trend(tx: &mut TenantTx, asked: &Asked<'_>) -> Result<Vec<TagTrend>, TenancyError> {
    // Compiling these short statements would take longer than running them.
    sqlx::query("SET LOCAL jit TO off").execute(tx.conn()).await?;
    let from_us = time_from_us(asked.from_us).timestamp_micros().min(LATEST_US);
    let to_us = asked.to_us.min(LATEST_US).max(from_us);
    let ids: Vec<i32> = asked.tags.iter().map(|tag| tag.id).collect();
    let plan = plan(&Wanted {
        from_us,
        to_us,
        points: asked.points,
        rows: rows_expected(asked.tags, to_us - from_us),
    });
    let mut folds: BTreeMap<i32, Fold> = asked
        .tags
        .iter()
        .map(|tag| {
            (
                tag.id,
                Fold::new(&plan, from_us, Rules::of(tag.period_us, asked.points)),
            )
        })
        .collect();
    for (tag_id, point) in as_of(tx, &ids, from_us - 1, STANDING_US_MAX).await? {
        if let Some(fold) = folds.get_mut(&tag_id) {
            fold.reading(point);
        }
    }
    for segment in &plan.segments {
        read(tx, segment, &ids, &mut folds).await?;
    }
    let end_us = to_us.min(asked.now_us.max(from_us));
    let mut explained = explained_gaps(tx, &ids, &plan).await?;
    let mut trends = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(fold) = folds.remove(&id) {
            let mut trend = fold.finish(id, end_us);
            trend.gaps.extend(explained.remove(&id).unwrap_or_default());
            trend.gaps.sort_by_key(|gap| (gap.from_us, gap.kind));
            trends.push(trend);
        }
    }
    Ok(trends)
}

/// Readings that the busiest tag has in such a span, where all of them are due at a fixed pace.
fn rows_expected(tags: &[TagSpec], span_us: Micros) -> Option<u64> {
    let busiest_us = tags.iter().map(|tag| tag.period_us).min()?;
    (busiest_us > 0).then(|| (span_us / busiest_us).unsigned_abs())
}

async fn read(
    tx: &mut TenantTx,
    segment: &Segment,
    ids: &[i32],
    folds: &mut BTreeMap<i32, Fold>,
) -> Result<(), TenancyError> {
    let (from, to) = (time_from_us(segment.from_us), time_from_us(segment.to_us));
    let Some(function) = segment.source.function() else {
        let mut rows = sqlx::query_as::<_, ReadingRow>(
            "SELECT tag_id, time, value, quality FROM reading \
             WHERE tag_id = ANY($1) AND time >= $2 AND time < $3 ORDER BY tag_id, time",
        )
        .bind(ids)
        .bind(from)
        .bind(to)
        .fetch(tx.conn());
        while let Some((tag_id, time, value, quality)) = rows.try_next().await? {
            if let Some(fold) = folds.get_mut(&tag_id) {
                fold.reading(Point {
                    time_us: time.timestamp_micros(),
                    value,
                    quality: Quality::from_i16(quality),
                });
            }
        }
        return Ok(());
    };
    // An interval of a plan begins and ends with a grain.
    let sql = format!(
        "SELECT b.tag_id, b.n, b.n_good, b.n_bad, b.min, b.min_at, b.max, b.max_at, b.first, b.first_at, b.last, \
           b.last_at, b.last_quality, b.tw_sum, b.tw_seconds \
         FROM unnest($1::int4[]) AS t (id) CROSS JOIN LATERAL {function}(t.id, $2, $3) b ORDER BY b.tag_id, b.bucket"
    );
    let mut rows = sqlx::query_as::<_, GrainRow>(AssertSqlSafe(sql))
        .bind(ids)
        .bind(from)
        .bind(to)
        .fetch(tx.conn());
    while let Some(row) = rows.try_next().await? {
        if let Some(fold) = folds.get_mut(&row.tag_id) {
            fold.grain(&row.grain());
        }
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct GrainRow {
    tag_id: i32,
    n: i32,
    n_good: i32,
    n_bad: i32,
    min: Option<f64>,
    min_at: Option<DateTime<Utc>>,
    max: Option<f64>,
    max_at: Option<DateTime<Utc>>,
    first: Option<f64>,
    first_at: DateTime<Utc>,
    last: Option<f64>,
    last_at: DateTime<Utc>,
    last_quality: i16,
    tw_sum: f64,
    tw_seconds: f64,
}

impl GrainRow {
    fn grain(&self) -> Grain {
        let at = |value: Option<f64>, time: Option<DateTime<Utc>>| {
            let time_us = time?.timestamp_micros();
            value.map(|value| At { time_us, value })
        };
        let count = |n: i32| u64::from(n.unsigned_abs());
        Grain {
            n: count(self.n),
            n_good: count(self.n_good),
            n_bad: count(self.n_bad),
            first_us: self.first_at.timestamp_micros(),
            last_us: self.last_at.timestamp_micros(),
            min: at(self.min, self.min_at),
            max: at(self.max, self.max_at),
            first: self.first,
            last: self.last,
            ends_good: Quality::from_i16(self.last_quality).is_good(),
            weighted: self.tw_sum,
            seconds: self.tw_seconds,
        }
    }
}

/// What edges said of readings that there are not: not taken, or given up.
const EXPLAINED: &str = "
SELECT n.tag_id, n.from_time, n.to_time, false AS is_lost, n.reason FROM not_read n
WHERE n.tag_id = ANY($1) AND n.from_time < $3 AND n.to_time >= $2
UNION ALL
SELECT t.id, g.from_time, g.to_time, true, g.reason FROM gap g JOIN tag t ON t.edge_id = g.edge_id
WHERE t.id = ANY($1) AND g.from_time < $3 AND g.to_time >= $2
ORDER BY 2 LIMIT 1000";

type ExplainedRow = (i32, DateTime<Utc>, DateTime<Utc>, bool, String);

async fn explained_gaps(
    tx: &mut TenantTx,
    ids: &[i32],
    plan: &Plan,
) -> Result<BTreeMap<i32, Vec<Gap>>, TenancyError> {
    let (Some(first), Some(last)) = (plan.segments.first(), plan.segments.last()) else {
        return Ok(BTreeMap::new());
    };
    let rows: Vec<ExplainedRow> = sqlx::query_as(EXPLAINED)
        .bind(ids)
        .bind(time_from_us(first.from_us))
        .bind(time_from_us(last.to_us))
        .fetch_all(tx.conn())
        .await?;
    let mut gaps: BTreeMap<i32, Vec<Gap>> = BTreeMap::new();
    for (tag_id, from, to, is_lost, reason) in rows {
        gaps.entry(tag_id).or_default().push(Gap {
            from_us: from.timestamp_micros(),
            to_us: to.timestamp_micros(),
            kind: if is_lost { GapKind::Lost } else { GapKind::NotRead },
            reason: Some(reason),
        });
    }
    Ok(gaps)
}
