//! What does an API key look like? `ff_TENANT_ID_SECRET`: it names its tenant and its row, so that one look-up
//! finds it; only the secret's digest is stored.

use std::fmt;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{hex::hex, secret, tenancy::TenantSlug};

const PREFIX: &str = "ff";
const SECRET_BYTES: usize = 32;

/// A key as a caller presents it: which row, and the digest of what proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeySecret {
    id: Uuid,
    secret_sha256: [u8; 32],
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeySecret({})", self.id)
    }
}

impl ApiKeySecret {
    /// Makes a key: what the caller gets to see once, and what is stored.
    pub fn make(tenant: &TenantSlug, id: Uuid) -> (String, Self) {
        let secret = secret::random_text(SECRET_BYTES);
        let text = format!("{PREFIX}_{tenant}_{}_{secret}", id.simple());
        let secret_sha256 = secret::digest(&secret);
        (text, Self { id, secret_sha256 })
    }

    /// Reads a key; `None` for anything else.
    pub fn parse(text: &str) -> Option<(TenantSlug, Self)> {
        let mut parts = text.split('_');
        let (prefix, tenant, id, secret) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if prefix != PREFIX || parts.next().is_some() {
            return None;
        }
        let key = Self {
            id: Uuid::try_parse(id).ok()?,
            secret_sha256: secret::digest(secret),
        };
        Some((TenantSlug::parse(tenant).ok()?, key))
    }

    /// The key's row.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// SHA-256 of the secret, as it is stored.
    pub fn secret_sha256(&self) -> &[u8; 32] {
        &self.secret_sha256
    }

    /// Asks the tenant's schema what the key may do; no row when it is unknown, revoked or too old.
    pub(super) fn question(&self, now: DateTime<Utc>) -> String {
        let digest = hex(&self.secret_sha256);
        format!(
            "SELECT key_grants('{}', '\\x{digest}', '{}')",
            self.id,
            now.to_rfc3339()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_tenant_and_row_and_proves_itself() {
        let tenant = TenantSlug::parse("lake-shore").unwrap();
        let (text, made) = ApiKeySecret::make(&tenant, Uuid::from_u128(7));
        assert_eq!(ApiKeySecret::parse(&text), Some((tenant, made.clone())));
        let other = ApiKeySecret::parse(&(text.clone() + "x")).unwrap().1;
        assert_ne!(other.secret_sha256(), made.secret_sha256());
        assert!(!format!("{made:?}").contains(text.rsplit('_').next().unwrap()));
    }

    #[test]
    fn anything_else_is_no_key() {
        for text in [
            "",
            "x.y.z",
            "ff_a_b_c",
            "ff_akron_00000000000000000000000000000007",
            "gg_a_7_x",
            "ff_a';drop_00000000000000000000000000000007_s",
            "ff_akron_00000000000000000000000000000007_s_t",
        ] {
            assert_eq!(ApiKeySecret::parse(text), None, "{text}");
        }
    }
}
