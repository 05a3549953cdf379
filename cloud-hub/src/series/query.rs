//! What did a tag do between two times? Raw readings when they are few, else the least and the greatest
//! reading of each bucket, so that no reading out of limit is ever smoothed away.

use chrono::{DateTime, Utc};
use protocol::{Micros, Quality};

use crate::kernel::{
    clock::time_from_us,
    tenancy::{TenancyError, TenantTx},
};

/// Most points one range may ask for.
pub const POINTS_MAX: usize = 10_000;

/// A reading as it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Source time.
    pub time_us: Micros,
    /// The value; none when the quality is bad.
    pub value: Option<f64>,
    /// Its quality.
    pub quality: Quality,
}

/// The answer to a range query.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeResult {
    /// Width of a bucket; 0 when the points are the readings themselves.
    pub resolution_us: Micros,
    /// In time order.
    pub points: Vec<Point>,
}

type Row = (DateTime<Utc>, Option<f64>, i16);

fn point((time, value, quality): Row) -> Point {
    Point {
        time_us: time.timestamp_micros(),
        value,
        quality: Quality::from_i16(quality),
    }
}

/// The readings of a tag from `from_us` (inclusive) to `to_us` (exclusive) in about `points` points.
///
/// # Errors
/// [`TenancyError`].
pub async fn range(
    tx: &mut TenantTx,
    tag_id: i32,
    from_us: Micros,
    to_us: Micros,
    points: usize,
) -> Result<RangeResult, TenancyError> {
    let points = points.clamp(2, POINTS_MAX);
    let (from, to) = (time_from_us(from_us), time_from_us(to_us));
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT time, value, quality FROM reading WHERE tag_id = $1 AND time >= $2 AND time < $3 \
         ORDER BY time LIMIT $4",
    )
    .bind(tag_id)
    .bind(from)
    .bind(to)
    .bind(points as i64 + 1)
    .fetch_all(tx.conn())
    .await?;
    if rows.len() <= points {
        return Ok(RangeResult {
            resolution_us: 0,
            points: rows.into_iter().map(point).collect(),
        });
    }
    let resolution_us = bucket_us(from_us, to_us, points);
    let buckets: Vec<Bucket> = sqlx::query_as(BUCKETS)
        .bind(tag_id)
        .bind(from)
        .bind(to)
        .bind(resolution_us as f64 / 1e6)
        .fetch_all(tx.conn())
        .await?;
    Ok(RangeResult {
        resolution_us,
        points: buckets.into_iter().flat_map(Bucket::points).collect(),
    })
}

/// Two points a bucket: the fewest buckets of equal width that do not exceed `points`.
fn bucket_us(from_us: Micros, to_us: Micros, points: usize) -> Micros {
    let buckets = (points / 2).max(1) as i64;
    (to_us.saturating_sub(from_us)).div_euclid(buckets) + 1
}

const BUCKETS: &str = "
WITH r AS MATERIALIZED (
    SELECT date_bin(make_interval(secs => $4), time, $2) AS bucket, time, value, quality
    FROM reading WHERE tag_id = $1 AND time >= $2 AND time < $3
), g AS (
    SELECT bucket, min(value) AS lo, max(value) AS hi,
           min(time) FILTER (WHERE value IS NULL) AS bad_time,
           max(quality) FILTER (WHERE value IS NULL) AS bad_quality
    FROM r GROUP BY bucket
)
SELECT min(r.time) FILTER (WHERE r.value = g.lo) AS lo_time, g.lo,
       max(r.quality) FILTER (WHERE r.value = g.lo) AS lo_quality,
       min(r.time) FILTER (WHERE r.value = g.hi) AS hi_time, g.hi,
       max(r.quality) FILTER (WHERE r.value = g.hi) AS hi_quality,
       g.bad_time, g.bad_quality
FROM r JOIN g USING (bucket)
GROUP BY bucket, g.lo, g.hi, g.bad_time, g.bad_quality
ORDER BY bucket";

#[derive(sqlx::FromRow)]
struct Bucket {
    lo_time: Option<DateTime<Utc>>,
    lo: Option<f64>,
    lo_quality: Option<i16>,
    hi_time: Option<DateTime<Utc>>,
    hi: Option<f64>,
    hi_quality: Option<i16>,
    bad_time: Option<DateTime<Utc>>,
    bad_quality: Option<i16>,
}

impl Bucket {
    /// The least, the greatest and the first missing value, each once, in time order.
    fn points(self) -> Vec<Point> {
        let found = [
            (self.lo_time, self.lo, self.lo_quality),
            (self.hi_time, self.hi, self.hi_quality),
            (self.bad_time, None, self.bad_quality),
        ];
        let mut points: Vec<Point> = found
            .into_iter()
            .filter_map(|(time, value, quality)| Some(point((time?, value, quality?))))
            .collect();
        points.sort_by_key(|point| point.time_us);
        points.dedup();
        points
    }
}

/// The newest reading of each of `tag_ids`; tags without one are absent.
///
/// # Errors
/// [`TenancyError`].
pub async fn last(tx: &mut TenantTx, tag_ids: &[i32]) -> Result<Vec<(i32, Point)>, TenancyError> {
    let rows: Vec<(i32, DateTime<Utc>, Option<f64>, i16)> =
        sqlx::query_as("SELECT tag_id, time, value, quality FROM tag_last WHERE tag_id = ANY($1)")
            .bind(tag_ids)
            .fetch_all(tx.conn())
            .await?;
    Ok(rows
        .into_iter()
        .map(|(tag_id, time, value, quality)| (tag_id, point((time, value, quality))))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_the_range_in_no_more_than_the_points_asked_for() {
        for (from, to, points) in [(0, 3_600_000_000, 600), (5, 7, 2), (0, 1, 10_000)] {
            let width = bucket_us(from, to, points);
            let buckets = (to - from + width - 1) / width;
            assert!(
                width > 0 && buckets * 2 <= points as i64,
                "{from} {to} {points} {width}"
            );
        }
    }

    #[test]
    fn a_bucket_with_one_value_gives_one_point() {
        let time = time_from_us(1_000_000);
        let bucket = Bucket {
            lo_time: Some(time),
            lo: Some(4.0),
            lo_quality: Some(0),
            hi_time: Some(time),
            hi: Some(4.0),
            hi_quality: Some(0),
            bad_time: None,
            bad_quality: None,
        };
        assert_eq!(bucket.points().len(), 1);
    }
}
