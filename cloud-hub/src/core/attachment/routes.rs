//! How does a file get onto a record, and off it again? Uploaded as the body, handed out as a download.

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Attachment, AttachmentFilter, NewAttachment, store};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::Caller,
        export::{Kept, send},
        page::PageParams,
        permission::Permission,
        reply::Reply,
        resource::{self, ListParams},
    },
    request::{IfMatch, Page, Path, Query},
};

const TAG: &str = "core";

/// Routes under `/api/v1`.
pub(in crate::core) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_attachments, create_attachment))
        .routes(routes!(read_attachment, delete_attachment))
        .routes(routes!(read_attachment_content))
}

/// What is uploaded, and onto what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParams {
    /// The record's table, for example `lot`.
    entity: String,
    /// Which of them.
    entity_id: Uuid,
    /// Name of the file, 1 to 200 characters.
    #[param(min_length = 1, max_length = 200)]
    name: String,
}

/// Lists attachments.
#[utoipa::path(get, path = "/core/attachments", operation_id = "list_attachments", tag = TAG, security(("bearer" = ["core.read"])),
    params(AttachmentFilter, PageParams), responses((status = 200, description = "One page", body = Page<Attachment>)))]
pub(super) async fn list_attachments(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<Page<Attachment>>> {
    let params = ListParams::parse(query.as_deref().unwrap_or_default())?;
    let mut tx = caller.begin(&app, Permission::CoreRead).await?;
    Ok(axum::Json(resource::list::<Attachment>(&mut tx, &params).await?))
}

/// Puts a file of at most 20 MiB onto a record: PNG, JPEG, GIF, TIFF, WebP, PDF, text, CSV, JSON, DOCX, XLSX, ZIP.
#[utoipa::path(post, path = "/core/attachments", operation_id = "create_attachment", tag = TAG, security(("bearer" = ["core.write"])),
    params(UploadParams), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "Kept", body = Attachment)))]
pub(super) async fn create_attachment(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<UploadParams>,
    body: Body,
) -> Result<Reply> {
    // Before the body: nobody without the permission fills the disk.
    caller.authorize(&app, Permission::CoreWrite).await?;
    let received = store::receive(&app, &caller.tenant, &params.name, body).await?;
    let new = NewAttachment {
        entity: params.entity,
        entity_id: params.entity_id,
        name: params.name,
        media_type: received.media_type.to_owned(),
        bytes: i64::try_from(received.bytes).unwrap_or(i64::MAX),
        sha256: received.sha256.clone(),
    };
    let mut tx = caller.begin(&app, Permission::CoreWrite).await?;
    let made = resource::create::<Attachment>(&mut tx, &new).await?;
    store::keep(&app, &mut tx, received).await?;
    tx.finish(StatusCode::CREATED, &made).await
}

/// Reads what is known of a file.
#[utoipa::path(get, path = "/core/attachments/{id}", operation_id = "read_attachment", tag = TAG, security(("bearer" = ["core.read"])),
    params(("id" = Uuid, Path, description = "Attachment")), responses((status = 200, description = "The attachment", body = Attachment)))]
pub(super) async fn read_attachment(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::CoreRead).await?;
    Reply::json(StatusCode::OK, &resource::read::<Attachment>(&mut tx, id).await?)
}

/// Downloads a file.
#[utoipa::path(get, path = "/core/attachments/{id}/content", operation_id = "read_attachment_content", tag = TAG, security(("bearer" = ["core.read"])),
    params(("id" = Uuid, Path, description = "Attachment")),
    responses((status = 200, description = "The content, of the attachment's `media_type`", content_type = "application/octet-stream", body = Vec<u8>)))]
pub(super) async fn read_attachment_content(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let mut tx = caller.begin(&app, Permission::CoreRead).await?;
    let attachment = resource::read::<Attachment>(&mut tx, id).await?;
    drop(tx);
    let file = store::open(&app, &caller.tenant, &attachment.sha256)?;
    let found = HeaderValue::from_str(&attachment.media_type);
    let mut response = send(Kept {
        file,
        bytes: attachment.bytes.unsigned_abs(),
        sha256: digest(&attachment.sha256)?,
        media_type: found.unwrap_or(HeaderValue::from_static("application/octet-stream")),
        name: &attachment.name,
        slot: None,
    });
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    // Opened in a tab after all, it is alone there and may do nothing.
    headers.insert(
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static("default-src 'none'; sandbox"),
    );
    Ok(response)
}

fn digest(hex: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        let digits = hex.get(2 * place..2 * place + 2).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).map_err(|source| {
            Error::Internal(anyhow::Error::new(source).context("the hash of an attachment"))
        })?;
    }
    Ok(bytes)
}

/// Takes a file off its record. The content goes with the last attachment that has it; the audit chain keeps its hash.
#[utoipa::path(delete, path = "/core/attachments/{id}", operation_id = "delete_attachment", tag = TAG, security(("bearer" = ["core.write"])),
    params(("id" = Uuid, Path, description = "Attachment"), ("if-match" = String, Header, description = "The record's version, quoted, as its `ETag` gave it")),
    responses((status = 204, description = "Gone")))]
pub(super) async fn delete_attachment(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::CoreWrite).await?;
    let attachment = resource::read::<Attachment>(&mut tx, id).await?;
    resource::delete::<Attachment>(&mut tx, id, version).await?;
    let reply = tx.finish_empty().await?;
    // The row is gone whatever becomes of the content.
    if let Err(error) = store::forget(&app, &caller.tenant, &attachment.sha256).await {
        tracing::warn!(%error, "the content of an attachment stays");
    }
    Ok(reply)
}
