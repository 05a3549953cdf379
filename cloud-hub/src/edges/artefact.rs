//! Where do edges get another version of their program? It is uploaded here by its hash, fetched by edges with their own
//! credentials, and installed on a command that carries the manifest its makers signed. Whether the signature is
//! good is decided by the edge, which knows whose releases it trusts.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::PathBuf,
};

use axum::{
    Json as Answer,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::Duration;
use futures_util::StreamExt;
use protocol::{Micros, command::Order};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use utoipa::{IntoParams, ToSchema};

use super::{
    TAG,
    command::{EdgeCommand, NewCommand, lock_edge, ring},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed,
        caller::Caller,
        export::{DIGEST_HEADER, Kept, send},
        hex::{from_hex, hex},
        permission::Permission,
        reply::Reply,
        tenancy::TenantSlug,
    },
    request::{Json, Page, Path, Query, Rows},
    tenant::enrolment,
};

/// Largest program.
const BYTES_MAX: u64 = 128 << 20;
/// A manifest is a few hundred bytes.
const MANIFEST_BYTES_MAX: usize = 16 * 1024;
/// An update that no edge took within this time is given anew, or not at all.
const UPDATE_VALID_DAYS: i64 = 30;

/// A program that edges may fetch.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub struct EdgeArtefact {
    /// SHA-256 of the content, in hexadecimal digits; its address.
    pub sha256: String,
    /// Length of the content.
    pub bytes: i64,
    /// Who uploaded it, by name.
    pub uploaded_by: String,
    /// When.
    pub uploaded_us: Micros,
}

const SELECT: &str = "SELECT sha256, bytes, uploaded_by, (extract(epoch FROM uploaded_at) * 1000000)::bigint AS uploaded_us \
    FROM edge_artefact";

fn failed(source: io::Error) -> Error {
    Error::Internal(anyhow::Error::new(source).context("keeping an artefact"))
}

fn refused(status: StatusCode, detail: &str) -> Error {
    Error::Unreadable {
        status,
        detail: detail.to_owned(),
    }
}

fn directory(app: &App, tenant: &TenantSlug) -> PathBuf {
    app.config.data_dir.join("artefacts").join(tenant.as_str())
}

/// Takes a program of at most 128 MiB. The same again is the same.
#[utoipa::path(post, path = "/edge-artefacts", operation_id = "create_edge_artefact", tag = TAG, security(("bearer" = ["edge.update"])),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "Kept", body = EdgeArtefact)))]
pub async fn create_edge_artefact(State(app): State<App>, caller: Caller, body: Body) -> Result<Reply> {
    // Before the body: nobody without the permission fills the disk.
    caller.authorize(&app, Permission::EdgeUpdate).await?;
    let (file, sha256, bytes) = receive(&app, &caller.tenant, body).await?;
    let mut tx = caller.begin(&app, Permission::EdgeUpdate).await?;
    let path = directory(&app, &caller.tenant).join(&sha256);
    // There before the row that names it.
    drop(file.persist(path).map_err(|error| failed(error.error))?);
    sqlx::query(
        "INSERT INTO edge_artefact (sha256, bytes, uploaded_by, uploaded_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&sha256)
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .bind(tx.actor().display())
    .bind(tx.at())
    .execute(tx.conn())
    .await?;
    let sql = format!("{SELECT} WHERE sha256 = $1");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&sha256);
    let kept: EdgeArtefact = found.fetch_one(tx.conn()).await?;
    tx.audit(&Deed::on("upload", "edge_artefact", &sha256).after(&kept));
    tx.finish(StatusCode::CREATED, &kept).await
}

