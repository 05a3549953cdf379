//! Which alarms are there, of edges and of the hub, in which state, and what happened to each?

use axum::{Json as Answer, extract::State};
use protocol::{Micros, alarm::AlarmState as Shown};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{TAG, state};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::Caller,
        permission::Permission,
        tenancy::{TenancyError, TenantTx},
    },
    request::{Page, Path, Query, Rows},
};

/// A state of ISA-18.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// Nothing is wrong and nothing is owed.
    Normal,
    /// Active, and nobody has acknowledged it.
    Unacknowledged,
    /// Active and acknowledged.
    Acknowledged,
    /// No longer active, and nobody has acknowledged it.
    ReturnedUnacknowledged,
    /// No longer active, and held until somebody resets it.
    Latched,
    /// Hidden by a person, for a stated time.
    Shelved,
    /// Hidden by the state of the process, as designed.
    Suppressed,
    /// Taken out of service by a person.
    OutOfService,
}

impl AlarmState {
    fn as_str(self) -> &'static str {
        state::name(match self {
            Self::Normal => Shown::Normal,
            Self::Unacknowledged => Shown::Unacknowledged,
            Self::Acknowledged => Shown::Acknowledged,
            Self::ReturnedUnacknowledged => Shown::ReturnedUnacknowledged,
            Self::Latched => Shown::Latched,
            Self::Shelved => Shown::Shelved,
            Self::Suppressed => Shown::Suppressed,
            Self::OutOfService => Shown::OutOfService,
        })
    }
}

/// One occurrence of an alarm.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow, ToSchema)]
pub struct Alarm {
    /// Stable id.
    pub id: Uuid,
    /// Counts its changes.
    pub version: i32,
    /// Name of the edge that raised it; null for the hub's own.
    pub edge: Option<String>,
    /// The hub's rule that raised it.
    pub rule_id: Option<Uuid>,
    /// Kind of that rule.
    pub kind: Option<String>,
    /// The line it belongs to.
    pub line_id: Option<Uuid>,
    /// Stable machine name.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// In words.
    pub message: String,
    /// 1 most urgent to 3; 4 is diagnostic. Null: its edge does not say.
    pub priority: Option<i16>,
    /// In which state it is.
    #[schema(value_type = AlarmState)]
    pub state: String,
    /// Whether the condition is true now, whatever the state.
    pub is_active: bool,
    /// When it began, by the time of the readings.
    pub raised_us: Option<Micros>,
    /// When it ended.
    pub cleared_us: Option<Micros>,
    /// When the hub found it; null for alarms of edges.
    pub found_us: Option<Micros>,
    /// When readings that came late showed that it never was.
    pub withdrawn_us: Option<Micros>,
    /// Until when it is hidden.
    pub shelved_until_us: Option<Micros>,
    /// When it was acknowledged here.
    pub acked_us: Option<Micros>,
    /// Who acknowledged it, by name.
    pub acked_by: Option<String>,
    /// The value at which it was raised.
    pub value: Option<f64>,
    /// Its score, for statistical rules.
    pub score: Option<f64>,
    /// Unit of the value.
    pub unit: Option<String>,
    /// What to do.
    pub response: Option<String>,
}

/// The columns of [`Alarm`], where two statements need them as one literal.
macro_rules! alarm_select {
    () => {
        "
SELECT a.id, a.version, e.name AS edge, a.rule_id, r.kind, a.line_id, a.code, a.subject, a.message, a.priority,
    coalesce(a.state, CASE WHEN a.cleared_at IS NULL THEN 'unacknowledged' ELSE 'normal' END) AS state,
    coalesce(a.is_active, a.cleared_at IS NULL) AS is_active,
    (extract(epoch FROM a.raised_at) * 1000000)::bigint AS raised_us,
    (extract(epoch FROM a.cleared_at) * 1000000)::bigint AS cleared_us,
    (extract(epoch FROM a.found_at) * 1000000)::bigint AS found_us,
    (extract(epoch FROM a.withdrawn_at) * 1000000)::bigint AS withdrawn_us,
    (extract(epoch FROM a.shelved_until) * 1000000)::bigint AS shelved_until_us,
    (extract(epoch FROM a.acked_at) * 1000000)::bigint AS acked_us,
    a.acked_by, a.value, a.score, t.unit, r.response
FROM alarm a LEFT JOIN edge e ON e.id = a.edge_id LEFT JOIN alarm_rule r ON r.id = a.rule_id
LEFT JOIN tag t ON t.name = a.subject"
    };
}

