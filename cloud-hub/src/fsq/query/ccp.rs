//! The CCP board: is each critical control point in control, how far from its limit, and what was last checked?

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use protocol::{Micros, Quality, quality::Status};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    challenge::{CcpChallenge, Challenges},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, permission::Permission},
    plant_ops::{
        line::{LineState, line_state},
        tag::LastReading,
    },
    request::{ListQuery, Page, Path, Query, Rows},
};

/// A last reading older than this, or five periods, is a gap in monitoring.
const STALE_US_MIN: Micros = 15_000_000;
/// A check that ended longer ago than this says nothing about now.
const CHECK_AGE_US_MAX: Micros = 180_000_000;
/// Clocks of edges and hub may differ by this much.
const AHEAD_US_MAX: Micros = 60_000_000;

/// How a control point stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CcpState {
    /// Monitored and within its limit.
    InControl,
    /// A limit was broken and the deviation is open.
    Deviation,
    /// It should be monitored and is not.
    MonitoringGap,
    /// Product is diverted: recorded, not judged.
    Diverted,
    /// Its line makes nothing.
    NotRunning,
    /// Nothing is known.
    Unknown,
}

/// What decides a control point's state.
#[derive(Debug, Clone, Copy)]
struct Evidence<'a> {
    open_kind: Option<&'a str>,
    /// Of a point that is challenged at times and not monitored between.
    challenges: Option<Challenges<'a>>,
    last: Option<(Micros, Quality)>,
    period_ms: i32,
    check: Option<(&'a str, Micros)>,
    /// The edge says that product is diverted now.
    is_diverted: bool,
    line: LineState,
}

/// Whether a time is no older than `age_us`. One that is still to come says nothing of now: a clock was wrong.
fn is_within(time_us: Micros, age_us: Micros, now_us: Micros) -> bool {
    (-AHEAD_US_MAX..=age_us).contains(&now_us.saturating_sub(time_us))
}

/// The worst that is true wins; a stopped line excuses silence, an unknown one does not make it a gap. A point is
/// in control only when somebody judged it lately: a tag that merely reports has not been held to its limit.
fn ccp_state(evidence: Evidence<'_>, now_us: Micros) -> CcpState {
    if let (None, Some(challenges)) = (evidence.open_kind, evidence.challenges) {
        return challenges.state(evidence.line, now_us);
    }
    let stale_us = STALE_US_MIN.max(i64::from(evidence.period_ms) * 5_000);
    let is_monitored = evidence.last.is_some_and(|(time_us, quality)| {
        is_within(time_us, stale_us, now_us) && quality.status() != Status::Bad
    });
    let recent = evidence
        .check
        .filter(|(_, to_us)| is_within(*to_us, CHECK_AGE_US_MAX, now_us));
    let was_ever_judged = evidence.check.is_some();
    match (evidence.open_kind, evidence.line) {
        (Some("monitoring_gap" | "sensor_stuck" | "missed_check"), _) => CcpState::MonitoringGap,
        (Some(_), _) => CcpState::Deviation,
        (None, LineState::Stopped) => CcpState::NotRunning,
        _ if evidence.is_diverted && is_monitored => CcpState::Diverted,
        _ if is_monitored && recent.is_some_and(|(verdict, _)| verdict != "not_monitored") => {
            CcpState::InControl
        }
        (None, LineState::Running) if was_ever_judged => CcpState::MonitoringGap,
        _ => CcpState::Unknown,
    }
}

/// Distance to the nearer limit in the tag's unit; negative beyond it.
fn margin(value: f64, low: Option<f64>, high: Option<f64>) -> Option<f64> {
    let below = low.map(|low| value - low);
    let above = high.map(|high| high - value);
    match (below, above) {
        (Some(below), Some(above)) => Some(below.min(above)),
        (one, other) => one.or(other),
    }
}

/// The newest check that an edge recorded.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastCheck {
    /// From this time …
    pub from_us: Micros,
    /// … to this one.
    pub to_us: Micros,
    /// `met`, `not_met`, `diverted` or `not_monitored`.
    pub verdict: String,
    /// Least good value.
    pub value_min: Option<f64>,
    /// Greatest good value.
    pub value_max: Option<f64>,
    /// Last good value.
    pub value_last: Option<f64>,
    /// Good readings.
    pub good: i32,
    /// Bad readings.
    pub bad: i32,
    /// Readings that were due and not taken.
    pub missing: i32,
}

