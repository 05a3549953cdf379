//! Does every seeded mistake show, with its line? One small fault in the shipped reference at a time.

use protocol::reading::Alias;

use super::*;

/// A configuration with one fault: the reference with `from` replaced by `to`, and what must be said about it.
struct Seeded {
    from: &'static str,
    to: &'static str,
    says: &'static str,
}

const fn seeded(from: &'static str, to: &'static str, says: &'static str) -> Seeded {
    Seeded { from, to, says }
}

const FAULTS: [Seeded; 40] = [
    seeded(
        "simulated = false",
        "simulatd = false",
        "unknown key `edge.simulatd` (did you mean `simulated`?)",
    ),
    seeded(
        "[local]",
        "[lokal]",
        "unknown key `lokal` (did you mean `local`?)",
    ),
    seeded(
        "simulated = false",
        "simulated = \"no\"",
        "`edge.simulated` must be true or false, not a string",
    ),
    seeded(
        "name = \"akron-1\"",
        "name = 7",
        "`edge.name` must be a string, not a whole number",
    ),
    seeded("name = \"akron-1\"", "name = \"Akron/1\"", "cannot be a name"),
    seeded("tenant = \"akron\"", "", "`edge.tenant` is missing"),
    seeded(
        "mqtt = \"127.0.0.1:1883\"",
        "mqtt = \"127.0.0.1\"",
        "`hub.mqtt` must be host:port",
    ),
    seeded(
        "mqtt = \"127.0.0.1:1883\"",
        "mqtt = \"hub:99999\"",
        "`hub.mqtt` must be host:port",
    ),
    seeded("mqtt = \"127.0.0.1:1883\"", "", "`hub.mqtt` is missing"),
    seeded(
        "http = \"127.0.0.1:9180\"",
        "http = 9180",
        "`local.http` must be a string",
    ),
    seeded("quota = \"2GiB\"", "quota = \"2GB\"", "write a size as"),
    seeded(
        "quota = \"2GiB\"",
        "quota = \"1KiB\"",
        "`spool.quota` must be between",
    ),
    seeded(
        "generation = \"64MiB\"",
        "generation = \"1GiB\"",
        "at most a quarter",
    ),
    seeded(
        "frame_readings_max = 1000",
        "frame_readings_max = 0",
        "must be between 1 and 10000",
    ),
    seeded(
        "frame_age_max = \"250ms\"",
        "frame_age_max = 250",
        "must be a string",
    ),
    seeded(
        "frame_age_max = \"250ms\"",
        "frame_age_max = \"soon\"",
        "write a duration as",
    ),
    seeded("inspectors = 1", "inspectors = -1", "must be between 1 and 64"),
    seeded(
        "address = \"127.0.0.1:1502\"",
        "adress = \"127.0.0.1:1502\"",
        "(did you mean `address`?)",
    ),
    seeded("unit_id = 1", "unit_id = 300", "must be between 0 and 255"),
    seeded("timeout = \"800ms\"", "timeout = \"0s\"", "must be between"),
    seeded(
        "block_registers_max = 120",
        "block_registers_max = 126",
        "must be between 1 and 125",
    ),
    seeded(
        "period = \"1s\"\n\n[[modbus.group.tag]]",
        "period = \"0s\"\n\n[[modbus.group.tag]]",
        "must be between",
    ),
    seeded(
        "name = \"TT-102\"",
        "name = \"TT-101\"",
        "tag `TT-101` is named twice",
    ),
    seeded(
        "name = \"TT-310\"",
        "name = \"TT-101\"",
        "tag `TT-101` is named twice",
    ),
    seeded(
        "kind = \"holding\"",
        "kind = \"holdng\"",
        "expected one of holding, input, coil, discrete (did you mean `holding`?)",
    ),
    seeded(
        "address = 5\ntype = \"u16\"",
        "address = 65535\ntype = \"f32\"",
        "runs past 65535",
    ),
    seeded(
        "address = 5\n",
        "address = 70000\n",
        "must be between 0 and 65535",
    ),
    seeded("address = 5\n", "", "`modbus.group.tag.address` is missing"),
    seeded("type = \"u16\"", "type = \"u15\"", "expected one of i16"),
    seeded(
        "byte_order = \"ABCD\"",
        "byte_order = \"ACBD\"",
        "expected one of ABCD",
    ),
    seeded("scale = 0.01 ", "scale = 0.0 ", "`scale` must not be 0"),
    seeded("scale_digits = 2 ", "scale_digits = 2\nscale = 0.1 ", "not both"),
    seeded(
        "url = \"opc.tcp://127.0.0.1:4840/\"",
        "url = \"http://127.0.0.1\"",
        "must be like \"opc.tcp://",
    ),
    seeded(
        "node = \"s=L3.TT-310\"",
        "node = \"ns=2;s=L3\"",
        "is no node identifier",
    ),
    seeded(
        "name = \"VS-306\"",
        "name = \"htst\"",
        "another source is already called `htst`",
    ),
    seeded(
        "tag = \"TT-101\"",
        "tag = \"TT-1011\"",
        "no tag is named `TT-1011` (did you mean `TT-101`?)",
    ),
    seeded(
        "low = 72.0 ",
        "low = 72.0\nhigh = 71.0 ",
        "`low` must be below `high`",
    ),
    seeded("low = 74.0", "", "needs `low`, `high` or both"),
    seeded(
        "code = \"CCP-4\"",
        "code = \"CCP-1\"",
        "another control point is already called",
    ),
    seeded(
        "gap_max = \"10s\"",
        "gap_max = \"500ms\"",
        "shorter than the tag's period",
    ),
];

