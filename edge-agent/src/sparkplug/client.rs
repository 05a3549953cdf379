//! How does the edge node hold its connection? Will, wait for the primary host, births, data; devices die and come back
//! with their sources; while nobody listens the readings wait, and come as historical.

use std::{
    collections::{HashSet, VecDeque},
    fs, io,
    sync::Arc,
    time::Duration,
};

use protocol::{
    Reading,
    sparkplug::{
        HostState, Outgoing,
        edge_node::{EdgeNode, NodeCommand},
        state_topic,
    },
};
use rumqttc::{
    Transport,
    v5::{
        AsyncClient, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{ConnectReturnCode, LastWill, Packet},
        },
    },
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Tapped, config::Node};
use crate::{
    clock,
    health::{Health, SourceState},
    uplink::backoff::Backoff,
};

const KEEP_ALIVE: Duration = Duration::from_secs(10);
const PACKET_BYTES_MAX: u32 = 2 << 20;
const CHANNEL: usize = 256;
/// How often the sources' states are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A primary host that is not online within this: the next server is tried.
const HOST_WITHIN: Duration = Duration::from_secs(15);
/// How long the death certificate may take to be acknowledged.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Readings of one historical message.
const HISTORICAL_AT_ONCE: usize = 1_000;

/// Runs the node until `stop`.
pub async fn run(
    node: Node,
    mut edge: EdgeNode,
    mut tapped: Tapped,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    let mut stored = Stored::new(node.store_readings_max);
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    for address in node.addresses.iter().cycle() {
        let ended = match options(&node, address, &edge.connect(clock::now_us())) {
            Ok(options) => {
                let mut connection = Connection::new(&node, options, &mut edge, &mut stored, &health);
                connection.hold(&mut tapped, &stop).await
            }
            Err(error) => Ended {
                reason: error.to_string(),
                was_born: false,
            },
        };
        if stop.is_cancelled() {
            return;
        }
        if ended.was_born {
            backoff.reset();
        }
        tracing::warn!(%address, reason = %ended.reason, "sparkplug: not connected");
        let pause = tokio::time::sleep(backoff.next(&mut rand::rng()));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = stop.cancelled() => return,
                readings = tapped.next() => match readings {
                    Some(readings) => stored.keep(&readings),
                    None => return,
                },
            }
        }
    }
}

/// Readings that wait for somebody to listen; the oldest go first.
struct Stored {
    readings: VecDeque<Reading>,
    max: usize,
    dropped: u64,
}

impl Stored {
    fn new(max: usize) -> Self {
        Self {
            readings: VecDeque::new(),
            max,
            dropped: 0,
        }
    }

    fn keep(&mut self, readings: &[Reading]) {
        for reading in readings {
            if self.readings.len() >= self.max {
                self.dropped += 1;
                self.readings.pop_front();
            }
            if self.max > 0 {
                self.readings.push_back(*reading);
            }
        }
    }

    fn take(&mut self) -> Vec<Reading> {
        if self.dropped > 0 {
            tracing::warn!(
                readings = self.dropped,
                "sparkplug: oldest stored readings given up; the hub has them"
            );
            self.dropped = 0;
        }
        let count = self.readings.len().min(HISTORICAL_AT_ONCE);
        self.readings.drain(..count).collect()
    }
}

/// What follows from a message.
#[derive(PartialEq, Eq)]
enum Next {
    Stay,
    Leave,
}

struct Ended {
    reason: String,
    was_born: bool,
}

struct Connection<'a> {
    node: &'a Node,
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, String>>,
    _polling: AbortOnDropHandle<()>,
    edge: &'a mut EdgeNode,
    stored: &'a mut Stored,
    health: &'a Health,
    was_born: bool,
    up: HashSet<String>,
}

