//! Is the schema what this program expects? Applies the numbered SQL files to the platform's schema and to each
//! tenant's, each in one transaction, and refuses to run on files that changed after they were applied.

use sqlx::{
    AssertSqlSafe, Connection, PgConnection,
    migrate::{Migration, Migrator},
};

static PLATFORM: Migrator = sqlx::migrate!("../migrations/platform");
static TENANT: Migrator = sqlx::migrate!("../migrations/tenant");

/// Number of the newest tenant file: a tenant whose schema is older is not served.
pub fn tenant_version() -> i64 {
    newest(&TENANT.migrations)
}

fn newest(files: &[Migration]) -> i64 {
    files.iter().map(|file| file.version).max().unwrap_or(0)
}

/// Why a schema could not be brought up to date. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A released file was edited.
    #[error("{schema}: migration {version} was edited after it had been applied; restore the file")]
    Edited {
        /// The schema.
        schema: String,
        /// Number of the file.
        version: i64,
    },
    /// The database was migrated by a newer program.
    #[error("{schema}: migration {version} is not known to this program; run a newer one")]
    Newer {
        /// The schema.
        schema: String,
        /// Number that the database has and this program has not.
        version: i64,
    },
    /// The SQL itself failed.
    #[error("{schema}: migration {version} failed")]
    Failed {
        /// The schema.
        schema: String,
        /// Number of the file.
        version: i64,
        /// What PostgreSQL said.
        #[source]
        source: sqlx::Error,
    },
    /// Anything around it.
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
}

/// Brings schema `platform` up to date; says how many files were applied.
///
/// # Errors
/// [`MigrateError`].
pub async fn platform(conn: &mut PgConnection) -> Result<usize, MigrateError> {
    apply(conn, "platform", &PLATFORM.migrations).await
}

/// Brings one tenant's schema up to date; says how many files were applied.
///
/// # Errors
/// [`MigrateError`].
pub async fn tenant(conn: &mut PgConnection, schema: &str) -> Result<usize, MigrateError> {
    apply(conn, schema, &TENANT.migrations).await
}

/// `schema` comes from [`TenantSlug::schema`](crate::kernel::tenancy::TenantSlug::schema) or is a constant.
async fn apply(conn: &mut PgConnection, schema: &str, files: &[Migration]) -> Result<usize, MigrateError> {
    let mut tx = conn.begin().await?;
    // One lock a schema: two hubs starting at once migrate one after the other.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('foodflow ' || $1, 0))")
        .bind(schema)
        .execute(&mut *tx)
        .await?;
    let prepare = format!(
        "CREATE TABLE IF NOT EXISTS {schema}.schema_migration (version bigint PRIMARY KEY, \
           description text NOT NULL, checksum bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()); \
         SET LOCAL search_path TO {schema}, public; SET LOCAL client_min_messages TO warning"
    );
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *tx).await?;
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM schema_migration ORDER BY version")
            .fetch_all(&mut *tx)
            .await?;
    let missing = plan(schema, files, &applied)?;
    for file in &missing {
        let failed = |source| MigrateError::Failed {
            schema: schema.to_owned(),
            version: file.version,
            source,
        };
        sqlx::raw_sql(file.sql.clone())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        sqlx::query("INSERT INTO schema_migration (version, description, checksum) VALUES ($1, $2, $3)")
            .bind(file.version)
            .bind(&*file.description)
            .bind(&*file.checksum)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(missing.len())
}

/// Which files are still to be applied, in order.
fn plan<'a>(
    schema: &str,
    files: &'a [Migration],
    applied: &[(i64, Vec<u8>)],
) -> Result<Vec<&'a Migration>, MigrateError> {
    for (version, checksum) in applied {
        let schema = || schema.to_owned();
        match files.iter().find(|file| file.version == *version) {
            None => {
                return Err(MigrateError::Newer {
                    schema: schema(),
                    version: *version,
                });
            }
            Some(file) if *file.checksum != **checksum => {
                return Err(MigrateError::Edited {
                    schema: schema(),
                    version: *version,
                });
            }
            Some(_) => {}
        }
    }
    let is_missing = |file: &&Migration| applied.iter().all(|(version, _)| *version != file.version);
    Ok(files.iter().filter(is_missing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied() -> Vec<(i64, Vec<u8>)> {
        TENANT
            .migrations
            .iter()
            .map(|file| (file.version, file.checksum.to_vec()))
            .collect()
    }

    #[test]
    fn what_was_applied_is_not_applied_again() {
        let files = &TENANT.migrations;
        assert_eq!(plan("t_a", files, &[]).unwrap().len(), files.len());
        assert_eq!(
            plan("t_a", files, &applied()[..1]).unwrap().len(),
            files.len() - 1
        );
        assert!(plan("t_a", files, &applied()).unwrap().is_empty());
    }

    #[test]
    fn an_edited_file_and_a_newer_schema_are_refused() {
        let files = &TENANT.migrations;
        let mut edited = applied();
        edited[0].1[0] ^= 1;
        assert!(matches!(
            plan("t_a", files, &edited),
            Err(MigrateError::Edited { version: 1, .. })
        ));
        let mut newer = applied();
        newer.push((9_999, vec![]));
        assert!(matches!(
            plan("t_a", files, &newer),
            Err(MigrateError::Newer { version: 9_999, .. })
        ));
    }
}
