//! Which limits did a tag have in a range? Critical limits and thresholds of alarm rules, each with the times between
//! which it was in force: a limit that changed is two limits, one after the other.

use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;

use crate::kernel::{
    clock::time_from_us,
    tenancy::{TenancyError, TenantTx},
};

/// Most limits an answer names; a rule that changes more often than this is drawn without its oldest versions.
const LIMITS_MAX: i64 = 500;

/// A limit while it was in force.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow, ToSchema)]
pub struct SeriesLimit {
    /// The tag it is of.
    #[serde(skip)]
    pub tag_id: i32,
    /// `critical`, or `rule` for the threshold of an alarm rule.
    pub kind: String,
    /// Code of the control point or rule.
    pub code: String,
    /// Its version.
    pub version: i32,
    /// Lowest value allowed.
    pub low: Option<f64>,
    /// Highest value allowed.
    pub high: Option<f64>,
    /// Priority of a rule's alarms, 1 most urgent.
    pub priority: Option<i16>,
    /// Since when; null: longer than the range.
    pub from_us: Option<Micros>,
    /// Until when; null while it lasts.
    pub to_us: Option<Micros>,
}

/// A critical limit is in force where its edge has put it in force, which is when the edge's answer came; one of no edge,
/// or whose command the caller may not see (it is about the whole edge), from when it was set. What the
/// edge refused was never in force. Before the first change the limit was what that took the place of.
const LIMITS: &str = "
WITH t AS (SELECT id, name FROM tag WHERE id = ANY($1)),
set_here AS (
    SELECT v.ccp_id, v.version, v.low, v.high,
        CASE WHEN m.id IS NULL THEN v.created_at ELSE m.answered_at END AS began
    FROM ccp_limit v LEFT JOIN edge_command m ON m.id = v.command_id
    WHERE m.id IS NULL OR m.state IN ('done', 'already_so')
), critical AS (
    SELECT ccp_id, version, low, high, began, lead(began) OVER w AS ended FROM set_here
    WINDOW w AS (PARTITION BY ccp_id ORDER BY version)
    UNION ALL
    SELECT f.ccp_id, f.version - 1, f.low_before, f.high_before, NULL::timestamptz,
        (SELECT min(s.began) FROM set_here s WHERE s.ccp_id = f.ccp_id)
    FROM (SELECT DISTINCT ON (v.ccp_id) v.* FROM ccp_limit v ORDER BY v.ccp_id, v.version) f
), rule AS (
    SELECT rule_id, version, rule, from_at AS began, lead(from_at) OVER (PARTITION BY rule_id ORDER BY version) AS ended
    FROM alarm_rule_version
), found AS (
    SELECT t.id AS tag_id, 'critical' AS kind, c.code, k.version, k.low, k.high, NULL::int2 AS priority, k.began, k.ended
    FROM t JOIN ccp c ON c.tag_name = t.name JOIN critical k ON k.ccp_id = c.id
    UNION ALL
    SELECT t.id, 'critical', c.code, c.limit_version, c.limit_low, c.limit_high, NULL, NULL, NULL
    FROM t JOIN ccp c ON c.tag_name = t.name WHERE NOT EXISTS (SELECT FROM ccp_limit v WHERE v.ccp_id = c.id)
    UNION ALL
    SELECT t.id, 'rule', r.rule->>'code', r.version, (r.rule->>'low')::float8, (r.rule->>'high')::float8,
        (r.rule->>'priority')::int2, r.began, r.ended
    FROM t JOIN rule r ON r.rule->>'tag_name' = t.name
    WHERE r.rule->>'kind' = 'threshold' AND (r.rule->>'is_enabled')::boolean
)
SELECT tag_id, kind, code, version, low, high, priority, (extract(epoch FROM began) * 1000000)::bigint AS from_us,
    (extract(epoch FROM ended) * 1000000)::bigint AS to_us
FROM found
WHERE kind = ANY($4) AND (low IS NOT NULL OR high IS NOT NULL)
    AND coalesce(began, '-infinity') < $3 AND coalesce(ended, 'infinity') > $2
ORDER BY tag_id, kind, code, version DESC LIMIT $5";

/// Limits of `kinds` (`critical`, `rule`) that were in force at any time of a range, newest version first.
///
/// # Errors
/// [`TenancyError`].
pub async fn limits(
    tx: &mut TenantTx,
    tag_ids: &[i32],
    (from_us, to_us): (Micros, Micros),
    kinds: &[&str],
) -> Result<Vec<SeriesLimit>, TenancyError> {
    let (from, to): (DateTime<Utc>, DateTime<Utc>) = (time_from_us(from_us), time_from_us(to_us));
    Ok(sqlx::query_as(LIMITS)
        .bind(tag_ids)
        .bind(from)
        .bind(to)
        .bind(kinds)
        .bind(LIMITS_MAX)
        .fetch_all(tx.conn())
        .await?)
}
