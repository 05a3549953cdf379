//! What does `[[opcua]]` say about security? Policy, mode and identity, without the secrets themselves: those are
//! read when a session is opened, so that a new password needs no restart.

use std::{fs, io, path::PathBuf};

use crate::config::Section;

/// Largest password or key file that is read.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A security policy of OPC UA Part 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Neither signed nor encrypted.
    #[default]
    None,
    /// `Basic256Sha256`.
    Basic256Sha256,
    /// `Aes128_Sha256_RsaOaep`.
    Aes128Sha256RsaOaep,
    /// `Aes256_Sha256_RsaPss`.
    Aes256Sha256RsaPss,
    /// `Basic256`: obsolete (SHA-1).
    Basic256,
    /// `Basic128Rsa15`: obsolete (SHA-1, PKCS #1 v1.5 padding).
    Basic128Rsa15,
}

const POLICIES: [(&str, Policy); 6] = [
    ("none", Policy::None),
    ("Basic256Sha256", Policy::Basic256Sha256),
    ("Aes128_Sha256_RsaOaep", Policy::Aes128Sha256RsaOaep),
    ("Aes256_Sha256_RsaPss", Policy::Aes256Sha256RsaPss),
    ("Basic256", Policy::Basic256),
    ("Basic128Rsa15", Policy::Basic128Rsa15),
];

impl Policy {
    /// Whether the OPC Foundation has withdrawn it.
    pub const fn is_obsolete(self) -> bool {
        matches!(self, Self::Basic256 | Self::Basic128Rsa15)
    }

    /// As it stands in the configuration.
    pub fn name(self) -> &'static str {
        POLICIES
            .iter()
            .find(|(_, policy)| *policy == self)
            .map_or("none", |(name, _)| name)
    }
}

/// What a secured channel does with messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Signed, readable on the network.
    Sign,
    /// Signed and encrypted.
    #[default]
    SignAndEncrypt,
}

/// How messages to one server are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// The policy.
    pub policy: Policy,
    /// The mode; without meaning for [`Policy::None`].
    pub mode: Mode,
}

impl Security {
    /// Whether messages are at least signed.
    pub fn is_on(self) -> bool {
        self.policy != Policy::None
    }
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFrom {
    /// The first line of a file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
}

impl PasswordFrom {
    /// Reads the password.
    ///
    /// # Errors
    /// When the file cannot be read, is larger than 64 KiB or is no text, or when the variable is not set; the message
    /// names the place and never the content.
    pub fn read(&self) -> io::Result<String> {
        match self {
            Self::File(path) => {
                let text = read_secret(path)?;
                Ok(text.lines().next().unwrap_or_default().to_owned())
            }
            Self::Variable(name) => std::env::var(name).map_err(|_| {
                io::Error::new(io::ErrorKind::NotFound, format!("the variable {name} is not set"))
            }),
        }
    }
}

fn read_secret(path: &PathBuf) -> io::Result<String> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if fs::metadata(path).map_err(named)?.len() > SECRET_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is too large for a password", path.display()),
        ));
    }
    fs::read_to_string(path).map_err(named)
}

/// Who the agent says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// Nobody.
    #[default]
    Anonymous,
    /// A user with a password.
    User {
        /// The user.
        name: String,
        /// Where the password is.
        password: PasswordFrom,
    },
    /// The holder of a certificate.
    Certificate {
        /// The certificate, DER or PEM.
        certificate_file: PathBuf,
        /// Its private key, PEM.
        key_file: PathBuf,
    },
}

/// Reads policy and mode; obsolete policies are a fault unless they are allowed by name.
pub fn read_security(section: &Section<'_>) -> Security {
    let policy = section.choice("security", &POLICIES).unwrap_or_default();
    let mode = section.choice(
        "mode",
        &[("sign", Mode::Sign), ("sign_and_encrypt", Mode::SignAndEncrypt)],
    );
    let allowed = section.flag("allow_obsolete_security", false);
    if policy.is_obsolete() && !allowed {
        section.fault(format!(
            "`opcua.security` is `{}`, which is obsolete and broken; let the server offer Basic256Sha256, or set \
             `allow_obsolete_security = true` and isolate the network",
            policy.name()
        ));
    }
    if mode.is_some() && policy == Policy::None {
        section
            .fault("`opcua.mode` has no effect without `opcua.security`: set security = \"Basic256Sha256\"");
    }
    Security {
        policy,
        mode: mode.unwrap_or_default(),
    }
}

