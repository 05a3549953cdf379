//! What ties the browser that began a sign-in to the answer that comes back? A state that is good once, for ten
//! minutes, and only with the cookie of that browser; the hub keeps digests of both.

use axum::http::{HeaderMap, HeaderValue, header};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::client::Secrets;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Actor,
        secret::{self, Secret},
        tenancy::{TenantSlug, TenantTx},
    },
};

const COOKIE: &str = "foodflow_oidc";
const COOKIE_PATH: &str = "/api/v1/auth/oidc";
const LASTS: TimeDelta = TimeDelta::minutes(10);
const TOKEN_BYTES: usize = 32;
/// Sign-ins of one tenant under way at once; each is a row that anybody can cause.
const UNDER_WAY_MAX: i64 = 10_000;
const RETRY_AFTER_S: u64 = 60;
const PURPOSE: &str = "oidc_attempt.secrets";

/// Said of every state that cannot be used, whatever is wrong with it.
const NOT_GOOD: Error = Error::Unauthenticated(
    "this sign-in was not begun in this browser, took longer than ten minutes, or was answered before; begin again",
);

/// A sign-in whose answer came back.
pub(super) struct Answered {
    pub(super) tenant: TenantSlug,
    pub(super) provider_id: Uuid,
    pub(super) secrets: Secrets,
    pub(super) return_to: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    nonce: String,
    verifier: String,
    redirect_uri: String,
}

#[derive(FromRow)]
struct Row {
    provider_id: Uuid,
    secrets: Vec<u8>,
    return_to: String,
}

/// Fresh secrets for a sign-in that comes back to `redirect_uri`.
pub(super) fn fresh(redirect_uri: String) -> Secrets {
    Secrets {
        nonce: Secret::new(secret::random_text(TOKEN_BYTES)),
        verifier: Secret::new(secret::random_text(TOKEN_BYTES)),
        redirect_uri,
    }
}

/// A state that names its tenant, so that one look-up finds it.
pub(super) fn new_state(tenant: &TenantSlug) -> String {
    format!("{tenant}.{}", secret::random_text(TOKEN_BYTES))
}

/// Remembers a sign-in; gives the browser's half of it, as `Set-Cookie`.
///
/// # Errors
/// [`Error::TooManyAttempts`] when too many are under way.
pub(super) async fn begin(
    mut tx: TenantTx,
    app: &App,
    provider_id: Uuid,
    state: &str,
    secrets: &Secrets,
    return_to: &str,
) -> Result<HeaderValue> {
    let now = tx.at();
    sqlx::query("DELETE FROM oidc_attempt WHERE expires_at <= $1")
        .bind(now)
        .execute(tx.conn())
        .await?;
    let browser = secret::random_text(TOKEN_BYTES);
    let sealed = Sealed {
        nonce: secrets.nonce.expose().to_owned(),
        verifier: secrets.verifier.expose().to_owned(),
        redirect_uri: secrets.redirect_uri.clone(),
    };
    let sealed = serde_json::to_vec(&sealed).map_err(|source| Error::Internal(source.into()))?;
    let begun = sqlx::query(
        "INSERT INTO oidc_attempt (state_sha256, browser_sha256, provider_id, secrets, return_to, expires_at) \
         SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT count(*) FROM oidc_attempt) < $7",
    )
    .bind(&secret::digest(state)[..])
    .bind(&secret::digest(&browser)[..])
    .bind(provider_id)
    .bind(app.sealing_key.seal(PURPOSE, &sealed))
    .bind(return_to)
    .bind(now + LASTS)
    .bind(UNDER_WAY_MAX)
    .execute(tx.conn())
    .await?;
    if begun.rows_affected() == 0 {
        return Err(Error::TooManyAttempts {
            retry_after_s: RETRY_AFTER_S,
        });
    }
    tx.commit_unaudited("a sign-in under way is no record; what comes of it is audited")
        .await?;
    Ok(cookie(app, &browser, LASTS.num_seconds()))
}

/// Takes the sign-in that a state names out of what is under way.
///
/// # Errors
/// [`Error::Unauthenticated`] when it is unknown, too old, used, or another browser's.
pub(super) async fn answer(app: &App, state: &str, headers: &HeaderMap) -> Result<Answered> {
    let (tenant, _) = state.split_once('.').ok_or(NOT_GOOD)?;
    let tenant = TenantSlug::parse(tenant).map_err(|_| NOT_GOOD)?;
    let browser = cookie_of(headers).ok_or(NOT_GOOD)?;
    let mut tx = super::enter(app, &tenant, Actor::Nobody).await?.ok_or(NOT_GOOD)?;
    let row: Option<Row> = sqlx::query_as(
        "DELETE FROM oidc_attempt WHERE state_sha256 = $1 AND browser_sha256 = $2 AND expires_at > $3 \
         RETURNING provider_id, secrets, return_to",
    )
    .bind(&secret::digest(state)[..])
    .bind(&secret::digest(browser)[..])
    .bind(tx.at())
    .fetch_optional(tx.conn())
    .await?;
    let row = row.ok_or(NOT_GOOD)?;
    tx.commit_unaudited("a sign-in under way is no record; what comes of it is audited")
        .await?;
    let opened = app.sealing_key.open(PURPOSE, &row.secrets);
    let opened = opened.map_err(|source| Error::Internal(source.into()))?;
    let sealed: Sealed = serde_json::from_slice(&opened).map_err(|source| Error::Internal(source.into()))?;
    Ok(Answered {
        tenant,
        provider_id: row.provider_id,
        secrets: Secrets {
            nonce: Secret::new(sealed.nonce),
            verifier: Secret::new(sealed.verifier),
            redirect_uri: sealed.redirect_uri,
        },
        return_to: row.return_to,
    })
}

/// The browser forgets its half.
pub(super) fn forget(app: &App) -> HeaderValue {
    cookie(app, "", 0)
}

/// Sent along when the provider leads the browser back here, so it cannot be `Strict`.
fn cookie(app: &App, value: &str, max_age_s: i64) -> HeaderValue {
    let secure = if app.config.http.is_https() {
        "; Secure"
    } else {
        ""
    };
    let text =
        format!("{COOKIE}={value}; Path={COOKIE_PATH}; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).expect("a token is of letters and digits")
}

fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}
