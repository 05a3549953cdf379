//! What does `[[ccp]]` say? One critical limit and how it is judged, the gate that tells whether product flows, the
//! state in which nothing is judged, the reference that shows a stuck sensor, and what the plant does on a deviation.

use std::time::Duration;

use protocol::{
    Micros,
    limit::{ControlKind, CriticalLimit, LimitError},
    reading::Alias,
};

use super::config_kind::{read_kind, read_low_high};
use crate::{
    config::{At, Names, Section, Tags},
    output::config::Output,
};

/// One critical control point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The limit.
    pub limit: CriticalLimit,
    /// How it is judged.
    pub kind: ControlKind,
    /// The monitored tag.
    pub tag: Alias,
    /// Tells whether product flows; it always flows without one.
    pub gate: Option<Gate>,
    /// Nothing is judged while this tag has this value.
    pub not_during: Option<Gate>,
    /// Tells whether the sensor is stuck.
    pub stuck: Option<Stuck>,
    /// What the plant does on a deviation.
    pub react: Option<React>,
}

/// What is written to an output on a deviation, and when there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct React {
    /// Name of the output.
    pub output: String,
    /// Written while a deviation is open.
    pub on_deviation: f64,
    /// Written while none is.
    pub on_clear: f64,
    /// After a deviation the output stays until a person resets the alarm.
    pub hold_until_reset: bool,
}

/// Product flows while `tag` has exactly `value`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// The tag, usually a valve's position.
    pub tag: Alias,
    /// Forward flow.
    pub value: f64,
}

/// The sensor is stuck when it stays within `floor` over `window` while the reference moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stuck {
    /// The reference tag.
    pub reference: Alias,
    /// Over how long.
    pub window: Duration,
    /// Spread in the tag's unit.
    pub floor: f64,
}

const HOUR: Duration = Duration::from_hours(1);

/// Reads one `[[ccp]]`.
pub fn read_point(
    section: &Section<'_>,
    tags: &Tags<'_>,
    names: &mut Names,
    outputs: &[Output],
) -> Option<Point> {
    let code = section.required_text("code");
    if let Some(code) = &code {
        names.claim(section, "control point", code);
    }
    let tag_name = section.required_text("tag");
    let tag = tag_name.as_ref().and_then(|at| tags.find(at));
    let kind = read_kind(section);
    let limit = read_limit(section, code.as_ref(), tag_name.as_ref(), tag, kind.as_ref());
    let gate = read_gate(section, "gate", tags);
    let not_during = read_gate(section, "not_during", tags);
    let stuck = read_stuck(section, tags);
    let react = read_react(section, outputs);
    if let (Some(ControlKind::Challenge(challenge)), Some(tag)) = (&kind, tag)
        && tag.period_ms > 0
        && challenge.idle.is_none()
    {
        section.fault("the tag is polled: `idle` must say which value it has while no challenge is made");
    }
    Some(Point {
        limit: limit?,
        kind: kind?,
        tag: tag?.alias,
        gate: gate?,
        not_during: not_during?,
        stuck: stuck?,
        react: react?,
    })
}

