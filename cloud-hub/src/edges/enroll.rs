//! How does a new edge join? It exchanges a one-time code for its MQTT identity.

use std::sync::Arc;

use axum::{Extension, Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::TAG;
use crate::{
    app::App,
    error::Result,
    identity::{
        attempts::{Attempts, Door},
        source::Source,
    },
    kernel::secret::Secret,
    request::Json,
    tenant::enrolment::redeem,
};

/// A one-time code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// As it was shown when it was made.
    #[schema(value_type = String)]
    code: Secret,
}

/// What an edge needs to connect. It is shown once: the hub keeps only a digest of the password.
#[derive(Serialize, ToSchema)]
#[expect(
    missing_debug_implementations,
    reason = "it carries a password, which must not reach a log"
)]
pub struct EdgeIdentity {
    tenant: String,
    edge: String,
    mqtt_username: String,
    mqtt_password: String,
}

/// Exchanges a one-time code for an MQTT identity.
#[utoipa::path(post, path = "/edges/enroll", operation_id = "enroll_edge", tag = TAG,
    request_body = EnrollRequest, responses((status = 200, description = "Enrolled", body = EdgeIdentity)))]
pub async fn enroll_edge(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    Json(given): Json<EnrollRequest>,
) -> Result<Answer<EdgeIdentity>> {
    // A code has 120 random bits; the limit only keeps one wrong script from asking for ever.
    attempts.enter(Door::Token, source, app.clock.now_us())?;
    let identity = redeem(&app.db, given.code.expose(), app.clock.now()).await?;
    Ok(Answer(EdgeIdentity {
        tenant: identity.tenant,
        edge: identity.edge,
        mqtt_username: identity.mqtt_username,
        mqtt_password: identity.mqtt_password.expose().to_owned(),
    }))
}
