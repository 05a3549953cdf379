//! May this version be installed here? A manifest is believed only when a key that the local file names signed its
//! bytes; it must be for this machine and newer than what runs. Pure.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::hex;

/// Longest manifest that is looked at.
pub const MANIFEST_BYTES_MAX: usize = 16 * 1024;
/// Largest program that is taken.
pub const PROGRAM_BYTES_MAX: u64 = 512 << 20;

/// A version, `1.2.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = text.split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(format!("`{text}` is no version: write three numbers, like 1.2.3")),
        }
    }
}

/// This program's version.
///
/// # Panics
/// Never: a test reads it.
pub fn running() -> Version {
    env!("CARGO_PKG_VERSION")
        .parse()
        .expect("the package's version is three numbers")
}

/// This program's target, like `x86_64-unknown-linux-gnu`.
pub fn target() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!(
        "{}-unknown-{}-{libc}",
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

/// What a release says about one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its version.
    pub version: Version,
    /// What it runs on.
    pub target: String,
    /// SHA-256 of the program, hex.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
    /// Where it lies: `https://…`, or `http://…`, for the hash is signed; none: at the hub, by its hash.
    pub url: Option<String>,
    /// The oldest version that can be followed by this one; none: any.
    pub min_version: Option<Version>,
    /// Day of the release.
    pub released: String,
}

/// Why a version is not installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No key is trusted.
    #[error("this edge installs no versions: `update.trusted_keys` in its local file is empty")]
    NoKeys,
    /// None of the trusted keys signed it.
    #[error("the manifest is not signed by a key in `update.trusted_keys` of the local file")]
    Unsigned,
    /// Signed, and still no manifest.
    #[error("not a manifest: {0}")]
    Malformed(String),
    /// For another machine.
    #[error("it is for {found}; this edge is {wanted}")]
    OtherTarget {
        /// The manifest's.
        found: String,
        /// This machine's.
        wanted: String,
    },
    /// Older than what runs.
    #[error("version {offered} is older than {running}, which runs; there is no way back but a new version")]
    Downgrade {
        /// The manifest's.
        offered: Version,
        /// What runs.
        running: Version,
    },
    /// A version in between is needed.
    #[error("version {running} must first become {min_version}")]
    TooOld {
        /// What runs.
        running: Version,
        /// What must run.
        min_version: Version,
    },
}

/// Reads a manifest that one of `keys` signed.
///
/// # Errors
/// [`ManifestError`]; bytes that nobody signed are not even parsed.
pub fn verify(bytes: &[u8], signature: &[u8], keys: &[VerifyingKey]) -> Result<Manifest, ManifestError> {
    if keys.is_empty() {
        return Err(ManifestError::NoKeys);
    }
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(ManifestError::Malformed(format!("{} bytes", bytes.len())));
    }
    let signature = Signature::from_slice(signature).map_err(|_| ManifestError::Unsigned)?;
    if !keys
        .iter()
        .any(|key| key.verify_strict(bytes, &signature).is_ok())
    {
        return Err(ManifestError::Unsigned);
    }
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(error.to_string()))?;
    let is_hash = hex::unhex(&manifest.sha256).is_some_and(|hash| hash.len() == 32);
    let is_web = |url: &String| url.starts_with("https://") || url.starts_with("http://");
    let is_url = manifest.url.as_ref().is_none_or(is_web);
    let fault = [
        (!is_hash, "`sha256` is not 64 hexadecimal digits"),
        (!is_url, "`url` does not start with https:// or http://"),
        (
            !(1..=PROGRAM_BYTES_MAX).contains(&manifest.size),
            "`size` is not between 1 byte and 512 MiB",
        ),
    ];
    match fault.into_iter().find(|(is_wrong, _)| *is_wrong) {
        Some((_, message)) => Err(ManifestError::Malformed(message.to_owned())),
        None => Ok(manifest),
    }
}

