//! How is one session held, and what when it breaks? By Part 4 §6.7: a new channel and the old session first, else a
//! new session and its subscriptions transferred; then every message in between is asked for again. What cannot be
//! had is reported as a gap, and what cannot be resumed is begun anew.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use opcua::{
    client::{
        Session, SessionConnectMode, SessionEventLoop, SessionPollResult, SubscriptionActivity,
        transport::Connector,
    },
    types::{
        DataChangeNotification, MonitoredItemNotification, NodeId, NotificationMessage,
        StatusChangeNotification, StatusCode, VariableId, Variant,
    },
};
use rand::Rng as _;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    client::{self, Manner, Namespaces, failure, in_time},
    config::Server,
    endpoint::{self, Ended},
    items::{Items, Note},
    limits::{self, Learned},
    pki::{Pki, Refusal},
    pulse::{self, Pulse},
    sequence::{Missing, Step},
    slots::Slots,
};
use crate::{clock, source::error::SourceError};

const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A certificate that was just accepted should be taken soon.
const BACKOFF_REFUSED_MAX: Duration = Duration::from_secs(5);
/// Messages that may wait to be taken from the library.
const NOTES_WAITING_MAX: usize = 256;
const EVENTS_WAITING_MAX: usize = 256;
/// Messages kept while items are being made.
const BACKLOG_MAX: usize = 4_096;
/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often refused nodes are tried again.
const RETRY_REFUSED_EVERY: Duration = Duration::from_mins(1);
/// Beyond this the server's clock is taken to be wrong rather than late.
const SKEW_MAX_US: i64 = 300_000_000;
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// How long a server that has fallen silent may take to answer.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// What is to be watched now.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The server.
    pub server: Arc<Server>,
    /// Its nodes.
    pub slots: Arc<Slots>,
}

/// What a session reports.
pub enum Report {
    /// Connected and subscribed.
    Up(Arc<Session>, Arc<Namespaces>, limits::Limits),
    /// Values, in the order in which the server sent them; the handle is a slot's, or [`pulse::HANDLE`].
    Values(Vec<MonitoredItemNotification>, i64),
    /// Nodes that the server does not watch, and why.
    Refused(Vec<(u32, StatusCode)>),
    /// Values that were sent and are lost.
    Gap(Lost),
    /// The server's certificate is not accepted.
    Untrusted(Refusal),
    /// The session is lost; it may be resumed.
    Down(String),
}

/// Values that are lost.
#[derive(Debug)]
pub struct Lost {
    /// Whose; none for every node that reports on change only: what is due is watched for anyway.
    pub slots: Option<Vec<u32>>,
    /// After this.
    pub from_us: i64,
    /// Before this.
    pub to_us: i64,
    /// Messages lost; 1 where the number is not known.
    pub messages: u32,
    /// Why.
    pub reason: &'static str,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Up(..) => f.write_str("Up"),
            Self::Values(values, _) => write!(f, "Values({})", values.len()),
            Self::Refused(nodes) => write!(f, "Refused({nodes:?})"),
            Self::Gap(lost) => write!(f, "Gap({lost:?})"),
            Self::Untrusted(refusal) => write!(f, "Untrusted({refusal:?})"),
            Self::Down(reason) => write!(f, "Down({reason})"),
        }
    }
}

/// Why a session is left for good.
enum Over {
    /// Nobody takes reports any more.
    Closed,
    /// It ended; another follows.
    Ended(Ended),
    /// Another server, or another way to it, is configured.
    Reconfigured,
}

impl From<SourceError> for Over {
    fn from(error: SourceError) -> Self {
        Self::Ended(Ended::Lost(error))
    }
}

