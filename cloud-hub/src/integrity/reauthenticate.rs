//! Is it really this person who signs, now? The password once more, under the limits of the sign-in; whoever has
//! none must have come from their identity provider within the last minutes.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    app::App,
    error::{Error, Result},
    identity::attempts::Attempts,
    kernel::{
        caller::{Caller, Principal},
        secret::Secret,
        tenancy::TenantTx,
    },
};

/// How long a sign-in at an identity provider stands for the person.
const FRESH: TimeDelta = TimeDelta::minutes(5);

const WRONG: Error = Error::Unauthenticated("the password is wrong; nothing was signed");

/// Who wants to sign, and in which session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) id: Uuid,
    session: Uuid,
}

/// With what somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Factor {
    Password,
    IdentityProvider,
}

impl Factor {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::IdentityProvider => "identity_provider",
        }
    }
}

/// Keys and printed tokens are nobody who could stand by a record.
///
/// # Errors
/// [`Error::Conflict`].
pub(super) fn person(caller: &Caller) -> Result<Person> {
    match caller.principal {
        Principal::User {
            id,
            session: Some(session),
        } => Ok(Person { id, session }),
        _ => Err(Error::Conflict(
            "a record is signed by a person who signed in; a key or a printed token cannot".to_owned(),
        )),
    }
}

/// An account and the session it is used in.
#[derive(FromRow)]
pub(super) struct Account {
    email: String,
    password_hash: Option<String>,
    auth_factor: String,
    started_at: DateTime<Utc>,
}

/// Reads what [`prove`] needs.
///
/// # Errors
/// [`Error::Unauthenticated`] when the session ended meanwhile.
pub(super) async fn account(tx: &mut TenantTx, person: Person) -> Result<Account> {
    let found: Option<Account> = sqlx::query_as(
        "SELECT u.email, u.password_hash, s.auth_factor, s.started_at \
         FROM app_user u JOIN session s ON s.user_id = u.id \
         WHERE u.id = $1 AND s.id = $2 AND s.ended_at IS NULL AND u.is_active",
    )
    .bind(person.id)
    .bind(person.session)
    .fetch_optional(tx.conn())
    .await?;
    found.ok_or(Error::Unauthenticated("the session has ended; sign in again"))
}

/// What is to be done to know the person again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Verify,
    Given,
}

fn proof(account: &Account, has_password: bool, now: DateTime<Utc>) -> Result<Proof> {
    if has_password {
        return Ok(Proof::Verify);
    }
    let age = now - account.started_at;
    if account.auth_factor == Factor::IdentityProvider.as_str() && age <= FRESH {
        return Ok(Proof::Given);
    }
    if account.password_hash.is_some() {
        return Err(Error::Invalid(
            "`password` is needed: whoever signs says once more who they are".to_owned(),
        ));
    }
    Err(Error::Unauthenticated(
        "sign in again at your identity provider and sign the record within 5 minutes",
    ))
}

/// Makes sure of the person.
///
/// # Errors
/// [`Error::Unauthenticated`]; [`Error::TooManyAttempts`]; [`Error::Invalid`] when a password is needed.
pub(super) async fn prove(
    app: &App,
    attempts: &Attempts,
    caller: &Caller,
    account: Account,
    password: Option<Secret>,
) -> Result<Factor> {
    let Proof::Verify = proof(&account, password.is_some(), app.clock.now())? else {
        return Ok(Factor::IdentityProvider);
    };
    attempts.login(caller.tenant.as_str(), &account.email, app.clock.now_us())?;
    let given = password.unwrap_or_else(|| Secret::new(""));
    if attempts.hashing.verify(given, account.password_hash).await? {
        Ok(Factor::Password)
    } else {
        Err(WRONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_elsewhere_stands_for_five_minutes_and_a_password_for_itself() {
        let now = Utc::now();
        let account = |password: bool, factor: &str, age_s: i64| Account {
            email: "a@b.c".to_owned(),
            password_hash: password.then(String::new),
            auth_factor: factor.to_owned(),
            started_at: now - TimeDelta::seconds(age_s),
        };
        let status = |account: &Account, given| match proof(account, given, now) {
            Ok(proof) => Ok(proof),
            Err(error) => Err(error.status().as_u16()),
        };
        assert_eq!(status(&account(true, "password", 9000), true), Ok(Proof::Verify));
        assert_eq!(
            status(&account(false, "identity_provider", 300), false),
            Ok(Proof::Given)
        );
        assert_eq!(status(&account(false, "identity_provider", 301), false), Err(401));
        assert_eq!(status(&account(true, "identity_provider", 301), false), Err(400));
        assert_eq!(status(&account(true, "password", 1), false), Err(400));
        assert_eq!(
            status(&account(false, "identity_provider", 1), true),
            Ok(Proof::Verify)
        );
    }
}
