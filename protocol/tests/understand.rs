//! What is stored of a message, and what is said of its times? One test a case of bad input.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use protocol::{
    Quality,
    integrator::{Code, Dialect, Fact, Message, Received, TimeNote, announced, detect, parse, understand},
};

const NOW_US: i64 = 1_795_168_800_000_000;

fn received<'a>(topic: &'a str, payload: &'a [u8]) -> Received<'a> {
    Received {
        client: "press-7",
        topic,
        payload,
        is_retained: false,
        received_us: NOW_US,
    }
}

fn facts(topic: &str, payload: &str) -> Vec<Fact> {
    understand(None, &received(topic, payload.as_bytes()))
        .unwrap()
        .facts
}

fn one(payload: &str) -> Fact {
    facts("v1/akron/l1/oven/zone1", payload).remove(0)
}

#[test]
fn t29_a_time_is_read_in_every_form_to_the_same_instant() {
    for time in [
        "1795168800",
        "1795168800000",
        "1795168800000000",
        "1795168800000000000",
        "\"2026-11-20T10:00:00Z\"",
        "\"2026-11-20T11:00:00+01:00\"",
        "\"1795168800\"",
    ] {
        let fact = one(&format!("{{\"value\":1,\"ts\":{time}}}"));
        assert_eq!(
            (fact.time_us, fact.time_note, fact.quality),
            (NOW_US, TimeNote::AsSaid, Quality::GOOD),
            "{time}"
        );
    }
    let bare = one("{\"value\":1,\"ts\":\"2026-11-20T10:00:00\"}");
    assert_eq!((bare.time_us, bare.time_note), (NOW_US, TimeNote::ZoneAssumed));
}

#[test]
fn t22_a_time_that_is_absent_far_ahead_or_long_past_is_taken_with_a_flag() {
    let absent = one("23.5");
    assert_eq!(
        (absent.time_us, absent.time_note, absent.quality),
        (NOW_US, TimeNote::OfReceipt, Quality::GOOD_TIME_OF_RECEIPT)
    );
    assert!(absent.quality.is_good());
    let ahead = one(&format!("{{\"value\":1,\"ts\":{}}}", NOW_US + 3_600_000_000));
    assert_eq!(
        (ahead.time_note, ahead.quality),
        (TimeNote::Ahead, Quality::UNCERTAIN_TIME)
    );
    let late = one("{\"value\":1,\"ts\":\"2019-01-01T00:00:00Z\"}");
    assert_eq!(
        (late.time_note, late.quality),
        (TimeNote::Late, Quality::GOOD_LATE)
    );
    let bad = one("{\"value\":null,\"ts\":\"2019-01-01T00:00:00Z\"}");
    assert_eq!(
        (bad.value, bad.quality),
        (None, Quality::BAD),
        "a flag never makes a bad value better"
    );
}

#[test]
fn t29_an_impossible_time_is_refused_alone_and_the_rest_is_taken() {
    let payload = format!(
        "[{{\"ts\":{NOW_US},\"values\":{{\"a\":1}}}},{{\"ts\":4102444800,\"values\":{{\"b\":2}}}},{{\"ts\":5,\"values\":{{\"c\":3}}}}]"
    );
    let understood = understand(None, &received("v1/devices/me/telemetry", payload.as_bytes())).unwrap();
    assert_eq!(understood.facts.len(), 1);
    let codes: Vec<_> = understood.refused.iter().map(|refused| refused.code).collect();
    assert_eq!(codes, [Code::ImpossibleTime, Code::ImpossibleTime]);
    assert_eq!(understood.refused[0].sample, "4102444800000000");
}

#[test]
fn t29_a_retained_value_without_a_time_is_only_the_last_one_known() {
    let replay = Received {
        is_retained: true,
        ..received("v1/akron/l1/oven/zone1", b"23.5")
    };
    let fact = understand(None, &replay).unwrap().facts.remove(0);
    assert_eq!(
        (fact.value, fact.quality),
        (Some(23.5), Quality::UNCERTAIN_LAST_USABLE)
    );
}

#[test]
fn t29_one_name_twice_at_one_time_is_one_value_or_a_contradiction() {
    let twice = |second: &str| {
        let payload = format!(
            "[{{\"ts\":{NOW_US},\"values\":{{\"t\":1.5}}}},{{\"ts\":{NOW_US},\"values\":{{\"t\":{second}}}}}]"
        );
        understand(None, &received("v1/a/l/d/telemetry", payload.as_bytes())).unwrap()
    };
    assert_eq!((twice("1.5").facts.len(), twice("1.5").refused.len()), (1, 0));
    let other = twice("9.9");
    assert_eq!(
        (other.facts[0].value, other.refused[0].code),
        (Some(1.5), Code::DifferentValue)
    );
    assert!(other.refused[0].hint.contains("1.5") && other.refused[0].hint.contains("9.9"));
}

