//! Is every mistake about signals named with its remedy?

use crate::config::{Fault, parse};

const HEAD: &str = "[edge]\nname = \"e\"\ntenant = \"t\"\n[hub]\nmqtt = \"h:1\"\n[[modbus]]\nname = \"plc\"\n\
    address = \"p:502\"\n[[modbus.group]]\nperiod = \"1s\"\n";

fn faults(tags: &[&str], rest: &str) -> Vec<Fault> {
    let tags = tags.iter().zip(0..).map(|(keys, number)| {
        format!("[[modbus.group.tag]]\nname = \"T{number}\"\naddress = {number}\n{keys}\n")
    });
    let text = HEAD.to_owned() + &tags.collect::<String>();
    parse(&(text + rest)).err().unwrap_or_default()
}

fn says(tags: &[&str], rest: &str, wanted: &str) {
    let found = faults(tags, rest);
    assert!(
        found
            .iter()
            .any(|fault| fault.message.contains(wanted) && fault.line > 0),
        "{wanted:?} not in {found:#?}"
    );
}

#[test]
fn mistakes_in_a_tags_signal_are_named() {
    for (keys, wanted) in [
        (
            "unit = \"degC\"\nraw_unit = \"kPa\"",
            "`kPa` is a pressure and `degC` a temperature",
        ),
        ("unit = \"degC\"\nraw_unit = \"degR\"", "unit `degR` is not known"),
        ("deadband = { }", "`deadband` needs `absolute`"),
        ("deadband = { absolute = 0.0 }", "must be greater than 0"),
        (
            "deadband = { absolute = 1.0, report_evry = \"1s\" }",
            "did you mean `report_every`?",
        ),
        ("counter = { max = 65535 }", "`counter` needs `total` or `rate`"),
        ("counter = { total = \"N\" }", "`max` is missing"),
        ("counter = { max = 1e16, total = \"N\" }", "more than 2^53"),
        ("counter = { max = 9, total = \"T0\" }", "tag `T0` is named twice"),
        (
            "counter = { max = 9, total = \"N\", reset = \"guess\" }",
            "expected one of detect, rollover, reset",
        ),
        (
            "stuck = { floor = 0.1, reference = \"T9\" }",
            "no tag is named `T9`",
        ),
        (
            "stuck = { floor = 0.1, reference = \"T0\" }",
            "cannot be its own reference",
        ),
        ("stuck = { reference = \"T0\" }", "`floor` is missing"),
        (
            "drift = { floor = 0.1 }",
            "`modbus.group.tag.drift.reference` is missing",
        ),
        ("jump = { max = -1.0 }", "must be greater than 0"),
        ("rate = { }", "`max` is missing"),
    ] {
        says(&[keys], "", wanted);
    }
}

#[test]
fn a_deadband_on_what_a_control_point_is_judged_by_is_refused() {
    let ccp = "[[ccp]]\ncode = \"CCP-1\"\ntag = \"T0\"\nlow = 1.0\ngate = { tag = \"T1\" }\nstuck = { reference = \"T2\" }\n";
    for number in 0..3 {
        let mut tags = ["", "", ""];
        tags[number] = "deadband = { absolute = 1.0 }";
        says(&tags, ccp, "control point CCP-1 is judged by it");
    }
}

