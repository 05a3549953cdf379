//! Which frames were judged, by which model, and where are the defects?

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, types};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, permission::Permission},
    request::{Page, Path, Query, Rows},
};

/// What was concluded from a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VisionVerdict {
    /// No defect.
    Pass,
    /// A defect.
    Reject,
    /// Not judged, with a reason.
    Unknown,
}

impl VisionVerdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Reject => "reject",
            Self::Unknown => "unknown",
        }
    }
}

/// One defect, in pixels of the source frame.
#[derive(Debug, Serialize, Deserialize, ToSchema, PartialEq)]
pub struct DefectBox {
    /// Class of the model's manifest.
    pub class: String,
    /// Score, 0 to 1, uncalibrated.
    pub score: f32,
    /// Left.
    pub x0: f32,
    /// Top.
    pub y0: f32,
    /// Right.
    pub x1: f32,
    /// Bottom.
    pub y1: f32,
}

/// The model that judged.
#[derive(Debug, Serialize, ToSchema)]
pub struct Model {
    /// Name in its manifest; empty when no model ran.
    pub name: String,
    /// Version in its manifest.
    pub version: String,
    /// SHA-256 of the model file.
    pub sha256: String,
}

/// A judged frame.
#[derive(Debug, Serialize, ToSchema)]
pub struct VisionResult {
    /// Stable id.
    pub id: Uuid,
    /// When the picture was taken.
    pub taken_us: Micros,
    /// The camera.
    pub camera: String,
    /// Its line.
    pub line_id: Option<Uuid>,
    /// `pass`, `reject` or `unknown`.
    #[schema(value_type = VisionVerdict)]
    pub verdict: String,
    /// Why it is unknown.
    pub reason: Option<String>,
    /// What was found.
    pub defects: Vec<DefectBox>,
    /// Width of the source frame.
    pub width_px: i32,
    /// Height of the source frame.
    pub height_px: i32,
    /// Who judged.
    pub model: Model,
    /// Whether a picture is kept.
    pub has_image: bool,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    taken_at: DateTime<Utc>,
    camera: String,
    line_id: Option<Uuid>,
    verdict: String,
    reason: Option<String>,
    defects: types::Json<Vec<DefectBox>>,
    width_px: i32,
    height_px: i32,
    model_name: Option<String>,
    model_version: Option<String>,
    model_sha256: Option<String>,
    has_image: bool,
}

impl From<Row> for VisionResult {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            taken_us: row.taken_at.timestamp_micros(),
            camera: row.camera,
            line_id: row.line_id,
            verdict: row.verdict,
            reason: row.reason,
            defects: row.defects.0,
            width_px: row.width_px,
            height_px: row.height_px,
            model: Model {
                name: row.model_name.unwrap_or_default(),
                version: row.model_version.unwrap_or_default(),
                sha256: row.model_sha256.unwrap_or_default(),
            },
            has_image: row.has_image,
        }
    }
}

/// Narrows the list of results.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VisionQuery {
    /// Only results of this verdict.
    verdict: Option<VisionVerdict>,
    /// Only results of this line.
    line_id: Option<Uuid>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

const SELECT: &str = "
SELECT v.id, v.taken_at, v.camera, v.line_id, v.verdict, v.reason, v.defects, v.width_px, v.height_px,
    v.model_name, v.model_version, v.model_sha256, v.thumbnail IS NOT NULL AS has_image
FROM vision_result v
WHERE ($1::text IS NULL OR v.verdict = $1) AND ($2::uuid IS NULL OR v.line_id = $2)
    AND ($3::uuid IS NULL OR (v.taken_at, v.id) < (SELECT p.taken_at, p.id FROM vision_result p WHERE p.id = $3))
ORDER BY v.taken_at DESC, v.id DESC LIMIT $4";

/// Lists judged frames, newest first.
#[utoipa::path(get, path = "/vision/results", operation_id = "list_vision_results", tag = TAG, security(("bearer" = ["vision.read"])),
    params(VisionQuery), responses((status = 200, description = "Results", body = Page<VisionResult>)))]
pub async fn list_vision_results(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<VisionQuery>,
) -> Result<Json<Page<VisionResult>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::VisionRead).await?;
    let found: Vec<Row> = sqlx::query_as(SELECT)
        .bind(query.verdict.map(VisionVerdict::as_str))
        .bind(query.line_id)
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let results = found.into_iter().map(VisionResult::from).collect();
    Ok(Json(Page::of(results, rows, |result: &VisionResult| {
        result.id.to_string()
    })))
}

/// Gives the picture of a judged frame, a smaller copy of the frame.
#[utoipa::path(get, path = "/vision/results/{id}/image", operation_id = "read_vision_image", tag = TAG, security(("bearer" = ["vision.read"])),
    params(("id" = Uuid, Path, description = "Result")),
    responses((status = 200, description = "The picture", body = Vec<u8>, content_type = "image/jpeg")))]
pub async fn read_vision_image(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let mut tx = caller.begin(&app, Permission::VisionRead).await?;
    let picture: Option<Option<Vec<u8>>> =
        sqlx::query_scalar("SELECT thumbnail FROM vision_result WHERE id = $1")
            .bind(id)
            .fetch_optional(tx.conn())
            .await?;
    let picture = picture.flatten().ok_or(Error::NotFound { entity: "image" })?;
    // The bytes came from an edge: the browser must take them for a picture and nothing else.
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg"),
        (header::CACHE_CONTROL, "private, max-age=86400, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, picture).into_response())
}
