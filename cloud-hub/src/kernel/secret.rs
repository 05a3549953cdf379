//! How are secrets kept out of logs? They print as dots, and random ones are made here.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Text that never shows itself.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; the caller must not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("•••")
    }
}

/// A secret of `bytes` random bytes, in lower-case base 32 without look-alikes (no `0 1 l o`).
///
/// # Panics
/// When the operating system gives no random bytes; nothing secret could be made then.
pub fn random_text(bytes: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = vec![0u8; bytes];
    getrandom::fill(&mut random).expect("the operating system provides random bytes");
    let (mut bits, mut held, mut text) = (0u32, 0u32, String::with_capacity(bytes * 8 / 5 + 1));
    for byte in random {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(ALPHABET[(bits >> held) as usize & 31] as char);
        }
    }
    if held > 0 {
        text.push(ALPHABET[(bits << (5 - held)) as usize & 31] as char);
    }
    text
}

/// SHA-256 of a high-entropy secret, as it is stored.
pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_dots() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "•••");
    }

    #[test]
    fn random_secrets_carry_all_their_bits_and_differ() {
        assert_eq!(random_text(32).len(), 52);
        assert_ne!(random_text(32), random_text(32));
    }
}
