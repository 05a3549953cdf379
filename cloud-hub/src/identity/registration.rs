//! How does somebody without an account get one? By registering with an address whose domain the tenant admits, and
//! showing that they read its mail. Whatever is typed, the answer and its time are the same: nobody learns which
//! addresses or tenants there are.

use std::sync::Arc;

use axum::{Extension, Json as Answer, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    address::Address,
    attempts::{Attempts, Door},
    login::begin,
    mail::{self, Letter, Recipient},
    one_time::{self, NOT_GOOD, OneTimeToken, Purpose},
    pace::Pace,
    source::Source,
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::{Actor, Deed},
        event::NewEvent,
        secret::Secret,
        tenancy::{TenantSlug, TenantTx},
    },
    request::Json,
};

const NAME_CHARS_MAX: usize = 200;

/// The same words, whatever was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// What the caller may expect.
    detail: &'static str,
}

pub(super) type AcceptedAnswer = (StatusCode, Answer<Accepted>);

pub(super) const fn accepted(detail: &'static str) -> AcceptedAnswer {
    (StatusCode::ACCEPTED, Answer(Accepted { detail }))
}

// === who may register ===

/// Whom a tenant lets register, as its settings say.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
enum Registration {
    /// Nobody: accounts are made by invitation.
    #[default]
    Closed,
    /// Whoever has an address in one of these domains.
    Domains { domains: Vec<String> },
}

impl Registration {
    /// Settings that cannot be read admit nobody.
    fn read(setting: Option<&str>) -> Self {
        setting
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    fn admits(&self, address: &Address) -> bool {
        match self {
            Self::Closed => false,
            Self::Domains { domains } => domains
                .iter()
                .any(|domain| domain.trim().eq_ignore_ascii_case(address.domain())),
        }
    }
}

async fn registration(app: &App, tenant: &TenantSlug) -> Result<Registration> {
    let mut platform = app.db.platform().await?;
    let setting: Option<Option<String>> = sqlx::query_scalar(
        "SELECT (settings->'registration')::text FROM platform.tenant WHERE slug = $1 AND status = 'active'",
    )
    .bind(tenant.as_str())
    .fetch_optional(platform.conn())
    .await?;
    Ok(Registration::read(setting.flatten().as_deref()))
}

// === registering ===

/// Who wants an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRegistration {
    /// Tenant slug.
    tenant: String,
    /// E-mail address; case does not matter.
    email: String,
    /// Name for people, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    display_name: String,
    /// At least 10 characters.
    #[schema(value_type = String, min_length = 10, max_length = 1024)]
    password: Secret,
}

const REGISTERED: &str = "If this address may register, a mail with the next step is on its way.";

/// Registers, where the tenant admits the address: the account can sign in once the address is verified, and may do
/// nothing until somebody grants it a role.
#[utoipa::path(post, path = "/auth/register", operation_id = "register_user", tag = TAG,
    request_body = NewRegistration,
    responses((status = 202, description = "The same, whatever was done", body = Accepted)))]
pub async fn register(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    Json(given): Json<NewRegistration>,
) -> Result<AcceptedAnswer> {
    let (pace, now_us) = (Pace::start(), app.clock.now_us());
    attempts.enter(Door::Mail, source, now_us)?;
    let email = address(&given.email)?;
    let name = given.display_name.trim().to_owned();
    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) || name.contains(char::is_control) {
        return Err(Error::Invalid(format!(
            "`display_name` must have 1 to {NAME_CHARS_MAX} characters, none of them a control character"
        )));
    }
    attempts.mail(&given.tenant, email.as_str(), now_us)?;
    let password_hash = attempts.hashing.hash(given.password, email.as_str()).await?;
    if let Ok(tenant) = TenantSlug::parse(&given.tenant)
        && registration(&app, &tenant).await?.admits(&email)
    {
        admit(&app, &tenant, &email, &name, &password_hash).await?;
    }
    pace.even().await;
    Ok(accepted(REGISTERED))
}

pub(super) fn address(typed: &str) -> Result<Address> {
    Address::parse(typed).ok_or_else(|| {
        Error::Invalid("`email` must be an e-mail address: a name, an @ and a domain".to_owned())
    })
}

async fn admit(
    app: &App,
    tenant: &TenantSlug,
    email: &Address,
    name: &str,
    password_hash: &str,
) -> Result<()> {
    let Some(mut tx) = begin(app, tenant, Actor::Nobody).await? else {
        return Ok(());
    };
    // An account that nobody has verified and nobody has given anything is as good as none: the last to register
    // has it, so that a stranger who was first does not keep the address, or know its password.
    let made: Option<Uuid> = sqlx::query_scalar(
        "INSERT INTO app_user AS u (id, email, display_name, password_hash, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (email) DO UPDATE SET display_name = excluded.display_name, version = u.version + 1, \
           password_hash = excluded.password_hash \
         WHERE u.email_verified_at IS NULL AND u.password_hash IS NOT NULL AND u.is_active \
           AND NOT EXISTS (SELECT FROM user_role g WHERE g.user_id = u.id) \
         RETURNING id",
    )
    .bind(Uuid::now_v7())
    .bind(email.as_str())
    .bind(name)
    .bind(password_hash)
    .bind(tx.at())
    .fetch_optional(tx.conn())
    .await?;
    match made {
        Some(id) => {
            let facts = json!({ "email": email.as_str(), "display_name": name });
            tx.audit(&Deed::on("register", "app_user", id).after(facts));
            tx.event(&NewEvent::new("UserRegistered", "app_user", id, json!({})));
            send_verification(&mut tx, app, id, email).await?;
        }
        None => tell_owner(&mut tx, app, email).await?,
    }
    tx.commit().await?;
    app.mail.ring(tenant);
    Ok(())
}

