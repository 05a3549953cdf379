//! How do messages from the hub reach the devices that subscribed to them?
//! rumqttd's router runs on a thread of its own behind links; it holds no socket and no session. A watchdog
//! sends itself a message through it and replaces a router that does not deliver, because a router thread
//! that panicked leaves everything else looking alive.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use rumqttd::{
    Notification, Router, RouterConfig,
    local::{LinkBuilder, LinkRx, LinkTx},
    protocol::{
        Disconnect, DisconnectReasonCode, Filter, Packet, PubAck, PubAckReason, Publish, PublishProperties,
        QoS, RetainForwardRule, Subscribe, Unsubscribe,
    },
};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{BrokerError, limits::Limits};

const WATCH_TOPIC: &str = "hub/watchdog";
/// Property of a message that was published with QoS 0: the router forwards all with the subscription's QoS. No client
/// sees it, and none can set it, for none publishes through the router.
const AT_MOST_ONCE: &str = "at-most-once";
const LINK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often, and how far apart, a publisher tries again while the router's queue is full.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

type Link = (LinkTx, LinkRx);

/// Makes a link of a name for a role.
type Connector = dyn Fn(&str, Role) -> Result<Link, BrokerError> + Send + Sync;

/// How a message is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// With QoS 1, as far as a subscriber asked for it.
    Passing,
    /// The same, and it waits for later subscribers.
    Retained,
    /// With QoS 0, whatever subscribers asked for.
    AtMostOnce,
}

/// A forwarded message's properties as a client sees them, and whether it was published with QoS 0.
pub(super) fn at_most_once(properties: Option<PublishProperties>) -> (Option<PublishProperties>, bool) {
    match properties {
        Some(its) if its.user_properties.iter().any(|(key, _)| key == AT_MOST_ONCE) => (None, true),
        its => (its, false),
    }
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Reads what it subscribed to; nothing of it outlives its socket.
    Device,
    /// Publishes. Only it creates a topic's log: without one the router drops the link that publishes.
    Publisher,
    /// Keeps its session, which no socket of ours may: a test needs one to end the router.
    #[cfg(test)]
    Keeper,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === one router thread ===

/// One running router; replaced as a whole when it stops answering.
pub(super) struct Core {
    /// Makes a link. A closure because the router's event type cannot be named outside rumqttd.
    connect: Box<Connector>,
    /// Whether the router's queue is full, where a send would block the calling thread.
    is_full: Box<dyn Fn() -> bool + Send + Sync>,
    publisher: Mutex<LinkTx>,
    /// Kept because the router drops a connection whose receiver is gone.
    _publisher_rx: LinkRx,
    slots: Mutex<Slots>,
    retired: CancellationToken,
}

/// Names for links, reused: the router remembers every name it ever saw.
#[derive(Default)]
struct Slots {
    free: Vec<usize>,
    made: usize,
}

impl Slots {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.made += 1;
            self.made
        })
    }
}

impl Core {
    fn start(connections_max: usize) -> Result<Self, BrokerError> {
        let config = RouterConfig {
            max_connections: connections_max + 8,
            max_outgoing_packet_count: 200,
            max_segment_size: 1024 * 1024,
            max_segment_count: 10,
            ..RouterConfig::default()
        };
        let events = Router::new(0, config).spawn();
        let links = events.clone();
        let connect = move |name: &str, role: Role| {
            let builder = LinkBuilder::new(name, links.clone())
                .clean_session(matches!(role, Role::Device | Role::Publisher))
                .dynamic_filters(role == Role::Publisher);
            builder
                .build()
                .map(|(tx, rx, _)| (tx, rx))
                .map_err(|_| BrokerError::RouterGone)
        };
        let (publisher, publisher_rx) = connect("publisher", Role::Publisher)?;
        Ok(Self {
            connect: Box::new(connect),
            is_full: Box::new(move || events.is_full()),
            publisher: Mutex::new(publisher),
            _publisher_rx: publisher_rx,
            slots: Mutex::new(Slots::default()),
            retired: CancellationToken::new(),
        })
    }

