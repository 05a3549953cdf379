//! Is the schema what this program expects? Applies the numbered SQL files to the platform's schema and to each
//! tenant's, each in one transaction, and refuses to run on files that changed after they were applied.

use std::borrow::Cow;

use sqlx::{
    AssertSqlSafe, PgConnection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

static PLATFORM: Migrator = sqlx::migrate!("../migrations/platform");
static TENANT: Migrator = sqlx::migrate!("../migrations/tenant");

/// In a file, before the release that must be the oldest one still running when the file is applied.
const CONTRACT: &str = "-- contract:";

/// Number of the newest tenant file: a tenant whose schema is older is not served.
pub fn tenant_version() -> i64 {
    newest(&TENANT.migrations)
}

fn newest(files: &[Migration]) -> i64 {
    files.iter().map(|file| file.version).max().unwrap_or(0)
}

/// The numbered files of one kind of schema, in order.
#[derive(Clone, Debug)]
pub struct Files(Cow<'static, [Migration]>);

impl Files {
    /// This program's files for schema `platform`.
    pub fn platform() -> Self {
        Self(PLATFORM.migrations.clone())
    }

    /// This program's files for a tenant's schema.
    pub fn tenant() -> Self {
        Self(TENANT.migrations.clone())
    }

    /// Number of the newest file.
    pub fn newest(&self) -> i64 {
        newest(&self.0)
    }

    /// Each file's number and text.
    #[cfg(test)]
    pub(super) fn texts(&self) -> impl Iterator<Item = (i64, &str)> {
        self.0.iter().map(|file| (file.version, file.sql.as_str()))
    }

    /// Those that an earlier program had.
    #[must_use]
    pub fn until(&self, version: i64) -> Self {
        let known = self.0.iter().filter(|file| file.version <= version);
        Self(known.cloned().collect())
    }

    /// With one more, as a later program has.
    #[must_use]
    pub fn with(&self, version: i64, description: &'static str, sql: String) -> Self {
        let sql = AssertSqlSafe(sql).into_sql_str();
        let file = Migration::new(version, description.into(), MigrationType::Simple, sql, true);
        Self(self.0.iter().cloned().chain([file]).collect())
    }
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
    /// The database was migrated by a newer program, and this one is too old for what it left.
    #[error("{schema}: migration {version} needs every program to be at least {oldest_program}")]
    Newer {
        /// The schema.
        schema: String,
        /// Number that the database has and this program has not.
        version: i64,
        /// The oldest release that runs on it.
        oldest_program: String,
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

impl MigrateError {
    /// What PostgreSQL said, if it was asked.
    pub fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Failed { source, .. } | Self::Database(source) => Some(source),
            Self::Edited { .. } | Self::Newer { .. } => None,
        }
    }

    /// Whether the connection is still good: what failed is this schema, not the way to the database.
    pub(super) fn is_of_schema(&self) -> bool {
        self.database()
            .is_none_or(|error| error.as_database_error().is_some())
    }

    /// Whether somebody else held a lock for too long: the same may pass a moment later.
    pub(super) fn is_lock_timeout(&self) -> bool {
        let code = self
            .database()
            .and_then(sqlx::Error::as_database_error)
            .and_then(sqlx::error::DatabaseError::code);
        matches!(code.as_deref(), Some("55P03" | "40P01"))
    }
}

/// A row of `schema_migration`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
struct Applied {
    version: i64,
    checksum: Vec<u8>,
    oldest_program: Option<String>,
}

/// Brings a schema up to date within the caller's transaction; says how many files were applied. `search_path` is
/// the schema's afterwards.
///
/// `schema` comes from [`TenantSlug::schema`](crate::kernel::tenancy::TenantSlug::schema) or is a constant.
///
/// # Errors
/// [`MigrateError`]; the caller rolls back.
pub(super) async fn apply(
    conn: &mut PgConnection,
    schema: &str,
    files: &Files,
) -> Result<usize, MigrateError> {
    let enter =
        format!("SET LOCAL search_path TO {schema}, public; SET LOCAL client_min_messages TO warning");
    sqlx::raw_sql(AssertSqlSafe(enter)).execute(&mut *conn).await?;
    prepare(conn, schema).await?;
    let applied: Vec<Applied> =
        sqlx::query_as("SELECT version, checksum, oldest_program FROM schema_migration ORDER BY version")
            .fetch_all(&mut *conn)
            .await?;
    let missing = plan(schema, &files.0, &applied)?;
    for file in &missing {
        run(conn, schema, file).await?;
    }
    Ok(missing.len())
}

/// The table of what was applied. A table that is there as it should be is not touched: that would wait for whoever
/// reads it.
async fn prepare(conn: &mut PgConnection, schema: &str) -> Result<(), MigrateError> {
    let is_there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'oldest_program')",
    )
    .bind(format!("{schema}.schema_migration"))
    .fetch_one(&mut *conn)
    .await?;
    if !is_there {
        sqlx::raw_sql(
            "CREATE TABLE IF NOT EXISTS schema_migration (version bigint PRIMARY KEY, description text NOT NULL, \
               checksum bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()); \
             ALTER TABLE schema_migration ADD COLUMN oldest_program text; \
             COMMENT ON COLUMN schema_migration.oldest_program IS \
               'release that every running program must have reached, where the file contracts'",
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

async fn run(conn: &mut PgConnection, schema: &str, file: &Migration) -> Result<(), MigrateError> {
    let failed = |source| MigrateError::Failed {
        schema: schema.to_owned(),
        version: file.version,
        source,
    };
    sqlx::raw_sql(file.sql.clone())
        .execute(&mut *conn)
        .await
        .map_err(failed)?;
    sqlx::query(
        "INSERT INTO schema_migration (version, description, checksum, oldest_program) VALUES ($1, $2, $3, $4)",
    )
    .bind(file.version)
    .bind(&*file.description)
    .bind(&*file.checksum)
    .bind(oldest_program(file.sql.as_str()))
    .execute(conn)
    .await?;
    Ok(())
}

/// The release that a contracting file names.
fn oldest_program(sql: &str) -> Option<&str> {
    let line = sql.lines().find_map(|line| line.trim().strip_prefix(CONTRACT))?;
    line.split_whitespace().next()
}

/// `0.12.3` as numbers that compare.
fn release(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Which files are still to be applied, in order. A schema that a newer program has migrated is taken as it is: files
/// expand first, so that the program before runs on it too, until a file that contracts says otherwise.
fn plan<'a>(
    schema: &str,
    files: &'a [Migration],
    applied: &[Applied],
) -> Result<Vec<&'a Migration>, MigrateError> {
    for done in applied {
        let (schema, version) = (schema.to_owned(), done.version);
        match files.iter().find(|file| file.version == version) {
            None => {
                let too_old = |oldest: &&String| release(oldest) > release(env!("CARGO_PKG_VERSION"));
                if let Some(oldest_program) = done.oldest_program.as_ref().filter(too_old) {
                    return Err(MigrateError::Newer {
                        schema,
                        version,
                        oldest_program: oldest_program.clone(),
                    });
                }
            }
            Some(file) if *file.checksum != *done.checksum => {
                return Err(MigrateError::Edited { schema, version });
            }
            Some(_) => {}
        }
    }
    let is_missing = |file: &&Migration| applied.iter().all(|done| done.version != file.version);
    Ok(files.iter().filter(is_missing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied() -> Vec<Applied> {
        let row = |file: &Migration| Applied {
            version: file.version,
            checksum: file.checksum.to_vec(),
            oldest_program: None,
        };
        TENANT.migrations.iter().map(row).collect()
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
    fn an_edited_file_is_refused() {
        let mut edited = applied();
        edited[0].checksum[0] ^= 1;
        assert!(matches!(
            plan("t_a", &TENANT.migrations, &edited),
            Err(MigrateError::Edited { version: 1, .. })
        ));
    }

    #[test]
    fn a_program_runs_on_what_the_next_one_added_but_not_on_what_a_later_one_took_away() {
        let with = |oldest_program: Option<&str>| {
            let mut newer = applied();
            newer.push(Applied {
                version: 9_999,
                checksum: vec![],
                oldest_program: oldest_program.map(str::to_owned),
            });
            plan("t_a", &TENANT.migrations, &newer).map(|missing| missing.len())
        };
        assert_eq!(with(None).unwrap(), 0);
        assert_eq!(with(Some(env!("CARGO_PKG_VERSION"))).unwrap(), 0);
        assert!(matches!(
            with(Some("999.0.0")),
            Err(MigrateError::Newer { version: 9_999, .. })
        ));
    }

    #[test]
    fn a_contracting_file_names_the_release_that_stopped_using_what_goes() {
        let sql = "-- Old things go.\n-- contract: 0.10.2 reads user_role instead\nDROP TABLE x;";
        assert_eq!(oldest_program(sql), Some("0.10.2"));
        assert_eq!(oldest_program("CREATE TABLE x ();"), None);
        assert!(release("0.10.2") > release("0.9.9"));
    }
}
