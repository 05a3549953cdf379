//! Who vouches for an edge's key? The hub's own certificate authority for devices, made once in the data directory.
//! Of a request only the public key is taken: name, use and time are the hub's words.

use std::{path::Path, sync::Arc};

use chrono::{DateTime, Duration, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::kernel::{hex::hex, key_file::place};

/// How long a device's certificate is good for; it asks for the next one long before.
const VALID_DAYS: i64 = 90;
/// A device whose clock is behind by less than this takes it at once.
const BACKDATED_HOURS: i64 = 1;
const AUTHORITY_VALID_DAYS: i64 = 20 * 365;
/// A request for an elliptic-curve key has some 500 bytes, one for a long RSA key some 3,000.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
const KEY_FILE: &str = "device-ca.key";
const CERTIFICATE_FILE: &str = "device-ca.crt";
/// Whom a certificate names: this and `TENANT/EDGE`, as a URI beside the common name.
pub(crate) const NAME_PREFIX: &str = "urn:foodflow:edge:";

/// Signs what edges ask for. Cloning it gives another handle on the same.
#[derive(Clone)]
pub struct DeviceAuthority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    certificate_pem: Arc<str>,
}

impl std::fmt::Debug for DeviceAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceAuthority")
    }
}

/// A certificate that was just signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Leaf first, then the authority; PEM.
    pub chain_pem: String,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// SHA-256 of the leaf (DER), in hexadecimal digits.
    pub fingerprint: String,
    /// From when it is good.
    pub not_before: DateTime<Utc>,
    /// Until when.
    pub not_after: DateTime<Utc>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// No request, or one whose own signature is wrong.
    #[error("the certificate request cannot be used: {0}; send PKCS #10 in PEM, signed by its own key")]
    Request(rcgen::Error),
    /// Larger than any request.
    #[error("the certificate request has {bytes} bytes; at most {REQUEST_BYTES_MAX} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The authority's key does not sign.
    #[error("the device authority cannot sign: {0}")]
    Authority(rcgen::Error),
}

fn broken(error: rcgen::Error) -> std::io::Error {
    std::io::Error::other(error)
}

impl DeviceAuthority {
    /// Reads `device-ca.key` and `device-ca.crt` in `data_dir`, making them the first time: ECDSA on P-256.
    ///
    /// # Errors
    /// When the files can be neither read nor made, or are no key and certificate.
    pub fn load_or_create(data_dir: &Path, now: DateTime<Utc>) -> std::io::Result<Self> {
        let (key_path, path) = (data_dir.join(KEY_FILE), data_dir.join(CERTIFICATE_FILE));
        if !key_path.exists() {
            let key = KeyPair::generate().map_err(broken)?;
            place(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
        }
        let key = KeyPair::from_pem(&std::fs::read_to_string(&key_path)?).map_err(broken)?;
        if !path.exists() {
            let made = own_params(now).self_signed(&key).map_err(broken)?;
            place(&path, made.pem().as_bytes(), 0o644)?;
        }
        let certificate_pem = std::fs::read_to_string(&path)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(broken)?;
        Ok(Self {
            issuer: Arc::new(issuer),
            certificate_pem: certificate_pem.into(),
        })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs the key of a request for one edge, from an hour before `now` for 90 days.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(
        &self,
        csr_pem: &str,
        (tenant, edge): (&str, &str),
        now: DateTime<Utc>,
    ) -> Result<Issued, SignError> {
        if csr_pem.len() > REQUEST_BYTES_MAX {
            return Err(SignError::TooLarge { bytes: csr_pem.len() });
        }
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(SignError::Request)?;
        let number = Uuid::now_v7();
        let (not_before, not_after) = (
            now - Duration::hours(BACKDATED_HOURS),
            now + Duration::days(VALID_DAYS),
        );
        request.params = device_params(&format!("{tenant}/{edge}"), number, not_before, not_after)
            .map_err(SignError::Authority)?;
        let leaf = request.signed_by(&self.issuer).map_err(SignError::Authority)?;
        Ok(Issued {
            chain_pem: leaf.pem() + &self.certificate_pem,
            serial: hex(number.as_bytes()),
            fingerprint: hex(&Sha256::digest(leaf.der())),
            not_before,
            not_after,
        })
    }
}

fn own_params(now: DateTime<Utc>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("FoodFlow device authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now - Duration::hours(BACKDATED_HOURS));
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(now + Duration::days(AUTHORITY_VALID_DAYS));
    params
}

fn device_params(
    name: &str,
    number: Uuid,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.subject_alt_names = vec![SanType::URI(format!("{NAME_PREFIX}{name}").try_into()?)];
    params.serial_number = Some(SerialNumber::from_slice(number.as_bytes()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(not_before);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(not_after);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Certificates have whole seconds.
fn since_1970(at: DateTime<Utc>) -> std::time::Duration {
    std::time::Duration::from_secs(at.timestamp().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate, parse_x509_pem};

    use super::*;

    fn request(params: &CertificateParams) -> String {
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn the_authority_is_made_once_and_its_key_is_its_owners_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let made = DeviceAuthority::load_or_create(dir.path(), now).unwrap();
        let again = DeviceAuthority::load_or_create(dir.path(), now).unwrap();
        assert_eq!(made.certificate_pem(), again.certificate_pem());
        let mode = std::fs::metadata(dir.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_names_whom_the_hub_says_whatever_the_request_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let authority = DeviceAuthority::load_or_create(dir.path(), now).unwrap();
        let mut greedy = CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.distinguished_name = named("cuyahoga/e1");
        let issued = authority.sign(&request(&greedy), ("akron", "e1"), now).unwrap();
        let (_, pem) = parse_x509_pem(issued.chain_pem.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&pem.contents).unwrap();
        let (_, own) = parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
        let (_, own) = X509Certificate::from_der(&own.contents).unwrap();
        assert!(!leaf.is_ca() && own.is_ca());
        assert!(leaf.verify_signature(Some(own.public_key())).is_ok());
        let names: Vec<&str> = leaf
            .subject()
            .iter_common_name()
            .filter_map(|it| it.as_str().ok())
            .collect();
        assert_eq!(names, ["akron/e1"]);
        assert!(!format!("{:?}", leaf.extensions()).contains("hub.example"));
        assert_eq!(
            leaf.validity().not_after.timestamp(),
            issued.not_after.timestamp()
        );
        assert_eq!(hex(leaf.raw_serial()), issued.serial);
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let authority = DeviceAuthority::load_or_create(dir.path(), now).unwrap();
        for wrong in [
            "",
            "x",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            let error = authority.sign(wrong, ("akron", "e1"), now).unwrap_err();
            assert!(error.to_string().contains("PKCS #10"), "{error}");
        }
        let long = "x".repeat(REQUEST_BYTES_MAX + 1);
        assert!(matches!(
            authority.sign(&long, ("akron", "e1"), now),
            Err(SignError::TooLarge { .. })
        ));
    }
}
