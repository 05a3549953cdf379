//! Which sources run, and what does a changed configuration change? Each source is a task of its own; one that
//! stays the same is not touched, one whose settings changed is told, the others are started or stopped.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Acquired, Closed, Outlet, camera, modbus, mqtt, opcua};
use crate::{
    config::Config,
    health::{Health, SourceHealth, SourceState},
    inspect::Mailbox,
};

/// How long a source may take to end by itself.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What one source was told.
#[derive(Clone, Debug, PartialEq)]
enum Settings {
    Modbus(modbus::config::Device),
    Opcua(opcua::config::Server),
    Mqtt(mqtt::config::Broker),
    Camera(camera::config::Camera),
}

impl Settings {
    /// All sources of a configuration.
    fn all(config: &Config) -> Vec<Self> {
        let modbus = config.modbus.iter().cloned().map(Self::Modbus);
        let opcua = config.opcua.iter().cloned().map(Self::Opcua);
        let mqtt = config.mqtt.iter().cloned().map(Self::Mqtt);
        let cameras = config.cameras.iter().cloned().map(Self::Camera);
        modbus.chain(opcua).chain(mqtt).chain(cameras).collect()
    }

    fn key(&self) -> (&'static str, &str) {
        match self {
            Self::Modbus(device) => ("modbus", &device.name),
            Self::Opcua(server) => ("opcua", &server.name),
            Self::Mqtt(broker) => ("mqtt", &broker.name),
            Self::Camera(camera) => ("camera", &camera.name),
        }
    }
}

/// How a running source is reached.
#[derive(Debug)]
enum Control {
    Modbus(watch::Sender<modbus::config::Device>),
    Opcua(watch::Sender<opcua::config::Server>),
    Mqtt(watch::Sender<mqtt::config::Broker>),
    Camera(CancellationToken, camera::config::Camera),
}

impl Control {
    /// Whether the source was told just this.
    fn is_told(&self, settings: &Settings) -> bool {
        match (self, settings) {
            (Self::Modbus(tx), Settings::Modbus(device)) => *tx.borrow() == *device,
            (Self::Opcua(tx), Settings::Opcua(server)) => *tx.borrow() == *server,
            (Self::Mqtt(tx), Settings::Mqtt(broker)) => *tx.borrow() == *broker,
            (Self::Camera(_, known), Settings::Camera(camera)) => known == camera,
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Member {
    kind: &'static str,
    name: String,
    control: Control,
    health: Arc<SourceHealth>,
    task: AbortHandle,
}

impl Member {
    fn key(&self) -> (&'static str, &str) {
        (self.kind, &self.name)
    }
}

/// What a source needs of the agent.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where everything that is acquired goes.
    pub acquired: mpsc::Sender<Acquired>,
    /// Where the counters are shown.
    pub health: Arc<Health>,
    /// Where pictures wait for an inspector.
    pub mailbox: Mailbox,
    /// Where identities are kept.
    pub data_dir: PathBuf,
}

/// What a reload did, by the sources' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Started.
    pub started: Vec<String>,
    /// Told of their new settings while they run.
    pub changed: Vec<String>,
    /// Stopped.
    pub stopped: Vec<String>,
}

/// The running sources.
#[derive(Debug)]
pub struct Running {
    surroundings: Surroundings,
    members: Vec<Member>,
    tasks: JoinSet<Result<(), Closed>>,
    /// Tasks that were told to end.
    ending: HashSet<Id>,
    /// The connections that Modbus devices share.
    lines: modbus::Lines,
    /// The counters of what people enter.
    people: Arc<SourceHealth>,
}

impl Running {
    /// Starts every source of a configuration.
    pub fn start(config: &Config, surroundings: Surroundings) -> Self {
        let mut running = Self {
            surroundings,
            members: Vec::new(),
            tasks: JoinSet::new(),
            ending: HashSet::new(),
            lines: modbus::Lines::default(),
            people: people(),
        };
        running.follow(config);
        running
    }

