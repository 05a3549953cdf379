//! How does a tenant leave? Table by table out of one snapshot, in constant memory, with a hash of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufWriter, Read, Seek, Write},
    path::Path,
};

use chrono::NaiveDate;
use futures_util::TryStreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{ArchiveError, FOLDER, FORMAT, LEFT_OUT, MANIFEST, Manifest, SUFFIX, TableEntry, broken, quoted};
use crate::kernel::{
    hex::hex,
    tenancy::{Db, TenantSlug, TenantTx},
};

const COMPRESSION: i32 = 3;

/// What goes into the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All that the tenant is, so that it can go on elsewhere with the same passwords.
    Whole,
    /// The same without password hashes, for the tenant's own people.
    WithoutPasswords,
}

impl Contents {
    /// Columns that are null in the archive.
    const fn blanked(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Whole => &[],
            Self::WithoutPasswords => &[("app_user", "password_hash")],
        }
    }
}

/// An archive that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// What it holds.
    pub manifest: Manifest,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Its length.
    pub bytes: u64,
}

/// Writes a tenant's archive to `out`; tables wait in `scratch` until their length is known. Reads and writes files
/// without yielding: give it a thread of its own.
///
/// # Errors
/// [`ArchiveError`].
pub async fn export(
    db: &Db,
    tenant: &TenantSlug,
    contents: Contents,
    out: File,
    scratch: &Path,
) -> Result<Exported, ArchiveError> {
    let (name, settings, schema_version) = entry(db, tenant).await?;
    let mut tx = db.snapshot(tenant).await?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(
        Hashing::new(BufWriter::new(out)),
        COMPRESSION,
    )?);
    let order = tables(tx.conn()).await?;
    let mut written = Vec::with_capacity(order.len());
    for (table, columns) in order {
        written.push(copy_table(&mut tx, (table, columns), contents, &mut archive, scratch).await?);
    }
    let manifest = Manifest {
        format: FORMAT,
        tenant: tenant.as_str().to_owned(),
        name,
        settings,
        schema_version,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        as_of_us: tx.at().timestamp_micros(),
        audit_head: audit_head(tx.conn()).await?,
        reading_days: reading_days(tx.conn()).await?,
        tables: written,
        left_out: LEFT_OUT.iter().map(ToString::to_string).collect(),
        blanked: contents
            .blanked()
            .iter()
            .map(|(table, column)| format!("{table}.{column}"))
            .collect(),
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
    append(&mut archive, MANIFEST, text.len() as u64, text.as_slice())?;
    let (out, sha256) = archive.into_inner()?.finish()?.finish();
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let bytes = file.stream_position()?;
    Ok(Exported {
        manifest,
        sha256,
        bytes,
    })
}

type Archive = tar::Builder<zstd::Encoder<'static, Hashing<BufWriter<File>>>>;

/// The tenant's entry at the platform, which its own role cannot read.
async fn entry(db: &Db, tenant: &TenantSlug) -> Result<(String, Value, i64), ArchiveError> {
    let mut tx = db.platform().await?;
    let found: Option<(String, Value, i64)> =
        sqlx::query_as("SELECT name, settings, schema_version FROM platform.tenant WHERE slug = $1")
            .bind(tenant.as_str())
            .fetch_optional(tx.conn())
            .await?;
    found.ok_or_else(|| crate::kernel::tenancy::TenancyError::UnknownTenant.into())
}

/// Tables with their columns, parents first. Partitions and chunks come with the table they are part of.
async fn tables(conn: &mut PgConnection) -> Result<Vec<(String, Vec<String>)>, ArchiveError> {
    let rows: Vec<(String, Vec<String>)> = sqlx::query_as(
        "SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') \
           AND NOT c.relispartition AND c.relname <> ALL ($1) GROUP BY c.relname",
    )
    .bind(LEFT_OUT)
    .fetch_all(&mut *conn)
    .await?;
    let references: Vec<(String, String)> = sqlx::query_as(
        "SELECT DISTINCT c.relname::text, p.relname::text FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid \
         JOIN pg_class p ON p.oid = f.confrelid \
         WHERE f.contype = 'f' AND c.relnamespace = current_schema()::regnamespace AND c.oid <> p.oid",
    )
    .fetch_all(conn)
    .await?;
    let mut columns: BTreeMap<String, Vec<String>> = rows.into_iter().collect();
    let names: BTreeSet<String> = columns.keys().cloned().collect();
    let order = parents_first(names, &references).map_err(|circle| {
        broken(format!(
            "these tables refer to each other in a circle: {circle:?}"
        ))
    })?;
    Ok(order
        .into_iter()
        .filter_map(|name| columns.remove_entry(&name))
        .collect())
}

