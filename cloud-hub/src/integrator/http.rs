//! How does a message get in without a broker? The same dialects, the same store, the same errors, one request a
//! message; it is answered once the message is stored.

use axum::{
    Extension, Json as Answer,
    body::{Body, to_bytes},
    extract::State,
    http::StatusCode,
};
use protocol::integrator::{Dialect, PAYLOAD_BYTES_MAX};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

use super::{
    TAG,
    accept::{Asked, Intake},
};
use crate::{
    app::App,
    broker::{Device, OpenMessage},
    error::{Error, Result},
    kernel::{
        caller::{Caller, Principal},
        permission::Permission,
    },
    limits::TooSlow,
    request::{Path, Query},
    tenant::enrolment::HTTP_CALLER,
};

/// Where the message would have been published.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MessageParams {
    /// The topic that the dialect expects: it names device and value where the message does not. `v1/devices/me/telemetry`
    /// when absent.
    #[param(max_length = 512)]
    topic: Option<String>,
}

/// What became of a message's values.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct MessageCounts {
    /// Stored now.
    stored: u64,
    /// Stored before: the same tag, time and value.
    duplicate: u64,
    /// Another version of a reading, which holds from now on.
    revised: u64,
    /// Another version of a reading, kept beside the newer one that holds.
    superseded: u64,
    /// Held until somebody adopts their tags.
    held: u64,
    /// Of tags that were dismissed.
    dismissed: u64,
    /// Not taken; `refused` says why.
    refused: u64,
}

/// What the hub made of a message.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MessageAnswer {
    /// The topic as it was taken.
    topic: String,
    /// The dialect as it was taken.
    dialect: String,
    /// How many of its values went where.
    counts: MessageCounts,
    /// Its values, the first fifty, each as it was understood: device, name, value, time, quality, what became of it.
    #[schema(value_type = Vec<Object>)]
    readings: Vec<serde_json::Value>,
    /// Values beyond those fifty.
    more: u64,
    /// What was not taken, each with its code, place and remedy.
    #[schema(value_type = Vec<Object>)]
    refused: Vec<serde_json::Value>,
}

fn dialect(name: &str) -> Result<Option<Dialect>> {
    if name == "auto" {
        return Ok(None);
    }
    let found = Dialect::ALL.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, dialect)| Some(*dialect))
        .ok_or(Error::NotFound { entity: "dialect" })
}

/// Whose values these are: a caller's own client, which no device can be: none is enrolled under such a name.
fn client(caller: &Caller) -> String {
    match &caller.principal {
        Principal::ApiKey(key) => format!("{HTTP_CALLER}{}", key.id().simple()),
        Principal::User { id, .. } => format!("{HTTP_CALLER}{}", id.simple()),
        Principal::Operator(role) => format!("{HTTP_CALLER}{role}"),
    }
}

async fn received(body: Body) -> Result<bytes::Bytes> {
    to_bytes(body, PAYLOAD_BYTES_MAX).await.map_err(|error| {
        let (status, detail) = if TooSlow::is_cause_of(&error) {
            (StatusCode::REQUEST_TIMEOUT, TooSlow.to_string())
        } else {
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("E104: a message may have {PAYLOAD_BYTES_MAX} bytes; send fewer values at once"),
            )
        };
        Error::Unreadable { status, detail }
    })
}

/// Takes a message as a device would publish it: `native`, `thingsboard`, `umh`, `sitewise`, `azure`, `opcua_pubsub`,
/// `neuron`, `thin_edge`, `home_assistant`, `tasmota`, `influx`, `insights_hub`, or `auto` to tell it by topic and shape.
/// A message of which nothing can be taken is answered 422, with code, place and remedy.
#[utoipa::path(post, path = "/ingest/{dialect}", operation_id = "ingest_message", tag = TAG, security(("bearer" = ["reading.write"])),
    params(("dialect" = String, Path, description = "How the message is written"), MessageParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "Stored, as far as it could be taken", body = MessageAnswer)))]
pub async fn ingest_message(
    State(app): State<App>,
    Extension(intake): Extension<Intake>,
    caller: Caller,
    Path(name): Path<String>,
    Query(params): Query<MessageParams>,
    body: Body,
) -> Result<Answer<MessageAnswer>> {
    caller.authorize(&app, Permission::ReadingWrite).await?;
    let dialect = dialect(&name)?;
    let topic = params
        .topic
        .unwrap_or_else(|| "v1/devices/me/telemetry".to_owned());
    if topic.len() > 512 || topic.contains('\0') {
        return Err(Error::Invalid(
            "`topic` has at most 512 bytes and no zero character".to_owned(),
        ));
    }
    let (answer, answered) = oneshot::channel();
    let message = OpenMessage {
        device: Device {
            tenant: caller.tenant.as_str().to_owned(),
            name: client(&caller),
        },
        topic,
        payload: received(body).await?,
        is_retained: false,
        settled: oneshot::channel().0,
    };
    let away = || Error::Unavailable(anyhow::anyhow!("the intake of messages is away"));
    intake
        .0
        .send(Asked {
            message,
            dialect,
            answer,
        })
        .await
        .map_err(|_| away())?;
    let said = answered.await.map_err(|_| away())?;
    let answer: MessageAnswer =
        serde_json::from_value(said).map_err(|source| Error::Internal(source.into()))?;
    let MessageCounts {
        stored,
        duplicate,
        revised,
        superseded,
        held,
        dismissed,
        refused,
    } = answer.counts;
    if refused > 0 && stored + duplicate + revised + superseded + held + dismissed == 0 {
        let first = answer.refused.first().cloned().unwrap_or_default();
        let text = |field: &str| first[field].as_str().unwrap_or_default().to_owned();
        let place = first["offset"]
            .as_u64()
            .map_or_else(String::new, |at| format!(" (at byte {at})"));
        let detail = format!(
            "{} {}: {}{place}: `{}`",
            text("number"),
            text("code"),
            text("hint"),
            text("sample")
        );
        return Err(Error::Unreadable {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail,
        });
    }
    Ok(Answer(answer))
}