#[test]
fn t23_nan_and_infinity_are_refused_with_their_place_where_json_has_them() {
    for payload in ["{\"t\": NaN}", "{\"t\": Infinity}", "{\"t\": -Infinity}"] {
        let refused = understand(None, &received("v1/a/l/d/telemetry", payload.as_bytes())).unwrap_err();
        assert_eq!(refused.code, Code::BadJson);
        assert!(
            refused.offset.is_some_and(|at| (5..=7).contains(&at)),
            "{payload}: {refused:?}"
        );
        assert!(refused.hint.contains("no NaN"), "{}", refused.hint);
    }
    let refused = understand(None, &received("v1/a/l/d/telemetry", b"{\"t\": 1e400}")).unwrap_err();
    assert_eq!(refused.code, Code::BadNumber);
}

#[test]
fn t29_text_is_kept_for_the_reader_and_no_number() {
    let fact = one("\"running\"");
    assert_eq!(
        (fact.value, fact.text.as_deref(), fact.quality),
        (None, Some("running"), Quality::BAD_TYPE)
    );
}

#[test]
fn a_value_that_names_no_device_is_its_senders() {
    assert_eq!(
        facts("v1/devices/me/telemetry", "{\"t\":25}")[0].device,
        "press-7"
    );
    assert_eq!(one("25").device, "oven");
}

#[test]
fn a_discovery_says_under_which_name_its_values_will_come() {
    let config = br#"{"name":"Oven","state_topic":"zigbee2mqtt/oven","value_template":"{{ value_json.sensor.t }}","unit_of_measurement":"degC"}"#;
    let topic = "homeassistant/sensor/oven/config";
    let Ok(Message::Discovery(discovery)) = parse(detect(topic, config), topic, config) else {
        panic!("no discovery");
    };
    let (device, name) = announced(&discovery, "press-7").unwrap();
    let real = facts("zigbee2mqtt/oven", "{\"sensor\":{\"t\":180.5}}").remove(0);
    assert_eq!((device, name), (real.device, real.name));
}

proptest! {
    #[test]
    fn nothing_that_is_understood_has_a_value_that_is_no_number_or_an_impossible_time(
        topic in "(v1/devices/me/telemetry|v1/a/l/d/t|umh/v1/e/s/_historian/t|tele/x/SENSOR|spBv1.0/a)",
        payload in "\\{\"(ts|t|v|value)\":[-0-9e.]{1,22}(,\"[a-z]{1,3}\":(null|true|\"[a-z]{0,3}\"|[0-9]{1,20}))?\\}",
    ) {
        let said = received(&topic, payload.as_bytes());
        for (_, dialect) in Dialect::ALL {
            let Ok(understood) = understand(Some(dialect), &said) else { continue };
            for fact in understood.facts {
                prop_assert_eq!(fact.value.is_none(), fact.quality.is_bad());
                prop_assert!(fact.value.is_none_or(f64::is_finite));
                prop_assert!((631_152_000_000_000..=NOW_US + 86_400_000_000).contains(&fact.time_us));
            }
        }
    }
}

#[test]
fn versions_of_a_value_are_told_by_their_number_and_a_flat_object_has_none() {
    assert_eq!(one("{\"value\":1,\"ts\":1795168800,\"rev\":2}").rev, Some(2));
    assert_eq!(one("{\"value\":1,\"ts\":1795168800,\"rev\":null}").rev, None);
    let batch = facts(
        "v1/akron/l1/oven/telemetry",
        "{\"ts\":1795168800,\"values\":{\"t\":1},\"rev\":3}",
    );
    assert_eq!((batch.len(), batch[0].rev), (1, Some(3)));
    let flat = facts("v1/akron/l1/oven/telemetry", "{\"t\":1,\"rev\":3}");
    let names: Vec<&str> = flat.iter().map(|fact| fact.name.as_str()).collect();
    assert_eq!(names, ["rev", "t"], "nothing in a message is passed over");
    assert!(flat.iter().all(|fact| fact.rev.is_none()));
    for wrong in ["-1", "1.5", "\"b\"", "true"] {
        let payload = format!("{{\"value\":1,\"rev\":{wrong}}}");
        let refused = understand(None, &received("v1/a/b/oven/t", payload.as_bytes())).unwrap_err();
        assert_eq!(refused.code, Code::WrongType, "{wrong}");
    }
}

#[test]
fn two_versions_in_one_message_are_kept_and_a_contradiction_is_refused() {
    let payload = r#"[{"ts":1795168800,"values":{"t":1}},{"ts":1795168800,"values":{"t":2},"rev":1},
        {"ts":1795168800,"values":{"t":1}},{"ts":1795168800,"values":{"t":3}}]"#;
    let understood = understand(None, &received("v1/a/b/oven/telemetry", payload.as_bytes())).unwrap();
    let values: Vec<Option<f64>> = understood.facts.iter().map(|fact| fact.value).collect();
    assert_eq!(values, [Some(1.0), Some(2.0)]);
    assert_eq!(understood.refused.len(), 1);
    let refused = &understood.refused[0];
    assert_eq!(refused.code, Code::DifferentValue);
    assert!(refused.hint.contains("\"rev\": 2"), "{}", refused.hint);
}
