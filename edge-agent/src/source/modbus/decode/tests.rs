//! Does every type in every byte order give the number that the manuals say, and never a false one?

use proptest::prelude::*;

use super::*;

const ORDERS: [ByteOrder; 4] = [ByteOrder::Abcd, ByteOrder::Cdab, ByteOrder::Badc, ByteOrder::Dcba];

fn plain(value_type: ValueType, order: ByteOrder) -> Decoding {
    Decoding {
        value_type,
        order,
        scale: Scale::Digits(0),
        bad_values: None,
        words: None,
    }
}

fn decode(registers: &[u16], value_type: ValueType, order: ByteOrder) -> Result<(f64, Quality), Quality> {
    value(registers, &plain(value_type, order))
}

#[expect(clippy::unnecessary_wraps, reason = "compared with results")]
fn good(number: f64) -> Result<(f64, Quality), Quality> {
    Ok((number, Quality::GOOD))
}

/// The registers that hold `bytes` (most significant first) in an order, laid out by the definition.
fn laid_out(bytes: &[u8], order: ByteOrder) -> Vec<u16> {
    let mut words: Vec<[u8; 2]> = bytes
        .chunks(2)
        .map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)])
        .collect();
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

#[test]
fn t16_every_type_survives_every_byte_order() {
    let cases: [(Vec<u8>, ValueType, f64); 17] = [
        ((-12_345i16).to_be_bytes().to_vec(), ValueType::I16, -12_345.0),
        (54_321u16.to_be_bytes().to_vec(), ValueType::U16, 54_321.0),
        (0x0400u16.to_be_bytes().to_vec(), ValueType::Bool, 1.0),
        (0x0400u16.to_be_bytes().to_vec(), ValueType::Bit(10), 1.0),
        (0xFBFFu16.to_be_bytes().to_vec(), ValueType::Bit(10), 0.0),
        (vec![0xFE, 0x85], ValueType::I8High, -2.0),
        (vec![0xFE, 0x85], ValueType::I8Low, -123.0),
        (vec![0xFE, 0x85], ValueType::U8High, 254.0),
        (vec![0xFE, 0x85], ValueType::U8Low, 133.0),
        (vec![0x98, 0x07], ValueType::Bcd16, 9_807.0),
        (vec![0x98, 0x07, 0x00, 0x12], ValueType::Bcd32, 98_070_012.0),
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
    for order in ORDERS {
        for (bytes, value_type, expected) in &cases {
            let found = decode(&laid_out(bytes, order), *value_type, order);
            assert_eq!(found, good(*expected), "{value_type:?} {order:?}");
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
        assert_eq!(decode(&registers, ValueType::F32, order), good(73.125));
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
    for (registers, value_type) in [
        (&[1][..], ValueType::F32),
        (&[], ValueType::U16),
        (&[1, 2], ValueType::Text(5)),
        (&[1, 2, 3], ValueType::U16),
    ] {
        assert_eq!(
            decode(registers, value_type, ByteOrder::Abcd),
            Err(Quality::BAD_TYPE)
        );
    }
}

#[test]
fn a_decimal_scale_gives_the_nearest_decimal() {
    let scaled = Decoding {
        scale: Scale::Digits(2),
        ..plain(ValueType::I16, ByteOrder::Abcd)
    };
    assert_eq!(value(&[7320], &scaled), good(73.2));
    let linear = Decoding {
        scale: Scale::Linear {
            factor: 0.5,
            offset: -10.0,
        },
        ..scaled
    };
    assert_eq!(value(&[100], &linear), good(40.0));
}

#[test]
fn a_raw_number_that_means_no_value_is_a_failed_sensor_whatever_the_scale() {
    let decoding = Decoding {
        scale: Scale::Digits(1),
        bad_values: Some([-32_768.0, 32_767.0].into()),
        ..plain(ValueType::I16, ByteOrder::Abcd)
    };
    for raw in [i16::MIN, i16::MAX] {
        assert_eq!(
            value(&[raw.cast_unsigned()], &decoding),
            Err(Quality::BAD_SENSOR_FAILURE)
        );
    }
    assert_eq!(value(&[(-32_767i16).cast_unsigned()], &decoding), good(-3_276.7));
}

#[test]
fn a_digit_above_nine_is_no_decimal() {
    for (registers, value_type) in [
        (&[0x123A][..], ValueType::Bcd16),
        (&[0x1234, 0xF000], ValueType::Bcd32),
    ] {
        assert_eq!(
            decode(registers, value_type, ByteOrder::Abcd),
            Err(Quality::BAD_TYPE)
        );
    }
}

fn states(length: u8, order: ByteOrder) -> Decoding {
    let words = ["RUN", "STOP", "CIP 2", "größer", ""];
    let words: Vec<(String, f64)> = words
        .iter()
        .map(|word| (*word).to_owned())
        .zip([1.0, 2.0, 3.0, 4.0, 5.0])
        .collect();
    Decoding {
        words: Some(words.into()),
        ..plain(ValueType::Text(length), order)
    }
}

#[test]
fn t16_texts_of_odd_and_even_length_are_known_in_every_byte_order() {
    for order in ORDERS {
        for (bytes, expected) in [
            (&b"RUN"[..], 1.0),
            (b"RUN\0", 1.0),
            (b"RUN   ", 1.0),
            (b"STOP ", 2.0),
            (b"STOP", 2.0),
            (b"CIP 2", 3.0),
            // What stands behind the first NUL is left over from a longer text.
            (b"RUN\0P\xFF\0", 1.0),
            ("größer".as_bytes(), 4.0),
            (b"\0\0\0", 5.0),
        ] {
            let found = value(&laid_out(bytes, order), &states(bytes.len() as u8, order));
            assert_eq!(found, good(expected), "{bytes:?} {order:?}");
        }
    }
}

#[test]
fn a_text_that_is_unknown_or_no_text_is_bad_and_never_a_neighbour_s_number() {
    for bytes in [&b"RUNS"[..], b"run", b"\xFF\xFE", b" RUN", b"RU"] {
        let found = value(
            &laid_out(bytes, ByteOrder::Abcd),
            &states(bytes.len() as u8, ByteOrder::Abcd),
        );
        assert_eq!(found, Err(Quality::BAD_TYPE), "{bytes:?}");
    }
}

#[test]
fn a_text_does_not_read_the_byte_behind_its_odd_length() {
    let registers = laid_out(b"RUNS", ByteOrder::Abcd);
    assert_eq!(value(&registers, &states(3, ByteOrder::Abcd)), good(1.0));
}

fn any_type() -> impl Strategy<Value = ValueType> {
    prop_oneof![
        Just(ValueType::Bool),
        (0u8..16).prop_map(ValueType::Bit),
        Just(ValueType::I8High),
        Just(ValueType::I8Low),
        Just(ValueType::U8High),
        Just(ValueType::U8Low),
        Just(ValueType::I16),
        Just(ValueType::U16),
        Just(ValueType::Bcd16),
        Just(ValueType::I32),
        Just(ValueType::U32),
        Just(ValueType::Bcd32),
        Just(ValueType::F32),
        Just(ValueType::I64),
        Just(ValueType::U64),
        Just(ValueType::F64),
        any::<u8>().prop_map(ValueType::Text),
    ]
}

proptest! {
    #[test]
    fn t16_any_registers_give_a_finite_number_or_a_reason(
        value_type in any_type(),
        order in 0usize..4,
        registers in prop::collection::vec(any::<u16>(), 0..130),
    ) {
        let fitting = usize::from(value_type.registers()).min(registers.len());
        for slice in [&registers[..], &registers[..fitting]] {
            match value(slice, &states_of(value_type, ORDERS[order])) {
                Ok((number, quality)) => prop_assert!(number.is_finite() && !quality.is_bad()),
                Err(quality) => prop_assert!(quality.is_bad()),
            }
        }
    }

    #[test]
    fn t16_a_number_laid_out_in_any_order_is_read_back(number in any::<u64>(), order in 0usize..4) {
        let order = ORDERS[order];
        let i32_read = decode(&laid_out(&(number as i32).to_be_bytes(), order), ValueType::I32, order);
        prop_assert_eq!(i32_read, good(f64::from(number as i32)));
        let exact = number >> 11;
        let u64_read = decode(&laid_out(&exact.to_be_bytes(), order), ValueType::U64, order);
        prop_assert_eq!(u64_read, good(exact as f64));
    }
}

fn states_of(value_type: ValueType, order: ByteOrder) -> Decoding {
    Decoding {
        value_type,
        ..states(1, order)
    }
}
