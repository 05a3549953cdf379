//! What does the platform know of a tenant, and how is that changed? Each change is based on a version, and stands in
//! the platform's audit chain and in the tenant's own.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::FromRow;
use utoipa::ToSchema;

use super::{
    migrate,
    settings::{self, TenantSettings, TenantSettingsPatch},
};
use crate::{
    error::{Error, Result},
    kernel::{
        audit::Deed,
        tenancy::{PlatformTx, TenantSlug},
    },
};

const COLUMNS: &str = "slug, name, version, status, schema_version, migration_error, created_at, suspended_at, \
    suspended_because, settings";

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// It is.
    Active,
    /// Its people, keys and edges are refused; its data stays.
    Suspended,
}

impl TenantStatus {
    /// As it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

/// A tenant's entry.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TenantRecord {
    /// Its name in URLs, topics and tokens; never changes.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// For `If-Match`.
    pub version: i32,
    /// Whether it is served.
    pub status: TenantStatus,
    /// Number of the newest migration that its schema has.
    pub schema_version: i64,
    /// Whether this hub serves a schema of that version.
    pub is_migrated: bool,
    /// Why its last migration failed; shown to operators of the platform only.
    pub migration_error: Option<String>,
    /// Made at.
    pub created_us: i64,
    /// Suspended since.
    pub suspended_us: Option<i64>,
    /// Why it was suspended.
    pub suspended_because: Option<String>,
    /// What it has decided, with the defaults for the rest.
    pub settings: TenantSettings,
}

#[derive(FromRow)]
struct Row {
    slug: String,
    name: String,
    version: i32,
    status: String,
    schema_version: i64,
    migration_error: Option<String>,
    created_at: DateTime<Utc>,
    suspended_at: Option<DateTime<Utc>>,
    suspended_because: Option<String>,
    settings: Value,
}

impl From<Row> for TenantRecord {
    fn from(row: Row) -> Self {
        let is_active = row.status == TenantStatus::Active.as_str();
        Self {
            slug: row.slug,
            name: row.name,
            version: row.version,
            status: if is_active {
                TenantStatus::Active
            } else {
                TenantStatus::Suspended
            },
            schema_version: row.schema_version,
            is_migrated: row.schema_version >= migrate::tenant_version(),
            migration_error: row.migration_error,
            created_us: row.created_at.timestamp_micros(),
            suspended_us: row.suspended_at.map(|at| at.timestamp_micros()),
            suspended_because: row.suspended_because,
            settings: TenantSettings::read(&row.settings),
        }
    }
}

async fn fetch(tx: &mut PlatformTx, slug: &TenantSlug, suffix: &str) -> Result<Row> {
    let sql = format!("SELECT {COLUMNS} FROM platform.tenant WHERE slug = $1{suffix}");
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(slug.as_str())
        .fetch_optional(tx.conn())
        .await?
        .ok_or(Error::NotFound { entity: "tenant" })
}

/// Reads one.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn read(tx: &mut PlatformTx, slug: &TenantSlug) -> Result<TenantRecord> {
    Ok(fetch(tx, slug, "").await?.into())
}

/// Reads those after `after`, by slug.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn list(
    tx: &mut PlatformTx,
    after: Option<&str>,
    status: Option<TenantStatus>,
    limit: i64,
) -> Result<Vec<TenantRecord>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM platform.tenant WHERE ($1::text IS NULL OR slug > $1) \
           AND ($2::text IS NULL OR status = $2) ORDER BY slug LIMIT $3"
    );
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(after)
        .bind(status.map(TenantStatus::as_str))
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
    Ok(rows.into_iter().map(TenantRecord::from).collect())
}

/// Reads one that is to be changed, and keeps others from changing it.
async fn lock(tx: &mut PlatformTx, slug: &TenantSlug, version: Option<i32>) -> Result<Row> {
    let row = fetch(tx, slug, " FOR UPDATE").await?;
    if version.is_some_and(|version| version != row.version) {
        return Err(Error::Stale { entity: "tenant" });
    }
    Ok(row)
}

/// Notes what was changed and gives what it is now.
async fn changed(
    tx: &mut PlatformTx,
    slug: &TenantSlug,
    action: &'static str,
    before: Row,
) -> Result<TenantRecord> {
    let after = read(tx, slug).await?;
    let before = TenantRecord::from(before);
    tx.audit(&Deed::on(action, "tenant", slug).before(before).after(&after));
    Ok(after)
}

/// Gives a tenant another name for people.
///
/// # Errors
/// [`Error::Stale`], [`Error::NotFound`].
pub async fn rename(
    tx: &mut PlatformTx,
    slug: &TenantSlug,
    version: Option<i32>,
    name: &str,
) -> Result<TenantRecord> {
    let before = lock(tx, slug, version).await?;
    sqlx::query("UPDATE platform.tenant SET name = $2, version = version + 1 WHERE slug = $1")
        .bind(slug.as_str())
        .bind(name)
        .execute(tx.conn())
        .await?;
    changed(tx, slug, "rename", before).await
}

/// Suspends a tenant, or takes it up again. Its requests are refused from the next one on.
///
/// # Errors
/// [`Error::Conflict`] when it is that already; [`Error::NotFound`].
pub async fn set_status(
    tx: &mut PlatformTx,
    slug: &TenantSlug,
    status: TenantStatus,
    reason: &str,
) -> Result<TenantRecord> {
    let before = lock(tx, slug, None).await?;
    if before.status == status.as_str() {
        return Err(Error::Conflict(format!(
            "the tenant is {} already",
            status.as_str()
        )));
    }
    let at = tx.at();
    sqlx::query(
        "UPDATE platform.tenant SET status = $2, version = version + 1, \
           suspended_at = CASE WHEN $2 = 'suspended' THEN $3 END, \
           suspended_because = CASE WHEN $2 = 'suspended' THEN $4 END WHERE slug = $1",
    )
    .bind(slug.as_str())
    .bind(status.as_str())
    .bind(at)
    .bind(reason)
    .execute(tx.conn())
    .await?;
    tx.because(reason);
    let action = match status {
        TenantStatus::Active => "reactivate",
        TenantStatus::Suspended => "suspend",
    };
    changed(tx, slug, action, before).await
}

/// Changes what the tenant has decided. `given` is the patch as the client sent it.
///
/// # Errors
/// [`Error::Stale`], [`Error::NotFound`]; [`Error::Invalid`] for settings that nobody could use.
pub async fn configure(
    tx: &mut PlatformTx,
    slug: &TenantSlug,
    version: i32,
    patch: &TenantSettingsPatch,
    given: &Map<String, Value>,
) -> Result<TenantRecord> {
    let before = lock(tx, slug, Some(version)).await?;
    let settings = settings::change(&before.settings, patch, given)?;
    sqlx::query("UPDATE platform.tenant SET settings = $2, version = version + 1 WHERE slug = $1")
        .bind(slug.as_str())
        .bind(settings)
        .execute(tx.conn())
        .await?;
    changed(tx, slug, "configure", before).await
}
