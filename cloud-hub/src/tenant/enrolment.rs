//! How does an edge get and prove its identity? A person makes a one-time code; the edge exchanges it for a
//! secret, which it presents at every connection. Only digests are stored.

use chrono::{DateTime, Duration, Utc};
use serde_json::json;
use uuid::Uuid;

use crate::{
    edges::authority::{DeviceAuthority, Issued, SignError},
    kernel::{
        audit::{Actor, Deed},
        event::NewEvent,
        secret,
        tenancy::{Db, TenancyError, TenantSlug, TenantTx},
    },
};

/// How long a code may be used.
const CODE_VALID_HOURS: i64 = 24;
const SECRET_BYTES: usize = 32;
/// What the names of HTTP's callers begin with, and no enrolled edge's: their values would be one client's.
pub const HTTP_CALLER: &str = "http-";
const CODE_BYTES: usize = 15;

/// Why there is no code or no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A name that no topic can carry, or that is a caller's over HTTP.
    #[error(
        "`{0}` is no edge name: 1 to 63 of a-z, 0-9, `-` and `_`, not starting with `-` or `{HTTP_CALLER}`"
    )]
    BadName(String),
    /// Never made, used before, or too old; the caller learns no more.
    #[error("the code is not valid; codes work once, for {CODE_VALID_HOURS} hours")]
    BadCode,
    /// The key that it brought cannot be signed; the code is not used up.
    #[error(transparent)]
    Request(#[from] SignError),
    /// The tenant or the database.
    #[error(transparent)]
    Tenancy(#[from] TenancyError),
}

impl From<sqlx::Error> for EnrolError {
    fn from(error: sqlx::Error) -> Self {
        Self::Tenancy(error.into())
    }
}

/// What an edge needs to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Tenant slug.
    pub tenant: String,
    /// Name of the edge.
    pub edge: String,
    /// `TENANT/EDGE`.
    pub mqtt_username: String,
    /// The secret, known to the edge only.
    pub mqtt_password: secret::Secret,
    /// Its certificate, where it brought a key.
    pub certificate: Option<Issued>,
}

/// A code that was just made.
#[derive(Clone, Debug)]
pub struct NewCode {
    /// Names the code in lists and in the audit chain.
    pub id: Uuid,
    /// What the edge presents, shown once.
    pub code: secret::Secret,
    /// Until when it may be used.
    pub expires_at: DateTime<Utc>,
}

/// Makes a one-time code for `edge`, as the command line does.
///
/// # Errors
/// [`EnrolError`].
pub async fn create_code(
    db: &Db,
    tenant: &TenantSlug,
    edge: &str,
    now: DateTime<Utc>,
) -> Result<String, EnrolError> {
    let actor = Actor::Operator {
        name: "enroll-code".to_owned(),
    };
    let mut tx = db.begin_as(tenant, actor).await?;
    let made = issue_code(&mut tx, edge, now).await?;
    tx.commit().await?;
    Ok(made.code.expose().to_owned())
}

/// Makes a one-time code for `edge` in the caller's transaction, with its entry in the audit chain.
///
/// # Errors
/// [`EnrolError`].
pub async fn issue_code(tx: &mut TenantTx, edge: &str, now: DateTime<Utc>) -> Result<NewCode, EnrolError> {
    if !protocol::topic::is_name(edge) || edge.starts_with(HTTP_CALLER) {
        return Err(EnrolError::BadName(edge.escape_default().take(80).collect()));
    }
    let made = NewCode {
        id: Uuid::now_v7(),
        code: secret::Secret::new(secret::random_text(CODE_BYTES)),
        expires_at: now + Duration::hours(CODE_VALID_HOURS),
    };
    let (slug, by) = (tx.tenant().clone(), tx.actor().display());
    tx.step_out().await?;
    let inserted = sqlx::query(
        "INSERT INTO platform.enroll_code (code_sha256, tenant_id, edge_name, expires_at, id, created_at, created_by) \
         SELECT $1, id, $2, $3, $4, $5, $6 FROM platform.tenant WHERE slug = $7",
    )
    .bind(&secret::digest(made.code.expose())[..])
    .bind(edge)
    .bind(made.expires_at)
    .bind(made.id)
    .bind(now)
    .bind(by)
    .bind(slug.as_str())
    .execute(tx.conn())
    .await?;
    tx.step_in().await?;
    if inserted.rows_affected() == 0 {
        return Err(TenancyError::UnknownTenant.into());
    }
    let told = json!({ "edge": edge, "expires_us": made.expires_at.timestamp_micros() });
    tx.audit(&Deed::on("create", "enroll_code", made.id).after(told));
    Ok(made)
}

