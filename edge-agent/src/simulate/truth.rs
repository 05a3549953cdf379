//! What should a system have found, where and how soon? The ground truth of each fault in machine form: what
//! happened, which product is really suspect, and what is expected of whoever watches.
//! Pure, in plant time; the same windows give the same bytes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    fault::Fault,
    plant::{
        CHILLER_AIR_C, CHILLER_LOAD_C, DIP_S, LATE_TRAY_AFTER_US, MINUTE_US, OUTAGE_DIP_AFTER_US,
        OVERLOAD_RATE_PER_MIN, SECOND_US, TRAY_PERIOD_US, counted, draw, last_challenge_us, next_load_us,
    },
    scenario::{Active, COUNTER_RESET_AFTER_US, divert_window},
    tags,
};

/// From the holding tube to the filler, seconds.
const TUBE_TO_FILLER_S: [u32; 2] = [18 * 60, 35 * 60];
/// From the oven to the tray sealer, seconds.
const OVEN_TO_TRAY_S: [u32; 2] = [4 * 60, 4 * 60];
/// A challenge is due this long after the last, and missed so much later.
const CHALLENGE_DUE_US: i64 = 65 * MINUTE_US;
/// The first drop of a chilled load counts from here, °C.
const COOLING_FROM_C: f64 = 57.0;
/// Product must be at 21 °C so long after it was at 57 °C, minutes.
const COOLING_LIMIT_MIN: f64 = 120.0;

/// A span of plant time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First moment, microseconds.
    pub from_us: i64,
    /// First moment after it; none while it goes on.
    pub to_us: Option<i64>,
}

/// One entry of the ground truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// `f1` to `f20`, `divert` or `defect`.
    pub what: String,
    /// The tag on which it shows.
    pub tag: String,
    /// First moment.
    pub from_us: i64,
    /// First moment it is over; a scheduled end may lie ahead. `None` while open-ended.
    pub to_us: Option<i64>,
    /// More, such as the class of a defect and its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When product passed the control point that is really suspect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Span>,
    /// Least and greatest time from the control point to the package, seconds: the window of the lots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_package_s: Option<[u32; 2]>,
    /// What is expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<Expect>,
    /// Codes of alarms that may also be raised and are not false.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may: Vec<String>,
    /// What a test has to do or to hand over itself: documents, kills, calendars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Value>,
}

/// One thing that is expected of whoever watches the plant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expect {
    /// What kind of record.
    pub kind: Kind,
    /// The deviation's kind, the alarm's code, or the name of what is expected.
    pub code: String,
    /// The control point, tag, lot or line concerned; empty for any.
    pub subject: String,
    /// From when it can be known.
    pub after_us: i64,
    /// How soon it has to be known, plant seconds after that.
    pub within_s: f64,
}

/// What kind of record is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A deviation of a control point.
    Deviation,
    /// A deviation found in readings that came late: found after the fault, about a time within it.
    LateDeviation,
    /// An alarm.
    Alarm,
    /// No deviation of the subject at all.
    None,
    /// What the edge's records say as a whole: counts, order, names.
    Edge,
    /// What the hub does.
    Hub,
}

fn expect(kind: Kind, code: &str, subject: &str, after_us: i64, within_s: f64) -> Expect {
    Expect {
        kind,
        code: code.to_owned(),
        subject: subject.to_owned(),
        after_us,
        within_s,
    }
}

/// The entries that belong to one fault.
pub fn of(active: &Active, seed: u64) -> Vec<Truth> {
    let mut truth = plain(
        active.fault.name(),
        active.fault.script().tag,
        active.from_us,
        active.to_us,
    );
    describe(active, seed, &mut truth);
    let ended_us = active.to_us.unwrap_or(i64::MAX);
    // A fault that was ended before it could be known is not expected to be found.
    truth.expect.retain(|expect| {
        matches!(expect.kind, Kind::None | Kind::LateDeviation) || expect.after_us <= ended_us
    });
    let mut entries = vec![truth];
    if active.fault == Fault::F1 {
        let (from_us, to_us) = divert_window(active);
        if active.to_us.is_none_or(|end_us| end_us > from_us) {
            entries.push(plain("divert", "ZS-106", from_us, to_us));
        }
    }
    entries
}

/// An entry that says only what, where and when.
pub fn plain(what: &str, tag: &str, from_us: i64, to_us: Option<i64>) -> Truth {
    Truth {
        what: what.to_owned(),
        tag: tag.to_owned(),
        from_us,
        to_us,
        detail: None,
        suspect: None,
        to_package_s: None,
        expect: Vec::new(),
        may: Vec::new(),
        script: None,
    }
}

