//! What do `[[derived]]` and `[[state]]` say? Tags that are computed from those declared before them.

use std::time::Duration;

use protocol::{Micros, reading::Alias, tag::Tag};

use super::{
    super::derive::{Condition, DerivedPlan, Integrand, Kind, Reset, Rule, Stretch, Told},
    tag::{PER, micros, positive},
};
use crate::config::{Names, Section, Tags};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Shortest time for which an input counts as it last was, when `gap_max` is not given.
const GAP_LEAST: Duration = Duration::from_secs(5);

/// The words of `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Difference,
    Min,
    Max,
    Sum,
    Mean,
    Rate,
    Total,
    Lethality,
    Pasteurisation,
    Cooling,
}

const WORDS: [(&str, Word); 10] = [
    ("difference", Word::Difference),
    ("min", Word::Min),
    ("max", Word::Max),
    ("sum", Word::Sum),
    ("mean", Word::Mean),
    ("rate", Word::Rate),
    ("total", Word::Total),
    ("lethality", Word::Lethality),
    ("pasteurisation", Word::Pasteurisation),
    ("cooling", Word::Cooling),
];

/// Reads all `[[state]]`, then all `[[derived]]`: these may be gated by those.
pub(super) fn read_derived(root: &Section<'_>, tags: &mut Tags<'_>, names: &mut Names) -> Vec<DerivedPlan> {
    let mut plans = Vec::new();
    for section in root.tables("state") {
        plans.extend(read_state(&section, tags, names));
        section.finish();
    }
    for section in root.tables("derived") {
        plans.extend(read_one(&section, tags));
        section.finish();
    }
    plans
}

fn read_one(section: &Section<'_>, tags: &mut Tags<'_>) -> Option<DerivedPlan> {
    if !section.has("kind") {
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        section.fault(format!("`derived.kind` is missing: one of {}", words.join(", ")));
    }
    let word = section.choice("kind", &WORDS);
    let mut inputs = read_inputs(section, tags);
    let kind = word.and_then(|word| read_kind(section, word, &mut inputs, tags));
    if let Some(word) = word {
        check_inputs(section, word, &inputs);
    }
    let gap_us_max = read_gap(section, &inputs, tags);
    let is_accumulating = matches!(kind, Some(Kind::Integral(_) | Kind::Cooling { .. }));
    let gate = read_gate(section, tags);
    let reset = read_reset(section, tags);
    if kind.is_some() && !is_accumulating && (section.has("gate") || section.has("reset")) {
        section
            .fault("`gate` and `reset` mean something only for lethality, pasteurisation, total and cooling");
    }
    // Cooling is told only while something cools.
    let lead = inputs.first().and_then(|alias| tags.tag(*alias));
    let period_ms = match word {
        Some(Word::Cooling) => 0,
        _ => lead.map_or(0, |tag| tag.period_ms),
    };
    let alias = tags.read(section, Duration::from_millis(u64::from(period_ms)))?;
    let (name, line) = tags.tag(alias).map(|tag| (tag.name.clone(), tag.line.clone()))?;
    if inputs.is_empty() {
        return None;
    }
    Some(DerivedPlan {
        alias,
        name,
        line,
        kind: kind?,
        inputs,
        gap_us_max,
        gate,
        reset,
    })
}

/// `tags = […]`, or `tag = "…"` for one.
fn read_inputs(section: &Section<'_>, tags: &Tags<'_>) -> Vec<Alias> {
    let (one, many) = (section.text("tag"), section.texts("tags"));
    if one.is_some() && !many.is_empty() {
        section.fault("give either `tag` or `tags`, not both");
    }
    if one.is_none() && many.is_empty() && !section.has("tag") && !section.has("tags") {
        section.fault(
            "`derived.tags` is missing: the names of the tags to compute from, like [\"TT-101\", \"TT-102\"]",
        );
    }
    let named = one.into_iter().chain(many);
    named
        .filter_map(|at| tags.find(&at).map(|tag| tag.alias))
        .collect()
}

fn check_inputs(section: &Section<'_>, word: Word, inputs: &[Alias]) {
    let (least, most) = match word {
        Word::Difference => (2, 2),
        Word::Min | Word::Max | Word::Sum | Word::Mean => (1, 64),
        Word::Cooling => (1, 2),
        Word::Rate | Word::Total | Word::Lethality | Word::Pasteurisation => (1, 1),
    };
    if !inputs.is_empty() && !(least..=most).contains(&inputs.len()) {
        section.fault(format!(
            "this kind is computed from {least} to {most} tags, not {}",
            inputs.len()
        ));
    }
}