/// Holds one session after the other until nobody takes reports any more, with growing, jittered pauses.
pub async fn keep(mut desired: watch::Receiver<Desired>, pki_dir: PathBuf, reports: mpsc::Sender<Report>) {
    let mut learned = Learned::new(desired.borrow().server.publish);
    let mut backoff = BACKOFF_MIN;
    let mut heard_at_us = None;
    loop {
        let mut holding = Holding {
            desired: &mut desired,
            learned: &mut learned,
            reports: &reports,
            heard_at_us: &mut heard_at_us,
            was_up: false,
        };
        let over = holding.session(&pki_dir).await;
        let was_up = holding.was_up;
        let (report, backoff_max) = match over {
            Over::Closed => return,
            Over::Reconfigured => {
                learned = Learned::new(desired.borrow().server.publish);
                backoff = BACKOFF_MIN;
                continue;
            }
            Over::Ended(Ended::Refused(refusal)) => (Report::Untrusted(refusal), BACKOFF_REFUSED_MAX),
            Over::Ended(Ended::Lost(error)) => (Report::Down(error.to_string()), BACKOFF_MAX),
        };
        tracing::warn!(source = %desired.borrow().server.name, ended = ?report, "OPC UA session ended");
        if reports.send(report).await.is_err() {
            return;
        }
        let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
        backoff = if was_up {
            BACKOFF_MIN
        } else {
            (backoff * 2).min(backoff_max)
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A corrected address is worth an attempt at once.
            Ok(()) = desired.changed() => {}
            () = reports.closed() => return,
        }
    }
}

/// One session and what it needs from outside.
struct Holding<'a> {
    desired: &'a mut watch::Receiver<Desired>,
    learned: &'a mut Learned,
    reports: &'a mpsc::Sender<Report>,
    /// When a value was last heard, in this session or one before.
    heard_at_us: &'a mut Option<i64>,
    was_up: bool,
}

/// A session while it is up.
struct Held {
    server: Arc<Server>,
    session: Arc<Session>,
    namespaces: Arc<Namespaces>,
    limits: limits::Limits,
    items: Items,
    notes: mpsc::Receiver<Note>,
    events: mpsc::Receiver<Event>,
    pulse: Option<Pulse>,
    /// Reported down although the session is not known to be lost.
    is_cut_off: bool,
    start: Instant,
}

/// What the library says of the session.
#[derive(Debug)]
enum Event {
    Lost(StatusCode),
    Failed(StatusCode),
    Connected(SessionConnectMode),
    NoSubscription,
}

