//! What happens on one authenticated socket, from CONNACK to its end.
//! Uplink messages go straight to ingest and are acknowledged, in order, when ingest has settled them;
//! downlink messages come from the router. The socket is not read while too much is pending.

use std::{collections::VecDeque, future::pending, io, time::Duration};

use bytes::BytesMut;
use rumqttd::Notification;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    BrokerError, Open, OpenMessage, Settled, Uplink,
    codec::{self, CodecError, Inbound, Version},
    frontend::Stream,
    inflight::Inflight,
    limits::{Limits, RateGate},
    open::{inside_filter, is_open_topic, outside},
    reply::{self, Written, reason},
    router::{RouterLink, at_most_once},
    rules::{Device, may_publish, may_subscribe},
    uplinks::UplinkSender,
};

/// How long the router is silent when it has forwarded everything.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// How long it may go on.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client said goodbye; with a will only if it asked for that.
    ByClient { with_will: bool },
    /// The socket died under us.
    Vanished,
    /// We closed it, with an MQTT 5 reason code.
    Closed(u8),
}

impl End {
    /// Whether the client's will is to be delivered. A hub that goes down has nobody to deliver it to.
    pub(super) fn calls_for_will(&self) -> bool {
        match self {
            Self::ByClient { with_will } => *with_will,
            Self::Vanished => true,
            Self::Closed(code) => *code != reason::SHUTTING_DOWN,
        }
    }
}

impl From<io::Error> for End {
    fn from(source: io::Error) -> Self {
        debug!(error = %source, "MQTT socket failed");
        Self::Vanished
    }
}

impl From<BrokerError> for End {
    fn from(source: BrokerError) -> Self {
        debug!(error = %source, "MQTT router refused a session");
        Self::Closed(reason::SERVER_BUSY)
    }
}

impl From<CodecError> for End {
    fn from(source: CodecError) -> Self {
        debug!(error = %source, "MQTT socket spoke nonsense");
        match source {
            CodecError::TooLarge { .. } => Self::Closed(reason::PACKET_TOO_LARGE),
            CodecError::Unexpected(_) => Self::Closed(reason::PROTOCOL_ERROR),
            CodecError::Malformed | CodecError::Level(_) => Self::Closed(reason::MALFORMED),
        }
    }
}

/// An uplink publish that has no PUBACK yet; they are answered strictly in this order.
struct Pending {
    pkid: u16,
    qos: u8,
    verdict: Verdict,
}

enum Verdict {
    /// Refused by the rules; waits only for its turn.
    Refused,
    /// With ingest.
    Waiting(oneshot::Receiver<Settled>),
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    /// Whether it used topics outside `ff/`.
    pub(super) was_open: bool,
}

/// One authenticated client.
pub(super) struct Session {
    pub(super) io: Box<dyn Stream>,
    pub(super) version: Version,
    pub(super) device: Device,
    pub(super) link: RouterLink,
    pub(super) uplink: UplinkSender,
    /// Takes what comes outside `ff/`; none: nothing does.
    pub(super) open: Option<mpsc::Sender<Open>>,
    /// Whether the client writes its tenant's name in front of topics.
    pub(super) is_rooted: bool,
    pub(super) limits: Limits,
    pub(super) inbox: BytesMut,
    pub(super) outbox: BytesMut,
    /// Silence after which the client counts as gone.
    pub(super) silence_max: Duration,
    /// QoS 1 messages and bytes a packet that the client takes.
    pub(super) receive_max: u16,
    pub(super) client_packet_bytes_max: usize,
    /// Another socket of the same client took over.
    pub(super) taken_over: CancellationToken,
    /// The device's credentials were taken away.
    pub(super) expelled: CancellationToken,
    pub(super) shutdown: CancellationToken,
}

/// The part of a session that changes while it runs.
struct State {
    pending: VecDeque<Pending>,
    /// Ends when ingest took the message with which this tenant had more than its share in the hub.
    stalled: Option<oneshot::Receiver<()>>,
    /// A message for which the integrators' queue had no room yet.
    stalled_open: Option<Open>,
    was_open: bool,
    /// What the router forwarded with QoS 1.
    inflight: Inflight,
    gate: RateGate,
    throttled_until: Option<Instant>,
    silent_since: Instant,
}

