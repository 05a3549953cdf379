//! What may every tag say about its signal? `raw_unit`, `deadband`, `counter`, `rate`, `jump`, `stuck` and `drift`, read
//! with the tag and resolved once all tags are known.

use std::{ops::Range, time::Duration};

use protocol::{Micros, reading::Alias, unit::Conversion};

use super::{
    super::{
        counter::{Scale, WentDown},
        deadband::Deadband,
        drift::DriftLimit,
        watch::{JumpLimit, RateLimit, StillLimit},
    },
    CounterPlan, Stillness, TagPlan,
};
use crate::config::{At, NewTag, Section, Tags};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// The greatest counter whose every value is an exact double.
const COUNTER_MAX: f64 = 9_007_199_254_740_991.0;

/// What a tag's section says about its signal, before other tags are known.
#[derive(Debug, Default)]
pub struct Declared {
    conversion: Option<Conversion>,
    /// The counter, when it is one.
    pub(super) counter: Option<DeclaredCounter>,
    rate: Option<RateLimit>,
    jump: Option<JumpLimit>,
    still: Option<(StillLimit, Option<At<String>>)>,
    drift: Option<(At<String>, DriftLimit)>,
    deadband: Option<Deadband>,
}

/// A counter and the names of the tags that follow from it.
#[derive(Debug)]
pub(super) struct DeclaredCounter {
    pub(super) span: Range<usize>,
    scale: Scale,
    total: Option<At<String>>,
    rate: Option<At<String>>,
    per: (&'static str, Micros),
}

/// The times that stand in units of rates.
pub(super) const PER: [(&str, (&str, Micros)); 3] = [
    ("s", ("s", 1_000_000)),
    ("min", ("min", 60_000_000)),
    ("h", ("h", 3_600_000_000)),
];

impl Declared {
    /// Reads the keys of a tag's section; none when there are none of them.
    pub fn read(section: &Section<'_>, unit: &str, period: Duration) -> Option<Self> {
        let declared = Self {
            conversion: read_conversion(section, unit),
            counter: read_counter(section),
            rate: read_rate(section),
            jump: read_jump(section),
            still: read_still(section),
            drift: read_drift(section),
            deadband: read_deadband(section, period),
        };
        let has_any = declared.conversion.is_some()
            || declared.counter.is_some()
            || declared.rate.is_some()
            || declared.jump.is_some()
            || declared.still.is_some()
            || declared.drift.is_some()
            || declared.deadband.is_some();
        has_any.then_some(declared)
    }
}

fn read_conversion(section: &Section<'_>, unit: &str) -> Option<Conversion> {
    let raw = section.text("raw_unit")?;
    match Conversion::between(&raw.value, unit) {
        Ok(conversion) => Some(conversion),
        Err(fault) => {
            section.fault_at(
                &raw.span,
                format!("`raw_unit` cannot be converted to the tag's `unit`: {fault}"),
            );
            None
        }
    }
}

/// A number that must be greater than 0, where it is given.
pub(super) fn positive(section: &Section<'_>, key: &'static str) -> Option<f64> {
    let number = section.number(key)?;
    if number.value > 0.0 {
        return Some(number.value);
    }
    section.fault_at(&number.span, format!("`{key}` must be greater than 0"));
    None
}

fn required_positive(section: &Section<'_>, key: &'static str, example: &str) -> Option<f64> {
    if !section.has(key) {
        section.fault(format!(
            "`{key}` is missing (a number greater than 0, like {example})"
        ));
    }
    positive(section, key)
}

fn read_deadband(section: &Section<'_>, period: Duration) -> Option<Deadband> {
    if !section.has("deadband") {
        return None;
    }
    let table = section.table("deadband");
    let absolute = positive(&table, "absolute");
    let percent = positive(&table, "percent");
    let every = table.duration("report_every", Duration::from_secs(1)..=HOUR);
    if !table.has("absolute") && !table.has("percent") {
        table.fault(
            "`deadband` needs `absolute` (in the tag's unit), `percent` (of the last value sent) or both",
        );
    }
    let every = every.unwrap_or(Duration::from_mins(1));
    if every < period {
        table.fault("`deadband.report_every` is shorter than the tag's period: nothing would be left out");
    }
    table.finish();
    Some(Deadband {
        absolute: absolute.unwrap_or(0.0),
        percent: percent.unwrap_or(0.0),
        report_every_us: micros(every),
    })
}

fn read_counter(section: &Section<'_>) -> Option<DeclaredCounter> {
    const WENT_DOWN: [(&str, WentDown); 3] = [
        ("detect", WentDown::Detect),
        ("rollover", WentDown::Rollover),
        ("reset", WentDown::Reset),
    ];
    if !section.has("counter") {
        return None;
    }
    let table = section.table("counter");
    let max = required_positive(&table, "max", "65535");
    let step = positive(&table, "step").unwrap_or(1.0);
    let went_down = table.choice("reset", &WENT_DOWN).unwrap_or(WentDown::Detect);
    let per = table.choice("per", &PER).unwrap_or(PER[1].1);
    let rate_max = positive(&table, "rate_max").map(|rate_max| rate_max / (per.1 as f64 / 1e6));
    let gap_max = table
        .duration("gap_max", Duration::from_secs(1)..=DAY)
        .unwrap_or(Duration::from_mins(1));
    let (total, rate) = (table.text("total"), table.text("rate"));
    if total.is_none() && rate.is_none() {
        table.fault("`counter` needs `total` or `rate`: the name of the tag that follows from it");
    }
    if max.is_some_and(|max| max / step > COUNTER_MAX) {
        table.fault(
            "`counter.max` is more than 2^53 - 1 steps: beyond that no reading tells one step from the next",
        );
    }
    let span = table.span();
    table.finish();
    Some(DeclaredCounter {
        span,
        scale: Scale {
            max: max?,
            step,
            went_down,
            rate_max,
            gap_us_max: micros(gap_max),
        },
        total,
        rate,
        per,
    })
}

fn read_rate(section: &Section<'_>) -> Option<RateLimit> {
    if !section.has("rate") {
        return None;
    }
    let table = section.table("rate");
    let max = required_positive(&table, "max", "2.0");
    let per = table
        .duration("per", Duration::from_millis(100)..=HOUR)
        .unwrap_or(Duration::from_mins(1));
    table.finish();
    Some(RateLimit {
        max: max?,
        per_us: micros(per),
    })
}

fn read_jump(section: &Section<'_>) -> Option<JumpLimit> {
    if !section.has("jump") {
        return None;
    }
    let table = section.table("jump");
    let max = required_positive(&table, "max", "5.0");
    let confirm = table.integer("confirm", 2..=100).unwrap_or(3) as u8;
    table.finish();
    Some(JumpLimit { max: max?, confirm })
}

fn read_still(section: &Section<'_>) -> Option<(StillLimit, Option<At<String>>)> {
    if !section.has("stuck") {
        return None;
    }
    let table = section.table("stuck");
    let reference = table.text("reference");
    let window = table
        .duration("window", Duration::from_secs(1)..=DAY)
        .unwrap_or(Duration::from_secs(30));
    let floor = required_positive(&table, "floor", "0.005");
    table.finish();
    let limit = StillLimit {
        floor: floor?,
        window_us: micros(window),
    };
    Some((limit, reference))
}

fn read_drift(section: &Section<'_>) -> Option<(At<String>, DriftLimit)> {
    if !section.has("drift") {
        return None;
    }
    let table = section.table("drift");
    let reference = table.required_text("reference");
    let block = table
        .duration("every", Duration::from_secs(1)..=DAY)
        .unwrap_or(HOUR);
    let baseline = table.integer("baseline", 5..=1_000).unwrap_or(24) as u32;
    let floor = required_positive(&table, "floor", "0.05");
    table.finish();
    let limit = DriftLimit {
        block_us: micros(block),
        baseline,
        floor: floor?,
    };
    Some((reference?, limit))
}

/// The plan of a tag as far as no other tag is needed; the tags that follow from its counter are made.
pub(super) fn plan_counter(alias: Alias, declared: &Declared, tags: &mut Tags<'_>) -> Option<TagPlan> {
    let tag = tags.tag(alias)?.clone();
    let counter = declared.counter.as_ref().map(|counter| {
        let mut follow = |name: &Option<At<String>>, unit: String, what: &str| {
            let name = name.as_ref()?;
            tags.add(
                name,
                NewTag {
                    unit,
                    description: format!("{what} of {}", tag.name),
                    line: tag.line.clone(),
                    period_ms: tag.period_ms,
                },
            )
        };
        let total = follow(&counter.total, tag.unit.clone(), "Total");
        let rate = follow(&counter.rate, format!("{}/{}", tag.unit, counter.per.0), "Rate");
        CounterPlan {
            scale: counter.scale,
            total,
            rate: rate.map(|alias| (alias, counter.per.1)),
        }
    });
    Some(TagPlan {
        alias,
        name: tag.name,
        line: tag.line,
        unit: tag.unit,
        conversion: declared.conversion,
        counter,
        rate: declared.rate,
        jump: declared.jump,
        still: None,
        drift: None,
        deadband: declared.deadband,
        is_protected: false,
    })
}

/// Finds the references.
pub(super) fn resolve(plan: &mut TagPlan, declared: &Declared, tags: &Tags<'_>) {
    let find = |at: &At<String>| {
        let found = tags.find(at)?.alias;
        if found == plan.alias {
            tags.fault(&at.span, "a tag cannot be its own reference");
            return None;
        }
        Some(found)
    };
    let drift = declared.drift.as_ref();
    let drift = drift.and_then(|(reference, limit)| Some((find(reference)?, *limit)));
    let still = match &declared.still {
        None => None,
        Some((limit, None)) => Some(Stillness::Alone(*limit)),
        Some((limit, Some(reference))) => find(reference).map(|reference| Stillness::Beside {
            reference,
            limit: *limit,
        }),
    };
    (plan.drift, plan.still) = (drift, still);
}

pub(in crate::signal) fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}
