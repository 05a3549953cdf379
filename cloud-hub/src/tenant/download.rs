//! How does a tenant get all of its data over HTTP? The archive is written to a file first, so that a slow reader keeps
//! no snapshot of the database open; then it is streamed with its hash.

use std::{fs::File, io::SeekFrom};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::stream;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    runtime::Handle,
    sync::Semaphore,
    task::spawn_blocking,
};

use super::{
    TAG,
    archive::{self, ArchiveError, Contents, Exported},
    operator::Visitor,
    registry,
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{audit::Deed, permission::Permission, tenancy::TenantSlug},
    request::Path,
};

/// Archives written at a time: each holds a snapshot open and works a processor.
static TURNS: Semaphore = Semaphore::const_new(2);
const RETRY_AFTER_S: u64 = 60;
const CHUNK_BYTES: usize = 64 * 1024;

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Tenancy(source) => source.into(),
            other => Self::Internal(other.into()),
        }
    }
}

/// Exports all of a tenant's data: a tar file compressed with zstd, one text COPY a table and a manifest with their
/// hashes. Passwords' hashes are not in it, nor who is signed in. The export is on record before it begins.
#[utoipa::path(post, path = "/tenants/{slug}/export", operation_id = "export_tenant", tag = TAG,
    security(("bearer" = ["tenant.export"]), ("platform" = [])),
    params(("slug" = String, Path, description = "Slug")),
    responses((status = 200, description = "The archive", content_type = "application/zstd", body = [u8],
        headers(("Content-Digest" = String, description = "SHA-256 of the archive (RFC 9530)"),
            ("Content-Disposition" = String, description = "A name for the file")))))]
pub async fn export_tenant(
    State(app): State<App>,
    visitor: Visitor,
    Path(slug): Path<String>,
) -> Result<Response> {
    let (actor, slug) = visitor.on(&app, &slug, Permission::TenantExport).await?;
    let turn = TURNS.try_acquire().map_err(|_| Error::TooManyAttempts {
        retry_after_s: RETRY_AFTER_S,
    })?;
    let mut tx = app.db.platform_as(actor).await?;
    registry::read(&mut tx, &slug).await?;
    tx.audit(&Deed::on("export", "tenant", &slug).after(json!({ "contents": "without passwords" })));
    tx.commit_in(&slug).await?;
    let (exported, file) = write(&app, &slug).await?;
    drop(turn);
    answer(&slug, &exported, file).await
}

/// Writes the archive on a thread of its own: it reads and writes files without yielding.
async fn write(app: &App, slug: &TenantSlug) -> Result<(Exported, File)> {
    let (db, slug, runtime) = (app.db.clone(), slug.clone(), Handle::current());
    let written = spawn_blocking(move || {
        // Without a name: gone with the last one who has it open.
        let scratch = std::env::temp_dir();
        let file = tempfile::tempfile_in(&scratch)?;
        let out = file.try_clone()?;
        let exporting = archive::export(&db, &slug, Contents::WithoutPasswords, out, &scratch);
        Ok::<_, ArchiveError>((runtime.block_on(exporting)?, file))
    });
    let written = written.await.map_err(|source| Error::Internal(source.into()))?;
    Ok(written?)
}

async fn answer(slug: &TenantSlug, exported: &Exported, file: File) -> Result<Response> {
    let unreadable = |source: std::io::Error| Error::Internal(source.into());
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(0)).await.map_err(unreadable)?;
    let chunks = stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = file.read(&mut chunk).await?;
        chunk.truncate(length);
        Ok::<_, std::io::Error>((length > 0).then(|| (Bytes::from(chunk), file)))
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    let text = |text: String| HeaderValue::try_from(text).map_err(|source| Error::Internal(source.into()));
    let name = format!("{slug}-{}.tar.zst", exported.manifest.as_of_us);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zstd"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(exported.bytes));
    headers.insert(
        header::CONTENT_DISPOSITION,
        text(format!("attachment; filename=\"{name}\""))?,
    );
    headers.insert(
        "content-digest",
        text(format!("sha-256=:{}:", BASE64_STANDARD.encode(exported.sha256)))?,
    );
    Ok(response)
}