fn describe(active: &Active, seed: u64, truth: &mut Truth) {
    let from_us = active.from_us;
    let whole = Span {
        from_us,
        to_us: active.to_us,
    };
    match active.fault {
        Fault::F1 => {
            let (diverted_us, _) = divert_window(active);
            truth.expect = vec![
                expect(Kind::Alarm, "ccp.diverted", "CCP-1", diverted_us, 3.0),
                expect(Kind::None, "", "CCP-1", from_us, 0.0),
            ];
        }
        Fault::F2 => {
            truth.suspect = Some(whole);
            truth.to_package_s = Some(TUBE_TO_FILLER_S);
            truth.expect = vec![expect(
                Kind::Deviation,
                "limit",
                "CCP-1",
                from_us + SECOND_US,
                5.0,
            )];
        }
        Fault::F4 => {
            truth.suspect = Some(whole);
            truth.to_package_s = Some(TUBE_TO_FILLER_S);
            let after_us = from_us + 30 * SECOND_US;
            truth.expect = vec![
                expect(Kind::Alarm, "sensor.stuck", "TT-101", after_us, 30.0),
                expect(Kind::Deviation, "sensor_stuck", "CCP-1", after_us, 40.0),
            ];
        }
        Fault::F9 => outage(active, seed, truth),
        Fault::F5 | Fault::F6 => challenge(active, truth),
        Fault::F7 => cooling(active, truth),
        Fault::F11 => late(active, truth),
        _ => signals(active, truth),
    }
}

/// The hub is away, the edge loses power at random moments, and in between product is too cold.
fn outage(active: &Active, seed: u64, truth: &mut Truth) {
    let dip_us = active.from_us + OUTAGE_DIP_AFTER_US;
    truth.suspect = Some(Span {
        from_us: dip_us,
        to_us: Some(dip_us + DIP_S * SECOND_US),
    });
    truth.to_package_s = Some(TUBE_TO_FILLER_S);
    truth.expect = vec![
        expect(Kind::Deviation, "limit", "CCP-1", dip_us + SECOND_US, 10.0),
        expect(Kind::Edge, "records.complete", "", active.from_us, 0.0),
    ];
    truth.may = vec!["source.down".to_owned(), "uplink.down".to_owned()];
    let length_us = active
        .to_us
        .map_or(6 * 60 * MINUTE_US, |to_us| to_us - active.from_us);
    let kill =
        |n: u64| active.from_us + (draw(seed, "kill", n) % length_us.max(1).cast_unsigned()).cast_signed();
    let mut kills_us: Vec<i64> = (0..3).map(kill).collect();
    kills_us.sort_unstable();
    truth.script = Some(json!({
        "hub_away_us": [active.from_us, active.to_us],
        "kill_edge_us": kills_us,
        "dip_us": [dip_us, dip_us + DIP_S * SECOND_US],
    }));
}

/// All product since the last challenge that passed is suspect, until the next that does.
fn challenge(active: &Active, truth: &mut Truth) {
    let good_us = last_challenge_us(active.from_us, 0.0);
    truth.suspect = Some(Span {
        from_us: good_us,
        to_us: active.to_us,
    });
    truth.to_package_s = Some([0, 0]);
    if active.fault == Fault::F5 {
        let missed_us = good_us + CHALLENGE_DUE_US;
        truth.expect = vec![expect(Kind::Deviation, "missed_check", "CCP-5", missed_us, 60.0)];
    } else {
        truth.expect = vec![
            expect(Kind::Deviation, "challenge", "CCP-5", active.from_us, 30.0),
            expect(Kind::Edge, "line.stopped", "L4", active.from_us, 30.0),
        ];
    }
    truth.script = Some(json!({ "last_passed_us": good_us, "next_passed_us": active.to_us }));
}

/// Newton: `t(c) = ln((T0 - Ta) / (c - Ta)) / k`, minutes after loading.
fn cooled_to_min(core_c: f64) -> f64 {
    ((CHILLER_LOAD_C - CHILLER_AIR_C) / (core_c - CHILLER_AIR_C)).ln() / OVERLOAD_RATE_PER_MIN
}

