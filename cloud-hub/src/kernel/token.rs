//! Who is calling? The claims of a bearer token (JWT, HS256) and the key that signs them.

use std::{fmt, path::Path, sync::Arc};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    key_file::{self, KEY_BYTES},
    role::Role,
};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The user's id; nil for a token printed by `foodflow-hub token`.
    pub sub: Uuid,
    /// The tenant's slug: a token is good in one tenant only.
    pub tenant: String,
    /// The role it was issued for; decides only where `sub` is nil, else the account's grants do.
    pub role: Role,
    /// The session it belongs to; absent in a token that the command line printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Uuid>,
    /// Issued, seconds since 1970.
    pub iat: i64,
    /// Good until, seconds since 1970.
    pub exp: i64,
}

/// What the token of an operator of the platform says. It is signed under a key of its own: no tenant's token can be
/// one, and it is no tenant's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformClaims {
    /// Always [`PLATFORM_AUDIENCE`].
    pub aud: String,
    /// Who it was printed for, as the audit chains name them.
    pub sub: String,
    /// Issued, seconds since 1970.
    pub iat: i64,
    /// Good until, seconds since 1970.
    pub exp: i64,
}

/// What a platform operator's token is for.
pub const PLATFORM_AUDIENCE: &str = "foodflow-platform";

/// Why a token is refused. Callers learn no more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not ours, altered, or for another purpose.
    #[error("the token is not valid")]
    Invalid,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
}

/// Signs and verifies.
#[derive(Clone)]
pub struct SigningKey {
    encoding: Arc<EncodingKey>,
    decoding: Arc<DecodingKey>,
    /// The key of platform operators' tokens; follows from the same bytes.
    platform: Arc<(EncodingKey, DecodingKey)>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(•••)")
    }
}

impl SigningKey {
    /// A key from raw bytes.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let platform = Sha256::new()
            .chain_update(PLATFORM_AUDIENCE)
            .chain_update(bytes)
            .finalize();
        Self {
            encoding: Arc::new(EncodingKey::from_secret(bytes)),
            decoding: Arc::new(DecodingKey::from_secret(bytes)),
            platform: Arc::new((
                EncodingKey::from_secret(&platform),
                DecodingKey::from_secret(&platform),
            )),
        }
    }

    /// Reads `data_dir/signing.key`, making it (mode 0600) the first time.
    ///
    /// # Errors
    /// When the file can be neither read nor made, or is not a key.
    pub fn load_or_create(data_dir: &Path) -> std::io::Result<Self> {
        Ok(Self::from_bytes(&key_file::load_or_create(
            data_dir,
            "signing.key",
        )?))
    }

    /// Signs claims.
    ///
    /// # Panics
    /// Never: claims serialise and HS256 signs any bytes.
    pub fn issue(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .expect("claims serialise and HS256 signs any bytes")
    }

    /// Verifies a token at `now_us`.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &str, now_us: Micros) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        // The hub's clock decides, not the library's: the same claims are checked below.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        if claims.exp.saturating_mul(1_000_000) <= now_us {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    /// Signs the claims of an operator of the platform.
    ///
    /// # Panics
    /// Never: claims serialise and HS256 signs any bytes.
    pub fn issue_platform(&self, claims: &PlatformClaims) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.platform.0)
            .expect("claims serialise and HS256 signs any bytes")
    }

    /// Verifies the token of an operator of the platform at `now_us`.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify_platform(&self, token: &str, now_us: Micros) -> Result<PlatformClaims, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.set_audience(&[PLATFORM_AUDIENCE]);
        let claims = jsonwebtoken::decode::<PlatformClaims>(token, &self.platform.1, &validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        if claims.exp.saturating_mul(1_000_000) <= now_us {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            sub: Uuid::nil(),
            tenant: "akron".to_owned(),
            role: Role::Auditor,
            sid: None,
            iat: 100,
            exp: 200,
        }
    }

    #[test]
    fn a_token_is_good_until_it_expires_and_only_under_its_key() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let token = key.issue(&claims());
        assert_eq!(key.verify(&token, 199_999_999), Ok(claims()));
        assert_eq!(key.verify(&token, 200_000_000), Err(TokenError::Expired));
        let other = SigningKey::from_bytes(&[8; 32]);
        assert_eq!(other.verify(&token, 0), Err(TokenError::Invalid));
        assert_eq!(key.verify("nonsense", 0), Err(TokenError::Invalid));
    }

    #[test]
    fn a_platform_token_is_no_tenants_token_nor_the_other_way_round() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let operator = PlatformClaims {
            aud: PLATFORM_AUDIENCE.to_owned(),
            sub: "ops".to_owned(),
            iat: 100,
            exp: 200,
        };
        let token = key.issue_platform(&operator);
        assert_eq!(key.verify_platform(&token, 199_999_999), Ok(operator.clone()));
        assert_eq!(key.verify_platform(&token, 200_000_000), Err(TokenError::Expired));
        assert_eq!(key.verify(&token, 0), Err(TokenError::Invalid));
        assert_eq!(
            key.verify_platform(&key.issue(&claims()), 0),
            Err(TokenError::Invalid)
        );
        let elsewhere = key.issue_platform(&PlatformClaims {
            aud: "another".to_owned(),
            ..operator.clone()
        });
        assert_eq!(key.verify_platform(&elsewhere, 0), Err(TokenError::Invalid));
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &operator, &key.encoding).unwrap();
        assert_eq!(
            key.verify_platform(&forged, 0),
            Err(TokenError::Invalid),
            "signed with the tenants' key"
        );
    }

    #[test]
    fn the_key_is_made_once_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let token = SigningKey::load_or_create(dir.path()).unwrap().issue(&claims());
        let again = SigningKey::load_or_create(dir.path()).unwrap();
        assert_eq!(again.verify(&token, 0), Ok(claims()));
        let mode = std::fs::metadata(dir.path().join("signing.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
