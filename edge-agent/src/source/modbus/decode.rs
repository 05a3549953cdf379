//! What number do these registers hold? Pure: registers, type and byte order in, value and quality out.

use std::sync::Arc;

use protocol::Quality;

/// Which of a device's four tables a tag is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Bits, writable (function 01).
    Coil,
    /// Bits, read-only (function 02).
    Discrete,
    /// Registers, writable (function 03).
    Holding,
    /// Registers, read-only (function 04).
    Input,
}

impl Table {
    /// Whether the table holds single bits.
    pub const fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }
}

/// How a value is laid over its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A bit, or a register that is not zero.
    Bool,
    /// One bit of a register, 0 (least significant) to 15.
    Bit(u8),
    /// Signed, the more significant byte of a register.
    I8High,
    /// Signed, the less significant byte of a register.
    I8Low,
    /// Unsigned, the more significant byte of a register.
    U8High,
    /// Unsigned, the less significant byte of a register.
    U8Low,
    /// Signed, one register.
    I16,
    /// Unsigned, one register.
    U16,
    /// Four decimal digits of four bits each, one register.
    Bcd16,
    /// Signed, two registers.
    I32,
    /// Unsigned, two registers.
    U32,
    /// Eight decimal digits of four bits each, two registers.
    Bcd32,
    /// IEEE 754 single, two registers.
    F32,
    /// Signed, four registers.
    I64,
    /// Unsigned, four registers.
    U64,
    /// IEEE 754 double, four registers.
    F64,
    /// UTF-8 text of so many bytes, 1 to 250; the last register of an odd length is used by half.
    Text(u8),
}

impl ValueType {
    /// How many registers it takes.
    pub const fn registers(self) -> u16 {
        match self {
            Self::Bool
            | Self::Bit(_)
            | Self::I8High
            | Self::I8Low
            | Self::U8High
            | Self::U8Low
            | Self::I16
            | Self::U16
            | Self::Bcd16 => 1,
            Self::I32 | Self::U32 | Self::F32 | Self::Bcd32 => 2,
            Self::I64 | Self::U64 | Self::F64 => 4,
            Self::Text(bytes) => (bytes as u16).div_ceil(2),
        }
    }
}

/// In which order a value's bytes A (most significant) to D stand on the wire; longer values alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByteOrder {
    /// Most significant word first, most significant byte first: as Modbus itself does it.
    #[default]
    Abcd,
    /// Least significant word first.
    Cdab,
    /// Bytes swapped within each word.
    Badc,
    /// Wholly reversed.
    Dcba,
}

/// From the raw number to the tag's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// `raw / 10^digits`, 0 to 9 digits: exact decimals, which travel as integers.
    Digits(u8),
    /// `raw * factor + offset`.
    Linear {
        /// Factor.
        factor: f64,
        /// Offset.
        offset: f64,
    },
}

/// The numbers that stand for texts. A text that is not among them is no value.
pub type Words = Arc<[(String, f64)]>;

/// How one tag is decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoding {
    /// Layout.
    pub value_type: ValueType,
    /// Byte order.
    pub order: ByteOrder,
    /// Scale.
    pub scale: Scale,
    /// Raw numbers, before scaling, by which the device says that it has no value. Compared as `f64`: beyond 2^53
    /// neighbouring integers are one.
    pub bad_values: Option<Arc<[f64]>>,
    /// What texts mean; only for [`ValueType::Text`].
    pub words: Option<Words>,
}

/// Beyond this an integer is no longer exactly an `f64`.
const EXACT_MAX: u64 = 1 << 53;
/// Longest text: what one request carries.
pub const TEXT_BYTES_MAX: usize = 250;
const POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// The value that `registers` hold. Integers beyond 2^53 are uncertain: an `f64` rounds them.
///
/// # Errors
/// [`Quality::BAD_TYPE`] when the number of registers is not the type's, a BCD digit is above 9, or a text is not
/// UTF-8 or not among the known words; [`Quality::BAD_SENSOR_FAILURE`] for one of the configured bad values;
/// [`Quality::BAD_OUT_OF_RANGE`] when the value is NaN or infinite.
pub fn value(registers: &[u16], decoding: &Decoding) -> Result<(f64, Quality), Quality> {
    if registers.len() != usize::from(decoding.value_type.registers()) {
        return Err(Quality::BAD_TYPE);
    }
    let (raw, is_exact) = match decoding.value_type {
        ValueType::Text(bytes) => (word(registers, decoding, usize::from(bytes))?, true),
        value_type => {
            let mut bytes = [0u8; 8];
            let used = &mut bytes[..registers.len() * 2];
            lay_out(registers, decoding.order, used);
            raw_number(used, value_type)?
        }
    };
    if decoding.bad_values.as_ref().is_some_and(|bad| bad.contains(&raw)) {
        return Err(Quality::BAD_SENSOR_FAILURE);
    }
    let value = match decoding.scale {
        Scale::Digits(0) => raw,
        Scale::Digits(digits) => raw / POWERS[usize::from(digits.min(9))],
        Scale::Linear { factor, offset } => raw * factor + offset,
    };
    if !value.is_finite() {
        return Err(Quality::BAD_OUT_OF_RANGE);
    }
    let quality = if is_exact {
        Quality::GOOD
    } else {
        Quality::UNCERTAIN
    };
    Ok((value, quality))
}