#[test]
fn the_shipped_reference_parses() {
    let config = parse(REFERENCE).unwrap();
    assert!(config.tag_count() >= 4);
    assert!(config.points.len() >= 2);
    assert_eq!(config.spool.quota_bytes, 2 << 30);
    config.dictionary.check().unwrap();
}

#[test]
fn t34_every_seeded_fault_is_named_with_its_line() {
    for Seeded { from, to, says } in FAULTS {
        assert!(REFERENCE.contains(from), "the reference no longer has {from:?}");
        let text = REFERENCE.replacen(from, to, 1);
        let faults = parse(&text).expect_err(to);
        let fault = faults.iter().find(|fault| fault.message.contains(says));
        let fault = fault.unwrap_or_else(|| panic!("{to:?} gave {faults:#?}, not {says:?}"));
        let at = REFERENCE.find(from).unwrap();
        let line = REFERENCE[..at].matches('\n').count() + 1;
        // A fault of a missing key stands at its table; others within a line or two of the change.
        let is_near = fault.line.abs_diff(line) <= 2 || (fault.line <= line && says.contains("missing"));
        let names_section = fault.line <= line && line - fault.line <= 12;
        assert!(
            is_near || names_section,
            "{to:?} is at line {line}, said {}",
            fault.line
        );
    }
}

#[test]
fn all_faults_are_reported_at_once_in_order_of_line() {
    let mut text = REFERENCE.to_owned();
    for Seeded { from, to, .. } in [&FAULTS[0], &FAULTS[10], &FAULTS[18], &FAULTS[32]] {
        text = text.replacen(from, to, 1);
    }
    let faults = parse(&text).unwrap_err();
    assert_eq!(faults.len(), 4, "{faults:#?}");
    assert!(faults.is_sorted_by_key(|fault| fault.line));
}

#[test]
fn what_is_no_toml_is_said_with_its_line() {
    let faults = parse("[edge]\nname = \n").unwrap_err();
    assert_eq!(faults[0].line, 2);
    assert!(faults[0].message.starts_with("not TOML"));
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let said: Vec<String> = parse("")
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.message)
        .collect();
    for key in ["edge.name", "edge.tenant", "hub.mqtt"] {
        assert!(
            said.iter().any(|message| message.contains(key)),
            "{key} not in {said:?}"
        );
    }
}

#[test]
fn aliases_follow_the_order_of_appearance_and_periods_come_from_the_group() {
    let config = parse(REFERENCE).unwrap();
    let tags: Vec<(&str, u32, u32)> = config
        .dictionary
        .tags
        .iter()
        .map(|tag| (tag.name.as_str(), tag.alias.0, tag.period_ms))
        .collect();
    assert_eq!(
        tags[..4],
        [
            ("TT-101", 0, 1000),
            ("TT-102", 1, 1000),
            ("ZS-106", 2, 1000),
            ("TT-310", 3, 2000)
        ]
    );
    let point = &config.points[0];
    assert_eq!(point.tag, Alias(0));
    assert_eq!(point.gate.unwrap().tag, Alias(2));
    assert_eq!(point.stuck.unwrap().reference, Alias(1));
    assert_eq!(point.limit.period_us, 1_000_000);
}

