//! Who may compute a password hash now? Only a few at once, because each takes tens of milliseconds and megabytes.
//! A password is verified for an account that does not exist as well, so that the answer takes as long.

use std::sync::LazyLock;

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    error::{Error, Result},
    kernel::{
        password::{self, PASSWORD_CHARS_MAX},
        secret::Secret,
    },
};

const AT_ONCE: usize = 4;

/// Verified against when there is no such account.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| password::hash("an account that does not exist").unwrap_or_default());

/// Computes what is verified for nobody, which would betray the first unknown account by its time.
pub fn warm_up() {
    LazyLock::force(&NOBODY);
}

/// Admits to the password hash.
#[derive(Debug)]
pub struct Hashing(Semaphore);

impl Default for Hashing {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Hashing {
    /// Whether `given` belongs to `stored`; never for an account without a password, after the same time.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub async fn verify(&self, given: Secret, stored: Option<String>) -> Result<bool> {
        self.turn(move || {
            let is_possible = stored.is_some() && given.expose().chars().count() <= PASSWORD_CHARS_MAX;
            let text = if is_possible { given.expose() } else { "" };
            // For nobody the answer is known; only the time it takes matters.
            let is_right = password::verify(text, stored.as_ref().unwrap_or(&NOBODY));
            is_right && is_possible
        })
        .await
    }

    /// Hashes a new password.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is too short, too long or the address itself.
    pub async fn hash(&self, password: Secret, email: &str) -> Result<String> {
        password::check(password.expose(), email).map_err(|refusal| Error::Invalid(refusal.to_string()))?;
        let hashed = self.turn(move || password::hash(password.expose())).await?;
        hashed.map_err(|refusal| Error::Invalid(refusal.to_string()))
    }

    async fn turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _turn = self
            .0
            .acquire()
            .await
            .map_err(|source| Error::Internal(source.into()))?;
        spawn_blocking(work)
            .await
            .map_err(|source| Error::Internal(source.into()))
    }
}
