//! How does a person sign in, stay signed in and sign out? A wrong tenant, address and password, a suspended account
//! and one whose address is not verified are told apart neither by words nor by time.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    address::Address,
    attempts::{Attempts, Door},
    pace::Pace,
    session::{
        self, AuthFactor, Ending, NOT_GOOD, Opened, Presented, Refresh, RefreshToken, Session, Verdict,
    },
    source::Source,
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::{Actor, Deed},
        caller::{Caller, Principal, bearer},
        secret::Secret,
        tenancy::{TenancyError, TenantSlug, TenantTx},
    },
    request::Json,
};

const WRONG: Error = Error::Unauthenticated("tenant, e-mail or password is wrong");

/// What a person types.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Tenant slug.
    tenant: String,
    /// E-mail address; case does not matter.
    email: String,
    /// Password.
    #[schema(value_type = String)]
    password: Secret,
    /// Puts the refresh token into a cookie that no script can read, for browsers.
    #[serde(default)]
    cookie: bool,
}

#[derive(FromRow)]
struct Account {
    id: Uuid,
    display_name: String,
    password_hash: Option<String>,
    is_active: bool,
    email_verified_at: Option<DateTime<Utc>>,
}

impl Account {
    /// Why a person with the right password does not get in.
    fn obstacle(&self) -> Option<&'static str> {
        if !self.is_active {
            Some("suspended")
        } else if self.email_verified_at.is_none() {
            Some("unverified")
        } else {
            None
        }
    }
}

/// Exchanges a password for a session.
#[utoipa::path(post, path = "/auth/login", operation_id = "login", tag = TAG,
    request_body = Credentials, responses((status = 200, description = "Signed in", body = Session)))]
pub async fn login(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    Json(given): Json<Credentials>,
) -> Result<Opened> {
    let pace = Pace::start();
    let now_us = app.clock.now_us();
    attempts.enter(Door::Login, source, now_us)?;
    attempts.login(&given.tenant, &given.email.trim().to_lowercase(), now_us)?;
    let is_cookie = given.cookie;
    match sign_in(&app, &attempts, given).await {
        Ok(session) if is_cookie => Ok(session.in_cookie(&app)),
        Ok(session) => Ok(session.in_body()),
        Err(refusal) => {
            pace.even().await;
            Err(refusal)
        }
    }
}

async fn sign_in(app: &App, attempts: &Attempts, given: Credentials) -> Result<Session> {
    let (tenant, email) = (
        TenantSlug::parse(&given.tenant).ok(),
        Address::parse(&given.email),
    );
    let found = match (&tenant, &email) {
        (Some(tenant), Some(email)) => find(app, tenant, email).await?,
        _ => Found::NoTenant,
    };
    let account = match found {
        Found::Account(ref account) => Some(account),
        _ => None,
    };
    let stored = account.and_then(|account| account.password_hash.clone());
    let is_right = attempts.hashing.verify(given.password, stored.clone()).await?;
    let obstacle = match account {
        None => Some("unknown"),
        Some(_) if !is_right => Some("password"),
        Some(account) => account.obstacle(),
    };
    match (obstacle, found, tenant, email) {
        (None, Found::Account(account), Some(tenant), _) => enter(app, &tenant, account).await,
        (Some(because), Found::Account(_) | Found::Nobody, Some(tenant), Some(email)) => {
            note_refusal(app, attempts, &tenant, &email, because).await?;
            Err(WRONG)
        }
        _ => Err(WRONG),
    }
}

enum Found {
    Account(Account),
    Nobody,
    NoTenant,
}

async fn find(app: &App, tenant: &TenantSlug, email: &Address) -> Result<Found> {
    let Some(mut tx) = begin(app, tenant, Actor::Nobody).await? else {
        return Ok(Found::NoTenant);
    };
    let account: Option<Account> = sqlx::query_as(
        "SELECT id, display_name, password_hash, is_active, email_verified_at FROM app_user WHERE email = $1",
    )
    .bind(email.as_str())
    .fetch_optional(tx.conn())
    .await?;
    Ok(account.map_or(Found::Nobody, Found::Account))
}

/// A transaction of a tenant that exists and is not suspended.
pub(super) async fn begin(app: &App, tenant: &TenantSlug, actor: Actor) -> Result<Option<TenantTx>> {
    match app.db.begin_active(tenant, actor).await {
        Ok(tx) => Ok(Some(tx)),
        Err(TenancyError::UnknownTenant) => Ok(None),
        Err(source) => Err(source.into()),
    }
}

async fn enter(app: &App, tenant: &TenantSlug, account: Account) -> Result<Session> {
    let actor = Actor::User {
        id: account.id,
        name: account.display_name,
    };
    let Some(mut tx) = begin(app, tenant, actor).await? else {
        return Err(WRONG);
    };
    // The password may have been changed while this one was verified.
    let is_still: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM app_user WHERE id = $1 AND password_hash = $2 AND is_active FOR SHARE)",
    )
    .bind(account.id)
    .bind(account.password_hash)
    .fetch_one(tx.conn())
    .await?;
    if !is_still {
        return Err(WRONG);
    }
    let session = session::open(&mut tx, app, account.id, AuthFactor::Password).await?;
    tx.commit().await?;
    Ok(session)
}

