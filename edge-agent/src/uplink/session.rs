//! What happens on one connection? Subscribe, say who we are, send dictionaries, then frames as the window allows.
//!
//! One task polls the connection and never publishes: publishing from there deadlocks once the channel is full.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use protocol::{ack, envelope::payload_crc, lane::Lane, topic::Channel};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CHANNEL, Uplink,
    window::{Step, Want, Window},
};
use crate::{
    clock,
    health::UplinkState,
    pipeline::alarm,
    spool::record::{Key, Record},
};

const STATUS_EVERY: Duration = Duration::from_secs(10);
/// A frame older than this when it is sent is backlog to the broker's priorities; its identity stays.
const BACKLOG_AGE_US: i64 = 5_000_000;
/// Messages from the hub that may wait; one that does not fit is sent again, because its frames are.
const MESSAGES_WAITING_MAX: usize = 1_024;
/// How often a capped backlog is looked at.
const REFILL_EVERY: Duration = Duration::from_millis(50);
/// How long a clean goodbye may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub reason: String,
    /// Whether it was ever established.
    pub was_online: bool,
}

enum Message {
    Connected,
    Acknowledgements(Vec<u8>),
    Command(Vec<u8>),
}

/// Holds one connection until it is lost or `stop`.
pub async fn hold(uplink: &Uplink, options: MqttOptions, stop: &CancellationToken) -> Ended {
    let (client, event_loop) = AsyncClient::new(options, CHANNEL);
    let (tx, mut messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    let mut poller = tokio::spawn(poll(event_loop, tx, uplink.topic(Channel::Command)));
    let mut session = Session {
        uplink,
        client,
        window: Window::new(uplink.hub.drain_readings_per_s),
        start: Instant::now(),
        was_online: false,
        said: HashSet::new(),
        rewinds: uplink.outbox.changed().borrow().rewinds,
    };
    let reason = tokio::select! {
        reason = session.run(&mut messages) => reason,
        lost = &mut poller => lost.unwrap_or_else(|panic| format!("the connection failed: {panic}")),
        () = stop.cancelled() => {
            session.goodbye().await;
            "the agent is shutting down".to_owned()
        }
    };
    poller.abort();
    Ended {
        reason,
        was_online: session.was_online,
    }
}

/// Drives the connection; ends at its first error, with the reason.
async fn poll(mut event_loop: EventLoop, tx: mpsc::Sender<Message>, commands: String) -> String {
    loop {
        let message = match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Message::Connected,
            Ok(Event::Incoming(Packet::Publish(publish))) if publish.topic == commands.as_bytes() => {
                Message::Command(publish.payload.to_vec())
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                Message::Acknowledgements(publish.payload.to_vec())
            }
            Ok(Event::Incoming(Packet::Disconnect(disconnect))) => {
                return format!("the hub closed the connection: {:?}", disconnect.reason_code);
            }
            Ok(_) => continue,
            Err(error) => return error.to_string(),
        };
        // A message that does not fit may be dropped: what it acknowledged is sent and acknowledged again, and a
        // command is repeated until it is answered.
        if tx.try_send(message).is_err() {
            tracing::debug!("a message of the hub was dropped");
        }
    }
}

/// The connection no longer takes anything; its poller says why.
struct Gone;

struct Session<'a> {
    uplink: &'a Uplink,
    client: AsyncClient,
    window: Window,
    start: Instant,
    was_online: bool,
    /// Dictionaries sent on this connection.
    said: HashSet<Uuid>,
    rewinds: u64,
}

