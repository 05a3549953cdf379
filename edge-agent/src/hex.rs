//! How are digests, keys and signatures written as text? In hexadecimal digits, lower-case; either case is read.

use sha2::{Digest as _, Sha256};

/// Lower-case digits, two a byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Bytes from digits of either case; none for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// As many bytes as are wanted, from digits between white space; none for more, fewer or anything else.
pub fn unhex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    unhex(text.trim())?.try_into().ok()
}

/// SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_that_is_not_whole_bytes_of_digits_is_none() {
        for text in ["abc", "zz", "+1", " 1", "é"] {
            assert_eq!(unhex(text), None, "{text}");
        }
        assert_eq!(unhex_array::<2>(" 00Ff\n"), Some([0, 255]));
        assert_eq!(unhex_array::<2>("00ff00"), None);
    }

    #[test]
    fn the_digest_of_nothing_is_the_standards() {
        // FIPS 180-4, SHA-256 of the empty message (NIST's example values).
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_hex(b""), expected);
    }

    proptest! {
        #[test]
        fn bytes_come_back_from_their_digits(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = hex(&bytes);
            prop_assert_eq!(unhex(&text), Some(bytes.clone()));
            prop_assert_eq!(unhex(&text.to_uppercase()), Some(bytes));
        }
    }
}
