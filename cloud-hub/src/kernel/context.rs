//! What travels with a request through every layer: its correlation id, the reason the caller gave, and the key
//! under which it may be repeated. Outside of a request there is a fresh correlation id for each task.

use uuid::Uuid;

use super::tenancy::TenantSlug;

/// Facts of the request being served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// Names the request in logs, audit entries, events and notifications.
    pub correlation_id: String,
    /// Method and path without the query: `POST /api/v1/fsq/suppliers`.
    pub request: String,
    /// Why the caller does it (`X-Change-Reason`).
    pub why: Option<String>,
    /// `Idempotency-Key` and the SHA-256 of the request it was sent with.
    pub idempotency: Option<Idempotency>,
    /// What is wrong with the reason or the key; told to callers who are signed in, and to nobody before.
    pub flaw: Option<String>,
}

/// The key under which a POST may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's own word for this deed.
    pub key: String,
    /// SHA-256 of method, path, query and body.
    pub request_sha256: [u8; 32],
}

impl RequestContext {
    /// Of a deed that no request asked for: an edge's record, a duty, a command.
    pub fn internal(correlation_id: impl Into<String>) -> Self {
        Self {
            correlation_id: correlation_id.into(),
            request: String::new(),
            why: None,
            idempotency: None,
            flaw: None,
        }
    }
}

tokio::task_local! {
    static CONTEXT: RequestContext;
}

/// Runs `work` as part of a request or duty.
pub async fn scope<T>(context: RequestContext, work: impl Future<Output = T>) -> T {
    CONTEXT.scope(context, work).await
}

/// The request being served; a new internal one outside of any.
pub fn current() -> RequestContext {
    CONTEXT
        .try_with(Clone::clone)
        .unwrap_or_else(|_| RequestContext::internal(Uuid::now_v7().to_string()))
}

/// The id of the request being served, or `-` outside of one.
pub fn correlation_id() -> String {
    CONTEXT
        .try_with(|context| context.correlation_id.clone())
        .unwrap_or_else(|_| "-".to_owned())
}

/// Names the tenant of the request being served in its log lines, once it is known to exist.
pub(super) fn name_tenant(tenant: &TenantSlug) {
    tracing::Span::current().record("tenant.id", tenant.as_str());
}