/// Whoever has the account learns that somebody tried; the caller does not.
async fn tell_owner(tx: &mut TenantTx, app: &App, email: &Address) -> Result<()> {
    let owner: Option<(Uuid, bool)> = sqlx::query_as("SELECT id, is_active FROM app_user WHERE email = $1")
        .bind(email.as_str())
        .fetch_optional(tx.conn())
        .await?;
    let Some((user_id, is_active)) = owner else {
        return Ok(());
    };
    tx.audit(&Deed::on("register_again", "app_user", user_id));
    if is_active {
        let to = Recipient {
            user_id,
            email: email.as_str(),
        };
        mail::queue(tx, app, to, Letter::AccountExists).await?;
    }
    Ok(())
}

async fn send_verification(tx: &mut TenantTx, app: &App, user_id: Uuid, email: &Address) -> Result<()> {
    let token = one_time::issue(tx, user_id, Purpose::VerifyEmail).await?;
    let to = Recipient {
        user_id,
        email: email.as_str(),
    };
    mail::queue(tx, app, to, Letter::VerifyEmail(&token)).await
}

/// Invites the owner of an account to set its first password; an earlier invitation is no longer good. Ring the
/// bell of `app.mail` once the transaction is committed.
///
/// # Errors
/// What the database refuses.
pub async fn invite(tx: &mut TenantTx, app: &App, to: Recipient<'_>) -> Result<()> {
    let token = one_time::issue(tx, to.user_id, Purpose::Invitation).await?;
    mail::queue(tx, app, to, Letter::Invitation(&token)).await
}

// === verifying ===

/// The token of a mail.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MailToken {
    /// As the mail says it.
    #[schema(value_type = String)]
    token: Secret,
    /// Tenant slug, where the client knows it; the token names it anyway.
    #[serde(default)]
    tenant: Option<String>,
}

/// Verifies an address with the token of the mail; it is good once, for 24 hours.
#[utoipa::path(post, path = "/auth/verify-email", operation_id = "verify_email", tag = TAG,
    request_body = MailToken, responses((status = 204, description = "Verified: sign in")))]
pub async fn verify_email(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    Json(given): Json<MailToken>,
) -> Result<StatusCode> {
    attempts.enter(Door::Token, source, app.clock.now_us())?;
    let token = OneTimeToken::read(&given.token, given.tenant.as_deref())?;
    let mut tx = begin(&app, &token.tenant, Actor::Nobody).await?.ok_or(NOT_GOOD)?;
    let owner = one_time::take(&mut tx, &token, &[Purpose::VerifyEmail]).await?;
    let owner = owner.ok_or(NOT_GOOD)?;
    sqlx::query("UPDATE app_user SET email_verified_at = $2, version = version + 1 WHERE id = $1")
        .bind(owner.user_id)
        .bind(tx.at())
        .execute(tx.conn())
        .await?;
    let mut tx = tx.by(Actor::User {
        id: owner.user_id,
        name: owner.display_name,
    });
    tx.audit(&Deed::on("verify_email", "app_user", owner.user_id));
    tx.event(&NewEvent::new(
        "EmailVerified",
        "app_user",
        owner.user_id,
        json!({}),
    ));
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whose mail.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MailRequest {
    /// Tenant slug.
    pub(super) tenant: String,
    /// E-mail address; case does not matter.
    pub(super) email: String,
}

const RESENT: &str = "If this address waits to be verified, a mail is on its way.";

/// Sends the mail with the verification token again; the token before is no longer good.
#[utoipa::path(post, path = "/auth/verify-email/resend", operation_id = "resend_verification", tag = TAG,
    request_body = MailRequest,
    responses((status = 202, description = "The same, whatever was done", body = Accepted)))]
pub async fn resend_verification(
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
        let waiting: Option<Uuid> = sqlx::query_scalar(
            "SELECT id FROM app_user WHERE email = $1 AND is_active AND email_verified_at IS NULL \
               AND password_hash IS NOT NULL",
        )
        .bind(email.as_str())
        .fetch_optional(tx.conn())
        .await?;
        if let Some(user_id) = waiting {
            send_verification(&mut tx, &app, user_id, &email).await?;
            tx.audit(&Deed::on("resend_verification", "app_user", user_id));
            tx.commit().await?;
            app.mail.ring(&tenant);
        }
    }
    pace.even().await;
    Ok(accepted(RESENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_register_but_where_the_tenant_says_so_for_their_domain() {
        let address = Address::parse("jo@akron.example").unwrap();
        for setting in [
            None,
            Some("null"),
            Some("{}"),
            Some(r#"{"mode":"closed"}"#),
            Some(r#"{"mode":"open"}"#),
            Some(r#"{"mode":"domains"}"#),
            Some(r#"{"mode":"domains","domains":[]}"#),
            Some(r#"{"mode":"domains","domains":["example","x.akron.example","akron.example.com"]}"#),
            Some("nonsense"),
        ] {
            assert!(!Registration::read(setting).admits(&address), "{setting:?}");
        }
        let admitting = r#"{"mode":"domains","domains":["x.y"," Akron.Example "]}"#;
        assert!(Registration::read(Some(admitting)).admits(&address));
    }
}