const SELECT: &str = alarm_select!();

/// One alarm as live pages are told of it.
pub(crate) const JSON: &str = concat!(
    "SELECT to_jsonb(x) FROM (",
    alarm_select!(),
    " WHERE a.id = $1) x"
);

/// One alarm, if there is one.
///
/// # Errors
/// [`TenancyError`].
pub(super) async fn find(tx: &mut TenantTx, id: Uuid) -> Result<Option<Alarm>, TenancyError> {
    Ok(sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE a.id = $1")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?)
}

/// Several alarms by their ids, in no order.
///
/// # Errors
/// [`TenancyError`].
pub(crate) async fn find_all(tx: &mut TenantTx, ids: &[Uuid]) -> Result<Vec<Alarm>, TenancyError> {
    Ok(
        sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE a.id = ANY($1)")))
            .bind(ids)
            .fetch_all(tx.conn())
            .await?,
    )
}

/// Narrows the list of alarms.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AlarmQuery {
    /// Only those that stand or are owed something, or only those that are settled.
    standing: Option<bool>,
    /// Only those in this state.
    #[param(inline)]
    state: Option<AlarmState>,
    /// Only those of this line.
    line_id: Option<Uuid>,
    /// Only those of this rule.
    rule_id: Option<Uuid>,
    /// Only those of this code.
    code: Option<String>,
    /// Whether those that late readings disproved are given too.
    withdrawn: Option<bool>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

const MATCHES: &str = "
WHERE ($1::bool IS NULL OR (coalesce(a.state, CASE WHEN a.cleared_at IS NULL THEN 'unacknowledged' ELSE 'normal' END) <> 'normal') = $1)
    AND ($2::text IS NULL OR coalesce(a.state, CASE WHEN a.cleared_at IS NULL THEN 'unacknowledged' ELSE 'normal' END) = $2)
    AND ($3::uuid IS NULL OR a.line_id = $3) AND ($4::uuid IS NULL OR a.rule_id = $4)
    AND ($5::text IS NULL OR a.code = $5) AND ($6 OR a.withdrawn_at IS NULL)
    AND ($7::uuid IS NULL OR (coalesce(a.raised_at, a.cleared_at), a.id) <
        (SELECT coalesce(p.raised_at, p.cleared_at), p.id FROM alarm p WHERE p.id = $7))
    AND (NOT $9 OR r.kind IN ('zscore', 'mad', 'cusum', 'ewma', 'isolation_forest'))
    AND ($10::text IS NULL OR a.subject = $10 OR $10 = ANY (r.tag_names))
ORDER BY coalesce(a.raised_at, a.cleared_at) DESC NULLS LAST, a.id DESC LIMIT $8";

/// Which alarms a list is of, besides what its reader asks for.
#[derive(Debug, Default)]
struct Kept {
    /// Only those of statistical rules.
    is_statistical: bool,
    /// Only those that are about this tag, or about an asset that it belongs to.
    tag: Option<String>,
}

async fn page(tx: &mut TenantTx, query: AlarmQuery, kept: Kept) -> Result<Page<Alarm>> {
    let rows = Rows::parse(query.limit)?;
    let found: Vec<Alarm> = sqlx::query_as(AssertSqlSafe(format!("{SELECT} {MATCHES}")))
        .bind(query.standing)
        .bind(query.state.map(AlarmState::as_str))
        .bind(query.line_id)
        .bind(query.rule_id)
        .bind(query.code)
        .bind(query.withdrawn.unwrap_or(false))
        .bind(query.cursor)
        .bind(rows.fetched())
        .bind(kept.is_statistical)
        .bind(kept.tag)
        .fetch_all(tx.conn())
        .await?;
    Ok(Page::of(found, rows, |alarm: &Alarm| alarm.id.to_string()))
}

/// Lists alarms of edges and of the hub, newest first.
#[utoipa::path(get, path = "/sensors/alarms", operation_id = "list_alarms", tag = TAG, security(("bearer" = ["alarm.read"])),
    params(AlarmQuery), responses((status = 200, description = "Alarms", body = Page<Alarm>)))]
pub async fn list_alarms(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AlarmQuery>,
) -> Result<Answer<Page<Alarm>>> {
    let mut tx = caller.begin(&app, Permission::AlarmRead).await?;
    page(&mut tx, query, Kept::default()).await.map(Answer)
}

