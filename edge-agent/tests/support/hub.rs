//! A hub written for tests: an MQTT 5 server for one edge that stores frames by identity and acknowledges them, or
//! stays silent, or rejects, or asks for the dictionary first. It gives commands until they are answered, and speaks
//! TLS with client certificates where asked to.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::BytesMut;
use protocol::{
    Reading,
    ack::{self, Acknowledgement, Outcome, Subject},
    command::{self, Command, CommandOutcome},
    event::Event,
    frame::{Frame, FrameId},
    lane::Lane,
    tag::Dictionary,
    topic::{Channel, Topic},
};
use rumqttc::v5::mqttbytes::{
    Error, QoS,
    v5::{ConnAck, ConnectReturnCode, Packet, PingResp, PubAck, Publish, SubAck, SubscribeReasonCode},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

/// What the hub does with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Store and acknowledge.
    #[default]
    Store,
    /// Take it on the wire (PUBACK) and neither store nor acknowledge it.
    Silent,
    /// Ask for the dictionary until it came on this connection, then store.
    AskForDictionary,
    /// Keep as a dead letter.
    Reject,
    /// Refuse the connection.
    RefuseConnection,
    /// Take every byte and answer nothing, not even a ping.
    BlackHole,
}

/// What reached the hub.
#[derive(Debug, Default)]
pub struct Stored {
    /// Frames by identity: each once, however often it was sent.
    pub frames: BTreeMap<FrameId, Frame>,
    /// Envelopes by identity, to show that a repeated frame is the same to the byte.
    pub envelopes: HashMap<FrameId, Vec<u8>>,
    /// Frames that came again.
    pub repeats: usize,
    /// Lane names of the topics used, in order.
    pub topics: Vec<String>,
    /// Dictionaries by content id.
    pub dictionaries: HashMap<Uuid, Dictionary>,
    /// Status messages.
    pub statuses: Vec<serde_json::Value>,
    /// User names that signed in.
    pub users: Vec<String>,
    /// Of each sign-in, whether it came with a client certificate.
    pub certificates: Vec<bool>,
    /// Frames that were stored, in order of arrival, repeats included.
    pub arrivals: Vec<Arrival>,
}

/// One frame that came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The lane of the topic.
    pub lane: Lane,
    /// Its identity.
    pub id: FrameId,
    /// Readings in it.
    pub readings: usize,
    /// When it was sealed.
    pub sealed_us: i64,
    /// When it came, by the same clock.
    pub arrived_us: i64,
}

impl Stored {
    /// Every event, in order of identity.
    pub fn events(&self) -> Vec<Event> {
        self.frames
            .values()
            .flat_map(|frame| frame.events.clone())
            .collect()
    }

    /// The answers to a command, in order of identity.
    pub fn answers(&self, id: Uuid) -> Vec<CommandOutcome> {
        let events = self.events().into_iter();
        let answers = events.filter_map(|event| match event {
            Event::CommandResult(result) if result.id == id => Some(result.outcome),
            _ => None,
        });
        answers.collect()
    }

    /// The readings of a tag, in order of identity.
    pub fn of<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = &'a Reading> {
        self.frames.values().flat_map(move |frame| {
            let dictionary = &self.dictionaries[&frame.header.dictionary];
            let readings = frame.readings.iter();
            readings.filter(move |reading| dictionary.tag(reading.tag).unwrap().name == tag)
        })
    }

    pub fn readings(&self) -> usize {
        self.frames.values().map(|frame| frame.readings.len()).sum()
    }
}

