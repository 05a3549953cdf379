//! What do a birth's metrics mean? Names, types and aliases, checked whole before any of it is believed.

use std::collections::{BTreeMap, HashMap, HashSet};

use srad_types::payload::{Metric, metric::Value as Wire};

use super::METRICS_MAX;
use crate::integrator::{Code, NAME_BYTES_MAX, Refused};

/// What is known of a metric from its birth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// None: the node's own.
    pub(super) device: Option<String>,
    pub(super) name: String,
    pub(super) datatype: Option<u32>,
}

/// Names and aliases of one node and its devices.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Of the node itself (none) and of each device: name to type.
    pub(super) metrics: BTreeMap<Option<String>, BTreeMap<String, Option<u32>>>,
    aliases: HashMap<u64, Known>,
}

impl Book {
    /// Takes a birth of the node (`device` none) or of a device, in place of what that one said before.
    pub(super) fn enter(&mut self, device: Option<&str>, metrics: &[Metric]) -> Result<(), Refused> {
        let mine = device.map(str::to_owned);
        let others: usize = self
            .metrics
            .iter()
            .filter(|(of, _)| **of != mine)
            .map(|(_, its)| its.len())
            .sum();
        if others + metrics.len() > METRICS_MAX {
            let hint = format!("an edge node may have {METRICS_MAX} metrics with its devices");
            return Err(Refused::new(Code::TooLarge, hint, ""));
        }
        let (mut names, mut aliases, mut seen) = (BTreeMap::new(), Vec::new(), HashSet::new());
        for metric in metrics {
            let name = named(metric)?;
            if names.insert(name.to_owned(), metric.datatype).is_some() {
                return Err(Refused::new(
                    Code::DuplicateName,
                    "a birth names each metric once",
                    name,
                ));
            }
            let Some(alias) = metric.alias else { continue };
            // tck-id-payloads-alias-uniqueness: unique over the node and all its devices.
            let is_anothers = self.aliases.get(&alias).is_some_and(|known| known.device != mine);
            if !seen.insert(alias) || is_anothers {
                let hint = "an alias stands for one metric of an edge node and all its devices";
                return Err(Refused::new(
                    Code::DuplicateAlias,
                    hint,
                    &format!("{alias} ({name})"),
                ));
            }
            let known = Known {
                device: mine.clone(),
                name: name.to_owned(),
                datatype: metric.datatype,
            };
            aliases.push((alias, known));
        }
        self.aliases.retain(|_, known| known.device != mine);
        self.aliases.extend(aliases);
        self.metrics.insert(mine, names);
        Ok(())
    }

    /// Which metric of `device` is meant: by name, by alias, or by both, which must agree.
    pub(super) fn find(&self, device: Option<&str>, metric: &Metric) -> Result<Known, Refused> {
        let mine = device.map(str::to_owned);
        let by_alias = match metric.alias {
            None => None,
            Some(alias) => {
                let known = self.aliases.get(&alias).filter(|known| known.device == mine);
                let hint = "no birth gave this alias to a metric of the sender; it was asked for its birth";
                Some(known.ok_or_else(|| Refused::new(Code::UnknownAlias, hint, &alias.to_string()))?)
            }
        };
        let Some(name) = metric.name.as_deref().filter(|name| !name.is_empty()) else {
            return by_alias
                .cloned()
                .ok_or_else(|| Refused::new(Code::MissingMember, "a metric has a name or an alias", ""));
        };
        if let Some(known) = by_alias {
            if known.name != name {
                let hint = format!("its alias stands for `{}`", known.name);
                return Err(Refused::new(Code::UnknownAlias, hint, name));
            }
            return Ok(known.clone());
        }
        self.named(device, name)
    }

    /// A metric by its name alone, which no later birth can have given to another one.
    pub(super) fn named(&self, device: Option<&str>, name: &str) -> Result<Known, Refused> {
        let mine = device.map(str::to_owned);
        // PyPI's mqtt-spb-wrapper names a value `DATA/x` in births and `x` in data; that says which is meant.
        let prefixed = format!("DATA/{name}");
        let names = self.metrics.get(&mine);
        let found = names.and_then(|names| {
            names
                .get_key_value(name)
                .or_else(|| names.get_key_value(&prefixed))
        });
        let hint = "no birth named this metric; a birth holds every metric that will ever be sent";
        let (name, datatype) = found.ok_or_else(|| Refused::new(Code::UnknownMetric, hint, name))?;
        Ok(Known {
            device: mine,
            name: name.clone(),
            datatype: *datatype,
        })
    }
}

fn named(metric: &Metric) -> Result<&str, Refused> {
    let name = metric.name.as_deref().unwrap_or_default();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let hint =
            format!("a birth's metrics have names of 1 to {NAME_BYTES_MAX} bytes without control characters");
        return Err(Refused::new(
            Code::BadName,
            hint,
            &name.escape_debug().to_string(),
        ));
    }
    Ok(name)
}

/// Whether a metric is about the session, not about the plant.
pub(super) fn is_about_session(name: &str) -> bool {
    let name = name.strip_prefix("CMD/").unwrap_or(name);
    name == "bdSeq" || name.starts_with("Node Control/") || name.starts_with("Device Control/")
}

/// The number that pairs a birth with its death.
pub(super) fn bd_seq(metrics: &[Metric]) -> Option<u64> {
    let found = metrics
        .iter()
        .find(|metric| metric.name.as_deref() == Some("bdSeq"))?;
    match found.value {
        Some(Wire::LongValue(number)) => Some(number),
        Some(Wire::IntValue(number)) => Some(u64::from(number)),
        _ => None,
    }
}
