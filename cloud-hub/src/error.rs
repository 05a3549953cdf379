//! What does a caller learn when a request fails? One error type, mapped once to an RFC 9457 problem document
//! with the request's correlation id. Internal causes are logged here and never shown.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sqlx::{error::DatabaseError, postgres::PgDatabaseError};
use utoipa::ToSchema;

use crate::kernel::{context::correlation_id, reply::Reply, tenancy::TenancyError};

/// The result of a handler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed; each variant has one HTTP status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such row, or it belongs to another tenant.
    #[error("{entity} not found")]
    NotFound {
        /// What was sought.
        entity: &'static str,
    },
    /// The request says something impossible.
    #[error("{0}")]
    Invalid(String),
    /// The deed does not fit the present state.
    #[error("{0}")]
    Conflict(String),
    /// No token, or one that is not good (any more).
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The caller's role lacks this permission.
    #[error("your role does not include `{permission}`")]
    Forbidden {
        /// `resource.action`.
        permission: &'static str,
    },
    /// The caller may do this, but not on this line.
    #[error("your role does not reach this line")]
    OutOfScope,
    /// The tenant is suspended.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The record changed since the caller read it.
    #[error("{entity} was changed by someone else; read it again")]
    Stale {
        /// What was contested.
        entity: &'static str,
    },
    /// A change must name the version it is based on.
    #[error("`If-Match` must carry the record's version, as its `ETag` gave it")]
    PreconditionRequired,
    /// The idempotency key was used for another request.
    #[error("this `Idempotency-Key` was used for another request; use a new one")]
    KeyReused,
    /// This very request was answered before: its answer, which is no error to the caller.
    #[error("answered before")]
    Replayed(Box<Reply>),
    /// Too many attempts from this caller.
    #[error("too many attempts; try again in {retry_after_s} s")]
    TooManyAttempts {
        /// Sent as `Retry-After`.
        retry_after_s: u64,
    },
    /// axum could not read the request: malformed JSON, wrong media type, too large.
    #[error("{detail}")]
    Unreadable {
        /// What axum decided.
        status: StatusCode,
        /// What is wrong, in words.
        detail: String,
    },
    /// As much as the hub does at once is under way.
    #[error("{what}; try again in {retry_after_s} s")]
    Busy {
        /// What is under way.
        what: &'static str,
        /// Sent as `Retry-After`.
        retry_after_s: u64,
    },
    /// Something the hub needs is away; the same request may succeed later.
    #[error("a service the hub depends on is not available")]
    Unavailable(#[source] anyhow::Error),
    /// Anything else: our fault.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

/// An RFC 9457 problem document (`application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Stable URI of this kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// Names this request in the hub's log.
    pub correlation_id: String,
}

impl From<TenancyError> for Error {
    fn from(source: TenancyError) -> Self {
        match source {
            TenancyError::UnknownTenant => Self::NotFound { entity: "tenant" },
            TenancyError::Unavailable(_) | TenancyError::NotMigrated(_) => Self::Unavailable(source.into()),
            TenancyError::BadValue(_) => {
                tracing::info!(cause = cause(&source), "a value was refused");
                Self::Invalid("the request holds a value that cannot be stored".to_owned())
            }
            TenancyError::Database(sqlx::Error::Database(ref refusal)) => {
                refused(refusal.as_ref()).unwrap_or_else(|| Self::Internal(source.into()))
            }
            TenancyError::Database(_) | TenancyError::Unaudited => Self::Internal(source.into()),
        }
    }
}

/// What a constraint of the database says to a caller. A constraint whose name is a sentence speaks for itself.
fn refused(refusal: &(dyn DatabaseError + 'static)) -> Option<Error> {
    let said = refusal.try_downcast_ref::<PgDatabaseError>()?;
    let constraint = said.constraint().unwrap_or_default();
    let table = said.table().unwrap_or("record");
    Some(match said.code() {
        "23505" => Error::Conflict(match keys(said) {
            Some(keys) => format!("there is a {table} with the same {keys} already"),
            None => format!("there is a {table} with the same key already ({constraint})"),
        }),
        "23P01" => Error::Conflict(format!("it overlaps another {table} ({constraint})")),
        "23503" if said.message().starts_with("update or delete") => {
            Error::Conflict(format!("other records refer to this one ({constraint})"))
        }
        "23503" => Error::Invalid(match keys(said) {
            Some(keys) => format!("{keys} refers to something that does not exist"),
            None => format!("it refers to something that does not exist ({constraint})"),
        }),
        "23502" => Error::Invalid(format!("`{}` is needed", said.column().unwrap_or("a field"))),
        "23514" if constraint.contains(' ') => Error::Invalid(constraint.to_owned()),
        "23514" => Error::Invalid(format!("a value is out of bounds ({constraint})")),
        "42501" if said.message().contains("row-level security") => Error::OutOfScope,
        _ => return None,
    })
}

/// The columns of a key that was refused, as PostgreSQL's detail names them before their values:
/// `Key (code)=(A) already exists.` The values are left out.
fn keys(said: &PgDatabaseError) -> Option<String> {
    // Where row policies stand, PostgreSQL shows no detail: the constraint's name still names a single column.
    let Some(detail) = said.detail() else {
        let column = said
            .constraint()?
            .strip_prefix(said.table()?)?
            .strip_prefix('_')?;
        return Some(format!("`{}`", column.strip_suffix("_key")?));
    };
    let (columns, _) = detail.strip_prefix("Key (")?.split_once(")=(")?;
    let named = columns.split(", ").map(|column| format!("`{column}`"));
    Some(named.collect::<Vec<_>>().join(" and "))
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        TenancyError::from(source).into()
    }
}

