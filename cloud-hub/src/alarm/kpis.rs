//! How good were the alarms of a time? The measures over what is stored, of edges and of the hub.

use axum::{Json as Answer, extract::State};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    TAG,
    kpi::{AlarmKpis, Raised, kpis},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, clock::time_from_us, permission::Permission},
    request::Query,
};

const RANGE_US_MAX: Micros = 92 * 86_400_000_000;
const OPERATORS_MAX: u32 = 1_000;
/// Alarms that are looked at; a range with more is too wide.
const ALARMS_MAX: i64 = 500_000;

/// Over which time, and of whom.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AlarmKpiQuery {
    /// Start of the range.
    from_us: Micros,
    /// End of the range, at most 92 days later.
    to_us: Micros,
    /// Only those of this line.
    line_id: Option<Uuid>,
    /// Operators who share the alarms; 1 when absent.
    #[param(minimum = 1, maximum = 1000)]
    operators: Option<u32>,
}

type Row = (String, String, Option<i16>, DateTime<Utc>, Option<DateTime<Utc>>);

const RAISED: &str = "
SELECT a.code, a.subject, a.priority, a.raised_at, a.cleared_at FROM alarm a
WHERE a.raised_at < $2 AND (a.raised_at >= $1 OR a.cleared_at IS NULL OR a.cleared_at >= $2)
    AND a.withdrawn_at IS NULL AND ($3::uuid IS NULL OR a.line_id = $3)
ORDER BY a.raised_at, a.id LIMIT $4";

/// Measures the alarms of a time: load, floods, chatter, stale and standing ones, bad actors.
#[utoipa::path(get, path = "/sensors/alarms/kpis", operation_id = "read_alarm_kpis", tag = TAG, security(("bearer" = ["alarm.read"])),
    params(AlarmKpiQuery), responses((status = 200, description = "The measures", body = AlarmKpis)))]
pub async fn read_alarm_kpis(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AlarmKpiQuery>,
) -> Result<Answer<AlarmKpis>> {
    let mut tx = caller.begin(&app, Permission::AlarmRead).await?;
    let span_us = query.to_us.checked_sub(query.from_us);
    if !span_us.is_some_and(|span_us| (1..=RANGE_US_MAX).contains(&span_us)) {
        return Err(Error::Invalid(
            "`to_us` must be after `from_us`, by at most 92 days".to_owned(),
        ));
    }
    let operators = query.operators.unwrap_or(1);
    if !(1..=OPERATORS_MAX).contains(&operators) {
        return Err(Error::Invalid(format!(
            "`operators` must be 1 to {OPERATORS_MAX}"
        )));
    }
    let rows: Vec<Row> = sqlx::query_as(RAISED)
        .bind(time_from_us(query.from_us))
        .bind(time_from_us(query.to_us))
        .bind(query.line_id)
        .bind(ALARMS_MAX + 1)
        .fetch_all(tx.conn())
        .await?;
    if rows.len() > ALARMS_MAX as usize {
        return Err(Error::Invalid(format!(
            "more than {ALARMS_MAX} alarms; choose a shorter range"
        )));
    }
    let raised: Vec<Raised> = rows
        .into_iter()
        .map(|(code, subject, priority, raised, cleared)| Raised {
            alarm: (code, subject),
            priority,
            raised_us: raised.timestamp_micros(),
            cleared_us: cleared.map(|at| at.timestamp_micros()),
        })
        .collect();
    Ok(Answer(kpis(&raised, (query.from_us, query.to_us), operators)))
}