/// Exchanges a code for an identity. An edge that enrols again gets a new secret; the old one stops working.
///
/// # Errors
/// [`EnrolError`].
pub async fn redeem(db: &Db, code: &str, now: DateTime<Utc>) -> Result<Identity, EnrolError> {
    redeem_with(db, code, now, None).await
}

/// As [`redeem`], and has a key signed that the edge brought. Certificates that it had before stop working.
///
/// # Errors
/// [`EnrolError`].
pub async fn redeem_with(
    db: &Db,
    code: &str,
    now: DateTime<Utc>,
    asked: Option<(&DeviceAuthority, &str)>,
) -> Result<Identity, EnrolError> {
    let digest = secret::digest(code.trim());
    let mut platform = db.platform().await?;
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT t.slug, c.edge_name FROM platform.enroll_code c JOIN platform.tenant t ON t.id = c.tenant_id \
         WHERE c.code_sha256 = $1 AND c.used_at IS NULL AND c.withdrawn_at IS NULL AND c.expires_at > $2 \
           AND t.status = 'active'",
    )
    .bind(&digest[..])
    .bind(now)
    .fetch_optional(platform.conn())
    .await?;
    drop(platform);
    let (slug, edge) = found.ok_or(EnrolError::BadCode)?;
    let tenant = TenantSlug::parse(&slug).map_err(|_| TenancyError::UnknownTenant)?;
    let certificate = asked
        .map(|(authority, csr_pem)| authority.sign(csr_pem, (slug.as_str(), edge.as_str()), now))
        .transpose()?;
    let mut tx = db.begin_as(&tenant, Actor::Edge { name: edge.clone() }).await?;
    let password = secret::random_text(SECRET_BYTES);
    tx.step_out().await?;
    let code_id = use_up(&mut tx, &digest, &secret::digest(&password), now).await?;
    tx.step_in().await?;
    let edge_id: Uuid = sqlx::query_scalar(
        "INSERT INTO edge (id, name) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET revoked_at = NULL RETURNING id",
    )
    .bind(Uuid::now_v7())
    .bind(&edge)
    .fetch_one(tx.conn())
    .await?;
    void_certificates(&mut tx, edge_id, now).await?;
    if let Some(issued) = &certificate {
        sqlx::query(ISSUED)
            .bind(Uuid::now_v7())
            .bind(edge_id)
            .bind(&issued.serial)
            .bind(&issued.fingerprint)
            .bind(issued.not_before)
            .bind(issued.not_after)
            .bind(now)
            .execute(tx.conn())
            .await?;
    }
    let serial = certificate.as_ref().map(|issued| &issued.serial);
    let after = json!({ "enroll_code": code_id, "certificate_serial": serial });
    tx.audit(&Deed::on("enrol", "edge", &edge).after(after));
    tx.commit().await?;
    Ok(Identity {
        mqtt_username: format!("{slug}/{edge}"),
        mqtt_password: secret::Secret::new(password),
        tenant: slug,
        edge,
        certificate,
    })
}

/// A certificate that was signed.
pub(crate) const ISSUED: &str = "
INSERT INTO edge_certificate (id, edge_id, serial, fingerprint, not_before, not_after, issued_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)";

async fn void_certificates(tx: &mut TenantTx, edge_id: Uuid, now: DateTime<Utc>) -> Result<(), TenancyError> {
    sqlx::query("UPDATE edge_certificate SET revoked_at = $2 WHERE edge_id = $1 AND revoked_at IS NULL")
        .bind(edge_id)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Whether a certificate that names this edge was signed for it, is not revoked, and the edge is let in at all.
///
/// # Errors
/// [`TenancyError`]: the answer is not known now.
pub async fn is_certified(
    db: &Db,
    (tenant, edge): (&str, &str),
    fingerprint: &str,
) -> Result<bool, TenancyError> {
    let Ok(slug) = TenantSlug::parse(tenant) else {
        return Ok(false);
    };
    let actor = Actor::Hub { duty: "certificates" };
    let mut tx = match db.begin_active(&slug, actor).await {
        Err(TenancyError::UnknownTenant) => return Ok(false),
        begun => begun?,
    };
    let found = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM edge_certificate c JOIN edge e ON e.id = c.edge_id WHERE c.fingerprint = $1 \
           AND c.revoked_at IS NULL AND e.name = $2 AND e.revoked_at IS NULL)",
    );
    Ok(found.bind(fingerprint).bind(edge).fetch_one(tx.conn()).await?)
}

