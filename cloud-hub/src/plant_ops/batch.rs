//! Which batches are planned, running and done? Starting one claims the line's equipment and opens its
//! finished lot; completing it closes both, so that a deviation's window finds exactly what was made in it.

use axum::{Json as Answer, extract::State, http::StatusCode};
use chrono::{DateTime, Datelike, Utc};
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
        audit::{Deed, value},
        caller::Caller,
        event::NewEvent,
        permission::Permission,
        reply::Reply,
        tenancy::TenantTx,
    },
    request::{Json, ListQuery, Page, Path, Query, Rows},
    series::bus::LiveKind,
};

/// A batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct Batch {
    /// Stable id.
    pub id: Uuid,
    /// Batch code, unique in the tenant.
    pub code: String,
    /// Code of what is made.
    pub sku: String,
    /// The line it runs on.
    pub line_id: Uuid,
    /// `planned`, `running` or `complete`.
    pub state: String,
    /// When it started.
    pub started_us: Option<Micros>,
    /// When it was completed.
    pub completed_us: Option<Micros>,
    /// Traceability code of its newest finished lot.
    pub lot_code: Option<String>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    code: String,
    sku: String,
    line_id: Uuid,
    state: String,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    lot_code: Option<String>,
}

impl From<Row> for Batch {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            code: row.code,
            sku: row.sku,
            line_id: row.line_id,
            state: row.state,
            started_us: row.started_at.map(|time| time.timestamp_micros()),
            completed_us: row.completed_at.map(|time| time.timestamp_micros()),
            lot_code: row.lot_code,
        }
    }
}

/// What to plan.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBatch {
    /// Batch code, 1 to 40 characters.
    code: String,
    /// Code of an existing SKU.
    sku: String,
    /// The line it is to run on.
    line_id: Uuid,
}

/// A state change takes nothing but the batch's id; the body may be absent.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(
    dead_code,
    reason = "documents the path parameter once for several operations"
)]
pub struct BatchId {
    /// Batch.
    id: Uuid,
}

const SELECT: &str = "
SELECT b.id, b.code, s.code AS sku, b.line_id, b.state, b.started_at, b.completed_at,
    (SELECT x.code FROM lot x WHERE x.batch_id = b.id AND x.kind = 'finished'
        ORDER BY lower(x.produced_range) DESC NULLS LAST, x.id DESC LIMIT 1) AS lot_code
FROM batch b JOIN sku s ON s.id = b.sku_id";

async fn find(tx: &mut TenantTx, id: Uuid) -> Result<Batch> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE b.id = $1")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(Batch::from).ok_or(Error::NotFound { entity: "batch" })
}

/// Lists batches: planned ones, then by start, newest first.
#[utoipa::path(get, path = "/plant-ops/batches", operation_id = "list_batches", tag = TAG, security(("bearer" = ["batch.read"])), params(ListQuery),
    responses((status = 200, description = "Batches", body = Page<Batch>)))]
pub async fn list_batches(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Page<Batch>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::BatchRead).await?;
    let sql = format!(
        "{SELECT} WHERE $1::uuid IS NULL OR (coalesce(b.started_at, 'infinity'), b.id) < \
           (SELECT coalesce(c.started_at, 'infinity'), c.id FROM batch c WHERE c.id = $1) \
         ORDER BY coalesce(b.started_at, 'infinity') DESC, b.id DESC LIMIT $2"
    );
    let found: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let batches = found.into_iter().map(Batch::from).collect();
    Ok(Answer(Page::of(batches, rows, |batch: &Batch| {
        batch.id.to_string()
    })))
}

/// Plans a batch.
#[utoipa::path(post, path = "/plant-ops/batches", operation_id = "create_batch", tag = TAG, security(("bearer" = ["batch.write"])),
    request_body = NewBatch, responses((status = 201, description = "Planned", body = Batch)))]
pub async fn create_batch(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewBatch>,
) -> Result<Reply> {
    if !(1..=40).contains(&new.code.trim().chars().count()) {
        return Err(Error::Invalid("`code` must have 1 to 40 characters".to_owned()));
    }
    let mut tx = caller.begin(&app, Permission::BatchWrite).await?;
    let is_in_reach: bool = sqlx::query_scalar("SELECT owns_line($1)")
        .bind(new.line_id)
        .fetch_one(tx.conn())
        .await?;
    if !is_in_reach {
        return Err(Error::OutOfScope);
    }
    let sku_id: Option<Uuid> = sqlx::query_scalar("SELECT id FROM sku WHERE code = $1")
        .bind(&new.sku)
        .fetch_optional(tx.conn())
        .await?;
    let sku_id = sku_id.ok_or_else(|| Error::Invalid(format!("there is no SKU `{}`", new.sku)))?;
    let has_line: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM line WHERE id = $1)")
        .bind(new.line_id)
        .fetch_one(tx.conn())
        .await?;
    if !has_line {
        return Err(Error::Invalid("there is no such line".to_owned()));
    }
    let id = Uuid::now_v7();
    let inserted = sqlx::query(
        "INSERT INTO batch (id, code, sku_id, line_id) VALUES ($1, $2, $3, $4) ON CONFLICT (code) DO NOTHING",
    )
    .bind(id)
    .bind(new.code.trim())
    .bind(sku_id)
    .bind(new.line_id)
    .execute(tx.conn())
    .await?;
    if inserted.rows_affected() == 0 {
        return Err(Error::Conflict(format!(
            "there is a batch `{}` already",
            new.code.trim()
        )));
    }
    let batch = find(&mut tx, id).await?;
    tx.audit(&Deed::on("create", "batch", id).after(&batch));
    tx.event(&NewEvent::new("BatchCreated", "batch", id, value(&batch)));
    tx.finish(StatusCode::CREATED, &batch).await
}

