//! The table of contents of the hub's HTTP side.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower::util::option_layer;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::{
    alarm,
    app::App,
    browser, core, edges,
    error::Error,
    fsq,
    health::{self, MqttProbe},
    identity::{self, attempts::Attempts, hashing, oidc::Providers},
    integrate, integrator, integrity,
    kernel::caller::SignedIn,
    limits::{self, Limits},
    openapi, plant_ops, records, request, request_log,
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
        .merge(alarm::routes())
        .merge(fsq::routes())
        .merge(records::routes())
        .merge(vision::routes())
        .merge(edges::routes())
        .merge(integrator::routes())
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
    let providers = Arc::new(Providers::new(app.config.oidc, app.clock.clone()));
    let limits = Arc::new(Limits::new(&app.config.http));
    let (api, _) = api().split_for_parts();
    api.merge(models(&app))
        .merge(health::routes(mqtt))
        .merge(integrator::broker_rules::routes())
        .merge(docs())
        .merge(ui::routes())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(feed))
        .layer(Extension(providers))
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

/// The API's description as a page, whose every part is in this program; its browser is told to load no other.
fn docs() -> Router<App> {
    let page: Router<App> = SwaggerUi::new("/docs").url(openapi::PATH, document()).into();
    page.route_layer(SetResponseHeaderLayer::if_not_present(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(ui::CONTENT_SECURITY_POLICY),
    ))
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
    let is_upload = route.ends_with("/attachments") || route.ends_with("/edge-artefacts");
    if route.ends_with("/export") || is_upload {
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

    /// Of two types with one name, the description would silently show one for both.
    #[test]
    fn no_two_types_of_the_program_have_one_schema_name() {
        let mut seen = HashMap::new();
        let mut folders = vec![std::path::PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src"
        ))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|it| it == "rs") {
                    for name in schema_names(&std::fs::read_to_string(&path).unwrap()) {
                        let other = seen.insert(name.clone(), path.clone());
                        assert_eq!(other, None, "{name} is also in {}", path.display());
                    }
                }
            }
        }
        let document = serde_json::to_value(document()).unwrap();
        let known = document["components"]["schemas"].as_object().unwrap();
        assert!(known.len() > 30);
        for name in known.keys().filter(|name| !name.contains('_')) {
            // Aliases of plain types have no struct of their own.
            let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase());
            assert!(is_plain || seen.contains_key(name), "{name} comes from nowhere");
        }
    }

    /// Names of the types in a source file that derive `ToSchema`.
    fn schema_names(source: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut is_schema = false;
        for line in source.lines().map(str::trim) {
            is_schema |= line.starts_with("#[derive(") && line.contains("ToSchema");
            let words: Vec<&str> = line.split([' ', '<', '(', ';', '{']).collect();
            let at = words.iter().position(|word| ["struct", "enum"].contains(word));
            if let Some(by_hand) = line.strip_prefix("impl ToSchema for ") {
                names.extend(by_hand.split_whitespace().next().map(str::to_owned));
            }
            if let (true, Some(at), false) = (is_schema, at, line.starts_with("//")) {
                names.push(words[at + 1].to_owned());
                is_schema = false;
            }
        }
        names
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
