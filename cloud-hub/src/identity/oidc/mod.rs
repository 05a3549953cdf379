//! How does a person sign in with their plant's own account? The browser is sent to the provider and comes back with
//! a code (authorization code flow with PKCE, state and nonce); the hub verifies what the provider says and opens a
//! session of its own. See docs/decisions/0012-identity-providers.md.

mod account;
mod attempt;
mod client;
mod http;

use std::sync::Arc;

use axum::{
    Extension, Json as Answer,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub(super) use self::client::ProviderError;
pub use self::client::Providers;
use self::client::{Person, Registration, Secrets};
use super::{
    TAG,
    attempts::{Attempts, Door},
    provider::{self, Stored},
    session::{self, AuthFactor, Opened, Session},
    source::Source,
};
use crate::{
    app::App,
    error::{Error, Problem, Result},
    kernel::{
        audit::Actor,
        secret::Secret,
        tenancy::{TenancyError, TenantSlug, TenantTx},
    },
    request::{Json, Path, Query},
};

const CALLBACK: &str = "/api/v1/auth/oidc/callback";
const RETURN_CHARS_MAX: usize = 500;
const CODE_CHARS_MAX: usize = 4000;
const NO_PROVIDER: Error = Error::NotFound {
    entity: "identity provider",
};

/// The providers of a tenant's sign-in page.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignInProviders {
    items: Vec<SignInProvider>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignInProvider {
    name: String,
    display_name: String,
    /// Where the browser begins; add `return_to`.
    start_url: String,
}

/// Lists where people of a tenant may sign in; nothing for a tenant that does not exist.
#[utoipa::path(get, path = "/auth/oidc/{tenant}/providers", operation_id = "list_sign_in_providers", tag = TAG,
    params(("tenant" = String, Path, description = "Tenant slug")),
    responses((status = 200, description = "Active providers", body = SignInProviders)))]
pub async fn list(State(app): State<App>, Path(tenant): Path<String>) -> Result<Answer<SignInProviders>> {
    let mut items = Vec::new();
    if let Ok(tenant) = TenantSlug::parse(&tenant)
        && let Some(mut tx) = enter(&app, &tenant, Actor::Nobody).await?
    {
        for row in provider::active(&mut tx).await? {
            items.push(SignInProvider {
                start_url: format!("/api/v1/auth/oidc/{tenant}/{}/start", row.name),
                name: row.name,
                display_name: row.display_name,
            });
        }
    }
    Ok(Answer(SignInProviders { items }))
}

/// Where the browser goes afterwards.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReturnQuery {
    /// A path of the dashboard; `/` when absent.
    return_to: Option<String>,
}

impl ReturnQuery {
    /// A path on the hub itself: what a browser could read as another origin is refused.
    fn path(self) -> Result<String> {
        let path = self.return_to.unwrap_or_else(|| "/".to_owned());
        let is_safe = |c: char| c.is_ascii_graphic() && c != '\\';
        if path.starts_with('/')
            && !path.starts_with("//")
            && path.len() <= RETURN_CHARS_MAX
            && path.chars().all(is_safe)
        {
            Ok(path)
        } else {
            Err(Error::Invalid(
                "`return_to` must be a path of the dashboard".to_owned(),
            ))
        }
    }
}

/// Sends the browser to a provider.
#[utoipa::path(get, path = "/auth/oidc/{tenant}/{provider}/start", operation_id = "start_oidc", tag = TAG,
    params(("tenant" = String, Path, description = "Tenant slug"), ("provider" = String, Path), ReturnQuery),
    responses((status = 302, description = "To the provider"),
        (status = 404, description = "No such provider", body = Problem, content_type = "application/problem+json")))]
pub async fn start(
    State(app): State<App>,
    Extension(providers): Extension<Arc<Providers>>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    headers: HeaderMap,
    Path((tenant, name)): Path<(String, String)>,
    Query(query): Query<ReturnQuery>,
) -> Result<Response> {
    attempts.enter(Door::Login, source, app.clock.now_us())?;
    let return_to = query.path()?;
    let (tenant, at) = find(&app, &tenant, &name).await?;
    let secrets = attempt::fresh(redirect_uri(&app, &headers)?);
    let state = attempt::new_state(&tenant);
    let registration = registration(&app, &at)?;
    let url = providers
        .authorization_url(&registration, &state, &secrets)
        .await?;
    let tx = enter(&app, &tenant, Actor::Nobody).await?.ok_or(NO_PROVIDER)?;
    let cookie = attempt::begin(tx, &app, at.id, &state, &secrets, &return_to).await?;
    redirect(StatusCode::FOUND, url.as_str(), vec![cookie])
}

