//! How does a password change? By whoever knows the present one, or reads the account's mail. Every other session of
//! the account ends with it, and the owner is told.

use std::sync::Arc;

use axum::{Extension, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::json;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    attempts::{Attempts, Door},
    login::begin,
    mail::{self, Letter, Recipient},
    one_time::{self, NOT_GOOD, OneTimeToken, Owner, Purpose},
    pace::Pace,
    registration::{Accepted, AcceptedAnswer, MailRequest, accepted, address},
    session::{self, Ending},
    source::Source,
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::{Actor, Deed},
        caller::{Caller, Principal},
        event::NewEvent,
        reply::Reply,
        secret::Secret,
        tenancy::{TenantSlug, TenantTx},
    },
    request::Json,
};

/// Purposes whose token sets a password.
const SETS_PASSWORD: &[Purpose] = &[Purpose::ResetPassword, Purpose::Invitation];

// === by whoever knows it ===

/// The present password and the next.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The present one.
    #[schema(value_type = String)]
    current_password: Secret,
    /// At least 10 characters.
    #[schema(value_type = String, min_length = 10, max_length = 1024)]
    new_password: Secret,
}

#[derive(FromRow)]
struct Present {
    email: String,
    password_hash: Option<String>,
}

/// Changes the caller's own password; their other sessions end.
#[utoipa::path(post, path = "/auth/password-change", operation_id = "change_password", tag = TAG,
    request_body = PasswordChange, responses((status = 204, description = "Changed")))]
pub async fn change_password(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    caller: Caller,
    Json(given): Json<PasswordChange>,
) -> Result<Reply> {
    let (mut tx, _) = caller.begin_signed_in(&app).await?;
    let Principal::User { id, session } = caller.principal else {
        return Err(Error::Conflict("only a person has a password".to_owned()));
    };
    let present: Present = sqlx::query_as("SELECT email, password_hash FROM app_user WHERE id = $1")
        .bind(id)
        .fetch_one(tx.conn())
        .await?;
    drop(tx);
    let Some(stored) = present.password_hash else {
        return Err(Error::Conflict(
            "this account signs in at its identity provider and has no password here".to_owned(),
        ));
    };
    attempts.login(caller.tenant.as_str(), &present.email, app.clock.now_us())?;
    let is_right = attempts
        .hashing
        .verify(given.current_password, Some(stored.clone()))
        .await?;
    if !is_right {
        return refuse(&app, &caller, id).await;
    }
    let hash = attempts.hashing.hash(given.new_password, &present.email).await?;
    let (mut tx, _) = caller.begin_signed_in(&app).await?;
    let changed = sqlx::query("UPDATE app_user SET password_hash = $2 WHERE id = $1 AND password_hash = $3")
        .bind(id)
        .bind(hash)
        .bind(stored)
        .execute(tx.conn())
        .await?;
    if changed.rows_affected() == 0 {
        return Err(Error::Stale {
            entity: "the password",
        });
    }
    tx.audit(&Deed::on("change_password", "app_user", id));
    follow_up(&mut tx, &app, id, &present.email, session).await?;
    let reply = tx.finish_empty().await?;
    app.mail.ring(&caller.tenant);
    Ok(reply)
}

async fn refuse(app: &App, caller: &Caller, id: Uuid) -> Result<Reply> {
    let (mut tx, _) = caller.begin_signed_in(app).await?;
    let deed = Deed::on("denied", "app_user", id).after(json!({ "because": "password" }));
    tx.audit(&deed);
    tx.commit().await?;
    Err(Error::Invalid("the current password is wrong".to_owned()))
}

/// What follows from every new password: other sessions and tokens of mails are out, and the owner is told.
async fn follow_up(
    tx: &mut TenantTx,
    app: &App,
    user_id: Uuid,
    email: &str,
    except: Option<Uuid>,
) -> Result<()> {
    tx.event(&NewEvent::new("PasswordChanged", "app_user", user_id, json!({})));
    one_time::void(tx, user_id, Purpose::ResetPassword).await?;
    one_time::void(tx, user_id, Purpose::Invitation).await?;
    session::end_all(tx, user_id, except, Ending::Password).await?;
    mail::queue(tx, app, Recipient { user_id, email }, Letter::PasswordChanged).await
}

// === by whoever reads the account's mail ===

const ASKED: &str = "If this address has an account, a mail with the next step is on its way.";

/// Sends a mail with a token that sets a new password; it is good once, for 30 minutes.
#[utoipa::path(post, path = "/auth/password-reset/initiate", operation_id = "initiate_password_reset", tag = TAG,
    request_body = MailRequest,
    responses((status = 202, description = "The same, whatever was done", body = Accepted)))]
