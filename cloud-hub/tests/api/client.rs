//! A caller of the API: a role's token and what came back.

use cloud_hub::kernel::{
    role::Role,
    tenancy::TenantSlug,
    token::{PLATFORM_AUDIENCE, PlatformClaims},
};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::TestHub;

/// Calls one hub with one token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    base: String,
    pub(crate) token: Option<String>,
    http: reqwest::Client,
}

/// What the hub answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// A plain HTTP client. reqwest wants a TLS provider even where nothing speaks TLS.
pub(crate) fn http_client() -> reqwest::Client {
    // An error says that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::new()
}

impl Caller {
    pub(crate) fn anonymous(hub: &TestHub) -> Self {
        Self {
            base: hub.url("/api/v1"),
            token: None,
            http: http_client(),
        }
    }

    pub(crate) async fn with_role(hub: &TestHub, role: Role) -> Self {
        Self {
            token: Some(hub.token(role).await),
            ..Self::anonymous(hub)
        }
    }

    /// An operator of the platform.
    pub(crate) fn operator(hub: &TestHub) -> Self {
        let now_s = hub.hub.app.clock.now().timestamp();
        let token = hub.hub.app.signing_key.issue_platform(&PlatformClaims {
            aud: PLATFORM_AUDIENCE.to_owned(),
            sub: "ops".to_owned(),
            iat: now_s,
            exp: now_s + 900,
        });
        Self::anonymous(hub).with_token(token)
    }

    pub(crate) async fn of_tenant(hub: &TestHub, tenant: &TenantSlug, role: Role) -> Self {
        Self {
            token: Some(hub.token_in(tenant, role).await),
            ..Self::anonymous(hub)
        }
    }

    /// A change of the record at `version`.
    pub(crate) async fn change(
        &self,
        method: Method,
        path: &str,
        version: i32,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self
            .request(method, path)
            .header("if-match", format!("\"{version}\""));
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request).await
    }

    pub(crate) fn with_token(&self, token: String) -> Self {
        Self {
            token: Some(token),
            ..self.clone()
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    /// The items of a list that must be there.
    pub(crate) async fn items(&self, path: &str) -> Vec<Value> {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body["items"].as_array().unwrap().clone()
    }
}

impl Answer {
    /// Sends a request and reads the answer.
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let content_type = response
            .headers()
            .get("content-type")
            .map(|it| it.to_str().unwrap().to_owned());
        let status = response.status();
        let text = response.text().await.unwrap();
        Answer {
            status,
            content_type: content_type.unwrap_or_default(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        }
    }

    /// Checks that this is a problem document of that status, and gives its detail.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], status);
        assert!(
            self.body["type"]
                .as_str()
                .unwrap()
                .starts_with("urn:foodflow:problem:")
        );
        assert!(!self.body["correlation_id"].as_str().unwrap().is_empty());
        self.body["detail"].as_str().unwrap().to_owned()
    }

    /// The body of a success.
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.body
    }
}
