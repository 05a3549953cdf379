//! How does an edge get and prove its identity? A person makes a one-time code; the edge exchanges it for a
//! secret, which it presents at every connection. Only digests are stored.

use chrono::{DateTime, Duration, Utc};
use uuid::Uuid;

use crate::kernel::{
    audit::{Actor, Deed},
    secret,
    tenancy::{Db, TenancyError, TenantSlug},
};

/// How long a code may be used.
const CODE_VALID_HOURS: i64 = 24;
const SECRET_BYTES: usize = 32;
const CODE_BYTES: usize = 15;

/// Why there is no code or no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A name that no topic can carry.
    #[error("`{0}` is no edge name: 1 to 63 of a-z, 0-9, `-` and `_`, not starting with `-`")]
    BadName(String),
    /// Never made, used before, or too old; the caller learns no more.
    #[error("the code is not valid; codes work once, for {CODE_VALID_HOURS} hours")]
    BadCode,
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
}

/// Makes a one-time code for `edge`.
///
/// # Errors
/// [`EnrolError`].
pub async fn create_code(
    db: &Db,
    tenant: &TenantSlug,
    edge: &str,
    now: DateTime<Utc>,
) -> Result<String, EnrolError> {
    if !protocol::topic::is_name(edge) {
        return Err(EnrolError::BadName(edge.escape_default().take(80).collect()));
    }
    let code = secret::random_text(CODE_BYTES);
    let mut tx = db.platform().await?;
    let made = sqlx::query(
        "INSERT INTO platform.enroll_code (code_sha256, tenant_id, edge_name, expires_at) \
         SELECT $1, id, $2, $3 FROM platform.tenant WHERE slug = $4",
    )
    .bind(&secret::digest(&code)[..])
    .bind(edge)
    .bind(now + Duration::hours(CODE_VALID_HOURS))
    .bind(tenant.as_str())
    .execute(tx.conn())
    .await?;
    if made.rows_affected() == 0 {
        return Err(TenancyError::UnknownTenant.into());
    }
    tx.commit().await?;
    Ok(code)
}

/// Exchanges a code for an identity. An edge that enrols again gets a new secret; the old one stops working.
///
/// # Errors
/// [`EnrolError`].
pub async fn redeem(db: &Db, code: &str, now: DateTime<Utc>) -> Result<Identity, EnrolError> {
    let mut tx = db.platform().await?;
    let used: Option<(Uuid, String, String)> = sqlx::query_as(
        "UPDATE platform.enroll_code c SET used_at = $2 FROM platform.tenant t \
         WHERE c.code_sha256 = $1 AND c.used_at IS NULL AND c.expires_at > $2 AND t.id = c.tenant_id \
           AND t.status = 'active' \
         RETURNING t.id, t.slug, c.edge_name",
    )
    .bind(&secret::digest(code.trim())[..])
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    let (tenant_id, slug, edge) = used.ok_or(EnrolError::BadCode)?;
    let password = secret::random_text(SECRET_BYTES);
    sqlx::query(
        "INSERT INTO platform.edge_registry (tenant_id, name, secret_sha256) VALUES ($1, $2, $3) \
         ON CONFLICT (tenant_id, name) DO UPDATE \
         SET secret_sha256 = excluded.secret_sha256, revoked_at = NULL",
    )
    .bind(tenant_id)
    .bind(&edge)
    .bind(&secret::digest(&password)[..])
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    let tenant = TenantSlug::parse(&slug).map_err(|_| TenancyError::UnknownTenant)?;
    let actor = Actor::Edge { name: edge.clone() };
    let mut tx = db.begin_as(&tenant, actor).await?;
    sqlx::query("INSERT INTO edge (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(Uuid::now_v7())
        .bind(&edge)
        .execute(tx.conn())
        .await?;
    tx.audit(&Deed::on("enrol", "edge", &edge));
    tx.commit().await?;
    Ok(Identity {
        mqtt_username: format!("{slug}/{edge}"),
        mqtt_password: secret::Secret::new(password),
        tenant: slug,
        edge,
    })
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
