//! What was sent, how did it go, and can it be sent again? The log of a webhook; tests, repetition and replay.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    TAG,
    queue::enqueue,
    record::{begin, find},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{audit::Deed, caller::Caller, permission::Permission, reply::Reply, tenancy::TenantTx},
    request::{Json as Body, Page, Path, Query, Rows},
};

const REPLAYED_MAX: i64 = 10_000;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// To be sent, or sent again.
    Pending,
    /// The receiver answered 2xx.
    Delivered,
    /// Given up.
    Dead,
}

impl DeliveryStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "delivered" => Self::Delivered,
            "dead" => Self::Dead,
            _ => Self::Pending,
        }
    }
}

/// How one attempt went.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeliveryAttempt {
    /// Its number, from 1. One that is missing was cut off with the hub.
    attempt: i32,
    /// When.
    at_us: Micros,
    /// How long it took.
    duration_ms: i32,
    /// HTTP status; null when there was no answer.
    status: Option<i32>,
    /// What went wrong.
    error: Option<String>,
    /// The beginning of the answer, up to 500 characters.
    response: Option<String>,
}

/// One event for one webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookDelivery {
    /// Stable id.
    id: Uuid,
    /// The webhook.
    webhook_id: Uuid,
    /// `webhook-id` of every attempt.
    message_id: String,
    /// Number of the event; null for a test.
    seq: Option<i64>,
    /// Kind of the event.
    kind: String,
    /// Kind of record; null for a test.
    aggregate: Option<String>,
    /// Which one.
    aggregate_id: Option<Uuid>,
    /// Where it stands.
    status: DeliveryStatus,
    /// Whether it is marked as sent again on request.
    is_replayed: bool,
    /// When it is tried next; null when it is settled.
    next_attempt_us: Option<Micros>,
    /// When it was queued.
    created_us: Micros,
    /// When it was settled.
    finished_us: Option<Micros>,
    /// How the attempts went.
    attempts: Vec<DeliveryAttempt>,
    #[serde(skip)]
    ordinal: i64,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    ordinal: i64,
    webhook_id: Uuid,
    message_id: String,
    seq: Option<i64>,
    kind: String,
    aggregate: Option<String>,
    aggregate_id: Option<Uuid>,
    status: String,
    is_replayed: bool,
    next_attempt_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    log: sqlx::types::Json<Vec<DeliveryAttempt>>,
}

impl From<Row> for WebhookDelivery {
    fn from(row: Row) -> Self {
        let status = DeliveryStatus::parse(&row.status);
        let next_us = row.next_attempt_at.timestamp_micros();
        Self {
            id: row.id,
            webhook_id: row.webhook_id,
            message_id: row.message_id,
            seq: row.seq,
            kind: row.kind,
            aggregate: row.aggregate,
            aggregate_id: row.aggregate_id,
            status,
            is_replayed: row.is_replayed,
            next_attempt_us: (status == DeliveryStatus::Pending).then_some(next_us),
            created_us: row.created_at.timestamp_micros(),
            finished_us: row.finished_at.map(|at| at.timestamp_micros()),
            attempts: row.log.0,
            ordinal: row.ordinal,
        }
    }
}

const SELECT: &str = "SELECT d.id, d.ordinal, d.webhook_id, d.message_id, d.seq, d.kind, d.aggregate, d.aggregate_id, \
    d.status, d.is_replayed, d.next_attempt_at, d.created_at, d.finished_at, \
    (SELECT coalesce(jsonb_agg(jsonb_build_object('attempt', a.attempt, \
        'at_us', (extract(epoch FROM a.at) * 1000000)::bigint, 'duration_ms', a.duration_ms, 'status', a.status, \
        'error', a.error, 'response', a.response) ORDER BY a.attempt), '[]') \
     FROM webhook_attempt a WHERE a.delivery_id = d.id) AS log FROM webhook_delivery d";

/// Narrows the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveryQuery {
    /// Only deliveries that stand so.
    status: Option<DeliveryStatus>,
    /// `next` of the page before.
    cursor: Option<i64>,
    /// Rows per page, 1 to 200; 100 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Lists the deliveries of a webhook, newest first, each with its attempts. Settled ones are kept for 30 days.
#[utoipa::path(get, path = "/integrations/webhooks/{id}/deliveries", operation_id = "list_webhook_deliveries", tag = TAG, security(("bearer" = ["webhook.read"])),
    params(("id" = Uuid, Path, description = "Webhook"), DeliveryQuery), responses((status = 200, description = "Deliveries", body = Page<WebhookDelivery>)))]
pub async fn list_webhook_deliveries(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Query(query): Query<DeliveryQuery>,
) -> Result<Json<Page<WebhookDelivery>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = begin(&app, &caller, Permission::WebhookRead).await?;
    find(&mut tx, id, false).await?;
    let sql = format!(
        "{SELECT} WHERE d.webhook_id = $1 AND ($2::text IS NULL OR d.status = $2) \
         AND ($3::bigint IS NULL OR d.ordinal < $3) ORDER BY d.ordinal DESC LIMIT $4"
    );
    let found: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .bind(query.status.map(DeliveryStatus::as_str))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let deliveries = found.into_iter().map(WebhookDelivery::from).collect();
    Ok(Json(Page::of(deliveries, rows, |delivery: &WebhookDelivery| {
        delivery.ordinal.to_string()
    })))
}

