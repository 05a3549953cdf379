//! What decides whether a pushed configuration stays and whose versions are installed? `[fleet]` and `[update]`.

use std::time::Duration;

use ed25519_dalek::VerifyingKey;

use crate::config::Section;
use crate::hex;

/// How pushed configurations and versions are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// A pushed configuration that does not run well within this is rolled back.
    pub probation: Duration,
    /// Public Ed25519 keys whose signed versions are installed.
    pub trusted_keys: Vec<VerifyingKey>,
}

/// Reads `[fleet]` and `[update]`.
pub fn read_fleet(root: &Section<'_>) -> Fleet {
    let section = root.table("fleet");
    let range = Duration::from_secs(2)..=Duration::from_mins(10);
    let probation = section.duration("probation", range);
    section.finish();
    let section = root.table("update");
    let keys = section.texts("trusted_keys").into_iter().filter_map(|at| {
        let key = key(&at.value);
        if key.is_none() {
            section.fault_at(
                &at.span,
                "`update.trusted_keys` must be public Ed25519 keys of 64 hexadecimal digits, as `foodflow-edge update \
                 keygen` prints them",
            );
        }
        key
    });
    let trusted_keys = keys.collect();
    section.finish();
    Fleet {
        probation: probation.unwrap_or(Duration::from_mins(1)),
        trusted_keys,
    }
}

/// A public key from its hexadecimal form.
pub fn key(text: &str) -> Option<VerifyingKey> {
    let bytes: [u8; 32] = hex::unhex(text)?.try_into().ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use crate::config;

    const HEAD: &str = "[edge]\nname = \"akron-1\"\ntenant = \"akron\"\n[hub]\nmqtt = \"127.0.0.1:1883\"\n";

    #[test]
    fn a_key_that_is_none_is_named_with_its_line_and_where_keys_come_from() {
        let text = format!("{HEAD}[update]\ntrusted_keys = [\"abcd\", 7]\n");
        let faults = config::parse(&text).unwrap_err();
        let messages: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.line, fault.message))
            .collect();
        assert!(
            messages
                .iter()
                .any(|message| message.starts_with("7: ") && message.contains("keygen")),
            "{messages:?}"
        );
        assert!(
            messages
                .iter()
                .any(|message| message.contains("must be a string")),
            "{messages:?}"
        );
    }

    #[test]
    fn nobodys_versions_are_installed_unless_a_key_is_given() {
        assert_eq!(config::parse(HEAD).unwrap().fleet.trusted_keys, []);
    }
}