    /// Queues one message; `Err(Busy)` when the router is behind.
    fn publish(&self, topic: &str, payload: Bytes, how: How) -> Result<(), BrokerError> {
        if (self.is_full)() {
            return Err(BrokerError::RouterBusy);
        }
        let topic = Bytes::copy_from_slice(topic.as_bytes());
        let publish = Publish::new(topic, payload, how == How::Retained);
        let properties = (how == How::AtMostOnce).then(|| PublishProperties {
            user_properties: vec![(AT_MOST_ONCE.to_owned(), String::new())],
            ..PublishProperties::default()
        });
        let mut publisher = lock(&self.publisher);
        match publisher
            .send(Packet::Publish(publish, properties))
            .now_or_never()
        {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err(BrokerError::RouterGone),
            None => Err(BrokerError::RouterBusy),
        }
    }
}

// === the router that is in force ===

/// The router in force, what it must retain, and whether it passed its last probe.
pub(super) struct RouterHandle {
    core: Mutex<Arc<Core>>,
    retained: Mutex<HashMap<String, Bytes>>,
    is_ready: AtomicBool,
    connections_max: usize,
}

impl fmt::Debug for RouterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterHandle")
            .field("is_ready", &self.is_ready)
            .finish_non_exhaustive()
    }
}

impl RouterHandle {
    pub(super) async fn start(limits: &Limits) -> Result<Arc<Self>, BrokerError> {
        let connections_max = limits.connections_max;
        let core = start_core(connections_max).await?;
        Ok(Arc::new(Self {
            core: Mutex::new(Arc::new(core)),
            retained: Mutex::new(HashMap::new()),
            is_ready: AtomicBool::new(true),
            connections_max,
        }))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    fn core(&self) -> Arc<Core> {
        lock(&self.core).clone()
    }

    /// Opens a link for one authenticated socket.
    pub(super) async fn link(&self) -> Result<RouterLink, BrokerError> {
        let core = self.core();
        let slot = lock(&core.slots).take();
        let opener = core.clone();
        let opened = on_own_thread(move || (opener.connect)(&format!("slot-{slot}"), Role::Device));
        let (tx, rx) = opened.await?;
        Ok(RouterLink { tx, rx, slot, core })
    }

    /// Replaces the router, hands the new one what must be retained, and closes every link of the old one.
    async fn replace(&self) -> Result<(), BrokerError> {
        let fresh = Arc::new(start_core(self.connections_max).await?);
        for (topic, payload) in lock(&self.retained).iter() {
            fresh.publish(topic, payload.clone(), How::Retained)?;
        }
        let old = std::mem::replace(&mut *lock(&self.core), fresh);
        old.retired.cancel();
        Ok(())
    }

    /// Probes the router for as long as the hub runs and replaces it when a probe does not come back.
    pub(super) async fn watch(self: Arc<Self>, limits: Limits, shutdown: CancellationToken) {
        let mut probe = None;
        let mut sent = 0u64;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(limits.probe_every) => {}
            }
            sent += 1;
            let passed = matches!(
                timeout(limits.probe_timeout, self.probe(&mut probe, sent)).await,
                Ok(Ok(()))
            );
            self.is_ready.store(passed, Ordering::Relaxed);
            if !passed {
                probe = None;
                metrics::counter!("foodflow_mqtt_router_restarts_total").increment(1);
                match self.replace().await {
                    Ok(()) => info!("the MQTT router did not answer its probe and was replaced"),
                    Err(source) => error!(error = %source, "the MQTT router could not be replaced"),
                }
            }
        }
    }

    async fn probe(&self, link: &mut Option<RouterLink>, number: u64) -> Result<(), BrokerError> {
        if link.is_none() {
            let mut fresh = self.link().await?;
            fresh.subscribe(1, vec![(WATCH_TOPIC.to_owned(), 0)])?;
            *link = Some(fresh);
        }
        let Some(link) = link else {
            return Err(BrokerError::RouterGone);
        };
        link.core.publish(
            WATCH_TOPIC,
            Bytes::copy_from_slice(&number.to_be_bytes()),
            How::Passing,
        )?;
        loop {
            if let Some(Notification::Forward(forward)) = link.next().await?
                && forward.publish.payload[..] == number.to_be_bytes()
            {
                return Ok(());
            }
        }
    }
}

