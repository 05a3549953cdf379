//! What may a client do on a broker that is not ours? EMQX asks over HTTP (its HTTP authentication and authorisation),
//! and so does Mosquitto with mosquitto-go-auth in its JSON mode; both get the rules of our own front end. The broker
//! shows that it is the one that may ask.

use std::sync::Arc;

use axum::{
    Extension, Form, Json, Router,
    extract::{FromRequest, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    app::App,
    broker::{Authenticate, Device, may_outside},
    kernel::{caller::bearer, secret},
};

/// The user name of the hub itself on such a broker; its password is the secret.
pub const HUB_USER: &str = "foodflow-hub";

/// Who answers, and what a broker must show.
#[derive(Clone)]
pub struct Rules {
    devices: Arc<dyn Authenticate>,
    secret_sha256: Option<[u8; 32]>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rules")
    }
}

impl Rules {
    /// The rules for devices that `devices` knows; without a secret nobody may ask.
    pub fn new(devices: Arc<dyn Authenticate>, secret: Option<&str>) -> Self {
        Self {
            devices,
            secret_sha256: secret.map(secret::digest),
        }
    }

    fn is_ours(&self, secret: &str) -> bool {
        // Digests: what they take to compare tells nothing of the secret.
        self.secret_sha256
            .is_some_and(|known| known == secret::digest(secret))
    }
}

/// `/mqtt/auth` and `/mqtt/acl`, for brokers.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/mqtt/auth", post(authenticate))
        .route("/mqtt/acl", post(authorize))
}

/// Who wants in.
#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// What somebody wants to do.
#[derive(Debug, Deserialize)]
struct Deed {
    #[serde(default)]
    username: String,
    topic: String,
    /// EMQX: `publish` or `subscribe`.
    action: Option<String>,
    /// mosquitto-go-auth: 1 read, 2 write, 3 both, 4 subscribe.
    acc: Option<i32>,
}

/// A body as JSON or as a form, as brokers send it.
struct Given<T>(T);

impl<T: serde::de::DeserializeOwned> FromRequest<App> for Given<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/json"));
        if is_json {
            let read = Json::<T>::from_request(request, app).await;
            read.map(|Json(body)| Self(body))
                .map_err(IntoResponse::into_response)
        } else {
            let read = Form::<T>::from_request(request, app).await;
            read.map(|Form(body)| Self(body))
                .map_err(IntoResponse::into_response)
        }
    }
}

/// In the words of both: EMQX reads `result`, mosquitto-go-auth `ok`.
fn say(may: bool, is_superuser: bool) -> Response {
    let result = if may { "allow" } else { "deny" };
    let error = if may { "" } else { "not for this client" };
    Json(json!({ "result": result, "is_superuser": is_superuser, "ok": may, "error": error })).into_response()
}

fn stranger(rules: &Rules, headers: &axum::http::HeaderMap) -> Option<Response> {
    if rules.secret_sha256.is_none() {
        return Some(StatusCode::NOT_FOUND.into_response());
    }
    let is_ours = bearer(headers).is_some_and(|shown| rules.is_ours(shown));
    (!is_ours).then(|| (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response())
}

async fn authenticate(
    State(_): State<App>,
    Extension(rules): Extension<Rules>,
    headers: axum::http::HeaderMap,
    Given(login): Given<Login>,
) -> Response {
    if let Some(refusal) = stranger(&rules, &headers) {
        return refusal;
    }
    if login.username == HUB_USER {
        return say(rules.is_ours(&login.password), rules.is_ours(&login.password));
    }
    let found = rules
        .devices
        .authenticate(login.username, login.password.into_bytes())
        .await;
    say(found.is_some_and(|device| device.is_addressable()), false)
}

async fn authorize(
    State(_): State<App>,
    Extension(rules): Extension<Rules>,
    headers: axum::http::HeaderMap,
    Given(deed): Given<Deed>,
) -> Response {
    if let Some(refusal) = stranger(&rules, &headers) {
        return refusal;
    }
    say(
        deed.username == HUB_USER || deed.is_allowed(),
        deed.username == HUB_USER,
    )
}

impl Deed {
    fn is_allowed(&self) -> bool {
        let Some((tenant, name)) = self.username.split_once('/') else {
            return false;
        };
        let device = Device {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
        };
        let (publishes, subscribes) = match (self.action.as_deref(), self.acc) {
            (Some("publish"), _) | (None, Some(2)) => (true, false),
            (Some("subscribe"), _) | (None, Some(1 | 4)) => (false, true),
            (None, Some(3)) => (true, true),
            _ => return false,
        };
        device.is_addressable()
            && (!publishes || may_outside(&device, &self.topic, true))
            && (!subscribes || may_outside(&device, &self.topic, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(username: &str, topic: &str, action: &str) -> bool {
        let (username, topic, action) = (username.to_owned(), topic.to_owned(), Some(action.to_owned()));
        Deed {
            username,
            topic,
            action,
            acc: None,
        }
        .is_allowed()
    }

    #[test]
    fn on_a_shared_broker_a_device_keeps_to_its_own_edge_and_its_own_tenant() {
        for topic in [
            "ff/v1/akron/e1/up/live",
            "ff/v1/akron/e1/status",
            "akron/v1/plant/l1/oven/t",
            "akron/spBv1.0/g/NBIRTH/n",
        ] {
            assert!(may("akron/e1", topic, "publish"), "{topic}");
        }
        for topic in [
            "ff/v1/akron/e2/up/live",
            "v1/plant/l1/oven/t",
            "cuyahoga/v1/x/y",
            "akron",
            "akron/",
            "akron/+/x",
            "$SYS/x",
            "#",
        ] {
            assert!(!may("akron/e1", topic, "publish"), "{topic}");
        }
        for topic in ["ff/v1/akron/e1/ack", "akron/v1/err/e1", "akron/spBv1.0/g/NCMD/n"] {
            assert!(may("akron/e1", topic, "subscribe"), "{topic}");
        }
        for topic in [
            "#",
            "ff/#",
            "akron/#",
            "akron/v1/err/e2",
            "v1/err/e1",
            "cuyahoga/v1/err/e1",
            "ff/v1/akron/e1/up/live",
        ] {
            assert!(!may("akron/e1", topic, "subscribe"), "{topic}");
        }
        for user in ["", "akron", "akron/e1/x", "/e1", "akron/"] {
            assert!(!may(user, "ff/v1/akron/e1/up/live", "publish"), "{user}");
        }
        assert!(!may("akron/e1", "ff/v1/akron/e1/up/live", "dance"));
    }
}