fn read_kind(section: &Section<'_>, word: Word, inputs: &mut Vec<Alias>, tags: &Tags<'_>) -> Option<Kind> {
    let kind = match word {
        Word::Difference => Kind::Difference,
        Word::Min => Kind::Min,
        Word::Max => Kind::Max,
        Word::Sum => Kind::Sum,
        Word::Mean => Kind::Mean,
        Word::Rate => Kind::Rate {
            window_us: micros(
                section
                    .duration("window", Duration::from_millis(100)..=HOUR)
                    .unwrap_or(Duration::from_mins(1)),
            ),
            per_us: read_per(section),
        },
        Word::Total => Kind::Integral(Integrand::Rate {
            per_us: read_per(section),
        }),
        Word::Lethality | Word::Pasteurisation => {
            Kind::Integral(read_lethality(section, word, inputs, tags)?)
        }
        Word::Cooling => read_cooling(section, inputs, tags)?,
    };
    Some(kind)
}

fn read_per(section: &Section<'_>) -> Micros {
    section.choice("per", &PER).unwrap_or(PER[2].1).1
}

/// Reference and z: 121.11 and 10 (F₀) for lethality, 60 and 1/log₁₀(1.393) (beer) for pasteurisation units.
fn read_lethality(section: &Section<'_>, word: Word, inputs: &[Alias], tags: &Tags<'_>) -> Option<Integrand> {
    let (reference, z) = match word {
        Word::Pasteurisation => (60.0, 1.0 / 1.393f64.log10()),
        _ => (121.11, 10.0),
    };
    let unit = inputs
        .first()
        .and_then(|alias| tags.tag(*alias))
        .map(|tag| &tag.unit);
    if let Some(unit) = unit.filter(|unit| !["degC", "Cel", "C", "°C"].contains(&unit.as_str())) {
        section.fault(format!(
            "lethality is computed in degC, and the tag is in `{unit}`: give it `unit = \"degC\"` and `raw_unit`"
        ));
    }
    let reference = section.number("reference").map_or(reference, |at| at.value);
    let z = if section.has("z") {
        positive(section, "z")?
    } else {
        z
    };
    Some(Integrand::Lethality { reference, z })
}

fn read_cooling(section: &Section<'_>, inputs: &mut Vec<Alias>, tags: &Tags<'_>) -> Option<Kind> {
    const TOLD: [(&str, Told); 3] = [
        ("predicted", Told::Predicted),
        ("elapsed", Told::Elapsed),
        ("rate", Told::Rate),
    ];
    for key in ["from", "to"] {
        if !section.has(key) {
            section.fault(format!(
                "`derived.{key}` is missing: a temperature in the tag's unit"
            ));
        }
    }
    let (from, to) = (section.number("from"), section.number("to"));
    let told = section.choice("output", &TOLD).unwrap_or(Told::Predicted);
    let air = section.number("air").map(|at| at.value);
    let air_tag = section.text("air_tag");
    match (&air, &air_tag) {
        (Some(_), Some(_)) => section.fault("give either `air` or `air_tag`, not both"),
        (None, None) => {
            section.fault("cooling needs `air` (a temperature) or `air_tag` (the tag that has it)");
        }
        _ => {}
    }
    if let Some(tag) = air_tag.as_ref().and_then(|at| tags.find(at)) {
        inputs.push(tag.alias);
    }
    let (from, to) = (from?, to?);
    if from.value <= to.value {
        section.fault_at(&to.span, "`to` must be less than `from`: product cools");
        return None;
    }
    if let Some(air) = air.filter(|air| *air >= to.value) {
        section.fault(format!("air at {air} never cools product to {}", to.value));
    }
    let stretch = Stretch {
        from: from.value,
        to: to.value,
        told,
    };
    Some(Kind::Cooling { stretch, air })
}

fn read_gap(section: &Section<'_>, inputs: &[Alias], tags: &Tags<'_>) -> Micros {
    let periods = inputs.iter().filter_map(|alias| tags.tag(*alias));
    let slowest_ms = periods.map(|tag| tag.period_ms).max().unwrap_or(0);
    let usual = GAP_LEAST.max(Duration::from_millis(3 * u64::from(slowest_ms)));
    let gap = section.duration("gap_max", Duration::from_millis(100)..=DAY);
    micros(gap.unwrap_or(usual))
}

