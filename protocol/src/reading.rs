//! What is one measured value? A tag, a source time, a number and its quality.

use serde::{Deserialize, Serialize};

use crate::quality::Quality;

/// Microseconds since 1970-01-01T00:00:00Z, as on the wire and in SQL.
pub type Micros = i64;

/// The number a tag has within one edge's dictionary; meaningless without the dictionary's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Alias(pub u32);

/// One due sample of one tag: good, uncertain, or bad with a reason and no usable value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Which tag, by its alias.
    pub tag: Alias,
    /// When the source says the value was true; the receive time where the source has no clock (Modbus).
    pub time_us: Micros,
    /// The value in the tag's unit; `NaN` exactly when the quality is bad.
    pub value: f64,
    /// How far it may be trusted.
    pub quality: Quality,
}

impl Reading {
    /// A reading with a value. A value that is not finite becomes bad (out of range): it is never a number.
    pub fn new(tag: Alias, time_us: Micros, value: f64, quality: Quality) -> Self {
        if quality.is_bad() {
            Self::bad(tag, time_us, quality)
        } else if value.is_finite() {
            Self {
                tag,
                time_us,
                value,
                quality,
            }
        } else {
            Self::bad(tag, time_us, Quality::BAD_OUT_OF_RANGE)
        }
    }

    /// A due reading that has no value, and why.
    pub fn bad(tag: Alias, time_us: Micros, reason: Quality) -> Self {
        let quality = if reason.is_bad() { reason } else { Quality::BAD };
        Self {
            tag,
            time_us,
            value: f64::NAN,
            quality,
        }
    }

    /// The value when there is one.
    pub fn value(&self) -> Option<f64> {
        (!self.quality.is_bad()).then_some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_finite_is_bad_and_never_zero() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let reading = Reading::new(Alias(1), 0, value, Quality::GOOD);
            assert_eq!(reading.quality, Quality::BAD_OUT_OF_RANGE);
            assert_eq!(reading.value(), None);
        }
    }

    #[test]
    fn a_bad_reading_hides_whatever_number_came_with_it() {
        let reading = Reading::new(Alias(1), 0, 12.5, Quality::BAD_TIMEOUT);
        assert_eq!(reading.value(), None);
        assert!(reading.value.is_nan());
    }
}
