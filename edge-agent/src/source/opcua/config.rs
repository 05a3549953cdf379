//! What does `[[opcua]]` say? One server and the nodes to watch.

use std::time::Duration;

use protocol::reading::Alias;

use crate::config::{At, Names, Section, Tags};

/// One OPC UA server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Name, unique among sources.
    pub name: String,
    /// `opc.tcp://host:port/path`.
    pub url: String,
    /// The namespace of all node identifiers: indices change between restarts, URIs do not.
    pub namespace_uri: String,
    /// Whether the agent may write to it.
    pub writes_enabled: bool,
    /// How often the server publishes.
    pub publish: Duration,
    /// The nodes.
    pub tags: Vec<NodePlan>,
}

/// One watched node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePlan {
    /// Its alias.
    pub alias: Alias,
    /// Its identifier without the namespace.
    pub node: NodeIdentifier,
    /// How often the server samples it.
    pub sampling: Duration,
    /// How often a reading is due; zero when it reports on change only.
    pub period: Duration,
}

/// The identifier part of a node id: `s=L3.TT-310` or `i=42`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeIdentifier {
    /// `s=…`
    Text(String),
    /// `i=…`
    Number(u32),
}

impl NodeIdentifier {
    /// Reads `s=…` or `i=…`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('=') {
            Some(("s", name)) if !name.is_empty() => Some(Self::Text(name.to_owned())),
            Some(("i", number)) => number.parse().ok().map(Self::Number),
            _ => None,
        }
    }
}

const HOUR: Duration = Duration::from_hours(1);

/// Reads one `[[opcua]]`.
pub fn read_server(section: &Section<'_>, tags: &mut Tags<'_>, names: &mut Names) -> Option<Server> {
    let name = section.required_text("name");
    if let Some(name) = &name {
        names.claim(section, "source", name);
    }
    let url = section.required_text("url");
    if let Some(url) = url.as_ref().filter(|url| !is_endpoint(&url.value)) {
        section.fault_at(&url.span, "`opcua.url` must be like \"opc.tcp://host:4840/path\"");
    }
    let namespace_uri = section.required_text("namespace_uri");
    let publish = section
        .duration("publish", Duration::from_millis(50)..=HOUR)
        .unwrap_or(Duration::from_secs(1));
    let writes_enabled = section.flag("writes_enabled", false);
    let mut list = Vec::new();
    for tag in section.tables("tag") {
        list.extend(read_tag(&tag, tags, publish));
        tag.finish();
    }
    if !section.has("tag") {
        section.fault("a server needs at least one `[[opcua.tag]]`");
    }
    Some(Server {
        name: name?.value,
        url: url?.value,
        namespace_uri: namespace_uri?.value,
        writes_enabled,
        publish,
        tags: list,
    })
}

fn is_endpoint(url: &str) -> bool {
    url.strip_prefix("opc.tcp://").is_some_and(|rest| {
        let authority = rest.split('/').next().unwrap_or_default();
        authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    })
}

fn read_tag(section: &Section<'_>, tags: &mut Tags<'_>, publish: Duration) -> Option<NodePlan> {
    let sampling = section
        .duration("sampling", Duration::from_millis(10)..=HOUR)
        .unwrap_or(publish);
    let period = section
        .duration("period", Duration::ZERO..=HOUR)
        .unwrap_or(sampling.max(publish));
    let alias = tags.read(section, period);
    let node = section
        .required_text("node")
        .and_then(|at| parse_node(section, &at));
    Some(NodePlan {
        alias: alias?,
        node: node?,
        sampling,
        period,
    })
}

fn parse_node(section: &Section<'_>, at: &At<String>) -> Option<NodeIdentifier> {
    let node = NodeIdentifier::parse(&at.value);
    if node.is_none() {
        section.fault_at(
            &at.span,
            format!("`{}` is no node identifier: write \"s=NAME\" or \"i=NUMBER\"; the namespace is `namespace_uri`", at.value),
        );
    }
    node
}