impl Session {
    /// Serves the socket to its end and says goodbye if the client can still hear it.
    pub(super) async fn run(mut self) -> Ended {
        let now = Instant::now();
        let mut state = State {
            pending: VecDeque::new(),
            stalled: None,
            stalled_open: None,
            was_open: false,
            inflight: Inflight::default(),
            gate: RateGate::new(self.limits.publishes_per_s_max, now),
            throttled_until: None,
            silent_since: now,
        };
        let end = self.serve(&mut state).await.err().unwrap_or(End::Vanished);
        if let End::Closed(code) = end {
            reply::write_disconnect(self.version, code, &mut self.outbox);
        }
        if !matches!(end, End::Vanished)
            && let Err(source) = self.flush().await
        {
            debug!(?source, "MQTT client did not hear the end of its session");
        }
        Ended {
            end,
            was_open: state.was_open,
        }
    }

    /// Runs until something ends the session, which is its only way out.
    async fn serve(&mut self, state: &mut State) -> Result<(), End> {
        let retired = self.link.retired();
        let open = self.open.clone();
        loop {
            self.take_packets(state)?;
            self.flush().await?;
            let may_read = self.may_read(state);
            if !may_read {
                // We do not listen, so the client's silence is ours.
                state.silent_since = Instant::now();
            }
            let may_forward = state.inflight.with_client() < self.receive_max;
            tokio::select! {
                () = self.taken_over.cancelled() => return Err(End::Closed(reason::TAKEN_OVER)),
                () = self.expelled.cancelled() => return Err(End::Closed(reason::NOT_AUTHORIZED)),
                () = self.shutdown.cancelled() => {
                    self.last_words(state).await?;
                    return Err(End::Closed(reason::SHUTTING_DOWN));
                }
                () = retired.cancelled() => return Err(End::Closed(reason::SERVER_BUSY)),
                settled = first_settled(&mut state.pending) => {
                    self.answer_first(state, settled)?;
                    self.answer_ready(state)?;
                }
                taken = wait_taken(&mut state.stalled) => {
                    state.stalled = None;
                    taken?;
                }
                passed = pass_on(open.as_ref(), &mut state.stalled_open) => passed?,
                news = self.link.next(), if may_forward => self.forward(state, news?)?,
                read = self.io.read_buf(&mut self.inbox), if may_read => {
                    if read? == 0 {
                        return Err(End::Vanished);
                    }
                    state.silent_since = Instant::now();
                }
                () = wait_until(state.throttled_until) => state.throttled_until = None,
                () = sleep_until(state.silent_since + self.silence_max) => {
                    return Err(End::Closed(reason::KEEP_ALIVE_TIMEOUT));
                }
            }
        }
    }

    fn may_read(&self, state: &State) -> bool {
        state.stalled.is_none()
            && state.stalled_open.is_none()
            && state.throttled_until.is_none()
            && state.pending.len() < self.limits.pending_max
    }

    fn take_packets(&mut self, state: &mut State) -> Result<(), End> {
        while self.may_read(state) {
            let Some(packet) = codec::read_packet(self.version, &mut self.inbox, &self.limits)? else {
                return Ok(());
            };
            self.on_packet(state, packet)?;
        }
        Ok(())
    }

    fn on_packet(&mut self, state: &mut State, packet: Inbound) -> Result<(), End> {
        match packet {
            Inbound::Publish { has_alias: true, .. } => Err(End::Closed(reason::TOPIC_ALIAS_INVALID)),
            Inbound::Publish { qos, .. } if qos > 1 => Err(End::Closed(reason::QOS_NOT_SUPPORTED)),
            Inbound::Publish {
                topic,
                payload,
                qos,
                pkid,
                ..
            } => {
                state.throttled_until = state.gate.take(Instant::now());
                let is_open = self.open.is_some() && is_open_topic(&topic);
                if !is_open && !may_publish(&self.device, &topic) {
                    return self.refuse_publish(state, &topic, qos, pkid);
                }
                let (settled, verdict) = oneshot::channel();
                state.pending.push_back(Pending {
                    pkid,
                    qos,
                    verdict: Verdict::Waiting(verdict),
                });
                let device = self.device.clone();
                if is_open {
                    state.was_open = true;
                    let message = OpenMessage {
                        device,
                        topic,
                        payload,
                        // It was sent now, even when it is to be kept.
                        is_retained: false,
                        settled,
                    };
                    return self.offer_open(state, Open::Message(message));
                }
                self.offer(
                    state,
                    Uplink {
                        device,
                        topic,
                        payload,
                        settled,
                    },
                )
            }
            Inbound::PubAck { pkid } => {
                if !state.inflight.acknowledged(pkid) {
                    return Err(End::Closed(reason::PROTOCOL_ERROR));
                }
                self.tell_router(state)
            }
            Inbound::Subscribe { pkid, filters } => self.subscribe(pkid, &filters),
            Inbound::Unsubscribe { pkid, filters } => {
                reply::write_unsuback(self.version, pkid, filters.len(), &mut self.outbox);
                let own = filters
                    .iter()
                    .filter_map(|filter| self.heard_at(filter))
                    .collect();
                Ok(self.link.unsubscribe(pkid, own)?)
            }
            Inbound::Ping => {
                reply::write_pingresp(&mut self.outbox);
                Ok(())
            }
            Inbound::Disconnect { reason } => Err(End::ByClient {
                with_will: reason == reason::WITH_WILL,
            }),
        }
    }