pub async fn initiate_reset(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    Json(given): Json<MailRequest>,
) -> Result<AcceptedAnswer> {
    let (pace, now_us) = (Pace::start(), app.clock.now_us());
    attempts.enter(Door::Mail, source, now_us)?;
    let email = address(&given.email)?;
    attempts.mail(&given.tenant, email.as_str(), now_us)?;
    if let Ok(tenant) = TenantSlug::parse(&given.tenant)
        && let Some(mut tx) = begin(&app, &tenant, Actor::Nobody).await?
    {
        // Who signs in elsewhere, or was invited and has not answered, has no password to forget.
        let account: Option<Uuid> = sqlx::query_scalar(
            "SELECT id FROM app_user WHERE email = $1 AND is_active AND password_hash IS NOT NULL",
        )
        .bind(email.as_str())
        .fetch_optional(tx.conn())
        .await?;
        if let Some(user_id) = account {
            let token = one_time::issue(&mut tx, user_id, Purpose::ResetPassword).await?;
            let to = Recipient {
                user_id,
                email: email.as_str(),
            };
            mail::queue(&mut tx, &app, to, Letter::ResetPassword(&token)).await?;
            tx.audit(&Deed::on("initiate_password_reset", "app_user", user_id));
            tx.commit().await?;
            app.mail.ring(&tenant);
        }
    }
    pace.even().await;
    Ok(accepted(ASKED))
}

/// Another name of `initiate_password_reset`.
#[utoipa::path(post, path = "/auth/forgot-password", operation_id = "forgot_password", tag = TAG,
    request_body = MailRequest,
    responses((status = 202, description = "The same, whatever was done", body = Accepted)))]
pub async fn forgot_password(
    app: State<App>,
    attempts: Extension<Arc<Attempts>>,
    source: Source,
    given: Json<MailRequest>,
) -> Result<AcceptedAnswer> {
    initiate_reset(app, attempts, source, given).await
}

/// A token of a mail, and the password it sets.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordReset {
    /// As the mail says it, or as two administrators got it.
    #[schema(value_type = String)]
    token: Secret,
    /// Tenant slug, where the client knows it; the token names it anyway.
    #[serde(default)]
    tenant: Option<String>,
    /// At least 10 characters.
    #[schema(value_type = String, min_length = 10, max_length = 1024)]
    new_password: Secret,
}

/// Sets a password with the token of a reset or an invitation. Every session ends; the address counts as verified.
#[utoipa::path(post, path = "/auth/password-reset/confirm", operation_id = "confirm_password_reset", tag = TAG,
    request_body = PasswordReset, responses((status = 204, description = "Set: sign in")))]
pub async fn confirm_reset(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    Json(given): Json<PasswordReset>,
) -> Result<StatusCode> {
    attempts.enter(Door::Token, source, app.clock.now_us())?;
    let token = OneTimeToken::read(&given.token, given.tenant.as_deref())?;
    let mut tx = begin(&app, &token.tenant, Actor::Nobody).await?.ok_or(NOT_GOOD)?;
    let owner = one_time::look(&mut tx, &token, SETS_PASSWORD).await?;
    drop(tx);
    // A password that is refused leaves the token good for the next try.
    let owner = owner.ok_or(NOT_GOOD)?;
    let hash = attempts.hashing.hash(given.new_password, &owner.email).await?;
    let mut tx = begin(&app, &token.tenant, Actor::Nobody).await?.ok_or(NOT_GOOD)?;
    let owner = one_time::take(&mut tx, &token, SETS_PASSWORD)
        .await?
        .ok_or(NOT_GOOD)?;
    let mut tx = tx.by(Actor::User {
        id: owner.user_id,
        name: owner.display_name.clone(),
    });
    set(&mut tx, &app, &owner, &hash).await?;
    tx.commit().await?;
    app.mail.ring(&token.tenant);
    Ok(StatusCode::NO_CONTENT)
}

async fn set(tx: &mut TenantTx, app: &App, owner: &Owner, hash: &str) -> Result<()> {
    sqlx::query(
        "UPDATE app_user SET password_hash = $2, email_verified_at = coalesce(email_verified_at, $3), \
           version = version + 1 WHERE id = $1",
    )
    .bind(owner.user_id)
    .bind(hash)
    .bind(tx.at())
    .execute(tx.conn())
    .await?;
    let action = match owner.purpose {
        Purpose::Invitation => "accept_invitation",
        _ => "reset_password",
    };
    tx.audit(&Deed::on(action, "app_user", owner.user_id));
    follow_up(tx, app, owner.user_id, &owner.email, None).await
}

/// Another name of `confirm_password_reset`.
#[utoipa::path(post, path = "/auth/reset-password", operation_id = "reset_password", tag = TAG,
    request_body = PasswordReset, responses((status = 204, description = "Set: sign in")))]
pub async fn reset_password(
    app: State<App>,
    attempts: Extension<Arc<Attempts>>,
    source: Source,
    given: Json<PasswordReset>,
) -> Result<StatusCode> {
    confirm_reset(app, attempts, source, given).await
}
