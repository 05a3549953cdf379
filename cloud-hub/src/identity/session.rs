//! How long is somebody signed in? A session is a family of refresh tokens: each is good once and gives the next; a
//! second use says that somebody has a copy, and ends the whole session. Only their digests are stored.

use std::time::Duration;

use axum::{
    Json as Answer,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed,
        event::NewEvent,
        role::Role,
        secret::{self, Secret},
        tenancy::{TenantSlug, TenantTx},
        token::Claims,
    },
    tenant::settings::TenantSettings,
};

/// The cookie that carries a browser's refresh token.
const COOKIE: &str = "foodflow_refresh";
const COOKIE_PATH: &str = "/api/v1/auth";
/// Only a page of the same origin can send it: what a foreign page's form cannot.
const CSRF_HEADER: &str = "x-requested-with";
const TOKEN_BYTES: usize = 32;
/// Sessions that one account may hold at once; the oldest give way.
const SESSIONS_MAX: i64 = 100;

/// What is said of every refresh token that is not good, whatever is wrong with it.
pub(super) const NOT_GOOD: Error =
    Error::Unauthenticated("the refresh token is not good (any more); sign in again");

/// How a person proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthFactor {
    /// With their password here.
    Password,
    /// At their plant's identity provider.
    IdentityProvider,
}

impl AuthFactor {
    /// As it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::IdentityProvider => "identity_provider",
        }
    }
}

/// Why a session ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The person signed out.
    Logout,
    /// A refresh token was used twice.
    Reuse,
    /// The password was changed.
    Password,
    /// The account was suspended.
    Suspended,
    /// An administrator ended it.
    Admin,
}

impl Ending {
    /// As it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Reuse => "reuse",
            Self::Password => "password",
            Self::Suspended => "suspended",
            Self::Admin => "admin",
        }
    }
}

/// A bearer token, and the refresh token that gives the next one.
#[derive(Serialize, ToSchema)]
#[expect(
    missing_debug_implementations,
    reason = "it carries tokens, which must not reach a log"
)]
pub struct Session {
    /// Send as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// How long the bearer token is good for.
    expires_in_s: u64,
    /// Exchange once for the next pair; absent when it went into the cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// How long the refresh token is good for.
    refresh_expires_in_s: u64,
}

impl Session {
    /// The answer in whose body both tokens are.
    pub fn in_body(self) -> Opened {
        Opened {
            session: self,
            cookie: None,
        }
    }

    /// The answer whose refresh token goes into a cookie that no script can read.
    pub fn in_cookie(mut self, app: &App) -> Opened {
        let token = self.refresh_token.take().unwrap_or_default();
        let cookie = cookie(app, &token, self.refresh_expires_in_s);
        Opened {
            session: self,
            cookie: Some(cookie),
        }
    }
}

/// A session on its way to the caller.
#[expect(
    missing_debug_implementations,
    reason = "it carries tokens, which must not reach a log"
)]
pub struct Opened {
    /// The body.
    pub session: Session,
    /// `Set-Cookie`, when the refresh token is not in the body.
    pub cookie: Option<HeaderValue>,
}

impl IntoResponse for Opened {
    fn into_response(self) -> Response {
        let mut response = Answer(self.session).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(cookie) = self.cookie {
            headers.insert(header::SET_COOKIE, cookie);
        }
        response
    }
}

fn cookie(app: &App, token: &str, max_age_s: u64) -> HeaderValue {
    let secure = if app.config.http.is_https() {
        "; Secure"
    } else {
        ""
    };
    let text = format!(
        "{COOKIE}={token}; Path={COOKIE_PATH}; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"
    );
    HeaderValue::from_str(&text).expect("a token is of letters, digits, `-` and `.`")
}

/// 204, and the browser forgets its refresh token.
pub(super) fn signed_out(app: &App) -> Response {
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie(app, "", 0))]).into_response()
}

// === tokens ===

/// A refresh token; it names its tenant, so that one look-up finds it.
#[derive(Clone, Debug)]
pub(super) struct RefreshToken {
    pub(super) tenant: TenantSlug,
    sha256: [u8; 32],
}