/// `gate = { tag = "…", value = 1.0 }`.
pub(in crate::signal) fn read_gate(section: &Section<'_>, tags: &Tags<'_>) -> Option<(Alias, f64)> {
    if !section.has("gate") {
        return None;
    }
    let gate = section.table("gate");
    let tag = gate
        .required_text("tag")
        .and_then(|at| tags.find(&at).map(|tag| tag.alias));
    let value = gate.number("value").map_or(1.0, |at| at.value);
    gate.finish();
    Some((tag?, value))
}

fn read_reset(section: &Section<'_>, tags: &Tags<'_>) -> Option<Reset> {
    if !section.has("reset") {
        return None;
    }
    let reset = section.table("reset");
    let tag = reset
        .required_text("tag")
        .and_then(|at| tags.find(&at).map(|tag| tag.alias));
    let value = reset.number("value").map(|at| at.value);
    reset.finish();
    Some(Reset { tag: tag?, value })
}

fn read_state(section: &Section<'_>, tags: &mut Tags<'_>, names: &mut Names) -> Option<DerivedPlan> {
    let (mut inputs, mut rules) = (Vec::new(), Vec::new());
    for rule in section.tables("rule") {
        rules.extend(read_rule(&rule, tags, &mut inputs));
        rule.finish();
    }
    if rules.is_empty() {
        section
            .fault("a state needs at least one `[[state.rule]]` with a `name` and a `[[state.rule.when]]`");
    }
    let gap_us_max = read_gap(section, &inputs, tags);
    let lead_period_ms = inputs
        .first()
        .and_then(|alias| tags.tag(*alias))
        .map_or(0, |tag| tag.period_ms);
    if let Some(name) = section.text("name") {
        names.claim(section, "state", &name);
    }
    let alias = tags.read(section, Duration::from_millis(u64::from(lead_period_ms)))?;
    tags.describe(alias, &legend(&rules));
    let tag: &Tag = tags.tag(alias)?;
    let (name, line) = (tag.name.clone(), tag.line.clone());
    (!inputs.is_empty()).then_some(DerivedPlan {
        alias,
        name,
        line,
        kind: Kind::State(rules),
        inputs,
        gap_us_max,
        gate: None,
        reset: None,
    })
}

/// `0 none, 1 cip, 2 running`: what the numbers mean, in the dictionary that travels with them.
fn legend(rules: &[Rule]) -> String {
    let numbered = rules
        .iter()
        .zip(1..)
        .map(|(rule, number)| format!(", {number} {}", rule.name));
    format!("0 none{}", numbered.collect::<String>())
}

fn read_rule(section: &Section<'_>, tags: &Tags<'_>, inputs: &mut Vec<Alias>) -> Option<Rule> {
    let name = section.required_text("name");
    let mut when = Vec::new();
    for condition in section.tables("when") {
        when.extend(read_condition(&condition, tags, inputs));
        condition.finish();
    }
    if !section.has("when") {
        section.fault(
            "a rule needs at least one `[[state.rule.when]]` with a `tag` and `above`, `below` or `equals`",
        );
    }
    Some(Rule {
        name: name?.value,
        when,
    })
}

fn read_condition(
    section: &Section<'_>,
    tags: &Tags<'_>,
    inputs: &mut Vec<Alias>,
) -> Option<(usize, Condition)> {
    let tag = section
        .required_text("tag")
        .and_then(|at| tags.find(&at).map(|tag| tag.alias));
    let given = [
        section.number("above").map(|at| Condition::Above(at.value)),
        section.number("below").map(|at| Condition::Below(at.value)),
        section.number("equals").map(|at| Condition::Equals(at.value)),
    ];
    let mut given = given.into_iter().flatten();
    let condition = given.next();
    if condition.is_none() || given.next().is_some() {
        section.fault(
            "give exactly one of `above`, `below` and `equals`; for a range, give two `[[state.rule.when]]`",
        );
    }
    let alias = tag?;
    let index = inputs
        .iter()
        .position(|input| *input == alias)
        .unwrap_or_else(|| {
            inputs.push(alias);
            inputs.len() - 1
        });
    Some((index, condition?))
}
