//! Which values came that are no tag yet, and who makes tags of them? Adopting one stores what was held of it;
//! dismissing one lets go of it. Both are on record.

use axum::{Json as Answer, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{audit::Deed, caller::Caller, permission::Permission, reply::Reply, tenancy::TenantTx},
    request::{Json, ListQuery, Page, Path, Query, Rows},
};

/// Most characters of a tag's name.
const NAME_CHARS_MAX: usize = 200;

/// A value that came and is no tag yet.
#[derive(Debug, Serialize, ToSchema)]
pub struct PendingTag {
    /// Stable id.
    id: Uuid,
    /// The client that sent it.
    client: String,
    /// The device, as the message or its topic names it.
    device: String,
    /// The value's name.
    name: String,
    /// The name that a tag of it would get.
    proposed_name: String,
    /// Its unit, where it was announced.
    unit: String,
    /// No value for so many seconds means that it is stale, where that was announced.
    stale_after_s: Option<i32>,
    /// Its newest value, as text.
    sample: String,
    /// How many readings came.
    readings: i64,
    /// How many of them are held, to be stored when it is adopted.
    held: i64,
    /// How many are not held any more.
    dropped: i64,
    /// When the first came.
    first_seen_us: Micros,
    /// When the newest came.
    last_seen_us: Micros,
    /// Since when it is dismissed; null: it waits.
    dismissed_us: Option<Micros>,
}

#[derive(FromRow)]
struct PendingRow {
    id: Uuid,
    client: String,
    device: String,
    name: String,
    proposed_name: Option<String>,
    unit: String,
    stale_after_s: Option<i32>,
    sample: String,
    readings: i64,
    held: i64,
    dropped: i64,
    first_seen_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    dismissed_at: Option<DateTime<Utc>>,
}

impl From<PendingRow> for PendingTag {
    fn from(row: PendingRow) -> Self {
        Self {
            proposed_name: row
                .proposed_name
                .unwrap_or_else(|| format!("{}/{}", row.device, row.name)),
            id: row.id,
            client: row.client,
            device: row.device,
            name: row.name,
            unit: row.unit,
            stale_after_s: row.stale_after_s,
            sample: row.sample,
            readings: row.readings,
            held: row.held,
            dropped: row.dropped,
            first_seen_us: row.first_seen_at.timestamp_micros(),
            last_seen_us: row.last_seen_at.timestamp_micros(),
            dismissed_us: row.dismissed_at.map(|at| at.timestamp_micros()),
        }
    }
}

const SELECT: &str = "
SELECT p.id, e.name AS client, p.device, p.name, p.proposed_name, p.unit, p.stale_after_s, p.sample, p.readings,
    (SELECT count(*) FROM pending_reading r WHERE r.pending_id = p.id) AS held, p.dropped, p.first_seen_at,
    p.last_seen_at, p.dismissed_at
FROM pending_tag p JOIN edge e ON e.id = p.edge_id
WHERE $1::uuid IS NULL OR p.id < $1 ORDER BY p.id DESC LIMIT $2";

/// Lists values that wait to be adopted, newest first, with those that were dismissed.
#[utoipa::path(get, path = "/integrator/pending-tags", operation_id = "list_pending_tags", tag = TAG, security(("bearer" = ["tag.adopt"])),
    params(ListQuery), responses((status = 200, description = "Values that are no tags yet", body = Page<PendingTag>)))]
pub async fn list_pending_tags(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Page<PendingTag>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::TagAdopt).await?;
    let found: Vec<PendingRow> = sqlx::query_as(SELECT)
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let tags = found.into_iter().map(PendingTag::from).collect();
    Ok(Answer(Page::of(tags, rows, |tag: &PendingTag| {
        tag.id.to_string()
    })))
}

