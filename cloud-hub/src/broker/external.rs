//! How does the hub take part in a plant's own broker (Mosquitto, EMQX, HiveMQ)? As an MQTT 5 client whose
//! subscriptions are shared with the other hubs: each message goes to one of them, and frame identity, settled in the
//! database, makes up for what the broker delivers twice or loses. A message is acknowledged after its commit and in
//! order; edges are told by the application's acknowledgement, published on the same broker.
//!
//! Who may publish as which edge is that broker's affair: the tenant and the edge are taken from the topic.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use protocol::topic::{ROOT, Topic};
use rand::Rng as _;
use rumqttc::{
    Outgoing, Transport,
    v5::{
        AsyncClient, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{Packet, Publish, SubscribeReasonCode},
        },
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{BrokerError, Device, Downlink, Settled, Uplink, UplinkSender};
use crate::kernel::secret::Secret;

/// Uplink messages that the broker sends before the first of them is acknowledged.
pub(super) const RECEIVE_MAX: u16 = 256;
const PACKET_BYTES_MAX: u32 = (1 << 20) + 1_024;
const REQUESTS_MAX: usize = 1_024;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const CONNECT_WITHIN_S: u64 = 10;
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Edges tell their health every ten seconds, each time to one of the hubs.
const SILENCE_MAX: Duration = Duration::from_secs(90);
const EDGES_MAX: usize = 100_000;

/// Where the broker is and who we are there.
#[derive(Clone)]
pub struct ExternalConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether to speak TLS.
    pub is_tls: bool,
    /// What signed the broker's certificate, PEM.
    pub ca_file: Option<PathBuf>,
    /// User name and password, where it asks for them.
    pub login: Option<(String, Secret)>,
    /// Name of the group that the hubs share their subscriptions in.
    pub share_group: String,
    /// Client id; another one for each hub.
    pub client_id: String,
}

impl fmt::Debug for ExternalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ExternalConfig({}:{}, {})",
            self.host, self.port, self.client_id
        )
    }
}

impl ExternalConfig {
    /// How one client of this broker connects; it acknowledges by hand.
    pub(super) fn options(&self, client_id: &str) -> io::Result<MqttOptions> {
        let mut options = MqttOptions::new(client_id, &self.host, self.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_connection_timeout(CONNECT_WITHIN_S)
            .set_receive_maximum(Some(RECEIVE_MAX))
            .set_max_packet_size(Some(PACKET_BYTES_MAX))
            .set_manual_acks(true);
        if let Some((user, password)) = &self.login {
            options.set_credentials(user, password.expose());
        }
        if self.is_tls {
            // Fails when somebody installed one before, which is as good.
            drop(rustls::crypto::ring::default_provider().install_default());
            let ca = self.ca_file.as_ref().map(fs::read).transpose()?;
            options.set_transport(Transport::tls(ca.unwrap_or_default(), None, None));
        }
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_WITHIN_S);
        options.set_network_options(network);
        Ok(options)
    }
}

/// The hub's end of a plant's own broker. Cloning it gives another handle on the same.
#[derive(Clone)]
pub struct External(Arc<Inner>);

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options hold the password.
        write!(f, "External({:?})", self.0.options.broker_address())
    }
}

struct Inner {
    options: MqttOptions,
    filters: Vec<String>,
    link: Mutex<Link>,
}

#[derive(Debug, Default)]
struct Link {
    client: Option<AsyncClient>,
    /// When each edge was last heard of.
    heard: HashMap<Device, Instant>,
}