/// A plant that may be written to, with an output and a control point that drives it.
const REACTING: &str = r#"
[edge]
name = "akron-1"
tenant = "akron"
[hub]
mqtt = "127.0.0.1:1883"
[[modbus]]
name = "htst"
address = "127.0.0.1:1502"
writes_enabled = true
[[modbus.group]]
period = "1s"
[[modbus.group.tag]]
name = "TT-101"
unit = "degC"
address = 0
[[output]]
name = "stop"
device = "htst"
coil = 10
[[ccp]]
code = "CCP-1"
tag = "TT-101"
low = 72.0
react = { output = "stop", on_deviation = 1, on_clear = 0 }
[[alarm]]
tag = "TT-101"
low = 73.0
high = 80.0
priority = 2
"#;

#[test]
fn every_fault_of_outputs_kinds_and_alarms_is_named_with_its_remedy() {
    parse(REACTING).unwrap();
    for (from, to, says) in [
        (
            "writes_enabled = true\n",
            "",
            "`htst` is read-only: set `writes_enabled = true`",
        ),
        (
            "device = \"htst\"",
            "device = \"htts\"",
            "no `[[modbus]]` is named `htts`",
        ),
        ("device = \"htst\"\n", "", "an output needs either `device`"),
        (
            "coil = 10",
            "coil = 10\nregister = 3",
            "name one of `coil` and `register`",
        ),
        (
            "output = \"stop\"",
            "output = \"halt\"",
            "no `[[output]]` is named `halt`",
        ),
        ("on_deviation = 1", "on_deviation = 2", "a coil is 0 or 1, not 2"),
        (
            "low = 72.0",
            "kind = \"hold\"",
            "expected one of limit, hold_time, cooling, challenge",
        ),
        (
            "low = 72.0",
            "low = 72.0\nkind = \"hold_time\"",
            "`ccp.hold` is missing",
        ),
        (
            "low = 72.0",
            "kind = \"cooling\"\nstart = 57.0",
            "a cooling curve needs `stages`",
        ),
        (
            "low = 72.0",
            "kind = \"cooling\"\nstart = 57.0\nair = 6.0\nstages = [{ to = 5.0, within = \"6h\" }]",
            "not warmer than `air`",
        ),
        (
            "low = 72.0",
            "kind = \"cooling\"\nstart = 57.0\nstages = [{ to = 5.0, within = \"6h\" }, { to = 21.0, within = \"2h\" }]",
            "each stage must be colder and later",
        ),
        (
            "low = 72.0",
            "low = 72.0\nkind = \"challenge\"\nevery = \"1h\"",
            "the tag is polled: `idle` must say",
        ),
        (
            "low = 72.0",
            "low = 72.0\nhold = \"15s\"",
            "unknown key `ccp.hold`",
        ),
        ("high = 80.0", "high = 70.0", "limits must rise"),
        ("low = 73.0\nhigh = 80.0\n", "", "an alarm needs `low`"),
        ("priority = 2", "priority = 5", "must be between 1 and 4"),
    ] {
        assert!(REACTING.contains(from), "{from:?}");
        let faults = parse(&REACTING.replacen(from, to, 1)).expect_err(to);
        assert!(
            faults
                .iter()
                .any(|fault| fault.message.contains(says) && fault.line > 0),
            "{to:?} gave {faults:#?}, not {says:?}"
        );
    }
}

fn with_variables(variables: &[(&str, &str)]) -> Result<Config, Vec<Fault>> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse_with(REFERENCE, variables)
}

#[test]
fn the_environment_comes_before_the_file() {
    let config = with_variables(&[
        ("FOODFLOW_EDGE__HUB__MQTT", "hub:1883"),
        ("FOODFLOW_EDGE__EDGE__SIMULATED", "true"),
        ("FOODFLOW_EDGE__SPOOL__FRAME_READINGS_MAX", "50"),
        ("FOODFLOW_EDGE__SPOOL__FRAME_AGE_MAX", "100ms"),
        ("FOODFLOW_HUB__HTTP", "not ours"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(config.hub.mqtt, "hub:1883");
    assert!(config.edge.simulated);
    assert_eq!(
        (
            config.spool.frame_readings_max,
            config.spool.frame_age_max.as_millis()
        ),
        (50, 100)
    );
}

#[test]
fn faults_in_the_environment_say_so() {
    let faults = with_variables(&[
        ("FOODFLOW_EDGE__HUB__MQT", "hub:1883"),
        ("FOODFLOW_EDGE__SPOOL__FRAME_READINGS_MAX", "many"),
    ])
    .unwrap_err();
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [0, 0]);
    assert!(faults.iter().any(|fault| {
        fault
            .message
            .contains("unknown key `hub.mqt` (did you mean `mqtt`?)")
    }));
    let said = list(Path::new("edge.toml"), &faults);
    assert!(said.starts_with("environment: "), "{said}");
}