#[test]
fn mistakes_in_derived_tags_are_named() {
    for (rest, wanted) in [
        (
            "kind = \"diference\"\ntags = [\"T0\", \"T1\"]",
            "did you mean `difference`?",
        ),
        ("tags = [\"T0\", \"T1\"]", "`derived.kind` is missing"),
        (
            "kind = \"difference\"\ntags = [\"T0\"]",
            "computed from 2 to 2 tags, not 1",
        ),
        (
            "kind = \"difference\"\ntags = [\"T0\", \"T7\"]",
            "no tag is named `T7`",
        ),
        ("kind = \"mean\"", "`derived.tags` is missing"),
        ("kind = \"mean\"\ntags = \"T0\"", "must be an array of strings"),
        ("kind = \"lethality\"\ntag = \"T1\"", "the tag is in `degF`"),
        (
            "kind = \"lethality\"\ntag = \"T0\"\nz = 0.0",
            "`z` must be greater than 0",
        ),
        (
            "kind = \"mean\"\ntag = \"T0\"\ngate = { tag = \"T1\" }",
            "mean something only for",
        ),
        (
            "kind = \"cooling\"\ntag = \"T0\"\nfrom = 57.0\nto = 21.0",
            "cooling needs `air`",
        ),
        (
            "kind = \"cooling\"\ntag = \"T0\"\nfrom = 21.0\nto = 57.0\nair = 1.0",
            "must be less than `from`",
        ),
        (
            "kind = \"cooling\"\ntag = \"T0\"\nfrom = 57.0\nto = 5.0\nair = 6.0",
            "never cools product to 5",
        ),
    ] {
        let tags = ["unit = \"degC\"", "unit = \"degF\""];
        says(&tags, &format!("[[derived]]\nname = \"D\"\n{rest}\n"), wanted);
    }
}

#[test]
fn mistakes_in_states_are_named() {
    says(
        &[""],
        "[[state]]\nname = \"S\"\n",
        "needs at least one `[[state.rule]]`",
    );
    let rule = "[[state]]\nname = \"S\"\n[[state.rule]]\nname = \"run\"\n";
    says(&[""], rule, "needs at least one `[[state.rule.when]]`");
    let when = format!("{rule}[[state.rule.when]]\ntag = \"T0\"\nabove = 1.0\nbelow = 2.0\n");
    says(&[""], &when, "give exactly one of");
}

#[test]
fn what_follows_from_a_tag_has_its_line_and_period() {
    let text = HEAD.to_owned()
        + "[[modbus.group.tag]]\nname = \"T0\"\naddress = 0\nline = \"L1\"\nunit = \"1\"\n\
           counter = { max = 65535, total = \"N\", rate = \"R\", per = \"h\" }\n\
           [[derived]]\nname = \"D\"\nkind = \"rate\"\ntag = \"N\"\n";
    let config = parse(&text).unwrap();
    let tags: Vec<(&str, &str, Option<&str>, u32)> = config
        .dictionary
        .tags
        .iter()
        .map(|tag| {
            (
                tag.name.as_str(),
                tag.unit.as_str(),
                tag.line.as_deref(),
                tag.period_ms,
            )
        })
        .collect();
    assert_eq!(
        tags,
        [
            ("T0", "1", Some("L1"), 1_000),
            ("N", "1", Some("L1"), 1_000),
            ("R", "1/h", Some("L1"), 1_000),
            ("D", "", None, 1_000)
        ]
    );
}

#[test]
fn the_commented_examples_of_the_reference_are_right() {
    let reference = crate::config::REFERENCE;
    let (head, tail) = reference.split_once("# What every tag may say").unwrap();
    let keys = [
        "raw_unit", "deadband", "counter", "rate", "jump", "stuck", "drift",
    ];
    let lines = tail.lines().filter_map(|line| line.strip_prefix("# "));
    let of_tags: String = lines
        .filter(|line| keys.iter().any(|key| line.starts_with(&format!("{key} = "))))
        .take(keys.len())
        .map(|line| line.to_owned() + "\n")
        .collect();
    assert_eq!(of_tags.lines().count(), keys.len());
    let tag = "[[modbus]]\nname = \"more\"\naddress = \"p:502\"\n[[modbus.group]]\nperiod = \"1s\"\n\
        [[modbus.group.tag]]\nname = \"TT-303\"\naddress = 1\n[[modbus.group.tag]]\nname = \"TT-302\"\n\
        unit = \"degC\"\naddress = 0\n";
    let examples = tail.replace("# [[", "[[");
    let mut is_example = false;
    let examples = examples.lines().map(|line| {
        is_example = line.starts_with("[[") || is_example && line.starts_with("# ");
        let bare = line.strip_prefix("# ").filter(|_| is_example);
        bare.unwrap_or(line).to_owned() + "\n"
    });
    let text = head.to_owned() + tag + &of_tags + "# What " + &examples.collect::<String>();
    let config = parse(&text).unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"));
    assert!(config.signals.derived.len() >= 5);
}
