//! How is a control point judged? The keys of `[[ccp]]` that belong to one kind: hold time, cooling curve, challenge.

use std::time::Duration;

use protocol::limit::{Challenge, ControlKind, CoolingCurve, CoolingStage, HoldTime};

use super::config::micros;
use crate::config::{At, Section};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

#[derive(Clone, Copy)]
enum Word {
    Limit,
    HoldTime,
    Cooling,
    Challenge,
}

const WORDS: [(&str, Word); 4] = [
    ("limit", Word::Limit),
    ("hold_time", Word::HoldTime),
    ("cooling", Word::Cooling),
    ("challenge", Word::Challenge),
];

/// Reads `kind` and the keys of that kind; keys of another kind stay unknown and are faults.
pub(super) fn read_kind(section: &Section<'_>) -> Option<ControlKind> {
    let word = if section.has("kind") {
        section.choice("kind", &WORDS)?
    } else {
        Word::Limit
    };
    match word {
        Word::Limit => Some(ControlKind::Limit),
        Word::HoldTime => read_hold(section),
        Word::Cooling => read_cooling(section),
        Word::Challenge => read_challenge(section),
    }
}

fn read_hold(section: &Section<'_>) -> Option<ControlKind> {
    if !section.has("hold") {
        section.fault("`ccp.hold` is missing: how long the limit must be met in every cycle, like \"15s\"");
    }
    let hold = section.duration("hold", Duration::from_secs(1)..=DAY);
    let cycle_above = section.number("cycle_above");
    if cycle_above.is_none() && !section.has("gate") {
        section.fault("a cycle needs `cycle_above` (it runs while the value is at or above) or a `gate`");
    }
    Some(ControlKind::HoldTime(HoldTime {
        hold_us: micros(hold?),
        cycle_above: cycle_above.map_or(0.0, |at| at.value),
    }))
}

fn read_cooling(section: &Section<'_>) -> Option<ControlKind> {
    if !section.has("start") {
        section.fault("`ccp.start` is missing: a batch begins when the value falls below it");
    }
    let start = section.number("start");
    let air = section.number("air").map_or(0.0, |at| at.value);
    let mut stages: Vec<(At<f64>, Duration)> = Vec::new();
    for stage in section.tables("stages") {
        let to = stage.number("to");
        if !stage.has("to") || !stage.has("within") {
            stage.fault("a stage needs `to` and `within`, like { to = 21.0, within = \"120min\" }");
        }
        let within = stage.duration("within", Duration::from_mins(1)..=DAY * 7);
        stages.extend(to.zip(within));
        stage.finish();
    }
    if stages.is_empty() {
        section.fault("a cooling curve needs `stages`, like [{ to = 21.0, within = \"120min\" }, { to = 5.0, within = \"360min\" }]");
    }
    for pair in stages.windows(2) {
        if pair[1].0.value >= pair[0].0.value || pair[1].1 <= pair[0].1 {
            section.fault_at(
                &pair[1].0.span,
                "each stage must be colder and later than the one before",
            );
        }
    }
    let start = start?;
    if let Some((first, _)) = stages.first().filter(|(first, _)| first.value >= start.value) {
        section.fault_at(&first.span, "the first stage must be colder than `start`");
    }
    if let Some((last, _)) = stages.last().filter(|(last, _)| last.value <= air) {
        section.fault_at(
            &last.span,
            "the last stage is not warmer than `air`: it would never be reached",
        );
    }
    Some(ControlKind::Cooling(CoolingCurve {
        start: start.value,
        air,
        stages: stages
            .into_iter()
            .map(|(to, within)| CoolingStage {
                to: to.value,
                within_us: micros(within),
            })
            .collect(),
    }))
}

fn read_challenge(section: &Section<'_>) -> Option<ControlKind> {
    if !section.has("every") {
        section.fault("`ccp.every` is missing: how often the control is challenged, like \"1h\"");
    }
    let every = section.duration("every", Duration::from_secs(1)..=DAY * 31);
    let grace = section.duration("grace", Duration::ZERO..=DAY);
    let idle = section.number("idle").map(|at| at.value);
    Some(ControlKind::Challenge(Challenge {
        every_us: micros(every?),
        grace_us: micros(grace.unwrap_or(HOUR / 12)),
        idle,
    }))
}

/// The limits. Those of a cooling curve are its last stage's.
pub(super) fn read_low_high(
    section: &Section<'_>,
    kind: Option<&ControlKind>,
) -> (Option<At<f64>>, Option<At<f64>>) {
    if let Some(ControlKind::Cooling(curve)) = kind {
        let high = curve.stages.last().map(|stage| At {
            value: stage.to,
            span: section.span(),
        });
        return (None, high);
    }
    (section.number("low"), section.number("high"))
}