async fn receive(app: &App, tenant: &TenantSlug, body: Body) -> Result<(NamedTempFile, String, u64)> {
    let directory = directory(app, tenant);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let file = NamedTempFile::new_in(&directory).map_err(failed)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
    let (mut sha256, mut bytes) = (Sha256::new(), 0);
    let mut blocks = body.into_data_stream();
    while let Some(block) = blocks.next().await {
        let block = block.map_err(|_| refused(StatusCode::BAD_REQUEST, "the body was cut off"))?;
        bytes += block.len() as u64;
        if bytes > BYTES_MAX {
            let detail = "an artefact has at most 128 MiB";
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        sha256.update(&block);
        writer.write_all(&block).await.map_err(failed)?;
    }
    if bytes == 0 {
        return Err(refused(StatusCode::BAD_REQUEST, "the body is empty"));
    }
    writer.sync_all().await.map_err(failed)?;
    Ok((file, hex(&sha256.finalize()), bytes))
}

/// One page of artefacts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ArtefactQuery {
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

/// Lists the programs that edges may fetch, by hash.
#[utoipa::path(get, path = "/edge-artefacts", operation_id = "list_edge_artefacts", tag = TAG, security(("bearer" = ["edge.update"])),
    params(ArtefactQuery), responses((status = 200, description = "Artefacts", body = Page<EdgeArtefact>)))]
pub async fn list_edge_artefacts(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ArtefactQuery>,
) -> Result<Answer<Page<EdgeArtefact>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::EdgeUpdate).await?;
    let sql = format!("{SELECT} WHERE $1::text IS NULL OR sha256 > $1 ORDER BY sha256 LIMIT $2");
    let found: Vec<EdgeArtefact> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    Ok(Answer(Page::of(found, rows, |it: &EdgeArtefact| {
        it.sha256.clone()
    })))
}

/// The tenant of an edge that shows its MQTT user name and password.
async fn device(app: &App, headers: &HeaderMap) -> Result<TenantSlug> {
    const UNKNOWN: Error = Error::Unauthenticated("an edge's MQTT user name and password are needed");
    let given = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    let encoded = given.and_then(|it| it.strip_prefix("Basic ")).ok_or(UNKNOWN)?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).map_err(|_| UNKNOWN)?;
    let pair = String::from_utf8(decoded).map_err(|_| UNKNOWN)?;
    let (username, password) = pair.split_once(':').ok_or(UNKNOWN)?;
    if pair.contains('\0') {
        return Err(UNKNOWN);
    }
    let known = enrolment::authenticate(&app.db, username, password).await?;
    let (tenant, _) = known.ok_or(UNKNOWN)?;
    TenantSlug::parse(&tenant).map_err(|_| UNKNOWN)
}

/// Gives an edge a program, for its MQTT user name and password (HTTP Basic). `Range: bytes=N-` goes on where an earlier
/// download broke off.
#[utoipa::path(get, path = "/edge-artefacts/{sha256}", operation_id = "fetch_edge_artefact", tag = TAG, security(("device" = [])),
    params(("sha256" = String, Path, description = "Hash of the program")),
    responses((status = 200, description = "The program", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "The rest of it", content_type = "application/octet-stream", body = Vec<u8>)))]
pub async fn fetch_edge_artefact(
    State(app): State<App>,
    headers: HeaderMap,
    Path(sha256): Path<String>,
) -> Result<Response> {
    const UNKNOWN: Error = Error::NotFound { entity: "artefact" };
    let tenant = device(&app, &headers).await?;
    let digest: [u8; 32] = from_hex(&sha256).ok_or(UNKNOWN)?;
    let path = directory(&app, &tenant).join(hex(&digest));
    let mut file = File::open(path).map_err(|_| UNKNOWN)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let range = headers.get(header::RANGE).and_then(|it| it.to_str().ok());
    let from = range.and_then(|it| start(it, bytes)).unwrap_or(0);
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut response = send(Kept {
        file,
        bytes: bytes - from,
        sha256: digest,
        media_type: HeaderValue::from_static("application/octet-stream"),
        name: "foodflow-edge",
        slot: None,
    });
    let accepts = HeaderName::from_static("accept-ranges");
    response
        .headers_mut()
        .insert(accepts, HeaderValue::from_static("bytes"));
    if from > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().remove(DIGEST_HEADER);
        let range = format!("bytes {from}-{}/{bytes}", bytes - 1);
        let range = HeaderValue::from_str(&range).map_err(|source| Error::Internal(source.into()))?;
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}

/// Where `bytes=N-` starts; none for any other range, and for one beyond the end: then all is sent.
fn start(range: &str, bytes: u64) -> Option<u64> {
    let from = range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
    (from < bytes).then_some(from)
}

