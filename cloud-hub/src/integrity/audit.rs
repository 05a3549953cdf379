//! Who did what? The audit chain as its readers see it: entries newest first, the signed roots, and whether it is
//! whole.

use axum::{Json as Answer, extract::State, http::StatusCode};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{FromRow, Postgres, QueryBuilder};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use super::{
    TAG, key,
    verify::{self, Ask, Verified},
};
use crate::kernel::hex::hex;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, permission::Permission, reply::Reply},
    request::{Page, Path, Query, Rows},
};

/// Rows that one request verifies: seconds of work.
const VERIFY_ROWS_MAX: i64 = 500_000;
/// Requests that verify at once; each burns a processor.
static VERIFYING: Semaphore = Semaphore::const_new(2);

/// One entry of the audit chain.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its place in the chain: 1, 2, 3 without gaps.
    seq: i64,
    /// When.
    at_us: i64,
    /// Who.
    actor: AuditActor,
    /// What: `create`, `update`, `denied`.
    action: String,
    /// The kind of record.
    entity: String,
    /// Which one.
    entity_id: Option<String>,
    /// The record as it was.
    before: Option<Value>,
    /// The record as it is since then.
    after: Option<Value>,
    /// The reason that was given.
    why: Option<String>,
    /// Names the request in logs, events and notifications.
    correlation_id: Option<String>,
    /// Hash of the entry before, hexadecimal.
    prev_hash: String,
    /// Its own hash: SHA-256 of `prev_hash`, `seq` as 8 bytes (big-endian) and `event`.
    hash: String,
    /// The entry byte for byte as it was hashed: canonical JSON.
    event: String,
}

/// Who acted.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditActor {
    /// `user`, `api_key`, `operator`, `edge`, `hub` or `nobody`.
    kind: String,
    /// Which one of that kind.
    id: Option<String>,
    /// Their name when they acted.
    name: Option<String>,
}

/// Narrows the list of entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Kind of record.
    entity: Option<String>,
    /// Record.
    entity_id: Option<String>,
    /// Who acted.
    actor_id: Option<String>,
    /// What was done.
    action: Option<String>,
    /// In what request.
    correlation_id: Option<String>,
    /// Not before.
    from_us: Option<i64>,
    /// Before.
    to_us: Option<i64>,
    /// `next` of the page before.
    cursor: Option<i64>,
    /// Rows per page, 1 to 200; 100 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

#[derive(FromRow)]
struct Row {
    seq: i64,
    at_us: i64,
    actor_kind: String,
    actor_id: Option<String>,
    action: String,
    entity: String,
    entity_id: Option<String>,
    correlation_id: Option<String>,
    event: String,
    prev_hash: Vec<u8>,
    hash: Vec<u8>,
}

const SELECT: &str = "SELECT seq, at_us, actor_kind, actor_id, action, entity, entity_id, correlation_id, event, \
    prev_hash, hash FROM audit_event WHERE true";

impl From<Row> for AuditEntry {
    fn from(row: Row) -> Self {
        // An entry that somebody tampered with is shown as far as it can be read; verifying names it.
        let mut event: Value = serde_json::from_str(&row.event).unwrap_or_default();
        let mut take = |field: &str| event.get_mut(field).map(Value::take).filter(|it| !it.is_null());
        let text = |value: Value| value.as_str().map(str::to_owned);
        let (before, after) = (take("before"), take("after"));
        let name = take("actor").and_then(|actor| actor.get("name").cloned());
        Self {
            seq: row.seq,
            at_us: row.at_us,
            actor: AuditActor {
                kind: row.actor_kind,
                id: row.actor_id,
                name: name.and_then(text),
            },
            action: row.action,
            entity: row.entity,
            entity_id: row.entity_id,
            before,
            after,
            why: take("why").and_then(text),
            correlation_id: row.correlation_id,
            prev_hash: hex(&row.prev_hash),
            hash: hex(&row.hash),
            event: row.event,
        }
    }
}

/// Lists entries, newest first.
#[utoipa::path(get, path = "/audit", operation_id = "list_audit_entries", tag = TAG, security(("bearer" = ["audit.read"])),
    params(AuditQuery), responses((status = 200, description = "Entries", body = Page<AuditEntry>)))]
