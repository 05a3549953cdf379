//! How is one session held? Connects, subscribes and reports until the session ends; it never reconnects by itself:
//! after a server restart async-opcua 0.19 reconnects, recreates the items and never publishes again. A new session
//! from scratch does publish.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use opcua::{
    client::{Client, ClientBuilder, DataChangeCallback, IdentityToken, Session, SessionPollResult},
    types::{
        AttributeId, DataChangeFilter, DataChangeTrigger, DataValue, EndpointDescription, ExtensionObject,
        MessageSecurityMode, MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NodeId,
        ReadValueId, StatusCode, TimestampsToReturn, UserTokenPolicy,
    },
};
use tokio::sync::mpsc;

use super::config::{NodeIdentifier, Server};
use crate::source::error::SourceError;

/// Larger answers than the default of 1,000 values break async-opcua's transport.
const ARRAY_LENGTH_MAX: usize = 65_536;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// Most items in one CreateMonitoredItems; servers limit it.
const ITEMS_PER_REQUEST: usize = 500;

/// What a session reports.
pub enum Report {
    /// Connected and subscribed.
    Up(Arc<Session>, Arc<Vec<NodeId>>),
    /// A value of the node with this index.
    Value(usize, Box<DataValue>),
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Up(_, nodes) => write!(f, "Up({} nodes)", nodes.len()),
            Self::Value(index, value) => write!(f, "Value({index}, {value:?})"),
        }
    }
}

/// A client with its identity kept in `pki_dir`.
pub fn client(pki_dir: &Path, name: &str) -> Result<Client, SourceError> {
    ClientBuilder::new()
        .application_name("FoodFlow OS edge agent")
        .application_uri(format!("urn:foodflow:edge:{name}"))
        .product_uri("urn:foodflow:edge")
        .pki_dir(pki_dir)
        .create_sample_keypair(false)
        .trust_server_certs(false)
        .session_retry_limit(0)
        .session_timeout(60_000)
        .keep_alive_interval(Duration::from_secs(5))
        .max_failed_keep_alive_count(2)
        .request_timeout(REQUEST_WITHIN)
        .max_array_length(ARRAY_LENGTH_MAX)
        .client()
        .map_err(|faults| SourceError::Opcua {
            service: "client configuration",
            status: faults.join("; "),
        })
}

/// Holds one session until it ends; always returns why.
pub async fn hold(server: &Server, pki_dir: &Path, reports: &mpsc::Sender<Report>) -> SourceError {
    match try_hold(server, pki_dir, reports).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

enum Never {}

async fn try_hold(
    server: &Server,
    pki_dir: &Path,
    reports: &mpsc::Sender<Report>,
) -> Result<Never, SourceError> {
    let (session, event_loop) = open(&server.url, pki_dir)?;
    let mut events = Box::pin(event_loop.enter());
    connected(&server.url, &mut events).await?;
    let mut subscribing = Box::pin(subscribe(server, &session, reports));
    let nodes = loop {
        tokio::select! {
            done = &mut subscribing => break done?,
            event = events.next() => ended(event)?,
        }
    };
    drop(subscribing);
    session.trigger_publish_now();
    if reports
        .send(Report::Up(session.clone(), Arc::new(nodes)))
        .await
        .is_err()
    {
        return Err(failure("report", "the agent is shutting down"));
    }
    loop {
        ended(events.next().await)?;
    }
}

/// A session that has not begun to connect, and the stream that drives it.
pub fn open(
    url: &str,
    pki_dir: &Path,
) -> Result<
    (
        Arc<Session>,
        opcua::client::SessionEventLoop<impl opcua::client::transport::Connector + use<>>,
    ),
    SourceError,
> {
    let mut client = client(pki_dir, "agent")?;
    let endpoint: EndpointDescription = (
        url,
        "None",
        MessageSecurityMode::None,
        UserTokenPolicy::anonymous(),
    )
        .into();
    let (session, event_loop) = client
        .connect_to_endpoint_directly(endpoint, IdentityToken::Anonymous)
        .map_err(|error| failure("connect", &error.to_string()))?;
    session.disable_reconnects();
    Ok((session, event_loop))
}

/// Waits for the session to be established.
pub async fn connected(
    url: &str,
    events: &mut (impl Stream<Item = Result<SessionPollResult, StatusCode>> + Unpin),
) -> Result<(), SourceError> {
    let establish = async {
        loop {
            match events.next().await {
                Some(Ok(SessionPollResult::Reconnected(_))) => return Ok(()),
                Some(Ok(SessionPollResult::ReconnectFailed(status))) => {
                    return Err(failure("connect", &status.to_string()));
                }
                event => ended(event)?,
            }
        }
    };
    tokio::time::timeout(CONNECT_WITHIN, establish)
        .await
        .unwrap_or_else(|_| {
            Err(SourceError::Timeout {
                address: url.to_owned(),
                limit: CONNECT_WITHIN,
            })
        })
}

/// Whether the event says that the session is over.
#[expect(
    clippy::needless_pass_by_value,
    reason = "takes what the stream's `next` gives"
)]
pub fn ended(event: Option<Result<SessionPollResult, StatusCode>>) -> Result<(), SourceError> {
    match event {
        None => Err(failure("session", "ended")),
        Some(Err(status) | Ok(SessionPollResult::ConnectionLost(status))) => {
            Err(failure("session", &status.to_string()))
        }
        Some(Ok(SessionPollResult::FinishedDisconnect)) => Err(failure("session", "closed")),
        Some(Ok(_)) => Ok(()),
    }
}

