//! What is to be sent, when, and by whom? The queue is in the tenant's own tables: deliveries are made from events in
//! order, taken on lease, and settled. A hub that is killed loses its leases, and another one, or itself, goes on.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    schedule::{FAILING_MAX, Next, Outcome},
    send::{Attempt, Parcel},
    sign,
};
use crate::{
    integrate::event::{self, DomainEvent},
    kernel::{
        audit::{Actor, Deed},
        clock::time_from_us,
        event::NewEvent,
        seal::SealingKey,
        tenancy::{Db, TenancyError, TenantSlug, TenantTx},
    },
};

/// Events looked at for a webhook in one transaction.
const BATCH: i64 = 500;
/// How long the log is kept.
const KEPT: chrono::Duration = chrono::Duration::days(30);
const PURGED_MAX: i64 = 5_000;

const DERIVED: &str = "deliveries follow from events, and those from audited deeds";

async fn begin(db: &Db, tenant: &TenantSlug) -> Result<TenantTx, TenancyError> {
    db.begin_as(tenant, Actor::Hub { duty: "webhooks" }).await
}

/// Makes deliveries from the events between two numbers, exclusive and inclusive, that a webhook wants.
pub(super) async fn enqueue(
    conn: &mut PgConnection,
    webhook_id: Uuid,
    (after, until): (i64, i64),
    is_replayed: bool,
    now: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    let made = sqlx::query(
        "INSERT INTO webhook_delivery (id, webhook_id, message_id, seq, kind, aggregate, aggregate_id, is_replayed, \
           next_attempt_at, created_at) \
         SELECT gen_random_uuid(), w.id, 'msg_' || replace(w.id::text, '-', '') || '_' || e.seq, e.seq, e.kind, \
           e.aggregate, e.aggregate_id, $4, $5, $5 \
         FROM webhook w, domain_event e WHERE w.id = $1 AND e.seq > $2 AND e.seq <= $3 \
           AND EXISTS (SELECT FROM unnest(w.kinds) k WHERE k = e.kind \
             OR (right(k, 1) = '*' AND starts_with(e.kind, left(k, -1)))) \
         ORDER BY e.seq",
    )
    .bind(webhook_id)
    .bind(after)
    .bind(until)
    .bind(is_replayed)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(made.rows_affected())
}

/// Brings every active webhook forward by some events; false when all are up to date.
pub(super) async fn fan_out(db: &Db, tenant: &TenantSlug, now: DateTime<Utc>) -> Result<bool, TenancyError> {
    let mut tx = begin(db, tenant).await?;
    let newest = event::newest(tx.conn()).await?;
    let behind: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT id, seq FROM webhook WHERE is_active AND seq < $1 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(newest)
    .fetch_all(tx.conn())
    .await?;
    if behind.is_empty() {
        return Ok(false);
    }
    for (id, seq) in behind {
        let until = newest.min(seq + BATCH);
        enqueue(tx.conn(), id, (seq, until), false, now).await?;
        sqlx::query("UPDATE webhook SET seq = $2 WHERE id = $1")
            .bind(id)
            .bind(until)
            .execute(tx.conn())
            .await?;
    }
    tx.commit_unaudited(DERIVED).await?;
    Ok(true)
}