impl Session<'_> {
    async fn run(&mut self, messages: &mut mpsc::Receiver<Message>) -> String {
        match self.serve(messages).await {
            Ok(reason) => reason,
            // The poller ends too, with the reason; it is preferred by being awaited beside this.
            Err(Gone) => std::future::pending().await,
        }
    }

    async fn serve(&mut self, messages: &mut mpsc::Receiver<Message>) -> Result<String, Gone> {
        let mut changed = self.uplink.outbox.changed();
        let mut status = tokio::time::interval(STATUS_EVERY);
        let mut refill = tokio::time::interval(REFILL_EVERY);
        refill.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    None => return Err(Gone),
                    Some(Message::Connected) => self.introduce().await?,
                    Some(Message::Acknowledgements(bytes)) => self.acknowledged(&bytes).await?,
                    Some(Message::Command(bytes)) => {
                        if self.uplink.commands.try_send(bytes).is_err() {
                            tracing::warn!("too many commands at once: the hub sends this one again");
                        }
                    }
                },
                result = changed.changed(), if self.was_online => {
                    if result.is_err() {
                        return Ok("the spool is closed".to_owned());
                    }
                    let stored = changed.borrow_and_update().clone();
                    self.window.add_fresh(&stored.live);
                    if stored.rewinds != self.rewinds {
                        self.rewinds = stored.rewinds;
                        self.window.rewind();
                    }
                    self.window.stored();
                }
                _ = refill.tick(), if self.was_online && self.window.is_held_back() => {}
                _ = status.tick(), if self.was_online => {
                    let late = self.window.time_out(self.start.elapsed());
                    if late > 0 {
                        tracing::warn!(frames = late, "no acknowledgement in time: sending again");
                    }
                    self.say_status().await?;
                }
            }
            self.pump().await?;
        }
    }

    async fn introduce(&mut self) -> Result<(), Gone> {
        let uplink = self.uplink;
        self.was_online = true;
        uplink.health.uplink.set(UplinkState::Online);
        uplink
            .health
            .uplink
            .connections
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(hub = %uplink.hub.mqtt, "hub connected");
        for channel in [Channel::Ack, Channel::Command] {
            self.client
                .subscribe(uplink.topic(channel), QoS::AtLeastOnce)
                .await
                .map_err(|_| Gone)?;
        }
        self.say_status().await?;
        for id in uplink.outbox.dictionaries().await {
            self.say_dictionary(id).await?;
        }
        Ok(())
    }

    async fn publish(&self, channel: Channel, payload: Vec<u8>) -> Result<(), Gone> {
        use std::sync::atomic::Ordering::Relaxed;
        self.uplink
            .health
            .uplink
            .sent_bytes
            .fetch_add(payload.len() as u64, Relaxed);
        self.client
            .publish(self.uplink.topic(channel), QoS::AtLeastOnce, false, payload)
            .await
            .map_err(|_| Gone)
    }

    async fn say_status(&self) -> Result<(), Gone> {
        self.publish(Channel::Status, self.uplink.status(true)).await
    }

    /// Whether the dictionary is there and was sent.
    async fn say_dictionary(&mut self, id: Uuid) -> Result<bool, Gone> {
        if let Some(dictionary) = self.uplink.outbox.dictionary(id).await {
            self.publish(Channel::Dictionary, dictionary).await?;
            self.said.insert(id);
            return Ok(true);
        }
        tracing::error!(%id, "a dictionary that frames need is gone");
        Ok(false)
    }

    async fn acknowledged(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let acks = match ack::decode(bytes) {
            Ok(acks) => acks,
            Err(error) => {
                tracing::warn!(%error, "the hub sent no acknowledgement");
                return Ok(());
            }
        };
        let mut done = Vec::new();
        for ack in acks {
            match self.window.acknowledged(ack) {
                None => {}
                Some(Step::Delete(id, key)) => done.push((id, key)),
                Some(Step::Rejected(id, key, reason)) => {
                    done.push((id, key));
                    self.rejected(&reason).await;
                }
                Some(Step::SendDictionary(id, key)) => {
                    // Without its dictionary a frame would be asked about for ever; it waits for the next connection.
                    let is_sent = self.say_dictionary(id).await?;
                    self.window.send_again(key.filter(|_| is_sent));
                }
            }
        }
        if !done.is_empty() {
            self.uplink.outbox.remove(done).await;
        }
        Ok(())
    }

    async fn rejected(&self, reason: &str) {
        use std::sync::atomic::Ordering::Relaxed;
        self.uplink.health.uplink.rejected_frames.fetch_add(1, Relaxed);
        let message = format!("the hub keeps a frame as a dead letter: {reason}");
        let edge = &self.uplink.edge.name;
        self.uplink
            .raise(alarm("frame.rejected", edge, &message, clock::now_us()))
            .await;
    }

    /// Sends what the window has room for.
    async fn pump(&mut self) -> Result<(), Gone> {
        if !self.was_online {
            return Ok(());
        }
        self.window.refill(self.start.elapsed());
        while let Some(want) = self.window.want() {
            let frames = match want {
                Want::Keys(keys) => self.uplink.outbox.get(keys).await,
                Want::After(lane, after, max) => {
                    let frames = self.uplink.outbox.after(lane, after, max).await;
                    let keys: Vec<Key> = frames.iter().map(|(key, _)| *key).collect();
                    self.window.fetched(lane, &keys);
                    frames
                }
            };
            for (key, record) in frames {
                self.send(key, record).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, key: Key, record: Record) -> Result<(), Gone> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.window.is_sent(key) {
            return Ok(());
        }
        let is_old = clock::now_us() - record.meta.sealed_us > BACKLOG_AGE_US;
        let lane = match key.lane {
            Lane::Events => Lane::Events,
            _ if is_old => Lane::Backfill,
            lane => lane,
        };
        // One that came into use on this connection; the hub asks for one that is gone.
        if !self.said.contains(&record.meta.dictionary) {
            self.say_dictionary(record.meta.dictionary).await?;
        }
        if lane == Lane::Backfill {
            self.window.spend(record.meta.readings);
        }
        let crc = payload_crc(&record.envelope);
        self.window.sent(
            record.meta.id,
            key,
            crc,
            self.start.elapsed(),
            lane == Lane::Backfill,
        );
        self.uplink.health.uplink.sent_frames.fetch_add(1, Relaxed);
        self.publish(Channel::Up(lane), record.envelope).await
    }

    /// Says that the edge is leaving on purpose.
    async fn goodbye(&self) {
        if !self.was_online {
            return;
        }
        let leave = async {
            let said = self.publish(Channel::Status, self.uplink.status(false)).await;
            if said.is_ok() && self.client.disconnect().await.is_ok() {
                // The poller must get the packets out.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(GOODBYE_WITHIN, leave).await.is_err() {
            tracing::debug!("the hub was not told");
        }
    }
}