impl RefreshToken {
    fn make(tenant: &TenantSlug) -> (String, Self) {
        let text = format!("{tenant}.{}", secret::random_text(TOKEN_BYTES));
        let token = Self {
            tenant: tenant.clone(),
            sha256: secret::digest(&text),
        };
        (text, token)
    }

    fn parse(text: &str) -> Option<Self> {
        let (tenant, _) = text.split_once('.')?;
        Some(Self {
            tenant: TenantSlug::parse(tenant).ok()?,
            sha256: secret::digest(text),
        })
    }
}

/// The refresh token of a request; browsers send theirs as a cookie.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// As the session's last answer gave it; without it the cookie counts.
    #[schema(value_type = Option<String>)]
    refresh_token: Option<Secret>,
}

/// What a request presented.
pub(super) struct Presented {
    /// `None` for what cannot be a refresh token.
    pub(super) token: Option<RefreshToken>,
    pub(super) is_cookie: bool,
}

/// The refresh token of the body, else of the cookie; `None` when there is neither.
///
/// # Errors
/// [`Error::Invalid`] for a cookie without the header that only a page of this origin can set.
pub(super) fn presented(headers: &HeaderMap, given: Option<Refresh>) -> Result<Option<Presented>> {
    if let Some(token) = given.and_then(|given| given.refresh_token) {
        let token = RefreshToken::parse(token.expose());
        return Ok(Some(Presented {
            token,
            is_cookie: false,
        }));
    }
    let Some(token) = cookie_of(headers) else {
        return Ok(None);
    };
    if !headers.contains_key(CSRF_HEADER) {
        return Err(Error::Invalid(format!(
            "a session in a cookie needs the header `{CSRF_HEADER}`"
        )));
    }
    Ok(Some(Presented {
        token: RefreshToken::parse(token),
        is_cookie: true,
    }))
}

fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

// === sessions ===

/// Opens a session for an account, in the transaction of the sign-in, whose actor is that account.
///
/// # Errors
/// [`Error::Unauthenticated`] for an account that was suspended just now.
pub async fn open(tx: &mut TenantTx, app: &App, user_id: Uuid, factor: AuthFactor) -> Result<Session> {
    // A suspension or a change of password waits for this sign-in, and then ends this session too.
    let is_active: Option<bool> =
        sqlx::query_scalar("SELECT is_active FROM app_user WHERE id = $1 FOR SHARE")
            .bind(user_id)
            .fetch_optional(tx.conn())
            .await?;
    if is_active != Some(true) {
        return Err(Error::Unauthenticated("the account is suspended"));
    }
    let (id, now) = (Uuid::now_v7(), tx.at());
    let expires_at = now + app.config.auth.session_ttl;
    sqlx::query(
        "INSERT INTO session (id, user_id, started_at, expires_at, auth_factor) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(user_id)
    .bind(now)
    .bind(expires_at)
    .bind(factor.as_str())
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "UPDATE session SET ended_at = $2, ended_because = 'expired' WHERE id IN (SELECT id FROM session \
           WHERE user_id = $1 AND ended_at IS NULL ORDER BY started_at DESC, id DESC OFFSET $3)",
    )
    .bind(user_id)
    .bind(now)
    .bind(SESSIONS_MAX)
    .execute(tx.conn())
    .await?;
    let now_is = json!({ "user_id": user_id, "auth_factor": factor });
    tx.audit(&Deed::on("login", "session", id).after(now_is));
    issue(
        tx,
        app,
        Family {
            id,
            user_id,
            expires_at,
        },
    )
    .await
}

struct Family {
    id: Uuid,
    user_id: Uuid,
    expires_at: DateTime<Utc>,
}

