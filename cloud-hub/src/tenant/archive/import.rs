//! How does a tenant arrive? The archive is read twice: once to see that it is whole, then into a new tenant, in the
//! one transaction that makes it. What was loaded is counted and its audit chain followed before it lasts.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use futures_util::TryStreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{
    ArchiveError, CHUNK_BYTES, FOLDER, FORMAT, MANIFEST, Manifest, SUFFIX, TableEntry, broken, column_list,
    quoted,
};
use crate::kernel::hex::hex;
use crate::{
    kernel::{
        audit::{self, Deed},
        tenancy::TenantSlug,
    },
    tenant::{
        migrate::Files,
        provision::{self, By, Tenant},
    },
};

const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Days of partitions in one archive: a century, and no more tables than a catalogue bears.
const DAYS_MAX: usize = 36_525;

/// Makes the tenant `slug` of an archive; its name is the archive's where none is given. Reads files without
/// yielding.
///
/// # Errors
/// [`ArchiveError`]; the tenant is not there then.
pub async fn import(
    owner: &mut PgConnection,
    archive: &Path,
    slug: &TenantSlug,
    name: Option<&str>,
    by: &By,
) -> Result<Manifest, ArchiveError> {
    let manifest = check(archive)?;
    let files = Files::tenant();
    let then = files.until(manifest.schema_version);
    if then.newest() != manifest.schema_version {
        return Err(ArchiveError::Newer {
            archive: manifest.schema_version,
            program: files.newest(),
        });
    }
    let tenant = Tenant {
        slug: slug.clone(),
        name: name.unwrap_or(&manifest.name).to_owned(),
    };
    let mut tx = owner.begin().await?;
    provision::establish(&mut tx, &tenant, &then).await?;
    let known = prepare(&mut tx, &manifest).await?;
    load(&mut tx, archive, &manifest, &known).await?;
    restart_sequences(&mut tx).await?;
    follow_chain(&mut tx, &manifest).await?;
    // The rows are as they were; now they become what this program needs.
    provision::bring_up(&mut tx, &tenant, &files).await?;
    sqlx::query("UPDATE platform.tenant SET settings = $2 WHERE slug = $1")
        .bind(slug.as_str())
        .bind(&manifest.settings)
        .execute(&mut *tx)
        .await?;
    let origin = json!({ "from": manifest.tenant, "as_of_us": manifest.as_of_us, "program": manifest.program,
        "audit_head": manifest.audit_head });
    let entry = by.entry(&Deed::on("import", "tenant", slug).after(origin));
    provision::record(&mut tx, &entry).await?;
    provision::record_in_tenant(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(manifest)
}

type Entries = tar::Archive<zstd::Decoder<'static, BufReader<File>>>;

fn open(archive: &Path) -> Result<Entries, ArchiveError> {
    Ok(tar::Archive::new(zstd::Decoder::new(File::open(archive)?)?))
}

/// Reads the whole archive and compares it with its manifest.
fn check(archive: &Path) -> Result<Manifest, ArchiveError> {
    let mut archive = open(archive)?;
    let (mut found, mut manifest) = (Vec::new(), None);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        if !entry.header().entry_type().is_file() || manifest.is_some() {
            return Err(broken(format!("`{path}` does not belong in it")));
        }
        if path == MANIFEST {
            let mut text = Vec::new();
            entry.take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
            let read: Manifest = serde_json::from_slice(&text)
                .map_err(|error| broken(format!("its manifest cannot be read: {error}")))?;
            manifest = Some(read);
        } else {
            let name = path
                .strip_prefix(FOLDER)
                .and_then(|name| name.strip_suffix(SUFFIX));
            let name = name.ok_or_else(|| broken(format!("`{path}` does not belong in it")))?;
            found.push(measure(name, &mut entry)?);
        }
    }
    let manifest = manifest.ok_or_else(|| broken("it has no manifest"))?;
    compare(&manifest, &found)?;
    Ok(manifest)
}

/// Length, lines and hash of one file.
fn measure(name: &str, content: &mut impl Read) -> Result<TableEntry, ArchiveError> {
    let (mut hash, mut rows, mut bytes) = (Sha256::new(), 0, 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = content.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        let read = &chunk[..length];
        hash.update(read);
        rows += super::rows(read);
        bytes += length as u64;
    }
    Ok(TableEntry {
        name: name.to_owned(),
        columns: Vec::new(),
        rows,
        bytes,
        sha256: hex(&hash.finalize()),
    })
}

