//! How do the parts make one agent? The only file that knows them all: opens the spool, starts the pipeline, the
//! sources, the inspectors, the uplink, the fleet's task and the local page, follows a changed configuration, and takes
//! the parts down in the reverse order.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::{Micros, command::CommandOutcome, limit::CriticalLimit};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    AgentError, Followed, ReloadError,
    making::{book, new_pipeline, points_in_force, start_node, timed_sources},
};
use crate::{
    ccp::limits,
    clock,
    config::Config,
    fleet::{
        self, Request, inbox, notify,
        remote_config::Origin,
        task::{Fleet, Running},
    },
    health::{Health, UplinkState},
    inspect::{self, Mailbox},
    local::{self, Local},
    output,
    pipeline::Rules,
    source::{
        Acquired, Closed,
        running::{Running as Sources, Surroundings},
    },
    spool::{self, Outbox, store::Limits},
    uplink::{self, Uplink, identity},
};

/// Batches of readings that may wait to be judged; sources wait beyond that, and say so.
const ACQUIRED_WAITING_MAX: usize = 4_096;
/// Commands of the hub that may wait; more are sent again.
const COMMANDS_WAITING_MAX: usize = 64;
/// Questions of the fleet's task that may wait.
const REQUESTS_WAITING_MAX: usize = 8;
/// How long tasks may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The agent's parts while they run.
pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    pub(super) http: String,
    running: Running,
    sources: Sources,
    mailbox: Mailbox,
    node: Option<(JoinHandle<()>, CancellationToken)>,
    inspectors: Vec<std::thread::JoinHandle<()>>,
    acquired: mpsc::Sender<Acquired>,
    outputs: JoinSet<Result<(), Closed>>,
    pipeline: JoinHandle<()>,
    pipeline_stop: CancellationToken,
    uplink: Option<JoinHandle<()>>,
    uplink_stop: CancellationToken,
    fleet: JoinHandle<()>,
    fleet_stop: CancellationToken,
    page: JoinHandle<io::Result<()>>,
    pages: Local,
    spool: std::thread::JoinHandle<()>,
    outbox: Outbox,
    data_dir: PathBuf,
}

impl Parts {
    pub(super) async fn start(
        config: Config,
        origin: &Origin,
        data_dir: &Path,
    ) -> Result<(Self, mpsc::Receiver<Request>), AgentError> {
        // One copy for all: a hundred thousand tags are some tens of megabytes.
        let config = Arc::new(config);
        let identity = identity::load(data_dir)?;
        let boot = Uuid::now_v7();
        let health = Arc::new(Health::new(&config.edge.name, boot, clock::now_us()));
        let limits = Limits {
            quota_bytes: config.spool.quota_bytes,
            generation_bytes: config.spool.generation_bytes,
            keep_us: i64::try_from(config.spool.keep.as_micros()).unwrap_or(i64::MAX),
        };
        let window_us = u64::try_from(config.spool.frame_age_max.as_micros()).unwrap_or(u64::MAX);
        health
            .spool
            .window_us
            .store(window_us, std::sync::atomic::Ordering::Relaxed);
        let rotation = spool::journal::Rotation {
            keep_us: i64::try_from(config.spool.journal_keep.as_micros()).unwrap_or(i64::MAX),
            ..spool::journal::Rotation::default()
        };
        let spool = spool::start(data_dir, limits, rotation, &config.dictionary, health.clone())?;
        // Bound only once the spool is ours: a second agent must not get as far as a port.
        let listener = listen(&config.local_http).await?;
        let address = listener.local_addr();
        let http = address.map_or_else(|_| config.local_http.clone(), |address| address.to_string());
        let (acquired_tx, acquired) = mpsc::channel(ACQUIRED_WAITING_MAX);
        let pages = Local::new(health.clone(), acquired_tx.clone(), book(&config));
        let page = tokio::spawn(local::serve(listener, pages.clone(), CancellationToken::new()));
        let (tap, node) = start_node(&config, &health);
        let mut outputs = JoinSet::new();
        let driven = output::start(&config.outputs, data_dir, &acquired_tx, &mut outputs);
        let points = points_in_force(&config, data_dir);
        let pipeline = new_pipeline(&config, &points, driven, (boot, spool.appender, health.clone()));
        let mut pipeline = pipeline.with_tap(tap);
        pipeline.recover(spool.left, &config.dictionary, clock::now_us());
        let pipeline_stop = CancellationToken::new();
        let pipeline = tokio::spawn(pipeline.run(acquired, pipeline_stop.clone()));

        let surroundings = Surroundings {
            acquired: acquired_tx.clone(),
            health: health.clone(),
            mailbox: Mailbox::default(),
            data_dir: data_dir.to_owned(),
        };
        let mailbox = surroundings.mailbox.clone();
        let sources = Sources::start(&config, surroundings);
        let mut inspectors = Vec::new();
        if !config.cameras.is_empty() {
            inspectors = inspect::start(&config.vision, &mailbox, &acquired_tx, &health)
                .map_err(AgentError::Thread)?;
        }
        let (commands, commands_rx) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (requests_tx, requests) = mpsc::channel(REQUESTS_WAITING_MAX);
        let running: Running = Arc::new(Mutex::new((config.clone(), origin.clone())));
        let fleet = Fleet {
            data_dir: data_dir.to_owned(),
            config: config.clone(),
            origin: origin.clone(),
            running: running.clone(),
            health: health.clone(),
            acquired: acquired_tx.clone(),
            requests: requests_tx,
        };
        let fleet_stop = CancellationToken::new();
        let fleet = tokio::spawn(fleet::task::run(fleet, commands_rx, fleet_stop.clone()));
        tokio::spawn(notify::feed_watchdog(health.clone(), fleet_stop.clone()));
        let uplink_stop = CancellationToken::new();
        let uplink = identity.map(|identity| Uplink {
            edge: config.edge.clone(),
            hub: config.hub.clone(),
            identity,
            boot,
            outbox: spool.outbox.clone(),
            health: health.clone(),
            alarms: acquired_tx.clone(),
            commands,
            data_dir: data_dir.to_owned(),
        });
        let uplink = uplink.map(|uplink| tokio::spawn(uplink::run(uplink, uplink_stop.clone())));
        if uplink.is_none() {
            say_not_enrolled(data_dir, &health);
        }
        let parts = Self {
            config,
            http,
            running,
            sources,
            mailbox,
            node,
            inspectors,
            acquired: acquired_tx,
            outputs,
            pipeline,
            pipeline_stop,
            uplink,
            uplink_stop,
            fleet,
            fleet_stop,
            page,
            pages,
            spool: spool.thread,
            outbox: spool.outbox,
            data_dir: data_dir.to_owned(),
        };
        Ok((parts, requests))
    }

