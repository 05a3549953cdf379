//! Which control points left control, when, by how much, and who has taken responsibility?

use axum::{Json as Answer, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed, caller::Caller, event::NewEvent, freeze::check_frozen, permission::Permission,
        reply::Reply, tenancy::TenantTx,
    },
    request::{Json, Page, Path, Query, Rows},
    series::bus::LiveKind,
};

/// Told this long after it was detected, a deviation came from a backlog.
const LATE_AFTER_S: i64 = 60;
const COMMENT_CHARS_MAX: usize = 2_000;

/// Whether a deviation or a hold still asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenStatus {
    /// It does.
    Open,
    /// It does not.
    Closed,
}

impl OpenStatus {
    /// The status in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// A control point out of control.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deviation {
    /// Stable id.
    pub id: Uuid,
    /// The control point.
    pub ccp_id: Uuid,
    /// Its code.
    pub ccp_code: String,
    /// Its line.
    pub line_id: Uuid,
    /// `limit`, `monitoring_gap`, `sensor_stuck`, `hold_time`, `cooling`, `challenge` or `missed_check`.
    pub kind: String,
    /// `open` or `closed`.
    #[schema(value_type = OpenStatus)]
    pub status: String,
    /// Last time in control before it.
    pub window_from_us: Micros,
    /// First time in control after it; null while it lasts.
    pub window_to_us: Option<Micros>,
    /// When the edge noticed.
    pub detected_us: Micros,
    /// The value farthest beyond the limit.
    pub value_extreme: Option<f64>,
    /// Lowest value allowed then.
    pub limit_low: Option<f64>,
    /// Highest value allowed then.
    pub limit_high: Option<f64>,
    /// Unit of limit and value.
    pub unit: String,
    /// Revision of the limit then.
    pub limit_version: i32,
    /// The hold that it placed.
    pub hold_id: Option<Uuid>,
    /// That hold's code.
    pub hold_code: Option<String>,
    /// Who took responsibility, by name.
    pub acknowledged_by: Option<String>,
    /// When.
    pub acknowledged_us: Option<Micros>,
    /// Whether the hub learnt of it more than a minute after it was detected.
    pub late: bool,
    /// What happened, in a sentence.
    pub detail: String,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    ccp_id: Uuid,
    ccp_code: String,
    tag_name: String,
    line_id: Uuid,
    kind: String,
    status: String,
    window_from: DateTime<Utc>,
    window_to: Option<DateTime<Utc>>,
    detected_at: DateTime<Utc>,
    received_at: DateTime<Utc>,
    value_extreme: Option<f64>,
    limit_low: Option<f64>,
    limit_high: Option<f64>,
    unit: String,
    limit_version: i32,
    hold_id: Option<Uuid>,
    hold_code: Option<String>,
    acknowledged_by: Option<String>,
    acknowledged_at: Option<DateTime<Utc>>,
}

impl From<Row> for Deviation {
    fn from(row: Row) -> Self {
        Self {
            detail: detail(&row),
            window_from_us: row.window_from.timestamp_micros(),
            window_to_us: row.window_to.map(|time| time.timestamp_micros()),
            detected_us: row.detected_at.timestamp_micros(),
            acknowledged_us: row.acknowledged_at.map(|time| time.timestamp_micros()),
            late: (row.received_at - row.detected_at).num_seconds() > LATE_AFTER_S,
            id: row.id,
            ccp_id: row.ccp_id,
            ccp_code: row.ccp_code,
            line_id: row.line_id,
            kind: row.kind,
            status: row.status,
            value_extreme: row.value_extreme,
            limit_low: row.limit_low,
            limit_high: row.limit_high,
            unit: row.unit,
            limit_version: row.limit_version,
            hold_id: row.hold_id,
            hold_code: row.hold_code,
            acknowledged_by: row.acknowledged_by,
        }
    }
}

/// A value as a sentence shows it: to the hundredth, without needless digits.
fn shown(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn detail(row: &Row) -> String {
    let (tag, unit) = (&row.tag_name, &row.unit);
    match (
        row.kind.as_str(),
        row.value_extreme,
        row.limit_low,
        row.limit_high,
    ) {
        ("limit", Some(value), Some(low), _) if value < low => {
            format!(
                "{tag} fell to {} {unit}; at least {low} {unit} is required",
                shown(value)
            )
        }
        ("limit", Some(value), _, Some(high)) => {
            format!(
                "{tag} rose to {} {unit}; at most {high} {unit} is allowed",
                shown(value)
            )
        }
        ("limit", ..) => format!("{tag} was beyond its limit"),
        ("sensor_stuck", ..) => format!("{tag} did not move while its reference did"),
        ("hold_time", ..) => format!("{tag} was not held at its limit for long enough"),
        ("cooling", ..) => format!("{tag} did not fall fast enough"),
        ("challenge", ..) => format!("{tag}: a challenge was passed that should have been rejected"),
        ("missed_check", ..) => format!("{tag}: a check that was due was not made"),
        _ => format!("{tag} was not monitored"),
    }
}

/// Narrows the list of deviations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeviationQuery {
    /// Only deviations of this status.
    status: Option<OpenStatus>,
    /// Only deviations that somebody has, or nobody has, taken responsibility for.
    acknowledged: Option<bool>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

const SELECT: &str = "
SELECT d.id, d.ccp_id, c.code AS ccp_code, c.tag_name, c.line_id, d.kind, d.status,
    coalesce(lower(d.suspect), d.detected_at) AS window_from, upper(d.suspect) AS window_to,
    d.detected_at, d.received_at, d.value_extreme, d.limit_low, d.limit_high, c.unit, d.limit_version,
    h.id AS hold_id, h.code AS hold_code, u.display_name AS acknowledged_by, d.acknowledged_at
FROM deviation d
JOIN ccp c ON c.id = d.ccp_id
LEFT JOIN hold h ON h.deviation_id = d.id
LEFT JOIN app_user u ON u.id = d.acknowledged_by";

async fn find(tx: &mut TenantTx, id: Uuid) -> Result<Deviation> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE d.id = $1")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(Deviation::from)
        .ok_or(Error::NotFound { entity: "deviation" })
}

