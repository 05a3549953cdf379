//! How is a request read? Its context (correlation id, reason, idempotency key), extractors whose refusals are
//! problem documents, and the parameters of a list.

use axum::{
    extract::{
        FromRequest, FromRequestParts, OptionalFromRequest, Request, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    app::App,
    error::{Error, Result},
    kernel::context::{self, Idempotency, RequestContext},
    limits,
};

/// Largest body of a request that is no upload.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The header that carries the correlation id in both directions.
pub const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Why a change is made, in the caller's words: goes into the audit chain.
pub const REASON_HEADER: HeaderName = HeaderName::from_static("x-change-reason");

/// Under this key a POST is done once.
pub const IDEMPOTENCY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

const REASON_CHARS_MAX: usize = 500;
const KEY_CHARS_MAX: usize = 200;

/// Gives every request a correlation id: the caller's, if it is a plain word, else a new one.
pub async fn correlate(request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(CORRELATION_HEADER)
        .and_then(|value| value.to_str().ok());
    let is_word = |text: &&str| {
        (1..=64).contains(&text.len())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let id = given
        .filter(is_word)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let mut context = RequestContext::internal(id.clone());
    context.request = format!("{} {}", request.method(), request.uri().path());
    let mut response = context::scope(context, next.run(request)).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(CORRELATION_HEADER, value);
    }
    response
}

/// Adds what the caller says of the request: the reason of the change and the idempotency key. The body is read
/// ahead for the key, and must keep its pace for everybody.
pub async fn prepare(State(app): State<App>, request: Request, next: Next) -> Result<Response> {
    let mut context = context::current();
    let why = text_header(&request, &REASON_HEADER, REASON_CHARS_MAX);
    let key = text_header(&request, &IDEMPOTENCY_HEADER, KEY_CHARS_MAX);
    context.flaw = why.as_ref().err().or(key.as_ref().err()).map(ToString::to_string);
    context.why = why.unwrap_or_default();
    let key = key.unwrap_or_default();
    let mut request = request.map(|body| limits::patient(body, app.config.http.body_timeout));
    if let Some(key) = key.filter(|_| request.method() == Method::POST) {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, BODY_BYTES_MAX)
            .await
            .map_err(|error| unreadable(StatusCode::PAYLOAD_TOO_LARGE, "length limit exceeded", &error))?;
        context.idempotency = Some(Idempotency {
            key,
            request_sha256: fingerprint(&parts, &body),
        });
        request = Request::from_parts(parts, body.into());
    }
    Ok(context::scope(context, next.run(request)).await)
}

fn fingerprint(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(parts.uri.to_string());
    hash.update([0]);
    hash.update(body);
    hash.finalize().into()
}

/// A request that cannot be read as it is; one that came too slowly says so.
fn unreadable(
    status: StatusCode,
    detail: impl Into<String>,
    error: &(dyn std::error::Error + 'static),
) -> Error {
    if limits::TooSlow::is_cause_of(error) {
        return Error::Unreadable {
            status: StatusCode::REQUEST_TIMEOUT,
            detail: limits::TooSlow.to_string(),
        };
    }
    Error::Unreadable {
        status,
        detail: detail.into(),
    }
}

fn text_header(request: &Request, name: &HeaderName, chars_max: usize) -> Result<Option<String>> {
    let Some(value) = request.headers().get(name) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default().trim();
    if (1..=chars_max).contains(&text.chars().count()) && !text.contains(char::is_control) {
        Ok(Some(text.to_owned()))
    } else {
        Err(Error::Invalid(format!(
            "`{name}` must be text of 1 to {chars_max} characters"
        )))
    }
}

/// The version a change is based on, from `If-Match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfMatch(pub i32);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let given = parts
            .headers
            .get(header::IF_MATCH)
            .ok_or(Error::PreconditionRequired)?;
        let version = given.to_str().ok().and_then(|text| {
            let tag = text.trim().trim_start_matches("W/");
            tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
        });
        version.map(Self).ok_or(Error::PreconditionRequired)
    }
}

// === extractors ===

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    axum::Json<T>: FromRequest<S, Rejection = JsonRejection>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(refusal) => Err(unreadable(refusal.status(), refusal.body_text(), &refusal)),
        }
    }
}

impl<S, T> OptionalFromRequest<S> for Json<T>
where
    S: Send + Sync,
    axum::Json<T>: OptionalFromRequest<S, Rejection = JsonRejection>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>> {
        match <axum::Json<T> as OptionalFromRequest<S>>::from_request(request, state).await {
            Ok(body) => Ok(body.map(|axum::Json(body)| Self(body))),
            Err(refusal) => Err(Error::Unreadable {
                status: refusal.status(),
                detail: refusal.body_text(),
            }),
        }
    }
}

/// The variable parts of a path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    axum::extract::Path<T>: FromRequestParts<S, Rejection = PathRejection>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(refusal) => Err(Error::Unreadable {
                status: refusal.status(),
                detail: refusal.body_text(),
            }),
        }
    }
}

/// The query string. Its type denies unknown fields, so that a misspelt filter is not silently ignored.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
    axum::extract::Query<T>: FromRequestParts<S, Rejection = QueryRejection>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(refusal) => Err(Error::Unreadable {
                status: refusal.status(),
                detail: refusal.body_text(),
            }),
        }
    }
}

// === lists ===

const ROWS_DEFAULT: i64 = 100;
const ROWS_MAX: i64 = 200;

/// How many rows a list gives at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows(i64);

impl Rows {
    /// Checks the query's `limit`; 100 when there is none.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside 1 to 200.
    pub fn parse(limit: Option<i64>) -> Result<Self> {
        match limit.unwrap_or(ROWS_DEFAULT) {
            rows @ 1..=ROWS_MAX => Ok(Self(rows)),
            _ => Err(Error::Invalid(format!("`limit` must be 1 to {ROWS_MAX}"))),
        }
    }

    /// What to fetch: one more than is shown, which tells whether there is a next page.
    pub fn fetched(self) -> i64 {
        self.0 + 1
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Pass as `cursor` for the next page; null on the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Cuts the surplus row off; the cursor is the key of the last row shown.
    pub fn of(mut items: Vec<T>, rows: Rows, key: impl Fn(&T) -> String) -> Self {
        let shown = usize::try_from(rows.0).unwrap_or(usize::MAX);
        let has_more = items.len() > shown;
        items.truncate(shown);
        let next = if has_more { items.last().map(key) } else { None };
        Self { items, next }
    }
}

/// The parameters of a list that is not filtered.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// `next` of the page before.
    pub cursor: Option<Uuid>,
    /// Rows per page, 1 to 200.
    pub limit: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_last_row_only_when_more_follow() {
        let rows = Rows::parse(Some(2)).unwrap();
        let page = Page::of(vec![1, 2, 3], rows, i32::to_string);
        assert_eq!((page.items, page.next.as_deref()), (vec![1, 2], Some("2")));
        let page = Page::of(vec![1, 2], rows, i32::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], None));
    }

    #[test]
    fn an_impossible_limit_is_refused() {
        for limit in [0, -1, 201] {
            assert!(Rows::parse(Some(limit)).is_err(), "{limit}");
        }
    }
}
