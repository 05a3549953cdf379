//! How is a session opened, and what is asked of it? Connects with limits on everything that comes in, reads and
//! waits; what a session is used for is elsewhere.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use opcua::{
    client::{
        Client, ClientBuilder, ConnectionSource, Session, SessionEventLoop, SessionPollResult,
        transport::{Connector, SecureChannelState, TcpConnector, TcpTransport, TransportConfiguration},
    },
    types::{DataValue, EndpointDescription, Error, NodeId, ReadValueId, StatusCode, TimestampsToReturn},
};

use super::{
    config::{NodeIdentifier, Server},
    endpoint::{self, Approach, Ended},
    pki::Pki,
};
use crate::source::error::SourceError;

/// Larger answers than the default of 1,000 values break async-opcua's transport.
const ARRAY_LENGTH_MAX: usize = 65_536;
/// Largest message from a server: 10,000 values with strings fit.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
const CHUNKS_MAX: usize = 1_024;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// One attempt to reach the server: a cable that is pulled must not hold an attempt for minutes.
const REACH_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How often the session itself is checked.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A secure channel is renewed after three quarters of this; a clock that is ten minutes off does not matter then.
const CHANNEL_LIFETIME_MS: u32 = 3_600_000;

/// How a client treats time and failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// After a loss, reach for the server again and again, to take up the old session.
    pub reconnects: bool,
    /// The server's clock is far off: the library corrects for it, and shifts every time by
    /// [`shifted_us`].
    pub is_skewed: bool,
}

/// A client that keeps the agent's identity.
pub fn client(pki: &Pki, server: &Server, manner: Manner) -> Result<Client, SourceError> {
    let mut builder = ClientBuilder::new()
        .application_name("FoodFlow OS edge agent")
        .application_uri(pki.application_uri())
        .product_uri("urn:foodflow:edge")
        .pki_dir(pki.session_store())
        .create_sample_keypair(false)
        // The certificate is judged before the session is opened, by the pin of this very server.
        .trust_server_certs(true)
        .verify_server_certs(false)
        .recreate_subscriptions(false)
        .session_retry_limit(if manner.reconnects { -1 } else { 0 })
        .session_retry_initial(Duration::from_millis(500))
        .session_retry_max(Duration::from_secs(5))
        .session_timeout(u32::try_from(server.session_timeout.as_millis()).unwrap_or(60_000))
        .channel_lifetime(CHANNEL_LIFETIME_MS)
        .ignore_clock_skew(manner.is_skewed)
        .keep_alive_interval(KEEP_ALIVE)
        .max_failed_keep_alive_count(2)
        .request_timeout(REQUEST_WITHIN)
        .min_publish_interval(Duration::from_millis(50))
        .max_array_length(ARRAY_LENGTH_MAX)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_chunk_count(CHUNKS_MAX);
    if server.security.is_on() {
        builder = builder
            .certificate_path(pki.own_certificate())
            .private_key_path(pki.own_key());
    }
    builder
        .client()
        .map_err(|faults| failure("client configuration", &faults.join("; ")))
}

/// A session that has not begun to connect, and the stream that drives it.
pub fn open(
    client: &Client,
    approach: Approach,
) -> Result<(Arc<Session>, SessionEventLoop<impl Connector + use<>>), SourceError> {
    client
        .session_builder()
        .with_connector(InTime)
        .connect_to_endpoint_directly(approach.endpoint)
        .and_then(|builder| {
            builder
                .user_identity_token(approach.identity)
                .build(client.certificate_store().clone())
        })
        .map_err(|error| failure("connect", &error.to_string()))
}

/// Connects within a limit.
struct InTime;

/// A connector with a limit.
struct InTimeConnector(TcpConnector);

impl ConnectionSource for InTime {
    type Builder = InTimeConnector;

    fn get_connector(&self, endpoint: &EndpointDescription) -> Result<InTimeConnector, Error> {
        TcpConnector::new(endpoint.endpoint_url.as_ref()).map(InTimeConnector)
    }
}

impl Connector for InTimeConnector {
    type Transport = TcpTransport;

