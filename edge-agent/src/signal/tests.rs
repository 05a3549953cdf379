//! Do signals keep what they were given: nothing held, nothing turned into a number that it is not?

use std::collections::HashMap;

use proptest::prelude::*;
use protocol::{Quality, frame::Frame};

use super::*;
use crate::{
    config,
    spool::{record::Record, seal::Sealer},
};

const SECOND: Micros = 1_000_000;

const HEAD: &str = "[edge]\nname = \"e\"\ntenant = \"t\"\n[hub]\nmqtt = \"h:1\"\n[[modbus]]\nname = \"plc\"\n\
    address = \"p:502\"\n[[modbus.group]]\nperiod = \"1s\"\n";

/// Signals of tags `T0`, `T1`, … with these further keys, and whatever follows them; every alias by its name.
pub(super) fn signals(tags: &[&str], rest: &str) -> (Signals, HashMap<String, Alias>) {
    let tags = tags.iter().zip(0..).map(|(keys, number)| {
        format!("[[modbus.group.tag]]\nname = \"T{number}\"\naddress = {number}\n{keys}\n")
    });
    let text = HEAD.to_owned() + &tags.collect::<String>();
    let config = config::parse(&(text + rest)).unwrap();
    let names = config.dictionary.tags.iter();
    let names = names.map(|tag| (tag.name.clone(), tag.alias)).collect();
    (Signals::new(&config.signals, Uuid::now_v7), names)
}

pub(super) fn good(tag: u32, second: i64, value: f64) -> Reading {
    Reading::new(Alias(tag), second * SECOND, value, Quality::GOOD)
}

/// What comes out of one poll.
pub(super) fn poll(signals: &mut Signals, second: i64, values: &[f64]) -> (Vec<Reading>, Vec<Event>) {
    let mut readings: Vec<Reading> = values
        .iter()
        .zip(0..)
        .map(|(value, tag)| good(tag, second, *value))
        .collect();
    let events = signals.derive(&mut readings, second * SECOND);
    (readings, events)
}

fn codes(events: &[Event]) -> Vec<(&str, bool)> {
    let alarms = events.iter().map(|event| match event {
        Event::Alarm(alarm) => (alarm.code.as_str(), alarm.active),
        other => panic!("{other:?}"),
    });
    alarms.collect()
}

fn of(readings: &[Reading], tag: Alias) -> Reading {
    *readings.iter().find(|reading| reading.tag == tag).unwrap()
}

#[test]
fn without_anything_configured_readings_pass_as_they_are() {
    let (mut signals, _) = signals(&["", ""], "");
    let before = vec![
        good(0, 1, 5.0),
        Reading::bad(Alias(1), SECOND, Quality::BAD_TIMEOUT),
    ];
    let mut readings = before.clone();
    assert!(signals.derive(&mut readings, SECOND).is_empty());
    signals.report(&mut readings);
    assert_eq!(format!("{readings:?}"), format!("{before:?}"));
    assert!(signals.snapshot().is_empty());
}

#[test]
fn the_devices_unit_becomes_the_tags_and_limits_are_in_the_tags() {
    let (mut signals, _) = signals(
        &["unit = \"degC\"\nraw_unit = \"degF\"\njump = { max = 5.0 }"],
        "",
    );
    let (readings, _) = poll(&mut signals, 0, &[161.6]);
    assert_eq!(readings[0], good(0, 0, 72.0));
    // 8 °F are 4.4 °C.
    assert!(poll(&mut signals, 1, &[169.6]).1.is_empty());
}

