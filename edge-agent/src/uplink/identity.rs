//! Who is this edge to the hub? The MQTT user and password that enrolment wrote, in one file that only its owner
//! may read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::durable;

/// MQTT credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `TENANT/EDGE`.
    pub mqtt_username: String,
    /// The device's secret.
    pub mqtt_password: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("mqtt_username", &self.mqtt_username)
            .field("mqtt_password", &"<redacted>")
            .finish()
    }
}

/// What a connection is made with. The password goes along with a certificate: which of the two counts is the hub's
/// decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The client certificate, and the password.
    Certificate,
    /// The password alone.
    Password,
}

impl Credential {
    /// Chooses for an attempt after so many failed ones. `is_valid` says whether there is a certificate and whether
    /// the edge's clock finds it valid. Attempts alternate, beginning with what should work: the clock may be wrong,
    /// and a hub that refuses an expired certificate may take the password.
    pub fn choose(is_valid: Option<bool>, failures: u32) -> Self {
        match is_valid {
            Some(is_valid) if is_valid == failures.is_multiple_of(2) => Self::Certificate,
            None | Some(_) => Self::Password,
        }
    }

    /// For the status page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Password => "password",
        }
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: is no identity ({source}); enrol again with `foodflow-edge enroll`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("identity.json")
}

/// Reads the identity; none before enrolment.
pub fn load(data_dir: &Path) -> Result<Option<Identity>, IdentityError> {
    let path = path(data_dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::Io { path, source }),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|source| IdentityError::Malformed { path, source })
}

/// Writes the identity so that only its owner may read it, whole or not at all.
pub fn save(data_dir: &Path, identity: &Identity) -> Result<PathBuf, IdentityError> {
    let path = path(data_dir);
    let written = (|| {
        fs::create_dir_all(data_dir)?;
        let text = serde_json::to_string_pretty(identity)?;
        durable::write_whole(&path, text.as_bytes(), 0o600)
    })();
    match written {
        Ok(()) => Ok(path),
        Err(source) => Err(IdentityError::Io { path, source }),
    }
}

fn hub_path(data_dir: &Path) -> PathBuf {
    data_dir.join("hub.json")
}

/// The hub's HTTP address, without a slash at its end, as this edge was enrolled there; none before.
///
/// # Errors
/// The disk's.
pub fn hub_url(data_dir: &Path) -> io::Result<Option<String>> {
    durable::load_json(&hub_path(data_dir))
}

/// Remembers the hub's HTTP address.
///
/// # Errors
/// The disk's.
pub fn save_hub_url(data_dir: &Path, url: &str) -> io::Result<()> {
    let path = hub_path(data_dir);
    durable::perform(&durable::replace_json(&path, &url.trim_end_matches('/'))?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_identity_is_readable_by_its_owner_only_and_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity {
            mqtt_username: "akron/akron-1".to_owned(),
            mqtt_password: "s3cret".to_owned(),
        };
        let path = save(directory.path(), &identity).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{identity:?}").contains("s3cret"));
        assert_eq!(load(directory.path()).unwrap(), Some(identity));
    }

    #[test]
    fn t11_an_expired_certificate_falls_back_to_the_password_and_a_wrong_clock_locks_nobody_out() {
        use Credential::{Certificate, Password};
        let attempts = |is_valid| [0, 1, 2].map(|failures| Credential::choose(is_valid, failures));
        assert_eq!(attempts(None), [Password; 3]);
        assert_eq!(attempts(Some(true)), [Certificate, Password, Certificate]);
        assert_eq!(attempts(Some(false)), [Password, Certificate, Password]);
    }

    #[test]
    fn before_enrolment_there_is_none() {
        assert_eq!(load(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }
}
