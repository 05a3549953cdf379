//! What did happen? Events as consumers read them from the store: numbered without gaps, in the order of commits.

use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

/// Something that happened to one record.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct DomainEvent {
    /// Number in the tenant, without gaps, in the order of commits.
    pub seq: i64,
    /// What happened, in the past tense: `BatchStarted`.
    pub kind: String,
    /// The kind of record it happened to.
    pub aggregate: String,
    /// Which one.
    pub aggregate_id: Uuid,
    /// Number among the events of this record, from 1.
    pub aggregate_seq: i64,
    /// When.
    pub at_us: Micros,
    /// Names the request, or the edge's deviation, that it follows from.
    pub correlation_id: String,
    /// The facts; mostly the record as it was afterwards.
    pub payload: Value,
}

#[derive(FromRow)]
struct Row {
    seq: i64,
    kind: String,
    aggregate: String,
    aggregate_id: Uuid,
    aggregate_seq: i64,
    at: DateTime<Utc>,
    correlation_id: String,
    payload: Value,
}

impl From<Row> for DomainEvent {
    fn from(row: Row) -> Self {
        Self {
            seq: row.seq,
            kind: row.kind,
            aggregate: row.aggregate,
            aggregate_id: row.aggregate_id,
            aggregate_seq: row.aggregate_seq,
            at_us: row.at.timestamp_micros(),
            correlation_id: row.correlation_id,
            payload: row.payload,
        }
    }
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Exact, or a beginning followed by `*`.
    pub(super) kind: Option<String>,
    pub(super) aggregate: Option<String>,
    pub(super) aggregate_id: Option<Uuid>,
}

/// Up to `most` events after `seq`, in order.
pub(super) async fn after(
    conn: &mut PgConnection,
    seq: i64,
    most: i64,
    wanted: &Wanted,
) -> Result<Vec<DomainEvent>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT seq, kind, aggregate, aggregate_id, aggregate_seq, at, correlation_id, payload FROM domain_event \
         WHERE seq > $1 AND ($3::text IS NULL OR kind = $3 \
             OR (right($3, 1) = '*' AND starts_with(kind, left($3, -1)))) \
           AND ($4::text IS NULL OR aggregate = $4) AND ($5::uuid IS NULL OR aggregate_id = $5) \
         ORDER BY seq LIMIT $2",
    )
    .bind(seq)
    .bind(most)
    .bind(&wanted.kind)
    .bind(&wanted.aggregate)
    .bind(wanted.aggregate_id)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(DomainEvent::from).collect())
}

/// The events of these numbers, in order.
pub(super) async fn of(conn: &mut PgConnection, seqs: &[i64]) -> Result<Vec<DomainEvent>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT seq, kind, aggregate, aggregate_id, aggregate_seq, at, correlation_id, payload FROM domain_event \
         WHERE seq = ANY($1) ORDER BY seq",
    )
    .bind(seqs)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(DomainEvent::from).collect())
}

/// Number of the newest event; 0 where nothing happened yet.
pub(super) async fn newest(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM domain_event")
        .fetch_one(conn)
        .await
}