    /// Waits for a part to end that should not.
    pub(super) async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.pipeline => "the pipeline",
            part = self.sources.ended() => part,
            Some(_) = self.outputs.join_next() => "an output",
            () = self.outbox.ended() => "the spool",
            _ = &mut self.page => "the local page",
            () = task_ended(self.uplink.as_mut()) => "the uplink",
            _ = &mut self.fleet => "the fleet's task",
        }
    }

    /// Sources first, so that nothing comes after the pipeline's last frame; the uplink while the spool still
    /// answers, so that it can take its leave; what it has not sent waits on disk.
    pub(super) async fn stop(mut self) {
        self.fleet_stop.cancel();
        if !self.fleet.is_finished() && tokio::time::timeout(STOP_WITHIN, &mut self.fleet).await.is_err() {
            tracing::warn!("the fleet's task did not stop in time");
            self.fleet.abort();
        }
        self.sources.stop().await;
        stop_inspecting(&self.mailbox, self.inspectors, &self.acquired).await;
        if let Some((node, stop)) = self.node {
            stop.cancel();
            if tokio::time::timeout(STOP_WITHIN, node).await.is_err() {
                tracing::warn!("the Sparkplug node did not stop in time");
            }
        }
        self.uplink_stop.cancel();
        if let Some(uplink) = self.uplink
            && !uplink.is_finished()
            && tokio::time::timeout(STOP_WITHIN, uplink).await.is_err()
        {
            tracing::warn!("the uplink did not stop in time");
        }
        self.pipeline_stop.cancel();
        if !self.pipeline.is_finished() && tokio::time::timeout(STOP_WITHIN, self.pipeline).await.is_err() {
            tracing::error!("the pipeline did not stop in time");
        }
        // The pipeline is gone and with it what outputs are told: each takes its safe value and ends.
        let leaving = async { while self.outputs.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, leaving).await.is_err() {
            tracing::error!("an output did not take its safe value in time");
        }
        let flushed = tokio::task::spawn_blocking(move || self.spool.join());
        if !matches!(tokio::time::timeout(STOP_WITHIN, flushed).await, Ok(Ok(Ok(())))) {
            tracing::error!("the spool did not stop in time");
        }
        self.page.abort();
    }

    /// Whether a configuration is that of another edge.
    pub(super) fn is_other_edge(&self, config: &Config) -> bool {
        (&config.edge.name, &config.edge.tenant) != (&self.config.edge.name, &self.config.edge.tenant)
    }

    /// Whether a configuration changes more than can be followed while the parts run.
    pub(super) fn must_start_anew(&self, config: &Config) -> bool {
        let before = &self.config;
        let tags_stay = before.dictionary.tags.iter().all(|tag| {
            let now = config.dictionary.tag(tag.alias);
            now.is_some_and(|now| now.name == tag.name && now.unit == tag.unit)
        });
        let node_stays = before.sparkplug == config.sparkplug
            && (config.sparkplug.is_none() || before.dictionary == config.dictionary);
        let vision_stays =
            before.vision == config.vision && before.cameras.is_empty() == config.cameras.is_empty();
        !tags_stay
            || !node_stays
            || !vision_stays
            || before.edge != config.edge
            || before.hub != config.hub
            || before.local_http != config.local_http
            || before.spool != config.spool
            || before.fleet != config.fleet
            || before.points != config.points
            || before.alarm_policy != config.alarm_policy
            || before.alarms != config.alarms
            || before.outputs != config.outputs
    }

    /// Goes by another configuration from here on: what stays the same is not touched, so that nothing is missed.
    pub(super) async fn follow(&mut self, config: Config) -> Result<Followed, ReloadError> {
        if self.is_other_edge(&config) {
            return Err(ReloadError::OtherEdge);
        }
        let before = &self.config;
        let has_new_rules = config.dictionary != before.dictionary || config.signals != before.signals;
        // First the words, then those who use them: no frame may hold an alias that its dictionary does not explain.
        if has_new_rules {
            if !self.outbox.adopt(config.dictionary.clone()).await {
                return Err(ReloadError::Disk);
            }
            let rules = Rules {
                signals: config.signals.clone(),
                timed: timed_sources(&config),
                dictionary: config.dictionary.id(),
            };
            let (done, is_done) = oneshot::channel();
            if self
                .acquired
                .send(Acquired::Rules(Box::new(rules), done))
                .await
                .is_ok()
            {
                drop(is_done.await);
            }
        }
        let sources = self.sources.follow(&config);
        self.pages.replace(book(&config));
        tracing::info!(
            started = ?sources.started, changed = ?sources.changed, stopped = ?sources.stopped, rules = has_new_rules,
            "configuration followed"
        );
        self.config = Arc::new(config);
        locked(&self.running).0 = self.config.clone();
        Ok(Followed {
            sources,
            has_new_rules,
        })
    }

    /// Where the configuration that runs came from.
    pub(super) fn say_origin(&self, origin: Origin) {
        locked(&self.running).1 = origin;
    }

    /// Puts critical limits into force.
    pub(super) async fn set_limits(&self, limits: Vec<CriticalLimit>) -> CommandOutcome {
        let (reply, done) = oneshot::channel();
        let given = self.acquired.send(Acquired::Limits { limits, reply }).await;
        let done = match given {
            Ok(()) => done
                .await
                .unwrap_or_else(|_| Err("the agent is shutting down".to_owned())),
            Err(_) => Err("the agent is shutting down".to_owned()),
        };
        let in_force = match done {
            Ok(in_force) => in_force,
            Err(reason) => return inbox::refused(&reason),
        };
        match limits::save(&self.data_dir, &in_force) {
            Ok(()) => CommandOutcome::Done,
            Err(error) => inbox::refused(&format!(
                "the limits are in force until the next start only: {error}"
            )),
        }
    }

    /// Sends again what was sealed in this time.
    pub(super) async fn replay(&self, from_us: Micros, to_us: Micros) -> CommandOutcome {
        match self.outbox.replay(from_us, to_us).await {
            None => inbox::refused("what was kept cannot be read; the agent's log says why"),
            Some(replayed) if replayed.totals.frames == 0 => CommandOutcome::AlreadySo,
            Some(replayed) if replayed.is_cut => inbox::refused(&format!(
                "{} frames are sent again; more was asked for than one replay does: ask for the rest by a later start",
                replayed.totals.frames
            )),
            Some(_) => CommandOutcome::Done,
        }
    }
}