impl Error {
    /// The HTTP status of this error.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::OutOfScope | Self::TenantSuspended => StatusCode::FORBIDDEN,
            Self::Stale { .. } => StatusCode::PRECONDITION_FAILED,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Replayed(reply) => reply.status,
            Self::TooManyAttempts { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unreadable { status, .. } => *status,
            Self::Busy { .. } | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not-found",
            Self::Invalid(_) => "invalid",
            Self::Conflict(_) => "conflict",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Forbidden { .. } => "forbidden",
            Self::OutOfScope => "out-of-scope",
            Self::TenantSuspended => "tenant-suspended",
            Self::Stale { .. } => "stale",
            Self::PreconditionRequired => "precondition-required",
            Self::KeyReused => "idempotency-key-reused",
            Self::Replayed(_) => "replayed",
            Self::TooManyAttempts { .. } => "too-many-attempts",
            Self::Unreadable { .. } => "unreadable",
            Self::Busy { .. } => "busy",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// What went wrong, without what the caller sent: a refusal's words may quote it.
    fn log(&self, correlation_id: &str) {
        let kind = self.kind();
        match self {
            Self::Internal(source) => {
                tracing::error!(
                    correlation_id,
                    kind,
                    cause = cause(source.as_ref()),
                    "request failed"
                );
            }
            Self::Unavailable(source) => {
                tracing::warn!(
                    correlation_id,
                    kind,
                    cause = cause(source.as_ref()),
                    "request failed"
                );
            }
            _ => tracing::debug!(correlation_id, kind, "request refused"),
        }
    }
}

/// The causes of an error, for the log. What PostgreSQL says of values, and serde of input, quotes them: of those
/// only their kind and place are told.
pub fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(one) = next {
        next = one.source();
        let said = if let Some(sqlx::Error::Database(refusal)) = one.downcast_ref() {
            refusal_without_values(refusal.as_ref())
        } else if let Some(refusal) = one.downcast_ref::<PgDatabaseError>() {
            refusal_without_values(refusal)
        } else if let Some(error) = one.downcast_ref::<serde_json::Error>() {
            format!(
                "{:?} error in JSON at line {} column {}",
                error.classify(),
                error.line(),
                error.column()
            )
        } else {
            one.to_string()
        };
        if told.last() != Some(&said) {
            told.push(said);
        }
    }
    told.join(": ")
}

/// Classes 22 (bad value) and 23 (constraint) quote values; the others name tables, roles and functions.
fn refusal_without_values(refusal: &(dyn DatabaseError + 'static)) -> String {
    let state = refusal.code().unwrap_or_default();
    let table = refusal.table().unwrap_or("-");
    let constraint = refusal.constraint().unwrap_or("-");
    if state.starts_with("22") || state.starts_with("23") {
        format!("SQLSTATE {state} (table {table}, constraint {constraint})")
    } else {
        format!("SQLSTATE {state}: {}", refusal.message())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Self::Replayed(reply) = self {
            return reply.into_response();
        }
        let correlation_id = correlation_id();
        self.log(&correlation_id);
        let status = self.status();
        let problem = Problem {
            kind: format!("urn:foodflow:problem:{}", self.kind()),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
            correlation_id,
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self {
            Self::Unauthenticated(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooManyAttempts { retry_after_s } | Self::Busy { retry_after_s, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn an_internal_cause_is_never_shown() {
        let response = Error::Internal(anyhow::anyhow!("password is hunter2")).into_response();
        assert_eq!(response.status(), 500);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["detail"], "internal error");
        assert_eq!(problem["type"], "urn:foodflow:problem:internal");
    }

    #[tokio::test]
    async fn too_many_attempts_say_when_to_come_back() {
        let response = Error::TooManyAttempts { retry_after_s: 17 }.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "17");
    }
}
