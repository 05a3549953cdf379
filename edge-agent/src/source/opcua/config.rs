//! What does `[[opcua]]` say? One server and the nodes to watch.

use std::time::Duration;

use protocol::reading::Alias;

use super::security::{Identity, Security, read_identity, read_security};
use crate::config::{At, Names, Section, Tags};

/// One OPC UA server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Name, unique among sources.
    pub name: String,
    /// `opc.tcp://host:port/path`.
    pub url: String,
    /// The namespace of node identifiers that name none: indices change between restarts, URIs do not.
    pub namespace_uri: String,
    /// How messages are protected.
    pub security: Security,
    /// Who the agent says it is.
    pub identity: Identity,
    /// How long the server keeps a session, and its subscriptions, for a client that is away; 60 to 120 s.
    pub session_timeout: Duration,
    /// How often the server publishes.
    pub publish: Duration,
    /// Most monitored items, and nodes to read, in one request; the server's own limits come on top.
    pub items_per_request: usize,
    /// Whether the agent may write values.
    pub writes_enabled: bool,
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
    /// Its namespace where that is not the server's.
    pub namespace_uri: Option<String>,
    /// How often the server samples it.
    pub sampling: Duration,
    /// How often a reading is due; zero when it reports on change only.
    pub period: Duration,
    /// Samples that the server keeps for it between two publishes.
    pub queue_size: u32,
}

/// The identifier part of a node id: `s=L3.TT-310` or `i=42`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

impl Server {
    /// A server without security and without tags, to look into.
    pub fn plain(url: &str) -> Self {
        Self {
            name: url.to_owned(),
            url: url.to_owned(),
            namespace_uri: String::new(),
            security: Security::default(),
            identity: Identity::default(),
            session_timeout: SESSION_TIMEOUT,
            publish: Duration::from_secs(1),
            items_per_request: ITEMS_PER_REQUEST,
            writes_enabled: false,
            tags: Vec::new(),
        }
    }

    /// Whether the other configuration is of the same session: all but the tags is the same.
    pub fn has_same_session(&self, other: &Self) -> bool {
        self.name == other.name
            && self.url == other.url
            && self.namespace_uri == other.namespace_uri
            && self.security == other.security
            && self.identity == other.identity
            && self.session_timeout == other.session_timeout
            && self.publish == other.publish
            && self.items_per_request == other.items_per_request
    }
}

const HOUR: Duration = Duration::from_hours(1);
const SESSION_TIMEOUT: Duration = Duration::from_mins(1);
const ITEMS_PER_REQUEST: usize = 500;
/// Samples that a server may be asked to keep for one item.
const QUEUE_MAX: u32 = 10_000;

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
    let security = read_security(section);
    let identity = read_identity(section, security);
    let session_timeout = section.duration("session_timeout", SESSION_TIMEOUT..=2 * SESSION_TIMEOUT);
    let publish = section
        .duration("publish", Duration::from_millis(50)..=HOUR)
        .unwrap_or(Duration::from_secs(1));
    let queue_size = section.integer("queue_size", 1..=i64::from(QUEUE_MAX));
    let items_per_request = section.integer("items_per_request", 1..=10_000);
    let writes_enabled = section.flag("writes_enabled", false);
    let mut list = Vec::new();
    for tag in section.tables("tag") {
        list.extend(read_tag(&tag, tags, publish, queue_size));
        tag.finish();
    }
    if !section.has("tag") {
        section.fault("a server needs at least one `[[opcua.tag]]`");
    }
    Some(Server {
        name: name?.value,
        url: url?.value,
        namespace_uri: namespace_uri?.value,
        security,
        identity,
        session_timeout: session_timeout.unwrap_or(SESSION_TIMEOUT),
        publish,
        items_per_request: items_per_request.map_or(ITEMS_PER_REQUEST, |count| count as usize),
        writes_enabled,
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

fn read_tag(
    section: &Section<'_>,
    tags: &mut Tags<'_>,
    publish: Duration,
    queue_size: Option<i64>,
) -> Option<NodePlan> {
    let sampling = section
        .duration("sampling", Duration::from_millis(10)..=HOUR)
        .unwrap_or(publish);
    let period = section
        .duration("period", Duration::ZERO..=HOUR)
        .unwrap_or(sampling.max(publish));
    let asked = section
        .integer("queue_size", 1..=i64::from(QUEUE_MAX))
        .or(queue_size);
    let namespace_uri = section.text("namespace_uri").map(|at| at.value);
    let alias = tags.read(section, period);
    let node = section
        .required_text("node")
        .and_then(|at| parse_node(section, &at));
    Some(NodePlan {
        alias: alias?,
        node: node?,
        namespace_uri,
        sampling,
        period,
        queue_size: queue_for(publish, sampling).max(asked.unwrap_or(0) as u32),
    })
}

/// Samples that fall into two publishing intervals: one publish may be late without a loss.
pub fn queue_for(publish: Duration, sampling: Duration) -> u32 {
    let samples = publish.as_secs_f64() / sampling.as_secs_f64().max(0.001);
    (samples.ceil() as u32).saturating_mul(2).clamp(2, QUEUE_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_holds_what_two_publishing_intervals_sample() {
        let ms = Duration::from_millis;
        assert_eq!(queue_for(ms(1_000), ms(100)), 20);
        assert_eq!(queue_for(ms(1_000), ms(300)), 8);
        assert_eq!(queue_for(ms(100), ms(1_000)), 2);
        assert_eq!(queue_for(HOUR, ms(10)), QUEUE_MAX);
    }

    #[test]
    fn only_tags_may_differ_within_a_session() {
        let server = Server::plain("opc.tcp://h:1/");
        let mut other = server.clone();
        other.writes_enabled = true;
        assert!(server.has_same_session(&other));
        other.url = "opc.tcp://h:2/".to_owned();
        assert!(!server.has_same_session(&other));
    }
}
