//! What did tags do between two times, what did they say at one time, and what do they say now? Every question goes
//! through [`plan`], the one place that chooses between readings and rollups; [`fold`] makes buckets of what comes,
//! in bounded memory, and never smooths an extreme away.

mod fetch;
pub mod fold;
mod last;
mod limits;
mod overlay;
pub mod plan;

use protocol::{Micros, Quality};

use crate::kernel::tenancy::{TenancyError, TenantTx};

pub use fetch::{Asked, TagSpec, trend};
pub use fold::{Bucket, Gap, GapKind, TagTrend};
pub use last::{as_of, last};
pub use limits::{SeriesLimit, limits};
pub use overlay::{SeriesEvent, overlay};

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

/// The readings of a tag from `from_us` (inclusive) to `to_us` (exclusive) in about `points` points: the first, least,
/// greatest and last value of each bucket and its first missing one.
///
/// # Errors
/// [`TenancyError`].
pub async fn range(
    tx: &mut TenantTx,
    tag: TagSpec,
    (from_us, to_us): (Micros, Micros),
    points: usize,
    now_us: Micros,
) -> Result<RangeResult, TenancyError> {
    let asked = Asked {
        tags: &[tag],
        from_us,
        to_us,
        points: points.clamp(2, POINTS_MAX),
        now_us,
    };
    let mut found = trend(tx, &asked).await?;
    let Some(trend) = found.pop() else {
        return Ok(RangeResult {
            resolution_us: 0,
            points: vec![],
        });
    };
    if let Some(points) = trend.points {
        return Ok(RangeResult {
            resolution_us: 0,
            points,
        });
    }
    let mut shown = Vec::with_capacity(points + 5);
    for bucket in &trend.buckets {
        bucket.push_points(&mut shown);
    }
    Ok(RangeResult {
        resolution_us: trend.resolution_us,
        points: shown,
    })
}
