//! How does text become HTML? Escaped, in one frame, without scripts, so that it works on any panel beside the line.

use std::fmt::Write as _;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse as _, Response},
};
use chrono::DateTime;
use protocol::Micros;

const STYLE: &str = "body{font:16px/1.4 system-ui,sans-serif;margin:1.5rem;max-width:70rem}table{border-collapse:collapse;\
margin:.5rem 0 1.5rem}th,td{border:1px solid #bbb;padding:.25rem .6rem;text-align:left}td.n{text-align:right;\
font-variant-numeric:tabular-nums}.bad{background:#fde0e0}.warn{background:#fff3cd}.ok{background:#e3f4e3}\
label{display:block;margin:.8rem 0}input,select,button{font:inherit;padding:.5rem;min-width:16rem;display:block}\
input[type=checkbox]{display:inline;min-width:0}p.bad,p.ok,p.warn{padding:.6rem}nav a{margin-right:1rem}";
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// Adds to a page.
pub(super) fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

/// Text for HTML, in content or in quotes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A time for people.
pub(super) fn time(at_us: Micros) -> String {
    DateTime::from_timestamp_micros(at_us).map_or_else(
        || at_us.to_string(),
        |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

/// A whole page around a body. A page that refreshes itself shows the present; one with a form must not lose what is
/// typed into it.
pub(super) fn page(edge: &str, refreshes: bool, body: &str) -> String {
    let edge = escape(edge);
    let refresh = if refreshes {
        "<meta http-equiv=\"refresh\" content=\"2\">"
    } else {
        ""
    };
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\">{refresh}<title>{edge} – FoodFlow edge</title><style>{STYLE}</style></head><body>\
         <h1>{edge}</h1><nav><a href=\"/\">Status</a><a href=\"/manual\">Enter a value</a><a href=\"/alarms\">Alarms</a>\
         </nav>{body}</body></html>"
    )
}

/// A page as an answer: never kept by a browser, never framed, without scripts.
pub(super) fn answer(status: StatusCode, html: String) -> Response {
    let mut response = (status, Html(html)).into_response();
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_devices_cannot_become_markup() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!(time(1_772_366_400_000_000), "2026-03-01 12:00:00 UTC");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }
}
