//! What do `[alarms]` and `[[alarm]]` say? Limits on tags that are not critical limits, how their alarms behave, and
//! what people should know when one comes.

use std::time::Duration;

use protocol::{
    Micros,
    alarm::machine::{AlarmBand, AlarmRule},
    reading::Alias,
};
use serde::Serialize;

use crate::{
    ccp::config::Gate,
    config::{At, Names, Section, Tags},
    signal::mask::{MaskPlan, read_mask},
};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// What holds for all alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmPolicy {
    /// Longest shelving, microseconds.
    pub shelve_us_max: Micros,
}

impl Default for AlarmPolicy {
    fn default() -> Self {
        Self {
            shelve_us_max: micros(HOUR * 8),
        }
    }
}

/// What people should know about an alarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Guidance {
    /// What happens when nobody does anything.
    pub consequence: String,
    /// What to do.
    pub corrective_action: String,
    /// How long there is to do it, seconds; 0 when nobody said.
    pub respond_within_s: u64,
}

/// One limit of one tag.
#[derive(Clone, Debug, PartialEq)]
pub struct TagAlarm {
    /// `tag.low`, `tag.high`, `tag.low_low` or `tag.high_high`.
    pub code: &'static str,
    /// The tag.
    pub tag: Alias,
    /// The tag's name.
    pub subject: String,
    /// Code of the tag's line.
    pub line: Option<String>,
    /// Unit of the limit.
    pub unit: String,
    /// How often a reading of the tag is due, microseconds; 0 when it reports on change.
    pub period_us: Micros,
    /// How the alarm behaves.
    pub rule: AlarmRule,
    /// The alarm means nothing while this tag has this value.
    pub suppress_when: Option<Gate>,
    /// A door or a defrost during which the limit is looked away from.
    pub mask: Option<MaskPlan>,
    /// For people.
    pub guidance: Guidance,
}

/// Reads `[alarms]`.
pub fn read_policy(root: &Section<'_>) -> AlarmPolicy {
    let section = root.table("alarms");
    let shelve_max = section.duration("shelve_max", Duration::from_mins(1)..=DAY * 7);
    section.finish();
    shelve_max.map_or_else(AlarmPolicy::default, |longest| AlarmPolicy {
        shelve_us_max: micros(longest),
    })
}

/// Reads one `[[alarm]]`: one alarm for each limit that it names.
pub fn read_alarm(
    section: &Section<'_>,
    tags: &Tags<'_>,
    names: &mut Names,
    policy: AlarmPolicy,
) -> Vec<TagAlarm> {
    let name = section.required_text("tag");
    if let Some(name) = &name {
        names.claim(section, "alarm's tag", name);
    }
    let tag = name.as_ref().and_then(|at| tags.find(at));
    let limits = read_limits(section);
    let rule = read_rule(section, policy);
    let guidance = read_guidance(section);
    let suppress_when = read_suppression(section, tags);
    let mask = read_mask(section, tags);
    let Some(mask) = mask else {
        return Vec::new();
    };
    let Some(tag) = tag else {
        return Vec::new();
    };
    let alarms = limits.into_iter().map(|(code, band)| TagAlarm {
        code,
        tag: tag.alias,
        subject: tag.name.clone(),
        line: tag.line.clone(),
        unit: tag.unit.clone(),
        period_us: Micros::from(tag.period_ms) * 1000,
        rule: AlarmRule {
            // The outer of two limits is the more urgent one.
            priority: if code.ends_with("_low") || code.ends_with("_high") {
                rule.priority.saturating_sub(1).max(1)
            } else {
                rule.priority
            },
            band: Some(band),
            ..rule.clone()
        },
        suppress_when,
        mask,
        guidance: guidance.clone(),
    });
    alarms.collect()
}

fn read_limits(section: &Section<'_>) -> Vec<(&'static str, AlarmBand)> {
    let deadband = section.number("deadband");
    if let Some(deadband) = deadband.as_ref().filter(|deadband| deadband.value < 0.0) {
        section.fault_at(
            &deadband.span,
            "`alarm.deadband` must be 0 or more, in the tag's unit",
        );
    }
    let deadband = deadband.map_or(0.0, |at| at.value);
    let found = [
        ("tag.low_low", section.number("low_low"), false),
        ("tag.low", section.number("low"), false),
        ("tag.high", section.number("high"), true),
        ("tag.high_high", section.number("high_high"), true),
    ];
    if found.iter().all(|(_, at, _)| at.is_none()) {
        section.fault("an alarm needs `low`, `high`, `low_low` or `high_high`");
    }
    let given: Vec<&At<f64>> = found.iter().filter_map(|(_, at, _)| at.as_ref()).collect();
    for pair in given.windows(2) {
        if pair[0].value >= pair[1].value {
            section.fault_at(
                &pair[1].span,
                "limits must rise from `low_low` over `low` and `high` to `high_high`",
            );
        }
    }
    let bands = found.into_iter().filter_map(|(code, at, is_high)| {
        let limit = at?.value;
        let band = AlarmBand {
            low: (!is_high).then_some(limit),
            high: is_high.then_some(limit),
            deadband,
        };
        Some((code, band))
    });
    bands.collect()
}

fn read_rule(section: &Section<'_>, policy: AlarmPolicy) -> AlarmRule {
    let delay = |key| section.duration(key, Duration::ZERO..=DAY).map_or(0, micros);
    AlarmRule {
        priority: section.integer("priority", 1..=4).unwrap_or(3) as u8,
        is_critical: false,
        is_latching: section.flag("latching", false),
        on_delay_us: delay("on_delay"),
        off_delay_us: delay("off_delay"),
        realarm_us: delay("realarm"),
        shelve_us_max: policy.shelve_us_max,
        band: None,
    }
}

fn read_guidance(section: &Section<'_>) -> Guidance {
    let text = |key| section.text(key).map_or_else(String::new, |at| at.value);
    Guidance {
        consequence: text("consequence"),
        corrective_action: text("corrective_action"),
        respond_within_s: section
            .duration("time_to_respond", Duration::from_secs(1)..=DAY)
            .map_or(0, |time| time.as_secs()),
    }
}

fn read_suppression(section: &Section<'_>, tags: &Tags<'_>) -> Option<Gate> {
    if !section.has("suppress_when") {
        return None;
    }
    let gate = section.table("suppress_when");
    let tag = gate
        .required_text("tag")
        .and_then(|at| tags.find(&at).map(|tag| tag.alias));
    let value = gate.number("value").map_or(1.0, |at| at.value);
    gate.finish();
    Some(Gate { tag: tag?, value })
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}
