//! How is a tenant's storage, and does anything there need a person? What the database says, and the judgement of it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::tenancy::{Db, TenancyError, TenantSlug};

/// A hub that was away over a long weekend still finds a partition.
const PARTITIONS_AHEAD_MIN: i64 = 2;
/// A minute is rolled up seconds after its end; ten minutes say that nobody does it.
const ROLLUP_LAG_S_MAX: i64 = 600;
/// So many readings outside of any day's partition make queries slow.
const STRAY_READINGS_MAX: i64 = 1_000_000;

/// A tenant's storage, as `storage_report` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    /// `plain`, `timescaledb-apache` or `timescaledb-community`.
    pub form: String,
    /// Days after today that have a partition; null where chunks make themselves.
    pub partitions_ahead_days: Option<i64>,
    /// Readings outside of any day's partition.
    pub stray_readings: i64,
    /// Chunks that should be compressed and are not; null where nothing is compressed.
    pub uncompressed_chunks: Option<i64>,
    /// Disk space of the readings with their index, in bytes.
    pub reading_bytes: i64,
    /// About how many readings there are, as of the last ANALYZE.
    pub readings_about: i64,
    /// Disk space of the rollups, in bytes.
    pub rollup_bytes: i64,
    /// Notes of minutes that are over and whose rollup is not right yet.
    pub rollup_marks: i64,
    /// Age of the oldest such note in seconds; null when there is none.
    pub rollup_lag_s: Option<i64>,
    /// Hours that are made anew as a whole, after an upgrade for example.
    pub rollup_hours_to_make: i64,
    /// Readings before this were dropped by retention.
    pub raw_from: Option<DateTime<Utc>>,
}

/// What the server can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerReport {
    /// PostgreSQL's version.
    pub postgresql: String,
    /// Version of TimescaleDB that could be had here.
    pub timescaledb_available: Option<String>,
    /// Version that this database has.
    pub timescaledb_installed: Option<String>,
    /// Its licence setting.
    pub timescaledb_license: Option<String>,
}

impl StorageReport {
    /// What this form cannot do.
    pub fn lacks(&self) -> Vec<&'static str> {
        match self.form.as_str() {
            "plain" => vec!["compression (TimescaleDB, Community licence)"],
            "timescaledb-apache" => vec!["compression (TimescaleDB's Community licence)"],
            _ => vec![],
        }
    }

    /// What needs a person, each with its remedy.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(days) = self.partitions_ahead_days
            && days < PARTITIONS_AHEAD_MIN
        {
            faults.push(format!(
                "partitions reach {days} days ahead; a hub that runs makes them hourly: look for `partitions` in its log"
            ));
        }
        if let Some(lag_s) = self.rollup_lag_s
            && lag_s > ROLLUP_LAG_S_MAX
        {
            faults.push(format!(
                "rollups are {lag_s} s behind; a hub that runs makes them every five seconds: look for `rollups` in its log"
            ));
        }
        if self.stray_readings > STRAY_READINGS_MAX {
            faults.push(format!(
                "{} readings lie outside of any day's partition; look for a source whose clock is far off",
                self.stray_readings
            ));
        }
        if let Some(chunks) = self.uncompressed_chunks
            && chunks > 0
        {
            faults.push(format!(
                "{chunks} chunks wait for compression; look for `storage` in the hub's log"
            ));
        }
        faults
    }
}

/// A tenant's storage now.
///
/// # Errors
/// [`TenancyError`].
pub async fn of_tenant(
    db: &Db,
    tenant: &TenantSlug,
    now: DateTime<Utc>,
) -> Result<StorageReport, TenancyError> {
    let mut tx = db.begin(tenant).await?;
    let said: Value = sqlx::query_scalar("SELECT storage_report($1)")
        .bind(now)
        .fetch_one(tx.conn())
        .await?;
    serde_json::from_value(said).map_err(|error| sqlx::Error::Decode(Box::new(error)).into())
}

/// What the server can do.
///
/// # Errors
/// [`TenancyError`].
pub async fn of_server(db: &Db) -> Result<ServerReport, TenancyError> {
    let mut tx = db.platform().await?;
    let (postgresql, timescaledb_available, timescaledb_installed, timescaledb_license) = sqlx::query_as(
        "SELECT current_setting('server_version'), \
           (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'), \
           (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), \
           current_setting('timescaledb.license', true)",
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(ServerReport {
        postgresql,
        timescaledb_available,
        timescaledb_installed,
        timescaledb_license,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> StorageReport {
        StorageReport {
            form: "plain".to_owned(),
            partitions_ahead_days: Some(7),
            stray_readings: 12,
            uncompressed_chunks: None,
            reading_bytes: 1,
            readings_about: 0,
            rollup_bytes: 1,
            rollup_marks: 3,
            rollup_lag_s: Some(70),
            rollup_hours_to_make: 0,
            raw_from: None,
        }
    }

    #[test]
    fn a_hub_that_works_leaves_nothing_to_say() {
        assert!(report().faults().is_empty());
        assert_eq!(report().lacks().len(), 1);
    }

    #[test]
    fn whatever_nobody_looks_after_is_told_with_its_remedy() {
        let neglected = StorageReport {
            partitions_ahead_days: Some(0),
            stray_readings: 2_000_000,
            uncompressed_chunks: Some(3),
            rollup_lag_s: Some(601),
            ..report()
        };
        let faults = neglected.faults();
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults.iter().all(|fault| fault.contains("look for")));
    }
}
