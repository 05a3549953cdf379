//! How is a request read? Extractors whose refusals are problem documents, the parameters of a list, and the
//! correlation id that a request carries through the log.

use axum::{
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{HeaderName, HeaderValue, request::Parts},
    middleware::Next,
    response::Response,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};

/// The header that carries the correlation id in both directions.
pub const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CORRELATION_ID: String;
}

/// The id of the request being served, or `-` outside of one.
pub fn correlation_id() -> String {
    CORRELATION_ID
        .try_with(Clone::clone)
        .unwrap_or_else(|_| "-".to_owned())
}

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
    let mut response = CORRELATION_ID.scope(id.clone(), next.run(request)).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(CORRELATION_HEADER, value);
    }
    response
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