    /// Hands a message to ingest; no more is read while its tenant has more than its share there.
    fn offer(&self, state: &mut State, message: Uplink) -> Result<(), End> {
        let offered = self.uplink.offer(message);
        state.stalled = offered.map_err(|_| End::Closed(reason::SERVER_BUSY))?;
        Ok(())
    }

    /// The same for integrators' messages and their queue.
    fn offer_open(&self, state: &mut State, message: Open) -> Result<(), End> {
        let Some(open) = &self.open else {
            return Err(End::Closed(reason::SERVER_BUSY));
        };
        match open.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => {
                state.stalled_open = Some(message);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(End::Closed(reason::SERVER_BUSY)),
        }
    }

    /// Where in the router this device hears what it subscribes to; none when the filter is not its own.
    fn heard_at(&self, filter: &str) -> Option<String> {
        if may_subscribe(&self.device, filter) {
            return Some(filter.to_owned());
        }
        self.open
            .as_ref()
            .and_then(|_| inside_filter(&self.device, filter))
    }

    /// Only MQTT 5 with QoS 1 has an answer that refuses one message and keeps the connection.
    fn refuse_publish(&self, state: &mut State, topic: &str, qos: u8, pkid: u16) -> Result<(), End> {
        metrics::counter!("foodflow_mqtt_refused_publishes_total").increment(1);
        debug!(device = %self.device.name, topic, "MQTT publish outside the device's own topics");
        if self.version == Version::V4 || qos == 0 {
            return Err(End::Closed(reason::NOT_AUTHORIZED));
        }
        state.pending.push_back(Pending {
            pkid,
            qos,
            verdict: Verdict::Refused,
        });
        Ok(())
    }

    fn subscribe(&mut self, pkid: u16, filters: &[(String, u8)]) -> Result<(), End> {
        let heard: Vec<_> = filters.iter().map(|(path, _)| self.heard_at(path)).collect();
        let root = format!("{}/", self.device.tenant);
        self.is_rooted |= filters.iter().any(|(path, _)| path.starts_with(&root));
        let granted: Vec<_> = filters
            .iter()
            .zip(&heard)
            .map(|((_, qos), heard)| heard.is_some().then_some((*qos).min(1)))
            .collect();
        let own: Vec<_> = heard
            .into_iter()
            .zip(filters)
            .filter_map(|(heard, (_, qos))| Some((heard?, *qos)))
            .collect();
        if !own.is_empty() {
            self.link.subscribe(pkid, own)?;
        }
        reply::write_suback(self.version, pkid, &granted, &mut self.outbox);
        Ok(())
    }

    fn answer_first(&mut self, state: &mut State, settled: Option<Settled>) -> Result<(), End> {
        let Some(first) = state.pending.pop_front() else {
            return Ok(());
        };
        let (code, why) = match (&first.verdict, settled) {
            (Verdict::Refused, _) => (reason::NOT_AUTHORIZED, "not a topic of this device".to_owned()),
            (Verdict::Waiting(_), Some(Settled::Stored)) => (reason::SUCCESS, String::new()),
            (Verdict::Waiting(_), Some(Settled::Rejected { reason })) => (reason::PAYLOAD_INVALID, reason),
            (Verdict::Waiting(_), Some(Settled::Refused { code, reason })) => (code, reason),
            // Not stored and not refused: without a PUBACK the client sends it again.
            (Verdict::Waiting(_), Some(Settled::Retry) | None) => {
                return Err(End::Closed(reason::SERVER_BUSY));
            }
        };
        if first.qos == 1 {
            reply::write_puback(self.version, first.pkid, code, &why, &mut self.outbox);
        }
        Ok(())
    }

