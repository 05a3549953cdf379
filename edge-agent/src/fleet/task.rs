//! What becomes of a command? One task takes the hub's commands, does each once and answers with a record. What
//! takes long (a configuration's trial, a download) goes on beside it, one at a time, and survives a restart.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use protocol::{
    command::{self, Command, CommandOutcome, CommandResult, Order},
    event::{CertificateRequest, Event},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Request,
    certificate::{self, Renewal},
    inbox::{self, Decision, Done},
    remote_config::{self, Origin},
    update,
};
use crate::{clock, config::Config, health::Health, pipeline::alarm, source::Acquired};

/// Commands that may wait for the one that takes long; more are sent again by the hub.
const WAITING_MAX: usize = 64;
/// How often certificate and conditions are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the fleet's task works with.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The data directory.
    pub data_dir: PathBuf,
    /// What runs.
    pub config: Arc<Config>,
    /// Where that came from.
    pub origin: Origin,
    /// What runs now, as it changes.
    pub running: Running,
    /// How the agent does.
    pub health: Arc<Health>,
    /// Where records go.
    pub acquired: mpsc::Sender<Acquired>,
    /// What is asked of the agent.
    pub requests: mpsc::Sender<Request>,
}

/// Which configuration runs, shared between the task and the trial that changes it.
pub type Running = Arc<Mutex<(Arc<Config>, Origin)>>;

impl Fleet {
    /// `TENANT/EDGE`.
    fn name(&self) -> String {
        format!("{}/{}", self.config.edge.tenant, self.config.edge.name)
    }

    async fn record(&self, event: Event) {
        self.send(Acquired::Record(Box::new(event))).await;
    }

    async fn raise(&self, code: &str, message: &str) {
        let alarm = alarm(code, &self.config.edge.name, message, clock::now_us());
        self.send(Acquired::Alarm(alarm)).await;
    }

    async fn send(&self, acquired: Acquired) {
        if self.acquired.send(acquired).await.is_err() {
            tracing::debug!("a record of the fleet during shutdown");
        }
    }

    /// Asks the agent and waits for its answer.
    pub(super) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (tx, rx) = oneshot::channel();
        self.requests.send(question(tx)).await.ok()?;
        rx.await.ok()
    }
}

/// What takes long. None as an outcome: the agent restarts, and the start after that answers.
type Slow = BoxFuture<'static, (Uuid, Option<CommandOutcome>)>;

struct Task {
    fleet: Fleet,
    running: Running,
    done: Done,
    slow: Option<(Uuid, Slow)>,
    waiting: VecDeque<Command>,
    renewal: Renewal,
    has_raised_unreadable: bool,
}

/// Takes commands until `stop`.
pub async fn run(fleet: Fleet, mut commands: mpsc::Receiver<Vec<u8>>, stop: CancellationToken) {
    let done = Done::load(&fleet.data_dir).unwrap_or_else(|error| {
        tracing::error!(%error, "what was done before is not known");
        Done::default()
    });
    let mut task = Task {
        running: fleet.running.clone(),
        fleet,
        done,
        slow: None,
        waiting: VecDeque::new(),
        renewal: Renewal::default(),
        has_raised_unreadable: false,
    };
    task.take_up().await;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            finished = finished(&mut task.slow) => task.finished(finished).await,
            Some(bytes) = commands.recv() => task.came(&bytes).await,
            _ = look.tick() => task.look_at_certificate().await,
        }
    }
}

async fn finished(slow: &mut Option<(Uuid, Slow)>) -> (Uuid, Option<CommandOutcome>) {
    match slow {
        Some((_, future)) => future.await,
        None => std::future::pending().await,
    }
}