/// Writes the value's bytes, most significant first, into `bytes`, which holds two for each register.
fn lay_out(registers: &[u16], order: ByteOrder, bytes: &mut [u8]) {
    let (reverse_words, swap_bytes) = match order {
        ByteOrder::Abcd => (false, false),
        ByteOrder::Cdab => (true, false),
        ByteOrder::Badc => (false, true),
        ByteOrder::Dcba => (true, true),
    };
    for (index, register) in registers.iter().enumerate() {
        let at = if reverse_words {
            registers.len() - 1 - index
        } else {
            index
        };
        let pair = if swap_bytes {
            register.to_le_bytes()
        } else {
            register.to_be_bytes()
        };
        bytes[at * 2..at * 2 + 2].copy_from_slice(&pair);
    }
}

fn raw_number(bytes: &[u8], value_type: ValueType) -> Result<(f64, bool), Quality> {
    let unsigned = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    Ok(match value_type {
        ValueType::Bool => (f64::from(u8::from(unsigned != 0)), true),
        ValueType::Bit(bit) => ((unsigned >> bit & 1) as f64, true),
        ValueType::I8High => (f64::from((unsigned >> 8) as u8 as i8), true),
        ValueType::I8Low => (f64::from(unsigned as u8 as i8), true),
        ValueType::U8High => (f64::from((unsigned >> 8) as u8), true),
        ValueType::U8Low => (f64::from(unsigned as u8), true),
        ValueType::U16 | ValueType::U32 => (unsigned as f64, true),
        ValueType::Bcd16 | ValueType::Bcd32 => (decimal(bytes)?, true),
        ValueType::I16 => (f64::from(unsigned as u16 as i16), true),
        ValueType::I32 => (f64::from(unsigned as u32 as i32), true),
        ValueType::F32 => (f64::from(f32::from_bits(unsigned as u32)), true),
        ValueType::F64 => (f64::from_bits(unsigned), true),
        ValueType::U64 => (unsigned as f64, unsigned <= EXACT_MAX),
        ValueType::I64 => {
            let signed = unsigned as i64;
            (signed as f64, signed.unsigned_abs() <= EXACT_MAX)
        }
        ValueType::Text(_) => return Err(Quality::BAD_TYPE),
    })
}

/// The number whose decimal digits are the bytes' halves.
fn decimal(bytes: &[u8]) -> Result<f64, Quality> {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    digits
        .map(|digit| (digit <= 9).then_some(u32::from(digit)))
        .try_fold(0u32, |sum, digit| Some(sum * 10 + digit?))
        .map(f64::from)
        .ok_or(Quality::BAD_TYPE)
}

/// The number that stands for the text in `registers`.
fn word(registers: &[u16], decoding: &Decoding, length: usize) -> Result<f64, Quality> {
    let mut bytes = [0u8; TEXT_BYTES_MAX + 2];
    let used = bytes
        .get_mut(..registers.len() * 2)
        .ok_or(Quality::BAD_CONFIGURATION)?;
    lay_out(registers, decoding.order, used);
    let text = text(&used[..length.min(used.len())]).ok_or(Quality::BAD_TYPE)?;
    let words = decoding.words.iter().flat_map(|words| words.iter());
    words
        .into_iter()
        .find(|(known, _)| known == text)
        .map(|(_, number)| *number)
        .ok_or(Quality::BAD_TYPE)
}

/// A text as devices keep it: it ends at the first NUL, and what follows the last character that is no space does
/// not count. Nothing when it is not UTF-8.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end])
        .ok()
        .map(|text| text.trim_end_matches(' '))
}

#[cfg(test)]
mod tests;