/// What a provider says when it sends the browser back; it may add words of its own.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(missing_debug_implementations, reason = "a code must not reach a log")]
pub struct CallbackQuery {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// Takes the browser back from a provider, opens a session (its refresh token in a cookie) and leads on.
#[utoipa::path(get, path = "/auth/oidc/callback", operation_id = "finish_oidc", tag = TAG, params(CallbackQuery),
    responses((status = 303, description = "Signed in; to `return_to`"),
        (status = 404, description = "The provider is gone", body = Problem, content_type = "application/problem+json")))]
pub async fn finish(
    State(app): State<App>,
    Extension(providers): Extension<Arc<Providers>>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    headers: HeaderMap,
    Query(query): Query<CallbackQuery>,
) -> Result<Response> {
    attempts.enter(Door::Login, source, app.clock.now_us())?;
    let state = query
        .state
        .ok_or_else(|| Error::Invalid("`state` is needed".to_owned()))?;
    let answered = attempt::answer(&app, &state, &headers).await?;
    if query.error.is_some() {
        return Err(Error::Unauthenticated("the identity provider did not let you in"));
    }
    let code = query
        .code
        .ok_or_else(|| Error::Invalid("`code` is needed".to_owned()))?;
    let mut tx = enter(&app, &answered.tenant, Actor::Nobody)
        .await?
        .ok_or(NO_PROVIDER)?;
    let at = provider::by_id(&mut tx, answered.provider_id)
        .await?
        .ok_or(NO_PROVIDER)?;
    drop(tx);
    let code = checked(code)?;
    let person = providers
        .vouched(
            &registration(&app, &at)?,
            code,
            query.iss.as_deref(),
            &answered.secrets,
        )
        .await?;
    let session = open(&app, &answered.tenant, &at, &person).await?;
    let cookie = session.in_cookie(&app).cookie;
    let cookies = cookie.into_iter().chain([attempt::forget(&app)]).collect();
    redirect(StatusCode::SEE_OTHER, &answered.return_to, cookies)
}

/// What an application on a device sends that went through the provider by itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcCode {
    /// From the provider.
    #[schema(value_type = String)]
    code: Secret,
    /// PKCE verifier of the request.
    #[schema(value_type = String)]
    code_verifier: Secret,
    /// As in the request.
    redirect_uri: String,
    /// As in the request.
    #[schema(value_type = String)]
    nonce: Secret,
}

/// Exchanges a provider's code for a session, for applications without a browser's cookies.
#[utoipa::path(post, path = "/auth/oidc/{tenant}/{provider}/token", operation_id = "exchange_oidc_code", tag = TAG,
    params(("tenant" = String, Path, description = "Tenant slug"), ("provider" = String, Path)),
    request_body = OidcCode, responses((status = 200, description = "Signed in", body = Session),
        (status = 404, description = "No such provider", body = Problem, content_type = "application/problem+json")))]
pub async fn exchange(
    State(app): State<App>,
    Extension(providers): Extension<Arc<Providers>>,
    Extension(attempts): Extension<Arc<Attempts>>,
    source: Source,
    Path((tenant, name)): Path<(String, String)>,
    Json(given): Json<OidcCode>,
) -> Result<Opened> {
    attempts.enter(Door::Login, source, app.clock.now_us())?;
    let (tenant, at) = find(&app, &tenant, &name).await?;
    let code = checked(given.code.expose().to_owned())?;
    let is_verifier = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let verifier = given.code_verifier.expose();
    if !(43..=128).contains(&verifier.len()) || !verifier.chars().all(is_verifier) {
        return Err(Error::Invalid(
            "`code_verifier` has 43 to 128 of A-Z, a-z, 0-9 and -._~".to_owned(),
        ));
    }
    if given.nonce.expose().is_empty() || openidconnect::url::Url::parse(&given.redirect_uri).is_err() {
        return Err(Error::Invalid(
            "`nonce` and `redirect_uri` are those of the request".to_owned(),
        ));
    }
    let secrets = Secrets {
        nonce: given.nonce,
        verifier: given.code_verifier,
        redirect_uri: given.redirect_uri,
    };
    let person = providers
        .vouched(&registration(&app, &at)?, code, None, &secrets)
        .await?;
    Ok(open(&app, &tenant, &at, &person).await?.in_body())
}

/// Leads the browser to where its session at the provider ends; ours is ended with `logout`.
#[utoipa::path(get, path = "/auth/oidc/{tenant}/{provider}/end-session", operation_id = "end_oidc_session", tag = TAG,
    params(("tenant" = String, Path, description = "Tenant slug"), ("provider" = String, Path), ReturnQuery),
    responses((status = 302, description = "To the provider, or to `return_to` when it offers no such page"),
        (status = 404, description = "No such provider", body = Problem, content_type = "application/problem+json")))]
