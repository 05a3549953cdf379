//! Is the hub alive, can it take traffic, and what are its numbers?

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::time::timeout;

use crate::{app::App, ui};

const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Says whether the MQTT router passed its last probe.
pub type MqttProbe = Arc<dyn Fn() -> bool + Send + Sync>;

/// `/health`, `/ready` and `/metrics`: for machines, without a token, without a word about any tenant.
pub fn routes(mqtt: MqttProbe) -> Router<App> {
    Router::new()
        .route("/health", get(health))
        .route("/api/v1/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .layer(Extension(mqtt))
}

async fn health() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION"), "ui": ui::KIND }))
}

async fn ready(State(app): State<App>, Extension(mqtt): Extension<MqttProbe>) -> Response {
    let database = matches!(timeout(DATABASE_TIMEOUT, app.db.ping()).await, Ok(Ok(())));
    let mqtt = mqtt();
    let status = if database && mqtt {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({ "ready": database && mqtt, "database": database, "mqtt": mqtt })),
    )
        .into_response()
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        app.metrics.render(),
    )
}