/// How the tag is to be; what is left out is taken from what is known.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdoptTag {
    /// Its name, 1 to 200 characters; the proposed one when absent.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Unit of its values; the announced one when absent.
    #[schema(max_length = 40)]
    unit: Option<String>,
    /// For people.
    #[schema(max_length = 500)]
    description: String,
    /// The line it belongs to.
    line_id: Option<Uuid>,
    /// How often a reading is due, in ms; 0: on change. When absent, what was announced.
    #[schema(minimum = 0)]
    period_ms: Option<i32>,
}

/// The tag that was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdoptedTag {
    /// Its number.
    tag_id: i32,
    /// Its name.
    name: String,
    /// Readings that were held and are stored now.
    stored: i64,
    /// Readings that came before and are not held any more.
    dropped: i64,
}

#[derive(FromRow)]
struct Found {
    edge_id: Uuid,
    device: String,
    name: String,
    proposed_name: Option<String>,
    unit: String,
    stale_after_s: Option<i32>,
    dropped: i64,
}

/// Locks a client's part of the intake and finds the row.
async fn find(tx: &mut TenantTx, id: Uuid) -> Result<Found> {
    let missing = Error::NotFound {
        entity: "pending tag",
    };
    let edge_id: Option<Uuid> = sqlx::query_scalar("SELECT edge_id FROM pending_tag WHERE id = $1")
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    let Some(edge_id) = edge_id else {
        return Err(missing);
    };
    // What comes meanwhile waits, and finds the tag.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1::text, 21))")
        .bind(edge_id.to_string())
        .execute(tx.conn())
        .await?;
    let found: Option<Found> = sqlx::query_as(
        "SELECT edge_id, device, name, proposed_name, unit, stale_after_s, dropped FROM pending_tag WHERE id = $1 FOR UPDATE",
    )
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    found.ok_or(missing)
}

/// The body, which may be absent. A map and not the record itself: a record whose fields are all optional may also be
/// written as a list, and that is nothing a person means.
fn asked(body: Option<Json<serde_json::Map<String, serde_json::Value>>>) -> Result<AdoptTag> {
    let Some(Json(members)) = body else {
        return Ok(AdoptTag::default());
    };
    serde_json::from_value(members.into()).map_err(|error| Error::Unreadable {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        detail: error.to_string(),
    })
}

fn checked(asked: AdoptTag, found: &Found) -> Result<(String, String, String, Option<Uuid>, i32)> {
    let name = asked.name.or_else(|| found.proposed_name.clone());
    let name = name.unwrap_or_else(|| format!("{}/{}", found.device, found.name));
    if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains(char::is_control) {
        return Err(Error::Invalid(format!(
            "`name` must be text of 1 to {NAME_CHARS_MAX} characters"
        )));
    }
    let announced_ms = found
        .stale_after_s
        .and_then(|s| s.checked_mul(1_000))
        .unwrap_or(0);
    let unit = asked.unit.unwrap_or_else(|| found.unit.clone());
    if unit.chars().count() > 40 || asked.description.chars().count() > 500 {
        return Err(Error::Invalid(
            "`unit` has at most 40 characters and `description` 500".to_owned(),
        ));
    }
    Ok((
        name,
        unit,
        asked.description,
        asked.line_id,
        asked.period_ms.unwrap_or(announced_ms),
    ))
}

/// Makes a tag of a value and stores what was held of it. From now on its values are stored as they come.
#[utoipa::path(post, path = "/integrator/pending-tags/{id}/adopt", operation_id = "adopt_pending_tag", tag = TAG, security(("bearer" = ["tag.adopt"])),
    params(("id" = Uuid, Path, description = "Value")), request_body = Option<AdoptTag>,
    responses((status = 201, description = "A tag", body = AdoptedTag)))]