impl External {
    /// Prepares the client; [`External::run`] connects it.
    ///
    /// # Errors
    /// When the certificate file cannot be read.
    pub fn new(config: &ExternalConfig) -> io::Result<Self> {
        let mut options = config.options(&config.client_id)?;
        // No session outlives its connection: a broker would go on dealing messages to a hub that is gone.
        options.set_clean_start(true).set_session_expiry_interval(Some(0));
        let filter = |channel: &str| format!("$share/{}/{ROOT}/+/+/{channel}", config.share_group);
        Ok(Self(Arc::new(Inner {
            options,
            filters: ["up/+", "dict", "status"].map(filter).to_vec(),
            link: Mutex::default(),
        })))
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Edges that this hub heard of there lately.
    pub fn heard(&self) -> Vec<Device> {
        let link = self.link();
        let lately = link.heard.iter().filter(|(_, at)| at.elapsed() < SILENCE_MAX);
        lately.map(|(device, _)| device.clone()).collect()
    }

    /// Publishes to whoever subscribed to `topic`; never waits.
    ///
    /// # Errors
    /// [`BrokerError::RouterGone`] while the broker is away, [`BrokerError::RouterBusy`] when it takes nothing now.
    pub fn publish(&self, topic: &str, payload: Bytes) -> Result<(), BrokerError> {
        let client = self.link().client.clone().ok_or(BrokerError::RouterGone)?;
        client
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .map_err(|_| BrokerError::RouterBusy)
    }

    /// Keeps the connection and hands messages to ingest until `stop`.
    pub async fn run(self, uplinks: UplinkSender, stop: CancellationToken) {
        let mut pause = PAUSE_MIN;
        while !stop.is_cancelled() {
            let since = Instant::now();
            let reason = self.hold(&uplinks, &stop).await;
            self.link().client = None;
            metrics::gauge!("foodflow_external_broker_connected").set(0);
            if stop.is_cancelled() {
                return;
            }
            if since.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            tracing::warn!(
                reason,
                pause_ms = pause.as_millis() as u64,
                "the external broker is away"
            );
            // Hubs that lost the same broker do not all return at the same moment.
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause.mul_f64(jitter)) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }

    /// One connection, from CONNECT to its end. Each has a client of its own: an acknowledgement of the last one
    /// would name another message in this one.
    async fn hold(&self, uplinks: &UplinkSender, stop: &CancellationToken) -> String {
        let (client, mut events) = AsyncClient::new(self.0.options.clone(), REQUESTS_MAX);
        let (taken, waiting) = mpsc::channel(usize::from(RECEIVE_MAX) + 1);
        let acknowledging = tokio::spawn(acknowledge(client.clone(), waiting));
        let _acknowledging = AbortOnDropHandle::new(acknowledging);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return say_goodbye(&client, &mut events).await,
                event = events.poll() => event,
            };
            let packet = match event {
                Ok(Event::Incoming(packet)) => packet,
                Ok(Event::Outgoing(_)) => continue,
                Err(error) => return error.to_string(),
            };
            let handled = match packet {
                Packet::ConnAck(_) => self.subscribe(&client),
                Packet::SubAck(ack) => self.subscribed(&client, &ack.return_codes),
                Packet::Publish(publish) => self.take(publish, uplinks, &taken),
                Packet::Disconnect(bye) => Err(format!("it said goodbye: {:?}", bye.reason_code)),
                _ => Ok(()),
            };
            if let Err(reason) = handled {
                return reason;
            }
        }
    }

    fn subscribe(&self, client: &AsyncClient) -> Result<(), String> {
        for filter in &self.0.filters {
            let asked = client.try_subscribe(filter, QoS::AtLeastOnce);
            asked.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn subscribed(&self, client: &AsyncClient, codes: &[SubscribeReasonCode]) -> Result<(), String> {
        let is_granted =
            |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(QoS::AtLeastOnce));
        if let Some(refused) = codes.iter().find(|code| !is_granted(code)) {
            return Err(format!(
                "a shared subscription was refused ({refused:?}); the hub's user must be allowed {:?}",
                self.0.filters
            ));
        }
        self.link().client = Some(client.clone());
        metrics::gauge!("foodflow_external_broker_connected").set(1);
        Ok(())
    }

    /// Hands one message to ingest. What no edge can have sent is acknowledged and forgotten: it was not meant for us.
    fn take(
        &self,
        publish: Publish,
        uplinks: &UplinkSender,
        taken: &mpsc::Sender<Waiting>,
    ) -> Result<(), String> {
        let (settled, outcome) = oneshot::channel();
        if let Some(device) = sender(&publish.topic) {
            self.hear(&device);
            let uplink = Uplink {
                device,
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.clone(),
                settled,
            };
            // How many can be in the hub is bounded by what the broker sends unacknowledged.
            uplinks
                .offer(uplink)
                .map_err(|closed| closed.to_string())
                .map(drop)?;
        } else {
            metrics::counter!("foodflow_external_broker_strange_total").increment(1);
            drop(settled);
        }
        if publish.qos == QoS::AtMostOnce {
            return Ok(());
        }
        let sent = taken.try_send(Waiting { publish, outcome });
        sent.map_err(|_| "it sends more than it was allowed to".to_owned())
    }

    fn hear(&self, device: &Device) {
        let mut link = self.link();
        if link.heard.len() >= EDGES_MAX {
            link.heard.retain(|_, at| at.elapsed() < SILENCE_MAX);
        }
        if link.heard.len() < EDGES_MAX || link.heard.contains_key(device) {
            link.heard.insert(device.clone(), Instant::now());
        }
    }
}

