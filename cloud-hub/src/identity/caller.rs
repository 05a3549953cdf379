//! Who is calling? The bearer token, verified; the tenant comes from it and from nowhere else.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use uuid::Uuid;

use super::permission::{self, Permission};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        role::Role,
        tenancy::{TenantSlug, TenantTx},
        token::TokenError,
    },
};

/// An authenticated caller of one tenant.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user's id; nil for a token that the command line printed.
    pub user_id: Uuid,
    /// The only tenant whose data this caller can reach.
    pub tenant: TenantSlug,
    /// What the caller may do.
    pub role: Role,
    /// When the token stops being good.
    pub expires_us: i64,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        Self::from_token(
            bearer(&parts.headers).ok_or(Error::Unauthenticated("a bearer token is needed"))?,
            app,
        )
    }
}

/// The token of the `Authorization` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Caller {
    /// Verifies a token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub fn from_token(token: &str, app: &App) -> Result<Self> {
        let claims = app
            .signing_key
            .verify(token, app.clock.now_us())
            .map_err(|refusal| match refusal {
                TokenError::Invalid => Error::Unauthenticated("the token is not valid"),
                TokenError::Expired => Error::Unauthenticated("the token has expired; sign in again"),
            })?;
        let tenant = TenantSlug::parse(&claims.tenant)
            .map_err(|_| Error::Unauthenticated("the token is not valid"))?;
        let expires_us = claims.exp.saturating_mul(1_000_000);
        Ok(Self {
            user_id: claims.sub,
            tenant,
            role: claims.role,
            expires_us,
        })
    }

    /// Checks a permission without touching the database.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn require(&self, permission: Permission) -> Result<()> {
        if permission::may(self.role, permission) {
            Ok(())
        } else {
            Err(Error::Forbidden {
                permission: permission.as_str(),
            })
        }
    }

    /// Opens a transaction that sees this caller's tenant and no other: the only way of a handler to data.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Unavailable`] without a database.
    pub async fn begin(&self, app: &App, permission: Permission) -> Result<TenantTx> {
        self.require(permission)?;
        Ok(app.db.begin(&self.tenant).await?)
    }
}