impl Task {
    /// What an earlier start left: a trial that is not decided, an answer that was not given.
    async fn take_up(&mut self) {
        if let Some(reason) = self.fleet.origin.fell_back.clone() {
            self.fleet.raise("config.fell_back", &reason).await;
        }
        match remote_config::load(&self.fleet.data_dir) {
            Ok(state) => {
                if let Some(undone) = state.undone {
                    self.answer(undone.command, inbox::rolled_back(&undone.reason))
                        .await;
                }
                if let Some(trial) = state.trial {
                    let (fleet, running) = (self.fleet.clone(), self.running.clone());
                    self.begin(trial.command, async move {
                        Some(super::trial::resume(&fleet, &running, trial).await)
                    });
                }
            }
            Err(error) => tracing::error!(%error, "pushed configurations are not known"),
        }
        self.take_up_update().await;
    }

    async fn take_up_update(&mut self) {
        let state = match update::versions::load(&self.fleet.data_dir) {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(%error, "installed versions are not known");
                return;
            }
        };
        if let Some(concluded) = state.concluded {
            if let Some(command) = concluded.command {
                self.answer(command, concluded.outcome()).await;
            } else {
                update::versions::forget_conclusion(&self.fleet.data_dir);
            }
        }
        if let Some(trial) = state.trial.filter(|_| update::is_launched()) {
            let fleet = self.fleet.clone();
            let command = trial.command.unwrap_or_default();
            self.begin(command, async move { update::confirm(&fleet, trial).await });
        }
    }

    fn begin(&mut self, id: Uuid, work: impl Future<Output = Option<CommandOutcome>> + Send + 'static) {
        self.slow = Some((id, Box::pin(async move { (id, work.await) })));
    }

    async fn came(&mut self, bytes: &[u8]) {
        let command = match command::decode(bytes) {
            Ok(command) => command,
            Err(error) => {
                tracing::warn!(%error, bytes = bytes.len(), "a command that cannot be read");
                // The hub sends it again and again; it is said once a start.
                if !std::mem::replace(&mut self.has_raised_unreadable, true) {
                    let message = format!("the hub sent a command that this version cannot read: {error}");
                    self.fleet.raise("command.unreadable", &message).await;
                }
                return;
            }
        };
        self.consider(command).await;
    }

    async fn consider(&mut self, command: Command) {
        match inbox::decide(&self.done, &command, clock::now_us()) {
            Decision::Repeat(at_us, outcome) => {
                let id = command.id;
                self.fleet
                    .record(Event::CommandResult(CommandResult { id, at_us, outcome }))
                    .await;
            }
            Decision::Refuse(outcome) => self.answer(command.id, outcome).await,
            Decision::Do if self.slow.is_some() && is_ordered(&command.order) => self.wait(command),
            Decision::Do => self.carry_out(command).await,
        }
    }

    fn wait(&mut self, command: Command) {
        let is_known = self.slow.as_ref().is_some_and(|(id, _)| *id == command.id)
            || self.waiting.iter().any(|waiting| waiting.id == command.id);
        if !is_known && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(command);
        }
    }

    async fn carry_out(&mut self, command: Command) {
        let id = command.id;
        tracing::info!(%id, by = %command.by, order = command.order.kind(), "command");
        let outcome = match command.order {
            Order::Alarm(action) => {
                self.fleet.send(Acquired::AlarmAction(Box::new(action))).await;
                CommandOutcome::Done
            }
            Order::Certificate { chain_pem } => self.install_certificate(&chain_pem),
            Order::SetLimits { revision, limits } => {
                let question = |answer| Request::SetLimits {
                    revision,
                    limits,
                    answer,
                };
                self.fleet.ask(question).await.unwrap_or_else(no_answer)
            }
            Order::Replay { from_us, to_us } => {
                let question = |answer| Request::Replay {
                    from_us,
                    to_us,
                    answer,
                };
                self.fleet.ask(question).await.unwrap_or_else(no_answer)
            }
            Order::Configure { revision, toml } => {
                let (fleet, running) = (self.fleet.clone(), self.running.clone());
                self.begin(id, async move {
                    Some(super::trial::configure(&fleet, &running, id, revision, &toml).await)
                });
                return;
            }
            Order::Update { manifest, signature } => {
                let fleet = self.fleet.clone();
                self.begin(id, async move {
                    update::install(&fleet, Some(id), &manifest, &signature).await
                });
                return;
            }
        };
        self.answer(id, outcome).await;
    }

    async fn finished(&mut self, (id, outcome): (Uuid, Option<CommandOutcome>)) {
        // Nil: a version that was installed on the line PC itself; nobody waits for an answer.
        let outcome = outcome.filter(|_| !id.is_nil());
        if let Some(outcome) = outcome {
            self.slow = None;
            self.answer(id, outcome).await;
        } else if id.is_nil() {
            self.slow = None;
            update::versions::forget_conclusion(&self.fleet.data_dir);
        } else {
            // The agent is about to be started anew; what waits is sent again.
            self.slow = Some((id, Box::pin(std::future::pending())));
            return;
        }
        while self.slow.is_none()
            && let Some(command) = self.waiting.pop_front()
        {
            self.consider(command).await;
        }
    }

    /// Remembers first, then answers: a command whose answer is lost is answered again, not done again.
    async fn answer(&mut self, id: Uuid, outcome: CommandOutcome) {
        let at_us = clock::now_us();
        tracing::info!(%id, ?outcome, "command answered");
        if self.done.find(id).is_none()
            && let Err(error) = self.done.add(id, at_us, outcome.clone())
        {
            tracing::error!(%error, "a command's outcome is kept in memory only");
        }
        let record = Event::CommandResult(CommandResult { id, at_us, outcome });
        self.fleet.record(record).await;
        super::trial::answered(&self.fleet.data_dir, id);
        update::versions::answered(&self.fleet.data_dir, id);
    }

    fn install_certificate(&mut self, chain_pem: &str) -> CommandOutcome {
        let installed = certificate::install(
            &self.fleet.data_dir,
            chain_pem,
            &self.fleet.name(),
            clock::now_us(),
        );
        match installed {
            Ok(certificate) => {
                self.renewal.answered();
                let until_us = certificate.not_after_us;
                tracing::info!(subject = %certificate.subject, until_us, "certificate installed");
                CommandOutcome::Done
            }
            Err(error) => inbox::refused(&error.to_string()),
        }
    }

    async fn look_at_certificate(&mut self) {
        let certificate = match certificate::load(&self.fleet.data_dir) {
            Ok(certificate) => certificate,
            Err(error) => {
                tracing::warn!(%error, "the client certificate cannot be used");
                None
            }
        };
        self.fleet.health.uplink.set_certificate(certificate.as_ref());
        let now_us = clock::now_us();
        let is_online = self.fleet.health.uplink.get() == crate::health::UplinkState::Online;
        // Without TLS there is nobody to show one to.
        let (config, _) = current(&self.running);
        let is_due =
            config.hub.ca_file.is_some() && self.renewal.is_due(certificate.as_ref(), is_online, now_us);
        if !is_due {
            return;
        }
        match certificate::request(&self.fleet.data_dir, &self.fleet.name()) {
            Ok(csr_pem) => {
                tracing::info!("asking the hub for the next certificate");
                let request = CertificateRequest {
                    at_us: now_us,
                    csr_pem,
                };
                self.fleet.record(Event::CertificateRequest(request)).await;
            }
            Err(error) => tracing::error!(%error, "no certificate can be asked for"),
        }
    }
}

/// Whether it waits for what takes long: configurations, limits and versions are done in order; people at alarms, and
/// certificates, do not wait for a download.
fn is_ordered(order: &Order) -> bool {
    match order {
        Order::Configure { .. } | Order::SetLimits { .. } | Order::Update { .. } => true,
        Order::Alarm(_) | Order::Replay { .. } | Order::Certificate { .. } => false,
    }
}

fn no_answer() -> CommandOutcome {
    inbox::refused("the agent is shutting down; give it again")
}

/// What runs now.
pub(super) fn current(running: &Running) -> (Arc<Config>, Origin) {
    running.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What runs from now on.
pub(super) fn set_current(running: &Running, config: Arc<Config>, origin: Origin) {
    *running.lock().unwrap_or_else(PoisonError::into_inner) = (config, origin);
}
