//! How is one message sent? One POST, no redirects, and whatever comes of it as an attempt for the log.

use std::{error::Error as _, time::Duration};

use reqwest::{
    Client, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    schedule::Outcome,
    sign::signatures,
    target::{self, Guard},
};
use crate::{config::Webhooks, kernel::clock::Clock};

/// The beginning of an answer that is kept.
const RESPONSE_CHARS_MAX: usize = 500;
const RESPONSE_BYTES_MAX: usize = 4 * RESPONSE_CHARS_MAX;

/// A message that is due.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) delivery_id: Uuid,
    pub(super) webhook_id: Uuid,
    pub(super) url: String,
    pub(super) message_id: String,
    pub(super) correlation_id: String,
    pub(super) body: String,
    pub(super) is_replayed: bool,
    pub(super) is_test: bool,
    /// Number of this attempt.
    pub(super) attempt: i32,
    /// Attempts of this round that failed before.
    pub(super) failures: i32,
    /// What it is signed with, or why it cannot be.
    pub(super) keys: Result<Vec<Vec<u8>>, String>,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) at_us: i64,
    pub(super) duration_ms: i32,
    pub(super) status: Option<i32>,
    pub(super) error: Option<String>,
    pub(super) response: Option<String>,
    pub(super) outcome: Outcome,
}

/// Sends messages.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    client: Client,
    allow_private: bool,
    clock: Clock,
}

/// What an attempt came to, before it has its time.
struct Answer {
    status: Option<StatusCode>,
    error: Option<String>,
    response: Option<String>,
    retry_after: Option<Duration>,
}

impl Answer {
    fn none(error: String) -> Self {
        Self {
            status: None,
            error: Some(error),
            response: None,
            retry_after: None,
        }
    }
}

impl Sender {
    /// # Errors
    /// When no TLS can be set up.
    pub(super) fn new(config: &Webhooks, clock: Clock) -> reqwest::Result<Self> {
        // An error says that one is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let builder = || {
            Client::builder()
                .redirect(Policy::none())
                .no_proxy()
                .timeout(config.timeout)
                .user_agent(concat!("FoodFlow-Webhooks/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Guard {
                    allow_private: config.allow_private,
                })
        };
        // A machine without any trusted certificate can still call itself.
        let client = builder().build().or_else(|error| {
            tracing::warn!(%error, "no trusted certificates: webhooks over TLS will fail");
            builder().tls_certs_only([]).build()
        })?;
        Ok(Self {
            client,
            allow_private: config.allow_private,
            clock,
        })
    }

    /// Sends it once.
    pub(super) async fn send(&self, parcel: &Parcel) -> Attempt {
        let (at_us, started) = (self.clock.now_us(), Instant::now());
        let answer = match &parcel.keys {
            Ok(keys) => self.post(parcel, keys, at_us / 1_000_000).await,
            Err(fault) => Answer::none(fault.clone()),
        };
        Attempt {
            at_us,
            duration_ms: i32::try_from(started.elapsed().as_millis()).unwrap_or(i32::MAX),
            outcome: outcome(&answer),
            status: answer.status.map(|status| i32::from(status.as_u16())),
            error: answer.error,
            response: answer.response,
        }
    }

    async fn post(&self, parcel: &Parcel, keys: &[Vec<u8>], at_s: i64) -> Answer {
        let allowed = Url::parse(&parcel.url)
            .map_err(|error| error.to_string())
            .and_then(|url| target::may_connect(&url, self.allow_private).map(|()| url));
        let url = match allowed {
            Ok(url) => url,
            Err(fault) => return Answer::none(fault),
        };
        let request = self
            .client
            .post(url)
            .headers(headers(parcel, keys, at_s))
            .body(parcel.body.clone());
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => Answer::none(explain(error)),
        }
    }
}

fn headers(parcel: &Parcel, keys: &[Vec<u8>], at_s: i64) -> HeaderMap {
    let signature = signatures(keys, &parcel.message_id, at_s, &parcel.body);
    let mut fields = vec![
        ("content-type", "application/json".to_owned()),
        ("webhook-id", parcel.message_id.clone()),
        ("webhook-timestamp", at_s.to_string()),
        ("webhook-signature", signature),
        ("webhook-attempt", parcel.attempt.to_string()),
        ("x-request-id", parcel.correlation_id.clone()),
    ];
    if parcel.is_replayed {
        fields.push(("webhook-replayed", "true".to_owned()));
    }
    let fields = fields.into_iter().filter_map(|(name, value)| {
        Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
    });
    fields.collect()
}

fn outcome(answer: &Answer) -> Outcome {
    match answer.status {
        Some(status) if status.is_success() => Outcome::Taken,
        Some(StatusCode::GONE) => Outcome::Gone,
        _ => Outcome::Failed {
            retry_after: answer.retry_after,
        },
    }
}

async fn read(mut response: reqwest::Response) -> Answer {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut bytes = Vec::new();
    // The status has been given: an answer that ends early changes nothing about it.
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= RESPONSE_BYTES_MAX {
            break;
        }
    }
    Answer {
        status: Some(status),
        error: fault(status),
        response: Some(beginning(&bytes)),
        retry_after: retry_after.map(Duration::from_secs),
    }
}

fn fault(status: StatusCode) -> Option<String> {
    if status.is_success() {
        None
    } else if status.is_redirection() {
        Some(format!("answered {status}: redirects are not followed"))
    } else {
        Some(format!("answered {status}"))
    }
}

/// Text for people: no control characters, which the database could not hold either.
fn beginning(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(RESPONSE_CHARS_MAX).collect()
}

/// The innermost reason, without the address: it may carry a token.
fn explain(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let what = if error.is_connect() {
        "cannot connect"
    } else {
        "cannot send"
    };
    let error = error.without_url();
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    let reason = cause.map_or_else(|| error.to_string(), ToString::to_string);
    format!("{what}: {}", beginning(reason.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_an_answer_is_short_and_plain() {
        assert_eq!(beginning(b"a\0b\nc\xff"), "a b c\u{FFFD}");
        assert_eq!(beginning("ü".repeat(900).as_bytes()).chars().count(), 500);
    }
}
