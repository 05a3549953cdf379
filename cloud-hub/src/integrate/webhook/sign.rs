//! How does a receiver know that a message is ours? HMAC-SHA256 over id, time and body, as Standard Webhooks has it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a signing key.
const KEY_BYTES: usize = 32;

/// A new signing key.
///
/// # Panics
/// When the operating system gives no random bytes; nothing secret could be made then.
pub(super) fn new_key() -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).expect("the operating system provides random bytes");
    key
}

/// A key as its owner is shown it, once.
pub(super) fn shown(key: &[u8]) -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(key))
}

/// What a secret's column is sealed for.
pub(super) fn purpose(webhook_id: uuid::Uuid) -> String {
    format!("webhook {webhook_id}")
}

/// The value of `webhook-signature`: one signature a key, so that a receiver may be given a new key before it is needed.
pub(super) fn signatures(keys: &[Vec<u8>], id: &str, at_s: i64, body: &str) -> String {
    let each = keys.iter().map(|key| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{at_s}.{body}").as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    });
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_the_specifications_example() {
        // From the Standard Webhooks reference libraries' own tests.
        let key = BASE64_STANDARD
            .decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .unwrap();
        let signed = signatures(
            &[key.clone(), key],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        let one = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signed, format!("{one} {one}"));
    }

    #[test]
    fn a_new_key_is_shown_whole() {
        let (one, other) = (new_key(), new_key());
        assert_ne!(one, other);
        let text = shown(&one);
        let encoded = text.strip_prefix("whsec_").unwrap();
        assert_eq!(BASE64_STANDARD.decode(encoded).unwrap(), one);
    }
}
