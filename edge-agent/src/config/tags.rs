//! Which tags are there, and which alias has each? Names are unique, aliases follow the order of appearance, and a tag
//! of the running agent keeps its own.

use std::{collections::HashMap, ops::Range, time::Duration};

use protocol::{
    reading::Alias,
    tag::{Dictionary, Tag},
};

use super::{At, Faults, Section, suggest};
use crate::signal::config::Declared;

/// The tags read so far; aliases are given in order of appearance.
#[derive(Debug, Default)]
pub struct Tags<'a> {
    list: Vec<Tag>,
    /// Where each was named.
    spans: Vec<Range<usize>>,
    /// Places in `list`.
    by_name: HashMap<String, usize>,
    /// Places in `list`.
    by_alias: HashMap<Alias, usize>,
    /// What was said about their signals, by alias.
    declared: Vec<(Alias, Declared)>,
    simulated: bool,
    faults: Option<&'a Faults<'a>>,
    /// The tags of the running agent.
    running: HashMap<&'a str, &'a Tag>,
    next_alias: u32,
}

/// What a tag has beside its name and alias.
#[derive(Debug)]
pub struct NewTag {
    /// Unit.
    pub unit: String,
    /// Description.
    pub description: String,
    /// Code of its line.
    pub line: Option<String>,
    /// How often a reading is due; 0 on change.
    pub period_ms: u32,
}

impl<'a> Tags<'a> {
    /// No tag yet; those of a running agent keep their aliases.
    pub(super) fn after(running: &'a Dictionary, simulated: bool, faults: &'a Faults<'a>) -> Self {
        Self {
            simulated,
            faults: Some(faults),
            running: running.tags.iter().map(|tag| (tag.name.as_str(), tag)).collect(),
            next_alias: running.tags.iter().map(|tag| tag.alias.0 + 1).max().unwrap_or(0),
            ..Self::default()
        }
    }

    /// All tags by alias, with those of the running agent that are no longer named.
    pub(super) fn into_dictionary(self) -> Dictionary {
        let Self {
            mut list,
            by_name,
            running,
            ..
        } = self;
        let gone = running.values().filter(|tag| !by_name.contains_key(&tag.name));
        list.extend(gone.map(|tag| (*tag).clone()));
        list.sort_by_key(|tag| tag.alias);
        Dictionary { tags: list }
    }

    /// The alias of a tag: the running agent's, else the next.
    fn alias(&mut self, name: &At<String>, unit: &str) -> Alias {
        if let Some(known) = self.running.get(name.value.as_str()).copied() {
            if known.unit != unit {
                self.fault(
                    &name.span,
                    format!(
                        "tag `{}` changes its unit from `{}` to `{unit}`: readings under way would be mislabelled; restart \
                         the agent to change a unit",
                        name.value, known.unit
                    ),
                );
            }
            return known.alias;
        }
        self.next_alias += 1;
        Alias(self.next_alias - 1)
    }

    /// Reads what every tag has, whatever its source, and gives it an alias.
    pub fn read(&mut self, section: &Section<'_>, period: Duration) -> Option<Alias> {
        let name = section.required_text("name");
        let unit = section.text("unit").map_or_else(String::new, |at| at.value);
        let description = section
            .text("description")
            .map_or_else(String::new, |at| at.value);
        let line = section.text("line").map(|at| at.value);
        let declared = Declared::read(section, &unit, period);
        let tag = NewTag {
            unit,
            description,
            line,
            period_ms: u32::try_from(period.as_millis()).unwrap_or(u32::MAX),
        };
        let alias = self.add(&name?, tag)?;
        self.declared.extend(declared.map(|declared| (alias, declared)));
        Some(alias)
    }

    /// Gives a tag its alias; a name that cannot be one or is taken is a fault.
    pub fn add(&mut self, name: &At<String>, tag: NewTag) -> Option<Alias> {
        if name.value.is_empty() || name.value.len() > 200 || name.value.chars().any(char::is_control) {
            self.fault(
                &name.span,
                "a tag's name must be 1 to 200 bytes, without control characters",
            );
            return None;
        }
        let alias = self.alias(name, &tag.unit);
        if self.by_name.insert(name.value.clone(), self.list.len()).is_some() {
            self.fault(
                &name.span,
                format!(
                    "tag `{}` is named twice; names are unique in the tenant",
                    name.value
                ),
            );
        }
        self.by_alias.insert(alias, self.list.len());
        self.spans.push(name.span.clone());
        self.list.push(Tag {
            alias,
            name: name.value.clone(),
            unit: tag.unit,
            description: tag.description,
            line: tag.line,
            period_ms: tag.period_ms,
            simulated: self.simulated,
        });
        Some(alias)
    }

    /// Takes what was said about signals since the last time.
    pub fn take_declared(&mut self) -> Vec<(Alias, Declared)> {
        std::mem::take(&mut self.declared)
    }

    /// The tag behind an alias.
    pub fn tag(&self, alias: Alias) -> Option<&Tag> {
        self.list.get(*self.by_alias.get(&alias)?)
    }

    /// Where a tag was named.
    pub fn span_of(&self, alias: Alias) -> Range<usize> {
        let place = self.by_alias.get(&alias);
        place
            .and_then(|place| self.spans.get(*place))
            .cloned()
            .unwrap_or(0..0)
    }

    /// Adds to a tag's description.
    pub fn describe(&mut self, alias: Alias, text: &str) {
        let place = self.by_alias.get(&alias);
        if let Some(tag) = place.and_then(|place| self.list.get_mut(*place)) {
            let joint = if tag.description.is_empty() { "" } else { "; " };
            tag.description = format!("{}{joint}{text}", tag.description);
        }
    }

    /// Records a fault at a place.
    pub fn fault(&self, span: &Range<usize>, message: impl Into<String>) {
        if let Some(faults) = self.faults {
            faults.add(span, message);
        }
    }

    /// The tag that `at` names; a fault when there is none.
    pub fn find(&self, at: &At<String>) -> Option<&Tag> {
        let found = self
            .by_name
            .get(&at.value)
            .and_then(|place| self.list.get(*place));
        if found.is_none()
            && let Some(faults) = self.faults
        {
            let known: Vec<&str> = self.list.iter().map(|tag| tag.name.as_str()).collect();
            faults.add(
                &at.span,
                format!("no tag is named `{}`{}", at.value, suggest(&at.value, &known)),
            );
        }
        found
    }
}

/// The names of sources, cameras and control points used so far.
#[derive(Debug, Default)]
pub struct Names {
    used: std::collections::HashSet<(&'static str, String)>,
}

impl Names {
    /// Records a fault when a thing of this kind already has the name.
    pub fn claim(&mut self, section: &Section<'_>, kind: &'static str, name: &At<String>) {
        if !self.used.insert((kind, name.value.clone())) {
            section.fault_at(
                &name.span,
                format!("another {kind} is already called `{}`", name.value),
            );
        }
    }
}
