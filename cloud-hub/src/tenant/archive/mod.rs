//! What is a tenant's archive? A tar file compressed with zstd: one text COPY of each table, in an order in which they
//! can be loaded, and last the manifest that says what must be in them.
//!
//! ```text
//! NAME.tar.zst
//!   tables/plant.copy      COPY (SELECT "id", "code", …) TO STDOUT: a line a row, columns by tab, \N is null
//!   tables/….copy          parents before their children
//!   manifest.json          Manifest: schema version, as-of time; columns, rows, bytes and SHA-256 of each table
//! ```
//!
//! `pg_dump -n` would leave out the rows of hypertables, which lie in another schema. Everything is read from one
//! snapshot and streams through a bounded buffer; a table waits on disk only until its length is known.

mod export;
mod import;

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use export::{Contents, Exported, export};
pub use import::import;

use super::{migrate::MigrateError, provision::ProvisionError};
use crate::kernel::tenancy::TenancyError;

/// The form described above.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const FOLDER: &str = "tables/";
const SUFFIX: &str = ".copy";
const CHUNK_BYTES: usize = 256 * 1024;

/// Tables whose rows mean nothing elsewhere: who is signed in here, tokens sent and not used yet, answers kept for a
/// day, mail on its way out, and the list of migrations, which the new schema has itself.
const LEFT_OUT: &[&str] = &[
    "schema_migration",
    "session",
    "refresh_token",
    "one_time_token",
    "idempotency_key",
    "mail_message",
];

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Form of the archive.
    pub format: u32,
    /// Slug of the tenant it was made of.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// Its settings, as stored.
    pub settings: Value,
    /// Number of the newest migration of its schema.
    pub schema_version: i64,
    /// Release of the program that made the archive.
    pub program: String,
    /// Everything is as it was then.
    pub as_of_us: i64,
    /// Where its audit chain ended: number and hash (hex) of the last entry.
    pub audit_head: Option<(i64, String)>,
    /// Days that have a partition of readings, where the storage has such.
    pub reading_days: Vec<chrono::NaiveDate>,
    /// The tables, in the order of the archive.
    pub tables: Vec<TableEntry>,
    /// Tables that are not in it.
    pub left_out: Vec<String>,
    /// Columns that are null in it, as `table.column`.
    pub blanked: Vec<String>,
}

/// One table in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableEntry {
    /// Its name.
    pub name: String,
    /// Its columns, in the order of the file.
    pub columns: Vec<String>,
    /// Lines of the file.
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

/// Why there is no archive, or none was loaded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The tenant or the database.
    #[error(transparent)]
    Tenancy(#[from] TenancyError),
    /// The new tenant cannot be made.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// A file cannot be read or written.
    #[error("the archive cannot be read or written")]
    Io(#[from] io::Error),
    /// It is no archive, or not as it was made.
    #[error("the archive is not whole: {0}")]
    Broken(String),
    /// A newer program made it.
    #[error("the archive has schema version {archive}; this program knows up to {program}")]
    Newer {
        /// Of the archive.
        archive: i64,
        /// Of the program.
        program: i64,
    },
}

impl From<sqlx::Error> for ArchiveError {
    fn from(error: sqlx::Error) -> Self {
        Self::Tenancy(error.into())
    }
}

impl From<MigrateError> for ArchiveError {
    fn from(error: MigrateError) -> Self {
        Self::Provision(error.into())
    }
}

fn broken(what: impl Into<String>) -> ArchiveError {
    ArchiveError::Broken(what.into())
}

/// Rows of a text `COPY`: a line feed within a value is written as `\n`, so each one ends a row.
fn rows(chunk: &[u8]) -> u64 {
    chunk.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// A name in SQL, whatever it is made of.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A `COPY`'s list of columns.
fn column_list(columns: &[String]) -> String {
    let quoted: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    quoted.join(", ")
}
