//! How does the dashboard come out of the one binary? Files embedded at build time, compressed ahead, with
//! strong ETags; unknown paths without a dot give the application, which routes for itself.

use std::sync::LazyLock;

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::{EmbeddedFile, RustEmbed};
use tower_http::{
    services::{ServeDir, ServeFile},
    set_header::SetResponseHeaderLayer,
};

use crate::error::Error;

/// `dashboard`, or `placeholder` when the binary was built without it.
pub const KIND: &str = env!("FF_UI_KIND");

/// Replaces the embedded files by a directory, for work on the dashboard without a Rust build.
const DIRECTORY_VARIABLE: &str = "FOODFLOW_UI_DIR";

/// uPlot and React Aria set inline styles; nothing else may come from anywhere but here.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; \
    style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "$FF_UI_DIR"]
struct Files;

static DIRECTORY: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(DIRECTORY_VARIABLE).ok());

/// Everything that is no API.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let files = match DIRECTORY.as_deref() {
        None => Router::new().fallback(serve),
        Some(directory) => {
            let index = ServeFile::new(format!("{directory}/index.html"));
            Router::new().fallback_service(ServeDir::new(directory).precompressed_br().fallback(index))
        }
    };
    let header = |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    files
        .layer(header(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "same-origin"))
}

async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if path == "api" || path.starts_with("api/") {
        return Error::NotFound { entity: "endpoint" }.into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        let detail = "pages are only read".to_owned();
        return Error::Unreadable {
            status: StatusCode::METHOD_NOT_ALLOWED,
            detail,
        }
        .into_response();
    }
    match choose(path, |name| Files::get(name).is_some()) {
        Some(name) => file(name, &headers),
        None => Error::NotFound { entity: "file" }.into_response(),
    }
}

/// The file to serve for a path: itself, or the application where the path names no file.
fn choose(path: &str, exists: impl Fn(&str) -> bool) -> Option<&str> {
    if !path.is_empty() && exists(path) {
        return Some(path);
    }
    let is_page = !path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    is_page.then_some("index.html")
}

/// The best stored form that the client accepts.
fn stored(name: &str, accepted: &str) -> Option<(EmbeddedFile, Option<&'static str>)> {
    let accepts = |coding: &str| {
        accepted.split(',').any(|part| {
            let mut parameters = part.split(';').map(str::trim);
            parameters.next() == Some(coding) && !parameters.any(|it| matches!(it, "q=0" | "q=0.0"))
        })
    };
    for (coding, suffix) in [("br", "br"), ("gzip", "gz")] {
        if accepts(coding)
            && let Some(file) = Files::get(&format!("{name}.{suffix}"))
        {
            return Some((file, Some(coding)));
        }
    }
    Files::get(name).map(|file| (file, None))
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
            .unwrap_or_default()
    };
    let Some((file, coding)) = stored(name, text(header::ACCEPT_ENCODING)) else {
        return Error::NotFound { entity: "file" }.into_response();
    };
    let hash = file.metadata.sha256_hash();
    let hash = u128::from_be_bytes(*hash.first_chunk().expect("a SHA-256 has more than 16 bytes"));
    let etag = format!("\"{hash:032x}\"");
    // Vite names the files in `assets/` after their content; everything else may change with the next build.
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = text(header::IF_NONE_MATCH)
        .split(',')
        .any(|tag| tag.trim().trim_start_matches("W/") == etag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, content_type(name))], file.data).into_response()
    };
    let out = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        out.insert(header::ETAG, etag);
    }
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let (Some(coding), false) = (coding, known) {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("wasm") => "application/wasm",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_path_gives_the_application_and_a_missing_file_does_not() {
        let exists = |name: &str| name == "assets/app-1.js";
        assert_eq!(choose("", exists), Some("index.html"));
        assert_eq!(choose("t/akron/p/akron/now", exists), Some("index.html"));
        assert_eq!(choose("assets/app-1.js", exists), Some("assets/app-1.js"));
        assert_eq!(choose("assets/app-2.js", exists), None);
        assert_eq!(choose("t/akron.v2/now", exists), Some("index.html"));
    }

    #[test]
    fn the_application_is_embedded_and_answers_a_known_etag_with_304() {
        let first = file("index.html", &HeaderMap::new());
        assert_eq!(first.status(), 200);
        assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache");
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(file("index.html", &headers).status(), 304);
    }
}
