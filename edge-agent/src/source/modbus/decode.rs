//! What number do these registers hold? Pure: registers, type and byte order in, value and quality out.

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
    /// Signed, one register.
    I16,
    /// Unsigned, one register.
    U16,
    /// Signed, two registers.
    I32,
    /// Unsigned, two registers.
    U32,
    /// IEEE 754 single, two registers.
    F32,
    /// Signed, four registers.
    I64,
    /// Unsigned, four registers.
    U64,
    /// IEEE 754 double, four registers.
    F64,
}

impl ValueType {
    /// How many registers it takes.
    pub const fn registers(self) -> u16 {
        match self {
            Self::Bool | Self::I16 | Self::U16 => 1,
            Self::I32 | Self::U32 | Self::F32 => 2,
            Self::I64 | Self::U64 | Self::F64 => 4,
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
    /// `raw / 10^digits`: exact decimals, which travel as integers.
    Digits(u8),
    /// `raw * factor + offset`.
    Linear {
        /// Factor.
        factor: f64,
        /// Offset.
        offset: f64,
    },
}

/// How one tag is decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoding {
    /// Layout.
    pub value_type: ValueType,
    /// Byte order.
    pub order: ByteOrder,
    /// Scale.
    pub scale: Scale,
}

/// Beyond this an integer is no longer exactly an `f64`.
const EXACT_MAX: u64 = 1 << 53;

/// The value that `registers` hold. Integers beyond 2^53 are uncertain: an `f64` rounds them.
///
/// # Errors
/// [`Quality::BAD_TYPE`] when the number of registers is not the type's, [`Quality::BAD_OUT_OF_RANGE`] when the
/// value is NaN or infinite.
pub fn value(registers: &[u16], decoding: Decoding) -> Result<(f64, Quality), Quality> {
    let mut bytes = [0u8; 8];
    let used = ordered_bytes(registers, decoding, &mut bytes)?;
    let (raw, is_exact) = raw_number(used, decoding.value_type);
    let value = match decoding.scale {
        Scale::Digits(0) => raw,
        Scale::Digits(digits) => raw / 10f64.powi(i32::from(digits)),
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

/// The value's bytes, most significant first.
fn ordered_bytes<'a>(
    registers: &[u16],
    decoding: Decoding,
    bytes: &'a mut [u8; 8],
) -> Result<&'a [u8], Quality> {
    let words = usize::from(decoding.value_type.registers());
    if registers.len() != words {
        return Err(Quality::BAD_TYPE);
    }
    let (reverse_words, swap_bytes) = match decoding.order {
        ByteOrder::Abcd => (false, false),
        ByteOrder::Cdab => (true, false),
        ByteOrder::Badc => (false, true),
        ByteOrder::Dcba => (true, true),
    };
    for (index, register) in registers.iter().enumerate() {
        let at = if reverse_words { words - 1 - index } else { index };
        let register = if swap_bytes {
            register.swap_bytes()
        } else {
            *register
        };
        bytes[at * 2..at * 2 + 2].copy_from_slice(&register.to_be_bytes());
    }
    Ok(&bytes[..words * 2])
}

fn raw_number(bytes: &[u8], value_type: ValueType) -> (f64, bool) {
    let unsigned = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    match value_type {
        ValueType::Bool => (f64::from(u8::from(unsigned != 0)), true),
        ValueType::U16 | ValueType::U32 => (unsigned as f64, true),
        ValueType::I16 => (f64::from(unsigned as u16 as i16), true),
        ValueType::I32 => (f64::from(unsigned as u32 as i32), true),
        ValueType::F32 => (f64::from(f32::from_bits(unsigned as u32)), true),
        ValueType::F64 => (f64::from_bits(unsigned), true),
        ValueType::U64 => (unsigned as f64, unsigned <= EXACT_MAX),
        ValueType::I64 => {
            let signed = unsigned as i64;
            (signed as f64, signed.unsigned_abs() <= EXACT_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(registers: &[u16], value_type: ValueType, order: ByteOrder) -> Result<(f64, Quality), Quality> {
        let scale = Scale::Digits(0);
        value(
            registers,
            Decoding {
                value_type,
                order,
                scale,
            },
        )
    }

    /// The registers that hold `bytes` (most significant first) in an order, laid out by the definition.
    fn laid_out(bytes: &[u8], order: ByteOrder) -> Vec<u16> {
        let mut words: Vec<[u8; 2]> = bytes.chunks(2).map(|pair| [pair[0], pair[1]]).collect();
        if matches!(order, ByteOrder::Cdab | ByteOrder::Dcba) {
            words.reverse();
        }
        if matches!(order, ByteOrder::Badc | ByteOrder::Dcba) {
            for word in &mut words {
                word.reverse();
            }
        }
        words.into_iter().map(u16::from_be_bytes).collect()
    }

    const ORDERS: [ByteOrder; 4] = [ByteOrder::Abcd, ByteOrder::Cdab, ByteOrder::Badc, ByteOrder::Dcba];

    #[test]
    fn every_type_survives_every_byte_order() {
        for order in ORDERS {
            let cases: [(Vec<u8>, ValueType, f64); 8] = [
                ((-12_345i16).to_be_bytes().to_vec(), ValueType::I16, -12_345.0),
                (54_321u16.to_be_bytes().to_vec(), ValueType::U16, 54_321.0),
                (
                    (-123_456_789i32).to_be_bytes().to_vec(),
                    ValueType::I32,
                    -123_456_789.0,
                ),
                (
                    3_123_456_789u32.to_be_bytes().to_vec(),
                    ValueType::U32,
                    3_123_456_789.0,
                ),
                (73.25f32.to_be_bytes().to_vec(), ValueType::F32, 73.25),
                (
                    (-1_234_567_890_123i64).to_be_bytes().to_vec(),
                    ValueType::I64,
                    -1_234_567_890_123.0,
                ),
                (
                    1_234_567_890_123u64.to_be_bytes().to_vec(),
                    ValueType::U64,
                    1_234_567_890_123.0,
                ),
                (
                    (-73.200_000_1f64).to_be_bytes().to_vec(),
                    ValueType::F64,
                    -73.200_000_1,
                ),
            ];
            for (bytes, value_type, expected) in cases {
                let found = decode(&laid_out(&bytes, order), value_type, order);
                assert_eq!(found, Ok((expected, Quality::GOOD)), "{value_type:?} {order:?}");
            }
        }
    }

    #[test]
    fn the_names_of_the_orders_mean_what_the_manuals_say() {
        // 0x42924000 is 73.125; A=42 B=92 C=40 D=00.
        for (order, registers) in [
            (ByteOrder::Abcd, [0x4292, 0x4000]),
            (ByteOrder::Cdab, [0x4000, 0x4292]),
            (ByteOrder::Badc, [0x9242, 0x0040]),
            (ByteOrder::Dcba, [0x0040, 0x9242]),
        ] {
            assert_eq!(
                decode(&registers, ValueType::F32, order),
                Ok((73.125, Quality::GOOD))
            );
        }
    }

    #[test]
    fn a_float_that_is_no_number_is_bad_and_never_zero() {
        for float in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let registers = laid_out(&float.to_be_bytes(), ByteOrder::Abcd);
            assert_eq!(
                decode(&registers, ValueType::F32, ByteOrder::Abcd),
                Err(Quality::BAD_OUT_OF_RANGE)
            );
        }
    }

    #[test]
    fn an_integer_that_an_f64_would_round_is_uncertain() {
        let registers = laid_out(&u64::MAX.to_be_bytes(), ByteOrder::Abcd);
        let (_, quality) = decode(&registers, ValueType::U64, ByteOrder::Abcd).unwrap();
        assert_eq!(quality, Quality::UNCERTAIN);
    }

    #[test]
    fn a_short_reply_is_bad() {
        assert_eq!(
            decode(&[1], ValueType::F32, ByteOrder::Abcd),
            Err(Quality::BAD_TYPE)
        );
        assert_eq!(
            decode(&[], ValueType::U16, ByteOrder::Abcd),
            Err(Quality::BAD_TYPE)
        );
    }

    #[test]
    fn a_decimal_scale_gives_the_nearest_decimal() {
        let scaled = Decoding {
            value_type: ValueType::I16,
            order: ByteOrder::Abcd,
            scale: Scale::Digits(2),
        };
        assert_eq!(value(&[7320], scaled), Ok((73.2, Quality::GOOD)));
        let linear = Decoding {
            scale: Scale::Linear {
                factor: 0.5,
                offset: -10.0,
            },
            ..scaled
        };
        assert_eq!(value(&[100], linear), Ok((40.0, Quality::GOOD)));
    }
}