pub async fn end_session(
    State(app): State<App>,
    Extension(providers): Extension<Arc<Providers>>,
    headers: HeaderMap,
    Path((tenant, name)): Path<(String, String)>,
    Query(query): Query<ReturnQuery>,
) -> Result<Response> {
    let return_to = query.path()?;
    let (_, at) = find(&app, &tenant, &name).await?;
    let back_to = base_url(&app, &headers)? + &return_to;
    let url = providers
        .end_session_url(&registration(&app, &at)?, &back_to)
        .await?;
    let target = url.map_or(return_to, |url| url.to_string());
    redirect(StatusCode::FOUND, &target, Vec::new())
}

// === steps ===

/// A transaction of a tenant that exists and is not suspended.
async fn enter(app: &App, tenant: &TenantSlug, actor: Actor) -> Result<Option<TenantTx>> {
    match app.db.begin_active(tenant, actor).await {
        Ok(tx) => Ok(Some(tx)),
        Err(TenancyError::UnknownTenant) => Ok(None),
        Err(source) => Err(source.into()),
    }
}

async fn find(app: &App, tenant: &str, name: &str) -> Result<(TenantSlug, Stored)> {
    let tenant = TenantSlug::parse(tenant).map_err(|_| NO_PROVIDER)?;
    let mut tx = enter(app, &tenant, Actor::Nobody).await?.ok_or(NO_PROVIDER)?;
    let row = provider::by_name(&mut tx, name).await?.ok_or(NO_PROVIDER)?;
    Ok((tenant, row))
}

fn registration(app: &App, row: &Stored) -> Result<Registration> {
    let open = |sealed: &Vec<u8>| app.sealing_key.open(&provider::purpose(row.id), sealed);
    let secret = row.client_secret.as_ref().map(open).transpose();
    let secret = secret.map_err(|source| Error::Internal(source.into()))?;
    Ok(Registration {
        issuer: row.issuer.clone(),
        client_id: row.client_id.clone(),
        client_secret: secret.map(|bytes| Secret::new(String::from_utf8_lossy(&bytes))),
        scopes: row.scopes.clone(),
        role_claim: row.role_claim.clone(),
    })
}

/// Settles who it is in one transaction and opens their session in another, whose actor they are.
async fn open(app: &App, tenant: &TenantSlug, at: &Stored, person: &Person) -> Result<Session> {
    let actor = Actor::Hub {
        duty: "sign-in with an identity provider",
    };
    let mut tx = enter(app, tenant, actor).await?.ok_or(NO_PROVIDER)?;
    let settled = account::settle(&mut tx, at, person).await?;
    tx.commit().await?;
    let account = settled?;
    let actor = Actor::User {
        id: account.id,
        name: account.display_name,
    };
    let mut tx = enter(app, tenant, actor).await?.ok_or(NO_PROVIDER)?;
    let session = session::open(&mut tx, app, account.id, AuthFactor::IdentityProvider).await?;
    tx.commit().await?;
    Ok(session)
}

fn checked(code: String) -> Result<String> {
    if (1..=CODE_CHARS_MAX).contains(&code.len()) && code.chars().all(|c| c.is_ascii_graphic()) {
        Ok(code)
    } else {
        Err(Error::Invalid(
            "`code` is no code of an identity provider".to_owned(),
        ))
    }
}

fn redirect_uri(app: &App, headers: &HeaderMap) -> Result<String> {
    Ok(base_url(app, headers)? + CALLBACK)
}

/// What the hub is called: as configured, else as the browser calls it. A provider accepts only what is registered
/// there, so a forged name leads nowhere.
fn base_url(app: &App, headers: &HeaderMap) -> Result<String> {
    if let Some(url) = &app.config.http.public_url {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_host = |host: &&str| {
        host.chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
    };
    let host = host
        .filter(is_host)
        .ok_or_else(|| Error::Invalid("the request names no host".to_owned()))?;
    Ok(format!("http://{host}"))
}

fn redirect(status: StatusCode, to: &str, cookies: Vec<HeaderValue>) -> Result<Response> {
    let location = HeaderValue::from_str(to).map_err(|source| Error::Internal(source.into()))?;
    let mut response = (status, [(header::LOCATION, location)]).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_of_the_hub_itself_is_returned_to() {
        let path = |text: &str| {
            ReturnQuery {
                return_to: Some(text.to_owned()),
            }
            .path()
        };
        assert_eq!(path("/t/akron/now?x=1#y").unwrap(), "/t/akron/now?x=1#y");
        assert_eq!(ReturnQuery { return_to: None }.path().unwrap(), "/");
        let long = format!("/{}", "a".repeat(RETURN_CHARS_MAX));
        for wrong in [
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "evil",
            "",
            "/a\r\nset-cookie: x=y",
            "/a b",
            "javascript:alert(1)",
            &long,
        ] {
            assert!(path(wrong).is_err(), "{wrong:?}");
        }
    }
}
