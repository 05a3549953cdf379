//! Which limit is in force at a control point, since when, by whom, and has the edge that monitors it been told?

use axum::{Json as Answer, extract::State, http::StatusCode};
use protocol::{Micros, command::Order, limit::CriticalLimit};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    edges::command::{NewCommand, ring},
    error::{Error, Result},
    kernel::{
        audit::{Deed, value},
        caller::Caller,
        event::NewEvent,
        freeze::check_frozen,
        permission::Permission,
        reply::Reply,
        tenancy::TenantTx,
    },
    request::{IfMatch, Json, Page, Path, Query, Rows},
};

/// A critical limit in full: nothing of an earlier version is carried over unsaid.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CcpLimitPut {
    /// Lowest value allowed, in the control point's unit; null for none. `low`, `high` or both are numbers.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true, example = 72.0)]
    low: Option<f64>,
    /// Highest value allowed; null for none.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true, example = 95.0)]
    high: Option<f64>,
    /// How far inside the limit a value must be to end a deviation.
    #[schema(minimum = 0, example = 0.2)]
    clear_margin: f64,
    /// How long the value may be out of limit with product flowing, microseconds. 0: the first bad value is a deviation.
    #[schema(minimum = 0, example = 1_000_000)]
    delay_us: Micros,
    /// No good value for longer than this is a deviation too, microseconds.
    #[schema(minimum = 1, example = 10_000_000)]
    gap_us_max: Micros,
    /// How often a check is recorded, microseconds.
    #[schema(minimum = 1, example = 60_000_000)]
    check_every_us: Micros,
}

/// A version of a critical limit.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub struct CcpLimit {
    /// Counts up by one a change; every check and deviation bears it.
    pub version: i32,
    /// Lowest value allowed.
    pub low: Option<f64>,
    /// Highest value allowed.
    pub high: Option<f64>,
    /// How far inside the limit a value must be to end a deviation.
    pub clear_margin: f64,
    /// How long the value may be out of limit with product flowing, microseconds.
    pub delay_us: Micros,
    /// No good value for longer than this is a deviation too, microseconds.
    pub gap_us_max: Micros,
    /// How often a check is recorded, microseconds.
    pub check_every_us: Micros,
    /// Who set it, by name.
    pub created_by: String,
    /// When.
    pub created_us: Micros,
    /// The edge that was told; null when none published the point's tag yet.
    pub edge: Option<String>,
    /// The command that carries it.
    pub command_id: Option<Uuid>,
    /// What became of that command: `waiting`, `sent`, `done`, …
    pub command_state: Option<String>,
}

const SELECT: &str = "
SELECT v.version, v.low, v.high, v.clear_margin, v.delay_us, v.gap_us_max, v.check_every_us, v.created_by,
    (extract(epoch FROM v.created_at) * 1000000)::bigint AS created_us, e.name AS edge, v.command_id,
    m.state AS command_state
FROM ccp_limit v LEFT JOIN edge e ON e.id = v.edge_id LEFT JOIN edge_command m ON m.id = v.command_id";

/// What the limit is of.
#[derive(Debug, FromRow)]
struct Point {
    code: String,
    tag_name: String,
    unit: String,
    limit_low: Option<f64>,
    limit_high: Option<f64>,
    limit_version: i32,
    line: String,
    period_ms: Option<i32>,
    edge_id: Option<Uuid>,
    edge: Option<String>,
}

const POINT: &str = "
SELECT c.code, c.tag_name, c.unit, c.limit_low, c.limit_high, c.limit_version, l.code AS line, t.period_ms,
    e.id AS edge_id, e.name AS edge
FROM ccp c JOIN line l ON l.id = c.line_id LEFT JOIN tag t ON t.name = c.tag_name
LEFT JOIN edge e ON e.id = t.edge_id AND e.revoked_at IS NULL
WHERE c.id = $1 FOR NO KEY UPDATE OF c";

const UNKNOWN: Error = Error::NotFound {
    entity: "critical control point",
};

/// Sets the limit of a control point: the next version, which the edge that monitors it is told. `If-Match` names the
/// version that it takes the place of (`limit_version`). What is being judged meanwhile bears the version in force.
#[utoipa::path(put, path = "/fsq/ccps/{id}/limit", operation_id = "put_ccp_limit", tag = TAG, security(("bearer" = ["ccp.configure"])),
    params(("id" = Uuid, Path, description = "Control point"), ("if-match" = String, Header, description = "The limit's version, quoted")),
    request_body = CcpLimitPut, responses((status = 200, description = "The limit in force", body = CcpLimit)))]