    /// Makes the running sources those of `config`.
    pub fn follow(&mut self, config: &Config) -> Changes {
        let mut changes = Changes::default();
        let wanted = Settings::all(config);
        let keys: HashSet<_> = wanted.iter().map(Settings::key).collect();
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.members)
            .into_iter()
            .partition(|member| keys.contains(&member.key()));
        for member in gone {
            changes.stopped.push(member.name.clone());
            self.end(&member);
        }
        let mut kept: std::collections::VecDeque<Member> = kept.into();
        for settings in wanted {
            let found = kept.iter().position(|member| member.key() == settings.key());
            let name = settings.key().1.to_owned();
            match found.and_then(|at| kept.remove(at)) {
                Some(member) if member.control.is_told(&settings) => self.members.push(member),
                Some(member) => {
                    changes.changed.push(name);
                    self.tell(member, settings);
                }
                None => {
                    changes.started.push(name);
                    let member = self.begin(settings);
                    self.members.push(member);
                }
            }
        }
        let mut health: Vec<_> = self.members.iter().map(|member| member.health.clone()).collect();
        if !config.signals.manual.is_empty() {
            health.push(self.people.clone());
        }
        self.surroundings.health.set_sources(&health);
        changes
    }

    /// Waits for a source to end that was not told to.
    pub async fn ended(&mut self) -> &'static str {
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return std::future::pending().await;
            };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            if !self.ending.remove(&id) {
                return "a source";
            }
        }
    }

    /// Ends every source. Cameras end by themselves between two looks: a picture that was taken from its directory
    /// is on its way to a record.
    pub async fn stop(mut self) {
        for member in std::mem::take(&mut self.members) {
            self.end(&member);
        }
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, ending).await.is_err() {
            tracing::warn!("a source did not stop in time");
            self.tasks.abort_all();
        }
    }

    fn end(&mut self, member: &Member) {
        self.ending.insert(member.task.id());
        match &member.control {
            Control::Camera(stop, _) => stop.cancel(),
            Control::Modbus(_) | Control::Opcua(_) | Control::Mqtt(_) => member.task.abort(),
        }
    }

    /// Tells a running source of its new settings; one that cannot be told is started anew.
    fn tell(&mut self, member: Member, settings: Settings) {
        match (&member.control, &settings) {
            (Control::Modbus(tx), Settings::Modbus(device)) => drop(tx.send_replace(device.clone())),
            (Control::Opcua(tx), Settings::Opcua(server)) => drop(tx.send_replace(server.clone())),
            (Control::Mqtt(tx), Settings::Mqtt(broker)) => drop(tx.send_replace(broker.clone())),
            _ => {
                self.end(&member);
                let anew = self.begin(settings);
                self.members.push(anew);
                return;
            }
        }
        self.members.push(member);
    }

    fn begin(&mut self, settings: Settings) -> Member {
        let (kind, name) = settings.key();
        let health = SourceHealth::new(kind, name);
        let outlet = Outlet::new(self.surroundings.acquired.clone(), health.clone());
        let name = name.to_owned();
        let (control, task) = match settings {
            Settings::Modbus(device) => {
                let (tx, rx) = watch::channel(device);
                (
                    Control::Modbus(tx),
                    self.tasks.spawn(modbus::run(rx, self.lines.clone(), outlet)),
                )
            }
            Settings::Opcua(server) => {
                let (tx, rx) = watch::channel(server);
                let pki_dir = self.surroundings.data_dir.join("opcua-pki");
                (
                    Control::Opcua(tx),
                    self.tasks.spawn(opcua::run(rx, pki_dir, outlet)),
                )
            }
            Settings::Mqtt(broker) => {
                let (tx, rx) = watch::channel(broker);
                (Control::Mqtt(tx), self.tasks.spawn(mqtt::run(rx, outlet)))
            }
            Settings::Camera(camera) => {
                let stop = CancellationToken::new();
                let mailbox = self.surroundings.mailbox.clone();
                let task = camera::run(camera.clone(), mailbox, outlet, stop.clone());
                (Control::Camera(stop, camera), self.tasks.spawn(task))
            }
        };
        Member {
            kind,
            name,
            control,
            health,
            task,
        }
    }
}

/// People at the local page are a source too; they are always there, and no alarm can come of it.
fn people() -> Arc<SourceHealth> {
    let people = SourceHealth::new("manual", "local page");
    drop(people.set_state(SourceState::Up, 0, Uuid::now_v7));
    people
}