/// Orders names so that what refers (first of each pair) comes after what it refers to; the names that cannot be
/// ordered otherwise.
fn parents_first(
    mut names: BTreeSet<String>,
    references: &[(String, String)],
) -> Result<Vec<String>, BTreeSet<String>> {
    let mut order = Vec::with_capacity(names.len());
    while !names.is_empty() {
        let waits = |name: &String| {
            references
                .iter()
                .any(|(child, parent)| child == name && names.contains(parent))
        };
        let (waiting, ready): (BTreeSet<_>, BTreeSet<_>) = names.iter().cloned().partition(waits);
        if ready.is_empty() {
            return Err(waiting);
        }
        order.extend(ready);
        names = waiting;
    }
    Ok(order)
}

/// Copies one table by way of a file in `scratch`.
async fn copy_table(
    tx: &mut TenantTx,
    (table, columns): (String, Vec<String>),
    contents: Contents,
    archive: &mut Archive,
    scratch: &Path,
) -> Result<TableEntry, ArchiveError> {
    let blanked = contents.blanked();
    let selected: Vec<String> = columns
        .iter()
        .map(|column| {
            if blanked.contains(&(table.as_str(), column.as_str())) {
                format!("NULL AS {}", quoted(column))
            } else {
                quoted(column)
            }
        })
        .collect();
    let sql = format!(
        "COPY (SELECT {} FROM {}) TO STDOUT",
        selected.join(", "),
        quoted(&table)
    );
    let mut file = Hashing::new(BufWriter::new(tempfile::tempfile_in(scratch)?));
    let (mut rows, mut bytes) = (0, 0);
    let mut copied = tx.conn().copy_out_raw(&sql).await?;
    while let Some(chunk) = copied.try_next().await? {
        rows += super::rows(&chunk);
        bytes += chunk.len() as u64;
        file.write_all(&chunk)?;
    }
    drop(copied);
    let (file, sha256) = file.finish();
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    append(archive, &format!("{FOLDER}{table}{SUFFIX}"), bytes, file)?;
    Ok(TableEntry {
        name: table,
        columns,
        rows,
        bytes,
        sha256: hex(&sha256),
    })
}

fn append(archive: &mut Archive, name: &str, bytes: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

async fn audit_head(conn: &mut PgConnection) -> Result<Option<(i64, String)>, ArchiveError> {
    let last: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT seq, hash FROM audit_event ORDER BY seq DESC LIMIT 1")
            .fetch_optional(conn)
            .await?;
    Ok(last.map(|(seq, hash)| (seq, hex(&hash))))
}

/// The days of native partitions; none on a hypertable, which makes its own chunks.
async fn reading_days(conn: &mut PgConnection) -> Result<Vec<NaiveDate>, ArchiveError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'reading'::regclass AND c.relispartition ORDER BY 1",
    )
    .fetch_all(conn)
    .await?;
    let day = |name: &String| NaiveDate::parse_from_str(name.strip_prefix("reading_")?, "%Y%m%d").ok();
    Ok(names.iter().filter_map(day).collect())
}

/// A writer that hashes what goes through it.
#[derive(Debug)]
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    fn finish(self) -> (W, [u8; 32]) {
        (self.inner, self.hash.finalize().into())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(child: &str, parent: &str) -> (String, String) {
        (child.to_owned(), parent.to_owned())
    }

    #[test]
    fn parents_come_before_their_children_and_a_circle_is_named() {
        let names = ["batch", "line", "lot", "plant"].map(str::to_owned).into();
        let references = [
            pair("batch", "line"),
            pair("line", "plant"),
            pair("lot", "batch"),
            pair("lot", "not exported"),
        ];
        assert_eq!(
            parents_first(names, &references).unwrap(),
            ["plant", "line", "batch", "lot"]
        );
        let names = ["a", "b", "c"].map(str::to_owned).into();
        let circle = parents_first(names, &[pair("a", "b"), pair("b", "a")]).unwrap_err();
        assert_eq!(circle, ["a", "b"].map(str::to_owned).into());
    }
}
