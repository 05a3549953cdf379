//! How does the hub keep a secret that it must be able to use again: a webhook's key, a client secret, a mail not
//! sent yet? Sealed with XChaCha20-Poly1305 under a key that is not in the database, and bound to its purpose.

use std::{fmt, path::Path, sync::Arc};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

use super::key_file;

const NONCE_BYTES: usize = 24;

/// The sealed bytes were altered, sealed for another purpose, or under another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed secret cannot be opened: was the hub's `sealing.key` replaced?")]
pub struct CannotOpen;

/// Seals and opens.
#[derive(Clone)]
pub struct SealingKey(Arc<XChaCha20Poly1305>);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(•••)")
    }
}

impl SealingKey {
    /// A key from raw bytes.
    pub fn from_bytes(bytes: &[u8; key_file::KEY_BYTES]) -> Self {
        Self(Arc::new(XChaCha20Poly1305::new(bytes.into())))
    }

    /// Reads `data_dir/sealing.key`, making it the first time.
    ///
    /// # Errors
    /// When the file can be neither read nor made, or is not a key.
    pub fn load_or_create(data_dir: &Path) -> std::io::Result<Self> {
        Ok(Self::from_bytes(&key_file::load_or_create(
            data_dir,
            "sealing.key",
        )?))
    }

    /// Seals: 24 bytes of nonce, then the text and its tag. `purpose` names the row and column it is for.
    ///
    /// # Panics
    /// When the operating system gives no random bytes.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the operating system provides random bytes");
        let payload = Payload {
            msg: plain,
            aad: purpose.as_bytes(),
        };
        let sealed = self.0.encrypt(XNonce::from_slice(&nonce), payload);
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed.expect("texts here are far shorter than the cipher's limit"));
        bytes
    }

    /// Opens what was sealed for the same purpose.
    ///
    /// # Errors
    /// [`CannotOpen`].
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let (nonce, text) = sealed.split_at_checked(NONCE_BYTES).ok_or(CannotOpen)?;
        let payload = Payload {
            msg: text,
            aad: purpose.as_bytes(),
        };
        self.0
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| CannotOpen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_under_its_key_for_its_purpose_and_unaltered_only() {
        let key = SealingKey::from_bytes(&[7; 32]);
        let sealed = key.seal("webhook 1", b"secret");
        assert_eq!(key.open("webhook 1", &sealed).unwrap(), b"secret");
        assert_eq!(key.open("webhook 2", &sealed), Err(CannotOpen));
        assert_eq!(
            SealingKey::from_bytes(&[8; 32]).open("webhook 1", &sealed),
            Err(CannotOpen)
        );
        let mut altered = sealed.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert_eq!(key.open("webhook 1", &altered), Err(CannotOpen));
        assert_eq!(key.open("webhook 1", b"short"), Err(CannotOpen));
        assert_ne!(sealed, key.seal("webhook 1", b"secret"), "never the same twice");
    }
}