async fn start_core(connections_max: usize) -> Result<Core, BrokerError> {
    on_own_thread(move || Core::start(connections_max)).await
}

/// Runs a call that blocks until the router answers. Not on the runtime's blocking threads: a router that dies
/// with the question in its queue never answers, and the runtime would wait for that thread at its end.
async fn on_own_thread<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("mqtt-link".to_owned());
    thread
        .spawn(move || drop(answer.send(ask())))
        .map_err(|_| BrokerError::RouterGone)?;
    match timeout(LINK_TIMEOUT, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(BrokerError::RouterGone),
    }
}

// === a socket's link ===

/// One socket's connection to the router; dropping it tells the router that the socket is gone.
pub(super) struct RouterLink {
    tx: LinkTx,
    rx: LinkRx,
    slot: usize,
    core: Arc<Core>,
}

impl RouterLink {
    /// Ends when the router that this link belongs to was replaced.
    pub(super) fn retired(&self) -> CancellationToken {
        self.core.retired.clone()
    }

    fn send(&mut self, packet: Packet) -> Result<(), BrokerError> {
        if (self.core.is_full)() {
            return Err(BrokerError::RouterBusy);
        }
        match self.tx.send(packet).now_or_never() {
            Some(Ok(_)) => Ok(()),
            _ => Err(BrokerError::RouterGone),
        }
    }

    pub(super) fn subscribe(&mut self, pkid: u16, filters: Vec<(String, u8)>) -> Result<(), BrokerError> {
        let filters = filters.into_iter().map(|(path, qos)| Filter {
            path,
            qos: if qos == 0 {
                QoS::AtMostOnce
            } else {
                QoS::AtLeastOnce
            },
            nolocal: false,
            preserve_retain: true,
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
        });
        self.send(Packet::Subscribe(
            Subscribe {
                pkid,
                filters: filters.collect(),
            },
            None,
        ))
    }

    pub(super) fn unsubscribe(&mut self, pkid: u16, filters: Vec<String>) -> Result<(), BrokerError> {
        self.send(Packet::Unsubscribe(Unsubscribe { pkid, filters }, None))
    }

    pub(super) fn acknowledge(&mut self, pkid: u16) -> Result<(), BrokerError> {
        self.send(Packet::PubAck(
            PubAck {
                pkid,
                reason: PubAckReason::Success,
            },
            None,
        ))
    }

    /// Waits for the router. `None` is a wake-up without news. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Notification>, BrokerError> {
        let next = self.rx.next().await.map_err(|_| BrokerError::RouterGone)?;
        if matches!(next, Some(Notification::Unschedule)) {
            // The router stopped serving this link until it is told that there is room again.
            self.rx.wake().await.map_err(|_| BrokerError::RouterGone)?;
            return Ok(None);
        }
        Ok(next)
    }
}

impl Drop for RouterLink {
    fn drop(&mut self) {
        let disconnect = Disconnect {
            reason_code: DisconnectReasonCode::NormalDisconnection,
        };
        // The name goes back even when the router is full or gone: a reused name displaces its old link.
        if let Err(source) = self.send(Packet::Disconnect(disconnect, None)) {
            info!(error = %source, "the MQTT router was not told of a closed link");
        }
        lock(&self.core.slots).free.push(self.slot);
    }
}

// === publishing from the hub ===

/// The hub's way to its devices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Downlink {
    router: Arc<RouterHandle>,
}

impl Downlink {
    pub(super) fn new(router: Arc<RouterHandle>) -> Self {
        Self { router }
    }

    /// Publishes to whoever subscribed to `topic`, with QoS 1 where that was asked for; a retained message also waits
    /// for later subscribers.
    ///
    /// Delivery is not promised: a device that is away misses it, and what must arrive is repeated by
    /// whoever needs it (an edge re-sends a frame until its acknowledgement came).
    ///
    /// # Errors
    /// [`BrokerError::Topic`] for a topic with a wildcard; [`BrokerError::RouterBusy`] or
    /// [`BrokerError::RouterGone`] when the router takes nothing.
    pub async fn publish(&self, topic: &str, payload: Bytes, retain: bool) -> Result<(), BrokerError> {
        let how = if retain { How::Retained } else { How::Passing };
        self.publish_as(topic, payload, how).await
    }

