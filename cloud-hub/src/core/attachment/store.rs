//! Where is the content of an attachment? In a file of the tenant's own directory, named by its hash, so that the
//! same content is kept once. A file is there before the row that names it, and gone only after the last one.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::{io::AsyncWriteExt, task::spawn_blocking};

use super::kind::{self, HEAD_BYTES};
use crate::kernel::hex::hex;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::tenancy::{TenantSlug, TenantTx},
};

/// Largest content of an attachment.
pub(super) const BYTES_MAX: u64 = 20 << 20;

/// A content that came whole but has no place yet; gone when dropped.
#[derive(Debug)]
pub(super) struct Received {
    file: NamedTempFile,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) media_type: &'static str,
}

fn failed(source: io::Error) -> Error {
    Error::Internal(anyhow::Error::new(source).context("keeping an attachment"))
}

fn directory(app: &App, tenant: &TenantSlug) -> PathBuf {
    app.config.data_dir.join("attachments").join(tenant.as_str())
}

/// Writes a body to disk as it comes.
///
/// # Errors
/// [`Error::Unreadable`] for one that is too large, empty, cut off or of no kind that is taken.
pub(super) async fn receive(app: &App, tenant: &TenantSlug, name: &str, body: Body) -> Result<Received> {
    let directory = directory(app, tenant);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let file = NamedTempFile::new_in(&directory).map_err(failed)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
    let (mut sha256, mut bytes, mut head) = (Sha256::new(), 0, Vec::new());
    let mut blocks = body.into_data_stream();
    while let Some(block) = blocks.next().await {
        let block: Bytes = block.map_err(|_| refused(StatusCode::BAD_REQUEST, "the body was cut off"))?;
        bytes += block.len() as u64;
        if bytes > BYTES_MAX {
            return Err(refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "an attachment has at most 20 MiB",
            ));
        }
        let wanted = HEAD_BYTES.saturating_sub(head.len()).min(block.len());
        head.extend_from_slice(&block[..wanted]);
        sha256.update(&block);
        writer.write_all(&block).await.map_err(failed)?;
    }
    if bytes == 0 {
        return Err(refused(StatusCode::BAD_REQUEST, "the body is empty"));
    }
    let media_type = kind::media_type(&head, name).ok_or_else(|| {
        refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content is none of: PNG, JPEG, GIF, TIFF, WebP, PDF, text, CSV, JSON, DOCX, XLSX, ZIP",
        )
    })?;
    writer.sync_all().await.map_err(failed)?;
    Ok(Received {
        file,
        bytes,
        sha256: hex(&sha256.finalize()),
        media_type,
    })
}

fn refused(status: StatusCode, detail: &str) -> Error {
    Error::Unreadable {
        status,
        detail: detail.to_owned(),
    }
}

/// Uploads share it, whoever removes a file has it alone: no row ever names a file that is being removed.
async fn lock(tx: &mut TenantTx, is_removing: bool) -> Result<()> {
    let function = if is_removing {
        "SELECT pg_advisory_xact_lock(hashtextextended('attachments ' || current_schema(), 0))"
    } else {
        "SELECT pg_advisory_xact_lock_shared(hashtextextended('attachments ' || current_schema(), 0))"
    };
    sqlx::query(function).execute(tx.conn()).await?;
    Ok(())
}

/// Gives a content its place, where the row that `tx` is about to write will name it.
pub(super) async fn keep(app: &App, tx: &mut TenantTx, received: Received) -> Result<()> {
    lock(tx, false).await?;
    let path = directory(app, tx.tenant()).join(&received.sha256);
    let placed = spawn_blocking(move || received.file.persist(path).map_err(|error| error.error));
    let file = placed.await.map_err(|source| Error::Internal(source.into()))?;
    drop(file.map_err(failed)?);
    Ok(())
}

/// Opens a content.
pub(super) fn open(app: &App, tenant: &TenantSlug, sha256: &str) -> Result<File> {
    File::open(directory(app, tenant).join(sha256)).map_err(|error| {
        tracing::error!(%tenant, sha256, %error, "the content of an attachment cannot be read");
        Error::NotFound {
            entity: "content of the attachment",
        }
    })
}

/// Removes a content that no row names any more.
pub(super) async fn forget(app: &App, tenant: &TenantSlug, sha256: &str) -> Result<()> {
    let mut tx = app.db.begin(tenant).await?;
    lock(&mut tx, true).await?;
    let is_named: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM attachment WHERE sha256 = $1)")
        .bind(sha256)
        .fetch_one(tx.conn())
        .await?;
    if !is_named {
        remove(&directory(app, tenant).join(sha256));
    }
    Ok(())
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "the content of an attachment stays");
    }
}