/// A running hub.
#[derive(Debug)]
pub struct Hub {
    pub address: SocketAddr,
    pub stored: Arc<Mutex<Stored>>,
    policy: Arc<Mutex<Policy>>,
    changed: watch::Receiver<u64>,
    commands: watch::Sender<Vec<Command>>,
    cut: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Hub {
    pub async fn start(policy: Policy) -> Self {
        Self::start_with(policy, None).await
    }

    /// A hub that speaks TLS only.
    pub async fn start_with(policy: Policy, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stored = Arc::new(Mutex::new(Stored::default()));
        let policy = Arc::new(Mutex::new(policy));
        let (tx, changed) = watch::channel(0);
        let (commands, commands_rx) = watch::channel(Vec::new());
        let (cut, cut_rx) = watch::channel(0);
        let connection = Connection {
            stored: stored.clone(),
            policy: policy.clone(),
            changed: Arc::new(tx),
            commands: commands_rx,
            cut: cut_rx,
            is_subscribed: false,
        };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (connection, tls) = (connection.clone(), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        return connection.serve(stream, false).await;
                    };
                    if let Ok(stream) = tls.accept(stream).await {
                        let has_certificate = stream.get_ref().1.peer_certificates().is_some();
                        connection.serve(stream, has_certificate).await;
                    }
                });
            }
        });
        Self {
            address,
            stored,
            policy,
            changed,
            commands,
            cut,
            task,
        }
    }

    /// Gives a command, now and on every connection, whether it was answered or not.
    pub fn command(&self, command: Command) {
        self.commands.send_modify(|commands| commands.push(command));
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Waits for the first answer to a command.
    pub async fn answer(&self, id: Uuid) -> CommandOutcome {
        self.until("an answer", |stored| !stored.answers(id).is_empty())
            .await;
        self.stored.lock().unwrap().answers(id).remove(0)
    }

    /// Cuts every connection, as a hub does that ends.
    pub fn drop_connections(&self) {
        self.cut();
    }

    pub fn set_policy(&self, policy: Policy) {
        *self.policy.lock().unwrap() = policy;
    }

    /// Waits until what was stored satisfies `enough`; panics after a while.
    pub async fn until(&self, what: &str, enough: impl Fn(&Stored) -> bool) {
        let mut changed = self.changed.clone();
        let waiting = async {
            while !enough(&self.stored.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        let within = tokio::time::timeout(std::time::Duration::from_mins(1), waiting).await;
        assert!(within.is_ok(), "the hub never saw {what}");
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Connection {
    stored: Arc<Mutex<Stored>>,
    policy: Arc<Mutex<Policy>>,
    changed: Arc<watch::Sender<u64>>,
    commands: watch::Receiver<Vec<Command>>,
    cut: watch::Receiver<u64>,
    is_subscribed: bool,
}

impl Connection {
    async fn serve(mut self, mut stream: impl AsyncRead + AsyncWrite + Unpin, has_certificate: bool) {
        let mut bytes = BytesMut::new();
        let mut has_dictionary = false;
        self.cut.mark_unchanged();
        let (mut commands, mut cut) = (self.commands.clone(), self.cut.clone());
        loop {
            let packet = match Packet::read(&mut bytes, Some(4 << 20)) {
                Ok(packet) => packet,
                Err(Error::InsufficientBytes(_)) => {
                    tokio::select! {
                        read = stream.read_buf(&mut bytes) => match read {
                            Ok(count) if count > 0 => {}
                            _ => return,
                        },
                        _ = commands.changed(), if self.is_subscribed => {
                            let given = commands.borrow_and_update().clone();
                            if stream.write_all(&all_commands(&given)).await.is_err() {
                                return;
                            }
                        }
                        _ = cut.changed() => return,
                    }
                    continue;
                }
                Err(_) => return,
            };
            if matches!(packet, Packet::Connect(..)) {
                self.stored.lock().unwrap().certificates.push(has_certificate);
            }
            if let Packet::Subscribe(subscribe) = &packet
                && subscribe
                    .filters
                    .iter()
                    .any(|filter| filter.path.ends_with("/cmd"))
            {
                self.is_subscribed = true;
                commands.mark_changed();
            }
            let mut out = BytesMut::new();
            for reply in self.answer(packet, &mut has_dictionary) {
                reply.write(&mut out, None).unwrap();
            }
            if stream.write_all(&out).await.is_err() {
                return;
            }
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn answer(&self, packet: Packet, has_dictionary: &mut bool) -> Vec<Packet> {
        let policy = *self.policy.lock().unwrap();
        if policy == Policy::BlackHole {
            return Vec::new();
        }
        match packet {
            Packet::Connect(_, _, login) => {
                let user = login.map(|login| login.username).unwrap_or_default();
                self.stored.lock().unwrap().users.push(user);
                let code = if policy == Policy::RefuseConnection {
                    ConnectReturnCode::NotAuthorized
                } else {
                    ConnectReturnCode::Success
                };
                vec![Packet::ConnAck(ConnAck {
                    session_present: false,
                    code,
                    properties: None,
                })]
            }
            Packet::Subscribe(subscribe) => vec![Packet::SubAck(SubAck {
                pkid: subscribe.pkid,
                return_codes: vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)],
                properties: None,
            })],
            Packet::PingReq(_) => vec![Packet::PingResp(PingResp)],
            Packet::Publish(publish) => self.published(&publish, policy, has_dictionary),
            _ => Vec::new(),
        }
    }

    fn published(&self, publish: &Publish, policy: Policy, has_dictionary: &mut bool) -> Vec<Packet> {
        let mut replies = vec![Packet::PubAck(PubAck::new(publish.pkid, None))];
        let topic = Topic::parse(std::str::from_utf8(&publish.topic).unwrap()).unwrap();
        let mut stored = self.stored.lock().unwrap();
        match topic.channel {
            Channel::Status => {
                let status = serde_json::from_slice(&publish.payload).unwrap();
                stored.statuses.push(status);
            }
            Channel::Dictionary => {
                let dictionary = Dictionary::decode(&publish.payload).unwrap();
                stored.dictionaries.insert(dictionary.id(), dictionary);
                *has_dictionary = true;
            }
            Channel::Up(lane) => {
                stored.topics.push(lane.to_string());
                let outcome = take_frame(&mut stored, &publish.payload, lane, policy, *has_dictionary);
                replies.extend(outcome.map(|ack| acknowledge(&topic, &ack)));
            }
            Channel::Ack | Channel::Command => panic!("an edge must not publish there"),
        }
        replies
    }
}

fn take_frame(
    stored: &mut Stored,
    payload: &[u8],
    lane: Lane,
    policy: Policy,
    has_dictionary: bool,
) -> Option<Acknowledgement> {
    let frame = Frame::decode(payload).unwrap();
    let id = frame.header.id;
    let outcome = match policy {
        Policy::Silent | Policy::RefuseConnection | Policy::BlackHole => return None,
        Policy::Reject => Outcome::Rejected {
            reason: "not wanted".to_owned(),
        },
        Policy::AskForDictionary if !has_dictionary => Outcome::NeedDictionary(frame.header.dictionary),
        Policy::Store | Policy::AskForDictionary => {
            if let Some(before) = stored.envelopes.insert(id, payload.to_vec()) {
                assert_eq!(before, payload, "a repeated frame differs");
                stored.repeats += 1;
            }
            stored.arrivals.push(Arrival {
                lane,
                id,
                readings: frame.readings.len(),
                sealed_us: frame.header.sealed_us,
                arrived_us: edge_agent::clock::now_us(),
            });
            stored.frames.insert(id, frame);
            Outcome::Stored
        }
    };
    Some(Acknowledgement {
        subject: Subject::Frame(id),
        outcome,
    })
}

fn all_commands(given: &[Command]) -> BytesMut {
    let mut out = BytesMut::new();
    let topic = Topic::new("akron", "akron-1", Channel::Command).to_string();
    for command in given {
        let publish = Publish::new(topic.clone(), QoS::AtMostOnce, command::encode(command), None);
        Packet::Publish(publish).write(&mut out, None).unwrap();
    }
    out
}

fn acknowledge(topic: &Topic, ack: &Acknowledgement) -> Packet {
    let to = Topic::new(&topic.tenant, &topic.edge, Channel::Ack).to_string();
    let payload = ack::encode(std::slice::from_ref(ack));
    Packet::Publish(Publish::new(to, QoS::AtMostOnce, payload, None))
}