pub async fn list_audit_entries(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Answer<Page<AuditEntry>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::AuditRead).await?;
    let mut sql = narrowed(&query);
    sql.push(" ORDER BY seq DESC LIMIT ").push_bind(rows.fetched());
    let found: Vec<Row> = sql.build_query_as().fetch_all(tx.conn()).await?;
    let entries = found.into_iter().map(AuditEntry::from).collect();
    Ok(Answer(Page::of(entries, rows, |entry: &AuditEntry| {
        entry.seq.to_string()
    })))
}

/// Only the filters that were given are in the statement, so that each list finds its index.
fn narrowed(query: &AuditQuery) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(SELECT);
    for (term, text) in [
        (" AND entity = ", &query.entity),
        (" AND entity_id = ", &query.entity_id),
        (" AND actor_id = ", &query.actor_id),
        (" AND action = ", &query.action),
        (" AND correlation_id = ", &query.correlation_id),
    ] {
        if let Some(text) = text {
            sql.push(term).push_bind(text.clone());
        }
    }
    for (term, number) in [
        (" AND at_us >= ", query.from_us),
        (" AND at_us < ", query.to_us),
        (" AND seq < ", query.cursor),
    ] {
        if let Some(number) = number {
            sql.push(term).push_bind(number);
        }
    }
    sql
}

/// Reads one entry.
#[utoipa::path(get, path = "/audit/{seq}", operation_id = "read_audit_entry", tag = TAG, security(("bearer" = ["audit.read"])),
    params(("seq" = i64, Path, description = "Place in the chain")),
    responses((status = 200, description = "The entry", body = AuditEntry)))]
pub async fn read_audit_entry(
    State(app): State<App>,
    caller: Caller,
    Path(seq): Path<i64>,
) -> Result<Answer<AuditEntry>> {
    let mut tx = caller.begin(&app, Permission::AuditRead).await?;
    let mut sql = QueryBuilder::<Postgres>::new(SELECT);
    sql.push(" AND seq = ").push_bind(seq);
    let found: Option<Row> = sql.build_query_as().fetch_optional(tx.conn()).await?;
    let row = found.ok_or(Error::NotFound {
        entity: "audit entry",
    })?;
    Ok(Answer(row.into()))
}

/// Which rows to verify.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VerifyQuery {
    /// First row; 1 when absent.
    from: Option<i64>,
    /// Last row; the last there is when absent.
    to: Option<i64>,
}

/// What verifying found.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditVerification {
    /// First row that was looked at.
    from: i64,
    /// Last row that was looked at.
    to: i64,
    /// Rows that hold.
    rows: u64,
    /// The first thing that does not hold; null when all of it does.
    first_broken: Option<AuditFault>,
    /// Last row of the chain; 0 while it is empty.
    head_seq: i64,
    /// Its hash, hexadecimal.
    head_hash: Option<String>,
    /// Signed roots that vouch for rows that were looked at.
    roots_checked: usize,
    /// Signatures on records that were looked at: all of them once the last row is among the rows.
    signatures_checked: u64,
    /// Where to go on; null when the last row that was asked for has been looked at.
    next_from: Option<i64>,
}

/// Where the chain is broken.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditFault {
    /// The row; null for a signature that the chain does not know.
    seq: Option<i64>,
    /// What is wrong with it.
    why: String,
}

impl AuditVerification {
    fn of(found: Verified, asked_to: i64) -> Self {
        let last = asked_to.min(found.head_seq);
        Self {
            from: found.from,
            to: found.to,
            rows: found.rows,
            next_from: (found.first_broken.is_none() && found.to < last).then_some(found.to + 1),
            first_broken: found.first_broken.map(|broken| AuditFault {
                seq: broken.row(),
                why: broken.fault.to_string(),
            }),
            head_seq: found.head_seq,
            head_hash: found.head_hash.as_deref().map(hex),
            roots_checked: found.roots_checked,
            signatures_checked: found.signatures_checked,
        }
    }
}

/// Verifies the chain, at most 500000 rows at a time: every hash, every column, the signed roots, the signatures.
#[utoipa::path(get, path = "/audit/verify", operation_id = "verify_audit", tag = TAG, security(("bearer" = ["audit.read"])),
    params(VerifyQuery), responses((status = 200, description = "What was found", body = AuditVerification)))]