fn cooling(active: &Active, truth: &mut Truth) {
    let load_us = next_load_us(active.from_us);
    let at_us = |min: f64| load_us + (min * MINUTE_US as f64) as i64;
    let limit_min = cooled_to_min(COOLING_FROM_C) + COOLING_LIMIT_MIN;
    // The load is one lot whatever part of its stay is named. Its time begins where the limit's does: a window from the
    // loading on would touch the load before.
    truth.suspect = Some(Span {
        from_us: at_us(cooled_to_min(COOLING_FROM_C)),
        to_us: Some(at_us(cooled_to_min(5.0))),
    });
    truth.to_package_s = Some([0, 0]);
    truth.expect = vec![
        expect(
            Kind::Alarm,
            "ccp.cooling_predicted",
            "CCP-3",
            load_us,
            (limit_min - 60.0) * 60.0,
        ),
        expect(Kind::Deviation, "cooling", "CCP-3", at_us(limit_min), 120.0),
    ];
    truth.script = Some(json!({
        "loaded_us": load_us,
        "at_57_us": at_us(cooled_to_min(COOLING_FROM_C)),
        "limit_us": at_us(limit_min),
        "at_21_us": at_us(cooled_to_min(21.0)),
        "at_5_us": at_us(cooled_to_min(5.0)),
    }));
}

/// Nothing comes for two hours; then everything does, and one tray among it was cold.
fn late(active: &Active, truth: &mut Truth) {
    let cold_us = active.from_us + LATE_TRAY_AFTER_US;
    let has_cold = active.to_us.is_none_or(|to_us| to_us > cold_us + TRAY_PERIOD_US);
    truth.suspect = Some(Span {
        from_us: active.from_us,
        to_us: active.to_us,
    });
    truth.to_package_s = Some(OVEN_TO_TRAY_S);
    let silent_us = active.from_us + 10 * SECOND_US;
    truth.expect = vec![expect(
        Kind::Deviation,
        "monitoring_gap",
        "CCP-4",
        silent_us,
        60.0,
    )];
    if let (true, Some(to_us)) = (has_cold, active.to_us) {
        truth
            .expect
            .push(expect(Kind::LateDeviation, "limit", "CCP-4", to_us, 600.0));
    }
    truth.may = vec!["source.silent".to_owned()];
    truth.script = Some(json!({
        "cold_tray_us": has_cold.then_some([cold_us, cold_us + TRAY_PERIOD_US]),
        "replayed_from_us": active.to_us,
        "buffered_every_s": 60,
    }));
}

/// Faults that no control point of the edge judges, or that must not make one deviate.
fn signals(active: &Active, truth: &mut Truth) {
    let from_us = active.from_us;
    let none = |subject: &str| expect(Kind::None, "", subject, from_us, 0.0);
    let hub = |code: &str, subject: &str, within_s: f64| expect(Kind::Hub, code, subject, from_us, within_s);
    let edge = |code: &str, subject: &str| expect(Kind::Edge, code, subject, from_us, 0.0);
    let alarm = |code: &str, subject: &str, within_s| expect(Kind::Alarm, code, subject, from_us, within_s);
    truth.expect = match active.fault {
        Fault::F3 => vec![alarm("sensor.drift", "TT-302", 5.0 * 86_400.0), none("CCP-4")],
        Fault::F8 => vec![alarm("inspect.defect_burst", "VS-306", 180.0)],
        Fault::F10 => vec![alarm("source.clock_skew", "", 120.0), none("CCP-4")],
        Fault::F12 => vec![
            edge("sparkplug.rebirth", "AT-408"),
            edge("tags.named_right", "AT-408"),
        ],
        Fault::F13 => {
            let packs = 48.0;
            vec![hub("net_content.failed", "L3", packs * 60.0 / 58.0), none("")]
        }
        Fault::F14 => vec![hub("batch.refused", "L2", 5.0)],
        Fault::F15 => vec![hub("shift.minutes", "L1", 0.0)],
        Fault::F16 => vec![edge("counter.total", "L1-COUNT"), none("")],
        Fault::F17 => vec![
            hub("lot.quarantined", "CUC-0931", 5.0),
            hub("lot.issue_refused", "CUC-0931", 5.0),
        ],
        Fault::F18 => vec![hub("trace.both_days", "LAS12-6287-3B", 0.0)],
        Fault::F20 => vec![edge("alarm.first_out", "KW-101"), none("")],
        _ => vec![none("")],
    };
    if matches!(active.fault, Fault::F19 | Fault::F20) {
        truth.may = vec!["*".to_owned()];
    }
    truth.script = script(active);
}

