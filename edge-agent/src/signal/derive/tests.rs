//! Are derived tags computed from what was true at their time, and bad where that is not known?

use std::collections::HashMap;

use protocol::event::Event;

use super::super::{
    Signals,
    tests::{good, poll, signals},
};
use super::*;

const SECOND: Micros = 1_000_000;

fn told(signals: &mut Signals, second: i64, values: &[f64], tag: Alias) -> Reading {
    let (readings, _) = poll(signals, second, values);
    *readings.iter().find(|reading| reading.tag == tag).unwrap()
}

#[test]
fn two_tags_of_one_poll_are_compared_whichever_comes_first() {
    let derived = "[[derived]]\nname = \"D\"\nkind = \"difference\"\ntags = [\"T1\", \"T0\"]\n";
    let (mut signals, names) = signals(&["", ""], derived);
    assert_eq!(
        told(&mut signals, 0, &[73.0, 73.5], names["D"]).value(),
        Some(0.5)
    );
    assert_eq!(
        told(&mut signals, 1, &[72.0, 73.5], names["D"]).value(),
        Some(1.5)
    );
}

#[test]
fn least_greatest_sum_and_mean() {
    let one = |name: &str, kind: &str| {
        format!("[[derived]]\nname = \"{name}\"\nkind = \"{kind}\"\ntags = [\"T0\", \"T1\", \"T2\"]\n")
    };
    let derived = one("A", "min") + &one("B", "max") + &one("C", "sum") + &one("D", "mean");
    let (mut signals, _) = signals(&["", "", ""], &derived);
    let (readings, _) = poll(&mut signals, 0, &[1.0, 5.0, 3.0]);
    let values: Vec<f64> = readings[3..].iter().map(|reading| reading.value).collect();
    assert_eq!(values, [1.0, 5.0, 9.0, 3.0]);
}

#[test]
fn a_bad_or_stale_input_is_never_held() {
    let derived =
        "[[derived]]\nname = \"D\"\nkind = \"difference\"\ntags = [\"T0\", \"T1\"]\ngap_max = \"3s\"\n";
    let (mut signals, names) = signals(&["", ""], derived);
    poll(&mut signals, 0, &[5.0, 3.0]);
    let mut readings = vec![
        good(0, 1, 5.0),
        Reading::bad(Alias(1), SECOND, Quality::BAD_COMMUNICATION),
    ];
    signals.derive(&mut readings, SECOND);
    assert_eq!(readings[2].quality, Quality::BAD_COMMUNICATION);
    poll(&mut signals, 2, &[5.0, 3.0]);
    assert!(told(&mut signals, 5, &[5.0], names["D"]).quality.is_good());
    assert_eq!(
        told(&mut signals, 6, &[5.0], names["D"]).quality,
        Quality::BAD_TIMEOUT
    );
}

#[test]
fn doubt_is_handed_on() {
    let derived = "[[derived]]\nname = \"D\"\nkind = \"difference\"\ntags = [\"T0\", \"T1\"]\n";
    let (mut signals, _) = signals(&["", ""], derived);
    let doubtful = Reading::new(Alias(1), 0, 3.0, Quality::UNCERTAIN_LAST_USABLE);
    let mut readings = vec![good(0, 0, 5.0), doubtful];
    signals.derive(&mut readings, 0);
    assert_eq!(
        (readings[2].value, readings[2].quality),
        (2.0, Quality::UNCERTAIN)
    );
}

#[test]
fn derived_tags_may_be_derived_from() {
    let derived = "[[derived]]\nname = \"D\"\nkind = \"difference\"\ntags = [\"T0\", \"T1\"]\n\
        [[derived]]\nname = \"E\"\nkind = \"max\"\ntags = [\"T0\", \"D\"]\n";
    let (mut signals, names) = signals(&["", ""], derived);
    assert_eq!(told(&mut signals, 0, &[5.0, -4.0], names["E"]).value(), Some(9.0));
}

