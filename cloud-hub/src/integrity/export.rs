//! How does an auditor take the chain away? As lines of JSON, each an entry with what its hash is made of, so that
//! `foodflow-hub verify --file` can check them where neither the hub nor its database is.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, Seek as _, Write as _},
    path::Path,
};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::spawn_blocking};
use utoipa::IntoParams;

use super::{
    TAG,
    chain::{Broken, Walk},
    root::{Root, Sealed, check_roots},
    verify::{self, Verified},
};
use crate::kernel::hex::{from_hex, hex};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed,
        caller::Caller,
        export::{Kept, ROWS_HEADER, send},
        permission::Permission,
        tenancy::TenantTx,
    },
    request::Query,
};

const BLOCK_BYTES: usize = 1 << 16;
const BLOCKS_WAITING: usize = 4;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    seq: i64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    prev_hash: String,
    hash: String,
}

/// Which rows to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditExportQuery {
    /// First row; 1 when absent.
    from: Option<i64>,
    /// Last row; the last there is when absent.
    to: Option<i64>,
}

/// Exports entries as lines of JSON: `seq`, `event` (the text that was hashed), `prev_hash`, `hash`. The export is an
/// entry of the chain itself.
#[utoipa::path(get, path = "/audit/export", operation_id = "export_audit", tag = TAG, security(("bearer" = ["audit.read"])),
    params(AuditExportQuery),
    responses((status = 200, description = "One entry a line", content_type = "application/x-ndjson", body = String,
        headers(("Content-Digest" = String, description = "SHA-256 of the file, RFC 9530"),
            ("X-Export-Rows" = i64, description = "Number of entries")))))]
pub async fn export_audit(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AuditExportQuery>,
) -> Result<Response> {
    let (from, to) = (query.from.unwrap_or(1), query.to.unwrap_or(i64::MAX));
    if from < 1 || to < from {
        return Err(Error::Invalid(
            "`from` must be 1 or more and `to` not before it".to_owned(),
        ));
    }
    let mut tx = caller.begin(&app, Permission::AuditRead).await?;
    let slot = app.exports.open(&caller.tenant)?;
    let made = write(&mut tx, (from, to), &app.config.data_dir.join("exports")).await?;
    let told = json!({ "from": from, "to": query.to, "rows": made.rows, "sha256": hex(&made.sha256) });
    tx.audit(&Deed {
        action: "export",
        entity: "audit_event",
        after: Some(told),
        ..Deed::default()
    });
    tx.commit().await?;
    let name = format!(
        "audit-{}-{}.ndjson",
        caller.tenant,
        app.clock.now().format("%Y%m%dT%H%M%SZ")
    );
    let mut response = send(Kept {
        file: made.file,
        bytes: made.bytes,
        sha256: made.sha256,
        media_type: HeaderValue::from_static("application/x-ndjson"),
        name: &name,
        slot: Some(slot),
    });
    let headers = response.headers_mut();
    headers.insert(ROWS_HEADER, HeaderValue::from(made.rows));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A file that was written, at its start.
struct Made {
    file: File,
    bytes: u64,
    sha256: [u8; 32],
    rows: u64,
}

async fn write(tx: &mut TenantTx, (from, to): (i64, i64), folder: &Path) -> Result<Made> {
    let (blocks, mut waiting) = mpsc::channel::<Vec<u8>>(BLOCKS_WAITING);
    let folder = folder.to_owned();
    let writer = spawn_blocking(move || -> io::Result<(File, u64, [u8; 32])> {
        std::fs::create_dir_all(&folder)?;
        let mut file = tempfile::tempfile_in(&folder)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(block) = waiting.blocking_recv() {
            file.write_all(&block)?;
            hash.update(&block);
            bytes += block.len() as u64;
        }
        file.rewind()?;
        Ok((file, bytes, hash.finalize().into()))
    });
    let (mut rows, mut block) = (0, Vec::with_capacity(BLOCK_BYTES));
    {
        let mut found = verify::select(tx, from, to);
        while let Some(row) = found.next().await {
            let row = row?;
            line(&verify::read(&row)?, &mut block)?;
            rows += 1;
            if block.len() >= BLOCK_BYTES {
                let full = std::mem::replace(&mut block, Vec::with_capacity(BLOCK_BYTES));
                if blocks.send(full).await.is_err() {
                    // The writer has given up; it says why.
                    break;
                }
            }
        }
    }
    drop(blocks.send(block).await);
    drop(blocks);
    let written = writer.await.map_err(|source| Error::Internal(source.into()))?;
    let (file, bytes, sha256) = written.map_err(|source| Error::Unavailable(source.into()))?;
    Ok(Made {
        file,
        bytes,
        sha256,
        rows,
    })
}

fn line(row: &super::chain::Row<'_>, into: &mut Vec<u8>) -> Result<()> {
    let line = Line {
        seq: row.seq,
        event: Cow::Borrowed(row.event),
        prev_hash: hex(row.prev_hash),
        hash: hex(row.hash),
    };
    serde_json::to_writer(&mut *into, &line).map_err(|source| Error::Internal(source.into()))?;
    into.push(b'\n');
    Ok(())
}

/// Verifies a file that [`export_audit`] gave, with the roots that the customer kept: without a database, in
/// constant memory.
///
/// # Errors
/// When the file cannot be read, or holds a line that is no entry.
pub fn verify_file(
    lines: impl BufRead,
    tenant: &str,
    files: &[Root],
    trusted: &[[u8; 32]],
) -> io::Result<Verified> {
    let (sealed, bad_file) = check_roots(tenant, files, trusted, false);
    let mut walk: Option<Walk> = None;
    let (mut from, mut broken, mut checked) = (1, bad_file, 0);
    for (place, text) in lines.lines().enumerate() {
        let text = text?;
        let no_entry = || io::Error::other(format!("line {} is no entry of an audit chain", place + 1));
        let line: Line<'_> = serde_json::from_str(&text).map_err(|_| no_entry())?;
        let hashes = (from_hex::<32>(&line.prev_hash), from_hex::<32>(&line.hash));
        let (Some(prev_hash), Some(hash)) = hashes else {
            return Err(no_entry());
        };
        let walk = walk.get_or_insert_with(|| {
            from = line.seq.max(1);
            Walk::from(line.seq)
        });
        let followed = walk
            .follow(line.seq, &line.event, &prev_hash, &hash)
            .and_then(|()| vouched(&sealed, line.seq, hash));
        match followed {
            Ok(roots) => checked += roots,
            Err(at) => {
                broken = broken.filter(|other| other.seq < at.seq).or(Some(at));
                break;
            }
        }
    }
    let walk = walk.unwrap_or_else(|| Walk::from(1));
    Ok(Verified {
        from,
        to: walk.next() - 1,
        rows: walk.rows(),
        head_seq: walk.next() - 1,
        head_hash: walk.last_hash().map(|hash| hash.to_vec()),
        roots_checked: checked,
        signatures_checked: 0,
        first_broken: broken,
    })
}

/// How many roots say that this row has this hash.
fn vouched(sealed: &[Sealed], seq: i64, hash: [u8; 32]) -> Result<usize, Broken> {
    let about = sealed.iter().filter(|place| place.seq == seq);
    let mut count = 0;
    for place in about {
        if place.hash != hash {
            return Err(Broken::at(seq, super::chain::Fault::Rewritten(place.day)));
        }
        count += 1;
    }
    Ok(count)
}
