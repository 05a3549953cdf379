//! The table of contents of the hub's HTTP side.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower::util::option_layer;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::{
    app::App,
    browser, core, edges,
    error::Error,
    fsq,
    health::{self, MqttProbe},
    identity::{self, attempts::Attempts, hashing},
    integrate, integrity,
    kernel::caller::SignedIn,
    limits::{self, Limits},
    openapi, plant_ops, request, request_log,
    series::{feed::Feed, live},
    tenant, ui, vision,
};

/// Time in which a handler must answer; a live stream has answered once it is open.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// An export is written before it is answered, and an upload takes as long as its sender needs.
const LONG_ANSWER_TIMEOUT: Duration = Duration::from_mins(11);

fn api() -> OpenApiRouter<App> {
    let contexts = OpenApiRouter::new()
        .merge(identity::routes())
        .merge(tenant::routes())
        .merge(integrity::routes())
        .merge(integrate::routes())
        .merge(core::routes())
        .merge(plant_ops::routes())
        .merge(fsq::routes())
        .merge(vision::routes())
        .merge(edges::routes())
        .routes(routes!(live::open_live));
    OpenApiRouter::with_openapi(openapi::base()).nest("/api/v1", contexts)
}

/// The API's description, as served and as `foodflow-hub openapi` prints it.
pub fn document() -> OpenApi {
    openapi::complete(api().into_openapi())
}

/// Everything that the hub serves over HTTP. Call within a Tokio runtime: the live feed starts here.
/// Live streams end when `stop` is cancelled, so that a graceful shutdown does not wait for them.
pub fn build(app: App, mqtt: MqttProbe, stop: CancellationToken) -> Router {
    let feed = Feed::start(&app.live, stop);
    drop(tokio::task::spawn_blocking(hashing::warm_up));
    let limits = Arc::new(Limits::new(&app.config.http));
    let (api, _) = api().split_for_parts();
    api.merge(models(&app))
        .merge(health::routes(mqtt))
        .merge(SwaggerUi::new("/docs").url(openapi::PATH, document()))
        .merge(ui::routes())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(feed))
        .layer(Extension(Arc::new(Attempts::new(app.config.auth.attempts))))
        .layer(DefaultBodyLimit::max(request::BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), request::prepare))
        .layer(middleware::from_fn_with_state(
            (app.clone(), limits),
            limits::admit,
        ))
        .layer(option_layer(browser::cross_origin(&app.config.http.cors_origins)))
        .layer(middleware::from_fn(measure))
        .layer(middleware::from_fn(browser::protect))
        .layer(middleware::from_fn_with_state(app.clone(), request_log::follow))
        .layer(middleware::from_fn(request::correlate))
        .with_state(app)
}

/// The AI service, in process: what `foodflow-ai` answers under `/ai`, for whoever is signed in. The models are
/// pure and see no tenant's data but what the caller sends.
fn models(app: &App) -> Router<App> {
    let service = ai_service::api::router()
        .fallback(|| async { Error::NotFound { entity: "model" } })
        .method_not_allowed_fallback(method_not_allowed);
    Router::new()
        .route_service("/ai/{*model}", service)
        .route_layer(middleware::from_extractor_with_state::<SignedIn, App>(
            app.clone(),
        ))
}

async fn method_not_allowed() -> Error {
    Error::Unreadable {
        status: StatusCode::METHOD_NOT_ALLOWED,
        detail: "this method is not offered here".to_owned(),
    }
}

/// Counts and times requests by route, and answers for a handler that does not.
async fn measure(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().as_str().to_owned();
    let started = Instant::now();
    let response = match timeout(answer_timeout(&route), next.run(request)).await {
        Ok(response) => response,
        Err(elapsed) => Error::Unavailable(elapsed.into()).into_response(),
    };
    let status = response.status().as_u16().to_string();
    let labels = [("route", route), ("method", method), ("status", status)];
    metrics::counter!("foodflow_http_requests_total", &labels).increment(1);
    metrics::histogram!("foodflow_http_request_seconds", &labels).record(started.elapsed().as_secs_f64());
    response
}

fn answer_timeout(route: &str) -> Duration {
    if route.ends_with("/export") || route.ends_with("/attachments") {
        LONG_ANSWER_TIMEOUT
    } else {
        ANSWER_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_committed_description_is_the_one_served() {
        let served = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        let committed = include_str!("../openapi.json");
        let first = served
            .lines()
            .zip(committed.lines())
            .find(|(new, old)| new != old);
        assert!(
            served == committed,
            "the API changed, first at {first:?}; look at the difference, then renew the file: \
             cargo run -p cloud-hub -- openapi > cloud-hub/openapi.json"
        );
    }

    #[test]
    fn operation_ids_are_unique_and_every_operation_is_tagged_and_documents_its_problems() {
        let mut document = document();
        let mut seen = HashMap::new();
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in openapi::operations(item) {
                let place = format!("{} {path}", serde_json::to_string(&method).unwrap());
                let id = operation.operation_id.clone().expect("every operation has an id");
                assert_eq!(seen.insert(id.clone(), place.clone()), None, "{id} is used twice");
                assert!(
                    operation.tags.as_ref().is_some_and(|tags| tags.len() == 1),
                    "{place}"
                );
                assert!(operation.responses.responses.contains_key("401"), "{place}");
                assert!(path.starts_with("/api/v1/"), "{place}");
            }
        }
        assert!(seen.len() >= 27, "{} operations", seen.len());
    }

    #[test]
    fn every_schema_that_is_referred_to_exists() {
        let text = serde_json::to_string(&document()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