    async fn connect(
        &self,
        channel: Arc<SecureChannelState>,
        outgoing: opcua::client::transport::RequestRecv,
        config: TransportConfiguration,
    ) -> Result<TcpTransport, Error> {
        let reached = tokio::time::timeout(REACH_WITHIN, self.0.connect(channel, outgoing, config)).await;
        reached.unwrap_or_else(|_| {
            Err(Error::new(
                StatusCode::BadTimeout,
                format!("no answer within {REACH_WITHIN:?}"),
            ))
        })
    }

    fn default_endpoint(&self) -> EndpointDescription {
        self.0.default_endpoint()
    }
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

/// The error of a service.
pub fn failure(service: &'static str, status: &str) -> SourceError {
    SourceError::Opcua {
        service,
        status: status.to_owned(),
    }
}

/// Does something with a session of its own and closes it.
///
/// # Errors
/// When the server cannot be reached, its certificate is not trusted, or the work fails.
pub async fn with_session<T, F>(
    server: &Server,
    pki_dir: &Path,
    work: impl FnOnce(Arc<Session>) -> F,
) -> Result<T, SourceError>
where
    F: Future<Output = Result<T, SourceError>>,
{
    let pki = Pki::open(pki_dir).map_err(|error| failure("certificate store", &endpoint::causes(&error)))?;
    let approach = endpoint::approach(server, &pki)
        .await
        .map_err(|ended| match ended {
            Ended::Lost(error) => error,
            Ended::Refused(refusal) => failure("certificate check", &refusal.message(&server.name)),
        })?;
    let client = client(&pki, server, Manner::default())?;
    let (session, event_loop) = open(&client, approach)?;
    session.disable_reconnects();
    let mut events = Box::pin(event_loop.enter());
    connected(&server.url, &mut events).await?;
    let mut working = Box::pin(work(session.clone()));
    let result = loop {
        tokio::select! {
            result = &mut working => break result,
            event = events.next() => ended(event)?,
        }
    };
    let mut leaving = Box::pin(session.disconnect());
    let leave = async {
        loop {
            tokio::select! {
                _ = &mut leaving => break,
                event = events.next() => if event.is_none() { break },
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(2), leave).await.is_err() {
        tracing::debug!("the session was not closed in time");
    }
    result
}

/// The server's namespaces by URI; read anew, since indices change when a server restarts.
pub async fn namespaces(session: &Session) -> Result<Namespaces, SourceError> {
    let map = in_time("reading the namespace array", session.read_namespace_array()).await?;
    Ok(Namespaces(
        map.known_namespaces()
            .iter()
            .map(|(uri, index)| (uri.clone(), *index))
            .collect(),
    ))
}

/// Namespace indices by URI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(HashMap<String, u16>);

impl Namespaces {
    /// The node id of an identifier; none when the server does not know the namespace.
    pub fn node_id(&self, uri: &str, node: &NodeIdentifier) -> Option<NodeId> {
        let index = *self.0.get(uri)?;
        Some(match node {
            NodeIdentifier::Text(name) => NodeId::new(index, name.as_str()),
            NodeIdentifier::Number(number) => NodeId::new(index, *number),
        })
    }

    /// The URI of an index.
    pub fn uri(&self, index: u16) -> Option<&str> {
        let known = self.0.iter().find(|(_, known)| **known == index);
        known.map(|(uri, _)| uri.as_str())
    }
}

/// An answer of a service within the limit.
pub async fn in_time<T>(
    service: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, SourceError> {
    match tokio::time::timeout(REQUEST_WITHIN + Duration::from_secs(1), call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failure(service, &error.status().to_string())),
        Err(_) => Err(failure(service, "no reply in time")),
    }
}

/// Reads the values of nodes now, in one request.
pub async fn read_chunk(session: &Session, nodes: &[NodeId]) -> Result<Vec<DataValue>, SourceError> {
    let requests: Vec<ReadValueId> = nodes.iter().map(ReadValueId::from).collect();
    let values = in_time("Read", session.read(&requests, TimestampsToReturn::Both, 0.0)).await?;
    if values.len() == nodes.len() {
        Ok(values)
    } else {
        Err(SourceError::Length {
            need: nodes.len(),
            have: values.len(),
        })
    }
}

/// By how much the library moved every time it decoded, microseconds; 0 unless the server's clock is far off.
pub fn shifted_us(session: &Session) -> i64 {
    let context = session.encoding_context().read();
    context.options().client_offset.num_microseconds().unwrap_or(0)
}
