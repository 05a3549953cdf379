//! What does the configuration say about signals? The keys that every tag may have, whatever its source, and the tags
//! that come from no source: `[[state]]`, `[[derived]]`, `[[manual]]` and the totals and rates of counters.

mod derived;
mod tag;

use protocol::{Micros, reading::Alias, unit::Conversion};

pub use self::tag::Declared;
pub(super) use self::{derived::read_gate, tag::micros};
use super::{
    burst::BurstPlan,
    counter::Scale,
    deadband::Deadband,
    derive::DerivedPlan,
    drift::DriftLimit,
    manual::{ManualPlan, read_manual},
    watch::{JumpLimit, RateLimit, StillLimit},
};
use crate::{
    ccp::config::Point,
    config::{Names, Section, Tags},
    source::camera::config::Camera,
};

/// Everything that is configured about signals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Tags with any key about their signal.
    pub tags: Vec<TagPlan>,
    /// Derived tags and states, each after those it is computed from.
    pub derived: Vec<DerivedPlan>,
    /// Tags whose values people enter.
    pub manual: Vec<ManualPlan>,
    /// Cameras whose share of defects is watched.
    pub bursts: Vec<BurstPlan>,
}

/// What is configured about one tag's signal.
#[derive(Clone, Debug, PartialEq)]
pub struct TagPlan {
    /// The tag.
    pub alias: Alias,
    /// Its name.
    pub name: String,
    /// Code of its line.
    pub line: Option<String>,
    /// Its unit.
    pub unit: String,
    /// From the device's unit to the tag's.
    pub conversion: Option<Conversion>,
    /// How its counter counts.
    pub counter: Option<CounterPlan>,
    /// How fast it may change.
    pub rate: Option<RateLimit>,
    /// How far it may jump.
    pub jump: Option<JumpLimit>,
    /// When it stands still.
    pub still: Option<Stillness>,
    /// Reference and limit of its drift.
    pub drift: Option<(Alias, DriftLimit)>,
    /// When its value is news.
    pub deadband: Option<Deadband>,
    /// Whether a control point is judged by it: its quality is never changed, no reading of it is left out.
    pub is_protected: bool,
}

/// A counter and the tags that follow from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CounterPlan {
    /// How it counts.
    pub scale: Scale,
    /// The tag of its total.
    pub total: Option<Alias>,
    /// The tag of its rate, and the time in the rate's unit, microseconds.
    pub rate: Option<(Alias, Micros)>,
}

/// How a signal that stands still is recognised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stillness {
    /// By itself.
    Alone(StillLimit),
    /// While its reference moves.
    Beside {
        /// The reference tag.
        reference: Alias,
        /// What stillness is.
        limit: StillLimit,
    },
}

/// Reads states, derived tags and tags of manual entries, in this order, and resolves what they said about other tags.
pub fn read_signals(root: &Section<'_>, tags: &mut Tags<'_>, names: &mut Names) -> Plan {
    let declared = tags.take_declared();
    let mut plans: Vec<TagPlan> = Vec::new();
    for (alias, declared) in &declared {
        plans.extend(tag::plan_counter(*alias, declared, tags));
    }
    let derived = derived::read_derived(root, tags, names);
    let mut manual = Vec::new();
    for section in root.tables("manual") {
        manual.extend(read_manual(&section, tags));
        section.finish();
    }
    let late = tags.take_declared();
    for (alias, declared) in &late {
        if let Some(counter) = &declared.counter {
            tags.fault(
                &counter.span,
                "`counter` belongs to a tag of a source; this one is of none",
            );
        }
        plans.extend(tag::plan_counter(*alias, declared, tags));
    }
    for (plan, (_, declared)) in plans.iter_mut().zip(declared.iter().chain(&late)) {
        tag::resolve(plan, declared, tags);
    }
    Plan {
        tags: plans,
        derived,
        manual,
        bursts: Vec::new(),
    }
}

impl Plan {
    /// Takes up the cameras whose share of defects is watched.
    pub fn watch_cameras(&mut self, cameras: &[Camera]) {
        let bursts = cameras.iter().filter_map(|camera| {
            Some(BurstPlan {
                camera: camera.name.clone(),
                line: camera.line.clone(),
                limit: camera.burst?,
            })
        });
        self.bursts = bursts.collect();
    }

    /// Marks the tags by which control points are judged; a deadband on one of them is a fault.
    pub fn protect(&mut self, points: &[Point], tags: &Tags<'_>) {
        for point in points {
            let gate = point.gate.map(|gate| gate.tag);
            let reference = point.stuck.map(|stuck| stuck.reference);
            for alias in [Some(point.tag), gate, reference].into_iter().flatten() {
                let Some(plan) = self.tags.iter_mut().find(|plan| plan.alias == alias) else {
                    continue;
                };
                plan.is_protected = true;
                if plan.deadband.take().is_some() {
                    let at = tags.span_of(alias);
                    tags.fault(
                        &at,
                        format!(
                            "`deadband` cannot be given for `{}`: control point {} is judged by it, and its record holds \
                             every reading; leave the key out",
                            plan.name, point.limit.ccp
                        ),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
