//! How does a tenant's storage become a hypertable when the database gains TimescaleDB? Partition by partition beside
//! the table in use, each in a transaction that also notes it, so that it can be stopped and taken up again; then, with
//! writers waiting, what changed meanwhile is copied anew and the tables change places. Readers see one or the other.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::kernel::tenancy::TenantSlug;

/// Writers wait at most this long for the tables to change places; then the change is left for the next run of the command.
const LOCK: &str = "SET LOCAL lock_timeout TO '10s'";

/// Why nothing was converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// It cannot be done here; every reason with its remedy.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// PostgreSQL refused, or is away: run it again, it goes on where it stopped.
    #[error("the database refused; run it again, it goes on where it stopped")]
    Database(#[from] sqlx::Error),
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// The tenant had a hypertable already.
    pub was_done: bool,
    /// Partitions copied now.
    pub copied: usize,
    /// Partitions that an earlier run had copied and that had not changed.
    pub found_copied: usize,
    /// Readings in the hypertable.
    pub readings: i64,
}

/// Converts a tenant's readings, as the owner of the database.
///
/// # Errors
/// [`ConvertError`].
pub async fn convert(owner: &mut PgConnection, tenant: &TenantSlug) -> Result<Converted, ConvertError> {
    refuse(owner).await?;
    let schema = tenant.schema();
    let enter = format!("SET search_path TO {schema}, public; SET client_min_messages TO warning");
    run(owner, enter).await?;
    run(owner, "CREATE EXTENSION IF NOT EXISTS timescaledb".to_owned()).await?;
    if form(owner).await? != "plain" {
        return Ok(Converted {
            was_done: true,
            ..Converted::default()
        });
    }
    prepare(owner).await?;
    let mut done = Converted::default();
    // Twice: what changed during the first pass is little, and the last pass holds up writers.
    for _ in 0..2 {
        for part in partitions(owner).await? {
            let mut tx = owner.begin().await?;
            let is_copied = copy(&mut tx, &part).await?;
            tx.commit().await?;
            done.copied += usize::from(is_copied);
            done.found_copied += usize::from(!is_copied);
        }
    }
    done.found_copied -= done.copied.min(done.found_copied);
    done.readings = change_places(owner, &schema).await?;
    Ok(done)
}

/// Why this server cannot do it.
async fn refuse(owner: &mut PgConnection) -> Result<(), ConvertError> {
    let (available, preloaded): (bool, Option<bool>) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb'), \
           current_setting('shared_preload_libraries', true) LIKE '%timescaledb%'",
    )
    .fetch_one(&mut *owner)
    .await?;
    let mut reasons = Vec::new();
    if !available {
        reasons.push(
            "TimescaleDB is not installed on this server: install the package for its version of PostgreSQL"
                .to_owned(),
        );
    }
    if preloaded != Some(true) {
        reasons.push(
            "TimescaleDB is not loaded: add `timescaledb` to shared_preload_libraries in postgresql.conf and restart PostgreSQL"
                .to_owned(),
        );
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(ConvertError::Refused(reasons))
    }
}

async fn form(conn: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar("SELECT storage_form()").fetch_one(conn).await
}

/// The table that will take the place, and the notes of what is in it.
async fn prepare(owner: &mut PgConnection) -> sqlx::Result<()> {
    let mut tx = owner.begin().await?;
    let is_prepared: bool = sqlx::query_scalar("SELECT to_regclass('storage_conversion') IS NOT NULL")
        .fetch_one(&mut *tx)
        .await?;
    if !is_prepared {
        run(
            &mut tx,
            "CREATE TABLE reading_hyper (LIKE reading INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS); \
             CREATE INDEX reading_hyper_tag_time ON reading_hyper (tag_id, time DESC); \
             CREATE TABLE storage_conversion (part text PRIMARY KEY, print text NOT NULL); \
             COMMENT ON TABLE storage_conversion IS 'partitions of readings that are copied, with a print of what they held'"
                .to_owned(),
        )
        .await?;
        run(
            &mut tx,
            "SELECT create_hypertable('reading_hyper'::regclass, 'time', create_default_indexes => false, \
               chunk_time_interval => interval '1 day')"
                .to_owned(),
        )
        .await?;
    }
    tx.commit().await
}

/// A partition: its name, and its bounds where it has some.
#[derive(Debug, sqlx::FromRow)]
struct Part {
    name: String,
    day: Option<chrono::NaiveDate>,
}

