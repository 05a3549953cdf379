//! Who works on tenants from outside? Operators of the platform, with a token that the command line printed. It is
//! signed under a key of its own, so that no tenant's token is one and it is no tenant's token.

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Actor,
        caller::{Caller, bearer},
        permission::Permission,
        scope::Scope,
        tenancy::TenantSlug,
        token::TokenError,
    },
};

/// What a tenant's caller lacks for the platform's deeds; no role includes it.
const OPERATE: &str = "tenant.operate";

/// An operator of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformOperator {
    name: String,
}

impl PlatformOperator {
    /// As the audit chains name them.
    pub fn actor(&self) -> Actor {
        Actor::Operator {
            name: format!("platform {}", self.name),
        }
    }
}

impl FromRequestParts<App> for PlatformOperator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        match Visitor::from_request_parts(parts, app).await? {
            Visitor::Operator(operator) => Ok(operator),
            Visitor::Caller(caller) => Err(caller.refuse(app, OPERATE).await),
        }
    }
}

/// An operator of the platform, or somebody of one tenant.
#[derive(Clone, Debug)]
pub enum Visitor {
    /// Reaches every tenant's entry.
    Operator(PlatformOperator),
    /// Reaches the own tenant's.
    Caller(Caller),
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let credential = bearer(&parts.headers).ok_or(Error::Unauthenticated("a bearer token is needed"))?;
        match app.signing_key.verify_platform(credential, app.clock.now_us()) {
            Ok(claims) => Ok(Self::Operator(PlatformOperator { name: claims.sub })),
            Err(TokenError::Expired) => Err(Error::Unauthenticated(
                "the token has expired; `foodflow-hub token --platform` prints a new one",
            )),
            Err(TokenError::Invalid) => Caller::from_credential(credential, app).map(Self::Caller),
        }
    }
}

impl Visitor {
    /// Who it is, if they may do this to the tenant that the path names: to a tenant's caller there is no other one.
    /// Whoever may not ask is told so before whether there is something to ask for.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`]; as [`Caller::begin`].
    pub async fn on(&self, app: &App, slug: &str, permission: Permission) -> Result<(Actor, TenantSlug)> {
        let slug = TenantSlug::parse(slug).map_err(|_| Error::NotFound { entity: "tenant" });
        let caller = match self {
            Self::Operator(operator) => return Ok((operator.actor(), slug?)),
            Self::Caller(caller) => caller,
        };
        // A tenant's entry belongs to no line.
        if caller.authorize(app, permission).await? != Scope::Everywhere {
            return Err(Error::OutOfScope);
        }
        let slug = slug?;
        if caller.tenant != slug {
            return Err(Error::NotFound { entity: "tenant" });
        }
        let (tx, _) = caller.begin_signed_in(app).await?;
        Ok((tx.actor().clone(), slug))
    }

    /// Whether what concerns the operation of the platform may be shown.
    pub fn is_operator(&self) -> bool {
        matches!(self, Self::Operator(_))
    }
}