    /// Answers what is settled already, so that one write carries many acknowledgements.
    fn answer_ready(&mut self, state: &mut State) -> Result<(), End> {
        loop {
            let settled = match state.pending.front_mut().map(|first| &mut first.verdict) {
                None => return Ok(()),
                Some(Verdict::Refused) => None,
                Some(Verdict::Waiting(verdict)) => match verdict.try_recv() {
                    Ok(settled) => Some(settled),
                    Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
                    Err(oneshot::error::TryRecvError::Closed) => None,
                },
            };
            self.answer_first(state, settled)?;
        }
    }

    /// Passes on what the hub said before it began to shut down, which the router may still be forwarding.
    async fn last_words(&mut self, state: &mut State) -> Result<(), End> {
        let began = Instant::now();
        while state.inflight.with_client() < self.receive_max && began.elapsed() < LAST_WORDS_MAX {
            let Ok(news) = timeout(LAST_WORDS, self.link.next()).await else {
                return Ok(());
            };
            self.forward(state, news?)?;
        }
        Ok(())
    }

    /// Acknowledges to the router what is settled at the head of what it forwarded.
    fn tell_router(&mut self, state: &mut State) -> Result<(), End> {
        while let Some(pkid) = state.inflight.next_settled() {
            self.link.acknowledge(pkid)?;
        }
        Ok(())
    }

    fn forward(&mut self, state: &mut State, news: Option<Notification>) -> Result<(), End> {
        // Everything else the router says (CONNACK, SUBACK) was answered by the front end already.
        let Some(Notification::Forward(forward)) = news else {
            return Ok(());
        };
        let (mut publish, properties) = (forward.publish, forward.properties);
        if let Some(topic) = outside(&publish.topic) {
            let root = if self.is_rooted {
                self.device.tenant.as_str()
            } else {
                ""
            };
            publish.topic = match root {
                "" => publish.topic.slice_ref(topic),
                root => [root.as_bytes(), b"/", topic].concat().into(),
            };
        }
        let (properties, is_at_most_once) = at_most_once(properties);
        let max_bytes = self.client_packet_bytes_max;
        let (written, pkid) = reply::write_publish(
            self.version,
            (publish, properties),
            is_at_most_once,
            max_bytes,
            &mut self.outbox,
        );
        if written == Written::TooLarge {
            debug!(device = %self.device.name, "a downlink message was larger than the client takes");
        }
        match (written, pkid) {
            (_, None) => return Ok(()),
            (Written::Whole, Some(pkid)) => state.inflight.sent(pkid),
            (Written::Lessened | Written::TooLarge, Some(pkid)) => state.inflight.not_sent(pkid),
        }
        self.tell_router(state)
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        match timeout(self.limits.write_timeout, self.io.write_all(&self.outbox)).await {
            Ok(written) => written?,
            Err(_elapsed) => return Err(End::Vanished),
        }
        self.outbox.clear();
        // A TLS stream keeps bytes back until it is flushed.
        Ok(self.io.flush().await?)
    }
}

/// Waits for the oldest publish. `None` means refused, or that ingest dropped it.
async fn first_settled(waiting: &mut VecDeque<Pending>) -> Option<Settled> {
    match waiting.front_mut().map(|first| &mut first.verdict) {
        None => pending().await,
        Some(Verdict::Refused) => None,
        Some(Verdict::Waiting(verdict)) => verdict.await.ok(),
    }
}

/// Waits until ingest took the message that filled its tenant's share.
async fn wait_taken(stalled: &mut Option<oneshot::Receiver<()>>) -> Result<(), End> {
    match stalled {
        Some(taken) => taken.await.map_err(|_| End::Closed(reason::SERVER_BUSY)),
        None => pending().await,
    }
}

/// Waits for room in the integrators' queue and sends what is kept back. Cancel-safe.
async fn pass_on(open: Option<&mpsc::Sender<Open>>, stalled: &mut Option<Open>) -> Result<(), End> {
    let (Some(open), true) = (open, stalled.is_some()) else {
        return pending().await;
    };
    let permit = open
        .reserve()
        .await
        .map_err(|_| End::Closed(reason::SERVER_BUSY))?;
    if let Some(message) = stalled.take() {
        permit.send(message);
    }
    Ok(())
}

async fn wait_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