/// Drives the library and passes on what matters; ends with the session.
async fn drive<C: Connector + Send + Sync + 'static>(
    event_loop: SessionEventLoop<C>,
    events: mpsc::Sender<Event>,
) {
    let mut stream = Box::pin(event_loop.enter());
    while let Some(polled) = stream.next().await {
        let event = match polled {
            Ok(SessionPollResult::ConnectionLost(status)) => Event::Lost(status),
            Ok(SessionPollResult::ReconnectFailed(status)) => Event::Failed(status),
            Ok(SessionPollResult::Reconnected(mode)) => Event::Connected(mode),
            Ok(SessionPollResult::Subscription(SubscriptionActivity::PublishFailed(
                StatusCode::BadNoSubscription,
            ))) => Event::NoSubscription,
            Ok(_) => continue,
            Err(status) => {
                // The last word; the channel closing says the rest.
                drop(events.send(Event::Failed(status)).await);
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Holding<'_> {
    /// Connects, subscribes and reports until the session is over for good.
    async fn session(&mut self, pki_dir: &std::path::Path) -> Over {
        let server = self.desired.borrow_and_update().server.clone();
        let reports = self.reports;
        let connected = tokio::select! {
            connected = self.connect(&server, pki_dir) => connected,
            () = reports.closed() => return Over::Closed,
        };
        let (mut held, _driver) = match connected {
            Ok(connected) => connected,
            Err(ended) => return Over::Ended(ended),
        };
        let over = match self.serve(&mut held, pki_dir).await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        // The server need not keep what nobody will come back for.
        drop(tokio::time::timeout(LEAVE_WITHIN, held.session.disconnect()).await);
        over
    }

    async fn connect(
        &mut self,
        server: &Arc<Server>,
        pki_dir: &std::path::Path,
    ) -> Result<(Held, AbortOnDrop), Ended> {
        let store = |error| failure("certificate store", &endpoint::causes(&error));
        let pki = Pki::open(pki_dir).map_err(store)?;
        let approach = endpoint::approach(server, &pki).await?;
        let manner = Manner {
            reconnects: true,
            is_skewed: self.learned.is_skewed,
        };
        let client = client::client(&pki, server, manner)?;
        let (session, event_loop) = client::open(&client, approach)?;
        let (events_tx, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
        let driver = AbortOnDrop(tokio::spawn(drive(event_loop, events_tx)));
        let established = tokio::time::timeout(CONNECT_WITHIN, events.recv()).await;
        match established {
            Ok(Some(Event::Connected(_))) => {}
            Ok(Some(Event::Failed(status) | Event::Lost(status))) => {
                return Err(failure("connect", &status.to_string()).into());
            }
            Ok(_) => return Err(failure("connect", "the session ended").into()),
            Err(_) => {
                return Err(Ended::Lost(SourceError::Timeout {
                    address: server.url.clone(),
                    limit: CONNECT_WITHIN,
                }));
            }
        }
        self.check_clock(&session).await?;
        let limits = self
            .learned
            .limits(server.items_per_request, limits::declared(&session).await);
        let namespaces = Arc::new(client::namespaces(&session).await?);
        let (notes_tx, notes) = mpsc::channel(NOTES_WAITING_MAX);
        let items = Items::new(session.clone(), server, limits, notes_tx);
        let held = Held {
            server: server.clone(),
            session,
            namespaces,
            limits,
            items,
            notes,
            events,
            pulse: None,
            is_cut_off: false,
            start: Instant::now(),
        };
        Ok((held, driver))
    }

    /// A server whose clock is far off is entered anew, in the manner that bears it.
    async fn check_clock(&mut self, session: &Session) -> Result<(), SourceError> {
        let clock_node = NodeId::from(VariableId::Server_ServerStatus_CurrentTime);
        let values = client::read_chunk(session, &[clock_node]).await?;
        let time = values.first().and_then(|value| value.value.as_ref());
        match time {
            Some(Variant::DateTime(time)) => self.judge_clock(time.as_chrono().timestamp_micros()),
            _ => Ok(()),
        }
    }

    fn judge_clock(&mut self, server_us: i64) -> Result<(), SourceError> {
        let ahead_us = server_us.saturating_sub(clock::now_us());
        if self.learned.is_skewed || ahead_us.abs() <= SKEW_MAX_US {
            return Ok(());
        }
        self.learned.is_skewed = true;
        tracing::warn!(
            ahead_s = ahead_us / 1_000_000,
            "the server's clock is far from this machine's; source times are kept as the server gives them"
        );
        Err(failure(
            "clock check",
            "the server's clock is far off; connecting anew",
        ))
    }

    async fn report(&self, report: Report) -> Result<(), Over> {
        self.reports.send(report).await.map_err(|_| Over::Closed)
    }

    async fn serve(
        &mut self,
        held: &mut Held,
        pki_dir: &std::path::Path,
    ) -> Result<std::convert::Infallible, Over> {
        held.start_over_silence();
        if held.items.watch_clock(self.learned).await? {
            held.pulse = Some(Pulse::new(held.now_us()));
        } else {
            tracing::warn!(
                "the server's clock cannot be watched: frozen data is found by its own silence only"
            );
        }
        self.record_gap().await?;
        self.follow(held).await?;
        self.up(held).await?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retry = tokio::time::interval_at(Instant::now() + RETRY_REFUSED_EVERY, RETRY_REFUSED_EVERY);
        let mut can_change = true;
        loop {
            tokio::select! {
                Some(note) = held.notes.recv() => self.take(held, note).await?,
                event = held.events.recv() => self.event(held, event, pki_dir).await?,
                _ = look.tick() => self.look(held).await?,
                _ = retry.tick() => if held.items.retry_refused() { self.follow(held).await? },
                changed = self.desired.changed(), if can_change => {
                    can_change = changed.is_ok();
                    let server = self.desired.borrow().server.clone();
                    if !server.has_same_session(&held.server) {
                        return Err(Over::Reconfigured);
                    }
                    self.follow(held).await?;
                }
                () = self.reports.closed() => return Err(Over::Closed),
            }
        }
    }

    async fn follow(&mut self, held: &mut Held) -> Result<(), Over> {
        let slots = self.desired.borrow_and_update().slots.clone();
        let names = (held.namespaces.as_ref(), held.server.namespace_uri.as_str());
        let mut backlog = Vec::new();
        let refused = {
            let mut following = Box::pin(held.items.follow(&slots, names, self.learned));
            loop {
                // Items that are there already report while others are being made.
                tokio::select! {
                    refused = &mut following => break refused?,
                    Some(note) = held.notes.recv(), if backlog.len() < BACKLOG_MAX => backlog.push(note),
                }
            }
        };
        held.start_over_silence();
        for note in backlog {
            self.take(held, note).await?;
        }
        if !refused.is_empty() {
            self.report(Report::Refused(refused)).await?;
        }
        Ok(())
    }

    /// Records what lies between this session and the one before: the items that are made next begin with the current
    /// value of every node.
    async fn record_gap(&mut self) -> Result<(), Over> {
        let Some(from_us) = *self.heard_at_us else {
            return Ok(());
        };
        let to_us = clock::now_us();
        *self.heard_at_us = Some(to_us);
        self.report(Report::Gap(Lost {
            slots: None,
            from_us,
            to_us,
            messages: 1,
            reason: "opcua session lost",
        }))
        .await
    }

    async fn up(&mut self, held: &mut Held) -> Result<(), Over> {
        self.was_up = true;
        held.is_cut_off = false;
        held.start_over_silence();
        // After a reconnect the library publishes only once it is told to.
        held.session.trigger_publish_now();
        let (session, namespaces) = (held.session.clone(), held.namespaces.clone());
        self.report(Report::Up(session, namespaces, held.limits)).await
    }

    async fn take(&mut self, held: &mut Held, note: Note) -> Result<(), Over> {
        let has_data = has_data(&note.message);
        let now_us = held.now_us();
        let subscription = &mut held.items.subscriptions[note.subscription];
        let heard_before_us = std::mem::replace(&mut subscription.heard_at_us, clock::now_us());
        subscription.heard_us = now_us;
        match subscription.sequence.take(note.message.sequence_number, has_data) {
            Step::Next => {}
            Step::Again => return Ok(()),
            Step::Missing(missing) => {
                self.fetch(held, note.subscription, missing, heard_before_us)
                    .await?;
            }
        }
        self.deliver(held, note.message).await
    }

    /// Asks for messages that did not come; what the server does not have any more is a gap.
    async fn fetch(
        &mut self,
        held: &mut Held,
        subscription: usize,
        missing: Missing,
        from_us: i64,
    ) -> Result<(), Over> {
        let mut lost = missing.count;
        for number in missing.numbers() {
            if let Some(message) = held.republished(subscription, number).await? {
                lost -= 1;
                self.deliver(held, message).await?;
            } else {
                held.items.subscriptions[subscription].sequence.give_up(number);
            }
        }
        if lost == 0 {
            return Ok(());
        }
        tracing::warn!(messages = lost, "notification messages are lost");
        self.report(Report::Gap(Lost {
            slots: Some(held.items.slots_of(subscription)),
            from_us,
            to_us: clock::now_us(),
            messages: lost,
            reason: "opcua notifications lost",
        }))
        .await
    }

    async fn deliver(&mut self, held: &mut Held, message: NotificationMessage) -> Result<(), Over> {
        let now_us = held.now_us();
        for part in message.notification_data.into_iter().flatten() {
            if let Some(change) = part.inner_as::<StatusChangeNotification>() {
                return Err(failure("subscription", &change.status.to_string()).into());
            }
            let Some(data) = part.into_inner_as::<DataChangeNotification>() else {
                continue;
            };
            let values = data.monitored_items.unwrap_or_default();
            *self.heard_at_us = Some(clock::now_us());
            if let Some(pulse) = &mut held.pulse {
                for value in &values {
                    match &value.value.value {
                        Some(Variant::DateTime(time)) if value.client_handle == pulse::HANDLE => {
                            pulse.beat(**time, now_us);
                            self.judge_clock(time.as_chrono().timestamp_micros())?;
                        }
                        _ if value.client_handle != pulse::HANDLE => pulse.value(now_us),
                        _ => {}
                    }
                }
            }
            let shifted_us = if self.learned.is_skewed {
                client::shifted_us(&held.session)
            } else {
                0
            };
            self.report(Report::Values(values, shifted_us)).await?;
        }
        Ok(())
    }

    /// Looks whether the session still gives signs of life.
    async fn look(&mut self, held: &mut Held) -> Result<(), Over> {
        let now_us = held.now_us();
        let stands_still = held
            .pulse
            .as_ref()
            .is_some_and(|pulse| pulse.silent_for(now_us) >= self.learned.pulse_patience);
        let is_silent = held.items.subscriptions.iter().any(|subscription| {
            let silent_us = now_us.saturating_sub(subscription.heard_us);
            silent_us >= 0 && silent_us as u128 > subscription.silence_max.as_micros()
        });
        if stands_still || is_silent {
            self.probe(held).await?;
        }
        Ok(())
    }

    /// Nothing came for too long. A server that answers and sends nothing is left, frozen or not; one that does not
    /// answer may only be cut off, and its session is worth resuming.
    async fn probe(&mut self, held: &mut Held) -> Result<(), Over> {
        let clock_node = [NodeId::from(VariableId::Server_ServerStatus_CurrentTime)];
        let asked = client::read_chunk(&held.session, &clock_node);
        let Ok(Ok(values)) = tokio::time::timeout(PROBE_WITHIN, asked).await else {
            if !held.is_cut_off {
                held.is_cut_off = true;
                self.report(Report::Down("the server does not answer".to_owned()))
                    .await?;
            }
            held.start_over_silence();
            return Ok(());
        };
        let time = values.into_iter().next().and_then(|value| value.value);
        if let (Some(Variant::DateTime(time)), Some(pulse)) = (time, &held.pulse)
            && pulse.stands_at(*time)
        {
            self.learned.clock_stood_still();
            return Err(failure(
                "server clock",
                "stands still, and no value comes: the server is frozen",
            )
            .into());
        }
        Err(failure(
            "subscription",
            "the server answers and sends neither values nor keep-alives",
        )
        .into())
    }

    async fn event(
        &mut self,
        held: &mut Held,
        event: Option<Event>,
        pki_dir: &std::path::Path,
    ) -> Result<(), Over> {
        let status = match event {
            Some(Event::Lost(status) | Event::Failed(status)) => status,
            Some(Event::NoSubscription) => {
                return Err(failure("Publish", "the server has dropped the subscriptions").into());
            }
            Some(Event::Connected(mode)) => return self.resume(held, &mode).await,
            None => return Err(failure("session", "ended").into()),
        };
        self.report(Report::Down(format!("session failed: {status}")))
            .await?;
        let lost = Instant::now();
        loop {
            let left = held.server.session_timeout.saturating_sub(lost.elapsed());
            let next = tokio::select! {
                next = tokio::time::timeout(left, held.events.recv()) => next,
                () = self.reports.closed() => return Err(Over::Closed),
            };
            match next {
                Ok(Some(Event::Connected(mode))) => return self.resume(held, &mode).await,
                Ok(Some(Event::Failed(_))) => {
                    let server = self.desired.borrow().server.clone();
                    if !server.has_same_session(&held.server) {
                        return Err(Over::Reconfigured);
                    }
                    self.still_trusted(held, pki_dir).await?;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(failure("session", "ended").into()),
                Err(_) => {
                    return Err(failure(
                        "session",
                        "the server was away for longer than it keeps a session",
                    )
                    .into());
                }
            }
        }
    }

    /// A server that came back with another certificate cannot be reached in the old session.
    async fn still_trusted(&mut self, held: &Held, pki_dir: &std::path::Path) -> Result<(), Over> {
        if !held.server.security.is_on() {
            return Ok(());
        }
        let Ok(pki) = Pki::open(pki_dir) else {
            return Ok(());
        };
        match endpoint::approach(&held.server, &pki).await {
            Err(ended @ Ended::Refused(_)) => Err(Over::Ended(ended)),
            Err(Ended::Lost(_)) => Ok(()),
            Ok(approach) => {
                let used = &held.session.endpoint_info().endpoint.server_certificate;
                if approach.endpoint.server_certificate == *used {
                    Ok(())
                } else {
                    Err(failure("session", "the server has a new certificate, which is trusted").into())
                }
            }
        }
    }

    /// Takes up the subscriptions where they stood.
    async fn resume(&mut self, held: &mut Held, mode: &SessionConnectMode) -> Result<(), Over> {
        if client::namespaces(&held.session).await? != *held.namespaces {
            return Err(failure("session", "the server has other namespaces now").into());
        }
        if let SessionConnectMode::NewSession(_) = mode {
            held.transfer().await?;
        }
        for subscription in 0..held.items.subscriptions.len() {
            let from_us = held.items.subscriptions[subscription].heard_at_us;
            while let Some(number) = held.items.subscriptions[subscription].sequence.expected() {
                let Some(message) = held.republished(subscription, number).await? else {
                    break;
                };
                let sequence = &mut held.items.subscriptions[subscription].sequence;
                if let Step::Missing(missing) = sequence.take(number, true) {
                    self.fetch(held, subscription, missing, from_us).await?;
                }
                self.deliver(held, message).await?;
            }
        }
        tracing::info!(source = %held.server.name, ?mode, "OPC UA session resumed");
        self.up(held).await
    }
}

fn has_data(message: &NotificationMessage) -> bool {
    message
        .notification_data
        .as_ref()
        .is_some_and(|data| !data.is_empty())
}

impl Held {
    fn now_us(&self) -> i64 {
        self.start.elapsed().as_micros() as i64
    }

    /// Silence counts from now.
    fn start_over_silence(&mut self) {
        let now_us = self.now_us();
        for subscription in &mut self.items.subscriptions {
            subscription.heard_us = now_us;
        }
        if let Some(pulse) = &mut self.pulse {
            pulse.value(now_us);
        }
    }

    /// A message that was sent before; none when the server does not have it (any more).
    async fn republished(
        &self,
        subscription: usize,
        number: u32,
    ) -> Result<Option<NotificationMessage>, SourceError> {
        let id = self.items.subscriptions[subscription].id;
        let call = self.session.republish(id, number);
        match tokio::time::timeout(client::REQUEST_WITHIN, call).await {
            // Some servers answer with an empty message instead of BadMessageNotAvailable.
            Ok(Ok(message)) if message.sequence_number == number && has_data(&message) => Ok(Some(message)),
            Ok(Err(error)) if error.status() == StatusCode::BadSubscriptionIdInvalid => {
                Err(failure("Republish", "the server has dropped the subscription"))
            }
            Ok(_) => Ok(None),
            Err(_) => Err(failure("Republish", "no reply in time")),
        }
    }

    /// Takes the subscriptions over into the new session.
    ///
    /// # Errors
    /// When the server does not transfer every one of them: then all is begun anew, so that no item is there twice.
    async fn transfer(&self) -> Result<(), SourceError> {
        let ids: Vec<u32> = self
            .items
            .subscriptions
            .iter()
            .map(|subscription| subscription.id)
            .collect();
        let call = self.session.transfer_subscriptions(&ids, false);
        let results = in_time("TransferSubscriptions", call).await?;
        let refused = results.iter().find(|result| result.status_code.is_bad());
        if results.len() == ids.len() && refused.is_none() {
            return Ok(());
        }
        let status = refused.map_or(StatusCode::BadUnexpectedError, |result| result.status_code);
        Err(failure("TransferSubscriptions", &status.to_string()))
    }
}
