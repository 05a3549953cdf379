//! How does an alarm behave that nobody configured? One row for each code that the program itself raises.

use protocol::alarm::machine::AlarmRule;

use super::config::{AlarmPolicy, Guidance};

/// What is known of a code.
#[derive(Clone, Copy, Debug)]
struct Standard {
    code: &'static str,
    priority: u8,
    is_critical: bool,
    /// It tells of something that happened; nothing will ever say that it is over.
    is_momentary: bool,
    consequence: &'static str,
    corrective_action: &'static str,
    respond_within_s: u64,
}

const fn row(
    code: &'static str,
    priority: u8,
    consequence: &'static str,
    corrective_action: &'static str,
    respond_within_s: u64,
) -> Standard {
    Standard {
        code,
        priority,
        is_critical: false,
        is_momentary: false,
        consequence,
        corrective_action,
        respond_within_s,
    }
}

const fn critical(
    code: &'static str,
    consequence: &'static str,
    corrective_action: &'static str,
) -> Standard {
    Standard {
        is_critical: true,
        ..row(code, 1, consequence, corrective_action, 300)
    }
}

const fn momentary(
    code: &'static str,
    priority: u8,
    consequence: &'static str,
    action: &'static str,
) -> Standard {
    Standard {
        is_momentary: true,
        ..row(code, priority, consequence, action, 0)
    }
}

const STANDARDS: &[Standard] = &[
    critical(
        "ccp.limit",
        "product is out of its critical limit and is held",
        "stop or divert the product and restore the process",
    ),
    critical(
        "ccp.monitoring_gap",
        "product is not monitored and is held",
        "restore the signal or measure by hand",
    ),
    critical(
        "ccp.sensor_stuck",
        "product is not monitored and is held",
        "check the sensor against its reference",
    ),
    critical(
        "ccp.hold_time",
        "the batch was not held long enough and is held back",
        "cook it again or dispose of it",
    ),
    critical(
        "ccp.cooling",
        "product cooled too slowly and is held",
        "separate the batch and have it judged",
    ),
    critical(
        "ccp.challenge",
        "what should have been rejected was not; product since the last good challenge is held",
        "stop the line, repair and challenge again",
    ),
    critical(
        "ccp.missed_check",
        "a check was not made; product since the last one is held",
        "make the check now",
    ),
    row(
        "ccp.signal_lost",
        2,
        "without a signal product will count as not monitored",
        "restore the signal",
        60,
    ),
    row(
        "ccp.cooling_predicted",
        2,
        "the batch will miss its cooling limit",
        "spread the load or lower the air temperature",
        1_800,
    ),
    row(
        "ccp.diverted",
        2,
        "product is diverted",
        "restore the process",
        600,
    ),
    row(
        "ccp.not_judged",
        4,
        "the control point is not judged in this state of the process",
        "none",
        0,
    ),
    row(
        "sensor.stuck",
        2,
        "the sensor's value is not trusted",
        "check the sensor",
        600,
    ),
    row(
        "output.failed",
        1,
        "the plant does not react to a deviation by itself",
        "stop or divert the product by hand",
        60,
    ),
    row(
        "source.down",
        2,
        "no readings come from this source",
        "check the device and its network",
        600,
    ),
    row(
        "source.clock_skew",
        3,
        "the source's times are wrong; readings are judged by when they arrived",
        "set the device's clock",
        86_400,
    ),
    row(
        "camera.silent",
        2,
        "parts pass without inspection",
        "check the camera",
        600,
    ),
    row(
        "inspect.defect_burst",
        2,
        "many parts are defective",
        "find the cause on the line; check the parts since it began",
        300,
    ),
    momentary(
        "clock.set_back",
        3,
        "times of records overlap",
        "check the time service",
    ),
    momentary(
        "spool.corrupt",
        2,
        "records need a person to recover them",
        "keep the directory that is named",
    ),
    row(
        "tag.bad",
        3,
        "the alarms of this tag see nothing",
        "restore the signal",
        1_800,
    ),
];

/// Most urgent of what is not known: neither hidden among diagnostics nor before what is.
const UNKNOWN: Standard = row("", 3, "", "", 0);

fn of(code: &str) -> &'static Standard {
    STANDARDS
        .iter()
        .find(|standard| standard.code == code)
        .unwrap_or(&UNKNOWN)
}

/// The rule of a code.
pub(super) fn rule(code: &str, is_latching: bool, policy: AlarmPolicy) -> AlarmRule {
    let standard = of(code);
    AlarmRule {
        priority: standard.priority,
        is_critical: standard.is_critical,
        is_latching,
        on_delay_us: 0,
        off_delay_us: 0,
        realarm_us: 0,
        shelve_us_max: policy.shelve_us_max,
        band: None,
    }
}

/// What people should know about a code.
pub(super) fn guidance(code: &str) -> Guidance {
    let standard = of(code);
    Guidance {
        consequence: standard.consequence.to_owned(),
        corrective_action: standard.corrective_action.to_owned(),
        respond_within_s: standard.respond_within_s,
    }
}

/// Whether nothing will ever say that an alarm of this code is over.
pub(super) fn is_momentary(code: &str) -> bool {
    of(code).is_momentary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_row_and_only_deviations_are_critical() {
        let mut codes: Vec<&str> = STANDARDS.iter().map(|standard| standard.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), STANDARDS.len());
        for standard in STANDARDS {
            assert!((1..=4).contains(&standard.priority), "{}", standard.code);
            assert!(
                !standard.is_critical || standard.priority == 1,
                "{}",
                standard.code
            );
        }
    }

    #[test]
    fn an_unknown_code_is_an_ordinary_alarm() {
        let rule = rule("new.kind", false, AlarmPolicy::default());
        assert_eq!((rule.priority, rule.is_critical), (3, false));
    }
}