/// A critical control point as it stands now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ccp {
    /// Stable id.
    pub id: Uuid,
    /// Code, for example `CCP-1`.
    pub code: String,
    /// What it controls.
    pub name: String,
    /// Its line.
    pub line_id: Uuid,
    /// The tag that monitors it, once an edge publishes it.
    pub tag_id: Option<i32>,
    /// Lowest value allowed.
    pub limit_low: Option<f64>,
    /// Highest value allowed.
    pub limit_high: Option<f64>,
    /// Unit of limit and values.
    pub unit: String,
    /// Revision of the limit.
    pub limit_version: i32,
    /// How it stands.
    pub state: CcpState,
    /// Newest reading of its tag.
    pub last: Option<LastReading>,
    /// Distance of that reading to the nearer limit; negative beyond it.
    pub margin: Option<f64>,
    /// Newest check.
    pub last_check: Option<LastCheck>,
    /// When it is challenged; null when it is monitored all the time.
    pub challenge: Option<CcpChallenge>,
    /// The open deviation.
    pub open_deviation_id: Option<Uuid>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    code: String,
    name: String,
    line_id: Uuid,
    tag_id: Option<i32>,
    period_ms: Option<i32>,
    limit_low: Option<f64>,
    limit_high: Option<f64>,
    unit: String,
    limit_version: i32,
    last_time: Option<DateTime<Utc>>,
    last_value: Option<f64>,
    last_quality: Option<i16>,
    rate_time: Option<DateTime<Utc>>,
    rate_value: Option<f64>,
    rate_quality: Option<i16>,
    open_id: Option<Uuid>,
    open_kind: Option<String>,
    check_from: Option<DateTime<Utc>>,
    check_to: Option<DateTime<Utc>>,
    verdict: Option<String>,
    value_min: Option<f64>,
    value_max: Option<f64>,
    value_last: Option<f64>,
    good: Option<i32>,
    bad: Option<i32>,
    missing: Option<i32>,
    is_diverted: bool,
    challenge_every_us: Option<i64>,
    challenge_grace_us: Option<i64>,
    watched_from: Option<DateTime<Utc>>,
}

const SELECT: &str = "
SELECT c.id, c.code, c.name, c.line_id, t.id AS tag_id, t.period_ms, c.limit_low, c.limit_high, c.unit,
    c.limit_version, r.time AS last_time, r.value AS last_value, r.quality AS last_quality,
    rr.time AS rate_time, rr.value AS rate_value, rr.quality AS rate_quality,
    d.id AS open_id, d.kind AS open_kind, k.from_time AS check_from, k.to_time AS check_to, k.verdict,
    k.value_min, k.value_max, k.value_last, k.good, k.bad, k.missing,
    EXISTS (SELECT FROM alarm a WHERE a.code = 'ccp.diverted' AND a.subject = c.code
        AND a.raised_at IS NOT NULL AND a.cleared_at IS NULL) AS is_diverted,
    c.challenge_every_us, c.challenge_grace_us, CASE WHEN c.challenge_every_us IS NOT NULL AND k.to_time IS NULL
        THEN (SELECT f.time FROM reading f WHERE f.tag_id = t.id ORDER BY f.time LIMIT 1) END AS watched_from
FROM ccp c
JOIN line l ON l.id = c.line_id
LEFT JOIN tag t ON t.name = c.tag_name
LEFT JOIN tag_last r ON r.tag_id = t.id
LEFT JOIN tag rt ON rt.name = l.rate_tag
LEFT JOIN tag_last rr ON rr.tag_id = rt.id
LEFT JOIN LATERAL (SELECT x.id, x.kind FROM deviation x WHERE x.ccp_id = c.id AND x.status = 'open'
    ORDER BY x.kind IN ('monitoring_gap', 'sensor_stuck', 'missed_check'), x.detected_at DESC LIMIT 1) d ON true
LEFT JOIN LATERAL (SELECT x.* FROM ccp_check x WHERE x.ccp_id = c.id AND x.from_time < now() + interval '1 minute'
    ORDER BY x.from_time DESC LIMIT 1) k ON true";