fn script(active: &Active) -> Option<Value> {
    let (from_us, to_us) = (active.from_us, active.to_us);
    Some(match active.fault {
        Fault::F3 => json!({ "degC_per_day": super::plant::DRIFT_C_PER_DAY }),
        Fault::F8 => json!({ "defect_rate": 0.045, "usual_rate": 0.004 }),
        Fault::F10 => json!({ "ahead_s": super::opcua::SKEW_S, "line": "L3" }),
        Fault::F12 => json!({ "skipped_seq": 1, "aliases": "reversed", "node": super::sparkplug::NODE }),
        Fault::F13 => json!({ "shift_g": super::plant::TARE_SHIFT_G, "label_g": 284, "rule": "HB 133" }),
        Fault::F14 => json!({
            "from_sku": "MAC12", "to_sku": "TBS24", "allergens_left": ["milk", "wheat"], "swab": null,
        }),
        Fault::F15 => json!({
            "shift": "C", "from": "2026-10-31T22:00:00-04:00", "to": "2026-11-01T06:00:00-05:00", "minutes": 540,
        }),
        Fault::F16 => {
            let per_min = tags::find("L1-COUNT").and_then(|tag| match tag.process {
                tags::Process::Counter { per_min } => Some(per_min),
                _ => None,
            })?;
            let reset_us = from_us + COUNTER_RESET_AFTER_US;
            json!({
                "rollover_us": 2 * MINUTE_US,
                "reset_us": to_us.is_none_or(|to_us| to_us > reset_us).then_some(reset_us),
                "counted": to_us.map(|to_us| counted(to_us, per_min) - counted(from_us, per_min)),
            })
        }
        Fault::F17 => json!({
            "coa": {
                "lot": "CUC-0931", "supplier": "S-114", "received": "2026-10-09",
                "results": { "Salmonella": "not detected /25 g", "Listeria": "not detected /25 g" },
            },
            "missing": ["E. coli"],
        }),
        Fault::F18 => json!({
            "edges": [
                { "parent": "LAS12-6286-3A", "child": "LAS12-6287-3B", "kg": 42.0, "as": "rework" },
                { "parent": "LAS12-6287-3B", "child": "LAS12-6288-3A", "kg": 18.0, "as": "rework" },
            ],
            "share_max": 0.10, "generations_max": 1,
        }),
        Fault::F19 => json!({ "door_open_s": 720, "defrost_after_s": 1_200, "defrost_s": 1_200 }),
        Fault::F20 => json!({ "signals": 60, "in_s": 60, "first": "KW-101" }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(fault: Fault) -> Truth {
        let from_us = 3_600 * SECOND_US;
        let seconds = fault.script().seconds.unwrap_or(300);
        let to_us = Some(from_us + i64::from(seconds) * SECOND_US);
        of(
            &Active {
                fault,
                from_us,
                to_us,
            },
            1,
        )
        .swap_remove(0)
    }

    #[test]
    fn every_fault_says_what_is_expected() {
        for fault in Fault::ALL {
            let truth = truth(fault);
            assert!(!truth.expect.is_empty(), "{truth:?}");
            let again: Truth = serde_json::from_str(&serde_json::to_string(&truth).unwrap()).unwrap();
            assert_eq!(again, truth);
        }
    }

    #[test]
    fn what_must_not_hold_product_has_no_suspect_product() {
        for fault in [
            Fault::F1,
            Fault::F3,
            Fault::F10,
            Fault::F16,
            Fault::F19,
            Fault::F20,
        ] {
            assert_eq!(truth(fault).suspect, None, "{fault:?}");
            assert!(
                truth(fault).expect.iter().any(|expect| expect.kind == Kind::None),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn the_overload_is_to_be_predicted_an_hour_before_the_limit() {
        let truth = truth(Fault::F7);
        let script = truth.script.unwrap();
        let at = |key: &str| script[key].as_i64().unwrap();
        assert_eq!(at("limit_us") - at("at_57_us"), 120 * MINUTE_US);
        assert!(at("at_21_us") > at("limit_us"));
        let known_by_us = truth.expect[0].after_us + (truth.expect[0].within_s * 1e6) as i64;
        assert!((at("limit_us") - known_by_us - 60 * MINUTE_US).abs() < SECOND_US);
    }

    #[test]
    fn a_fault_ended_before_it_could_be_known_is_not_expected_to_be_found() {
        let short = Active {
            fault: Fault::F2,
            from_us: 0,
            to_us: Some(SECOND_US / 2),
        };
        assert_eq!(of(&short, 1)[0].expect, []);
    }
}
