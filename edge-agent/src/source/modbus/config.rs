//! What does `[[modbus]]` say? One device, its poll groups and their tags.

use std::time::Duration;

use super::{
    endpoint::{Endpoint, Parity, Serial},
    plan::Limits,
    tag::{Habits, TagPlan, read_tag},
};
use crate::config::{Names, Section, Tags, check_address};

/// One Modbus device, or one unit behind a gateway or on a serial line.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Name, unique among sources.
    pub name: String,
    /// How it is reached.
    pub endpoint: Endpoint,
    /// Unit id.
    pub unit_id: u8,
    /// No reply within this is a failure.
    pub timeout: Duration,
    /// Silence kept between a reply and the next request.
    pub pause: Duration,
    /// Whether it has a connection of its own, though others have the same address.
    pub has_own_connection: bool,
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

const HOUR: Duration = Duration::from_hours(1);

/// Reads one `[[modbus]]`.
pub fn read_device(section: &Section<'_>, tags: &mut Tags<'_>, names: &mut Names) -> Option<Device> {
    let name = section.required_text("name");
    if let Some(name) = &name {
        names.claim(section, "source", name);
    }
    let endpoint = read_endpoint(section);
    let unit_id = section.integer("unit_id", 0..=255).unwrap_or(1) as u8;
    let timeout = section
        .duration("timeout", Duration::from_millis(10)..=Duration::from_mins(1))
        .unwrap_or(Duration::from_millis(800));
    let pause = section
        .duration("pause_between_requests", Duration::ZERO..=Duration::from_secs(1))
        .unwrap_or_default();
    let habits = Habits {
        limits: read_limits(section),
        is_one_based: section.flag("one_based", false),
    };
    let has_own_connection = section.flag("own_connection", false);
    if has_own_connection && matches!(endpoint, Some(Endpoint::Serial(_))) {
        section.fault("`own_connection` cannot be had on a serial line: only one program may open the port");
    }
    let writes_enabled = section.flag("writes_enabled", false);
    let mut groups = Vec::new();
    for group in section.tables("group") {
        groups.extend(read_group(&group, tags, habits));
        group.finish();
    }
    if groups.is_empty() {
        section.fault("a device needs at least one `[[modbus.group]]` with a `[[modbus.group.tag]]`");
    }
    Some(Device {
        name: name?.value,
        endpoint: endpoint?,
        unit_id,
        timeout,
        pause,
        has_own_connection,
        writes_enabled,
        limits: habits.limits,
        groups,
    })
}

fn read_limits(section: &Section<'_>) -> Limits {
    let defaults = Limits::default();
    let registers = |key, range, default| section.integer(key, range).map_or(default, |count| count as u16);
    let block_registers_max = registers("block_registers_max", 1..=125, defaults.block_registers_max);
    Limits {
        block_registers_max,
        hole_registers_max: registers("hole_registers_max", 0..=124, defaults.hole_registers_max),
        block_bits_max: registers("block_bits_max", 1..=2000, block_registers_max * 16),
        is_single: section.flag("single_requests", false),
    }
}

fn read_endpoint(section: &Section<'_>) -> Option<Endpoint> {
    let is_serial = section.choice("transport", &[("tcp", false), ("rtu", true)]);
    let serial = read_serial(section, is_serial == Some(true));
    if is_serial == Some(true) {
        if section.text("address").is_some() {
            section.fault("`address` belongs to `transport = \"tcp\"`; a serial line is named by `serial`");
        }
        return serial.map(Endpoint::Serial);
    }
    let address = section.required_text("address")?;
    Some(Endpoint::Tcp(check_address(section, address, "modbus.address")))
}

fn read_serial(section: &Section<'_>, is_serial: bool) -> Option<Serial> {
    const PARITIES: [(&str, Parity); 3] = [
        ("none", Parity::None),
        ("even", Parity::Even),
        ("odd", Parity::Odd),
    ];
    if !is_serial {
        for key in ["serial", "baud", "parity", "stop_bits"] {
            if section.has(key) {
                section.fault(format!("`modbus.{key}` belongs to `transport = \"rtu\"`"));
            }
        }
        return None;
    }
    if cfg!(not(feature = "rtu")) {
        section.fault(
            "`transport = \"rtu\"` needs a program built with serial lines: `cargo build -p edge-agent --features rtu`",
        );
    }
    let path = section.required_text("serial");
    let baud = section.integer("baud", 300..=1_000_000).unwrap_or(19_200) as u32;
    let parity = section.choice("parity", &PARITIES).unwrap_or(Parity::Even);
    let stop_bits = section.integer("stop_bits", 1..=2).unwrap_or(1) as u8;
    Some(Serial {
        path: path?.value,
        baud,
        parity,
        stop_bits,
    })
}

fn read_group(section: &Section<'_>, tags: &mut Tags<'_>, habits: Habits) -> Option<Group> {
    if !section.has("period") {
        section.fault("`modbus.group.period` is missing (like \"1s\")");
    }
    let period = section.duration("period", Duration::from_millis(10)..=HOUR);
    let mut list = Vec::new();
    for tag in section.tables("tag") {
        list.extend(read_tag(&tag, tags, period.unwrap_or(HOUR), habits));
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

#[cfg(test)]
pub(super) mod tests;
