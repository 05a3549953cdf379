//! How does a person sign in, and what do they see of themselves? A wrong tenant, address and password are told
//! apart neither by words nor by time.

use std::sync::{Arc, LazyLock};

use axum::{Extension, Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{TAG, attempts::Attempts};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::{Caller, Principal},
        password,
        role::Role,
        secret::Secret,
        tenancy::{TenancyError, TenantSlug},
        token::Claims,
    },
    request::Json,
};

/// Verified against when there is no such account, so that the answer takes as long.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| password::hash("an account that does not exist").unwrap_or_default());

/// Computes what is verified for nobody, which would betray the first unknown account by its time.
pub fn warm_up() {
    LazyLock::force(&NOBODY);
}

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
}

/// A fresh bearer token.
#[derive(Serialize, ToSchema)]
#[expect(
    missing_debug_implementations,
    reason = "it carries a token, which must not reach a log"
)]
pub struct Session {
    /// Send as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// How long the token is good for.
    expires_in_s: u64,
}

#[derive(FromRow)]
struct Account {
    id: Uuid,
    password_hash: String,
    role: String,
    is_active: bool,
}

/// Exchanges a password for a bearer token.
#[utoipa::path(post, path = "/auth/login", operation_id = "login", tag = TAG,
    request_body = Credentials, responses((status = 200, description = "Signed in", body = Session)))]
pub async fn login(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    Json(given): Json<Credentials>,
) -> Result<Answer<Session>> {
    let email = given.email.trim().to_lowercase();
    attempts.admit(&given.tenant, &email, app.clock.now_us())?;
    let account = find(&app, &given.tenant, &email).await?;
    let stored = account.as_ref().map(|(_, account)| account.password_hash.clone());
    let is_right = verify(&attempts, given.password, stored).await?;
    match account {
        Some((tenant, account)) if is_right && account.is_active => {
            issue(&app, &tenant, &account).map(Answer)
        }
        _ => Err(WRONG),
    }
}

async fn find(app: &App, tenant: &str, email: &str) -> Result<Option<(TenantSlug, Account)>> {
    let Ok(tenant) = TenantSlug::parse(tenant) else {
        return Ok(None);
    };
    let mut tx = match app.db.begin(&tenant).await {
        Ok(tx) => tx,
        Err(TenancyError::UnknownTenant) => return Ok(None),
        Err(source) => return Err(source.into()),
    };
    let account = sqlx::query_as(
        "SELECT u.id, coalesce(u.password_hash, '') AS password_hash, u.is_active, \
           coalesce((SELECT r.name FROM user_role g JOIN role r ON r.id = g.role_id \
              WHERE g.user_id = u.id AND r.is_builtin ORDER BY r.name LIMIT 1), 'auditor') AS role \
         FROM app_user u WHERE u.email = $1",
    )
    .bind(email)
    .fetch_optional(tx.conn())
    .await?;
    Ok(account.map(|account| (tenant, account)))
}

async fn verify(attempts: &Attempts, given: Secret, stored: Option<String>) -> Result<bool> {
    let closed = |source: tokio::sync::AcquireError| Error::Internal(source.into());
    let _turn = attempts.hashing.acquire().await.map_err(closed)?;
    let verified = spawn_blocking(move || {
        // For nobody the answer is known; only the time it takes matters.
        let is_right = password::verify(given.expose(), stored.as_ref().unwrap_or(&NOBODY));
        is_right && stored.is_some()
    });
    verified.await.map_err(|source| Error::Internal(source.into()))
}

fn issue(app: &App, tenant: &TenantSlug, account: &Account) -> Result<Session> {
    let role: Role = account
        .role
        .parse()
        .map_err(|source| Error::Internal(anyhow::Error::new(source)))?;
    let now_s = app.clock.now_us().div_euclid(1_000_000);
    let expires_in_s = app.config.auth.token_ttl.as_secs();
    let claims = Claims {
        sub: account.id,
        tenant: tenant.as_str().to_owned(),
        role,
        sid: None,
        iat: now_s,
        exp: now_s.saturating_add_unsigned(expires_in_s),
    };
    Ok(Session {
        access_token: app.signing_key.issue(&claims),
        token_type: "Bearer",
        expires_in_s,
    })
}

/// The caller, their tenant and plant, and what they may do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    user: MyUser,
    tenant: MyTenant,
    plant: MyPlant,
    /// Permissions, `resource.action`.
    can: Vec<&'static str>,
}

/// The caller's account.
#[derive(Debug, Serialize, ToSchema)]
pub struct MyUser {
    /// Nil for a token that the command line printed.
    id: Uuid,
    email: String,
    display_name: String,
    #[schema(value_type = String)]
    role: Role,
}

/// The caller's tenant.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub struct MyTenant {
    slug: String,
    name: String,
}

/// The caller's plant.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub struct MyPlant {
    code: String,
    name: String,
    /// IANA time zone in which people read times.
    zone: String,
}

/// Says who the caller is.
#[utoipa::path(get, path = "/auth/me", operation_id = "read_me", tag = TAG,
    responses((status = 200, description = "The caller", body = Me)))]
pub async fn me(State(app): State<App>, caller: Caller) -> Result<Answer<Me>> {
    let mut platform = app.db.platform().await?;
    let tenant: Option<MyTenant> = sqlx::query_as("SELECT slug, name FROM platform.tenant WHERE slug = $1")
        .bind(caller.tenant.as_str())
        .fetch_optional(platform.conn())
        .await?;
    drop(platform);
    let (mut tx, grants) = caller.begin_signed_in(&app).await?;
    let user_id = caller.user_id().unwrap_or_default();
    let email: Option<String> = sqlx::query_scalar("SELECT email FROM app_user WHERE id = $1")
        .bind(user_id)
        .fetch_optional(tx.conn())
        .await?;
    let plant: Option<MyPlant> = sqlx::query_as("SELECT code, name, zone FROM plant ORDER BY code LIMIT 1")
        .fetch_optional(tx.conn())
        .await?;
    let role = match caller.principal {
        Principal::Operator(role) => Some(role),
        _ => grants.grants.iter().find_map(|grant| grant.role.parse().ok()),
    };
    Ok(Answer(Me {
        user: MyUser {
            id: user_id,
            email: email.unwrap_or_default(),
            display_name: grants.name.clone(),
            role: role.unwrap_or(Role::Auditor),
        },
        tenant: tenant.ok_or(Error::NotFound { entity: "tenant" })?,
        plant: plant.ok_or(Error::NotFound { entity: "plant" })?,
        can: grants.permissions(),
    }))
}
