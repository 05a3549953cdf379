//! Which certificate does this edge show the hub, and when does it ask for the next one? The key is made here and
//! never leaves; key and certificate lie in one file, so that they are always a pair.
//!
//! ```text
//! DATA/certificate/client.pem     the private key, then the chain, leaf first; owner only
//! DATA/certificate/next-key.pem   the key of a request that is not answered yet; owner only
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::Micros;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use x509_parser::{extensions::GeneralName, pem::Pem};

use crate::durable::{self, Step};

/// Longest chain that is looked at.
const CHAIN_BYTES_MAX: usize = 64 * 1024;
/// A request that is not answered is made again after this.
const ASK_AGAIN_US: Micros = 600_000_000;

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The file: key and chain, PEM.
    pub pem: Vec<u8>,
    /// Whom it names.
    pub subject: String,
    /// Valid from.
    pub not_before_us: Micros,
    /// Valid until.
    pub not_after_us: Micros,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject)
            .field("not_after_us", &self.not_after_us)
            .finish_non_exhaustive()
    }
}

/// Why there is no certificate, or why one is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The disk refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key cannot be made or read.
    #[error("the key: {0}")]
    Key(#[from] rcgen::Error),
    /// Not a chain of certificates.
    #[error("not a certificate chain in PEM, leaf first: {0}")]
    Malformed(String),
    /// It belongs to a key that this edge does not have.
    #[error("the certificate is for another key than the one this edge asked with")]
    OtherKey,
    /// It names somebody else.
    #[error("the certificate names {found}, not {wanted}")]
    OtherName {
        /// Whom it names.
        found: String,
        /// Who the edge is.
        wanted: String,
    },
    /// It is of no use any more.
    #[error("the certificate expired {0} s ago by the edge's clock")]
    Expired(i64),
}

impl Certificate {
    /// Whether it is time for the next one: two thirds of its life are over.
    pub fn is_renewal_due(&self, now_us: Micros) -> bool {
        let life_us = (self.not_after_us - self.not_before_us).max(0);
        now_us >= self.not_before_us + life_us / 3 * 2
    }

    /// Whether a server that looks at the time would take it, by the edge's clock.
    pub fn is_valid(&self, now_us: Micros) -> bool {
        (self.not_before_us..self.not_after_us).contains(&now_us)
    }
}

/// When a renewal was last asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Renewal {
    asked_us: Option<Micros>,
}

impl Renewal {
    /// Whether to ask now: for the first one, or for the next. Only while the hub is connected: requests that wait for
    /// weeks are of no use to anybody. A clock that was set back asks anew.
    pub fn is_due(&mut self, certificate: Option<&Certificate>, is_online: bool, now_us: Micros) -> bool {
        let is_asked = self
            .asked_us
            .is_some_and(|asked_us| (0..ASK_AGAIN_US).contains(&(now_us - asked_us)));
        let is_wanted = certificate.is_none_or(|certificate| certificate.is_renewal_due(now_us));
        if !is_online || is_asked || !is_wanted {
            return false;
        }
        self.asked_us = Some(now_us);
        true
    }

    /// It was answered.
    pub fn answered(&mut self) {
        self.asked_us = None;
    }
}

fn client_path(data_dir: &Path) -> PathBuf {
    data_dir.join("certificate").join("client.pem")
}

fn next_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("certificate").join("next-key.pem")
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CertificateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CertificateError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn written(path: &Path, steps: &[Step]) -> Result<(), CertificateError> {
    durable::perform(steps).map_err(|source| CertificateError::Io {
        path: path.to_owned(),
        source,
    })
}

/// The certificate that was installed last, expired or not.
///
/// # Errors
/// [`CertificateError`] when there is one that cannot be read.
pub fn load(data_dir: &Path) -> Result<Option<Certificate>, CertificateError> {
    let Some(pem) = read(&client_path(data_dir))? else {
        return Ok(None);
    };
    let leaf = leaf(&pem)?;
    Ok(Some(Certificate {
        pem,
        subject: leaf.subject,
        not_before_us: leaf.not_before_us,
        not_after_us: leaf.not_after_us,
    }))
}