impl<'a> Connection<'a> {
    fn new(
        node: &'a Node,
        options: MqttOptions,
        edge: &'a mut EdgeNode,
        stored: &'a mut Stored,
        health: &'a Health,
    ) -> Self {
        let (client, event_loop) = AsyncClient::new(options, CHANNEL);
        let (tell, events) = mpsc::channel(CHANNEL);
        let polling = tokio::spawn(poll(event_loop, tell));
        Self {
            node,
            client,
            events,
            _polling: AbortOnDropHandle::new(polling),
            edge,
            stored,
            health,
            was_born: false,
            up: HashSet::new(),
        }
    }

    async fn hold(&mut self, tapped: &mut Tapped, stop: &CancellationToken) -> Ended {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let waiting_since = tokio::time::Instant::now();
        let mut is_connected = false;
        let reason = loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Ok(Event::Incoming(Packet::ConnAck(ack)))) if ack.code == ConnectReturnCode::Success => {
                        is_connected = true;
                        if let Err(reason) = self.subscribe() {
                            break reason;
                        }
                    }
                    Some(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        if self.received(&topic, &publish.payload) == Next::Leave {
                            self.leave().await;
                            break "the primary host is offline here".to_owned();
                        }
                    }
                    Some(Ok(Event::Incoming(Packet::Disconnect(_)))) => break "the broker closed the connection".to_owned(),
                    Some(Ok(_)) => {}
                    Some(Err(reason)) => break reason,
                    None => break "the connection ended".to_owned(),
                },
                readings = tapped.next() => match readings {
                    Some(readings) => self.read(&readings),
                    None => break "the agent is shutting down".to_owned(),
                },
                _ = look.tick() => {
                    if self.edge.is_born() {
                        self.look(tapped.has_missed());
                    } else if is_connected && waiting_since.elapsed() >= HOST_WITHIN {
                        break "the primary host is not online here".to_owned();
                    }
                }
                () = stop.cancelled() => {
                    self.leave().await;
                    break "the agent is shutting down".to_owned();
                }
            }
        };
        Ended {
            reason,
            was_born: self.was_born,
        }
    }

    fn subscribe(&mut self) -> Result<(), String> {
        let mut topics = self.edge.subscriptions().to_vec();
        topics.extend(self.node.primary_host.as_deref().map(state_topic));
        for topic in topics {
            self.client
                .try_subscribe(topic, QoS::AtLeastOnce)
                .map_err(|error| error.to_string())?;
        }
        if self.node.primary_host.is_none() {
            self.birth();
        }
        Ok(())
    }

    fn publish(&self, message: Outgoing) {
        let qos = if message.is_acknowledged {
            QoS::AtLeastOnce
        } else {
            QoS::AtMostOnce
        };
        if self
            .client
            .try_publish(message.topic, qos, false, message.payload)
            .is_err()
        {
            // The sequence then has a gap, and the host asks for a rebirth, as the specification has it.
            tracing::debug!("sparkplug: message dropped, the broker takes nothing now");
        }
    }

    fn birth(&mut self) {
        self.was_born = true;
        self.up = up(self.health);
        let up = self.up.clone();
        for message in self.edge.birth(|name| up.contains(name), clock::now_us()) {
            self.publish(message);
        }
    }

    fn read(&mut self, readings: &[Reading]) {
        let now_us = clock::now_us();
        let messages = self.edge.data(readings, false, now_us);
        if !self.edge.is_born() {
            self.stored.keep(readings);
        }
        for message in messages {
            self.publish(message);
        }
    }

    /// Devices follow their sources; what was stored goes out piece by piece beside what is new.
    fn look(&mut self, has_missed: bool) {
        if has_missed {
            self.birth();
        }
        let now_us = clock::now_us();
        let up = up(self.health);
        let gone: Vec<String> = self.up.difference(&up).cloned().collect();
        let come: Vec<String> = up.difference(&self.up).cloned().collect();
        let deaths = gone
            .iter()
            .filter_map(|name| self.edge.device_death(name, now_us));
        let mut messages: Vec<Outgoing> = deaths.collect();
        messages.extend(
            come.iter()
                .filter_map(|name| self.edge.device_birth(name, now_us)),
        );
        self.up = up;
        let stored = self.stored.take();
        messages.extend(self.edge.data(&stored, true, now_us));
        for message in messages {
            self.publish(message);
        }
    }

    fn received(&mut self, topic: &str, payload: &[u8]) -> Next {
        if self.node.primary_host.as_deref().map(state_topic).as_deref() == Some(topic) {
            return self.host_said(topic, payload);
        }
        match self.edge.command(topic, payload) {
            Ok(NodeCommand::Rebirth) => self.birth(),
            Ok(NodeCommand::Refused { metrics }) => {
                tracing::warn!(%topic, ?metrics, "sparkplug: a command to write was refused; this node only reads");
            }
            Err(reason) => tracing::warn!(%topic, %reason, "sparkplug: a command cannot be read"),
        }
        Next::Stay
    }

    /// A host that went away is left at once, and so is a server where it is not, when there is another one
    /// (tck-id-operational-behavior-primary-application-state-with-multiple-servers-walk). Without another one the node
    /// waits here: it would find the same word again.
    fn host_said(&mut self, topic: &str, payload: &[u8]) -> Next {
        let Ok(state) = serde_json::from_slice::<HostState>(payload) else {
            tracing::warn!(%topic, "sparkplug: the primary host's state cannot be read");
            return Next::Stay;
        };
        let (may_be_born, is_born) = (self.edge.host_said(state), self.edge.is_born());
        if may_be_born && !is_born {
            self.birth();
        }
        if !may_be_born && (is_born || self.node.addresses.len() > 1) {
            return Next::Leave;
        }
        Next::Stay
    }

    /// The death certificate, and then the end of the connection without a DISCONNECT: with one the server would have to
    /// be told to deliver the will all the same (tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt50).
    async fn leave(&mut self) {
        if !self.edge.is_born() {
            return;
        }
        self.publish(self.edge.death(clock::now_us()));
        let telling = async {
            while let Some(Ok(event)) = self.events.recv().await {
                if matches!(event, Event::Incoming(Packet::PubAck(_))) {
                    return;
                }
            }
        };
        if tokio::time::timeout(LEAVE_WITHIN, telling).await.is_err() {
            tracing::debug!("sparkplug: the broker was not told");
        }
    }
}

