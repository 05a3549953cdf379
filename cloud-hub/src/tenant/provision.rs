//! How does a tenant come to be, and how does it go? Each in one transaction of the database's owner: role, schema,
//! migrations, grants and the tenant's entry are all there afterwards, or none of them is.

use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::migrate::{self, Files, MigrateError};
use crate::kernel::{
    audit::{self, Actor, Deed},
    clock::Clock,
    context,
    tenancy::{Db, LOGIN_ROLE, TenancyError, TenantSlug},
};

/// How long a change of a schema waits for those who use it. While it waits, everybody else waits behind it.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout TO '3s'";

/// A tenant as the platform knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name in URLs and topics.
    pub slug: TenantSlug,
    /// Its name for people.
    pub name: String,
}

/// Why a tenant was neither made nor removed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// There is one of that name.
    #[error("there is a tenant `{0}` already")]
    Exists(TenantSlug),
    /// There was one of that name; what is left of it in tokens and topics must not reach another.
    #[error("there was a tenant `{0}`; the name of a deleted tenant is not used again")]
    Retired(TenantSlug),
    /// There is none.
    #[error("no such tenant")]
    Unknown,
    /// Only a tenant that nobody uses can be removed.
    #[error("the tenant is active; suspend it first")]
    Active,
    /// Somebody changed it meanwhile.
    #[error("the tenant was changed by someone else; read it again")]
    Stale,
    /// The schema.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

impl From<sqlx::Error> for ProvisionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Migrate(error.into())
    }
}

/// Who does it and why, for the audit chains.
#[derive(Clone, Debug)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: DateTime<Utc>,
    /// Why, when given.
    pub why: Option<String>,
}

impl By {
    /// A command of the owner's.
    pub fn command(name: &str) -> Self {
        Self {
            actor: Actor::Operator {
                name: name.to_owned(),
            },
            at: Clock::system().now(),
            why: None,
        }
    }

    /// The chains' text of a deed.
    pub(super) fn entry(&self, deed: &Deed) -> String {
        let correlation_id = context::current().correlation_id;
        audit::entry(deed, &self.actor, self.at, &correlation_id, self.why.as_deref())
    }
}

// === making ===

/// Makes a tenant that is not there yet.
///
/// # Errors
/// [`ProvisionError::Exists`], [`ProvisionError::Retired`]; [`ProvisionError::Migrate`].
pub async fn create(conn: &mut PgConnection, tenant: &Tenant, by: &By) -> Result<(), ProvisionError> {
    let mut tx = conn.begin().await?;
    establish(&mut tx, tenant, &Files::tenant()).await?;
    let entry = by.entry(&making(tenant));
    record(&mut tx, &entry).await?;
    record_in_tenant(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(())
}

/// Making a tenant, as the chains tell it.
pub(super) fn making(tenant: &Tenant) -> Deed {
    let made = json!({ "slug": tenant.slug.as_str(), "name": tenant.name, "status": "active" });
    Deed::on("create", "tenant", &tenant.slug).after(made)
}

/// A tenant that is not there yet, in a transaction of the caller's; `search_path` is its schema afterwards.
pub(super) async fn establish(
    conn: &mut PgConnection,
    tenant: &Tenant,
    files: &Files,
) -> Result<(), ProvisionError> {
    lock(conn, &tenant.slug).await?;
    if find(conn, &tenant.slug).await?.is_some() {
        return Err(ProvisionError::Exists(tenant.slug.clone()));
    }
    let is_retired: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM platform.tombstone WHERE slug = $1)")
            .bind(tenant.slug.as_str())
            .fetch_one(&mut *conn)
            .await?;
    if is_retired {
        return Err(ProvisionError::Retired(tenant.slug.clone()));
    }
    bring_up(conn, tenant, files).await?;
    Ok(())
}

/// Makes a tenant, or brings it up to date when it is there; says how many files were applied.
///
/// # Errors
/// [`MigrateError`].
pub async fn provision(
    conn: &mut PgConnection,
    slug: &TenantSlug,
    name: &str,
) -> Result<usize, MigrateError> {
    provision_with(conn, slug, name, &Files::tenant()).await
}

