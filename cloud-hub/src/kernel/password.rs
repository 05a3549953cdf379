//! Is this the person's password? Argon2id in PHC form. Both functions burn tens of milliseconds of CPU on
//! purpose: call them in `spawn_blocking`.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};

/// Fewest characters of a password that is set here.
pub const PASSWORD_CHARS_MIN: usize = 10;

/// A password that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short to be worth hashing.
    #[error("a password needs at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// Argon2 refused it (longer than it can take) or there was no randomness for the salt.
    #[error("the password cannot be hashed")]
    Unusable,
}

/// Hashes a new password with a fresh salt.
///
/// # Errors
/// [`PasswordError`].
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(PasswordError::TooShort);
    }
    let hashed = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|_| PasswordError::Unusable)?;
    Ok(hashed.to_string())
}

/// Whether `password` belongs to the stored hash. A stored hash that cannot be read belongs to nobody.
pub fn verify(password: &str, stored: &str) -> bool {
    PasswordHash::new(stored).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(password.as_bytes(), &hash)
            .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_verifies() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(verify("correct horse", &stored));
        assert!(!verify("correct hors", &stored));
        assert!(!verify("correct horse", "no hash at all"));
    }

    #[test]
    fn a_short_password_is_refused() {
        assert_eq!(hash("short"), Err(PasswordError::TooShort));
    }
}