    /// The same with QoS 0, whatever subscribers asked for: what Sparkplug wants of commands.
    ///
    /// # Errors
    /// As [`Downlink::publish`].
    pub async fn publish_at_most_once(&self, topic: &str, payload: Bytes) -> Result<(), BrokerError> {
        self.publish_as(topic, payload, How::AtMostOnce).await
    }

    async fn publish_as(&self, topic: &str, payload: Bytes, how: How) -> Result<(), BrokerError> {
        if topic.is_empty() || topic.contains(['+', '#', '\0']) || topic.starts_with('$') {
            return Err(BrokerError::Topic(topic.to_owned()));
        }
        if how == How::Retained {
            self.remember(topic, &payload);
        }
        for _ in 0..BUSY_TRIES {
            match self.router.core().publish(topic, payload.clone(), how) {
                Err(BrokerError::RouterBusy) => tokio::time::sleep(BUSY_PAUSE).await,
                settled => return settled,
            }
        }
        Err(BrokerError::RouterBusy)
    }

    fn remember(&self, topic: &str, payload: &Bytes) {
        let mut retained = lock(&self.router.retained);
        if payload.is_empty() {
            retained.remove(topic);
        } else {
            retained.insert(topic.to_owned(), payload.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn first_forward(link: &mut RouterLink) -> Bytes {
        loop {
            if let Some(Notification::Forward(forward)) = link.next().await.unwrap() {
                return forward.publish.payload;
            }
        }
    }

    #[tokio::test]
    async fn a_retained_message_waits_for_a_later_subscriber() {
        let router = RouterHandle::start(&Limits::default()).await.unwrap();
        let downlink = Downlink::new(router.clone());
        downlink
            .publish("a/config", Bytes::from_static(b"one"), true)
            .await
            .unwrap();
        let mut link = router.link().await.unwrap();
        link.subscribe(1, vec![("a/config".to_owned(), 1)]).unwrap();
        assert_eq!(first_forward(&mut link).await, "one");
    }

    #[tokio::test]
    async fn a_killed_router_is_replaced_and_keeps_what_was_retained() {
        let limits = Limits {
            probe_every: Duration::from_millis(20),
            probe_timeout: Duration::from_millis(500),
            ..Limits::default()
        };
        let router = RouterHandle::start(&limits).await.unwrap();
        let downlink = Downlink::new(router.clone());
        downlink
            .publish("a/config", Bytes::from_static(b"kept"), true)
            .await
            .unwrap();
        let victim = router.link().await.unwrap();
        let retired = victim.retired();
        kill(&router, &downlink).await;

        let shutdown = CancellationToken::new();
        let watch = tokio::spawn(router.clone().watch(limits, shutdown.clone()));
        timeout(Duration::from_secs(10), retired.cancelled())
            .await
            .expect("the old router is retired");
        let mut link = router.link().await.unwrap();
        link.subscribe(1, vec![("a/config".to_owned(), 1)]).unwrap();
        assert_eq!(first_forward(&mut link).await, "kept");
        shutdown.cancel();
        watch.await.unwrap();
    }

    /// A shared subscriber that leaves a message unacknowledged and then, with a kept session, goes away:
    /// the sequence that ends the router's thread. The front end refuses `$share` for this reason.
    async fn kill(router: &RouterHandle, downlink: &Downlink) {
        let core = router.core();
        let (mut tx, mut rx) = on_own_thread(move || (core.connect)("keeper", Role::Keeper))
            .await
            .unwrap();
        let filter = Filter {
            path: "$share/g/x/1".to_owned(),
            qos: QoS::AtLeastOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        tx.send(Packet::Subscribe(
            Subscribe {
                pkid: 1,
                filters: vec![filter],
            },
            None,
        ))
        .await
        .unwrap();
        downlink
            .publish("x/1", Bytes::from_static(b"never acknowledged"), false)
            .await
            .unwrap();
        while !matches!(rx.next().await.unwrap(), Some(Notification::Forward(_))) {}
        let bye = Disconnect {
            reason_code: DisconnectReasonCode::NormalDisconnection,
        };
        tx.send(Packet::Disconnect(bye, None)).await.unwrap();
    }
}
