//! Is every tenant's schema what this program expects? The platform first, then one tenant after the other, each in
//! its own transaction: one that fails keeps its old schema and its error, and holds up nobody.

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use super::{
    migrate::{self, Files, MigrateError},
    provision::{self, ensure_role, run},
};
use crate::kernel::tenancy::{LOGIN_ROLE, TenantSlug};

/// A tenant in use may hold a lock for a moment.
const ATTEMPTS: usize = 3;
/// Longest cause that is kept.
const ERROR_CHARS_MAX: usize = 2_000;

/// Where one tenant stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Standing {
    /// Slug.
    pub tenant: String,
    /// `active` or `suspended`.
    pub status: String,
    /// Number of the newest file that its schema has.
    pub schema_version: i64,
    /// Number of the newest file that this program has.
    #[sqlx(default)]
    pub expected_version: i64,
    /// Why its last migration failed; nothing after a success.
    pub migration_error: Option<String>,
}

impl Standing {
    /// Whether this program serves it.
    pub fn is_served(&self) -> bool {
        self.schema_version >= self.expected_version
    }

    /// One word for a person.
    pub fn word(&self) -> &'static str {
        match (self.is_served(), &self.migration_error) {
            (_, Some(_)) => "failed",
            (false, None) => "behind",
            (true, None) if self.schema_version > self.expected_version => "newer",
            (true, None) => "current",
        }
    }
}

/// What a run over the fleet did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Files applied in all.
    pub applied: usize,
    /// The tenants whose migration failed, with the cause.
    pub failed: Vec<(TenantSlug, String)>,
}

/// Prepares the database for the hub: login role, schema `platform`, and every tenant's schema, suspended ones too.
/// May be repeated: what is done is not done again.
///
/// # Errors
/// [`MigrateError`] when the platform itself cannot be brought up to date, or the connection is lost. A tenant that
/// fails is no error here.
pub async fn migrate_all(conn: &mut PgConnection) -> Result<Migrated, MigrateError> {
    let applied = platform(conn).await?;
    let mut done = tenants(conn, &Files::tenant(), None).await?;
    done.applied += applied;
    Ok(done)
}

/// Brings schema `platform` up to date; says how many files were applied.
///
/// # Errors
/// [`MigrateError`].
pub async fn platform(conn: &mut PgConnection) -> Result<usize, MigrateError> {
    let mut tx = conn.begin().await?;
    run(
        &mut tx,
        "SELECT pg_advisory_xact_lock(hashtextextended('foodflow platform', 0))".to_owned(),
    )
    .await?;
    ensure_role(&mut tx, LOGIN_ROLE, "LOGIN NOINHERIT").await?;
    run(
        &mut tx,
        "CREATE SCHEMA IF NOT EXISTS platform; CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public"
            .to_owned(),
    )
    .await?;
    load_timescale(&mut tx).await?;
    let applied = migrate::apply(&mut tx, "platform", &Files::platform()).await?;
    run(&mut tx, platform_grants()).await?;
    tx.commit().await?;
    Ok(applied)
}

/// What the login role may do by itself: nothing to the chain but add to it, nothing to a tenant's slug or schema.
fn platform_grants() -> String {
    format!(
        "GRANT USAGE ON SCHEMA platform TO {LOGIN_ROLE}; \
         REVOKE ALL ON platform.tenant, platform.audit_event FROM {LOGIN_ROLE}; \
         REVOKE ALL ON FUNCTION platform.record FROM PUBLIC; \
         GRANT EXECUTE ON FUNCTION platform.record TO {LOGIN_ROLE}; \
         GRANT SELECT, UPDATE (name, status, version, settings, suspended_at, suspended_because) \
           ON platform.tenant TO {LOGIN_ROLE}; \
         GRANT SELECT ON platform.tombstone, platform.schema_migration TO {LOGIN_ROLE}; \
         GRANT SELECT, INSERT, UPDATE ON platform.edge_registry, platform.enroll_code TO {LOGIN_ROLE}"
    )
}

/// TimescaleDB is used where the server has it preloaded; without that CREATE EXTENSION would fail. An owner who
/// may not read that setting (one that is no superuser, as on a managed server) takes the database as it is.
async fn load_timescale(conn: &mut PgConnection) -> Result<(), MigrateError> {
    run(
        conn,
        "DO $$ BEGIN IF current_setting('shared_preload_libraries') LIKE '%timescaledb%' THEN \
           CREATE EXTENSION IF NOT EXISTS timescaledb; END IF; \
           EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
            .to_owned(),
    )
    .await
}

/// Brings the tenants' schemas up to date, or `only` one's.
///
/// # Errors
/// [`MigrateError`] when the connection is lost: run it again, it goes on where it stopped.
pub async fn tenants(
    conn: &mut PgConnection,
    files: &Files,
    only: Option<&TenantSlug>,
) -> Result<Migrated, MigrateError> {
    let mut done = Migrated::default();
    for standing in report(conn, files).await? {
        let Ok(slug) = TenantSlug::parse(&standing.tenant) else {
            continue;
        };
        if only.is_some_and(|only| *only != slug) {
            continue;
        }
        match one(conn, &slug, files).await {
            Ok(applied) => {
                if applied > 0 {
                    tracing::info!(tenant = %slug, applied, "the tenant's schema is up to date");
                }
                done.applied += applied;
            }
            Err(error) if error.is_of_schema() => {
                let cause = cause(&error);
                tracing::error!(tenant = %slug, error = %cause, "the tenant's schema could not be migrated");
                metrics::counter!("foodflow_tenant_migrations_failed_total").increment(1);
                note_failure(conn, &slug, &cause).await?;
                done.failed.push((slug, cause));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

async fn one(conn: &mut PgConnection, slug: &TenantSlug, files: &Files) -> Result<usize, MigrateError> {
    let mut attempt = 1;
    loop {
        // The tenant is there: its name is not written.
        match provision::provision_with(conn, slug, slug.as_str(), files).await {
            Err(error) if error.is_lock_timeout() && attempt < ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

async fn note_failure(conn: &mut PgConnection, slug: &TenantSlug, cause: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE platform.tenant SET migration_error = $2 WHERE slug = $1")
        .bind(slug.as_str())
        .bind(cause)
        .execute(conn)
        .await?;
    Ok(())
}

/// An error with everything under it, in one line.
fn cause(error: &MigrateError) -> String {
    let mut text = error.to_string();
    let mut under = std::error::Error::source(error);
    while let Some(source) = under {
        text = format!("{text}: {source}");
        under = source.source();
    }
    text.chars().take(ERROR_CHARS_MAX).collect()
}

/// Where every tenant stands, by slug.
///
/// # Errors
/// What PostgreSQL said.
pub async fn report(conn: &mut PgConnection, files: &Files) -> Result<Vec<Standing>, sqlx::Error> {
    let mut tenants: Vec<Standing> = sqlx::query_as(
        "SELECT slug AS tenant, status, schema_version, migration_error FROM platform.tenant ORDER BY slug",
    )
    .fetch_all(conn)
    .await?;
    for tenant in &mut tenants {
        tenant.expected_version = files.newest();
    }
    Ok(tenants)
}