#[test]
fn a_counter_becomes_a_total_and_a_rate() {
    let keys = "unit = \"1\"\ncounter = { max = 65535, total = \"N\", rate = \"R\" }";
    let (mut signals, names) = signals(&[keys], "");
    poll(&mut signals, 0, &[65_535.0]);
    let (readings, events) = poll(&mut signals, 1, &[0.0]);
    assert_eq!(of(&readings, names["N"]).value(), Some(1.0));
    assert_eq!(of(&readings, names["R"]).value(), Some(60.0));
    assert_eq!(readings[0], good(0, 1, 0.0));
    assert!(events.is_empty());
    let mut readings = vec![Reading::bad(Alias(0), 2 * SECOND, Quality::BAD_TIMEOUT)];
    signals.derive(&mut readings, 2 * SECOND);
    assert_eq!(of(&readings, names["N"]).quality, Quality::BAD_TIMEOUT);
    // What the counter said while nobody asked is counted once somebody does.
    let (readings, _) = poll(&mut signals, 3, &[4.0]);
    assert_eq!(of(&readings, names["N"]).value(), Some(5.0));
}

#[test]
fn f16_a_counters_total_goes_on_after_a_restart() {
    let keys = "counter = { max = 65535, total = \"N\" }";
    let (mut before, names) = signals(&[keys], "");
    poll(&mut before, 0, &[65_530.0]);
    poll(&mut before, 1, &[65_534.0]);
    let (mut after, _) = signals(&[keys], "");
    for (key, state) in before.snapshot() {
        assert!(key.starts_with(STATE_PREFIX));
        after.restore(&key, &state).unwrap();
    }
    let (readings, _) = poll(&mut after, 30, &[3.0]);
    assert_eq!(
        (
            of(&readings, names["N"]).value(),
            of(&readings, names["N"]).quality
        ),
        (Some(9.0), Quality::GOOD)
    );
    assert!(after.restore("signal/T9", &[]).is_err());
}

#[test]
fn f16_a_counter_that_was_reset_is_alarmed_and_its_total_uncertain_once() {
    let (mut signals, names) = signals(&["counter = { max = 65535, total = \"N\" }"], "");
    poll(&mut signals, 0, &[300.0]);
    let (readings, events) = poll(&mut signals, 1, &[2.0]);
    assert_eq!(codes(&events), [("counter.reset", true)]);
    assert_eq!(of(&readings, names["N"]).quality, Quality::UNCERTAIN);
    let (readings, events) = poll(&mut signals, 2, &[5.0]);
    assert_eq!(codes(&events), [("counter.reset", false)]);
    assert_eq!(of(&readings, names["N"]), good(names["N"].0, 2, 5.0));
}

#[test]
fn a_rate_of_change_beyond_its_limit_is_alarmed_and_doubted_and_ends() {
    let (mut signals, _) = signals(&["rate = { max = 2.0, per = \"10s\" }"], "");
    poll(&mut signals, 0, &[4.0]);
    let (readings, events) = poll(&mut signals, 1, &[7.0]);
    assert_eq!(codes(&events), [("sensor.rate", true)]);
    assert_eq!(
        (readings[0].value, readings[0].quality),
        (7.0, Quality::UNCERTAIN_SENSOR)
    );
    let ended = (2..20).flat_map(|second| poll(&mut signals, second, &[7.0]).1);
    assert_eq!(codes(&ended.collect::<Vec<_>>()), [("sensor.rate", false)]);
}

#[test]
fn f4_a_tag_that_stands_still_beside_a_moving_one_is_stuck() {
    let (mut signals, _) = signals(
        &[
            "stuck = { reference = \"T1\", window = \"30s\", floor = 0.005 }",
            "",
        ],
        "",
    );
    let events =
        (0..60).flat_map(|second| poll(&mut signals, second, &[73.2, 73.0 + 0.1 * (second % 3) as f64]).1);
    assert_eq!(codes(&events.collect::<Vec<_>>()), [("sensor.stuck", true)]);
    let (readings, events) = poll(&mut signals, 60, &[73.4, 73.1]);
    assert_eq!(codes(&events), [("sensor.stuck", false)]);
    assert!(readings[0].quality.is_good());
}

