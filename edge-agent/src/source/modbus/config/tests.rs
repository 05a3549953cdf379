//! Does a device's configuration mean what it says, and is what it cannot mean refused with a remedy?

use protocol::reading::Alias;

use super::{
    super::{
        decode::{ByteOrder, Decoding, Scale, Table, ValueType},
        plan::Place,
    },
    *,
};

/// A device with one group a second for each list of holding registers.
pub(in super::super) fn device(groups: &[&[u16]]) -> Device {
    let tag = |address: u16| TagPlan {
        alias: Alias(u32::from(address)),
        place: Place {
            table: Table::Holding,
            address,
            width: 1,
        },
        decoding: Decoding {
            value_type: ValueType::U16,
            order: ByteOrder::Abcd,
            scale: Scale::Digits(0),
            bad_values: None,
            words: None,
        },
    };
    let group = |addresses: &&[u16]| Group {
        period: Duration::from_secs(1),
        tags: addresses.iter().copied().map(tag).collect(),
    };
    Device {
        name: "plc".to_owned(),
        endpoint: Endpoint::Tcp("127.0.0.1:9".to_owned()),
        unit_id: 1,
        timeout: Duration::from_millis(500),
        pause: Duration::ZERO,
        has_own_connection: false,
        writes_enabled: false,
        limits: Limits::default(),
        groups: groups.iter().map(group).collect(),
    }
}

fn parse(device: &str, tag: &str) -> Result<Device, Vec<String>> {
    let text = format!(
        "[edge]\nname = \"a\"\ntenant = \"a\"\n[hub]\nmqtt = \"127.0.0.1:9\"\n[[modbus]]\nname = \"plc\"\n{device}\n\
         [[modbus.group]]\nperiod = \"1s\"\n[[modbus.group.tag]]\nname = \"T\"\n{tag}\n"
    );
    crate::config::parse(&text)
        .map(|mut config| config.modbus.remove(0))
        .map_err(|faults| faults.into_iter().map(|fault| fault.message).collect())
}

const TCP: &str = "address = \"127.0.0.1:502\"";

fn tag(text: &str) -> TagPlan {
    parse(TCP, text).unwrap().groups[0].tags[0].clone()
}

#[test]
fn a_bit_of_a_register_a_string_and_bad_values_are_understood() {
    let bit = tag("address = 7\nbit = 15");
    assert_eq!(
        (bit.decoding.value_type, bit.place.width),
        (ValueType::Bit(15), 1)
    );
    let text = tag("address = 7\ntype = \"string\"\nlength = 5\nmap = { RUN = 1, \"CIP 2\" = 2.5 }");
    assert_eq!(
        (text.decoding.value_type, text.place.width),
        (ValueType::Text(5), 3)
    );
    let words = text.decoding.words.unwrap();
    assert!(words.contains(&("CIP 2".to_owned(), 2.5)) && words.len() == 2);
    let bad = tag("address = 7\nbad_values = [-32768, 65_535, 1.5]");
    assert_eq!(bad.decoding.bad_values.unwrap()[..], [-32_768.0, 65_535.0, 1.5]);
}

#[test]
fn one_based_addresses_are_one_higher_than_the_protocol_s() {
    let one_based = format!("{TCP}\none_based = true");
    for (written, meant) in [(1, 0), (65_536, 65_535)] {
        let device = parse(&one_based, &format!("address = {written}")).unwrap();
        assert_eq!(device.groups[0].tags[0].place.address, meant);
    }
    let faults = parse(&one_based, "address = 0").unwrap_err();
    assert!(faults[0].contains("between 1 and 65536"), "{faults:?}");
}

#[test]
fn quirks_of_a_device_are_understood() {
    let quirks = "block_registers_max = 10\nblock_bits_max = 64\nhole_registers_max = 0\nsingle_requests = true\n\
                  pause_between_requests = \"50ms\"\nunit_id = 255\nown_connection = true\nwrites_enabled = true";
    let device = parse(&format!("{TCP}\n{quirks}"), "address = 0").unwrap();
    let expected = Limits {
        block_registers_max: 10,
        block_bits_max: 64,
        hole_registers_max: 0,
        is_single: true,
    };
    assert_eq!(device.limits, expected);
    assert_eq!((device.unit_id, device.pause), (255, Duration::from_millis(50)));
    assert!(device.has_own_connection && device.writes_enabled);
    let plain = parse(TCP, "address = 0").unwrap();
    assert_eq!(plain.limits, Limits::default());
    assert!(!plain.writes_enabled, "read-only unless somebody says otherwise");
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_remedy() {
    for (device, tag, says) in [
        (
            TCP,
            "address = 1\ntype = \"string\"\nmap = { A = 1 }",
            "needs its `length`",
        ),
        (TCP, "address = 1\ntype = \"string\"\nlength = 4", "needs a `map`"),
        (
            TCP,
            "address = 1\ntype = \"string\"\nlength = 251\nmap = { A = 1 }",
            "between 1 and 250",
        ),
        (
            TCP,
            "address = 1\ntype = \"string\"\nlength = 4\nmap = { A = \"x\" }",
            "made of numbers",
        ),
        (
            TCP,
            "address = 1\ntype = \"string\"\nlength = 4\nmap = { A = 1 }\nscale = 2",
            "come from its `map`",
        ),
        (TCP, "address = 1\nlength = 4", "belongs to `type = \"string\"`"),
        (
            TCP,
            "address = 1\nmap = { A = 1 }",
            "belongs to `type = \"string\"`",
        ),
        (TCP, "address = 1\nbit = 16", "between 0 and 15"),
        (
            TCP,
            "address = 1\ntype = \"f32\"\nbit = 3",
            "picks one bit of a register",
        ),
        (
            TCP,
            "address = 1\nkind = \"coil\"\nbit = 3",
            "picks one bit of a register",
        ),
        (TCP, "address = 1\nbad_values = 65535", "a list of numbers"),
        (TCP, "address = 1\nbad_values = [\"x\"]", "made of numbers"),
        (TCP, "address = 65535\ntype = \"bcd32\"", "runs past 65535"),
        ("transport = \"rtu\"", "address = 1", "`modbus.serial` is missing"),
        (
            "address = \"plc:502\"\nbaud = 9600",
            "address = 1",
            "belongs to `transport = \"rtu\"`",
        ),
        (
            "address = \"plc:502\"\nblock_bits_max = 2001",
            "address = 1",
            "between 1 and 2000",
        ),
        ("transport = \"udp\"", "address = 1", "expected one of tcp, rtu"),
    ] {
        let faults = parse(device, tag).expect_err(tag);
        assert!(
            faults.iter().any(|fault| fault.contains(says)),
            "{device} {tag}: {faults:?}"
        );
    }
}

#[cfg(not(feature = "rtu"))]
#[test]
fn a_serial_line_in_a_program_built_without_is_a_fault_that_says_how_to_build_one() {
    let faults = parse("transport = \"rtu\"\nserial = \"/dev/ttyUSB0\"", "address = 1").unwrap_err();
    assert!(faults[0].contains("--features rtu"), "{faults:?}");
}

#[cfg(feature = "rtu")]
#[test]
fn a_serial_line_has_the_settings_of_the_standard_unless_told_otherwise() {
    let device = parse("transport = \"rtu\"\nserial = \"/dev/ttyUSB0\"", "address = 1").unwrap();
    let expected = Serial {
        path: "/dev/ttyUSB0".to_owned(),
        baud: 19_200,
        parity: Parity::Even,
        stop_bits: 1,
    };
    assert_eq!(device.endpoint, Endpoint::Serial(expected));
}