/// Lists deviations, newest first.
#[utoipa::path(get, path = "/fsq/deviations", operation_id = "list_deviations", tag = TAG, security(("bearer" = ["deviation.read"])),
    params(DeviationQuery), responses((status = 200, description = "Deviations", body = Page<Deviation>)))]
pub async fn list_deviations(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<DeviationQuery>,
) -> Result<Answer<Page<Deviation>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::DeviationRead).await?;
    let sql = format!(
        "{SELECT} WHERE ($1::text IS NULL OR d.status = $1) AND ($2::uuid IS NULL OR (d.detected_at, d.id) < \
           (SELECT p.detected_at, p.id FROM deviation p WHERE p.id = $2)) \
           AND ($4::bool IS NULL OR (d.acknowledged_at IS NOT NULL) = $4) \
         ORDER BY d.detected_at DESC, d.id DESC LIMIT $3"
    );
    let found: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.status.map(OpenStatus::as_str))
        .bind(query.cursor)
        .bind(rows.fetched())
        .bind(query.acknowledged)
        .fetch_all(tx.conn())
        .await?;
    let deviations = found.into_iter().map(Deviation::from).collect();
    Ok(Answer(Page::of(deviations, rows, |deviation: &Deviation| {
        deviation.id.to_string()
    })))
}

/// Reads one deviation.
#[utoipa::path(get, path = "/fsq/deviations/{id}", operation_id = "read_deviation", tag = TAG, security(("bearer" = ["deviation.read"])),
    params(("id" = Uuid, Path, description = "Deviation")),
    responses((status = 200, description = "The deviation", body = Deviation)))]
pub async fn read_deviation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Answer<Deviation>> {
    let mut tx = caller.begin(&app, Permission::DeviationRead).await?;
    find(&mut tx, id).await.map(Answer)
}

/// What the person who takes responsibility says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// What was done at once, 1 to 2000 characters.
    comment: String,
}

/// Takes responsibility for a deviation. It stays open: closing it needs a disposition of every lot.
#[utoipa::path(post, path = "/fsq/deviations/{id}/acknowledge", operation_id = "acknowledge_deviation", tag = TAG, security(("bearer" = ["deviation.acknowledge"])),
    params(("id" = Uuid, Path, description = "Deviation")), request_body = Acknowledgement,
    responses((status = 200, description = "Acknowledged", body = Deviation)))]
pub async fn acknowledge_deviation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(given): Json<Acknowledgement>,
) -> Result<Reply> {
    let comment = given.comment.trim();
    if !(1..=COMMENT_CHARS_MAX).contains(&comment.chars().count()) {
        return Err(Error::Invalid(format!(
            "`comment` must have 1 to {COMMENT_CHARS_MAX} characters"
        )));
    }
    let mut tx = caller.begin(&app, Permission::DeviationAcknowledge).await?;
    // A printed token or a key is nobody: what is signed for must name a person of this tenant.
    let person = caller
        .user_id()
        .ok_or_else(|| Error::Conflict("a deviation is acknowledged by a person who signed in".to_owned()))?;
    check_frozen(&mut tx, "deviation", id).await?;
    let version: Option<i32> = sqlx::query_scalar(
        "UPDATE deviation SET acknowledged_by = $2, acknowledged_at = $3, comment = $4, version = version + 1 \
         WHERE id = $1 AND acknowledged_at IS NULL RETURNING version",
    )
    .bind(id)
    .bind(person)
    .bind(app.clock.now())
    .bind(comment)
    .fetch_optional(tx.conn())
    .await?;
    let deviation = find(&mut tx, id).await?;
    let Some(version) = version else {
        let who = deviation.acknowledged_by.unwrap_or_default();
        return Err(Error::Conflict(format!(
            "{who} has acknowledged this deviation already"
        )));
    };
    tx.audit(&Deed::on("acknowledge", "deviation", id).after(&deviation));
    let said = serde_json::json!({ "by": person, "comment": comment, "version": version });
    tx.event(&NewEvent::new("DeviationAcknowledged", "deviation", id, said));
    let reply = tx.finish(StatusCode::OK, &deviation).await?;
    app.live.publish(
        &caller.tenant,
        app.clock.now_us(),
        LiveKind::Deviation { id, version },
    );
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_shows_hundredths_and_no_noise() {
        let said: Vec<_> = [71.100_000_01, 72.0, 80.456]
            .into_iter()
            .map(|value| shown(value).to_string())
            .collect();
        assert_eq!(said, ["71.1", "72", "80.46"]);
    }
}
