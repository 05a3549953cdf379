//! Whom does the agent trust, and how do servers know it? The agent's own certificate is made once and kept, with one
//! application URI for ever; the certificate of each server is pinned by the server's name.
//!
//! ```text
//! opcua-pki/own/application-uri     the URI, text
//! opcua-pki/own/cert.der            the agent's certificate, valid ten years
//! opcua-pki/private/private.pem     its key, mode 0600 in a directory of mode 0700
//! opcua-pki/trusted/SERVER.der      the certificate that a person accepted for this server
//! opcua-pki/rejected/SERVER.der     the last one that was refused
//! opcua-pki/session/                the library's own store, which sees only what was accepted here
//! ```

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use opcua::crypto::{CertificateStore, X509, X509Data};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    durable,
    hex::{hex, unhex},
};

const KEY_BITS: u32 = 2048;
const VALID_DAYS: u32 = 3_650;
/// Largest certificate that is looked at.
const CERTIFICATE_BYTES_MAX: usize = 32 * 1024;
/// Largest file that is imported.
const EXPORT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate cannot be made or read.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The agent's certificates and those of its servers.
#[derive(Clone, Debug)]
pub struct Pki {
    directory: PathBuf,
    application_uri: String,
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// SHA-256 over the DER, lower-case hex in groups of four.
    pub fingerprint: String,
    /// Who it is of.
    pub subject: String,
    /// First moment of its validity, microseconds since 1970.
    pub not_before_us: Micros,
    /// Last moment of its validity, microseconds since 1970.
    pub not_after_us: Micros,
}

/// Why a server's certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody has accepted a certificate of this server.
    Unknown(Facts),
    /// Another one was accepted.
    Changed {
        /// What the server shows now.
        shown: Facts,
        /// Fingerprint of the one that was accepted.
        trusted: String,
    },
    /// It is not valid any more, or not yet.
    OutOfTime(Facts),
    /// It cannot be read.
    Malformed,
}

impl Refusal {
    /// What is wrong and what to do, for people.
    pub fn message(&self, server: &str) -> String {
        let remedy =
            format!("if that is expected, run `foodflow-edge trust --config FILE --data-dir DIR {server}`");
        match self {
            Self::Unknown(facts) => format!(
                "the certificate of `{server}` is not trusted yet: fingerprint {}, of {}; compare it at the server, then run \
                 `foodflow-edge trust --config FILE --data-dir DIR {server}`",
                facts.fingerprint, facts.subject
            ),
            Self::Changed { shown, trusted } => format!(
                "the certificate of `{server}` has changed: it shows {}, trusted was {trusted}; {remedy}",
                shown.fingerprint
            ),
            Self::OutOfTime(facts) => format!(
                "the certificate of `{server}` is valid from {} to {} only; renew it at the server, or set the clock of \
                 this machine",
                day(facts.not_before_us),
                day(facts.not_after_us)
            ),
            Self::Malformed => format!("`{server}` shows something that is no certificate"),
        }
    }
}

/// The day of a time, UTC, as `2026-03-01`.
pub fn day(time_us: Micros) -> String {
    chrono::DateTime::from_timestamp_micros(time_us).map_or_else(
        || "an unknown day".to_owned(),
        |time| time.format("%Y-%m-%d").to_string(),
    )
}

/// Reads what a certificate says about itself; none when it is no certificate.
pub fn facts(der: &[u8]) -> Option<Facts> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return None;
    }
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    // What follows is the chain, which some servers send along.
    let own = &der[..der.len() - rest.len()];
    Some(Facts {
        fingerprint: fingerprint(own),
        subject: certificate.subject().to_string(),
        not_before_us: certificate
            .validity()
            .not_before
            .timestamp()
            .saturating_mul(1_000_000),
        not_after_us: certificate
            .validity()
            .not_after
            .timestamp()
            .saturating_mul(1_000_000),
    })
}

/// SHA-256 in lower-case hex, in groups of four for reading aloud.
pub fn fingerprint(der: &[u8]) -> String {
    let digest = Sha256::digest(der);
    let groups: Vec<String> = digest.chunks(2).map(hex).collect();
    groups.join(" ")
}

/// Judges the certificate that a server shows against the one that was accepted for it. Pure.
pub fn judge(shown: &[u8], trusted: Option<&[u8]>, now_us: Micros) -> Result<Facts, Refusal> {
    let facts = facts(shown).ok_or(Refusal::Malformed)?;
    match trusted {
        None => Err(Refusal::Unknown(facts)),
        Some(trusted) if trusted != shown => Err(Refusal::Changed {
            shown: facts,
            trusted: fingerprint(trusted),
        }),
        Some(_) if now_us < facts.not_before_us || now_us > facts.not_after_us => {
            Err(Refusal::OutOfTime(facts))
        }
        Some(_) => Ok(facts),
    }
}

