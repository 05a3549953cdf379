//! Is this the person's password? Argon2id in PHC form. Both functions burn tens of milliseconds of CPU on
//! purpose: call them in `spawn_blocking`.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};

/// Fewest characters of a password that is set here.
pub const PASSWORD_CHARS_MIN: usize = 10;

/// Most characters of a password: a sentence fits, a file does not.
pub const PASSWORD_CHARS_MAX: usize = 1024;

/// A password that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short to be worth hashing.
    #[error("a password needs at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// Longer than anybody types.
    #[error("a password has at most {PASSWORD_CHARS_MAX} characters")]
    TooLong,
    /// The first thing that is tried.
    #[error("a password must not be the e-mail address")]
    IsAddress,
    /// Argon2 refused it (longer than it can take) or there was no randomness for the salt.
    #[error("the password cannot be hashed")]
    Unusable,
}

/// Whether a password may be set for the account of `email`.
///
/// # Errors
/// [`PasswordError`].
pub fn check(password: &str, email: &str) -> Result<(), PasswordError> {
    let chars = password.chars().count();
    if chars < PASSWORD_CHARS_MIN {
        Err(PasswordError::TooShort)
    } else if chars > PASSWORD_CHARS_MAX {
        Err(PasswordError::TooLong)
    } else if password.trim().to_lowercase() == email.to_lowercase() {
        Err(PasswordError::IsAddress)
    } else {
        Ok(())
    }
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

    #[test]
    fn a_password_is_of_sensible_length_and_not_the_address() {
        let check = |password: &str| check(password, "jo@akron.example");
        assert_eq!(check("correct horse"), Ok(()));
        assert_eq!(check(&"p".repeat(PASSWORD_CHARS_MAX)), Ok(()));
        assert_eq!(check("ü".repeat(9).as_str()), Err(PasswordError::TooShort));
        assert_eq!(
            check(&"p".repeat(PASSWORD_CHARS_MAX + 1)),
            Err(PasswordError::TooLong)
        );
        assert_eq!(check("Jo@Akron.example "), Err(PasswordError::IsAddress));
    }
}