/// A version to install.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEdgeUpdate {
    /// The manifest as its makers signed it: JSON with `version`, `target`, `sha256` and `size`, to the byte.
    #[schema(
        min_length = 2,
        max_length = 16384,
        example = "{\"version\":\"0.2.0\",\"target\":\"x86_64-unknown-linux-gnu\",\"sha256\":\"0000000000000000000000000000000000000000000000000000000000000000\"}"
    )]
    manifest: String,
    /// Ed25519 signature over the manifest's bytes, 128 hexadecimal digits.
    #[schema(
        pattern = "^[0-9a-fA-F]{128}$",
        example = "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    )]
    signature: String,
}

/// Has an edge install another version of its program, which must have been uploaded. The edge checks signature, hash
/// and target, tries it, and goes back by itself when it does not run well.
#[utoipa::path(post, path = "/edges/{name}/updates", operation_id = "create_edge_update", tag = TAG, security(("bearer" = ["edge.update"])),
    params(("name" = String, Path, description = "Edge")), request_body = NewEdgeUpdate,
    responses((status = 201, description = "Kept, to be sent", body = EdgeCommand)))]
pub async fn create_edge_update(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Json(new): Json<NewEdgeUpdate>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::EdgeUpdate).await?;
    let edge_id = lock_edge(&mut tx, &name).await?;
    let signature: [u8; 64] = from_hex(&new.signature)
        .ok_or_else(|| Error::Invalid("`signature` must be 128 hexadecimal digits".to_owned()))?;
    let sha256 = program_of(&new.manifest)?;
    let known =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM edge_artefact WHERE sha256 = $1)").bind(&sha256);
    if !known.fetch_one(tx.conn()).await? {
        return Err(Error::Conflict(format!(
            "no program with SHA-256 {sha256} was uploaded; send it to /api/v1/edge-artefacts first"
        )));
    }
    let order = Order::Update {
        manifest: new.manifest.into_bytes(),
        signature: signature.to_vec(),
    };
    let (by, now) = (tx.actor().display(), tx.at());
    let valid = Duration::days(UPDATE_VALID_DAYS);
    let command = NewCommand::new(edge_id, order, &by, now, Some(valid))?;
    let stored = command.store(&mut tx).await?;
    tx.audit(&Deed::on("command", "edge_command", stored.id).after(&stored));
    let reply = tx.finish(StatusCode::CREATED, &stored).await?;
    ring(&app, &caller.tenant, &name);
    Ok(reply)
}

/// The hash of the program that a manifest is about.
fn program_of(manifest: &str) -> Result<String> {
    let wrong = || {
        Error::Invalid(
            "`manifest` must be JSON of at most 16 KiB with `version` and `sha256` (64 hexadecimal digits)"
                .to_owned(),
        )
    };
    if manifest.len() > MANIFEST_BYTES_MAX {
        return Err(wrong());
    }
    let read: Value = serde_json::from_str(manifest).map_err(|_| wrong())?;
    let digest = read["sha256"].as_str().and_then(from_hex::<32>);
    match digest {
        Some(digest) if read["version"].is_string() => Ok(hex(&digest)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_goes_on_where_it_broke_off_and_nowhere_else() {
        assert_eq!(start("bytes=5-", 10), Some(5));
        for other in [
            "bytes=10-",
            "bytes=-5",
            "bytes=0-5",
            "bytes=1-,3-",
            "lines=1-",
            "",
        ] {
            assert_eq!(start(other, 10), None, "{other}");
        }
    }

    #[test]
    fn a_manifest_without_a_program_is_refused() {
        let digits = "AB".repeat(32);
        let good = format!("{{\"version\":\"1\",\"sha256\":\"{digits}\"}}");
        assert_eq!(program_of(&good).unwrap(), "ab".repeat(32));
        for wrong in [
            "",
            "[]",
            "{\"version\":\"1\"}",
            "{\"sha256\":\"00\",\"version\":\"1\"}",
        ] {
            assert!(program_of(wrong).is_err(), "{wrong}");
        }
    }
}