/// Reads one batch.
#[utoipa::path(get, path = "/plant-ops/batches/{id}", operation_id = "read_batch", tag = TAG, security(("bearer" = ["batch.read"])), params(BatchId),
    responses((status = 200, description = "The batch", body = Batch)))]
pub async fn read_batch(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Answer<Batch>> {
    let mut tx = caller.begin(&app, Permission::BatchRead).await?;
    find(&mut tx, id).await.map(Answer)
}

/// Starts a planned batch: its line's equipment is its own from now on, and its finished lot is open.
#[utoipa::path(post, path = "/plant-ops/batches/{id}/start", operation_id = "start_batch", tag = TAG, security(("bearer" = ["batch.write"])),
    params(BatchId), responses((status = 200, description = "Running", body = Batch)))]
pub async fn start_batch(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::BatchWrite).await?;
    let now = app.clock.now();
    let before = find(&mut tx, id).await?;
    let (line_id, state) = lock(&mut tx, id).await?;
    if state != "planned" {
        return Err(Error::Conflict(format!(
            "a batch that is {state} cannot be started"
        )));
    }
    claim(&mut tx, id, line_id, now).await?;
    open_lot(&mut tx, id, now).await?;
    let batch = find(&mut tx, id).await?;
    tx.audit(&Deed::on("start", "batch", id).before(&before).after(&batch));
    tx.event(&NewEvent::new("BatchStarted", "batch", id, value(&batch)));
    let reply = tx.finish(StatusCode::OK, &batch).await?;
    app.live
        .publish(&caller.tenant, app.clock.now_us(), LiveKind::Line { id: line_id });
    Ok(reply)
}

/// Completes a running batch: its equipment is free and its lots are closed.
#[utoipa::path(post, path = "/plant-ops/batches/{id}/complete", operation_id = "complete_batch", tag = TAG, security(("bearer" = ["batch.write"])),
    params(BatchId), responses((status = 200, description = "Complete", body = Batch)))]
pub async fn complete_batch(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::BatchWrite).await?;
    let now = app.clock.now();
    let before = find(&mut tx, id).await?;
    let (line_id, state) = lock(&mut tx, id).await?;
    if state != "running" {
        return Err(Error::Conflict(format!(
            "a batch that is {state} cannot be completed"
        )));
    }
    // A batch completed in the microsecond of its start still has a window to be found by.
    for sql in [
        "UPDATE batch SET state = 'complete', completed_at = greatest($2, started_at), version = version + 1 \
         WHERE id = $1",
        "UPDATE batch_interval SET during = tstzrange(lower(during), \
           greatest($2, lower(during) + interval '1 microsecond')) WHERE batch_id = $1 AND upper_inf(during)",
        "UPDATE lot SET produced_range = tstzrange(lower(produced_range), \
           greatest($2, lower(produced_range) + interval '1 microsecond')), version = version + 1 \
         WHERE batch_id = $1 AND upper_inf(produced_range)",
    ] {
        sqlx::query(sql).bind(id).bind(now).execute(tx.conn()).await?;
    }
    let batch = find(&mut tx, id).await?;
    tx.audit(&Deed::on("complete", "batch", id).before(&before).after(&batch));
    tx.event(&NewEvent::new("BatchCompleted", "batch", id, value(&batch)));
    let reply = tx.finish(StatusCode::OK, &batch).await?;
    app.live
        .publish(&caller.tenant, app.clock.now_us(), LiveKind::Line { id: line_id });
    Ok(reply)
}

async fn lock(tx: &mut TenantTx, id: Uuid) -> Result<(Uuid, String)> {
    let row: Option<(Uuid, String)> =
        sqlx::query_as("SELECT line_id, state FROM batch WHERE id = $1 FOR UPDATE")
            .bind(id)
            .fetch_optional(tx.conn())
            .await?;
    row.ok_or(Error::NotFound { entity: "batch" })
}

