//! What does the owner of the database do? Roles, schemas, migrations and grants: for the platform once, for
//! each tenant its own schema and role. Everything here may be repeated.

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::migrate::{self, MigrateError};
use crate::kernel::tenancy::{LOGIN_ROLE, TenantSlug};

/// A tenant as the platform knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name in URLs and topics.
    pub slug: TenantSlug,
    /// Its name for people.
    pub name: String,
}

/// Prepares the database for the hub: login role, schema `platform`, and every known tenant's schema.
/// Says how many files were applied in all.
///
/// # Errors
/// [`MigrateError`].
pub async fn migrate_all(conn: &mut PgConnection) -> Result<usize, MigrateError> {
    exclusively(conn, true).await?;
    let applied = bring_up_to_date(conn).await;
    exclusively(conn, false).await?;
    applied
}

async fn bring_up_to_date(conn: &mut PgConnection) -> Result<usize, MigrateError> {
    ensure_role(conn, LOGIN_ROLE, "LOGIN NOINHERIT").await?;
    run(conn, "CREATE SCHEMA IF NOT EXISTS platform".to_owned()).await?;
    run(
        conn,
        "CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public".to_owned(),
    )
    .await?;
    load_timescale(conn).await?;
    let mut applied = migrate::platform(conn).await?;
    run(
        conn,
        format!(
            "GRANT USAGE ON SCHEMA platform TO {LOGIN_ROLE}; \
             GRANT SELECT, UPDATE ON platform.tenant TO {LOGIN_ROLE}; \
             GRANT SELECT, INSERT, UPDATE ON platform.edge_registry, platform.enroll_code TO {LOGIN_ROLE}"
        ),
    )
    .await?;
    for tenant in tenants(conn).await? {
        applied += provision(conn, &tenant.slug, &tenant.name).await?;
    }
    Ok(applied)
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

/// Makes a tenant, or brings it up to date; says how many files were applied.
///
/// # Errors
/// [`MigrateError`].
pub async fn provision(
    conn: &mut PgConnection,
    slug: &TenantSlug,
    name: &str,
) -> Result<usize, MigrateError> {
    exclusively(conn, true).await?;
    let applied = make(conn, slug, name).await;
    exclusively(conn, false).await?;
    applied
}

/// Roles, schemas and grants are shared by all: two hubs that start at once take turns. The lock belongs to the
/// connection, counts, and ends with it.
async fn exclusively(conn: &mut PgConnection, take: bool) -> Result<(), MigrateError> {
    let verb = if take {
        "pg_advisory_lock"
    } else {
        "pg_advisory_unlock"
    };
    run(
        conn,
        format!("SELECT {verb}(hashtextextended('foodflow owner', 0))"),
    )
    .await
}

async fn make(conn: &mut PgConnection, slug: &TenantSlug, name: &str) -> Result<usize, MigrateError> {
    let schema = slug.schema();
    ensure_role(conn, &schema, "NOLOGIN").await?;
    run(
        conn,
        format!(
            "CREATE SCHEMA IF NOT EXISTS {schema}; GRANT {schema} TO {LOGIN_ROLE}; \
                 GRANT USAGE ON SCHEMA {schema} TO {schema}"
        ),
    )
    .await?;
    let applied = migrate::tenant(conn, &schema).await?;
    run(conn, grants(&schema)).await?;
    sqlx::query(
        "INSERT INTO platform.tenant AS t (id, slug, name, schema_name, schema_version, migrated_at) \
         VALUES ($1, $2, $3, $4, $5, now()) ON CONFLICT (slug) DO UPDATE \
         SET schema_version = greatest(t.schema_version, excluded.schema_version), migrated_at = now(), \
           migration_error = NULL",
    )
    .bind(Uuid::now_v7())
    .bind(slug.as_str())
    .bind(name)
    .bind(&schema)
    .bind(migrate::tenant_version())
    .execute(conn)
    .await?;
    Ok(applied)
}

/// What a tenant's role may do. Records that must never change can only be added to.
fn grants(schema: &str) -> String {
    const APPEND_ONLY: [&str; 9] = [
        "reading",
        "ccp_check",
        "not_read",
        "gap",
        "frame",
        "hold_lot",
        "outbox",
        "dead_letter",
        "signature",
    ];
    let append_only = APPEND_ONLY.map(|table| format!("{schema}.{table}")).join(", ");
    format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {schema}; \
         REVOKE UPDATE, DELETE ON {append_only} FROM {schema}; \
         REVOKE DELETE ON {schema}.deviation, {schema}.hold, {schema}.lot FROM {schema}; \
         REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {schema}.schema_migration, {schema}.audit_event, \
           {schema}.audit_root, {schema}.domain_event FROM {schema}"
    )
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

/// Roles belong to the cluster, not to the database: one may be there already.
async fn ensure_role(conn: &mut PgConnection, role: &str, attributes: &str) -> Result<(), MigrateError> {
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
async fn run(conn: &mut PgConnection, sql: String) -> Result<(), MigrateError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}
