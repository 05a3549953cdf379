//! Is every dialect read as its golden file says, and does nothing that bytes say make the reader panic?
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use proptest::prelude::*;
use protocol::{
    Quality,
    integrator::{Code, Dialect, Message, PAYLOAD_BYTES_MAX, TimeForm, Value, detect, parse, time_of_number},
};

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/integrator")
}

fn read(topic: &str, payload: &[u8]) -> serde_json::Value {
    let dialect = detect(topic, payload);
    match parse(dialect, topic, payload) {
        Ok(message) => serde_json::json!({ "dialect": dialect, "message": message }),
        Err(refused) => serde_json::json!({
            "dialect": dialect, "refused": refused, "number": refused.code.number(), "said": refused.to_string(),
        }),
    }
}

#[test]
fn t29_every_message_is_read_as_its_golden_file_says() {
    let mut seen = 0;
    let mut dialects = std::collections::HashSet::new();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
    {
        let text = std::fs::read_to_string(&path).unwrap();
        let (topic, payload) = text.split_once('\n').unwrap();
        let found = read(topic, payload.as_bytes());
        dialects.insert(found["dialect"].as_str().unwrap().to_owned());
        let expected = path.with_extension("json");
        if std::env::var_os("FOODFLOW_BLESS").is_some() {
            std::fs::write(&expected, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
        }
        let expected: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&expected).unwrap()).unwrap();
        assert_eq!(found, expected, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 45, "{seen} golden files");
    assert_eq!(
        dialects.len(),
        Dialect::ALL.len(),
        "every dialect has one: {dialects:?}"
    );
}

fn numbers(payload: &str) -> Vec<(Option<f64>, Quality)> {
    match parse(Dialect::Native, "plant/oven/zone1", payload.as_bytes()) {
        Ok(Message::Readings(items)) => items
            .iter()
            .map(|item| (item.value.number(), item.quality))
            .collect(),
        other => panic!("{payload}: {other:?}"),
    }
}

#[test]
fn t23_strange_numbers_stay_what_they_are_or_are_refused() {
    assert_eq!(numbers("5e-324"), [(Some(5e-324), Quality::GOOD)]);
    let minus_zero = numbers("-0.0")[0].0.unwrap();
    assert!(minus_zero == 0.0 && minus_zero.is_sign_negative());
    assert_eq!(numbers("9007199254740992")[0].1, Quality::GOOD);
    assert_eq!(
        numbers("9007199254740993")[0].1,
        Quality::UNCERTAIN,
        "an f64 rounds it, and says so"
    );
    assert_eq!(numbers("18446744073709551615")[0].1, Quality::UNCERTAIN);
    assert_eq!(numbers("null"), [(None, Quality::BAD)]);
    for refused in ["NaN", "Infinity", "-Infinity", "1e999"] {
        assert!(
            parse(Dialect::Native, "a/b", refused.as_bytes()).is_err(),
            "{refused}"
        );
    }
}

#[test]
fn t23_a_megabyte_of_text_is_cut_and_more_is_refused_with_both_sizes() {
    let long = format!("\"{}\"", "ä".repeat(400_000));
    let Ok(Message::Readings(items)) = parse(Dialect::Native, "a/b", long.as_bytes()) else {
        panic!("refused")
    };
    assert!(matches!(&items[0].value, Value::Text(text) if text.len() <= 4_096 && text.ends_with('ä')));
    let refused = parse(Dialect::Native, "a/b", &vec![b'1'; PAYLOAD_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(refused.code, Code::TooLarge);
    let not_text = parse(Dialect::Native, "a/b", b"\"ok\xff\"").unwrap_err();
    assert_eq!((not_text.code, not_text.offset), (Code::NotUtf8, Some(3)));
    let deep = "[".repeat(100_000);
    assert!(parse(Dialect::Native, "a/b", deep.as_bytes()).is_err());
}

#[test]
fn a_time_keeps_its_instant_in_every_unit() {
    for (number, form) in [
        (1_700_000_000.0, TimeForm::Seconds),
        (1_700_000_000_000.0, TimeForm::Milliseconds),
        (1_700_000_000_000_000.0, TimeForm::Microseconds),
        (1_700_000_000_000_000_000.0, TimeForm::Nanoseconds),
    ] {
        assert_eq!(time_of_number(number), Some((1_700_000_000_000_000, form)));
    }
    for wrong in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        assert_eq!(time_of_number(wrong), None);
    }
}

fn any_topic() -> impl Strategy<Value = String> {
    let starts = prop::sample::select(vec![
        "",
        "plant/a/",
        "v1/devices/me/telemetry",
        "v1/gateway/telemetry",
        "umh/v1/a/b/_historian/",
        "te/device/a///m/",
        "te/",
        "homeassistant/sensor/a/config",
        "tele/a/SENSOR",
        "tc/a/b/o/mc_v3/ts",
        "azure-iot-operations/data/a",
        "/neuron/a/upload",
    ]);
    (starts, "[a-z/_]{0,12}").prop_map(|(start, rest)| start.to_owned() + &rest)
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[ -~]{0,12}".prop_map(Into::into),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "value",
            "v",
            "ts",
            "values",
            "timestamp",
            "q",
            "entries",
            "propertyAlias",
            "propertyValues",
            "Messages",
            "Payload",
            "MessageType",
            "tags",
            "errors",
            "node",
            "group",
            "timeseries",
            "name",
            "StatusCode",
            "SourceTimestamp",
        ])
        .prop_map(str::to_owned),
        "[a-z]{0,4}",
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::hash_map(key.clone(), inner, 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(topic in any_topic(), payload in prop::collection::vec(any::<u8>(), 0..200)) {
        for (_, dialect) in Dialect::ALL {
            drop(parse(dialect, &topic, &payload));
        }
    }

    #[test]
    fn no_json_makes_the_reader_panic_and_every_value_is_finite(topic in any_topic(), json in any_json()) {
        let payload = json.to_string();
        for (_, dialect) in Dialect::ALL {
            if let Ok(Message::Readings(items)) = parse(dialect, &topic, payload.as_bytes()) {
                for item in items {
                    prop_assert!(!item.name.is_empty());
                    prop_assert!(item.value.number().is_none_or(f64::is_finite));
                }
            }
        }
    }

    #[test]
    fn no_line_makes_the_line_reader_panic(text in "[a-z,= \\\\\"0-9iut.\n#]{0,80}") {
        drop(parse(Dialect::Influx, "a/b", text.as_bytes()));
    }
}
