//! What else happened in a range? Deviations, alarms and holds that a trend is drawn over.

use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::kernel::{
    clock::time_from_us,
    tenancy::{TenancyError, TenantTx},
};

/// Most events an answer names, newest first.
pub(super) const EVENTS_MAX: i64 = 500;

/// Something that happened in a range.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow, ToSchema)]
pub struct SeriesEvent {
    /// `deviation`, `alarm` or `hold`.
    pub kind: String,
    /// Which one.
    pub id: Uuid,
    /// Code of the control point, alarm or hold.
    pub code: String,
    /// What it is about: a tag, a control point, a reason.
    pub subject: String,
    /// When it began.
    pub from_us: Micros,
    /// When it ended; none while it lasts.
    pub to_us: Option<Micros>,
    /// Priority of an alarm, 1 most urgent.
    pub priority: Option<i16>,
}

/// Of the tags' lines and names; what belongs to no line is about all of them.
const EVENTS: &str = "
WITH t AS (SELECT name, line_id FROM tag WHERE id = ANY($1)), e AS (
    SELECT 'deviation' AS kind, d.id, c.code, c.tag_name AS subject, coalesce(lower(d.suspect), d.detected_at) AS began,
        upper(d.suspect) AS ended, NULL::int2 AS priority
    FROM deviation d JOIN ccp c ON c.id = d.ccp_id
    WHERE d.suspect && tstzrange($2, $3) AND (c.line_id IN (SELECT line_id FROM t) OR c.tag_name IN (SELECT name FROM t))
    UNION ALL
    SELECT 'alarm', a.id, a.code, a.subject, a.raised_at, a.cleared_at, a.priority
    FROM alarm a
    WHERE a.withdrawn_at IS NULL AND a.raised_at < $3 AND coalesce(a.cleared_at, 'infinity') >= $2
        AND (a.line_id IN (SELECT line_id FROM t) OR a.subject IN (SELECT name FROM t))
    UNION ALL
    SELECT 'hold', h.id, h.code, h.reason, h.placed_at, NULL, NULL
    FROM hold h LEFT JOIN deviation d ON d.id = h.deviation_id LEFT JOIN ccp c ON c.id = d.ccp_id
    WHERE h.placed_at >= $2 AND h.placed_at < $3
        AND (c.line_id IN (SELECT line_id FROM t) OR c.tag_name IN (SELECT name FROM t) OR h.deviation_id IS NULL)
)
SELECT kind, id, code, subject, (extract(epoch FROM began) * 1000000)::bigint AS from_us,
    (extract(epoch FROM ended) * 1000000)::bigint AS to_us, priority
FROM e WHERE kind = ANY($5) ORDER BY began DESC, id LIMIT $4";

/// What of `kinds` (`deviation`, `alarm`, `hold`) touches a range on the tags' lines, newest first, a bounded
/// number.
///
/// # Errors
/// [`TenancyError`].
pub async fn overlay(
    tx: &mut TenantTx,
    tag_ids: &[i32],
    (from_us, to_us): (Micros, Micros),
    kinds: &[&str],
) -> Result<Vec<SeriesEvent>, TenancyError> {
    let (from, to): (DateTime<Utc>, DateTime<Utc>) = (time_from_us(from_us), time_from_us(to_us));
    Ok(sqlx::query_as(EVENTS)
        .bind(tag_ids)
        .bind(from)
        .bind(to)
        .bind(EVENTS_MAX)
        .bind(kinds)
        .fetch_all(tx.conn())
        .await?)
}