/// As [`provision`], with the files of another program than this one.
///
/// # Errors
/// [`MigrateError`].
pub async fn provision_with(
    conn: &mut PgConnection,
    slug: &TenantSlug,
    name: &str,
    files: &Files,
) -> Result<usize, MigrateError> {
    let mut tx = conn.begin().await?;
    lock(&mut tx, slug).await?;
    let tenant = Tenant {
        slug: slug.clone(),
        name: name.to_owned(),
    };
    let applied = bring_up(&mut tx, &tenant, files).await?;
    tx.commit().await?;
    Ok(applied)
}

/// One tenant's schema is changed by one hub at a time; other tenants' are not kept waiting.
async fn lock(conn: &mut PgConnection, slug: &TenantSlug) -> Result<(), MigrateError> {
    run(conn, LOCK_TIMEOUT.to_owned()).await?;
    // Another hub that is at it may take longer than a reader of a table.
    run(
        conn,
        format!(
            "SET LOCAL lock_timeout TO '60s'; \
             SELECT pg_advisory_xact_lock(hashtextextended('foodflow {}', 0)); {LOCK_TIMEOUT}",
            slug.schema()
        ),
    )
    .await
}

/// Role, schema, files, grants and entry: whatever is missing. Nothing is written where nothing is.
pub(super) async fn bring_up(
    conn: &mut PgConnection,
    tenant: &Tenant,
    files: &Files,
) -> Result<usize, MigrateError> {
    let schema = tenant.slug.schema();
    let known = find(conn, &tenant.slug).await?;
    // A database that was restored on another server comes without its roles.
    let has_role = known.as_ref().is_some_and(|known| known.has_role);
    if !has_role {
        ensure_role(conn, &schema, "NOLOGIN").await?;
        run(
            conn,
            format!(
                "CREATE SCHEMA IF NOT EXISTS {schema}; GRANT {schema} TO {LOGIN_ROLE}; \
                 GRANT USAGE ON SCHEMA {schema} TO {schema}"
            ),
        )
        .await?;
    }
    let applied = migrate::apply(conn, &schema, files).await?;
    let rights = grants(&schema);
    let rights_sha256 = Sha256::digest(&rights).to_vec();
    let is_same = |known: &Known| known.rights_sha256.as_ref() == Some(&rights_sha256);
    let has_rights = has_role && known.as_ref().is_some_and(is_same);
    if applied > 0 || !has_rights {
        run(conn, rights).await?;
    }
    let is_noted = known.is_some_and(|known| known.is_current(files));
    if applied > 0 || !has_rights || !is_noted {
        note(conn, tenant, files.newest(), &rights_sha256).await?;
    }
    Ok(applied)
}

async fn note(
    conn: &mut PgConnection,
    tenant: &Tenant,
    version: i64,
    rights_sha256: &[u8],
) -> Result<(), MigrateError> {
    sqlx::query(
        "INSERT INTO platform.tenant AS t (id, slug, name, schema_name, schema_version, migrated_at, rights_sha256) \
         VALUES ($1, $2, $3, $4, $5, now(), $6) ON CONFLICT (slug) DO UPDATE \
         SET schema_version = greatest(t.schema_version, excluded.schema_version), migrated_at = now(), \
           migration_error = NULL, rights_sha256 = excluded.rights_sha256",
    )
    .bind(Uuid::now_v7())
    .bind(tenant.slug.as_str())
    .bind(&tenant.name)
    .bind(tenant.slug.schema())
    .bind(version)
    .bind(rights_sha256)
    .execute(conn)
    .await?;
    Ok(())
}

