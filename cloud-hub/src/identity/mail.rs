//! What does the hub write to people? Letters that are queued in the transaction of the deed they tell of, sealed,
//! because some carry a token. Sending them is `mail_sender`'s.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use super::one_time::Purpose;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::tenancy::{TenantSlug, TenantTx},
};

/// A letter that says what happened is of no use after some days.
const NOTICE_VALID: chrono::TimeDelta = chrono::TimeDelta::days(3);

/// What a letter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter<'a> {
    /// The address is to be verified.
    VerifyEmail(&'a str),
    /// A new password may be set.
    ResetPassword(&'a str),
    /// An account was made; its first password may be set.
    Invitation(&'a str),
    /// Somebody registered with an address that has an account.
    AccountExists,
    /// The password was changed.
    PasswordChanged,
}

/// A letter as it is queued.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) subject: String,
    pub(super) text: String,
}

impl Letter<'_> {
    const fn kind(self) -> &'static str {
        match self {
            Self::VerifyEmail(_) => "verify_email",
            Self::ResetPassword(_) => "reset_password",
            Self::Invitation(_) => "invitation",
            Self::AccountExists => "account_exists",
            Self::PasswordChanged => "password_changed",
        }
    }

    const fn valid_for(self) -> chrono::TimeDelta {
        match self {
            Self::VerifyEmail(_) => Purpose::VerifyEmail.valid_for(),
            Self::ResetPassword(_) => Purpose::ResetPassword.valid_for(),
            Self::Invitation(_) => Purpose::Invitation.valid_for(),
            Self::AccountExists | Self::PasswordChanged => NOTICE_VALID,
        }
    }

    /// The letter in words. It holds nothing that a stranger typed, so that nobody can make the hub write for them.
    fn write(self, tenant: &TenantSlug, public_url: Option<&str>) -> Written {
        let (subject, text) = match self {
            Self::VerifyEmail(token) => (
                "Verify your e-mail address",
                format!(
                    "Somebody registered with this address at FoodFlow OS ({tenant}). If that was you, verify the \
                     address within 24 hours:\n\n{}\nIf it was not you, do nothing.\n",
                    way("verify-email", token, public_url)
                ),
            ),
            Self::ResetPassword(token) => (
                "Set a new password",
                format!(
                    "A new password was asked for your account at FoodFlow OS ({tenant}). Set it within 30 minutes:\
                     \n\n{}\nIf you did not ask, do nothing: your password stays as it is.\n",
                    way("recover", token, public_url)
                ),
            ),
            Self::Invitation(token) => (
                "Your account at FoodFlow OS",
                format!(
                    "An account was made for you at FoodFlow OS ({tenant}). Set your password within 7 days:\n\n{}",
                    way("recover", token, public_url)
                ),
            ),
            Self::AccountExists => (
                "You have an account already",
                format!(
                    "Somebody registered with this address at FoodFlow OS ({tenant}), where it has an account \
                     already. If that was you, sign in, or ask for a new password. If it was not you, do nothing.\n"
                ),
            ),
            Self::PasswordChanged => (
                "Your password was changed",
                format!(
                    "The password of your account at FoodFlow OS ({tenant}) was changed, and other sessions were \
                     ended. If it was not you, tell your administrator now.\n"
                ),
            ),
        };
        Written {
            subject: subject.to_owned(),
            text,
        }
    }
}

/// The page of the dashboard that takes the token, and the token by itself for whoever does not use the dashboard.
fn way(page: &str, token: &str, public_url: Option<&str>) -> String {
    let link = public_url.map_or_else(String::new, |url| {
        format!("    {url}/{page}?token={token}\n\nor with this code:\n\n")
    });
    format!("{link}    {token}\n")
}

/// To whom.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// Their account.
    pub user_id: Uuid,
    /// Where they read it.
    pub email: &'a str,
}

/// Queues a letter; it is sent once the transaction is committed. Ring [`Bell::ring`] then to have it sent at once.
///
/// # Errors
/// What the database refuses.
pub async fn queue(tx: &mut TenantTx, app: &App, to: Recipient<'_>, letter: Letter<'_>) -> Result<()> {
    let id = Uuid::now_v7();
    let written = letter.write(tx.tenant(), app.config.http.public_url.as_deref());
    let plain = serde_json::to_vec(&written).map_err(|source| Error::Internal(source.into()))?;
    let now = tx.at();
    sqlx::query(
        "INSERT INTO mail_message (id, kind, user_id, recipient, letter, created_at, next_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7)",
    )
    .bind(id)
    .bind(letter.kind())
    .bind(to.user_id)
    .bind(app.sealing_key.seal(&recipient_of(id), to.email.as_bytes()))
    .bind(app.sealing_key.seal(&letter_of(id), &plain))
    .bind(now)
    .bind(now + letter.valid_for())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What the address of a message is sealed for.
pub(super) fn recipient_of(id: Uuid) -> String {
    format!("mail_message.recipient {id}")
}

/// What the text of a message is sealed for.
pub(super) fn letter_of(id: Uuid) -> String {
    format!("mail_message.letter {id}")
}

/// Tells the sender that a tenant has mail.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Rung>);

#[derive(Debug, Default)]
struct Rung {
    tenants: Mutex<BTreeSet<TenantSlug>>,
    notify: Notify,
}

impl Bell {
    /// A tenant has mail.
    pub fn ring(&self, tenant: &TenantSlug) {
        let mut tenants = self.0.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.insert(tenant.clone());
        drop(tenants);
        self.0.notify.notify_one();
    }

    /// Waits until some tenant has mail, and says which do.
    pub(super) async fn rung(&self) -> BTreeSet<TenantSlug> {
        self.0.notify.notified().await;
        std::mem::take(&mut *self.0.tenants.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_links_to_the_page_that_takes_its_token_or_gives_the_token_alone() {
        let akron = TenantSlug::parse("akron").unwrap();
        let with = Letter::ResetPassword("akron.t0ken").write(&akron, Some("https://plant.example"));
        assert!(
            with.text
                .contains("https://plant.example/recover?token=akron.t0ken\n"),
            "{}",
            with.text
        );
        let without = Letter::Invitation("akron.t0ken").write(&akron, None);
        assert!(without.text.contains("\n    akron.t0ken\n") && !without.text.contains('?'));
    }

    #[tokio::test]
    async fn a_bell_rung_before_anybody_listens_is_heard() {
        let bell = Bell::default();
        for tenant in ["b", "a", "a"] {
            bell.ring(&TenantSlug::parse(tenant).unwrap());
        }
        let heard: Vec<String> = bell.rung().await.iter().map(ToString::to_string).collect();
        assert_eq!(heard, ["a", "b"]);
    }
}
