//! What may a web page do with our answers? Pages of the configured origins may read them, no page may frame them,
//! nothing keeps a copy of them.

use std::time::Duration;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    kernel::export,
    request::{CORRELATION_HEADER, IDEMPOTENCY_HEADER, REASON_HEADER},
};

const PREFLIGHT_AGE: Duration = Duration::from_hours(1);

/// Lets pages of these origins call the API with a token. Cookies are not for them: a refresh cookie works on the
/// hub's own origin only.
pub fn cross_origin(origins: &[String]) -> Option<CorsLayer> {
    let known: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    if known.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(known))
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            HeaderName::from_static("last-event-id"),
            CORRELATION_HEADER,
            IDEMPOTENCY_HEADER,
            REASON_HEADER,
        ])
        .expose_headers([
            header::ETAG,
            header::RETRY_AFTER,
            header::CONTENT_DISPOSITION,
            header::LOCATION,
            export::QUERY_HEADER,
            export::AS_OF_HEADER,
            export::ROWS_HEADER,
            export::DIGEST_HEADER,
            HeaderName::from_static("idempotency-replayed"),
            CORRELATION_HEADER,
        ])
        .max_age(PREFLIGHT_AGE);
    Some(layer)
}

/// Adds what a browser needs to know of every answer, and more of the API's.
pub async fn protect(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    suggest(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    suggest(headers, header::X_FRAME_OPTIONS, "DENY");
    suggest(headers, header::REFERRER_POLICY, "no-referrer");
    if is_api {
        suggest(headers, header::CACHE_CONTROL, "no-store");
        suggest(
            headers,
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        );
    }
    response
}

/// A handler that says something itself knows better.
fn suggest(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}