/// Whether it is to be installed over `running`; `false` when it runs already.
///
/// # Errors
/// [`ManifestError`].
pub fn admit(manifest: &Manifest, running: Version, target: &str) -> Result<bool, ManifestError> {
    if manifest.target != target {
        return Err(ManifestError::OtherTarget {
            found: manifest.target.clone(),
            wanted: target.to_owned(),
        });
    }
    if manifest.version < running {
        return Err(ManifestError::Downgrade {
            offered: manifest.version,
            running,
        });
    }
    if let Some(min_version) = manifest.min_version.filter(|min_version| running < *min_version) {
        return Err(ManifestError::TooOld { running, min_version });
    }
    Ok(manifest.version > running)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn manifest(version: &str) -> Manifest {
        Manifest {
            version: version.parse().unwrap(),
            target: target(),
            sha256: "ab".repeat(32),
            size: 1_000,
            url: Some("https://hub.example/foodflow-edge".to_owned()),
            min_version: None,
            released: "2026-11-20".to_owned(),
        }
    }

    #[test]
    fn only_what_a_trusted_key_signed_is_believed() {
        let bytes = serde_json::to_vec(&manifest("1.2.3")).unwrap();
        let signature = key(1).sign(&bytes).to_bytes();
        let trusted = [key(2).verifying_key(), key(1).verifying_key()];
        assert_eq!(verify(&bytes, &signature, &trusted), Ok(manifest("1.2.3")));
        assert_eq!(
            verify(&bytes, &signature, &trusted[..1]),
            Err(ManifestError::Unsigned)
        );
        assert_eq!(verify(&bytes, &signature, &[]), Err(ManifestError::NoKeys));
        assert_eq!(
            verify(&bytes, &signature[..63], &trusted),
            Err(ManifestError::Unsigned)
        );
    }

    #[test]
    fn a_signed_manifest_that_makes_no_sense_says_why() {
        for (change, word) in [
            (
                Manifest {
                    sha256: "xyz".to_owned(),
                    ..manifest("1.0.0")
                },
                "sha256",
            ),
            (
                Manifest {
                    url: Some("file:///etc/passwd".to_owned()),
                    ..manifest("1.0.0")
                },
                "url",
            ),
            (
                Manifest {
                    size: 0,
                    ..manifest("1.0.0")
                },
                "size",
            ),
            (
                Manifest {
                    size: u64::MAX,
                    ..manifest("1.0.0")
                },
                "size",
            ),
        ] {
            let bytes = serde_json::to_vec(&change).unwrap();
            let signature = key(1).sign(&bytes).to_bytes();
            let error = verify(&bytes, &signature, &[key(1).verifying_key()]).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn t32_a_downgrade_another_machine_and_a_leap_are_refused_and_the_same_version_is_nothing_to_do() {
        let running: Version = "1.2.3".parse().unwrap();
        let admit = |manifest: &Manifest| admit(manifest, running, &target());
        assert_eq!(admit(&manifest("1.2.4")), Ok(true));
        assert_eq!(admit(&manifest("1.2.3")), Ok(false));
        assert!(matches!(
            admit(&manifest("1.2.2")),
            Err(ManifestError::Downgrade { .. })
        ));
        assert!(matches!(
            admit(&manifest("0.10.0")),
            Err(ManifestError::Downgrade { .. })
        ));
        let elsewhere = Manifest {
            target: "riscv64gc-unknown-linux-gnu".to_owned(),
            ..manifest("2.0.0")
        };
        assert!(matches!(
            admit(&elsewhere),
            Err(ManifestError::OtherTarget { .. })
        ));
        let leap = Manifest {
            min_version: Some("1.9.0".parse().unwrap()),
            ..manifest("2.0.0")
        };
        assert!(matches!(admit(&leap), Err(ManifestError::TooOld { .. })));
    }

    #[test]
    fn a_version_is_three_numbers_and_this_program_has_one() {
        assert!(running() >= "0.0.0".parse().unwrap());
        for wrong in ["1.2", "1.2.3.4", "../../etc", "1.2.x", "", "1.2.-3"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    proptest! {
        // Signing is slow in a debug build.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_changed_bit_of_a_signed_manifest_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = serde_json::to_vec(&manifest("1.2.3")).unwrap();
            let signature = key(1).sign(&bytes).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(
                verify(&bytes, &signature, &[key(1).verifying_key()]),
                Err(ManifestError::Unsigned)
            );
        }
    }
}