pub async fn put_ccp_limit(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
    Json(given): Json<CcpLimitPut>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::CcpConfigure).await?;
    let found = sqlx::query_as(POINT).bind(id).fetch_optional(tx.conn());
    let point: Point = found.await?.ok_or(UNKNOWN)?;
    if point.limit_version != version {
        return Err(Error::Stale {
            entity: "the critical limit",
        });
    }
    check_frozen(&mut tx, "ccp", id).await?;
    let limit = limit(&point, &given);
    limit.check().map_err(|fault| Error::Invalid(fault.to_string()))?;
    let before = value(
        serde_json::json!({ "version": point.limit_version, "low": point.limit_low,
        "high": point.limit_high }),
    );
    sqlx::query(
        "UPDATE ccp SET limit_low = $2, limit_high = $3, limit_version = $4, version = version + 1 WHERE id = $1",
    )
    .bind(id)
    .bind(limit.low)
    .bind(limit.high)
    .bind(version + 1)
    .execute(tx.conn())
    .await?;
    let told = tell(&mut tx, &point, &limit).await?;
    insert(
        &mut tx,
        id,
        (&limit, &point),
        point.edge_id.filter(|_| told.is_some()),
        told,
    )
    .await?;
    let stored = read(&mut tx, id, version + 1).await?;
    tx.audit(&Deed::on("set_limit", "ccp", id).before(before).after(&stored));
    tx.event(&NewEvent::new("CriticalLimitChanged", "ccp", id, value(&stored)));
    let reply = tx.finish(StatusCode::OK, &stored).await?;
    if let Some(edge) = &point.edge {
        ring(&app, &caller.tenant, edge);
    }
    Ok(reply)
}

fn limit(point: &Point, given: &CcpLimitPut) -> CriticalLimit {
    CriticalLimit {
        ccp: point.code.clone(),
        line: Some(point.line.clone()),
        tag: point.tag_name.clone(),
        unit: point.unit.clone(),
        low: given.low,
        high: given.high,
        clear_margin: given.clear_margin,
        delay_us: given.delay_us,
        gap_us_max: given.gap_us_max,
        check_every_us: given.check_every_us,
        period_us: i64::from(point.period_ms.unwrap_or(0)) * 1_000,
        version: point.limit_version.saturating_add(1).unsigned_abs(),
    }
}

/// Queues the command for the edge that monitors the point; its count of changes and the command, when there is one.
async fn tell(tx: &mut TenantTx, point: &Point, limit: &CriticalLimit) -> Result<Option<(i64, Uuid)>> {
    let Some(edge_id) = point.edge_id else {
        return Ok(None);
    };
    let counted = sqlx::query_scalar(
        "UPDATE edge SET limits_revision = limits_revision + 1 WHERE id = $1 RETURNING limits_revision",
    );
    let revision: i64 = counted.bind(edge_id).fetch_one(tx.conn()).await?;
    let order = Order::SetLimits {
        revision: revision.unsigned_abs(),
        limits: vec![limit.clone()],
    };
    let (by, now) = (tx.actor().display(), tx.at());
    let command = NewCommand::new(edge_id, order, &by, now, None)?;
    command.store(tx).await?;
    Ok(Some((revision, command.id)))
}

async fn insert(
    tx: &mut TenantTx,
    id: Uuid,
    (limit, before): (&CriticalLimit, &Point),
    edge_id: Option<Uuid>,
    told: Option<(i64, Uuid)>,
) -> Result<()> {
    let (by, now) = (tx.actor().display(), tx.at());
    sqlx::query(
        "INSERT INTO ccp_limit (ccp_id, version, low, high, clear_margin, delay_us, gap_us_max, check_every_us, \
           created_by, created_at, edge_id, revision, command_id, low_before, high_before) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(id)
    .bind(limit.version.cast_signed())
    .bind(limit.low)
    .bind(limit.high)
    .bind(limit.clear_margin)
    .bind(limit.delay_us)
    .bind(limit.gap_us_max)
    .bind(limit.check_every_us)
    .bind(by)
    .bind(now)
    .bind(edge_id)
    .bind(told.map(|(revision, _)| revision))
    .bind(told.map(|(_, command)| command))
    .bind(before.limit_low)
    .bind(before.limit_high)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn read(tx: &mut TenantTx, id: Uuid, version: i32) -> Result<CcpLimit> {
    let sql = format!("{SELECT} WHERE v.ccp_id = $1 AND v.version = $2");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).bind(version);
    Ok(found.fetch_one(tx.conn()).await?)
}

/// One page of versions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LimitQuery {
    /// `next` of the page before.
    cursor: Option<i32>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

/// Lists the versions of a control point's limit that were set here, newest first.
#[utoipa::path(get, path = "/fsq/ccps/{id}/limits", operation_id = "list_ccp_limits", tag = TAG, security(("bearer" = ["ccp.read"])),
    params(("id" = Uuid, Path, description = "Control point"), LimitQuery),
    responses((status = 200, description = "Versions", body = Page<CcpLimit>)))]
pub async fn list_ccp_limits(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Query(query): Query<LimitQuery>,
) -> Result<Answer<Page<CcpLimit>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::CcpRead).await?;
    let is_known = sqlx::query_scalar("SELECT EXISTS (SELECT FROM ccp WHERE id = $1)").bind(id);
    if !is_known.fetch_one(tx.conn()).await? {
        return Err(UNKNOWN);
    }
    let sql = format!(
        "{SELECT} WHERE v.ccp_id = $1 AND ($2::int IS NULL OR v.version < $2) ORDER BY v.version DESC LIMIT $3"
    );
    let found: Vec<CcpLimit> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    Ok(Answer(Page::of(found, rows, |it: &CcpLimit| {
        it.version.to_string()
    })))
}