fn present(row: Row, now_us: Micros) -> Ccp {
    let micros = |time: DateTime<Utc>| time.timestamp_micros();
    let reading = |time: Option<DateTime<Utc>>, quality: Option<i16>| {
        time.zip(quality)
            .map(|(time, quality)| (micros(time), Quality::from_i16(quality)))
    };
    let rate =
        reading(row.rate_time, row.rate_quality).map(|(time_us, quality)| (time_us, row.rate_value, quality));
    let check = row.verdict.as_deref().zip(row.check_to.map(micros));
    let schedule = row.challenge_every_us.zip(row.challenge_grace_us);
    let challenges = schedule.map(|(every_us, grace_us)| Challenges {
        every_us,
        grace_us,
        newest: check,
        watched_from_us: row.watched_from.map(micros),
    });
    let evidence = Evidence {
        open_kind: row.open_kind.as_deref(),
        challenges,
        last: reading(row.last_time, row.last_quality),
        period_ms: row.period_ms.unwrap_or(0),
        check,
        is_diverted: row.is_diverted,
        line: line_state(rate, now_us),
    };
    let state = ccp_state(evidence, now_us);
    let challenge = challenges.map(|challenges| challenges.at(now_us));
    let window = row
        .check_from
        .map(micros)
        .zip(row.check_to.map(micros))
        .zip(row.verdict);
    Ccp {
        state,
        last: LastReading::from_columns(row.last_time, row.last_value, row.last_quality),
        margin: row
            .last_value
            .and_then(|value| margin(value, row.limit_low, row.limit_high)),
        last_check: window.map(|((from_us, to_us), verdict)| LastCheck {
            from_us,
            to_us,
            verdict,
            value_min: row.value_min,
            value_max: row.value_max,
            value_last: row.value_last,
            good: row.good.unwrap_or(0),
            bad: row.bad.unwrap_or(0),
            missing: row.missing.unwrap_or(0),
        }),
        challenge,
        open_deviation_id: row.open_id,
        id: row.id,
        code: row.code,
        name: row.name,
        line_id: row.line_id,
        tag_id: row.tag_id,
        limit_low: row.limit_low,
        limit_high: row.limit_high,
        unit: row.unit,
        limit_version: row.limit_version,
    }
}

/// Lists the control points by code, each as it stands now.
#[utoipa::path(get, path = "/fsq/ccps", operation_id = "list_ccps", tag = TAG, security(("bearer" = ["ccp.read"])), params(ListQuery),
    responses((status = 200, description = "Control points", body = Page<Ccp>)))]
pub async fn list_ccps(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Ccp>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::CcpRead).await?;
    let sql = format!(
        "{SELECT} WHERE $1::uuid IS NULL OR c.code > (SELECT p.code FROM ccp p WHERE p.id = $1) \
         ORDER BY c.code LIMIT $2"
    );
    let found: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let now_us = app.clock.now_us();
    let ccps = found.into_iter().map(|row| present(row, now_us)).collect();
    Ok(Json(Page::of(ccps, rows, |ccp: &Ccp| ccp.id.to_string())))
}

/// Reads one control point as it stands now.
#[utoipa::path(get, path = "/fsq/ccps/{id}", operation_id = "read_ccp", tag = TAG, security(("bearer" = ["ccp.read"])),
    params(("id" = Uuid, Path, description = "Control point")),
    responses((status = 200, description = "The control point", body = Ccp)))]
