//! What does the log say of a request? One line when it is answered, and its span around every line until then:
//! method, route template, correlation id, tenant, and who by an opaque id. Never a name, an address, a query, a
//! token or a body: see docs/logging.md.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument as _, Span, field};

use crate::{
    app::App,
    kernel::{
        caller::{Caller, Principal, bearer},
        context::correlation_id,
    },
};

/// Target of the lines, for filters: `RUST_LOG=info,request=off`.
const TARGET: &str = "request";

/// Verifies the credential once for everything behind it, and logs the request when it is answered.
pub async fn follow(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let caller = bearer(request.headers()).and_then(|token| Caller::from_credential(token, &app).ok());
    let span = open(&request, caller.as_ref());
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    let started = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    let status = response.status().as_u16();
    span.in_scope(|| tracing::info!(target: TARGET, status, duration_ms, "answered"));
    response
}

/// An error's span is never filtered away while errors are logged, so every line of a request has its names.
fn open(request: &Request, caller: Option<&Caller>) -> Span {
    let matched = request.extensions().get::<MatchedPath>();
    let (kind, id) = principal(caller);
    let span = tracing::error_span!(
        target: TARGET,
        "request",
        correlation_id = correlation_id(),
        method = request.method().as_str(),
        route = matched.map_or("other", MatchedPath::as_str),
        tenant.id = field::Empty,
        principal.kind = kind,
        principal.id = id,
    );
    // What an API key claims is only known to be true once the database was asked: it is named then.
    if let Some(caller) = caller.filter(|caller| !matches!(caller.principal, Principal::ApiKey(_))) {
        span.record("tenant.id", caller.tenant.as_str());
    }
    span
}

fn principal(caller: Option<&Caller>) -> (&'static str, Option<String>) {
    match caller.map(|caller| &caller.principal) {
        Some(Principal::User { id, .. }) => ("user", Some(id.to_string())),
        Some(Principal::ApiKey(key)) => ("api_key", Some(key.id().to_string())),
        Some(Principal::Operator(role)) => ("operator", Some(role.to_string())),
        None => ("anonymous", None),
    }
}
