//! How does somebody prove that they read a mail? A random token that is good once and for one purpose, until a
//! later one of the same purpose takes its place. Only its digest is stored.

use chrono::TimeDelta;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    kernel::{
        secret::{self, Secret},
        tenancy::{TenantSlug, TenantTx},
    },
};

const TOKEN_BYTES: usize = 32;

/// What is said of every one-time token that is not good, whatever is wrong with it.
pub(super) const NOT_GOOD: Error = Error::Unauthenticated("the token is not good (any more)");

/// What a one-time token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The address belongs to whoever registered with it.
    VerifyEmail,
    /// Set a new password.
    ResetPassword,
    /// Set the first password.
    Invitation,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
            Self::Invitation => "invitation",
        }
    }

    fn parse(stored: &str) -> Option<Self> {
        [Self::VerifyEmail, Self::ResetPassword, Self::Invitation]
            .into_iter()
            .find(|purpose| purpose.as_str() == stored)
    }

    /// How long a token for it is good.
    pub const fn valid_for(self) -> TimeDelta {
        match self {
            Self::VerifyEmail => TimeDelta::hours(24),
            Self::ResetPassword => TimeDelta::minutes(30),
            Self::Invitation => TimeDelta::days(7),
        }
    }
}

/// A token as somebody presents it; it names its tenant, so that one look-up finds it.
#[derive(Clone, Debug)]
pub(super) struct OneTimeToken {
    pub(super) tenant: TenantSlug,
    sha256: [u8; 32],
}

impl OneTimeToken {
    /// What a request presented, for the tenant that it names, if it does.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub(super) fn read(given: &Secret, tenant: Option<&str>) -> Result<Self> {
        let token = Self::parse(given.expose());
        let is_named = |token: &Self| tenant.is_none_or(|tenant| tenant == token.tenant.as_str());
        token.filter(is_named).ok_or(NOT_GOOD)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (tenant, _) = text.split_once('.')?;
        Some(Self {
            tenant: TenantSlug::parse(tenant).ok()?,
            sha256: secret::digest(text),
        })
    }
}

/// Issues a token; earlier ones of the same purpose are no longer good.
///
/// # Errors
/// What the database refuses.
pub async fn issue(tx: &mut TenantTx, user_id: Uuid, purpose: Purpose) -> Result<String> {
    void(tx, user_id, purpose).await?;
    let text = format!("{}.{}", tx.tenant(), secret::random_text(TOKEN_BYTES));
    sqlx::query(
        "INSERT INTO one_time_token (token_sha256, user_id, purpose, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(&secret::digest(&text)[..])
    .bind(user_id)
    .bind(purpose.as_str())
    .bind(tx.at() + purpose.valid_for())
    .execute(tx.conn())
    .await?;
    Ok(text)
}

pub(super) async fn void(tx: &mut TenantTx, user_id: Uuid, purpose: Purpose) -> Result<()> {
    sqlx::query(
        "UPDATE one_time_token SET used_at = $3 WHERE user_id = $1 AND purpose = $2 AND used_at IS NULL",
    )
    .bind(user_id)
    .bind(purpose.as_str())
    .bind(tx.at())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whose token it is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) user_id: Uuid,
    pub(super) email: String,
    pub(super) display_name: String,
    pub(super) purpose: Purpose,
}

#[derive(FromRow)]
struct Row {
    user_id: Uuid,
    email: String,
    display_name: String,
    purpose: String,
}

/// Whose token this is, while it is good for one of these purposes and its account is active. Nothing is used up.
pub(super) async fn look(
    tx: &mut TenantTx,
    token: &OneTimeToken,
    purposes: &[Purpose],
) -> Result<Option<Owner>> {
    let row = sqlx::query_as(
        "SELECT t.user_id, u.email, u.display_name, t.purpose FROM one_time_token t \
         JOIN app_user u ON u.id = t.user_id \
         WHERE t.token_sha256 = $1 AND t.used_at IS NULL AND t.expires_at > $2 AND t.purpose = ANY ($3) \
           AND u.is_active",
    )
    .bind(&token.sha256[..])
    .bind(tx.at())
    .bind(names(purposes))
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(owner))
}

/// Uses a token up: of two who present it at once, one gets its owner.
pub(super) async fn take(
    tx: &mut TenantTx,
    token: &OneTimeToken,
    purposes: &[Purpose],
) -> Result<Option<Owner>> {
    let row = sqlx::query_as(
        "UPDATE one_time_token t SET used_at = $2 FROM app_user u \
         WHERE t.token_sha256 = $1 AND t.used_at IS NULL AND t.expires_at > $2 AND t.purpose = ANY ($3) \
           AND u.id = t.user_id AND u.is_active \
         RETURNING t.user_id, u.email, u.display_name, t.purpose",
    )
    .bind(&token.sha256[..])
    .bind(tx.at())
    .bind(names(purposes))
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(owner))
}

fn names(purposes: &[Purpose]) -> Vec<&'static str> {
    purposes.iter().map(|purpose| purpose.as_str()).collect()
}

fn owner(row: Row) -> Option<Owner> {
    Some(Owner {
        user_id: row.user_id,
        email: row.email,
        display_name: row.display_name,
        purpose: Purpose::parse(&row.purpose)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_tenant_and_anything_else_is_none() {
        let token = OneTimeToken::parse(" lake-shore.abc\n").unwrap();
        assert_eq!(token.tenant.as_str(), "lake-shore");
        assert_eq!(token.sha256, secret::digest("lake-shore.abc"));
        for wrong in ["", "abc", "A.b", "a'b.c", "\u{0}.x"] {
            assert!(OneTimeToken::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_request_that_names_another_tenant_than_its_token_is_refused() {
        let token = Secret::new("lake-shore.abc");
        assert!(OneTimeToken::read(&token, None).is_ok());
        assert!(OneTimeToken::read(&token, Some("lake-shore")).is_ok());
        assert!(OneTimeToken::read(&token, Some("akron")).is_err());
    }

    #[test]
    fn every_purpose_is_read_back_as_it_is_stored() {
        for purpose in [Purpose::VerifyEmail, Purpose::ResetPassword, Purpose::Invitation] {
            assert_eq!(Purpose::parse(purpose.as_str()), Some(purpose));
        }
    }
}