pub async fn read_ccp(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Json<Ccp>> {
    let mut tx = caller.begin(&app, Permission::CcpRead).await?;
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE c.id = $1")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    let row = row.ok_or(Error::NotFound {
        entity: "critical control point",
    })?;
    Ok(Json(present(row, app.clock.now_us())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: Micros = 1_000_000_000;

    fn quiet() -> Evidence<'static> {
        Evidence {
            open_kind: None,
            challenges: None,
            last: Some((NOW_US, Quality::GOOD)),
            period_ms: 1_000,
            check: Some(("met", NOW_US)),
            is_diverted: false,
            line: LineState::Running,
        }
    }

    #[test]
    fn an_open_deviation_outranks_everything() {
        let stopped = Evidence {
            open_kind: Some("limit"),
            line: LineState::Stopped,
            ..quiet()
        };
        assert_eq!(ccp_state(stopped, NOW_US), CcpState::Deviation);
        let gap = Evidence {
            open_kind: Some("sensor_stuck"),
            ..quiet()
        };
        assert_eq!(ccp_state(gap, NOW_US), CcpState::MonitoringGap);
    }

    #[test]
    fn silence_is_a_gap_while_the_line_runs_and_an_excuse_while_it_stands() {
        let silent = Evidence {
            last: Some((NOW_US - 15_000_001, Quality::GOOD)),
            ..quiet()
        };
        assert_eq!(ccp_state(silent, NOW_US), CcpState::MonitoringGap);
        let bad = Evidence {
            last: Some((NOW_US, Quality::BAD)),
            ..quiet()
        };
        assert_eq!(ccp_state(bad, NOW_US), CcpState::MonitoringGap);
        assert_eq!(
            ccp_state(
                Evidence {
                    line: LineState::Stopped,
                    ..silent
                },
                NOW_US
            ),
            CcpState::NotRunning
        );
        assert_eq!(
            ccp_state(
                Evidence {
                    line: LineState::Unknown,
                    ..silent
                },
                NOW_US
            ),
            CcpState::Unknown
        );
        let slow = Evidence {
            period_ms: 60_000,
            ..silent
        };
        assert_eq!(ccp_state(slow, NOW_US), CcpState::InControl);
    }

    #[test]
    fn a_standing_diversion_shows_at_once_and_only_while_somebody_watches() {
        let diverted = Evidence {
            is_diverted: true,
            check: None,
            ..quiet()
        };
        assert_eq!(ccp_state(diverted, NOW_US), CcpState::Diverted);
        let silent = Evidence {
            last: Some((NOW_US - 60_000_000, Quality::GOOD)),
            check: Some(("met", NOW_US)),
            ..diverted
        };
        assert_eq!(ccp_state(silent, NOW_US), CcpState::MonitoringGap);
        let over = Evidence {
            check: Some(("diverted", NOW_US)),
            ..quiet()
        };
        assert_eq!(ccp_state(over, NOW_US), CcpState::InControl);
    }

    #[test]
    fn a_time_to_come_or_a_window_without_monitoring_puts_nothing_in_control() {
        let day_us = 86_400_000_000;
        let ahead = Evidence {
            last: Some((NOW_US + day_us, Quality::GOOD)),
            ..quiet()
        };
        assert_eq!(ccp_state(ahead, NOW_US), CcpState::MonitoringGap);
        let judged_ahead = Evidence {
            check: Some(("met", NOW_US + day_us)),
            ..quiet()
        };
        assert_eq!(ccp_state(judged_ahead, NOW_US), CcpState::MonitoringGap);
        let unseen = Evidence {
            check: Some(("not_monitored", NOW_US)),
            ..quiet()
        };
        assert_eq!(ccp_state(unseen, NOW_US), CcpState::MonitoringGap);
        let little = Evidence {
            last: Some((NOW_US + 5_000_000, Quality::GOOD)),
            ..quiet()
        };
        assert_eq!(ccp_state(little, NOW_US), CcpState::InControl);
    }

    #[test]
    fn a_point_that_nobody_ever_judged_is_unknown_however_good_its_readings() {
        let unjudged = Evidence {
            check: None,
            ..quiet()
        };
        assert_eq!(ccp_state(unjudged, NOW_US), CcpState::Unknown);
    }

    #[test]
    fn a_point_that_is_challenged_owes_no_reading_between_and_its_open_deviation_still_outranks() {
        let hour_us = 3_600_000_000;
        let challenged = Evidence {
            challenges: Some(Challenges {
                every_us: hour_us,
                grace_us: 0,
                newest: Some(("met", NOW_US)),
                watched_from_us: None,
            }),
            last: None,
            check: Some(("met", NOW_US)),
            ..quiet()
        };
        assert_eq!(ccp_state(challenged, NOW_US + hour_us / 2), CcpState::InControl);
        for (kind, state) in [
            ("missed_check", CcpState::MonitoringGap),
            ("challenge", CcpState::Deviation),
        ] {
            let open = Evidence {
                open_kind: Some(kind),
                ..challenged
            };
            assert_eq!(ccp_state(open, NOW_US), state);
        }
    }

    #[test]
    fn the_margin_is_to_the_nearer_limit_and_negative_beyond_it() {
        assert_eq!(margin(73.5, Some(72.0), None), Some(1.5));
        assert_eq!(margin(71.0, Some(72.0), None), Some(-1.0));
        assert_eq!(margin(4.0, Some(0.0), Some(5.0)), Some(1.0));
        assert_eq!(margin(4.0, None, None), None);
    }
}