/// The webhooks that have something to send, and when the first of it is due. Only the first delivery of each record
/// counts: the others wait for it.
pub(super) async fn due(db: &Db, tenant: &TenantSlug) -> Result<Vec<(Uuid, DateTime<Utc>)>, TenancyError> {
    let mut tx = begin(db, tenant).await?;
    let due = sqlx::query_as(
        "SELECT webhook_id, min(due_at) FROM ( \
           SELECT DISTINCT ON (d.webhook_id, d.aggregate, coalesce(d.aggregate_id, d.id)) d.webhook_id, \
             greatest(d.next_attempt_at, d.leased_until) AS due_at \
           FROM webhook_delivery d JOIN webhook w ON w.id = d.webhook_id \
           WHERE d.status = 'pending' AND (w.is_active OR d.seq IS NULL) \
           ORDER BY d.webhook_id, d.aggregate, coalesce(d.aggregate_id, d.id), d.ordinal) head \
         GROUP BY webhook_id",
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(due)
}

#[derive(FromRow)]
struct Claimed {
    id: Uuid,
    message_id: String,
    seq: Option<i64>,
    is_replayed: bool,
    attempts: i32,
    failures: i32,
}

#[derive(FromRow)]
struct Receiver {
    url: String,
    secret_sealed: Vec<u8>,
    previous_sealed: Option<Vec<u8>>,
    previous_until: Option<DateTime<Utc>>,
}

/// Takes up to `most` deliveries of a webhook on lease. Hubs that ask at once get different ones.
pub(super) async fn claim(
    db: &Db,
    sealing: &SealingKey,
    (tenant, webhook_id): (&TenantSlug, Uuid),
    most: usize,
    (now, until): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<Parcel>, TenancyError> {
    let mut tx = begin(db, tenant).await?;
    let receiver: Option<Receiver> = sqlx::query_as(
        "SELECT url, secret_sealed, previous_sealed, previous_until FROM webhook WHERE id = $1",
    )
    .bind(webhook_id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(receiver) = receiver else {
        return Ok(Vec::new());
    };
    let claimed: Vec<Claimed> = sqlx::query_as(
        "UPDATE webhook_delivery t SET leased_until = $4, attempts = t.attempts + 1 FROM ( \
           SELECT d.id FROM webhook_delivery d JOIN webhook w ON w.id = d.webhook_id \
           WHERE d.webhook_id = $1 AND d.status = 'pending' AND (w.is_active OR d.seq IS NULL) \
             AND d.next_attempt_at <= $3 AND (d.leased_until IS NULL OR d.leased_until <= $3) \
             AND NOT EXISTS (SELECT FROM webhook_delivery p WHERE p.webhook_id = d.webhook_id \
               AND p.aggregate = d.aggregate AND p.aggregate_id = d.aggregate_id AND p.status = 'pending' \
               AND p.ordinal < d.ordinal) \
           ORDER BY d.next_attempt_at, d.ordinal LIMIT $2 FOR UPDATE OF d SKIP LOCKED) c \
         WHERE t.id = c.id RETURNING t.id, t.message_id, t.seq, t.is_replayed, t.attempts, t.failures",
    )
    .bind(webhook_id)
    .bind(most as i64)
    .bind(now)
    .bind(until)
    .fetch_all(tx.conn())
    .await?;
    let seqs: Vec<i64> = claimed.iter().filter_map(|row| row.seq).collect();
    let events = event::of(tx.conn(), &seqs).await?;
    tx.commit_unaudited(DERIVED).await?;
    let keys = keys(&receiver, sealing, webhook_id, now);
    let mut events: HashMap<i64, DomainEvent> = events.into_iter().map(|it| (it.seq, it)).collect();
    let parcels = claimed.into_iter().map(|row| {
        let event = row.seq.and_then(|seq| events.remove(&seq));
        parcel(row, event, (webhook_id, &receiver.url), keys.clone(), now)
    });
    Ok(parcels.collect())
}

fn keys(
    receiver: &Receiver,
    sealing: &SealingKey,
    webhook_id: Uuid,
    now: DateTime<Utc>,
) -> Result<Vec<Vec<u8>>, String> {
    let is_good = receiver.previous_until.is_some_and(|until| until > now);
    let previous = receiver.previous_sealed.iter().filter(|_| is_good);
    std::iter::once(&receiver.secret_sealed)
        .chain(previous)
        .map(|sealed| {
            sealing
                .open(&sign::purpose(webhook_id), sealed)
                .map_err(|error| error.to_string())
        })
        .collect()
}

/// The body of a request.
#[derive(Debug, Serialize)]
struct Message<'a> {
    id: &'a str,
    #[serde(flatten)]
    event: Value,
}

fn parcel(
    row: Claimed,
    event: Option<DomainEvent>,
    (webhook_id, url): (Uuid, &str),
    keys: Result<Vec<Vec<u8>>, String>,
    now: DateTime<Utc>,
) -> Parcel {
    let is_test = row.seq.is_none();
    let correlation_id = event
        .as_ref()
        .map_or_else(|| row.id.to_string(), |event| event.correlation_id.clone());
    let event = event.map_or_else(
        || test_event(webhook_id, &correlation_id, now),
        |event| serde_json::to_value(event).unwrap_or_default(),
    );
    let message = Message {
        id: &row.message_id,
        event,
    };
    Parcel {
        body: serde_json::to_string(&message).unwrap_or_default(),
        delivery_id: row.id,
        webhook_id,
        url: url.to_owned(),
        message_id: row.message_id,
        correlation_id,
        is_replayed: row.is_replayed,
        is_test,
        attempt: row.attempts,
        failures: row.failures,
        keys,
    }
}

/// As an event, but it did not happen to any record.
fn test_event(webhook_id: Uuid, correlation_id: &str, now: DateTime<Utc>) -> Value {
    json!({ "kind": "webhook.test", "seq": null, "aggregate": "webhook", "aggregate_id": webhook_id,
        "aggregate_seq": null, "at_us": now.timestamp_micros(), "correlation_id": correlation_id,
        "payload": { "message": "This is a test. If you can read it and its signature is right, all is well." } })
}

/// Notes how an attempt went and what follows. What was settled meanwhile by a hub that had the lease later stays.
pub(super) async fn settle(
    db: &Db,
    tenant: &TenantSlug,
    parcel: &Parcel,
    attempt: &Attempt,
    next: Next,
    now: DateTime<Utc>,
) -> Result<(), TenancyError> {
    let mut tx = begin(db, tenant).await?;
    // First the webhook, then its delivery: the order in which deleting takes them.
    let there: Option<Uuid> = sqlx::query_scalar("SELECT id FROM webhook WHERE id = $1 FOR NO KEY UPDATE")
        .bind(parcel.webhook_id)
        .fetch_optional(tx.conn())
        .await?;
    if there.is_none() {
        return Ok(());
    }
    log(tx.conn(), parcel, attempt).await?;
    move_on(tx.conn(), parcel.delivery_id, next, now).await?;
    if parcel.is_test {
        return tx.commit_unaudited(DERIVED).await;
    }
    let failing_since = note_health(tx.conn(), parcel.webhook_id, next, now).await?;
    let reason = match attempt.outcome {
        Outcome::Gone => Some("the receiver answered 410 Gone"),
        _ if failing_since.is_some_and(|since| now - since >= FAILING_MAX) => Some("it failed for five days"),
        _ => None,
    };
    if let Some(reason) = reason
        && deactivate(&mut tx, parcel.webhook_id, reason).await?
    {
        return tx.commit().await;
    }
    tx.commit_unaudited(DERIVED).await
}

async fn log(conn: &mut PgConnection, parcel: &Parcel, attempt: &Attempt) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO webhook_attempt (delivery_id, attempt, at, duration_ms, status, error, response) \
         SELECT id, $2, $3, $4, $5, $6, $7 FROM webhook_delivery WHERE id = $1 ON CONFLICT DO NOTHING",
    )
    .bind(parcel.delivery_id)
    .bind(parcel.attempt)
    .bind(time_from_us(attempt.at_us))
    .bind(attempt.duration_ms)
    .bind(attempt.status)
    .bind(&attempt.error)
    .bind(&attempt.response)
    .execute(conn)
    .await?;
    Ok(())
}

