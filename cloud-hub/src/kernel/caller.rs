//! Who is calling, and what may they do? A bearer token or an API key names the tenant and the caller; what they
//! may do is asked of the database with every request, so that a suspended account is out at once. The tenant
//! comes from the credential and from nowhere else.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use serde_json::json;
use uuid::Uuid;

use super::{
    api_key::ApiKeySecret,
    audit::{Actor, Deed},
    idempotency,
    permission::Permission,
    role::Role,
    scope::{Grants, Scope},
    tenancy::{Entered, TenancyError, TenantSlug, TenantTx},
    token::TokenError,
};
use crate::{
    app::App,
    error::{Error, Result},
};

/// Whose credential it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A person.
    User {
        /// Their account.
        id: Uuid,
        /// The session their token belongs to; absent for a token that the command line printed.
        session: Option<Uuid>,
    },
    /// A machine.
    ApiKey(ApiKeySecret),
    /// A token that the command line printed where nobody has the role.
    Operator(Role),
}

/// A caller of one tenant whose credential is genuine. Whether the account is still good is known after
/// [`Caller::begin`] or [`Caller::authorize`].
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// The only tenant whose data this caller can reach.
    pub tenant: TenantSlug,
    /// When the credential stops being good, as far as it says itself.
    pub expires_us: i64,
}

const GONE: Error =
    Error::Unauthenticated("the account, its session or its key is no longer good; sign in again");

impl FromRequestParts<App> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        // Verified already where the request was let in.
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(known.clone());
        }
        let credential = bearer(&parts.headers).ok_or(Error::Unauthenticated("a bearer token is needed"))?;
        Self::from_credential(credential, app)
    }
}

/// A caller whose account was found good just now, for what asks nothing else of the database.
#[derive(Clone, Debug)]
pub struct SignedIn(pub Caller);

impl FromRequestParts<App> for SignedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let caller = Caller::from_request_parts(parts, app).await?;
        caller.enter(app).await?;
        Ok(Self(caller))
    }
}

