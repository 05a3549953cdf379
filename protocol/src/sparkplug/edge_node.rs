//! What does an edge node publish, and when? Births with every metric, deaths, data by alias, one sequence over all of
//! it. Pure: what is told in, messages out.

use std::collections::BTreeMap;

use srad_types::payload::{DataType, Metric, Payload, metric};

use super::{
    HostState, NAMESPACE, Outgoing, Property, decode, is_name, metric as metric_of, milliseconds,
    put_property,
};
use crate::{Micros, Reading, reading::Alias};

/// Metric that a host writes to be told everything anew.
const REBIRTH: &str = "Node Control/Rebirth";

/// One metric of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricPlan {
    /// The alias, of readings and on the wire.
    pub alias: Alias,
    /// Its name.
    pub name: String,
    /// Its unit; a property of the birth.
    pub unit: String,
}

/// Why an edge node cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNode {
    /// A name that no topic may hold.
    #[error("`{0}` cannot stand in a Sparkplug topic: it must not be empty and not hold `+`, `/` or `#`")]
    Name(String),
    /// One name for two devices (tck-id-topic-structure-namespace-unique-device-id).
    #[error("two devices are called `{0}`: a host could not tell them apart")]
    DeviceTwice(String),
    /// One alias for two metrics (tck-id-payloads-alias-uniqueness).
    #[error("alias {0} stands for two metrics: a host would take one for the other")]
    AliasTwice(u32),
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    /// To be told everything anew.
    Rebirth,
    /// To write something, which this node does not do.
    Refused {
        /// The metrics' names.
        metrics: Vec<String>,
    },
}

#[derive(Debug)]
struct Device {
    metrics: Vec<MetricPlan>,
    is_born: bool,
}

/// One edge node over its connections.
#[derive(Debug)]
pub struct EdgeNode {
    group: String,
    node: String,
    devices: BTreeMap<String, Device>,
    device_of: BTreeMap<Alias, String>,
    /// The newest reading of each metric: a birth holds them all.
    newest: BTreeMap<Alias, Reading>,
    /// Of the newest connection; none before the first one.
    bd_seq: Option<u8>,
    seq: u8,
    is_born: bool,
    /// What the primary host said on this connection.
    host: Option<HostState>,
}

impl EdgeNode {
    /// A node with its devices; nothing is born yet.
    ///
    /// # Errors
    /// A name that cannot stand in a topic, or what a host would take for something else.
    pub fn new(
        group: &str,
        node: &str,
        devices: impl IntoIterator<Item = (String, Vec<MetricPlan>)>,
    ) -> Result<Self, BadNode> {
        for name in [group, node] {
            checked(name)?;
        }
        let (mut by_name, mut device_of) = (BTreeMap::new(), BTreeMap::new());
        for (name, metrics) in devices {
            checked(&name)?;
            for plan in &metrics {
                if device_of.insert(plan.alias, name.clone()).is_some() {
                    return Err(BadNode::AliasTwice(plan.alias.0));
                }
            }
            let is_born = false;
            if by_name
                .insert(name.clone(), Device { metrics, is_born })
                .is_some()
            {
                return Err(BadNode::DeviceTwice(name));
            }
        }
        Ok(Self {
            device_of,
            group: group.to_owned(),
            node: node.to_owned(),
            devices: by_name,
            newest: BTreeMap::new(),
            bd_seq: None,
            seq: 0,
            is_born: false,
            host: None,
        })
    }

    fn topic(&self, kind: &str, device: Option<&str>) -> String {
        let Self { group, node, .. } = self;
        match device {
            Some(device) => format!("{NAMESPACE}/{group}/{kind}/{node}/{device}"),
            None => format!("{NAMESPACE}/{group}/{kind}/{node}"),
        }
    }

    /// What the node subscribes to, with QoS 1: commands to it and its devices.
    pub fn subscriptions(&self) -> [String; 2] {
        [self.topic("NCMD", None), self.topic("DCMD", Some("+"))]
    }

    /// A new connection is about to be made: its will, which carries the next `bdSeq`, from 0 on. What the primary host
    /// said on the last one says nothing of this one, which may be to another server with times of its own
    /// (tck-id-operational-behavior-host-application-multi-server-timestamp).
    pub fn connect(&mut self, now_us: Micros) -> Outgoing {
        self.bd_seq = Some(self.bd_seq.map_or(0, |last| last.wrapping_add(1)));
        self.host = None;
        self.is_born = false;
        for device in self.devices.values_mut() {
            device.is_born = false;
        }
        self.death(now_us)
    }

    /// The death certificate: the will, and what is published before a disconnect on purpose.
    pub fn death(&self, now_us: Micros) -> Outgoing {
        let payload = Payload {
            timestamp: Some(milliseconds(now_us)),
            metrics: vec![self.bd_seq_metric(now_us)],
            // An NDEATH has no sequence number.
            ..Payload::default()
        };
        Outgoing {
            topic: self.topic("NDEATH", None),
            payload: payload.into(),
            is_acknowledged: true,
        }
    }

    fn bd_seq_metric(&self, now_us: Micros) -> Metric {
        let mut metric = Metric::new();
        metric
            .set_name("bdSeq".to_owned())
            .set_datatype(DataType::Int64)
            .set_timestamp(milliseconds(now_us))
            .set_value(metric::Value::LongValue(u64::from(self.bd_seq.unwrap_or(0))));
        metric
    }

