//! What do `"250ms"` and `"64MiB"` mean? Durations and sizes as people write them.

use std::time::Duration;

/// Why a quantity cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QuantityError {
    /// Not a duration.
    #[error("write a duration as a number and ms, s, min or h, like \"250ms\" or \"2s\"")]
    Duration,
    /// Not a size.
    #[error("write a size as a whole number and B, KiB, MiB or GiB, like \"64MiB\"")]
    Bytes,
}

/// Reads a duration: a number, not negative, and `ms`, `s`, `min` or `h`.
pub(super) fn duration(text: &str) -> Result<Duration, QuantityError> {
    let (number, unit) = split(text).ok_or(QuantityError::Duration)?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(QuantityError::Duration),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| QuantityError::Duration)
}

/// Reads a size: a whole number and `B`, `KiB`, `MiB` or `GiB`.
pub(super) fn bytes(text: &str) -> Result<u64, QuantityError> {
    let (number, unit) = split(text).ok_or(QuantityError::Bytes)?;
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(QuantityError::Bytes),
    };
    if number.fract() != 0.0 || !(0.0..9e15).contains(&number) {
        return Err(QuantityError::Bytes);
    }
    (number as u64).checked_mul(factor).ok_or(QuantityError::Bytes)
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let number = text[..at].parse::<f64>().ok()?;
    Some((number, text[at..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("250ms", 250),
            ("1s", 1000),
            ("1.5 s", 1500),
            ("2min", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("64KiB"), Ok(65_536));
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in ["", "s", "5", "-1s", "5 parsecs", "1e400s", "ms250", "."] {
            assert_eq!(duration(text), Err(QuantityError::Duration), "{text}");
        }
        for text in ["", "5", "1.5MiB", "-1B", "9GB", "99999999999999999999GiB"] {
            assert_eq!(bytes(text), Err(QuantityError::Bytes), "{text}");
        }
    }
}