/// The token of the `Authorization` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Caller {
    /// Verifies what can be verified without the database: a token's signature and age, an API key's form.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub fn from_credential(credential: &str, app: &App) -> Result<Self> {
        if let Some((tenant, key)) = ApiKeySecret::parse(credential) {
            return Ok(Self {
                principal: Principal::ApiKey(key),
                tenant,
                expires_us: i64::MAX,
            });
        }
        let claims =
            app.signing_key
                .verify(credential, app.clock.now_us())
                .map_err(|refusal| match refusal {
                    TokenError::Invalid => Error::Unauthenticated("the token is not valid"),
                    TokenError::Expired => Error::Unauthenticated("the token has expired; sign in again"),
                })?;
        let tenant = TenantSlug::parse(&claims.tenant)
            .map_err(|_| Error::Unauthenticated("the token is not valid"))?;
        let principal = if claims.sub.is_nil() {
            Principal::Operator(claims.role)
        } else {
            Principal::User {
                id: claims.sub,
                session: claims.sid,
            }
        };
        Ok(Self {
            principal,
            tenant,
            expires_us: claims.exp.saturating_mul(1_000_000),
        })
    }

    /// The caller's account, when it is a person.
    pub fn user_id(&self) -> Option<Uuid> {
        match self.principal {
            Principal::User { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Opens a transaction that sees this caller's tenant and no other, on the lines where the caller holds
    /// `permission`: the only way of a handler to data. A refusal is audited.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Unauthenticated`]; [`Error::Replayed`] when this very request was answered
    /// before; [`Error::Unavailable`] without a database.
    pub async fn begin(&self, app: &App, permission: Permission) -> Result<TenantTx> {
        Ok(self.begin_granted(app, permission).await?.0)
    }

    /// As [`Caller::begin`], and says what else the caller may do.
    ///
    /// # Errors
    /// As [`Caller::begin`].
    pub async fn begin_granted(&self, app: &App, permission: Permission) -> Result<(TenantTx, Grants)> {
        let (mut tx, grants) = self.enter(app).await?;
        let Some(scope) = grants.scope(permission) else {
            deny(tx, permission.as_str()).await?;
            return Err(Error::Forbidden {
                permission: permission.as_str(),
            });
        };
        idempotency::replay(&mut tx).await?;
        tx.narrow(&scope).await?;
        Ok((tx, grants))
    }

    /// Opens a transaction for what every signed-in caller may do, and says what else they may.
    ///
    /// # Errors
    /// As [`Caller::begin`], but for [`Error::Forbidden`].
    pub async fn begin_signed_in(&self, app: &App) -> Result<(TenantTx, Grants)> {
        let (mut tx, grants) = self.enter(app).await?;
        idempotency::replay(&mut tx).await?;
        Ok((tx, grants))
    }

    /// Where the caller may do this, for what needs no transaction.
    ///
    /// # Errors
    /// As [`Caller::begin`].
    pub async fn authorize(&self, app: &App, permission: Permission) -> Result<Scope> {
        let (tx, grants) = self.enter(app).await?;
        if let Some(scope) = grants.scope(permission) {
            return Ok(scope);
        }
        deny(tx, permission.as_str()).await?;
        Err(Error::Forbidden {
            permission: permission.as_str(),
        })
    }

    /// Refuses what no role of a tenant includes; a refusal is audited. What is wrong with the caller comes first.
    pub async fn refuse(&self, app: &App, permission: &'static str) -> Error {
        match self.enter(app).await {
            Ok((tx, _)) => match deny(tx, permission).await {
                Ok(()) => Error::Forbidden { permission },
                Err(error) => error,
            },
            Err(error) => error,
        }
    }

    async fn enter(&self, app: &App) -> Result<(TenantTx, Grants)> {
        let question = self.question(app);
        let entered = app.db.enter(&self.tenant, question.as_deref()).await;
        let Entered {
            mut tx,
            is_suspended,
            said,
        } = match entered {
            // Whoever guesses names of tenants learns nothing.
            Err(TenancyError::UnknownTenant) => return Err(GONE),
            entered => entered?,
        };
        let grants = match (&self.principal, said) {
            (Principal::Operator(role), _) => Grants::of_role(*role),
            (_, Some(said)) => {
                serde_json::from_str(&said).map_err(|source| Error::Internal(source.into()))?
            }
            (_, None) => {
                if self.is_genuine(&mut tx).await? {
                    let actor = self.actor(String::new());
                    deny(tx.by(actor), "session").await?;
                }
                return Err(GONE);
            }
        };
        if is_suspended {
            return Err(Error::TenantSuspended);
        }
        if let Principal::ApiKey(key) = &self.principal {
            app.key_use
                .note(&app.db, &self.tenant, key.id(), app.clock.now_us());
        }
        if let Some(flaw) = &tx.context().flaw {
            return Err(Error::Invalid(flaw.clone()));
        }
        let actor = self.actor(grants.name.clone());
        Ok((tx.by(actor), grants))
    }

    /// Whether a credential that is no longer good once was: a token that we signed, a key that we made. Attempts
    /// with made-up keys are not on record, or anybody could fill the audit chain.
    async fn is_genuine(&self, tx: &mut TenantTx) -> Result<bool> {
        let Principal::ApiKey(key) = &self.principal else {
            return Ok(true);
        };
        let sql = "SELECT EXISTS (SELECT FROM api_key WHERE id = $1 AND secret_sha256 = $2)";
        let known = sqlx::query_scalar(sql)
            .bind(key.id())
            .bind(&key.secret_sha256()[..]);
        Ok(known.fetch_one(tx.conn()).await?)
    }

    fn question(&self, app: &App) -> Option<String> {
        match &self.principal {
            Principal::User { id, session } => {
                let session = session.map_or_else(|| "NULL".to_owned(), |id| format!("'{id}'"));
                Some(format!("SELECT user_grants('{id}', {session})"))
            }
            Principal::ApiKey(key) => Some(key.question(app.clock.now())),
            Principal::Operator(_) => None,
        }
    }

    fn actor(&self, name: String) -> Actor {
        match &self.principal {
            Principal::User { id, .. } => Actor::User { id: *id, name },
            Principal::ApiKey(key) => Actor::ApiKey { id: key.id(), name },
            Principal::Operator(role) => Actor::Operator {
                name: format!("token {role}"),
            },
        }
    }
}

/// An attempt that is refused is on record, in a transaction that does nothing else.
async fn deny(mut tx: TenantTx, permission: &str) -> Result<()> {
    let (entity, _) = permission.split_once('.').unwrap_or((permission, ""));
    let request = tx.context().request.clone();
    let deed = Deed {
        action: "denied",
        entity: entity_name(entity),
        after: Some(json!({ "permission": permission, "request": request })),
        ..Deed::default()
    };
    tx.audit(&deed);
    Ok(tx.commit().await?)
}

/// The permission's resource, as a name that lives as long as the program.
fn entity_name(resource: &str) -> &'static str {
    let known = Permission::ALL.iter().map(|it| it.resource());
    known
        .into_iter()
        .find(|name| *name == resource)
        .unwrap_or("session")
}