/// What a tenant's role may do. Records that must never change can only be added to, and partitions are reached only
/// through the table they are part of. A table that an earlier
/// program did not have is passed over.
fn grants(schema: &str) -> String {
    const APPEND_ONLY: &[&str] = &[
        "reading",
        "reading_version",
        "ccp_check",
        "not_read",
        "gap",
        "frame",
        "hold_lot",
        "outbox",
        "dead_letter",
        "signature",
        "webhook_attempt",
        "alarm_change",
        "alarm_entry",
        "alarm_action",
        "alarm_model",
        "alarm_rule_version",
        "manual_entry",
        "clock_step",
        "ccp_limit",
        "rollup_dirty",
    ];
    const KEPT: &[&str] = &["deviation", "hold", "lot"];
    const WRITTEN_BY_FUNCTIONS: &[&str] = &[
        "schema_migration",
        "audit_event",
        "audit_root",
        "domain_event",
        "rollup_1m",
        "rollup_1h",
        "rollup_1d",
        "storage_horizon",
    ];
    let revoke = |rights: &str, tables: &[&str]| {
        format!(
            "FOREACH t IN ARRAY ARRAY['{}'] LOOP IF to_regclass('{schema}.' || t) IS NOT NULL THEN \
               EXECUTE 'REVOKE {rights} ON {schema}.' || t || ' FROM {schema}'; END IF; END LOOP;",
            tables.join("', '")
        )
    };
    format!(
        "DO $$ DECLARE t text; BEGIN \
           GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}; \
           GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {schema}; {} {} {} \
           FOR t IN SELECT c.oid::regclass FROM pg_class c \
             WHERE c.relnamespace = '{schema}'::regnamespace AND c.relispartition AND c.relkind IN ('r', 'p') \
           LOOP EXECUTE 'REVOKE ALL ON ' || t || ' FROM {schema}'; END LOOP; END $$",
        revoke("UPDATE, DELETE", APPEND_ONLY),
        revoke("DELETE", KEPT),
        revoke("INSERT, UPDATE, DELETE, TRUNCATE", WRITTEN_BY_FUNCTIONS),
    )
}

// === removing ===

/// Removes a suspended tenant that is still at `version`: its schema with everything in it, its role, its edges. What
/// stays is a tombstone with the end of its audit chain.
///
/// # Errors
/// [`ProvisionError`].
pub async fn remove(
    conn: &mut PgConnection,
    slug: &TenantSlug,
    version: i32,
    by: &By,
) -> Result<(), ProvisionError> {
    let mut tx = conn.begin().await?;
    lock(&mut tx, slug).await?;
    let known = find(&mut tx, slug).await?.ok_or(ProvisionError::Unknown)?;
    if known.version != version {
        return Err(ProvisionError::Stale);
    }
    if known.status == "active" {
        return Err(ProvisionError::Active);
    }
    bury(&mut tx, &known, by).await?;
    let schema = slug.schema();
    run(&mut tx, format!("DROP SCHEMA {schema} CASCADE")).await?;
    drop_role(&mut tx, &schema).await?;
    sqlx::query("DELETE FROM platform.tenant WHERE id = $1")
        .bind(known.id)
        .execute(&mut *tx)
        .await?;
    let was = json!({ "slug": known.slug, "name": known.name, "status": known.status });
    let entry = by.entry(&Deed::on("delete", "tenant", slug).before(was));
    record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(())
}