#[test]
fn readings_that_came_together_are_taken_in_order_of_their_source_times() {
    let derived = "[[derived]]\nname = \"N\"\nkind = \"total\"\nper = \"s\"\ntag = \"T0\"\n";
    let (mut signals, names) = signals(&[""], derived);
    let mut readings: Vec<Reading> = [3, 1, 2, 0].map(|second| good(0, second, 10.0)).to_vec();
    signals.derive(&mut readings, 4 * SECOND);
    let totals: Vec<(i64, f64)> = readings
        .iter()
        .filter(|reading| reading.tag == names["N"])
        .map(|reading| (reading.time_us / SECOND, reading.value))
        .collect();
    assert_eq!(totals, [(0, 0.0), (1, 10.0), (2, 20.0), (3, 30.0)]);
}

#[test]
fn a_late_reading_is_not_integrated_and_says_so() {
    let derived = "[[derived]]\nname = \"N\"\nkind = \"total\"\nper = \"s\"\ntag = \"T0\"\n";
    let (mut signals, names) = signals(&[""], derived);
    poll(&mut signals, 10, &[1.0]);
    assert!(told(&mut signals, 5, &[1.0], names["N"]).quality.is_bad());
    assert_eq!(told(&mut signals, 11, &[1.0], names["N"]).value(), Some(1.0));
}

#[test]
fn lethality_counts_per_batch_and_a_gap_makes_it_a_lower_bound_with_an_alarm() {
    let derived = "[[derived]]\nname = \"F0\"\nkind = \"lethality\"\ntag = \"T0\"\ngap_max = \"5s\"\n\
        reset = { tag = \"T1\" }\n";
    let (mut signals, names) = signals(&["unit = \"degC\"", ""], derived);
    for second in 0..=180 {
        poll(&mut signals, second, &[121.11, 1.0]);
    }
    let (readings, events) = poll(&mut signals, 190, &[121.11, 1.0]);
    let f0 = readings
        .iter()
        .find(|reading| reading.tag == names["F0"])
        .unwrap();
    assert!((f0.value - 3.0).abs() < 1e-9);
    assert_eq!(f0.quality, Quality::UNCERTAIN);
    assert!(matches!(&events[..], [Event::Alarm(alarm)] if alarm.code == "derived.gap" && alarm.active));
    // The next batch begins at nothing and is sound.
    let (readings, events) = poll(&mut signals, 191, &[121.11, 2.0]);
    let f0 = readings
        .iter()
        .find(|reading| reading.tag == names["F0"])
        .unwrap();
    assert_eq!((f0.value, f0.quality), (0.0, Quality::GOOD));
    assert!(matches!(&events[..], [Event::Alarm(alarm)] if !alarm.active));
}

#[test]
fn a_batch_that_changed_while_nothing_ran_begins_anew() {
    let derived =
        "[[derived]]\nname = \"F0\"\nkind = \"lethality\"\ntag = \"T0\"\nreset = { tag = \"T1\" }\n";
    let keys = ["unit = \"degC\"", ""];
    let (mut before, names) = signals(&keys, derived);
    for second in 0..=60 {
        poll(&mut before, second, &[121.11, 7.0]);
    }
    for (batch, total) in [(7.0, 1.0 + 2.0 / 60.0), (8.0, 0.0)] {
        let (mut after, _) = signals(&keys, derived);
        for (key, state) in before.snapshot() {
            after.restore(&key, &state).unwrap();
        }
        let f0 = told(&mut after, 62, &[121.11, batch], names["F0"]);
        assert!((f0.value - total).abs() < 1e-9, "{f0:?}");
    }
}

