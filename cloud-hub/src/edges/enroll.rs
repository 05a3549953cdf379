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
    tenant::enrolment::redeem_with,
};

/// A one-time code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// As it was shown when it was made.
    #[schema(value_type = String)]
    code: Secret,
    /// A request (PKCS #10, PEM) for a certificate of the edge's own key. Its name and uses are the hub's words.
    csr_pem: Option<String>,
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
    /// The certificate that was asked for, leaf first; it takes the place of the password over TLS.
    certificate_pem: Option<String>,
    /// The authority that signed it.
    device_ca_pem: Option<String>,
    /// The authority of the hub's own MQTT certificate, where the hub is told it.
    mqtt_ca_pem: Option<String>,
}

/// What an edge needs to know the hub by, when an operator has put it down. An edge is not kept out for want of it.
fn mqtt_ca(app: &App) -> Option<String> {
    let file = app.config.mqtt.ca_file.as_ref()?;
    match std::fs::read_to_string(file) {
        Ok(pem) => Some(pem),
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "`mqtt.ca_file` cannot be read; edges are not told it");
            None
        }
    }
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
    let asked = given.csr_pem.as_deref();
    let asked = asked.map(|csr_pem| (&app.device_authority, csr_pem));
    let identity = redeem_with(&app.db, given.code.expose(), app.clock.now(), asked).await?;
    let device_ca_pem = identity
        .certificate
        .as_ref()
        .map(|_| app.device_authority.certificate_pem().to_owned());
    Ok(Answer(EdgeIdentity {
        tenant: identity.tenant,
        edge: identity.edge,
        mqtt_username: identity.mqtt_username,
        mqtt_password: identity.mqtt_password.expose().to_owned(),
        certificate_pem: identity.certificate.map(|issued| issued.chain_pem),
        device_ca_pem,
        mqtt_ca_pem: mqtt_ca(&app),
    }))
}
