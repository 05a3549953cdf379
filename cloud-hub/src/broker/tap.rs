//! How do integrators' messages on a plant's own broker get in? Through a tap: for one tenant, the filters it reads
//! there and the client's name under which their values are known. One hub at a time holds it, under one session that
//! the broker keeps, so that nothing sent at QoS 1 is lost while hubs change or are away, messages come in their order,
//! and one Sparkplug host hears every node. A message is acknowledged after its commit.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use protocol::sparkplug::{NAMESPACE, Outgoing, host::HostSelf};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Filter, LastWill, Packet, Publish, RetainForwardRule, SubscribeReasonCode},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    BrokerError, Device, ExternalConfig, Open, OpenMessage, Settled,
    external::{RECEIVE_MAX, say_goodbye},
};
use crate::kernel::{clock::Clock, lead::Lead};

/// The broker keeps what comes at QoS 1 for as long as every hub may be away.
const SESSION_S: u32 = 7 * 24 * 3_600;
const REQUESTS_MAX: usize = 256;
/// How long until the database is asked again who holds the tap, when it did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// What one tap reads.
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// Whose values they are, and the name of the client that they count as.
    pub device: Device,
    /// What stands before every topic there, `akron/`; may be empty.
    pub root: String,
    /// Filters below the root.
    pub topics: Vec<String>,
    /// The Sparkplug host that the hub is there.
    pub sparkplug_host: String,
}

/// The hub's end of a tap. Cloning it gives another handle on the same.
#[derive(Clone)]
pub struct Tap(Arc<Inner>);

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tap({:?}, {:?})", self.0.config.device, self.0.config.topics)
    }
}

struct Inner {
    config: TapConfig,
    options: MqttOptions,
    clock: Clock,
    client: Mutex<Option<AsyncClient>>,
}

/// What one connection of a tap works with.
struct Held<'a> {
    client: AsyncClient,
    messages: &'a mpsc::Sender<Open>,
    taken: mpsc::Sender<Waiting>,
    /// What the hub says of itself as a Sparkplug host, where the filters have Sparkplug's topics.
    state: Option<HostSelf>,
}