async fn claim(tx: &mut TenantTx, id: Uuid, line_id: Uuid, now: DateTime<Utc>) -> Result<()> {
    let busy: Option<String> =
        sqlx::query_scalar("SELECT code FROM batch WHERE line_id = $1 AND state = 'running'")
            .bind(line_id)
            .fetch_optional(tx.conn())
            .await?;
    if let Some(code) = busy {
        return Err(Error::Conflict(format!("batch `{code}` is running on this line")));
    }
    sqlx::query("UPDATE batch SET state = 'running', started_at = $2, version = version + 1 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(tx.conn())
        .await
        .map_err(taken)?;
    sqlx::query(
        "INSERT INTO batch_interval (batch_id, equipment_id, during) \
         SELECT $1, e.id, tstzrange($3, NULL) FROM equipment e WHERE e.line_id = $2",
    )
    .bind(id)
    .bind(line_id)
    .bind(now)
    .execute(tx.conn())
    .await
    .map_err(taken)?;
    Ok(())
}

/// Two starts at once, or equipment that another batch holds: the database's constraints decide.
fn taken(source: sqlx::Error) -> Error {
    match &source {
        sqlx::Error::Database(refusal) if matches!(refusal.code().as_deref(), Some("23505" | "23P01")) => {
            Error::Conflict("the line's equipment is in use by another batch".to_owned())
        }
        _ => source.into(),
    }
}

/// Opens the batch's finished lot at the end of its line: the equipment that nothing on the line follows.
async fn open_lot(tx: &mut TenantTx, id: Uuid, now: DateTime<Utc>) -> Result<()> {
    let (sku_id, sku, name, line, plant_zone): (Uuid, String, String, String, String) = sqlx::query_as(
        "SELECT s.id, s.code, s.name, l.code, p.zone FROM batch b JOIN sku s ON s.id = b.sku_id \
         JOIN line l ON l.id = b.line_id JOIN plant p ON p.id = l.plant_id WHERE b.id = $1",
    )
    .bind(id)
    .fetch_one(tx.conn())
    .await?;
    let zone: chrono_tz::Tz = plant_zone.parse().unwrap_or(chrono_tz::UTC);
    let stem = lot_stem(&sku, &line, now.with_timezone(&zone));
    let taken: Vec<String> = sqlx::query_scalar("SELECT code FROM lot WHERE starts_with(code, $1)")
        .bind(&stem)
        .fetch_all(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO lot (id, code, kind, sku_id, item_name, status, quantity, unit, batch_id, equipment_id, \
           produced_range) \
         SELECT $1, $2, 'finished', $3, $4, 'in_process', 0, 'units', b.id, \
           (SELECT e.id FROM equipment e WHERE e.line_id = b.line_id AND NOT EXISTS (SELECT FROM flow_link f \
              JOIN equipment t ON t.id = f.to_equipment_id \
              WHERE f.from_equipment_id = e.id AND t.line_id = b.line_id) \
            ORDER BY EXISTS (SELECT FROM flow_link f WHERE f.to_equipment_id = e.id) DESC, e.code DESC LIMIT 1), \
           tstzrange($5, NULL) FROM batch b WHERE b.id = $6",
    )
    .bind(Uuid::now_v7())
    .bind(free_code(&stem, &taken))
    .bind(sku_id)
    .bind(name)
    .bind(now)
    .bind(id)
    .execute(tx.conn())
    .await
    .map_err(taken_code)?;
    Ok(())
}

fn taken_code(source: sqlx::Error) -> Error {
    match &source {
        sqlx::Error::Database(refusal) if refusal.is_unique_violation() => {
            Error::Conflict("another lot took the same code just now; try again".to_owned())
        }
        _ => source.into(),
    }
}

/// The first code of the day that no lot has.
fn free_code(stem: &str, taken: &[String]) -> String {
    let codes = (0..).map(|before| format!("{stem}{}", batch_letter(before)));
    let mut free = codes.filter(|code| !taken.contains(code));
    free.next().expect("there are more codes than lots")
}

/// `A` for the first batch of the day, `Z` for the 26th, then `AA`.
fn batch_letter(before: i64) -> String {
    let (round, place) = (before / 26, (before % 26) as u8);
    let last = char::from(b'A' + place);
    if round == 0 {
        last.to_string()
    } else {
        batch_letter(round - 1) + &last.to_string()
    }
}

/// `SKU-YJJJ-L`: last digit of the year, day of the year, number of the line; the batch of the day follows.
fn lot_stem(sku: &str, line: &str, at: DateTime<chrono_tz::Tz>) -> String {
    let line = line.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    format!("{sku}-{}{:03}-{line}", at.year().rem_euclid(10), at.ordinal())
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    #[test]
    fn batches_of_a_day_are_lettered_without_end() {
        let letters: Vec<_> = [0, 1, 25, 26, 51, 52].into_iter().map(batch_letter).collect();
        assert_eq!(letters, ["A", "B", "Z", "AA", "AZ", "BA"]);
        assert_eq!(free_code("X-", &["X-A".to_owned(), "X-C".to_owned()]), "X-B");
    }

    #[test]
    fn a_lot_code_carries_the_plants_own_day() {
        let akron: chrono_tz::Tz = "America/New_York".parse().unwrap();
        let before_midnight_utc = Utc.with_ymd_and_hms(2026, 11, 20, 3, 0, 0).unwrap();
        assert_eq!(
            lot_stem("MLK-2", "L1", before_midnight_utc.with_timezone(&akron)),
            "MLK-2-6323-1"
        );
        assert_eq!(
            lot_stem("MLK-2", "L1", before_midnight_utc.with_timezone(&chrono_tz::UTC)),
            "MLK-2-6324-1"
        );
    }
}