/// Polls by itself: a poll that is given up while it connects begins again with another socket, so that a server further
/// away than the next reading would never be reached.
async fn poll(mut event_loop: EventLoop, tell: mpsc::Sender<Result<Event, String>>) {
    loop {
        let event = event_loop.poll().await.map_err(|error| error.to_string());
        let has_ended = event.is_err();
        if tell.send(event).await.is_err() || has_ended {
            return;
        }
    }
}

/// The sources that give readings.
fn up(health: &Health) -> HashSet<String> {
    let sources = health.sources();
    let up = sources.iter().map(|source| source.snapshot());
    up.filter(|source| source.state == SourceState::Up)
        .map(|source| source.name)
        .collect()
}

fn options(node: &Node, address: &str, will: &Outgoing) -> io::Result<MqttOptions> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "1883"));
    let client_id = format!("{}/{}", node.group_id, node.node_id);
    let mut options = MqttOptions::new(client_id, host, port.parse().unwrap_or(1883));
    let will = LastWill::new(&will.topic, will.payload.clone(), QoS::AtLeastOnce, false, None);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_session_expiry_interval(Some(0))
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        .set_last_will(will);
    if let Some(user) = &node.user {
        let password = node.password_file.as_ref().map(fs::read_to_string).transpose()?;
        options.set_credentials(user, password.unwrap_or_default().trim_end());
    }
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    if let Some(path) = &node.ca_file {
        options.set_transport(Transport::tls(fs::read(path)?, None, None));
    }
    Ok(options)
}