/// Reads who the agent says it is. A password is never sent readable unless that is allowed by name.
pub fn read_identity(section: &Section<'_>, security: Security) -> Identity {
    let user = section.text("user");
    let file = section.text("password_file");
    let variable = section.text("password_env");
    let certificate = section.text("certificate_file");
    let key = section.text("key_file");
    let plaintext = section.flag("allow_plaintext_password", false);
    if certificate.is_some() != key.is_some() {
        section.fault("`opcua.certificate_file` and `opcua.key_file` go together: give both or none");
    }
    if user.is_some() && certificate.is_some() {
        section.fault("`opcua.user` and `opcua.certificate_file` are two identities: give one");
    }
    if let (Some(certificate), Some(key)) = (certificate, key) {
        return Identity::Certificate {
            certificate_file: PathBuf::from(certificate.value),
            key_file: PathBuf::from(key.value),
        };
    }
    let password = match (file, variable) {
        (Some(file), None) => Some(PasswordFrom::File(PathBuf::from(file.value))),
        (None, Some(variable)) => Some(PasswordFrom::Variable(variable.value)),
        (Some(_), Some(_)) => {
            section.fault("`opcua.password_file` and `opcua.password_env` are two passwords: give one");
            None
        }
        (None, None) => None,
    };
    let Some(user) = user else {
        if password.is_some() {
            section.fault("a password needs `opcua.user`");
        }
        return Identity::Anonymous;
    };
    if !security.is_on() && !plaintext {
        section.fault_at(
            &user.span,
            "the password of `opcua.user` would cross the network readable: set security = \"Basic256Sha256\", or \
             `allow_plaintext_password = true` if the network is trusted",
        );
    }
    let Some(password) = password else {
        section.fault_at(
            &user.span,
            "`opcua.user` needs `password_file` or `password_env`; a password in the configuration would be read by \
             everyone who may read it",
        );
        return Identity::Anonymous;
    };
    Identity::User {
        name: user.value,
        password,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(PasswordFrom::File(path).read().unwrap(), "s3cret");
    }

    #[test]
    fn a_missing_password_names_its_place() {
        let missing = PasswordFrom::File(PathBuf::from("/nowhere/password")).read();
        assert!(missing.unwrap_err().to_string().contains("/nowhere/password"));
        let unset = PasswordFrom::Variable("FOODFLOW_TEST_UNSET".to_owned()).read();
        assert!(unset.unwrap_err().to_string().contains("FOODFLOW_TEST_UNSET"));
    }

    fn faults(keys: &str) -> Vec<String> {
        let text = format!(
            "[edge]\nname = \"a\"\ntenant = \"a\"\n[hub]\nmqtt = \"h:1\"\n[[opcua]]\nname = \"oven\"\n\
             url = \"opc.tcp://h:1/\"\nnamespace_uri = \"urn:a\"\n{keys}\n[[opcua.tag]]\nname = \"T\"\nnode = \"i=1\"\n"
        );
        match crate::config::parse(&text) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| fault.message).collect(),
        }
    }

    #[test]
    fn every_way_of_security_and_identity_that_is_sound_is_taken() {
        for keys in [
            "",
            "security = \"Basic256Sha256\"",
            "security = \"Aes256_Sha256_RsaPss\"\nmode = \"sign\"",
            "security = \"Basic128Rsa15\"\nallow_obsolete_security = true",
            "security = \"Basic256Sha256\"\nuser = \"u\"\npassword_file = \"/p\"",
            "user = \"u\"\npassword_env = \"P\"\nallow_plaintext_password = true",
            "security = \"Basic256Sha256\"\ncertificate_file = \"/c\"\nkey_file = \"/k\"",
        ] {
            assert_eq!(faults(keys), Vec::<String>::new(), "{keys}");
        }
    }

    #[test]
    fn t34_what_is_unsound_is_a_fault_that_names_the_remedy() {
        for (keys, remedy) in [
            ("security = \"Basic256\"", "Basic256Sha256"),
            ("security = \"basic256sha256\"", "did you mean"),
            ("mode = \"sign\"", "security = \"Basic256Sha256\""),
            ("user = \"u\"\npassword_file = \"/p\"", "allow_plaintext_password"),
            ("security = \"Basic256Sha256\"\nuser = \"u\"", "password_file"),
            ("password_file = \"/p\"", "needs `opcua.user`"),
            ("certificate_file = \"/c\"", "go together"),
            ("session_timeout = \"5s\"", "between 60s and 120s"),
            ("items_per_request = 0", "between 1 and 10000"),
        ] {
            let found = faults(keys);
            assert!(
                found.iter().any(|fault| fault.contains(remedy)),
                "{keys}: {found:?}"
            );
        }
    }
}
