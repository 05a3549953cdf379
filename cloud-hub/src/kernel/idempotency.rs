//! Was this request answered before? A POST with an `Idempotency-Key` is done once: its answer is stored in the
//! transaction of the deed, and the same request again gets that answer.

use axum::http::StatusCode;
use sqlx::{FromRow, PgConnection};

use super::{
    audit::Actor,
    context::{self, Idempotency},
    reply::Reply,
    tenancy::{Db, TenancyError, TenantSlug, TenantTx},
};
use crate::error::{Error, Result};

/// How long an answer is kept.
pub const KEPT_HOURS: i64 = 24;

#[derive(FromRow)]
struct Stored {
    request_sha256: Vec<u8>,
    status: i16,
    etag: Option<String>,
    body: Option<String>,
}

/// Ends the request with the stored answer when there is one. Two requests with one key take turns, so that the
/// second finds the first one's answer.
///
/// # Errors
/// [`Error::Replayed`]; [`Error::KeyReused`] when the key was used for another request.
pub(super) async fn replay(tx: &mut TenantTx) -> Result<()> {
    let Some(asked) = tx.context().idempotency.clone() else {
        return Ok(());
    };
    let actor = tx.actor().key();
    sqlx::query(
        "SELECT pg_advisory_xact_lock(hashtextextended('once ' || current_schema() || $1 || ' ' || $2, 0))",
    )
    .bind(&actor)
    .bind(&asked.key)
    .execute(tx.conn())
    .await?;
    let stored: Option<Stored> = sqlx::query_as(
        "SELECT request_sha256, status, etag, body FROM idempotency_key WHERE actor = $1 AND key = $2",
    )
    .bind(&actor)
    .bind(&asked.key)
    .fetch_optional(tx.conn())
    .await?;
    match stored {
        None => Ok(()),
        Some(stored) if stored.request_sha256 != asked.request_sha256 => Err(Error::KeyReused),
        Some(stored) => Err(Error::Replayed(Box::new(reply(stored)?))),
    }
}

fn reply(stored: Stored) -> Result<Reply> {
    let status = u16::try_from(stored.status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::OK);
    let Some(body) = stored.body else {
        return Err(Error::Conflict(
            "this was done before; its answer held a secret that is shown only once".to_owned(),
        ));
    };
    Ok(Reply {
        status,
        etag: stored.etag,
        body,
        is_replayed: true,
    })
}

/// Ends the request of somebody who comes from outside the tenant (an operator of the platform) with the answer that
/// is stored in it. A tenant that is not there, or cannot be asked now, has none.
///
/// # Errors
/// [`Error::Replayed`]; [`Error::KeyReused`].
pub async fn replay_in(db: &Db, tenant: &TenantSlug, actor: Actor) -> Result<()> {
    if context::current().idempotency.is_none() {
        return Ok(());
    }
    match db.begin_as(tenant, actor).await {
        Ok(mut tx) => replay(&mut tx).await,
        Err(TenancyError::UnknownTenant | TenancyError::NotMigrated(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Stores the answer, in the transaction of the deed; `body` is null where it carries a secret.
pub(super) async fn store(tx: &mut TenantTx, reply: &Reply, is_secret: bool) -> Result<()> {
    let (actor, asked) = (tx.actor().key(), tx.context().idempotency.clone());
    insert(tx.conn(), &actor, asked, reply, is_secret).await
}

/// The work of [`store`], where `search_path` is the tenant's schema.
pub(super) async fn insert(
    conn: &mut PgConnection,
    actor: &str,
    asked: Option<Idempotency>,
    reply: &Reply,
    is_secret: bool,
) -> Result<()> {
    let Some(asked) = asked else {
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO idempotency_key (actor, key, request_sha256, status, etag, body) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(actor)
    .bind(&asked.key)
    .bind(&asked.request_sha256[..])
    .bind(i16::try_from(reply.status.as_u16()).unwrap_or(200))
    .bind(&reply.etag)
    .bind((!is_secret).then_some(&reply.body))
    .execute(conn)
    .await?;
    Ok(())
}