/// Lists what statistical rules found, newest first.
#[utoipa::path(get, path = "/sensors/anomalies", operation_id = "list_anomalies", tag = TAG, security(("bearer" = ["alarm.read"])),
    params(AlarmQuery), responses((status = 200, description = "Anomalies", body = Page<Alarm>)))]
pub async fn list_anomalies(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AlarmQuery>,
) -> Result<Answer<Page<Alarm>>> {
    let mut tx = caller.begin(&app, Permission::AlarmRead).await?;
    let kept = Kept {
        is_statistical: true,
        tag: None,
    };
    page(&mut tx, query, kept).await.map(Answer)
}

/// Lists what statistical rules found about one sensor, or about an asset that it belongs to, newest first.
#[utoipa::path(get, path = "/sensors/{id}/anomalies", operation_id = "list_sensor_anomalies", tag = TAG, security(("bearer" = ["alarm.read"])),
    params(("id" = i32, Path, description = "Number of its tag"), AlarmQuery),
    responses((status = 200, description = "Anomalies", body = Page<Alarm>)))]
pub async fn list_sensor_anomalies(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(query): Query<AlarmQuery>,
) -> Result<Answer<Page<Alarm>>> {
    let mut tx = caller.begin(&app, Permission::AlarmRead).await?;
    let name: Option<String> = sqlx::query_scalar("SELECT name FROM tag WHERE id = $1")
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    let kept = Kept {
        is_statistical: true,
        tag: Some(name.ok_or(Error::NotFound { entity: "tag" })?),
    };
    page(&mut tx, query, kept).await.map(Answer)
}

/// Reads one alarm.
#[utoipa::path(get, path = "/sensors/alarms/{id}", operation_id = "read_alarm", tag = TAG, security(("bearer" = ["alarm.read"])),
    params(("id" = Uuid, Path, description = "Alarm")),
    responses((status = 200, description = "The alarm", body = Alarm)))]
pub async fn read_alarm(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Answer<Alarm>> {
    let mut tx = caller.begin(&app, Permission::AlarmRead).await?;
    let found = find(&mut tx, id).await?;
    found.map(Answer).ok_or(Error::NotFound { entity: "alarm" })
}

/// One entry of an alarm's journal.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub struct AlarmEntry {
    /// When, by the time of the readings or of who acted.
    at_us: Micros,
    /// When the hub noted it; null for entries of edges.
    found_us: Option<Micros>,
    /// The state before.
    from_state: Option<String>,
    /// The state after.
    to_state: String,
    /// `raised`, `returned`, `corrected`, `withdrawn`, `time` or `action`; `edge` for what its edge told.
    cause: String,
    /// Who acted, by name.
    actor: Option<String>,
    /// Why, in their words.
    reason: Option<String>,
    /// The value.
    value: Option<f64>,
}

/// An alarm's journal.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlarmJournal {
    /// In the order in which it was written.
    items: Vec<AlarmEntry>,
}

const JOURNAL: &str = "
SELECT (extract(epoch FROM j.at) * 1000000)::bigint AS at_us, (extract(epoch FROM j.found_at) * 1000000)::bigint AS found_us,
    j.from_state, j.to_state, j.cause, j.actor, j.reason, j.value
FROM (
    SELECT n.id AS place, n.at, n.found_at, n.from_state, n.to_state, n.cause, n.actor, n.reason, n.value
    FROM alarm_entry n WHERE n.alarm_id = $1
    UNION ALL
    SELECT c.seq, c.at, NULL, c.from_state, c.to_state, 'edge', c.actor, NULL, c.value
    FROM alarm_change c WHERE c.alarm_id = $1
) j ORDER BY j.place, j.at LIMIT 1000";

/// Reads an alarm's journal: every change, what was withdrawn, and who acted.
#[utoipa::path(get, path = "/sensors/alarms/{id}/journal", operation_id = "read_alarm_journal", tag = TAG, security(("bearer" = ["alarm.read"])),
    params(("id" = Uuid, Path, description = "Alarm")),
    responses((status = 200, description = "The journal", body = AlarmJournal)))]
pub async fn read_alarm_journal(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Answer<AlarmJournal>> {
    let mut tx = caller.begin(&app, Permission::AlarmRead).await?;
    if find(&mut tx, id).await?.is_none() {
        return Err(Error::NotFound { entity: "alarm" });
    }
    let items = sqlx::query_as(JOURNAL).bind(id).fetch_all(tx.conn()).await?;
    Ok(Answer(AlarmJournal { items }))
}