/// The next pair of tokens of a session.
async fn issue(tx: &mut TenantTx, app: &App, family: Family) -> Result<Session> {
    let now = tx.at();
    let (text, token) = RefreshToken::make(tx.tenant());
    let refresh_until = family.expires_at.min(now + refresh_ttl(tx, app).await?);
    sqlx::query(
        "INSERT INTO refresh_token (token_sha256, session_id, issued_at, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(&token.sha256[..])
    .bind(family.id)
    .bind(now)
    .bind(refresh_until)
    .execute(tx.conn())
    .await?;
    let expires_at = family.expires_at.min(now + app.config.auth.token_ttl);
    let claims = Claims {
        sub: family.user_id,
        tenant: tx.tenant().as_str().to_owned(),
        role: role_of(tx, family.user_id).await?,
        sid: Some(family.id),
        iat: now.timestamp(),
        exp: expires_at.timestamp(),
    };
    Ok(Session {
        access_token: app.signing_key.issue(&claims),
        token_type: "Bearer",
        expires_in_s: seconds(expires_at - now),
        refresh_token: Some(text),
        refresh_expires_in_s: seconds(refresh_until - now),
    })
}

/// The installation's limit, or the tenant's own where that is shorter.
async fn refresh_ttl(tx: &mut TenantTx, app: &App) -> Result<Duration> {
    let settings = TenantSettings::read(&tx.settings().await?);
    let own = Duration::from_hours(u64::from(settings.session_hours));
    Ok(own.min(app.config.auth.refresh_ttl))
}

fn seconds(span: TimeDelta) -> u64 {
    u64::try_from(span.num_seconds()).unwrap_or(0)
}

/// The role that a token names for its reader; what its holder may do is asked with every request.
async fn role_of(tx: &mut TenantTx, user_id: Uuid) -> Result<Role> {
    let name: Option<String> = sqlx::query_scalar(
        "SELECT r.name FROM user_role g JOIN role r ON r.id = g.role_id \
         WHERE g.user_id = $1 AND r.is_builtin ORDER BY r.name LIMIT 1",
    )
    .bind(user_id)
    .fetch_optional(tx.conn())
    .await?;
    let role = name.and_then(|name| name.parse().ok());
    Ok(role.unwrap_or(Role::Auditor))
}

/// A refresh token as it is stored, with what decides on it.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Held {
    pub(super) session_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) display_name: String,
    used_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
    session_expires_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    is_active: bool,
}

/// What becomes of a refresh token that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It gives the next pair.
    Rotate,
    /// It was used before: the session ends.
    Reused,
    /// It is too old, or its session or account is no longer good.
    Refused,
}

impl Held {
    pub(super) fn judge(&self, now: DateTime<Utc>) -> Verdict {
        if self.ended_at.is_some() || self.session_expires_at <= now {
            Verdict::Refused
        } else if self.used_at.is_some() {
            Verdict::Reused
        } else if self.expires_at <= now || !self.is_active {
            Verdict::Refused
        } else {
            Verdict::Rotate
        }
    }
}

/// Finds a refresh token and holds it and its session: of two who present it at once, the second finds it used.
pub(super) async fn hold(tx: &mut TenantTx, token: &RefreshToken) -> Result<Option<Held>> {
    Ok(sqlx::query_as(
        "SELECT t.session_id, s.user_id, u.display_name, t.used_at, t.expires_at, \
           s.expires_at AS session_expires_at, s.ended_at, u.is_active \
         FROM refresh_token t JOIN session s ON s.id = t.session_id JOIN app_user u ON u.id = s.user_id \
         WHERE t.token_sha256 = $1 FOR UPDATE OF t, s",
    )
    .bind(&token.sha256[..])
    .fetch_optional(tx.conn())
    .await?)
}

/// Uses a refresh token up and issues the next pair.
pub(super) async fn rotate(
    tx: &mut TenantTx,
    app: &App,
    token: &RefreshToken,
    held: &Held,
) -> Result<Session> {
    sqlx::query("UPDATE refresh_token SET used_at = $2 WHERE token_sha256 = $1")
        .bind(&token.sha256[..])
        .bind(tx.at())
        .execute(tx.conn())
        .await?;
    tx.audit(&Deed::on("refresh", "session", held.session_id));
    let family = Family {
        id: held.session_id,
        user_id: held.user_id,
        expires_at: held.session_expires_at,
    };
    issue(tx, app, family).await
}

