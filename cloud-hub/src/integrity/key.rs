//! With what are the chain's daily roots signed? An Ed25519 key in the hub's data directory, which is not in the
//! database: whoever can rewrite the tables cannot sign what they then say.

use std::{fmt, path::Path, sync::Arc};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::kernel::key_file;

/// Name of the key's file.
pub const FILE: &str = "audit.key";

/// Signs roots.
#[derive(Clone)]
pub struct AuditKey(Arc<SigningKey>);

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", hex(&self.public()))
    }
}

impl AuditKey {
    /// A key from raw bytes.
    pub fn from_bytes(bytes: &[u8; key_file::KEY_BYTES]) -> Self {
        Self(Arc::new(SigningKey::from_bytes(bytes)))
    }

    /// Reads `data_dir/audit.key`, making it (mode 0600) the first time.
    ///
    /// # Errors
    /// When the file can be neither read nor made, or is not a key.
    pub fn load_or_create(data_dir: &Path) -> std::io::Result<Self> {
        Ok(Self::from_bytes(&key_file::load_or_create(data_dir, FILE)?))
    }

    /// What verifies its signatures; no secret.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs.
    pub(super) fn sign(&self, statement: &str) -> [u8; 64] {
        self.0.sign(statement.as_bytes()).to_bytes()
    }
}

/// Whether `signature` is by the holder of `public`.
pub(super) fn verifies(public: &[u8; 32], statement: &str, signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(public), Signature::from_slice(signature))
    else {
        return false;
    };
    // The strict form refuses keys and signatures that verify for more than one message.
    key.verify_strict(statement.as_bytes(), &signature).is_ok()
}

/// Bytes as people compare them.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// `N` bytes from hexadecimal digits, in either case.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_statement_and_its_key_only() {
        let key = AuditKey::from_bytes(&[7; 32]);
        let signature = key.sign("rows 1 to 9");
        assert!(verifies(&key.public(), "rows 1 to 9", &signature));
        assert!(!verifies(&key.public(), "rows 1 to 8", &signature));
        assert!(!verifies(
            &AuditKey::from_bytes(&[8; 32]).public(),
            "rows 1 to 9",
            &signature
        ));
        assert!(!verifies(&key.public(), "rows 1 to 9", &signature[1..]));
    }

    #[test]
    fn hexadecimal_digits_go_both_ways() {
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
        assert_eq!(from_hex::<3>("00ABff"), Some([0, 0xab, 0xff]));
        assert_eq!(from_hex::<3>("00abf"), None);
        assert_eq!(from_hex::<3>("00abfg"), None);
        assert_eq!(from_hex::<2>("éé"), None);
    }
}