async fn partitions(conn: &mut PgConnection) -> sqlx::Result<Vec<Part>> {
    sqlx::query_as(
        "SELECT c.relname::text AS name, \
           CASE WHEN c.relname ~ '^reading_[0-9]{8}$' THEN to_date(right(c.relname, 8), 'YYYYMMDD') END AS day \
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'reading'::regclass ORDER BY 1",
    )
    .fetch_all(conn)
    .await
}

/// What a partition holds, so that a row that came, went or moved shows.
async fn print(conn: &mut PgConnection, part: &Part) -> sqlx::Result<String> {
    let sql = format!(
        "SELECT count(*) || ' ' || count(value) || ' ' || coalesce(sum(tag_id), 0) || ' ' || \
           coalesce(sum((extract(epoch FROM time) * 1000000)::numeric * (1 + tag_id % 1009)), 0) FROM {}",
        part.name
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(conn).await
}

/// Copies a partition unless it is copied as it is; says whether it did. The default partition holds whatever no other
/// one takes, and its copies are told from the others' by that.
async fn copy(conn: &mut PgConnection, part: &Part) -> sqlx::Result<bool> {
    run(conn, format!("LOCK TABLE {} IN SHARE MODE", part.name)).await?;
    let now = print(conn, part).await?;
    let known: Option<String> = sqlx::query_scalar("SELECT print FROM storage_conversion WHERE part = $1")
        .bind(&part.name)
        .fetch_optional(&mut *conn)
        .await?;
    if known.as_ref() == Some(&now) {
        return Ok(false);
    }
    // A day's partition may have been made of rows that were copied with the default partition before.
    if known.is_some() || part.day.is_some() {
        let delete = match part.day {
            Some(day) => format!(
                "DELETE FROM reading_hyper WHERE time >= '{day} 00:00Z' AND time < timestamptz '{day} 00:00Z' + interval '1 day'"
            ),
            None => "DELETE FROM reading_hyper h WHERE NOT EXISTS (SELECT FROM pg_class c \
                WHERE c.relnamespace = current_schema()::regnamespace \
                  AND c.relname = 'reading_' || to_char(h.time AT TIME ZONE 'UTC', 'YYYYMMDD'))"
                .to_owned(),
        };
        run(conn, delete).await?;
    }
    run(
        conn,
        format!("INSERT INTO reading_hyper SELECT * FROM {}", part.name),
    )
    .await?;
    sqlx::query(
        "INSERT INTO storage_conversion (part, print) VALUES ($1, $2) \
         ON CONFLICT (part) DO UPDATE SET print = excluded.print",
    )
    .bind(&part.name)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(true)
}

/// The end: nobody writes while the last changes are copied and the tables change places.
async fn change_places(owner: &mut PgConnection, schema: &str) -> sqlx::Result<i64> {
    let mut tx = owner.begin().await?;
    run(&mut tx, LOCK.to_owned()).await?;
    // Partitions are made and strays moved under the same lock.
    run(
        &mut tx,
        "SELECT pg_advisory_xact_lock(hashtextextended('partitions ' || 'rollup_1m'::regclass::oid, 0)); \
         LOCK TABLE reading IN ACCESS EXCLUSIVE MODE"
            .to_owned(),
    )
    .await?;
    for part in partitions(&mut tx).await? {
        copy(&mut tx, &part).await?;
    }
    let (before, after): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM reading), (SELECT count(*) FROM reading_hyper)")
            .fetch_one(&mut *tx)
            .await?;
    if before != after {
        let fault = format!("{before} readings became {after}; nothing was changed");
        return Err(sqlx::Error::Protocol(fault));
    }
    run(
        &mut tx,
        format!(
            "DROP TABLE reading; ALTER TABLE reading_hyper RENAME TO reading; \
             ALTER INDEX reading_hyper_tag_time RENAME TO reading_tag_time; DROP TABLE storage_conversion; \
             GRANT SELECT, INSERT ON reading TO {schema}"
        ),
    )
    .await?;
    run(
        &mut tx,
        "DO $$ BEGIN IF current_setting('timescaledb.license', true) = 'timescale' THEN \
           ALTER TABLE reading SET (timescaledb.compress, timescaledb.compress_segmentby = 'tag_id', \
             timescaledb.compress_orderby = 'time DESC'); END IF; END $$"
            .to_owned(),
    )
    .await?;
    tx.commit().await?;
    Ok(after)
}

/// Runs SQL that is made of constants, a tenant's schema and names of partitions.
async fn run(conn: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}