#[test]
fn a_gate_that_is_not_known_credits_nothing() {
    let derived = "[[derived]]\nname = \"N\"\nkind = \"total\"\nper = \"s\"\ntag = \"T0\"\n\
        gate = { tag = \"T1\", value = 1.0 }\n";
    let (mut signals, names) = signals(&["", ""], derived);
    poll(&mut signals, 0, &[1.0, 1.0]);
    assert_eq!(told(&mut signals, 1, &[1.0, 1.0], names["N"]).value(), Some(1.0));
    let mut readings = vec![good(0, 2, 1.0), Reading::bad(Alias(1), 2 * SECOND, Quality::BAD)];
    signals.derive(&mut readings, 2 * SECOND);
    assert_eq!(readings[2].value(), Some(1.0));
}

#[test]
fn the_rate_of_a_ramp_is_its_slope() {
    let derived =
        "[[derived]]\nname = \"R\"\nkind = \"rate\"\nper = \"min\"\nwindow = \"10s\"\ntag = \"T0\"\n";
    let (mut signals, names) = signals(&[""], derived);
    assert!(told(&mut signals, 0, &[0.0], names["R"]).quality.is_bad());
    for second in 1..30 {
        let rate = told(&mut signals, second, &[second as f64 * 0.5], names["R"]);
        assert_eq!(rate.value(), Some(30.0));
    }
}

#[test]
fn the_state_of_equipment_is_a_tag() {
    let state = "[[state]]\nname = \"HTST\"\n[[state.rule]]\nname = \"cip\"\n[[state.rule.when]]\ntag = \"T0\"\n\
        above = 38.0\n[[state.rule]]\nname = \"running\"\n[[state.rule.when]]\ntag = \"T1\"\nabove = 500.0\n";
    let (mut signals, names) = signals(&["", ""], state);
    assert_eq!(
        told(&mut signals, 0, &[2.0, 9_000.0], names["HTST"]).value(),
        Some(2.0)
    );
    assert_eq!(
        told(&mut signals, 1, &[45.0, 9_000.0], names["HTST"]).value(),
        Some(1.0)
    );
    assert_eq!(
        told(&mut signals, 2, &[2.0, 0.0], names["HTST"]).value(),
        Some(0.0)
    );
}

#[test]
fn cooling_is_told_only_while_something_cools() {
    let derived = "[[derived]]\nname = \"P\"\nkind = \"cooling\"\ntag = \"T0\"\nair_tag = \"T1\"\nfrom = 57.0\nto = 21.0\n\
        gap_max = \"30s\"\n[[derived]]\nname = \"M\"\nkind = \"cooling\"\noutput = \"elapsed\"\ntag = \"T0\"\nair = -2.0\n\
        from = 57.0\nto = 21.0\ngap_max = \"30s\"\n";
    let (mut signals, names) = signals(&["", ""], derived);
    let mut last = HashMap::new();
    for n in 0..900 {
        let value = -2.0 + 62.0 * (-0.013 * f64::from(n) / 6.0).exp();
        for reading in poll(&mut signals, i64::from(n) * 10, &[value, -2.0]).0 {
            last.insert(reading.tag, (n, reading.value));
        }
        assert!(n > 0 || last.len() == 2);
    }
    let truth = (59.0f64 / 23.0).ln() / 0.013;
    for name in ["P", "M"] {
        let (_, value) = last[&names[name]];
        assert!((value - truth).abs() < 0.02, "{name}: {value} {truth}");
    }
}

#[test]
fn a_source_whose_clock_was_ahead_is_followed_again_at_once() {
    let derived = "[[derived]]\nname = \"N\"\nkind = \"total\"\nper = \"s\"\ntag = \"T0\"\n";
    let (mut signals, names) = signals(&[""], derived);
    let mut ahead = vec![good(0, 3_600, 1.0)];
    signals.derive(&mut ahead, 0);
    let total = told(&mut signals, 1, &[1.0], names["N"]);
    assert_eq!((total.value(), total.quality), (Some(0.0), Quality::UNCERTAIN));
    assert_eq!(told(&mut signals, 2, &[1.0], names["N"]).value(), Some(1.0));
}