fn failure(service: &'static str, status: &str) -> SourceError {
    SourceError::Opcua {
        service,
        status: status.to_owned(),
    }
}

/// The node id of an identifier in a namespace.
pub fn node_id(namespace: u16, node: &NodeIdentifier) -> NodeId {
    match node {
        NodeIdentifier::Text(name) => NodeId::new(namespace, name.as_str()),
        NodeIdentifier::Number(number) => NodeId::new(namespace, *number),
    }
}

async fn subscribe(
    server: &Server,
    session: &Arc<Session>,
    reports: &mpsc::Sender<Report>,
) -> Result<Vec<NodeId>, SourceError> {
    let namespace = session
        .get_namespace_index(&server.namespace_uri)
        .await
        .map_err(|error| failure("reading the namespace array", &error.to_string()))?;
    let nodes: Vec<NodeId> = server
        .tags
        .iter()
        .map(|tag| node_id(namespace, &tag.node))
        .collect();
    let callback = value_callback(&nodes, reports.clone());
    let subscription = session
        .create_subscription(server.publish, 60, 10, 0, 0, true, callback)
        .await
        .map_err(|error| failure("CreateSubscription", &error.to_string()))?;
    let items: Vec<MonitoredItemCreateRequest> = server
        .tags
        .iter()
        .zip(&nodes)
        .map(|(tag, node)| item(node, tag.sampling, server.publish))
        .collect();
    for chunk in items.chunks(ITEMS_PER_REQUEST) {
        // A node that the server refuses is found silent by the watchdog, which then reads it and gets the reason.
        session
            .create_monitored_items(subscription, TimestampsToReturn::Both, chunk.to_vec())
            .await
            .map_err(|error| failure("CreateMonitoredItems", &error.to_string()))?;
    }
    Ok(nodes)
}

fn value_callback(nodes: &[NodeId], reports: mpsc::Sender<Report>) -> DataChangeCallback {
    let index: HashMap<NodeId, usize> = nodes.iter().cloned().zip(0..).collect();
    DataChangeCallback::new(move |value, item| {
        if let Some(index) = index.get(&item.item_to_monitor().node_id)
            && reports.try_send(Report::Value(*index, Box::new(value))).is_err()
        {
            // The node counts as silent then, and the watchdog records that.
            tracing::warn!(node = %item.item_to_monitor().node_id, "value dropped: the agent cannot keep up");
        }
    })
}

fn item(node: &NodeId, sampling: Duration, publish: Duration) -> MonitoredItemCreateRequest {
    // Part 4 §7.22.2: a new timestamp alone is reported too, else an unchanged value looks like a dead one.
    let filter = DataChangeFilter {
        trigger: DataChangeTrigger::StatusValueTimestamp,
        deadband_type: 0,
        deadband_value: 0.0,
    };
    let samples_per_publish = publish.as_secs_f64() / sampling.as_secs_f64().max(0.001);
    MonitoredItemCreateRequest {
        item_to_monitor: value_of(node),
        monitoring_mode: MonitoringMode::Reporting,
        requested_parameters: MonitoringParameters {
            client_handle: 0,
            sampling_interval: sampling.as_secs_f64() * 1000.0,
            filter: ExtensionObject::from_message(filter),
            queue_size: (samples_per_publish.ceil() as u32 * 2).max(2),
            discard_oldest: true,
        },
    }
}

fn value_of(node: &NodeId) -> ReadValueId {
    ReadValueId {
        node_id: node.clone(),
        attribute_id: AttributeId::Value as u32,
        ..ReadValueId::default()
    }
}

/// Reads the values of nodes now.
pub async fn read(session: &Session, nodes: &[NodeId]) -> Result<Vec<DataValue>, SourceError> {
    let requests: Vec<ReadValueId> = nodes.iter().map(value_of).collect();
    let values = tokio::time::timeout(
        REQUEST_WITHIN,
        session.read(&requests, TimestampsToReturn::Both, 0.0),
    )
    .await
    .map_err(|_| failure("Read", "no reply in time"))?
    .map_err(|error| failure("Read", &error.to_string()))?;
    if values.len() == nodes.len() {
        Ok(values)
    } else {
        Err(SourceError::Length {
            need: nodes.len(),
            have: values.len(),
        })
    }
}