#[test]
fn f3_a_drift_is_alarmed_and_outlives_a_restart() {
    let keys = "drift = { reference = \"T1\", every = \"1min\", baseline = 10, floor = 0.05 }";
    let (mut signals, _) = signals(&[keys, ""], "");
    let mut events = Vec::new();
    for second in 0..3_600 {
        let drift = (second - 900).max(0) as f64 / 3_600.0;
        events.extend(poll(&mut signals, second, &[20.0 + drift, 10.0]).1);
    }
    assert_eq!(codes(&events), [("sensor.drift", true)]);
    let (mut after, _) = super::tests::signals(&[keys, ""], "");
    for (key, state) in signals.snapshot() {
        after.restore(&key, &state).unwrap();
    }
    let (readings, events) = poll(&mut after, 3_600, &[20.75, 10.0]);
    assert!(events.is_empty(), "it is not raised twice: {events:?}");
    let (readings, _) = if readings[0].quality.is_good() {
        poll(&mut after, 3_601, &[20.75, 10.0])
    } else {
        (readings, events)
    };
    assert_eq!(readings[0].quality, Quality::UNCERTAIN_SENSOR);
}

#[test]
fn the_readings_of_a_control_point_keep_their_quality_and_all_travel() {
    let ccp = "[[ccp]]\ncode = \"CCP-1\"\ntag = \"T0\"\nlow = 72.0\n";
    let (mut signals, _) = signals(&["jump = { max = 1.0 }"], ccp);
    poll(&mut signals, 0, &[73.0]);
    let (mut readings, events) = poll(&mut signals, 1, &[60.0]);
    assert_eq!(codes(&events), [("sensor.jump", true)]);
    assert_eq!(readings[0], good(0, 1, 60.0));
    signals.report(&mut readings);
    assert_eq!(readings.len(), 1);
}

#[test]
fn readings_within_their_deadband_are_counted_and_left_out() {
    let (mut signals, _) = signals(&["deadband = { absolute = 0.5 }", ""], "");
    let mut travelled = 0;
    for second in 0..60 {
        let (mut readings, _) = poll(&mut signals, second, &[4.0, second as f64]);
        signals.report(&mut readings);
        assert!(readings.iter().any(|reading| reading.tag == Alias(1)));
        travelled += readings.iter().filter(|reading| reading.tag == Alias(0)).count() as u64;
    }
    assert_eq!(travelled + signals.suppressed(), 59);
    let last = signals.drain();
    assert_eq!(last, [good(0, 59, 4.0)]);
}

#[test]
fn a_derived_tag_that_was_due_is_in_the_record_of_what_was_not_read() {
    let derived = "[[derived]]\nname = \"D\"\nkind = \"difference\"\ntags = [\"T0\", \"T1\"]\n\
        [[derived]]\nname = \"E\"\nkind = \"max\"\ntags = [\"D\", \"T1\"]\n";
    let (signals, names) = signals(&["", ""], derived);
    let mut record = NotRead {
        tags: vec![Alias(1), Alias(0)],
        from_us: 0,
        to_us: 0,
        due: 1,
        reason: "overrun".to_owned(),
    };
    signals.not_read(&mut record);
    assert_eq!(record.tags, [Alias(1), Alias(0), names["D"], names["E"]]);
}

#[test]
fn a_counters_total_is_in_the_record_of_what_was_not_read() {
    let keys = "counter = { max = 9, total = \"N\", rate = \"R\" }";
    let (signals, names) = signals(&[keys], "");
    let mut record = NotRead {
        tags: vec![Alias(0)],
        from_us: 0,
        to_us: 0,
        due: 1,
        reason: "overrun".to_owned(),
    };
    signals.not_read(&mut record);
    assert_eq!(record.tags, [Alias(0), names["N"], names["R"]]);
}

