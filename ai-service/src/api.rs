//! How are the models reached? Each is one POST under `/ai`; a bad request says what is wrong with it.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, rejection::JsonRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    drift::{Cusum, Drift},
    oee::{Oee, Production, effectiveness},
};

/// Largest request body: a day of one tag at 1 Hz as JSON numbers, with room.
const BODY_BYTES_MAX: usize = 4 << 20;

/// The routes of the AI service.
pub fn router() -> Router {
    Router::new()
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/ai/compute-line-efficiency", post(compute_line_efficiency))
        .route("/ai/ccp-drift-summary", post(ccp_drift_summary))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Why a request was refused; an RFC 9457 problem document.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    detail: String,
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self {
            status: rejection.status(),
            detail: rejection.body_text(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        let body = json!({"type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail});
        (
            self.status,
            [(CONTENT_TYPE, "application/problem+json")],
            body.to_string(),
        )
            .into_response()
    }
}

fn refused(error: &dyn std::error::Error) -> Problem {
    Problem {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        detail: error.to_string(),
    }
}

async fn compute_line_efficiency(
    request: Result<Json<Production>, JsonRejection>,
) -> Result<Json<Oee>, Problem> {
    let Json(production) = request?;
    effectiveness(&production)
        .map(Json)
        .map_err(|error| refused(&error))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DriftRequest {
    chart: Cusum,
    values: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct DriftSummary {
    #[serde(flatten)]
    drift: Drift,
    n: usize,
}

async fn ccp_drift_summary(
    request: Result<Json<DriftRequest>, JsonRejection>,
) -> Result<Json<DriftSummary>, Problem> {
    let Json(DriftRequest { chart, values }) = request?;
    let drift = chart.run(&values).map_err(|error| refused(&error))?;
    Ok(Json(DriftSummary {
        drift,
        n: values.len(),
    }))
}
