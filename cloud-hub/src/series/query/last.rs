//! What does each tag say now, and what did it say then? Now from `tag_last`, then by one step into the index a tag.

use chrono::{DateTime, Utc};
use protocol::{Micros, Quality};

use super::Point;
use crate::kernel::{
    clock::time_from_us,
    tenancy::{TenancyError, TenantTx},
};

type Row = (i32, DateTime<Utc>, Option<f64>, i16);

fn point((tag_id, time, value, quality): Row) -> (i32, Point) {
    let point = Point {
        time_us: time.timestamp_micros(),
        value,
        quality: Quality::from_i16(quality),
    };
    (tag_id, point)
}

/// The newest reading of each of `tag_ids`; tags without one are absent.
///
/// # Errors
/// [`TenancyError`].
pub async fn last(tx: &mut TenantTx, tag_ids: &[i32]) -> Result<Vec<(i32, Point)>, TenancyError> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT tag_id, time, value, quality FROM tag_last WHERE tag_id = ANY($1)")
            .bind(tag_ids)
            .fetch_all(tx.conn())
            .await?;
    Ok(rows.into_iter().map(point).collect())
}

/// The newest reading of each of `tag_ids` at or before `at_us`, at most `back_us` old then; tags without one are
/// absent.
///
/// # Errors
/// [`TenancyError`].
pub async fn as_of(
    tx: &mut TenantTx,
    tag_ids: &[i32],
    at_us: Micros,
    back_us: Micros,
) -> Result<Vec<(i32, Point)>, TenancyError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT k.tag_id, r.time, r.value, r.quality FROM unnest($1::int4[]) AS k (tag_id) \
         CROSS JOIN LATERAL (SELECT x.time, x.value, x.quality FROM reading x \
           WHERE x.tag_id = k.tag_id AND x.time <= $2 AND x.time >= $3 ORDER BY x.time DESC LIMIT 1) r",
    )
    .bind(tag_ids)
    .bind(time_from_us(at_us))
    .bind(time_from_us(at_us.saturating_sub(back_us)))
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(point).collect())
}