impl Tap {
    /// Prepares a tap; [`Tap::run`] opens it.
    ///
    /// # Errors
    /// When a certificate file cannot be read.
    pub fn new(broker: &ExternalConfig, config: TapConfig, clock: Clock) -> io::Result<Self> {
        let Device { tenant, name } = &config.device;
        // The same for every hub: whichever holds the tap goes on with the session.
        let client_id = format!("foodflow-tap-{}-{tenant}-{name}", broker.share_group);
        let mut options = broker.options(&client_id)?;
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(SESSION_S));
        Ok(Self(Arc::new(Inner {
            config,
            options,
            clock,
            client: Mutex::default(),
        })))
    }

    /// Whom its values are known under.
    pub fn device(&self) -> &Device {
        &self.0.config.device
    }

    /// Gives the one before.
    fn set_client(&self, client: Option<AsyncClient>) -> Option<AsyncClient> {
        let mut held = self.0.client.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, client)
    }

    /// Publishes there, below the tap's root, at QoS 1; never waits.
    ///
    /// # Errors
    /// [`BrokerError::RouterGone`] while this hub does not hold the tap, [`BrokerError::RouterBusy`] when the broker
    /// takes nothing now.
    pub fn publish(&self, topic: &str, payload: Bytes, retain: bool) -> Result<(), BrokerError> {
        self.publish_as(topic, payload, QoS::AtLeastOnce, retain)
    }

    /// The same at QoS 0 and not retained: what Sparkplug wants of commands.
    ///
    /// # Errors
    /// As [`Tap::publish`].
    pub fn publish_at_most_once(&self, topic: &str, payload: Bytes) -> Result<(), BrokerError> {
        self.publish_as(topic, payload, QoS::AtMostOnce, false)
    }

    fn publish_as(&self, topic: &str, payload: Bytes, qos: QoS, retain: bool) -> Result<(), BrokerError> {
        let client = self.0.client.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client.as_ref().ok_or(BrokerError::RouterGone)?;
        let topic = format!("{}{topic}", self.0.config.root);
        client
            .try_publish(topic, qos, retain, payload)
            .map_err(|_| BrokerError::RouterBusy)
    }

    /// Holds the tap whenever no other hub does, until `stop`.
    pub async fn run(
        self,
        database: tokio_postgres::Config,
        messages: mpsc::Sender<Open>,
        stop: CancellationToken,
    ) {
        let Device { tenant, name } = self.device();
        let lock = format!("tap {tenant}/{name}");
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = Lead::take(&database, &lock) => taken,
            };
            match taken {
                Ok(lead) => self.read(&lead, &messages, &stop).await,
                Err(error) => tracing::debug!(%error, "who reads the plant's broker cannot be settled now"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(ASK_AGAIN) => {}
            }
        }
    }

    /// Reads for as long as the lead is this hub's.
    async fn read(&self, lead: &Lead, messages: &mpsc::Sender<Open>, stop: &CancellationToken) {
        let Device { tenant, name } = self.device();
        tracing::info!(tenant, client = name, "this hub reads the plant's broker");
        // What nodes said while another hub read there is not known here, so what they said before says nothing now.
        // The intake may have ended.
        drop(messages.send(Open::Anew(self.device().clone())).await);
        tokio::select! {
            () = lead.lost() => tracing::warn!(tenant, client = name, "another hub may read the plant's broker"),
            () = self.keep(messages, stop) => {}
        }
        drop(self.set_client(None));
    }

    /// One connection after another, until `stop`.
    async fn keep(&self, messages: &mpsc::Sender<Open>, stop: &CancellationToken) {
        let mut pause = PAUSE_MIN;
        while !stop.is_cancelled() {
            let since = Instant::now();
            let reason = self.hold(messages, stop).await;
            if self.set_client(None).is_some() {
                // What was said over the connection is not known to hold any more. The intake may have ended.
                drop(messages.send(Open::Gone(self.device().clone())).await);
            }
            if stop.is_cancelled() {
                return;
            }
            if since.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            tracing::warn!(tap = ?self, reason, "the plant's broker is away");
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }

    fn is_sparkplug(&self) -> bool {
        let is_its = |filter: &String| filter == "#" || filter.starts_with(NAMESPACE);
        self.0.config.topics.iter().any(is_its)
    }

    fn rooted(&self, topic: &str) -> String {
        format!("{}{topic}", self.0.config.root)
    }

    /// One connection; why it ended.
    async fn hold(&self, messages: &mpsc::Sender<Open>, stop: &CancellationToken) -> String {
        let host = Some(&self.0.config.sparkplug_host).filter(|_| self.is_sparkplug());
        let state = host.and_then(|host| HostSelf::new(host, self.0.clock.now_us()));
        let mut options = self.0.options.clone();
        if let Some(will) = state.as_ref().map(HostSelf::will) {
            let topic = self.rooted(&will.topic);
            options.set_last_will(LastWill::new(topic, will.payload, QoS::AtLeastOnce, true, None));
        }
        let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
        let (taken, waiting) = mpsc::channel(usize::from(RECEIVE_MAX) + 1);
        let mut acknowledging = AbortOnDropHandle::new(tokio::spawn(acknowledge(client.clone(), waiting)));
        let mut held = Held {
            client,
            messages,
            taken,
            state,
        };
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return self.leave(&held, &mut events).await,
                // A message that cannot be stored now comes again over the next connection.
                _ = &mut acknowledging => return "a message was given back".to_owned(),
                event = events.poll() => event,
            };
            let handled = match event {
                Ok(Event::Incoming(packet)) => self.handle(packet, &mut held, stop).await,
                Ok(Event::Outgoing(_)) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = handled {
                return reason;
            }
        }
    }

    async fn handle(
        &self,
        packet: Packet,
        held: &mut Held<'_>,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        match packet {
            Packet::ConnAck(_) => self.arrive(held),
            Packet::SubAck(ack) => self.subscribed(held, &ack.return_codes),
            Packet::Publish(publish) => self.take(publish, held, stop).await,
            Packet::Disconnect(bye) => Err(format!("it said goodbye: {:?}", bye.reason_code)),
            _ => Ok(()),
        }
    }

    /// First the state of the host, then everything else.
    fn arrive(&self, held: &Held<'_>) -> Result<(), String> {
        let filter = |path: String| Filter {
            path,
            qos: QoS::AtLeastOnce,
            // Not what the hub says itself: errors, echoes.
            nolocal: true,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
        };
        let topics = self.0.config.topics.iter();
        let filters: Vec<Filter> = topics.map(|topic| filter(self.rooted(topic))).collect();
        let asked = held.client.try_subscribe_many(filters);
        asked.map_err(|error| error.to_string())?;
        let Some(state) = &held.state else {
            return Ok(());
        };
        let own = Filter {
            // Its own last word comes each time: a will of the connection before, which is its own, may be what is kept.
            nolocal: false,
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
            ..filter(self.rooted(state.topic()))
        };
        let asked = held.client.try_subscribe_many([own]);
        asked.map_err(|error| error.to_string())?;
        self.say(&held.client, state.birth())
    }

    fn say(&self, client: &AsyncClient, word: Outgoing) -> Result<(), String> {
        let topic = self.rooted(&word.topic);
        let sent = client.try_publish(topic, QoS::AtLeastOnce, true, word.payload);
        sent.map_err(|error| error.to_string())
    }

    fn subscribed(&self, held: &Held<'_>, codes: &[SubscribeReasonCode]) -> Result<(), String> {
        let is_granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
        if let Some(refused) = codes.iter().find(|code| !is_granted(code)) {
            return Err(format!(
                "a subscription was refused ({refused:?}); the hub's user must be allowed {:?} below `{}`",
                self.0.config.topics, self.0.config.root
            ));
        }
        drop(self.set_client(Some(held.client.clone())));
        Ok(())
    }

    /// Hands a message to the intake. While that takes none, the broker is not read.
    async fn take(
        &self,
        publish: Publish,
        held: &mut Held<'_>,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let below = topic.strip_prefix(&self.0.config.root).unwrap_or(&topic);
        let (settled, outcome) = oneshot::channel();
        if let Some(state) = held.state.as_ref().filter(|state| state.topic() == below) {
            let again = state.heard(below, &publish.payload);
            drop(settled.send(Settled::Stored));
            again.map_or(Ok(()), |birth| self.say(&held.client, birth))?;
        } else if is_ours(below) {
            drop(settled.send(Settled::Stored));
        } else {
            let message = Open::Message(OpenMessage {
                device: self.device().clone(),
                topic: below.to_owned(),
                payload: publish.payload.clone(),
                is_retained: publish.retain,
                settled,
            });
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                sent = held.messages.send(message) => sent.map_err(|_| "the intake has ended".to_owned())?,
            }
        }
        if publish.qos == QoS::AtMostOnce {
            return Ok(());
        }
        let waiting = Waiting { publish, outcome };
        let noted = held.taken.try_send(waiting);
        noted.map_err(|_| "it sends more than it was allowed to".to_owned())
    }

    /// Says that the host leaves, and closes.
    async fn leave(&self, held: &Held<'_>, events: &mut EventLoop) -> String {
        if let Some(state) = &held.state {
            // What cannot be said now the broker says by the will.
            drop(self.say(&held.client, state.death(self.0.clock.now_us())));
        }
        say_goodbye(&held.client, events).await
    }
}

/// Frames, which have their own way in, and what hubs say.
fn is_ours(topic: &str) -> bool {
    topic.starts_with("ff/") || topic.starts_with("v1/err/") || topic.starts_with("v1/echo/")
}

/// A message with the intake.
struct Waiting {
    publish: Publish,
    outcome: oneshot::Receiver<Settled>,
}

/// Acknowledges in the order of arrival, each message when it is settled; ends at the first that is given back.
async fn acknowledge(client: AsyncClient, mut waiting: mpsc::Receiver<Waiting>) {
    while let Some(Waiting { publish, outcome }) = waiting.recv().await {
        let is_settled = matches!(
            outcome.await,
            Ok(Settled::Stored | Settled::Rejected { .. } | Settled::Refused { .. })
        );
        if !is_settled || client.ack(&publish).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_does_not_read_what_hubs_say_nor_frames_a_second_time() {
        for ours in ["ff/v1/akron/e1/up/live", "v1/err/press-7", "v1/echo/plant-broker"] {
            assert!(is_ours(ours), "{ours}");
        }
        for theirs in ["v1/akron/l1/oven/t", "spBv1.0/g/NBIRTH/n", "v1/errors/x", "err"] {
            assert!(!is_ours(theirs), "{theirs}");
        }
    }
}
