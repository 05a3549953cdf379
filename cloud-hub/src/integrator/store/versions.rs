//! Which versions of a reading are there, and how does another one take effect? What is known is read with the readings;
//! what is new is written after them, in the order in which it came.

use std::{collections::HashMap, hash::Hash};

use chrono::{DateTime, Utc};
use protocol::{Micros, Quality, integrator::Version};
use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

use crate::{
    kernel::{
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
    },
    series::bus::Sample,
};

/// A version to be noted once the readings are stored.
#[derive(Debug)]
pub(super) struct Later {
    pub(super) edge_id: Uuid,
    pub(super) sample: Sample,
    pub(super) rev: Option<i64>,
    /// Whether it is the first of its tag and time: then only its number is noted.
    pub(super) is_first: bool,
}

const KNOWN: &str = "
SELECT n.tag_id, n.time, v.value, v.quality, v.rev
FROM (SELECT DISTINCT * FROM unnest($1::int4[], $2::timestamptz[]) AS n (tag_id, time)) n
JOIN LATERAL (
    SELECT 0 AS number, x.value, x.quality, NULL::int8 AS rev FROM (SELECT r.value, r.quality FROM reading r
        WHERE r.tag_id = n.tag_id AND r.time = n.time LIMIT 1) x
    WHERE NOT EXISTS (SELECT FROM reading_version v WHERE v.tag_id = n.tag_id AND v.time = n.time)
    UNION ALL
    SELECT v.number, v.value, v.quality, v.rev FROM reading_version v WHERE v.tag_id = n.tag_id AND v.time = n.time
) v ON true
ORDER BY n.tag_id, n.time, v.number";

/// The versions that tags have at these times already, in the order in which they came.
pub(super) async fn known(
    tx: &mut BulkTx<'_>,
    samples: impl Iterator<Item = &Sample> + Clone,
) -> Result<HashMap<(i32, Micros), Vec<Version>>, BulkError> {
    let tags: Vec<i32> = samples.clone().map(|sample| sample.tag_id).collect();
    let times: Vec<DateTime<Utc>> = samples.map(|sample| time_from_us(sample.time_us)).collect();
    if tags.is_empty() {
        return Ok(HashMap::new());
    }
    Ok(by_time(&tx.query(KNOWN, &[&tags, &times]).await?))
}

/// Versions by what they are of and when, from rows `of, time, value, quality, rev` in the order in which they came.
pub(super) fn by_time<'r, K: FromSql<'r> + Eq + Hash>(rows: &'r [Row]) -> HashMap<(K, Micros), Vec<Version>> {
    let mut known: HashMap<(K, Micros), Vec<Version>> = HashMap::new();
    for row in rows {
        let time: DateTime<Utc> = row.get(1);
        let version = Version {
            value: row.get(2),
            quality: Quality::from_i16(row.get(3)),
            rev: row.get(4),
        };
        known
            .entry((row.get(0), time.timestamp_micros()))
            .or_default()
            .push(version);
    }
    known
}

/// Notes versions; those that changed a tag's newest value, for live pages.
pub(super) async fn store(tx: &mut BulkTx<'_>, later: &[Later]) -> Result<Vec<Sample>, BulkError> {
    let mut newest = Vec::new();
    for Later {
        edge_id,
        sample,
        rev,
        is_first,
    } in later
    {
        let (time, quality) = (time_from_us(sample.time_us), sample.quality.cast_signed());
        if *is_first {
            tx.execute(
                "INSERT INTO reading_version (tag_id, time, number, rev, value, quality, edge_id) \
                 VALUES ($1, $2, 1, $3, $4, $5, $6)",
                &[&sample.tag_id, &time, rev, &sample.value, &quality, edge_id],
            )
            .await?;
            continue;
        }
        let changed = tx
            .query(
                "SELECT revise_reading($1, $2, $3, $4, $5, $6)",
                &[&sample.tag_id, &time, &sample.value, &quality, rev, edge_id],
            )
            .await?;
        if changed.first().is_some_and(|row| row.get(0)) {
            newest.push(*sample);
        }
    }
    Ok(newest)
}