/// A panic while holding the lock cannot leave the two plain values half-written.
fn locked(running: &Running) -> std::sync::MutexGuard<'_, (Arc<Config>, Origin)> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say_not_enrolled(data_dir: &Path, health: &Health) {
    tracing::warn!(
        "not enrolled: readings are kept on disk and nothing is sent; run `foodflow-edge enroll --hub URL --code CODE \
         --data-dir {}` with a code from the hub, then restart",
        data_dir.display()
    );
    health.uplink.set(UplinkState::NotEnrolled);
}

/// Every picture that was taken from its directory becomes a record, looked at or not.
async fn stop_inspecting(
    mailbox: &Mailbox,
    inspectors: Vec<std::thread::JoinHandle<()>>,
    acquired: &mpsc::Sender<Acquired>,
) {
    for shot in mailbox.close() {
        let record = inspect::not_performed(&shot, "the agent stopped before inspection");
        if acquired
            .send(Acquired::Inspection(Box::new(record)))
            .await
            .is_err()
        {
            tracing::error!(camera = %shot.camera, "a picture ends without a record");
        }
    }
    let joined = tokio::task::spawn_blocking(|| inspectors.into_iter().all(|thread| thread.join().is_ok()));
    if !matches!(tokio::time::timeout(STOP_WITHIN, joined).await, Ok(Ok(true))) {
        tracing::error!("an inspection did not end in time");
    }
}

/// Waits for a task that may not be there.
async fn task_ended(task: Option<&mut JoinHandle<()>>) {
    match task {
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

async fn listen(address: &str) -> Result<TcpListener, AgentError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| AgentError::Listen {
            address: address.to_owned(),
            source,
        })
}