/// A certificate signing request, PEM, for `TENANT/EDGE`. The key is made at the first request and kept until it is
/// answered, so that an answer that comes late still fits.
///
/// # Errors
/// [`CertificateError`] when the key cannot be kept.
pub fn request(data_dir: &Path, name: &str) -> Result<String, CertificateError> {
    let path = next_key_path(data_dir);
    let key = if let Some(pem) = read(&path)? {
        KeyPair::from_pem(&String::from_utf8_lossy(&pem))?
    } else {
        let key = KeyPair::generate()?;
        written(
            &path,
            &durable::replace(&path, key.serialize_pem().into_bytes(), 0o600),
        )?;
        key
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params.serialize_request(&key)?.pem()?)
}

/// Takes the answer to a request: checked against the keys that are here, the name and the clock, then installed
/// together with its key. The next connection uses it.
///
/// # Errors
/// [`CertificateError`]; then the old one stays.
pub fn install(
    data_dir: &Path,
    chain_pem: &str,
    name: &str,
    now_us: Micros,
) -> Result<Certificate, CertificateError> {
    if chain_pem.len() > CHAIN_BYTES_MAX {
        return Err(CertificateError::Malformed(format!(
            "{} bytes; at most {CHAIN_BYTES_MAX} are looked at",
            chain_pem.len()
        )));
    }
    let leaf = leaf(chain_pem.as_bytes())?;
    if !leaf.names.iter().any(|found| found == name) {
        return Err(CertificateError::OtherName {
            found: leaf.subject,
            wanted: name.to_owned(),
        });
    }
    if leaf.not_after_us <= now_us {
        return Err(CertificateError::Expired(
            (now_us - leaf.not_after_us) / 1_000_000,
        ));
    }
    let key_pem = key_of(data_dir, &leaf)?;
    let path = client_path(data_dir);
    written(&path, &install_steps(data_dir, &key_pem, chain_pem))?;
    load(data_dir)?.ok_or_else(|| CertificateError::Malformed("gone".to_owned()))
}

fn install_steps(data_dir: &Path, key_pem: &str, chain_pem: &str) -> Vec<Step> {
    let pem = format!("{}\n{}", key_pem.trim_end(), chain_pem);
    let mut steps = durable::replace(&client_path(data_dir), pem.into_bytes(), 0o600);
    steps.push(Step::Remove(next_key_path(data_dir)));
    steps
}

/// The private key that belongs to a certificate: the one asked with, or the one in use when it was asked for twice.
fn key_of(data_dir: &Path, leaf: &Leaf) -> Result<String, CertificateError> {
    for path in [next_key_path(data_dir), client_path(data_dir)] {
        let Some(pem) = read(&path)? else { continue };
        let pem = String::from_utf8_lossy(&pem);
        // The key stands first in both files.
        let end = pem.find("-----BEGIN CERTIFICATE-----").unwrap_or(pem.len());
        let key = KeyPair::from_pem(&pem[..end])?;
        if key.subject_public_key_info() == leaf.public_key {
            return Ok(key.serialize_pem());
        }
    }
    Err(CertificateError::OtherKey)
}

struct Leaf {
    subject: String,
    names: Vec<String>,
    public_key: Vec<u8>,
    not_before_us: Micros,
    not_after_us: Micros,
}

/// The first certificate of a PEM text; everything in it that calls itself a certificate must be one.
fn leaf(pem: &[u8]) -> Result<Leaf, CertificateError> {
    let malformed = |error: String| CertificateError::Malformed(error);
    let mut first = None;
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| malformed(error.to_string()))?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let certificate = block.parse_x509().map_err(|error| malformed(error.to_string()))?;
        if first.is_some() {
            continue;
        }
        let common_names = certificate.subject().iter_common_name();
        let mut names: Vec<String> = common_names
            .filter_map(|name| name.as_str().ok().map(str::to_owned))
            .collect();
        if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
            names.extend(
                alternative
                    .value
                    .general_names
                    .iter()
                    .filter_map(|name| match name {
                        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
                        _ => None,
                    }),
            );
        }
        let validity = certificate.validity();
        first = Some(Leaf {
            subject: certificate.subject().to_string(),
            names,
            public_key: certificate.public_key().raw.to_vec(),
            not_before_us: validity.not_before.timestamp().saturating_mul(1_000_000),
            not_after_us: validity.not_after.timestamp().saturating_mul(1_000_000),
        });
    }
    first.ok_or_else(|| malformed("no certificate in it".to_owned()))
}

#[cfg(test)]
mod tests;
