//! How does a person (or Prometheus) see the agent without the hub? A status page, `/status.json`, `/metrics` and
//! `/health` on a local address.

mod metrics;
mod page;
mod status;

use std::{io, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::status::{Status, status};
use crate::health::Health;

/// The local server's routes.
pub fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/status.json", get(status_json))
        .route("/metrics", get(metrics_text))
        .route("/health", get(|| async { "ok\n" }))
        .with_state(health)
}

async fn page(State(health): State<Arc<Health>>) -> Response {
    let mut response = Html(page::render(&status(&health))).into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    response
}

async fn status_json(State(health): State<Arc<Health>>) -> Json<Status> {
    Json(status(&health))
}

async fn metrics_text(State(health): State<Arc<Health>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, metrics::render(&status(&health))).into_response()
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, health: Arc<Health>, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router(health))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

/// Tells scripts where the page is, whole or not at all.
pub fn write_ready(data_dir: &Path, http: &str) -> io::Result<()> {
    let text = serde_json::json!({ "http": http, "pid": std::process::id() }).to_string();
    let temporary = data_dir.join("ready.tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, data_dir.join("ready.json"))
}

/// Takes the ready file away again.
pub fn clear_ready(data_dir: &Path) {
    let path = data_dir.join("ready.json");
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "ready file not removed");
    }
}