pub async fn verify_audit(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<VerifyQuery>,
) -> Result<Answer<AuditVerification>> {
    let (from, to) = (query.from.unwrap_or(1), query.to.unwrap_or(i64::MAX));
    if from < 1 || to < from {
        return Err(Error::Invalid(
            "`from` must be 1 or more and `to` not before it".to_owned(),
        ));
    }
    drop(caller.begin(&app, Permission::AuditRead).await?);
    let _turn = VERIFYING
        .acquire()
        .await
        .map_err(|closed| Error::Internal(closed.into()))?;
    let further = key::trusted(&app.config.data_dir);
    let mut trusted = further.map_err(|source| Error::Internal(source.into()))?;
    trusted.push(app.audit_key.public());
    let ask = Ask {
        from,
        to: to.min(from.saturating_add(VERIFY_ROWS_MAX - 1)),
        trusted: &trusted,
        files: &[],
        parts: 1,
    };
    let found = verify::verify(&app.db, &caller.tenant, &ask).await?;
    Ok(Answer(AuditVerification::of(found, to)))
}

/// A signed root: where the chain stood at the end of a UTC day.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditRoot {
    /// The day.
    day: NaiveDate,
    /// Rows of the chain up to its end.
    last_seq: i64,
    /// Hash of the last of them, hexadecimal.
    last_hash: String,
    /// What was signed, byte for byte: canonical JSON.
    statement: String,
    /// Ed25519 over the statement, hexadecimal.
    signature: String,
    /// The key that verifies it, hexadecimal.
    public_key: String,
    /// When it was signed.
    signed_us: i64,
}

#[derive(FromRow)]
struct RootRow {
    day: NaiveDate,
    last_seq: i64,
    last_hash: Vec<u8>,
    statement: String,
    signature: Vec<u8>,
    public_key: Vec<u8>,
    signed_at: DateTime<Utc>,
}

impl From<RootRow> for AuditRoot {
    fn from(row: RootRow) -> Self {
        Self {
            day: row.day,
            last_seq: row.last_seq,
            last_hash: hex(&row.last_hash),
            statement: row.statement,
            signature: hex(&row.signature),
            public_key: hex(&row.public_key),
            signed_us: row.signed_at.timestamp_micros(),
        }
    }
}

/// Which page of the roots.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RootQuery {
    /// `next` of the page before.
    cursor: Option<NaiveDate>,
    /// Rows per page, 1 to 200; 100 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Lists the signed roots, newest first.
#[utoipa::path(get, path = "/audit/roots", operation_id = "list_audit_roots", tag = TAG, security(("bearer" = ["audit.read"])),
    params(RootQuery), responses((status = 200, description = "Roots", body = Page<AuditRoot>)))]
pub async fn list_audit_roots(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<RootQuery>,
) -> Result<Answer<Page<AuditRoot>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::AuditRead).await?;
    let found: Vec<RootRow> = sqlx::query_as(
        "SELECT day, last_seq, last_hash, statement, signature, public_key, signed_at FROM audit_root \
         WHERE $1::date IS NULL OR day < $1 ORDER BY day DESC LIMIT $2",
    )
    .bind(query.cursor)
    .bind(rows.fetched())
    .fetch_all(tx.conn())
    .await?;
    let roots = found.into_iter().map(AuditRoot::from).collect();
    Ok(Answer(Page::of(roots, rows, |root: &AuditRoot| {
        root.day.to_string()
    })))
}

/// The key that verifies the signed roots.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPublicKey {
    /// Always `Ed25519`.
    algorithm: &'static str,
    /// 32 bytes, hexadecimal.
    public_key: String,
}

/// Says with which key roots are verified: keep it where the hub's operator cannot change it.
#[utoipa::path(get, path = "/audit/key", operation_id = "read_audit_key", tag = TAG, security(("bearer" = ["audit.read"])),
    responses((status = 200, description = "The key", body = AuditPublicKey)))]
pub async fn read_audit_key(State(app): State<App>, caller: Caller) -> Result<Reply> {
    drop(caller.begin(&app, Permission::AuditRead).await?);
    Reply::json(
        StatusCode::OK,
        &AuditPublicKey {
            algorithm: "Ed25519",
            public_key: hex(&app.audit_key.public()),
        },
    )
}