pub async fn adopt_pending_tag(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    body: Option<Json<serde_json::Map<String, serde_json::Value>>>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::TagAdopt).await?;
    let found = find(&mut tx, id).await?;
    let asked = asked(body)?;
    let (name, unit, description, line_id, period_ms) = checked(asked, &found)?;
    let tag_id: i32 = sqlx::query_scalar(
        "INSERT INTO tag (name, edge_id, line_id, unit, description, period_ms) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
    )
    .bind(&name)
    .bind(found.edge_id)
    .bind(line_id)
    .bind(&unit)
    .bind(description)
    .bind(period_ms)
    .fetch_one(tx.conn())
    .await?;
    sqlx::query("INSERT INTO integrator_tag (edge_id, device, name, tag_id) VALUES ($1, $2, $3, $4)")
        .bind(found.edge_id)
        .bind(&found.device)
        .bind(&found.name)
        .bind(tag_id)
        .execute(tx.conn())
        .await?;
    let stored = store_held(&mut tx, id, tag_id).await?;
    sqlx::query("DELETE FROM pending_tag WHERE id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?;
    let made = AdoptedTag {
        tag_id,
        name,
        stored,
        dropped: found.dropped,
    };
    let after = json!({
        "device": found.device, "value": found.name, "tag": made.name, "unit": unit, "stored": stored, "dropped": found.dropped,
    });
    tx.audit(&Deed::on("adopt", "tag", tag_id).after(after));
    tx.finish(StatusCode::CREATED, &made).await
}

/// What `ingest` notes of readings that it stores: minutes whose rollups are to be made, and from when alarm rules judge.
const MARK_ROLLUPS: &str = "INSERT INTO rollup_dirty (tag_ids, from_time, to_time) \
    SELECT ARRAY[$2::int], date_trunc('minute', min(time)), date_trunc('minute', max(time)) + interval '1 minute' \
    FROM pending_reading WHERE pending_id = $1 GROUP BY date_bin('1 hour', time, '2000-01-01Z')";
const NOTE_ALARMS: &str = "SELECT note_alarm_due(ARRAY[$2::int], ARRAY[min(time)]) FROM pending_reading \
    WHERE pending_id = $1 HAVING min(time) IS NOT NULL";

/// First versions that their source numbers, and then those after them, as if they came now.
const NUMBER_FIRST: &str = "INSERT INTO reading_version (tag_id, time, number, rev, value, quality, edge_id) \
    SELECT $2, r.time, 1, r.rev, r.value, r.quality, p.edge_id FROM pending_reading r JOIN pending_tag p ON p.id = r.pending_id \
    WHERE r.pending_id = $1 AND r.number = 1 AND r.rev IS NOT NULL";
const REVISE: &str = "SELECT revise_reading($2, r.time, r.value, r.quality, r.rev, r.edge_id) FROM (\
    SELECT r.*, p.edge_id FROM pending_reading r JOIN pending_tag p ON p.id = r.pending_id \
    WHERE r.pending_id = $1 AND r.number > 1 ORDER BY r.time, r.number) r";

/// Held readings become the tag's.
async fn store_held(tx: &mut TenantTx, id: Uuid, tag_id: i32) -> Result<i64> {
    let stored = sqlx::query(
        "INSERT INTO reading (time, tag_id, value, quality) \
         SELECT time, $2, value, quality FROM pending_reading WHERE pending_id = $1 AND number = 1 ORDER BY time",
    )
    .bind(id)
    .bind(tag_id)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "INSERT INTO tag_last (tag_id, time, value, quality, received_at) \
         SELECT $2, time, value, quality, now() FROM pending_reading WHERE pending_id = $1 AND number = 1 \
         ORDER BY time DESC LIMIT 1",
    )
    .bind(id)
    .bind(tag_id)
    .execute(tx.conn())
    .await?;
    for follows in [MARK_ROLLUPS, NOTE_ALARMS, NUMBER_FIRST, REVISE] {
        sqlx::query(follows)
            .bind(id)
            .bind(tag_id)
            .execute(tx.conn())
            .await?;
    }
    Ok(i64::try_from(stored.rows_affected()).unwrap_or(i64::MAX))
}

