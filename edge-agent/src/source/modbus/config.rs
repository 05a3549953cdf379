//! What does `[[modbus]]` say? One device, its poll groups and their tags.

use std::time::Duration;

use protocol::reading::Alias;

use super::{
    decode::{ByteOrder, Decoding, Scale, Table, ValueType},
    plan::{Limits, Place},
};
use crate::config::{Names, Section, Tags, check_address};

/// One Modbus TCP device, or one unit behind a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Name, unique among sources.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Unit id.
    pub unit_id: u8,
    /// No reply within this is a failure.
    pub timeout: Duration,
    /// Whether the agent may write to it.
    pub writes_enabled: bool,
    /// What it takes in one request.
    pub limits: Limits,
    /// Its poll groups.
    pub groups: Vec<Group>,
}

/// Tags that are read together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// How often.
    pub period: Duration,
    /// The tags.
    pub tags: Vec<TagPlan>,
}

/// One tag of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TagPlan {
    /// Its alias.
    pub alias: Alias,
    /// Where it stands.
    pub place: Place,
    /// How it is decoded.
    pub decoding: Decoding,
}

const HOUR: Duration = Duration::from_hours(1);

/// Reads one `[[modbus]]`.
pub fn read_device(section: &Section<'_>, tags: &mut Tags<'_>, names: &mut Names) -> Option<Device> {
    let name = section.required_text("name");
    if let Some(name) = &name {
        names.claim(section, "source", name);
    }
    let address = section
        .required_text("address")
        .map(|at| check_address(section, at, "modbus.address"));
    let unit_id = section.integer("unit_id", 0..=255).unwrap_or(1) as u8;
    let timeout = section
        .duration("timeout", Duration::from_millis(10)..=Duration::from_mins(1))
        .unwrap_or(Duration::from_millis(800));
    let writes_enabled = section.flag("writes_enabled", false);
    let limits = Limits {
        block_registers_max: section.integer("block_registers_max", 1..=125).unwrap_or(120) as u16,
        hole_registers_max: section.integer("hole_registers_max", 0..=124).unwrap_or(8) as u16,
    };
    let mut groups = Vec::new();
    for group in section.tables("group") {
        groups.extend(read_group(&group, tags, limits));
        group.finish();
    }
    if groups.is_empty() {
        section.fault("a device needs at least one `[[modbus.group]]` with a `[[modbus.group.tag]]`");
    }
    Some(Device {
        name: name?.value,
        address: address?,
        unit_id,
        timeout,
        writes_enabled,
        limits,
        groups,
    })
}

fn read_group(section: &Section<'_>, tags: &mut Tags<'_>, limits: Limits) -> Option<Group> {
    if !section.has("period") {
        section.fault("`modbus.group.period` is missing (like \"1s\")");
    }
    let period = section.duration("period", Duration::from_millis(10)..=HOUR);
    let mut list = Vec::new();
    for tag in section.tables("tag") {
        list.extend(read_tag(&tag, tags, period.unwrap_or(HOUR), limits));
        tag.finish();
    }
    if !section.has("tag") {
        section.fault("a poll group needs at least one `[[modbus.group.tag]]`");
    }
    Some(Group {
        period: period?,
        tags: list,
    })
}

fn read_tag(section: &Section<'_>, tags: &mut Tags<'_>, period: Duration, limits: Limits) -> Option<TagPlan> {
    const TABLES: [(&str, Table); 4] = [
        ("holding", Table::Holding),
        ("input", Table::Input),
        ("coil", Table::Coil),
        ("discrete", Table::Discrete),
    ];
    const TYPES: [(&str, ValueType); 9] = [
        ("i16", ValueType::I16),
        ("u16", ValueType::U16),
        ("i32", ValueType::I32),
        ("u32", ValueType::U32),
        ("f32", ValueType::F32),
        ("i64", ValueType::I64),
        ("u64", ValueType::U64),
        ("f64", ValueType::F64),
        ("bool", ValueType::Bool),
    ];
    const ORDERS: [(&str, ByteOrder); 4] = [
        ("ABCD", ByteOrder::Abcd),
        ("CDAB", ByteOrder::Cdab),
        ("BADC", ByteOrder::Badc),
        ("DCBA", ByteOrder::Dcba),
    ];
    let alias = tags.read(section, period);
    let table = section.choice("kind", &TABLES).unwrap_or(Table::Holding);
    if !section.has("address") {
        section.fault("`modbus.group.tag.address` is missing (the 0-based protocol address)");
    }
    let address = section.integer("address", 0..=65_535);
    let type_when_absent = if table.is_bits() {
        ValueType::Bool
    } else {
        ValueType::U16
    };
    let value_type = section.choice("type", &TYPES).unwrap_or(type_when_absent);
    let order = section.choice("byte_order", &ORDERS).unwrap_or_default();
    let scale = read_scale(section);
    if table.is_bits() && value_type != ValueType::Bool {
        section.fault("coils and discrete inputs hold bits: `type` must be \"bool\"");
    }
    let place = Place {
        table,
        address: address? as u16,
        width: value_type.registers(),
    };
    if place.end() > 65_536 {
        section.fault(format!(
            "a {} register value at address {} runs past 65535",
            place.width, place.address
        ));
    }
    if !table.is_bits() && place.width > limits.block_registers_max {
        section.fault("the value needs more registers than `block_registers_max` allows in a request");
    }
    Some(TagPlan {
        alias: alias?,
        place,
        decoding: Decoding {
            value_type,
            order,
            scale,
        },
    })
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