/// Every way from the hub to its devices: its own front end, and the external broker where there is one.
#[derive(Clone, Debug)]
pub struct Downlinks {
    /// Devices connected to this hub.
    pub near: Downlink,
    /// Devices connected to the external broker.
    pub far: Option<External>,
}

impl Downlinks {
    /// Publishes on every way: a device listens on one of them.
    ///
    /// # Errors
    /// [`BrokerError`] of the way that failed.
    pub async fn publish(&self, topic: &str, payload: Bytes) -> Result<(), BrokerError> {
        let far = self
            .far
            .as_ref()
            .map_or(Ok(()), |far| far.publish(topic, payload.clone()));
        self.near.publish(topic, payload, false).await.and(far)
    }
}

/// A message with ingest.
#[derive(Debug)]
struct Waiting {
    publish: Publish,
    outcome: oneshot::Receiver<Settled>,
}

/// The edge that a topic belongs to, where edges publish.
fn sender(topic: &[u8]) -> Option<Device> {
    let topic = Topic::parse(std::str::from_utf8(topic).ok()?)?;
    topic.channel.is_uplink().then_some(Device {
        tenant: topic.tenant,
        name: topic.edge,
    })
}

/// Acknowledges in the order of arrival, each message when it is settled. One that is given back (its tenant cannot be
/// served now) is acknowledged too, for a window of messages that nobody may store would hold up every tenant: its edge
/// gets no acknowledgement of ours and sends it again.
async fn acknowledge(client: AsyncClient, mut waiting: mpsc::Receiver<Waiting>) {
    while let Some(Waiting { publish, outcome }) = waiting.recv().await {
        if !matches!(outcome.await, Ok(Settled::Stored | Settled::Rejected { .. })) {
            metrics::counter!("foodflow_external_broker_given_back_total").increment(1);
        }
        if client.ack(&publish).await.is_err() {
            return;
        }
    }
}

pub(super) async fn say_goodbye(client: &AsyncClient, events: &mut EventLoop) -> String {
    const WITHIN: Duration = Duration::from_millis(500);
    if client.try_disconnect().is_ok() {
        let left = async {
            while let Ok(event) = events.poll().await {
                if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                    return;
                }
            }
        };
        if tokio::time::timeout(WITHIN, left).await.is_err() {
            tracing::debug!("the external broker did not hear the goodbye");
        }
    }
    "the hub stops".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uplink_topic_names_its_sender_and_no_other_topic_does() {
        let device = sender(b"ff/v1/akron/e1/up/live").unwrap();
        assert_eq!((device.tenant.as_str(), device.name.as_str()), ("akron", "e1"));
        for other in [
            "ff/v1/akron/e1/ack",
            "ff/v1/akron/e1/cmd",
            "ff/v1/akron/up/live",
            "ff/v1/AKRON/e1/dict",
            "ff/v2/a/e/dict",
            "",
        ] {
            assert!(sender(other.as_bytes()).is_none(), "{other}");
        }
        assert!(sender(&[0xff, 0xfe]).is_none());
    }

    #[test]
    fn a_password_does_not_show() {
        let config = ExternalConfig {
            host: "broker".to_owned(),
            port: 1883,
            is_tls: false,
            ca_file: None,
            login: Some(("hub".to_owned(), Secret::new("hunter2".to_owned()))),
            share_group: "hubs".to_owned(),
            client_id: "hub-1".to_owned(),
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