#[test]
fn another_configuration_keeps_totals_and_lets_go_of_what_was_held() {
    let keys = "deadband = { absolute = 5.0 }\ncounter = { max = 65535, total = \"N\" }";
    let (mut signals, names) = signals(&[keys], "");
    for (second, value) in [(0, 10.0), (1, 12.0)] {
        let (mut readings, _) = poll(&mut signals, second, &[value]);
        signals.report(&mut readings);
    }
    let text = HEAD.to_owned()
        + "[[modbus.group.tag]]\nname = \"T0\"\naddress = 0\ncounter = { max = 65535, total = \"N\" }\n";
    let held = signals.reconfigure(&config::parse(&text).unwrap().signals);
    assert_eq!(held, [good(0, 1, 12.0)]);
    let (readings, _) = poll(&mut signals, 2, &[15.0]);
    assert_eq!(of(&readings, names["N"]).value(), Some(5.0));
}

/// Every double there is: by its bits.
fn any_double() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(f64::from_bits(1)),
        Just(f64::MIN_POSITIVE / 2.0),
        (1u64 << 53..u64::MAX).prop_map(|integer| integer as f64),
    ]
}

proptest! {
    #[test]
    fn t23_whatever_a_device_says_no_reading_becomes_a_number_that_it_is_not(
        series in proptest::collection::vec((any_double(), any_double()), 1..40),
    ) {
        let rest = "[[derived]]\nname = \"D\"\nkind = \"difference\"\ntags = [\"T0\", \"T1\"]\n\
            [[derived]]\nname = \"F\"\nunit = \"min\"\nkind = \"lethality\"\ntag = \"T2\"\n\
            [[derived]]\nname = \"V\"\nkind = \"rate\"\ntag = \"T1\"\n";
        let (mut signals, names) = signals(
            &[
                "deadband = { absolute = 0.5, percent = 1.0 }\njump = { max = 3.0 }",
                "counter = { max = 65535, total = \"N\", rate = \"R\" }\nstuck = { floor = 0.1 }",
                "unit = \"degC\"\nraw_unit = \"degF\"\nrate = { max = 1.0 }",
            ],
            rest,
        );
        let mut total = 0.0;
        for ((first, second), at) in series.into_iter().zip(1..) {
            let mut readings = vec![
                Reading::new(Alias(0), at * SECOND, first, Quality::GOOD),
                Reading::new(Alias(1), at * SECOND, second, Quality::GOOD),
                Reading::new(Alias(2), at * SECOND, first, Quality::GOOD),
            ];
            signals.derive(&mut readings, at * SECOND);
            for reading in &readings {
                prop_assert_eq!(reading.value.is_finite(), !reading.quality.is_bad(), "{:?}", reading);
            }
            // Without a conversion the bits are the device's own.
            for (reading, raw) in readings.iter().zip([first, second]) {
                prop_assert_eq!(reading.value().map(f64::to_bits), raw.is_finite().then(|| raw.to_bits()));
            }
            let counted = of(&readings, names["N"]);
            prop_assert_eq!(counted.quality.is_bad(), !(0.0..=65_535.0).contains(&second));
            prop_assert!(counted.value().is_none_or(|counted| counted >= total));
            total = counted.value().unwrap_or(total);
            signals.report(&mut readings);
            // Through a frame and the spool, and back as they were.
            let mut sealer = Sealer::new("e", Uuid::nil(), Uuid::nil(), 1_000, std::time::Duration::ZERO);
            sealer.push(readings.clone(), at * SECOND);
            let records = sealer.seal_readings(at * SECOND, protocol::frame::ClockState::default(), protocol::lane::Lane::Live);
            let mut back: Vec<Reading> = records.iter().flat_map(|record| {
                let record = Record::from_bytes(&record.to_bytes()).unwrap();
                Frame::decode(&record.envelope).unwrap().readings
            }).collect();
            let key = |reading: &Reading| (reading.tag, reading.time_us, reading.value.to_bits(), reading.quality);
            back.sort_by_key(key);
            readings.sort_by_key(key);
            let bits = |list: &[Reading]| list.iter().map(|reading| {
                (reading.tag, reading.time_us, reading.value().map(f64::to_bits), reading.quality)
            }).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&readings));
        }
    }
}