/// Lets go of a value: what is held of it is dropped, and what comes is only counted. Adopting it later is possible.
#[utoipa::path(post, path = "/integrator/pending-tags/{id}/dismiss", operation_id = "dismiss_pending_tag", tag = TAG, security(("bearer" = ["tag.adopt"])),
    params(("id" = Uuid, Path, description = "Value")), responses((status = 204, description = "Dismissed")))]
pub async fn dismiss_pending_tag(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::TagAdopt).await?;
    let found = find(&mut tx, id).await?;
    let dropped = sqlx::query("DELETE FROM pending_reading WHERE pending_id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?
        .rows_affected();
    sqlx::query("UPDATE pending_tag SET dismissed_at = coalesce(dismissed_at, $2), dropped = dropped + $3 WHERE id = $1")
        .bind(id)
        .bind(app.clock.now())
        .bind(i64::try_from(dropped).unwrap_or(i64::MAX))
        .execute(tx.conn())
        .await?;
    let after = json!({ "device": found.device, "value": found.name, "dropped": dropped });
    tx.audit(&Deed::on("dismiss", "pending_tag", id).after(after));
    tx.finish_empty().await
}

/// Has a dismissed value wait again: what comes from now on is held. What came meanwhile was only counted.
#[utoipa::path(post, path = "/integrator/pending-tags/{id}/restore", operation_id = "restore_pending_tag", tag = TAG, security(("bearer" = ["tag.adopt"])),
    params(("id" = Uuid, Path, description = "Value")), responses((status = 204, description = "It waits")))]
pub async fn restore_pending_tag(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::TagAdopt).await?;
    let found = find(&mut tx, id).await?;
    sqlx::query("UPDATE pending_tag SET dismissed_at = NULL WHERE id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?;
    let after = json!({ "device": found.device, "value": found.name });
    tx.audit(&Deed::on("restore", "pending_tag", id).after(after));
    tx.finish_empty().await
}

/// A device behind a client.
#[derive(Debug, Serialize, ToSchema)]
pub struct IntegratorDevice {
    /// Stable id.
    id: Uuid,
    /// The client it speaks through.
    client: String,
    /// Its name.
    name: String,
    /// Whether it is there, as it or its will last said.
    is_online: bool,
    /// Since when.
    since_us: Micros,
    /// When anything last came of it.
    last_seen_us: Micros,
}

/// Narrows the list of devices.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeviceQuery {
    /// Only devices of this client.
    client: Option<String>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

#[derive(FromRow)]
struct DeviceRow {
    id: Uuid,
    client: String,
    name: String,
    is_online: bool,
    since_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
}

/// Lists devices behind integrators' clients, newest first, with whether they are there.
#[utoipa::path(get, path = "/integrator/devices", operation_id = "list_integrator_devices", tag = TAG, security(("bearer" = ["tag.adopt"])),
    params(DeviceQuery), responses((status = 200, description = "Devices", body = Page<IntegratorDevice>)))]
pub async fn list_integrator_devices(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<DeviceQuery>,
) -> Result<Answer<Page<IntegratorDevice>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::TagAdopt).await?;
    let found: Vec<DeviceRow> = sqlx::query_as(
        "SELECT d.id, e.name AS client, d.name, d.is_online, d.since_at, d.last_seen_at FROM integrator_device d \
         JOIN edge e ON e.id = d.edge_id WHERE ($1::text IS NULL OR e.name = $1) \
           AND ($2::uuid IS NULL OR d.id < $2) ORDER BY d.id DESC LIMIT $3",
    )
    .bind(&query.client)
    .bind(query.cursor)
    .bind(rows.fetched())
    .fetch_all(tx.conn())
    .await?;
    let devices = found
        .into_iter()
        .map(|row| IntegratorDevice {
            id: row.id,
            client: row.client,
            name: row.name,
            is_online: row.is_online,
            since_us: row.since_at.timestamp_micros(),
            last_seen_us: row.last_seen_at.timestamp_micros(),
        })
        .collect();
    Ok(Answer(Page::of(devices, rows, |device: &IntegratorDevice| {
        device.id.to_string()
    })))
}
