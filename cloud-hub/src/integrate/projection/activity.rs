//! How much of what happened on each day? Counts of events by UTC day, kind of record and kind of event.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Days, NaiveDate, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};
use utoipa::{IntoParams, ToSchema};

use super::{Projection, Unfit};
use crate::{
    app::App,
    error::{Error, Result},
    integrate::{
        event::DomainEvent,
        feed::{TAG, needs_everywhere},
    },
    kernel::{caller::Caller, clock::time_from_us, permission::Permission},
    request::Query,
};

const DAYS_DEFAULT: u64 = 30;
const DAYS_MAX: i64 = 92;

/// The table `activity_day`.
#[derive(Clone, Copy, Debug)]
pub struct ActivityDays;

/// One more of a kind on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneMore {
    day: NaiveDate,
    aggregate: String,
    kind: String,
    seq: i64,
    at: DateTime<Utc>,
}

impl Projection for ActivityDays {
    const NAME: &'static str = "activity_day";
    type Change = OneMore;

    fn change(event: &DomainEvent) -> Result<Option<OneMore>, Unfit> {
        let at = time_from_us(event.at_us);
        Ok(Some(OneMore {
            day: at.date_naive(),
            aggregate: event.aggregate.clone(),
            kind: event.kind.clone(),
            seq: event.seq,
            at,
        }))
    }

    async fn write(conn: &mut PgConnection, generation: i32, one: &OneMore) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO activity_day AS a (generation, day, aggregate, kind, events, last_seq, last_at) \
             VALUES ($1, $2, $3, $4, 1, $5, $6) ON CONFLICT (generation, day, aggregate, kind) DO UPDATE \
             SET events = a.events + 1, last_seq = greatest(a.last_seq, excluded.last_seq), \
               last_at = greatest(a.last_at, excluded.last_at)",
        )
        .bind(generation)
        .bind(one.day)
        .bind(&one.aggregate)
        .bind(&one.kind)
        .bind(one.seq)
        .bind(one.at)
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// Events of one kind on one day.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActivityDay {
    /// UTC day.
    day: NaiveDate,
    /// Kind of record.
    aggregate: String,
    /// Kind of event.
    kind: String,
    /// How many.
    events: i64,
    /// Number of the last one.
    last_seq: i64,
    /// When the last one was.
    last_us: Micros,
}

/// What happened, by day.
#[derive(Debug, Serialize, ToSchema)]
pub struct Activity {
    /// Newest day first.
    items: Vec<ActivityDay>,
}

/// Which days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ActivityQuery {
    /// First day; 30 days before the last when absent.
    from: Option<NaiveDate>,
    /// Last day; today when absent. At most 92 days in all.
    to: Option<NaiveDate>,
}

#[derive(FromRow)]
struct Row {
    day: NaiveDate,
    aggregate: String,
    kind: String,
    events: i64,
    last_seq: i64,
    last_at: DateTime<Utc>,
}

impl From<Row> for ActivityDay {
    fn from(row: Row) -> Self {
        Self {
            day: row.day,
            aggregate: row.aggregate,
            kind: row.kind,
            events: row.events,
            last_seq: row.last_seq,
            last_us: row.last_at.timestamp_micros(),
        }
    }
}

/// The days asked for, first and last.
fn span(query: &ActivityQuery, today: NaiveDate) -> Result<(NaiveDate, NaiveDate)> {
    let to = query.to.unwrap_or(today);
    let from = query
        .from
        .or_else(|| to.checked_sub_days(Days::new(DAYS_DEFAULT)))
        .unwrap_or(to);
    let days = (to - from).num_days();
    if (0..DAYS_MAX).contains(&days) {
        Ok((from, to))
    } else {
        Err(Error::Invalid(format!(
            "`from` must not be after `to`, and at most {DAYS_MAX} days are given at once"
        )))
    }
}

/// Counts what happened, by day and kind.
#[utoipa::path(get, path = "/events/activity", operation_id = "list_activity", tag = TAG, security(("bearer" = ["event.read"])), params(ActivityQuery),
    responses((status = 200, description = "Counts", body = Activity)))]
pub async fn list_activity(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ActivityQuery>,
) -> Result<Json<Activity>> {
    let (from, to) = span(&query, app.clock.now().date_naive())?;
    let mut tx = caller.begin(&app, Permission::EventRead).await?;
    needs_everywhere(&mut tx).await?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT a.day, a.aggregate, a.kind, a.events, a.last_seq, a.last_at FROM activity_day a \
         JOIN projection p ON p.name = 'activity_day' AND p.generation = a.generation \
         WHERE a.day BETWEEN $1 AND $2 ORDER BY a.day DESC, a.aggregate, a.kind",
    )
    .bind(from)
    .bind(to)
    .fetch_all(tx.conn())
    .await?;
    Ok(Json(Activity {
        items: rows.into_iter().map(ActivityDay::from).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_given_at_once_and_no_more() {
        let day = |text: &str| Some(text.parse().unwrap());
        let today: NaiveDate = "2026-11-20".parse().unwrap();
        let ask = |from, to| span(&ActivityQuery { from, to }, today);
        assert_eq!(ask(None, None).unwrap(), ("2026-10-21".parse().unwrap(), today));
        assert!(ask(day("2026-08-21"), None).is_ok());
        assert!(ask(day("2026-08-20"), None).is_err());
        assert!(ask(day("2026-11-21"), None).is_err());
        assert!(ask(Some(NaiveDate::MIN), Some(NaiveDate::MAX)).is_err());
    }
}