fn compare(manifest: &Manifest, found: &[TableEntry]) -> Result<(), ArchiveError> {
    if manifest.format != FORMAT {
        return Err(broken(format!("its form is {}, not {FORMAT}", manifest.format)));
    }
    if manifest.reading_days.len() > DAYS_MAX {
        return Err(broken("it has more days of readings than a century"));
    }
    if manifest.tables.len() != found.len() {
        return Err(broken(format!(
            "it has {} tables, its manifest {}",
            found.len(),
            manifest.tables.len()
        )));
    }
    for (said, is) in manifest.tables.iter().zip(found) {
        if (&said.name, said.rows, said.bytes, &said.sha256) != (&is.name, is.rows, is.bytes, &is.sha256) {
            return Err(broken(format!(
                "table `{}` is not what the manifest says",
                is.name
            )));
        }
    }
    Ok(())
}

/// The tables of the new schema with their columns. What its migrations filled in is taken out again: the archive
/// brings its own.
async fn prepare(
    conn: &mut PgConnection,
    manifest: &Manifest,
) -> Result<BTreeMap<String, Vec<String>>, ArchiveError> {
    let rows: Vec<(String, Vec<String>)> = sqlx::query_as(
        "SELECT c.relname::text, array_agg(a.attname::text) FROM pg_class c \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') \
           AND NOT c.relispartition AND c.relname <> 'schema_migration' GROUP BY c.relname",
    )
    .fetch_all(&mut *conn)
    .await?;
    let names: Vec<String> = rows.iter().map(|(name, _)| quoted(name)).collect();
    let truncate = format!("TRUNCATE {}", names.join(", "));
    sqlx::raw_sql(AssertSqlSafe(truncate)).execute(&mut *conn).await?;
    for day in &manifest.reading_days {
        sqlx::query("SELECT ensure_partitions($1, $1)")
            .bind(day)
            .execute(&mut *conn)
            .await?;
    }
    Ok(rows.into_iter().collect())
}

async fn load(
    conn: &mut PgConnection,
    archive: &Path,
    manifest: &Manifest,
    known: &BTreeMap<String, Vec<String>>,
) -> Result<(), ArchiveError> {
    let mut archive = open(archive)?;
    let mut said = manifest.tables.iter();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(table) = said.next() else { break };
        let columns = known.get(&table.name);
        let is_known = columns.is_some_and(|known| table.columns.iter().all(|column| known.contains(column)));
        if !is_known {
            return Err(broken(format!(
                "table `{}` is not one of schema version {}",
                table.name, manifest.schema_version
            )));
        }
        let loaded = load_table(conn, table, &mut entry).await?;
        if loaded != table.rows {
            return Err(broken(format!(
                "table `{}` took {loaded} rows of {}",
                table.name, table.rows
            )));
        }
    }
    Ok(())
}

async fn load_table(
    conn: &mut PgConnection,
    table: &TableEntry,
    content: &mut impl Read,
) -> Result<u64, ArchiveError> {
    let sql = format!(
        "COPY {} ({}) FROM STDIN",
        quoted(&table.name),
        column_list(&table.columns)
    );
    let mut copy = conn.copy_in_raw(&sql).await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = match content.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => {
                copy.abort("the archive cannot be read").await?;
                return Err(error.into());
            }
        };
        copy.send(&chunk[..length]).await?;
    }
    Ok(copy.finish().await?)
}

/// What counts by itself goes on behind what was loaded.
async fn restart_sequences(conn: &mut PgConnection) -> Result<(), ArchiveError> {
    let counting: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text, pg_get_serial_sequence(quote_ident(c.relname), a.attname) \
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') \
           AND pg_get_serial_sequence(quote_ident(c.relname), a.attname) IS NOT NULL",
    )
    .fetch_all(&mut *conn)
    .await?;
    for (table, column, sequence) in counting {
        let sql = format!(
            "SELECT setval($1, coalesce(max({column}), 1), max({column}) IS NOT NULL) FROM {table}",
            column = quoted(&column),
            table = quoted(&table),
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(sequence)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Follows the audit chain from its first entry to the one that the manifest names.
async fn follow_chain(conn: &mut PgConnection, manifest: &Manifest) -> Result<(), ArchiveError> {
    let mut rows =
        sqlx::query_as::<_, (i64, String, Vec<u8>)>("SELECT seq, event, hash FROM audit_event ORDER BY seq")
            .fetch(conn);
    let (mut last_seq, mut last_hash) = (0, audit::GENESIS);
    while let Some((seq, event, hash)) = rows.try_next().await? {
        last_hash = audit::link(&last_hash, seq, &event);
        if seq != last_seq + 1 || hash != last_hash {
            return Err(broken(format!("its audit chain breaks at entry {seq}")));
        }
        last_seq = seq;
    }
    let head = (last_seq > 0).then(|| (last_seq, hex(&last_hash)));
    if head != manifest.audit_head {
        return Err(broken("its audit chain ends elsewhere than its manifest says"));
    }
    Ok(())
}