/// Uses the code up and registers the secret, as one; of two who present a code at once, one gets in.
async fn use_up(
    tx: &mut TenantTx,
    code: &[u8; 32],
    password: &[u8; 32],
    now: DateTime<Utc>,
) -> Result<Uuid, EnrolError> {
    let used: Option<(Uuid, Uuid, String)> = sqlx::query_as(
        "UPDATE platform.enroll_code SET used_at = $2 WHERE code_sha256 = $1 AND used_at IS NULL \
           AND withdrawn_at IS NULL AND expires_at > $2 RETURNING id, tenant_id, edge_name",
    )
    .bind(&code[..])
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    let (id, tenant_id, edge) = used.ok_or(EnrolError::BadCode)?;
    sqlx::query(
        "INSERT INTO platform.edge_registry (tenant_id, name, secret_sha256) VALUES ($1, $2, $3) \
         ON CONFLICT (tenant_id, name) DO UPDATE SET secret_sha256 = excluded.secret_sha256, revoked_at = NULL",
    )
    .bind(tenant_id)
    .bind(edge)
    .bind(&password[..])
    .execute(tx.conn())
    .await?;
    Ok(id)
}

/// Takes an edge's credentials away, and the codes with which it could get new ones; false when there is no such edge.
///
/// # Errors
/// [`TenancyError`].
pub async fn revoke(tx: &mut TenantTx, edge: &str, now: DateTime<Utc>) -> Result<bool, TenancyError> {
    let slug = tx.tenant().clone();
    tx.step_out().await?;
    let revoked = sqlx::query(
        "UPDATE platform.edge_registry e SET revoked_at = coalesce(e.revoked_at, $3) FROM platform.tenant t \
         WHERE t.id = e.tenant_id AND t.slug = $1 AND e.name = $2",
    )
    .bind(slug.as_str())
    .bind(edge)
    .bind(now)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "UPDATE platform.enroll_code c SET withdrawn_at = $3 FROM platform.tenant t WHERE t.id = c.tenant_id \
           AND t.slug = $1 AND c.edge_name = $2 AND c.used_at IS NULL AND c.withdrawn_at IS NULL",
    )
    .bind(slug.as_str())
    .bind(edge)
    .bind(now)
    .execute(tx.conn())
    .await?;
    tx.step_in().await?;
    if revoked.rows_affected() == 0 {
        return Ok(false);
    }
    let id: Option<Uuid> = sqlx::query_scalar(
        "UPDATE edge SET revoked_at = coalesce(revoked_at, $2), is_online = false WHERE name = $1 RETURNING id",
    )
    .bind(edge)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    tx.audit(&Deed::on("revoke", "edge", edge));
    if let Some(id) = id {
        void_certificates(tx, id, now).await?;
        tx.event(&NewEvent::new("EdgeRevoked", "edge", id, json!({ "name": edge })));
    }
    Ok(true)
}

/// Whose secret this is, as an access token that stands for user name and password: tenant and edge of an active
/// tenant. Devices made for ThingsBoard have nothing else to show.
///
/// # Errors
/// [`TenancyError`]: the answer is not known now.
pub async fn authenticate_token(db: &Db, token: &str) -> Result<Option<(String, String)>, TenancyError> {
    let mut tx = db.platform().await?;
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT t.slug, e.name FROM platform.edge_registry e JOIN platform.tenant t ON t.id = e.tenant_id \
         WHERE e.secret_sha256 = $1 AND e.revoked_at IS NULL AND t.status = 'active'",
    )
    .bind(&secret::digest(token)[..])
    .fetch_optional(tx.conn())
    .await?;
    Ok(found)
}

/// Whether `username` (`TENANT/EDGE`) and `password` are an enrolled edge of an active tenant; gives tenant and
/// edge. The secret is 256 random bits, so its digest is looked up and compared in the database.
///
/// # Errors
/// [`TenancyError`]: the answer is not known now.
pub async fn authenticate(
    db: &Db,
    username: &str,
    password: &str,
) -> Result<Option<(String, String)>, TenancyError> {
    let Some((tenant, edge)) = username.split_once('/') else {
        return Ok(None);
    };
    let mut tx = db.platform().await?;
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT t.slug, e.name FROM platform.edge_registry e JOIN platform.tenant t ON t.id = e.tenant_id \
         WHERE t.slug = $1 AND e.name = $2 AND e.secret_sha256 = $3 AND e.revoked_at IS NULL \
           AND t.status = 'active'",
    )
    .bind(tenant)
    .bind(edge)
    .bind(&secret::digest(password)[..])
    .fetch_optional(tx.conn())
    .await?;
    Ok(found)
}