async fn delivery(tx: &mut TenantTx, id: Uuid) -> Result<WebhookDelivery> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE d.id = $1")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(WebhookDelivery::from)
        .ok_or(Error::NotFound { entity: "delivery" })
}

/// Queues a message of kind `webhook.test`, which is tried once, also while the webhook is off.
#[utoipa::path(post, path = "/integrations/webhooks/{id}/test", operation_id = "test_webhook", tag = TAG, security(("bearer" = ["webhook.write"])),
    params(("id" = Uuid, Path, description = "Webhook")), responses((status = 202, description = "Queued", body = WebhookDelivery)))]
pub async fn test_webhook(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = begin(&app, &caller, Permission::WebhookWrite).await?;
    find(&mut tx, id, true).await?;
    let test = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO webhook_delivery (id, webhook_id, message_id, kind, next_attempt_at, created_at) \
         VALUES ($1, $2, $3, 'webhook.test', $4, $4)",
    )
    .bind(test)
    .bind(id)
    .bind(format!("msg_test_{}", test.simple()))
    .bind(tx.at())
    .execute(tx.conn())
    .await?;
    let queued = delivery(&mut tx, test).await?;
    tx.audit(&Deed::on("test", "webhook", id).after(json!({ "delivery_id": test })));
    finish(&app, tx, StatusCode::ACCEPTED, &queued).await
}

/// Sends a settled delivery again, marked as replayed, with the same `webhook-id`.
#[utoipa::path(post, path = "/integrations/webhooks/{id}/deliveries/{delivery}/redeliver", operation_id = "redeliver_webhook", tag = TAG, security(("bearer" = ["webhook.write"])),
    params(("id" = Uuid, Path, description = "Webhook"), ("delivery" = Uuid, Path, description = "Delivery")),
    responses((status = 202, description = "Queued", body = WebhookDelivery)))]
pub async fn redeliver_webhook(
    State(app): State<App>,
    caller: Caller,
    Path((id, delivery_id)): Path<(Uuid, Uuid)>,
) -> Result<Reply> {
    let mut tx = begin(&app, &caller, Permission::WebhookWrite).await?;
    find(&mut tx, id, true).await?;
    let before = delivery(&mut tx, delivery_id).await?;
    if before.webhook_id != id {
        return Err(Error::NotFound { entity: "delivery" });
    }
    if before.status == DeliveryStatus::Pending {
        return Err(Error::Conflict("it is still to be sent".to_owned()));
    }
    sqlx::query(
        "UPDATE webhook_delivery SET status = 'pending', finished_at = NULL, failures = 0, is_replayed = true, \
           next_attempt_at = $2 WHERE id = $1",
    )
    .bind(delivery_id)
    .bind(tx.at())
    .execute(tx.conn())
    .await?;
    let queued = delivery(&mut tx, delivery_id).await?;
    let deed = Deed::on("redeliver", "webhook_delivery", delivery_id);
    tx.audit(
        &deed
            .before(json!({ "status": before.status }))
            .after(json!({ "status": queued.status, "webhook_id": id })),
    );
    finish(&app, tx, StatusCode::ACCEPTED, &queued).await
}

/// Which events to send again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookReplay {
    /// The first event.
    #[schema(minimum = 1)]
    from_seq: i64,
    /// The last one; up to 10,000 events are gone through at once.
    #[schema(minimum = 1)]
    to_seq: i64,
}

/// What is sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookReplayed {
    /// How many events the webhook wants among them.
    queued: u64,
}

/// Sends a range of events again, marked as replayed, in their order.
#[utoipa::path(post, path = "/integrations/webhooks/{id}/replay", operation_id = "replay_webhook", tag = TAG, security(("bearer" = ["webhook.write"])),
    params(("id" = Uuid, Path, description = "Webhook")), request_body = WebhookReplay,
    responses((status = 202, description = "Queued", body = WebhookReplayed)))]
pub async fn replay_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Body(range): Body<WebhookReplay>,
) -> Result<Reply> {
    let mut tx = begin(&app, &caller, Permission::WebhookWrite).await?;
    let webhook = find(&mut tx, id, true).await?;
    let (from, to) = (range.from_seq, range.to_seq);
    if from < 1 || to < from || to - from >= REPLAYED_MAX {
        return Err(Error::Invalid(format!(
            "`from_seq` must be at least 1 and `to_seq` 0 to {} more",
            REPLAYED_MAX - 1
        )));
    }
    // What comes after is sent anyway.
    let until = to.min(webhook.seq);
    let now = tx.at();
    let queued = enqueue(tx.conn(), id, (from - 1, until), true, now).await?;
    let deed = Deed::on("replay", "webhook", id);
    tx.audit(&deed.after(json!({ "from_seq": from, "to_seq": until, "queued": queued })));
    finish(&app, tx, StatusCode::ACCEPTED, &WebhookReplayed { queued }).await
}

/// Ends a deed after which there is something to send.
async fn finish(app: &App, tx: TenantTx, status: StatusCode, record: &impl Serialize) -> Result<Reply> {
    let tenant = tx.tenant().clone();
    let reply = tx.finish(status, record).await?;
    app.db.pulse().committed(&tenant);
    Ok(reply)
}