impl Pki {
    /// Opens the store, making its directories and the application URI the first time.
    ///
    /// # Errors
    /// When a directory or file cannot be made or read.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        // The library joins a relative path to its own store, finds no certificate there, and panics.
        let directory = &std::path::absolute(directory).map_err(io_error(directory))?;
        for part in ["own", "private", "trusted", "rejected", "session"] {
            let path = directory.join(part);
            let mode = if part == "private" { 0o700 } else { 0o755 };
            let made = DirBuilder::new().recursive(true).mode(mode).create(&path);
            made.map_err(io_error(&path))?;
        }
        let path = directory.join("own/application-uri");
        let application_uri = match fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let uri = format!("urn:foodflow:edge:{}", Uuid::now_v7());
                write_whole(&path, uri.as_bytes(), 0o644)?;
                uri
            }
            Err(error) => return Err(io_error(&path)(error)),
        };
        Ok(Self {
            directory: directory.to_owned(),
            application_uri,
        })
    }

    /// The agent's name among OPC UA applications; the same for as long as the store lives.
    pub fn application_uri(&self) -> &str {
        &self.application_uri
    }

    /// Where the agent's certificate is, DER.
    pub fn own_certificate(&self) -> PathBuf {
        self.directory.join("own/cert.der")
    }

    /// Where its key is, PEM.
    pub fn own_key(&self) -> PathBuf {
        self.directory.join("private/private.pem")
    }

    /// The store that the library works in.
    pub fn session_store(&self) -> PathBuf {
        self.directory.join("session")
    }

    /// Makes the agent's certificate unless there is one. Takes seconds the first time: not for an async thread.
    ///
    /// # Errors
    /// When the certificate or its key cannot be made or written, or when only one of the two is there.
    pub fn ensure_own(&self) -> Result<(), PkiError> {
        let (certificate, key) = (self.own_certificate(), self.own_key());
        match (certificate.exists(), key.exists()) {
            (true, true) => return self.own_is_sound(),
            (false, false) => {}
            (has_certificate, _) => {
                let missing = if has_certificate { key } else { certificate };
                return Err(PkiError::Malformed {
                    path: missing,
                    reason: "is missing while its counterpart is there; restore it with `foodflow-edge trust --import \
                             FILE`, or remove the counterpart to make both anew"
                        .to_owned(),
                });
            }
        }
        let data = X509Data {
            key_size: KEY_BITS,
            common_name: "FoodFlow OS edge agent".to_owned(),
            organization: "FoodFlow OS".to_owned(),
            organizational_unit: String::new(),
            country: String::new(),
            state: String::new(),
            // The URI comes first, which servers compare with the application's; the host's name only helps people.
            alt_host_names: X509Data::alt_host_names(&self.application_uri, None, false, true, false),
            certificate_duration_days: VALID_DAYS,
        };
        let made = CertificateStore::create_certificate_and_key(&data, true, &certificate, &key);
        made.map_err(|reason| PkiError::Malformed {
            path: certificate,
            reason,
        })?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).map_err(io_error(&key))
    }

    /// Whether the library can read what is there: it panics later where it cannot.
    fn own_is_sound(&self) -> Result<(), PkiError> {
        let malformed = |path: PathBuf| move |reason: String| PkiError::Malformed { path, reason };
        let certificate = self.own_certificate();
        CertificateStore::read_cert(&certificate).map_err(malformed(certificate))?;
        let key = self.own_key();
        CertificateStore::read_pkey(&key).map_err(malformed(key))?;
        Ok(())
    }

    /// What the agent's own certificate says; none before there is one.
    pub fn own_facts(&self) -> Option<Facts> {
        facts(&fs::read(self.own_certificate()).ok()?)
    }

    /// The certificate that was accepted for a server.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn trusted(&self, server: &str) -> Result<Option<Vec<u8>>, PkiError> {
        let path = self.pin("trusted", server);
        match fs::read(&path) {
            Ok(der) => Ok(Some(der)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// Accepts a certificate for a server, in place of any other.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn trust(&self, server: &str, der: &[u8]) -> Result<(), PkiError> {
        write_whole(&self.pin("trusted", server), der, 0o644)?;
        let rejected = self.pin("rejected", server);
        match fs::remove_file(&rejected) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&rejected)(error)),
            _ => Ok(()),
        }
    }

    /// Keeps a certificate that was refused, for people to look at.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn reject(&self, server: &str, der: &[u8]) -> Result<(), PkiError> {
        let path = self.pin("rejected", server);
        let is_kept = fs::read(&path).is_ok_and(|kept| kept == der);
        if is_kept || der.len() > CERTIFICATE_BYTES_MAX {
            return Ok(());
        }
        write_whole(&path, der, 0o644)
    }

    fn pin(&self, directory: &str, server: &str) -> PathBuf {
        self.directory
            .join(directory)
            .join(format!("{}.der", file_name(server)))
    }

    /// Everything that makes the agent the same application after a reinstallation, as one text. It holds the key.
    ///
    /// # Errors
    /// When there is no certificate yet, or a file cannot be read.
    pub fn export(&self) -> Result<String, PkiError> {
        let read = |path: PathBuf| fs::read(&path).map_err(io_error(&path));
        let mut trusted = Vec::new();
        let directory = self.directory.join("trusted");
        for entry in fs::read_dir(&directory).map_err(io_error(&directory))? {
            let path = entry.map_err(io_error(&directory))?.path();
            if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
                trusted.push((name.to_owned(), hex(&read(path.clone())?)));
            }
        }
        let exported = Exported {
            application_uri: self.application_uri.clone(),
            certificate_hex: hex(&read(self.own_certificate())?),
            key_hex: hex(&read(self.own_key())?),
            trusted,
        };
        serde_json::to_string_pretty(&exported).map_err(|error| PkiError::Malformed {
            path: self.directory.clone(),
            reason: error.to_string(),
        })
    }

    /// Takes over what [`export`](Self::export) gave, in place of what is there.
    ///
    /// # Errors
    /// When the file cannot be read or is no export, or when the store cannot be written.
    pub fn import(directory: &Path, file: &Path) -> Result<Self, PkiError> {
        let malformed = |reason: String| PkiError::Malformed {
            path: file.to_owned(),
            reason,
        };
        let size = fs::metadata(file).map_err(io_error(file))?.len();
        if size > EXPORT_BYTES_MAX {
            return Err(malformed(format!("is {size} bytes long, which no export is")));
        }
        let text = fs::read_to_string(file).map_err(io_error(file))?;
        let exported: Exported = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let bytes =
            |text: &str| unhex(text).ok_or_else(|| malformed("holds broken hexadecimal text".to_owned()));
        let certificate = bytes(&exported.certificate_hex)?;
        let key = bytes(&exported.key_hex)?;
        let is_ours = X509::from_der(&certificate).is_ok_and(|certificate| {
            certificate
                .is_application_uri_valid(&exported.application_uri)
                .is_ok()
        });
        if !is_ours {
            return Err(malformed(
                "its certificate is not of its application URI".to_owned(),
            ));
        }
        let pki = Self::open(directory)?;
        let uri = pki.directory.join("own/application-uri");
        write_whole(&uri, exported.application_uri.as_bytes(), 0o644)?;
        write_whole(&pki.own_certificate(), &certificate, 0o644)?;
        write_whole(&pki.own_key(), &key, 0o600)?;
        for (name, der) in &exported.trusted {
            // The name comes from a file: nothing but a plain name may become part of a path.
            if name.starts_with('.') || !name.chars().all(|c| is_plain(c) || c == '%') {
                return Err(malformed(format!("`{name}` is no name of a server")));
            }
            let path = pki.directory.join("trusted").join(format!("{name}.der"));
            write_whole(&path, &bytes(der)?, 0o644)?;
        }
        Self::open(directory)
    }
}

/// No Debug: it holds the key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    application_uri: String,
    certificate_hex: String,
    key_hex: String,
    trusted: Vec<(String, String)>,
}

/// A server's name as a file's: what is no letter, digit, `-`, `_` or `.` stands as `%` and its bytes.
fn file_name(server: &str) -> String {
    let mut name = String::new();
    for c in server.chars() {
        if is_plain(c) && !(c == '.' && name.is_empty()) {
            name.push(c);
        } else {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).bytes();
            name.extend(bytes.map(|byte| format!("%{byte:02x}")));
        }
    }
    name
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::Io { path, source }
}

/// Writes a file whole or not at all.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    durable::write_whole(path, bytes, mode).map_err(io_error(path))
}

#[cfg(test)]
#[path = "pki_tests.rs"]
mod tests;