/// Ends one session of an account; says whether it was open.
///
/// # Errors
/// What the database refuses.
pub async fn end(tx: &mut TenantTx, session_id: Uuid, user_id: Uuid, because: Ending) -> Result<bool> {
    end_where(tx, user_id, Some(session_id), None, because)
        .await
        .map(|ended| ended > 0)
}

/// Ends every session of an account but `except`; says how many were open.
///
/// # Errors
/// What the database refuses.
pub async fn end_all(
    tx: &mut TenantTx,
    user_id: Uuid,
    except: Option<Uuid>,
    because: Ending,
) -> Result<usize> {
    end_where(tx, user_id, None, except, because).await
}

async fn end_where(
    tx: &mut TenantTx,
    user_id: Uuid,
    only: Option<Uuid>,
    except: Option<Uuid>,
    because: Ending,
) -> Result<usize> {
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE session SET ended_at = $2, ended_because = $3 WHERE user_id = $1 AND ended_at IS NULL \
           AND ($4::uuid IS NULL OR id = $4) AND id IS DISTINCT FROM $5 RETURNING id",
    )
    .bind(user_id)
    .bind(tx.at())
    .bind(because.as_str())
    .bind(only)
    .bind(except)
    .fetch_all(tx.conn())
    .await?;
    for id in &ended {
        let facts = json!({ "user_id": user_id, "because": because });
        tx.audit(&Deed::on("end", "session", id).after(&facts));
        tx.event(&NewEvent::new("SessionEnded", "session", *id, facts));
    }
    Ok(ended.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn held() -> Held {
        Held {
            session_id: Uuid::nil(),
            user_id: Uuid::nil(),
            display_name: String::new(),
            used_at: None,
            expires_at: at(100),
            session_expires_at: at(1_000),
            ended_at: None,
            is_active: true,
        }
    }

    #[test]
    fn a_refresh_token_is_good_once_while_its_session_and_account_are() {
        assert_eq!(held().judge(at(99)), Verdict::Rotate);
        assert_eq!(held().judge(at(100)), Verdict::Refused);
        let used = Held {
            used_at: Some(at(1)),
            ..held()
        };
        assert_eq!(used.judge(at(2)), Verdict::Reused);
        assert_eq!(used.judge(at(500)), Verdict::Reused, "an old copy is a copy too");
        let ended = Held {
            ended_at: Some(at(2)),
            ..used
        };
        assert_eq!(ended.judge(at(3)), Verdict::Refused);
        let suspended = Held {
            is_active: false,
            ..held()
        };
        assert_eq!(suspended.judge(at(1)), Verdict::Refused);
    }

    #[test]
    fn a_token_for_another_tenant_is_another_token() {
        let (text, made) = RefreshToken::make(&TenantSlug::parse("lake-shore").unwrap());
        let read = RefreshToken::parse(&text).unwrap();
        assert_eq!((read.tenant.as_str(), read.sha256), ("lake-shore", made.sha256));
        let moved = RefreshToken::parse(&text.replace("lake-shore", "akron")).unwrap();
        assert_ne!(moved.sha256, made.sha256);
        assert!(RefreshToken::parse("nonsense").is_none());
        assert!(RefreshToken::parse("a'b.c").is_none());
    }

    #[test]
    fn a_cookie_counts_only_beside_the_header_that_a_foreign_page_cannot_send() {
        let mut headers = HeaderMap::new();
        assert!(presented(&headers, None).unwrap().is_none());
        headers.insert(header::COOKIE, "a=b; foodflow_refresh=akron.x".parse().unwrap());
        assert!(presented(&headers, None).is_err());
        headers.insert(CSRF_HEADER, "x".parse().unwrap());
        let cookie = presented(&headers, None).unwrap().unwrap();
        assert!(cookie.is_cookie && cookie.token.is_some());
        let given = Refresh {
            refresh_token: Some(Secret::new("akron.y")),
        };
        assert!(!presented(&headers, Some(given)).unwrap().unwrap().is_cookie);
    }
}