/// A refusal is on record in the tenant's chain; never what was typed as the password.
async fn note_refusal(
    app: &App,
    attempts: &Attempts,
    tenant: &TenantSlug,
    email: &Address,
    because: &'static str,
) -> Result<()> {
    if !attempts.is_noted(tenant.as_str(), app.clock.now_us()) {
        return Ok(());
    }
    let Some(mut tx) = begin(app, tenant, Actor::Nobody).await? else {
        return Ok(());
    };
    let deed = Deed {
        action: "denied",
        entity: "session",
        after: Some(json!({ "email": email.as_str(), "because": because })),
        ..Deed::default()
    };
    tx.audit(&deed);
    Ok(tx.commit().await?)
}

/// Exchanges a refresh token, once, for the next pair. Used a second time, it ends its session.
#[utoipa::path(post, path = "/auth/refresh", operation_id = "refresh_session", tag = TAG,
    request_body = Option<Refresh>, responses((status = 200, description = "The next pair", body = Session)))]
pub async fn refresh(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    headers: HeaderMap,
    given: Option<Json<Refresh>>,
) -> Result<Opened> {
    attempts.enter(Door::Session, source, app.clock.now_us())?;
    let presented = session::presented(&headers, given.map(|given| given.0))?;
    let Some(Presented {
        token: Some(token),
        is_cookie,
    }) = presented
    else {
        return Err(NOT_GOOD);
    };
    let session = exchange(&app, &token).await?;
    Ok(if is_cookie {
        session.in_cookie(&app)
    } else {
        session.in_body()
    })
}

async fn exchange(app: &App, token: &RefreshToken) -> Result<Session> {
    let Some(mut tx) = begin(app, &token.tenant, Actor::Nobody).await? else {
        return Err(NOT_GOOD);
    };
    let Some(held) = session::hold(&mut tx, token).await? else {
        return Err(NOT_GOOD);
    };
    match held.judge(tx.at()) {
        Verdict::Rotate => {
            let mut tx = tx.by(Actor::User {
                id: held.user_id,
                name: held.display_name.clone(),
            });
            let session = session::rotate(&mut tx, app, token, &held).await?;
            tx.commit().await?;
            Ok(session)
        }
        Verdict::Reused => {
            session::end(&mut tx, held.session_id, held.user_id, Ending::Reuse).await?;
            tx.commit().await?;
            metrics::counter!("foodflow_identity_refresh_tokens_reused_total").increment(1);
            tracing::warn!(tenant = %token.tenant, session_id = %held.session_id,
                "a refresh token was used twice; its session has ended");
            Err(NOT_GOOD)
        }
        Verdict::Refused => Err(NOT_GOOD),
    }
}

/// Ends the session of the refresh token or of the bearer token; what has ended stays ended.
#[utoipa::path(post, path = "/auth/logout", operation_id = "logout", tag = TAG,
    request_body = Option<Refresh>, responses((status = 204, description = "Signed out")))]
pub async fn logout(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    headers: HeaderMap,
    given: Option<Json<Refresh>>,
) -> Result<Response> {
    attempts.enter(Door::Session, source, app.clock.now_us())?;
    let presented = session::presented(&headers, given.map(|given| given.0))?;
    let bearer = bearer(&headers);
    if presented.is_none() && bearer.is_none() {
        return Err(Error::Unauthenticated("a token says which session is to end"));
    }
    if let Some(token) = presented.and_then(|presented| presented.token) {
        end_by_token(&app, &token).await?;
    }
    let caller = bearer.and_then(|token| Caller::from_credential(token, &app).ok());
    if let Some(Caller {
        tenant,
        principal: Principal::User {
            id,
            session: Some(session),
        },
        ..
    }) = caller
    {
        end_own(&app, &tenant, session, id).await?;
    }
    Ok(session::signed_out(&app).into_response())
}

async fn end_by_token(app: &App, token: &RefreshToken) -> Result<()> {
    let Some(mut tx) = begin(app, &token.tenant, Actor::Nobody).await? else {
        return Ok(());
    };
    match session::hold(&mut tx, token).await? {
        Some(held) => {
            drop(tx);
            end_own(app, &token.tenant, held.session_id, held.user_id).await
        }
        None => Ok(()),
    }
}

async fn end_own(app: &App, tenant: &TenantSlug, session_id: Uuid, user_id: Uuid) -> Result<()> {
    let Some(mut tx) = begin(app, tenant, Actor::Nobody).await? else {
        return Ok(());
    };
    let name: Option<String> = sqlx::query_scalar("SELECT display_name FROM app_user WHERE id = $1")
        .bind(user_id)
        .fetch_optional(tx.conn())
        .await?;
    let mut tx = tx.by(Actor::User {
        id: user_id,
        name: name.unwrap_or_default(),
    });
    if session::end(&mut tx, session_id, user_id, Ending::Logout).await? {
        tx.commit().await?;
    }
    Ok(())
}
