//! What does `[sparkplug]` say? Where the edge node connects, and as whom.

use std::path::PathBuf;

use protocol::sparkplug::{edge_node::MetricPlan, is_name};

use crate::config::{At, Config, Section, check_address};

/// The edge node.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// Group id.
    pub group_id: String,
    /// Edge node id.
    pub node_id: String,
    /// Brokers, `host:port`; the node walks from one to the next.
    pub addresses: Vec<String>,
    /// User, when the brokers ask for one.
    pub user: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Certificate authority for TLS; plain TCP without one.
    pub ca_file: Option<PathBuf>,
    /// The host that must be online, when there is one.
    pub primary_host: Option<String>,
    /// Most readings kept while the host is away.
    pub store_readings_max: usize,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("group_id", &self.group_id)
            .field("node_id", &self.node_id)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// Reads `[sparkplug]`, when it is there.
pub fn read_node(root: &Section<'_>, edge: Option<&str>) -> Option<Node> {
    if !root.has("sparkplug") {
        return None;
    }
    let section = root.table("sparkplug");
    let group_id = section
        .required_text("group_id")
        .and_then(|at| name(&section, at));
    let node_id = section.text("node_id").and_then(|at| name(&section, at));
    let addresses = section.texts("addresses");
    let addresses: Vec<String> = addresses
        .into_iter()
        .map(|at| check_address(&section, at, "sparkplug.addresses"))
        .collect();
    if addresses.is_empty() {
        section.fault("`sparkplug.addresses` must name a broker, like [\"127.0.0.1:1883\"]");
    }
    let user = section.text("user").map(|at| at.value);
    let password_file = section.text("password_file").map(|at| PathBuf::from(at.value));
    let ca_file = section.text("ca_file").map(|at| PathBuf::from(at.value));
    let primary_host = section.text("primary_host").and_then(|at| name(&section, at));
    let store_readings_max = section
        .integer("store_readings_max", 0..=10_000_000)
        .unwrap_or(100_000) as usize;
    section.finish();
    Some(Node {
        group_id: group_id?,
        node_id: node_id.or_else(|| edge.map(str::to_owned))?,
        addresses,
        user,
        password_file,
        ca_file,
        primary_host,
        store_readings_max,
    })
}

fn name(section: &Section<'_>, at: At<String>) -> Option<String> {
    if is_name(&at.value) {
        return Some(at.value);
    }
    section.fault_at(
        &at.span,
        format!(
            "`{}` cannot stand in a Sparkplug topic: no `+`, `/` or `#`",
            at.value
        ),
    );
    None
}

/// Every source is a device of the node, its tags the metrics.
pub fn devices(config: &Config) -> Vec<(String, Vec<MetricPlan>)> {
    let plan = |alias| {
        let tag = config.dictionary.tag(alias)?;
        Some(MetricPlan {
            alias,
            name: tag.name.clone(),
            unit: tag.unit.clone(),
        })
    };
    let modbus = config.modbus.iter().map(|device| {
        let tags = device.groups.iter().flat_map(|group| &group.tags);
        (
            device.name.clone(),
            tags.filter_map(|tag| plan(tag.alias)).collect(),
        )
    });
    let opcua = config.opcua.iter().map(|server| {
        let metrics = server.tags.iter().filter_map(|tag| plan(tag.alias)).collect();
        (server.name.clone(), metrics)
    });
    let mqtt = config.mqtt.iter().map(|broker| {
        let metrics = broker.tags.iter().filter_map(|tag| plan(tag.alias)).collect();
        (broker.name.clone(), metrics)
    });
    modbus.chain(opcua).chain(mqtt).collect()
}