    /// Everything anew: the node's birth, then those of the devices that are there.
    pub fn birth(&mut self, is_up: impl Fn(&str) -> bool, now_us: Micros) -> Vec<Outgoing> {
        let mut rebirth = Metric::new();
        rebirth
            .set_name(REBIRTH.to_owned())
            .set_datatype(DataType::Boolean)
            .set_timestamp(milliseconds(now_us))
            .set_value(metric::Value::BooleanValue(false));
        self.seq = 0;
        self.is_born = true;
        let metrics = vec![self.bd_seq_metric(now_us), rebirth];
        let mut out = vec![self.sequenced("NBIRTH", None, metrics, now_us)];
        let names: Vec<String> = self.devices.keys().cloned().collect();
        for name in names {
            if let Some(device) = self.devices.get_mut(&name) {
                device.is_born = false;
            }
            if is_up(&name) {
                out.extend(self.device_birth(&name, now_us));
            }
        }
        out
    }

    /// A device is there: every metric it will ever have, with its newest value.
    pub fn device_birth(&mut self, name: &str, now_us: Micros) -> Option<Outgoing> {
        let device = self
            .devices
            .get_mut(name)
            .filter(|device| self.is_born && !device.is_born)?;
        device.is_born = true;
        let metrics = device.metrics.iter().map(|plan| {
            let known = self.newest.get(&plan.alias).copied();
            let unknown = Reading::bad(plan.alias, now_us, crate::Quality::BAD_NOT_CONNECTED);
            let mut metric = metric_of(u64::from(plan.alias.0), &known.unwrap_or(unknown), false);
            metric.set_name(plan.name.clone());
            if !plan.unit.is_empty() {
                put_property(
                    &mut metric,
                    "engUnit",
                    DataType::String,
                    Property::StringValue(plan.unit.clone()),
                );
            }
            metric
        });
        let mut metrics: Vec<Metric> = metrics.collect();
        // In order of time, as data are (tck-id-operational-behavior-data-publish-dbirth-order).
        metrics.sort_by_key(|metric| metric.timestamp);
        Some(self.sequenced("DBIRTH", Some(name), metrics, now_us))
    }

    /// A device is gone.
    pub fn device_death(&mut self, name: &str, now_us: Micros) -> Option<Outgoing> {
        let device = self.devices.get_mut(name).filter(|device| device.is_born)?;
        device.is_born = false;
        Some(self.sequenced("DDEATH", Some(name), Vec::new(), now_us))
    }

    /// Takes readings; what to publish now, by device, in order of time. A device that is not born has no data, and
    /// nothing is published before the node is born. What comes late is not the newest.
    pub fn data(&mut self, readings: &[Reading], is_historical: bool, now_us: Micros) -> Vec<Outgoing> {
        for reading in readings.iter().filter(|_| !is_historical) {
            let newest = self.newest.entry(reading.tag).or_insert(*reading);
            if reading.time_us >= newest.time_us {
                *newest = *reading;
            }
        }
        if !self.is_born {
            return Vec::new();
        }
        let mut by_device: BTreeMap<String, Vec<&Reading>> = BTreeMap::new();
        for reading in readings {
            if let Some(name) = self.device_of.get(&reading.tag)
                && self.devices.get(name).is_some_and(|device| device.is_born)
            {
                by_device.entry(name.clone()).or_default().push(reading);
            }
        }
        let messages = by_device.into_iter().map(|(name, mut its)| {
            its.sort_by_key(|reading| reading.time_us);
            let metrics = its
                .into_iter()
                .map(|reading| metric_of(u64::from(reading.tag.0), reading, is_historical));
            let metrics = metrics.collect();
            self.sequenced("DDATA", Some(&name), metrics, now_us)
        });
        messages.collect()
    }

    fn sequenced(
        &mut self,
        kind: &str,
        device: Option<&str>,
        metrics: Vec<Metric>,
        now_us: Micros,
    ) -> Outgoing {
        let payload = Payload {
            timestamp: Some(milliseconds(now_us)),
            metrics,
            seq: Some(u64::from(self.seq)),
            ..Payload::default()
        };
        self.seq = self.seq.wrapping_add(1);
        Outgoing {
            topic: self.topic(kind, device),
            payload: payload.into(),
            is_acknowledged: false,
        }
    }

    /// Reads a command.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn command(&self, topic: &str, payload: &[u8]) -> Result<NodeCommand, String> {
        let payload = decode(payload)?;
        let is_rebirth = |metric: &Metric| {
            metric.name.as_deref() == Some(REBIRTH) && metric.value == Some(metric::Value::BooleanValue(true))
        };
        if topic == self.topic("NCMD", None) && payload.metrics.iter().any(is_rebirth) {
            return Ok(NodeCommand::Rebirth);
        }
        let metrics = payload.metrics.into_iter().map(|metric| {
            metric
                .name
                .unwrap_or_else(|| format!("alias {}", metric.alias.unwrap_or_default()))
        });
        Ok(NodeCommand::Refused {
            metrics: metrics.collect(),
        })
    }

    /// Takes the primary host's word on itself; whether the node may be born now. An older word than the newest
    /// changes nothing.
    pub fn host_said(&mut self, state: HostState) -> bool {
        if self.host.is_none_or(|known| state.timestamp >= known.timestamp) {
            self.host = Some(state);
        }
        self.host.is_some_and(|host| host.online)
    }

    /// Whether births were published on this connection.
    pub fn is_born(&self) -> bool {
        self.is_born
    }
}

fn checked(name: &str) -> Result<(), BadNode> {
    is_name(name)
        .then_some(())
        .ok_or_else(|| BadNode::Name(name.to_owned()))
}
