//! With what are the chain's daily roots signed? An Ed25519 key in the hub's data directory, which is not in the
//! database: whoever can rewrite the tables cannot sign what they then say.

use std::{fmt, io, path::Path, sync::Arc};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::kernel::{
    hex::{from_hex, hex},
    key_file,
};

/// Name of the key's file.
pub const FILE: &str = "audit.key";

/// Name of the file that lists further keys to believe: one public key a line, hexadecimal; `#` begins a remark.
/// For roots from before the key was replaced, and of tenants that came from another hub.
pub const TRUSTED_FILE: &str = "audit-trusted.txt";

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

/// The further keys of a data directory; none when there is no file.
///
/// # Errors
/// When the file cannot be read, or a line is no key.
pub fn trusted(data_dir: &Path) -> io::Result<Vec<[u8; 32]>> {
    let path = data_dir.join(TRUSTED_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let said = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    let keys = said.filter(|key| !key.is_empty()).map(|key| {
        from_hex(key).ok_or_else(|| io::Error::other(format!("{}: `{key}` is no key", path.display())))
    });
    keys.collect()
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
    fn further_keys_are_listed_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(trusted(dir.path()).unwrap().is_empty());
        let file = dir.path().join(TRUSTED_FILE);
        let text = format!(
            "# before 2026\n{}\n\n {} # Dayton\n",
            "0a".repeat(32),
            "FF".repeat(32)
        );
        std::fs::write(&file, text).unwrap();
        assert_eq!(trusted(dir.path()).unwrap(), [[10; 32], [255; 32]]);
        std::fs::write(&file, "nonsense").unwrap();
        assert!(trusted(dir.path()).is_err());
    }
}