fn read_limit(
    section: &Section<'_>,
    code: Option<&At<String>>,
    tag_name: Option<&At<String>>,
    tag: Option<&protocol::tag::Tag>,
    kind: Option<&ControlKind>,
) -> Option<CriticalLimit> {
    let (low, high) = read_low_high(section, kind);
    let unit = section.text("unit");
    let margin = section.number("clear_margin").map_or(0.0, |at| at.value);
    let delay = section
        .duration("delay", Duration::ZERO..=HOUR)
        .unwrap_or(Duration::ZERO);
    let gap_max = section
        .duration("gap_max", Duration::from_millis(100)..=HOUR * 24)
        .unwrap_or(Duration::from_secs(5));
    let check_every = section
        .duration("check_every", Duration::from_secs(1)..=HOUR)
        .unwrap_or(Duration::from_mins(1));
    let version = section.integer("version", 1..=i64::from(u32::MAX)).unwrap_or(1);
    if let (Some(unit), Some(tag)) = (&unit, tag)
        && unit.value != tag.unit
    {
        section.fault_at(
            &unit.span,
            format!(
                "the limit is in `{}` but tag `{}` is in `{}`",
                unit.value, tag.name, tag.unit
            ),
        );
    }
    let limit = CriticalLimit {
        ccp: code?.value.clone(),
        line: tag?.line.clone(),
        tag: tag_name?.value.clone(),
        unit: unit.map_or_else(
            || tag.map_or_else(String::new, |tag| tag.unit.clone()),
            |at| at.value,
        ),
        low: low.as_ref().map(|at| at.value),
        high: high.as_ref().map(|at| at.value),
        clear_margin: margin,
        delay_us: micros(delay),
        gap_us_max: micros(gap_max),
        check_every_us: micros(check_every),
        period_us: Micros::from(tag?.period_ms) * 1000,
        version: version as u32,
    };
    if let Err(fault) = limit.check() {
        match (fault, low.or(high)) {
            (LimitError::Impossible, Some(at)) => section.fault_at(&at.span, fault.to_string()),
            _ => section.fault(fault.to_string()),
        }
    }
    if limit.gap_us_max < limit.period_us {
        section.fault(
            "`gap_max` is shorter than the tag's period: every pause between readings would be a deviation",
        );
    }
    Some(limit)
}

/// The outer `Option` is none when the gate is there and faulty.
#[expect(clippy::option_option, reason = "absent and faulty are two answers")]
fn read_gate(section: &Section<'_>, key: &'static str, tags: &Tags<'_>) -> Option<Option<Gate>> {
    if !section.has(key) {
        return Some(None);
    }
    let gate = section.table(key);
    let tag = gate
        .required_text("tag")
        .and_then(|at| tags.find(&at).map(|tag| tag.alias));
    let value = gate.number("value").map_or(1.0, |at| at.value);
    gate.finish();
    Some(Some(Gate { tag: tag?, value }))
}

/// Like [`read_gate`].
#[expect(clippy::option_option, reason = "absent and faulty are two answers")]
fn read_stuck(section: &Section<'_>, tags: &Tags<'_>) -> Option<Option<Stuck>> {
    if !section.has("stuck") {
        return Some(None);
    }
    let stuck = section.table("stuck");
    let reference = stuck
        .required_text("reference")
        .and_then(|at| tags.find(&at).map(|tag| tag.alias));
    let window = stuck
        .duration("window", Duration::from_secs(1)..=HOUR)
        .unwrap_or(Duration::from_secs(30));
    let floor = stuck.number("floor");
    if let Some(floor) = floor.as_ref().filter(|floor| floor.value <= 0.0) {
        stuck.fault_at(&floor.span, "`floor` must be greater than 0");
    }
    stuck.finish();
    Some(Some(Stuck {
        reference: reference?,
        window,
        floor: floor.map_or(0.005, |at| at.value),
    }))
}

/// Like [`read_gate`].
#[expect(clippy::option_option, reason = "absent and faulty are two answers")]
fn read_react(section: &Section<'_>, outputs: &[Output]) -> Option<Option<React>> {
    if !section.has("react") {
        return Some(None);
    }
    let react = section.table("react");
    let output = react.required_text("output");
    let on_deviation = react.number("on_deviation");
    let on_clear = react.number("on_clear");
    let hold_until_reset = react.flag("hold_until_reset", false);
    let known = output.as_ref().and_then(|at| {
        let found = outputs.iter().find(|output| output.name == at.value);
        if found.is_none() {
            let message = format!(
                "no `[[output]]` is named `{}`; add one, or name one that is there",
                at.value
            );
            react.fault_at(&at.span, message);
        }
        found
    });
    for value in [&on_deviation, &on_clear].into_iter().flatten() {
        if let Some(reason) = known.and_then(|output| output.target.refuses(value.value)) {
            react.fault_at(&value.span, reason);
        }
    }
    react.finish();
    Some(Some(React {
        output: known?.name.clone(),
        on_deviation: on_deviation.map_or(1.0, |at| at.value),
        on_clear: on_clear.map_or(0.0, |at| at.value),
        hold_until_reset,
    }))
}

pub(super) fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}
