//! What does `[[modbus.group.tag]]` say? Where a value stands and how it is decoded.

use std::time::Duration;

use protocol::reading::Alias;

use super::{
    decode::{ByteOrder, Decoding, Scale, TEXT_BYTES_MAX, Table, ValueType, Words},
    plan::{Limits, Place},
};
use crate::config::{Section, Tags};

/// One tag of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct TagPlan {
    /// Its alias.
    pub alias: Alias,
    /// Where it stands.
    pub place: Place,
    /// How it is decoded.
    pub decoding: Decoding,
}

/// How a device is read, as far as it matters to its tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) limits: Limits,
    /// Whether `address` counts from 1.
    pub(super) is_one_based: bool,
}

const TABLES: [(&str, Table); 4] = [
    ("holding", Table::Holding),
    ("input", Table::Input),
    ("coil", Table::Coil),
    ("discrete", Table::Discrete),
];
const TYPES: [(&str, ValueType); 16] = [
    ("i16", ValueType::I16),
    ("u16", ValueType::U16),
    ("i32", ValueType::I32),
    ("u32", ValueType::U32),
    ("f32", ValueType::F32),
    ("i64", ValueType::I64),
    ("u64", ValueType::U64),
    ("f64", ValueType::F64),
    ("bool", ValueType::Bool),
    ("bcd16", ValueType::Bcd16),
    ("bcd32", ValueType::Bcd32),
    ("i8_high", ValueType::I8High),
    ("i8_low", ValueType::I8Low),
    ("u8_high", ValueType::U8High),
    ("u8_low", ValueType::U8Low),
    ("string", ValueType::Text(0)),
];
const ORDERS: [(&str, ByteOrder); 4] = [
    ("ABCD", ByteOrder::Abcd),
    ("CDAB", ByteOrder::Cdab),
    ("BADC", ByteOrder::Badc),
    ("DCBA", ByteOrder::Dcba),
];

pub(super) fn read_tag(
    section: &Section<'_>,
    tags: &mut Tags<'_>,
    period: Duration,
    habits: Habits,
) -> Option<TagPlan> {
    let alias = tags.read(section, period);
    let table = section.choice("kind", &TABLES).unwrap_or(Table::Holding);
    let address = read_address(section, habits);
    let value_type = read_type(section, table);
    let decoding = Decoding {
        value_type,
        order: section.choice("byte_order", &ORDERS).unwrap_or_default(),
        scale: read_scale(section),
        bad_values: Some(section.numbers("bad_values"))
            .filter(|bad| !bad.is_empty())
            .map(Into::into),
        words: read_words(section, value_type),
    };
    let place = Place {
        table,
        address: address?,
        width: value_type.registers(),
    };
    check_place(section, place, habits.limits);
    Some(TagPlan {
        alias: alias?,
        place,
        decoding,
    })
}

/// The 0-based protocol address.
fn read_address(section: &Section<'_>, habits: Habits) -> Option<u16> {
    if !section.has("address") {
        section.fault("`modbus.group.tag.address` is missing (the 0-based protocol address)");
    }
    let first = i64::from(habits.is_one_based);
    let address = section.integer("address", first..=65_535 + first)?;
    u16::try_from(address - first).ok()
}

fn read_type(section: &Section<'_>, table: Table) -> ValueType {
    let chosen = section.choice("type", &TYPES);
    let bit = section.integer("bit", 0..=15);
    let length = section.integer("length", 1..=TEXT_BYTES_MAX as i64);
    let value_type = match (chosen, bit) {
        (Some(ValueType::Bool) | None, Some(bit)) if !table.is_bits() => ValueType::Bit(bit as u8),
        (_, Some(_)) => {
            section.fault("`bit` picks one bit of a register: leave it out, or leave out `type` and use `kind` holding or input");
            ValueType::Bool
        }
        (Some(value_type), None) => value_type,
        (None, None) if table.is_bits() => ValueType::Bool,
        (None, None) => ValueType::U16,
    };
    if table.is_bits() && value_type != ValueType::Bool {
        section.fault("coils and discrete inputs hold bits: `type` must be \"bool\"");
    }
    match (value_type, length) {
        (ValueType::Text(_), Some(length)) => ValueType::Text(length as u8),
        (ValueType::Text(_), None) => {
            section.fault("a string needs its `length` in bytes, 1 to 250");
            ValueType::Text(1)
        }
        (_, Some(_)) => {
            section.fault("`length` belongs to `type = \"string\"`; other types have their own");
            value_type
        }
        (_, None) => value_type,
    }
}

fn read_words(section: &Section<'_>, value_type: ValueType) -> Option<Words> {
    let words = section.named_numbers("map");
    let is_text = matches!(value_type, ValueType::Text(_));
    if is_text && words.is_empty() {
        section.fault("readings are numbers: a string needs a `map`, like { \"RUN\" = 1, \"STOP\" = 0 }");
    }
    if !is_text && !words.is_empty() {
        section.fault("`map` belongs to `type = \"string\"`");
    }
    let unfit = ["scale", "scale_digits", "offset", "bad_values"];
    if is_text && unfit.into_iter().any(|key| section.has(key)) {
        section.fault("a string's numbers come from its `map`: leave out `scale`, `scale_digits`, `offset` and `bad_values`");
    }
    is_text.then(|| words.into())
}

fn check_place(section: &Section<'_>, place: Place, limits: Limits) {
    if place.end() > 65_536 {
        section.fault(format!(
            "a {} register value at address {} runs past 65535",
            place.width, place.address
        ));
    }
    if !place.table.is_bits() && place.width > limits.block_registers_max {
        section.fault("the value needs more registers than `block_registers_max` allows in a request");
    }
}

fn read_scale(section: &Section<'_>) -> Scale {
    let digits = section.integer("scale_digits", 0..=9);
    let factor = section.number("scale");
    let offset = section.number("offset");
    if digits.is_some() && (factor.is_some() || offset.is_some()) {
        section.fault("give either `scale_digits` or `scale` and `offset`, not both");
    }
    if let Some(factor) = factor.as_ref().filter(|factor| factor.value == 0.0) {
        section.fault_at(
            &factor.span,
            "`scale` must not be 0: every value would be the offset",
        );
    }
    match (digits, factor, offset) {
        (Some(digits), _, _) => Scale::Digits(digits as u8),
        (None, None, None) => Scale::Digits(0),
        (None, factor, offset) => Scale::Linear {
            factor: factor.map_or(1.0, |at| at.value),
            offset: offset.map_or(0.0, |at| at.value),
        },
    }
}