async fn move_on(
    conn: &mut PgConnection,
    delivery_id: Uuid,
    next: Next,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let (sql, at) = match next {
        Next::Delivered => (
            "UPDATE webhook_delivery SET status = 'delivered', finished_at = $2, leased_until = NULL \
             WHERE id = $1 AND status = 'pending'",
            now,
        ),
        Next::Dead => (
            "UPDATE webhook_delivery SET status = 'dead', finished_at = $2, leased_until = NULL, \
               failures = failures + 1 WHERE id = $1 AND status = 'pending'",
            now,
        ),
        Next::Again(wait) => (
            "UPDATE webhook_delivery SET next_attempt_at = $2, leased_until = NULL, failures = failures + 1 \
             WHERE id = $1 AND status = 'pending'",
            now + wait,
        ),
    };
    sqlx::query(sql).bind(delivery_id).bind(at).execute(conn).await?;
    Ok(())
}

/// Since when the webhook has been failing.
async fn note_health(
    conn: &mut PgConnection,
    webhook_id: Uuid,
    next: Next,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let sql = if next == Next::Delivered {
        "UPDATE webhook SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL \
         AND $2::timestamptz IS NOT NULL RETURNING failing_since"
    } else {
        "UPDATE webhook SET failing_since = coalesce(failing_since, $2) WHERE id = $1 RETURNING failing_since"
    };
    let since: Option<Option<DateTime<Utc>>> = sqlx::query_scalar(sql)
        .bind(webhook_id)
        .bind(now)
        .fetch_optional(conn)
        .await?;
    Ok(since.flatten())
}

/// Switches a webhook off; false when it is off already.
async fn deactivate(tx: &mut TenantTx, webhook_id: Uuid, reason: &str) -> Result<bool, TenancyError> {
    let version: Option<i32> = sqlx::query_scalar(
        "UPDATE webhook SET is_active = false, deactivated_because = $2, version = version + 1 \
         WHERE id = $1 AND is_active RETURNING version",
    )
    .bind(webhook_id)
    .bind(reason)
    .fetch_optional(tx.conn())
    .await?;
    let Some(version) = version else {
        return Ok(false);
    };
    let now = json!({ "is_active": false, "deactivated_because": reason, "version": version });
    let deed = Deed::on("deactivate", "webhook", webhook_id).before(json!({ "is_active": true }));
    tx.audit(&deed.after(&now));
    tx.event(&NewEvent::new("WebhookDeactivated", "webhook", webhook_id, now));
    Ok(true)
}

/// Forgets what was settled long ago.
pub(super) async fn purge(db: &Db, tenant: &TenantSlug, now: DateTime<Utc>) -> Result<u64, TenancyError> {
    let mut tx = begin(db, tenant).await?;
    let gone = sqlx::query(
        "DELETE FROM webhook_delivery WHERE id IN \
           (SELECT id FROM webhook_delivery WHERE finished_at < $1 ORDER BY finished_at LIMIT $2)",
    )
    .bind(now - KEPT)
    .bind(PURGED_MAX)
    .execute(tx.conn())
    .await?
    .rows_affected();
    tx.commit_unaudited("the log of deliveries is kept for a month")
        .await?;
    Ok(gone)
}