/// Where the tenant's chain ends. Writers of the chain are waited for: nothing follows what the tombstone says.
async fn bury(conn: &mut PgConnection, known: &Known, by: &By) -> Result<(), MigrateError> {
    let schema = &known.schema_name;
    let has_chain: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(format!("{schema}.audit_event"))
        .fetch_one(&mut *conn)
        .await?;
    let last: Option<(i64, Vec<u8>)> = if has_chain {
        run(
            conn,
            format!("LOCK TABLE {schema}.audit_event IN ACCESS EXCLUSIVE MODE"),
        )
        .await?;
        let sql = format!("SELECT seq, hash FROM {schema}.audit_event ORDER BY seq DESC LIMIT 1");
        sqlx::query_as(AssertSqlSafe(sql))
            .fetch_optional(&mut *conn)
            .await?
    } else {
        None
    };
    let (last_seq, last_hash) = last.unwrap_or_else(|| (0, audit::GENESIS.to_vec()));
    sqlx::query(
        "INSERT INTO platform.tombstone (slug, tenant_id, name, created_at, deleted_at, deleted_by, because, \
           last_seq, last_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&known.slug)
    .bind(known.id)
    .bind(&known.name)
    .bind(known.created_at)
    .bind(by.at)
    .bind(by.actor.key())
    .bind(by.why.as_deref().unwrap_or_default())
    .bind(last_seq)
    .bind(last_hash)
    .execute(conn)
    .await?;
    Ok(())
}

/// Roles belong to the cluster: one that another database uses too stays, and sees nothing here any more.
async fn drop_role(conn: &mut PgConnection, role: &str) -> Result<(), MigrateError> {
    run(
        conn,
        format!(
            "DO $$ BEGIN DROP ROLE {role}; EXCEPTION WHEN dependent_objects_still_exist THEN \
               RAISE NOTICE 'role {role} is used in another database'; WHEN undefined_object THEN NULL; END $$"
        ),
    )
    .await
}

// === what both need ===

/// A tenant's entry, as far as it is needed here.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Known {
    id: Uuid,
    slug: String,
    name: String,
    schema_name: String,
    status: String,
    version: i32,
    created_at: DateTime<Utc>,
    schema_version: i64,
    migration_error: Option<String>,
    rights_sha256: Option<Vec<u8>>,
    has_role: bool,
}

impl Known {
    fn is_current(&self, files: &Files) -> bool {
        self.schema_version >= files.newest() && self.migration_error.is_none()
    }
}

async fn find(conn: &mut PgConnection, slug: &TenantSlug) -> Result<Option<Known>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, slug, name, schema_name, status, version, created_at, schema_version, migration_error, \
           rights_sha256, EXISTS (SELECT FROM pg_roles WHERE rolname = schema_name) AS has_role \
         FROM platform.tenant WHERE slug = $1",
    )
    .bind(slug.as_str())
    .fetch_optional(conn)
    .await
}

/// Writes a deed of the owner's into the platform's chain.
pub(super) async fn record(conn: &mut PgConnection, entry: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT platform.record(ARRAY[$1])")
        .bind(entry)
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes a deed of the owner's into the chain of the tenant whose schema is the `search_path`.
pub(super) async fn record_in_tenant(conn: &mut PgConnection, entry: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT record(ARRAY[$1], ARRAY[]::text[])")
        .bind(entry)
        .execute(conn)
        .await?;
    Ok(())
}

/// Every active tenant, by slug.
///
/// # Errors
/// What PostgreSQL said.
pub async fn tenants(conn: &mut PgConnection) -> Result<Vec<Tenant>, sqlx::Error> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT slug, name FROM platform.tenant WHERE status = 'active' ORDER BY slug")
            .fetch_all(conn)
            .await?;
    let known = rows.into_iter().filter_map(|(slug, name)| {
        Some(Tenant {
            slug: TenantSlug::parse(&slug).ok()?,
            name,
        })
    });
    Ok(known.collect())
}

/// The slugs of every active tenant.
///
/// # Errors
/// [`TenancyError`].
pub async fn tenant_slugs(db: &Db) -> Result<Vec<TenantSlug>, TenancyError> {
    let mut tx = db.platform().await?;
    let tenants = tenants(tx.conn()).await?;
    Ok(tenants.into_iter().map(|tenant| tenant.slug).collect())
}

/// Roles belong to the cluster, not to the database: one may be there already.
pub(super) async fn ensure_role(
    conn: &mut PgConnection,
    role: &str,
    attributes: &str,
) -> Result<(), MigrateError> {
    run(
        conn,
        format!(
            "DO $$ BEGIN CREATE ROLE {role} {attributes}; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        ),
    )
    .await
}

/// Names in `sql` are constants or come from [`TenantSlug::schema`], which needs no quotes.
pub(super) async fn run(conn: &mut PgConnection, sql: String) -> Result<(), MigrateError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}
