//! How does a deed end? Its answer, its audit entries and its events become durable together; the answer carries
//! the record's version as `ETag`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{idempotency, tenancy::TenantTx};
use crate::error::{Error, Result};

/// The answer to a deed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// The record's version, quoted.
    pub etag: Option<String>,
    /// JSON; empty for 204.
    pub body: String,
    /// Whether it was given before (`Idempotency-Replayed: true`).
    pub is_replayed: bool,
}

impl Reply {
    /// An answer with a JSON body. A field `version` becomes the `ETag`.
    ///
    /// # Errors
    /// [`Error::Internal`] for what cannot be JSON.
    pub fn json(status: StatusCode, record: &impl Serialize) -> Result<Self> {
        let value = serde_json::to_value(record).map_err(|source| Error::Internal(source.into()))?;
        let etag = value.get("version").and_then(serde_json::Value::as_i64);
        Ok(Self {
            status,
            etag: etag.map(|version| format!("\"{version}\"")),
            body: value.to_string(),
            is_replayed: false,
        })
    }

    /// An answer without a body.
    pub const fn empty() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            etag: None,
            body: String::new(),
            is_replayed: false,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::NO_CONTENT {
            headers.remove(header::CONTENT_TYPE);
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(etag) = self.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
            headers.insert(header::ETAG, etag);
        }
        if self.is_replayed {
            headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

impl TenantTx {
    /// Commits and answers with `record`; the way a handler ends a deed.
    ///
    /// # Errors
    /// As [`TenantTx::commit`].
    pub async fn finish(self, status: StatusCode, record: &impl Serialize) -> Result<Reply> {
        self.conclude(Reply::json(status, record)?, false).await
    }

    /// Commits and answers with something that is shown once and never stored.
    ///
    /// # Errors
    /// As [`TenantTx::commit`].
    pub async fn finish_secret(self, status: StatusCode, record: &impl Serialize) -> Result<Reply> {
        self.conclude(Reply::json(status, record)?, true).await
    }

    /// Commits and answers 204.
    ///
    /// # Errors
    /// As [`TenantTx::commit`].
    pub async fn finish_empty(self) -> Result<Reply> {
        self.conclude(Reply::empty(), false).await
    }

    async fn conclude(mut self, reply: Reply, is_secret: bool) -> Result<Reply> {
        idempotency::store(&mut self, &reply, is_secret).await?;
        self.commit().await?;
        Ok(reply)
    }
}
