//! How do the parts make one agent? The only file that knows them all: opens the spool, starts the pipeline, the
//! sources, the inspectors, the uplink and the local page, follows a changed configuration, and takes the parts down
//! in the reverse order.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::sparkplug::edge_node::EdgeNode;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    ccp::Engine,
    clock,
    config::Config,
    health::{Health, UplinkState},
    inspect::{self, Mailbox},
    local::{self, Book, Local, badge::Badges},
    pipeline::{Pipeline, Rules},
    signal::Signals,
    source::{
        Acquired,
        running::{Changes, Running as Sources, Surroundings},
    },
    sparkplug::{self, Tap},
    spool::{self, Appender, Outbox, seal::Sealer, store::Limits},
    uplink::{self, Uplink, identity},
};

/// Batches of readings that may wait to be judged; sources wait beyond that, and say so.
const ACQUIRED_WAITING_MAX: usize = 4_096;
/// How long tasks may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data directory cannot be used.
    #[error("data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The spool cannot be opened.
    #[error("the spool cannot be opened")]
    Spool(#[from] spool::store::StoreError),
    /// The identity cannot be read.
    #[error("the identity cannot be read")]
    Identity(#[from] identity::IdentityError),
    /// The local page cannot be served.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// A part ended while the agent ran.
    #[error("{0} ended unexpectedly; the log says why")]
    Ended(&'static str),
}

/// A changed configuration for the running agent.
#[derive(Debug)]
pub struct Reload {
    /// What it is told from here on.
    pub config: Config,
    /// What came of it.
    pub answer: oneshot::Sender<Result<Reloaded, ReloadError>>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The sources that were touched.
    pub sources: Changes,
    /// Whether control points, tags or their rules changed.
    pub has_new_rules: bool,
    /// Parts of the configuration that changed and count from the next start only.
    pub needs_restart: Vec<&'static str>,
}

/// Why a running agent keeps its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It would be another agent.
    #[error("the edge's name and tenant cannot change while it runs; restart the agent")]
    OtherEdge,
    /// Frames could not be explained.
    #[error("the new tag dictionary cannot be written to disk")]
    Disk,
}

/// Runs the agent until `stop`; everything acquired by then is on disk when it returns. `reloads` brings changed
/// configurations.
pub async fn run(
    config: Config,
    data_dir: &Path,
    mut reloads: mpsc::Receiver<Reload>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let data_dir_error = |source| AgentError::DataDir {
        path: data_dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(data_dir).map_err(data_dir_error)?;
    // A ready file of an earlier start would send scripts to a port that is no longer ours.
    local::clear_ready(data_dir);
    let mut running = Running::start(config, data_dir).await?;
    local::write_ready(data_dir, &running.http).map_err(data_dir_error)?;
    tracing::info!(
        edge = %running.config.edge.name, http = %running.http, tags = running.config.tag_count(), "agent running"
    );
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break None,
            part = running.ended() => break Some(part),
            Some(reload) = reloads.recv() => {
                let outcome = running.reload(reload.config).await;
                if let Err(error) = &outcome {
                    tracing::error!(%error, "configuration not changed");
                }
                drop(reload.answer.send(outcome));
            }
        }
    };
    running.stop().await;
    local::clear_ready(data_dir);
    tracing::info!("agent stopped");
    // A part that ended would be a silence that nobody notices: the service manager starts the agent anew.
    ended.map_or(Ok(()), |part| Err(AgentError::Ended(part)))
}

/// The agent's parts while they run.
struct Running {
    config: Config,
    http: String,
    sources: Sources,
    mailbox: Mailbox,
    node: Option<(JoinHandle<()>, CancellationToken)>,
    inspectors: Vec<std::thread::JoinHandle<()>>,
    acquired: mpsc::Sender<Acquired>,
    pipeline: JoinHandle<()>,
    pipeline_stop: CancellationToken,
    uplink: Option<JoinHandle<()>>,
    uplink_stop: CancellationToken,
    page: JoinHandle<io::Result<()>>,
    pages: Local,
    spool: std::thread::JoinHandle<()>,
    outbox: Outbox,
}

impl Running {
    async fn start(config: Config, data_dir: &Path) -> Result<Self, AgentError> {
        let identity = identity::load(data_dir)?;
        let boot = Uuid::now_v7();
        let health = Arc::new(Health::new(&config.edge.name, boot, clock::now_us()));
        let limits = Limits {
            quota_bytes: config.spool.quota_bytes,
            generation_bytes: config.spool.generation_bytes,
        };
        let spool = spool::start(data_dir, limits, &config.dictionary, health.clone())?;
        // Bound only once the spool is ours: a second agent must not get as far as a port.
        let listener = listen(&config.local_http).await?;
        let address = listener.local_addr();
        let http = address.map_or_else(|_| config.local_http.clone(), |address| address.to_string());
        let (acquired_tx, acquired) = mpsc::channel(ACQUIRED_WAITING_MAX);
        let pages = Local::new(health.clone(), acquired_tx.clone(), book(&config));
        let page = tokio::spawn(local::serve(listener, pages.clone(), CancellationToken::new()));
        let (tap, node) = start_node(&config, &health);
        let mut pipeline = new_pipeline(&config, boot, spool.appender, health.clone()).with_tap(tap);
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
        let uplink_stop = CancellationToken::new();
        let uplink = identity.map(|identity| Uplink {
            edge: config.edge.clone(),
            hub: config.hub.clone(),
            identity,
            boot,
            outbox: spool.outbox.clone(),
            health: health.clone(),
            alarms: acquired_tx.clone(),
        });
        let uplink = uplink.map(|uplink| tokio::spawn(uplink::run(uplink, uplink_stop.clone())));
        if uplink.is_none() {
            tracing::warn!(
                "not enrolled: readings are kept on disk and nothing is sent; run `foodflow-edge enroll --hub URL --code \
                 CODE --data-dir {}` with a code from the hub, then restart",
                data_dir.display()
            );
            health.uplink.set(UplinkState::NotEnrolled);
        }
        Ok(Self {
            config,
            http,
            sources,
            mailbox,
            node,
            inspectors,
            acquired: acquired_tx,
            pipeline,
            pipeline_stop,
            uplink,
            uplink_stop,
            page,
            pages,
            spool: spool.thread,
            outbox: spool.outbox,
        })
    }

    /// Waits for a part to end that should not.
    async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.pipeline => "the pipeline",
            part = self.sources.ended() => part,
            () = self.outbox.ended() => "the spool",
            _ = &mut self.page => "the local page",
            () = task_ended(self.uplink.as_mut()) => "the uplink",
        }
    }

    /// Sources first, so that nothing comes after the pipeline's last frame; the uplink while the spool still
    /// answers, so that it can take its leave; what it has not sent waits on disk.
    async fn stop(self) {
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
        let flushed = tokio::task::spawn_blocking(move || self.spool.join());
        if !matches!(tokio::time::timeout(STOP_WITHIN, flushed).await, Ok(Ok(Ok(())))) {
            tracing::error!("the spool did not stop in time");
        }
        self.page.abort();
    }

    /// Goes by another configuration from here on: what stays the same is not touched, so that nothing is missed.
    async fn reload(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        if (&config.edge.name, &config.edge.tenant) != (&self.config.edge.name, &self.config.edge.tenant) {
            return Err(ReloadError::OtherEdge);
        }
        let mut reloaded = Reloaded {
            needs_restart: needs_restart(&self.config, &config),
            has_new_rules: config.dictionary != self.config.dictionary || config.points != self.config.points
                || config.signals != self.config.signals,
            sources: Changes::default(),
        };
        // First the words, then those who use them: no frame may hold an alias that its dictionary does not explain.
        if reloaded.has_new_rules {
            if !self.outbox.adopt(config.dictionary.clone()).await {
                return Err(ReloadError::Disk);
            }
            let rules = Rules {
                points: config.points.clone(),
                signals: config.signals.clone(),
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
        reloaded.sources = self.sources.follow(&config);
        self.pages.replace(book(&config));
        tracing::info!(
            started = ?reloaded.sources.started, changed = ?reloaded.sources.changed,
            stopped = ?reloaded.sources.stopped, rules = reloaded.has_new_rules,
            needs_restart = ?reloaded.needs_restart, "configuration followed"
        );
        self.config = config;
        Ok(reloaded)
    }
}

/// The Sparkplug edge node, when one is configured.
fn start_node(
    config: &Config,
    health: &Arc<Health>,
) -> (Option<Tap>, Option<(JoinHandle<()>, CancellationToken)>) {
    let Some(node) = &config.sparkplug else {
        return (None, None);
    };
    let devices = sparkplug::config::devices(config);
    let edge = match EdgeNode::new(&node.group_id, &node.node_id, devices) {
        Ok(edge) => edge,
        Err(error) => {
            tracing::error!(%error, "no Sparkplug node: rename the source");
            return (None, None);
        }
    };
    let (tap, tapped) = sparkplug::tap();
    let stop = CancellationToken::new();
    let task = sparkplug::run(node.clone(), edge, tapped, health.clone(), stop.clone());
    (Some(tap), Some((tokio::spawn(task), stop)))
}

/// The sections that changed and count from the next start only.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let changed = [
        ("edge", before.edge != after.edge),
        ("hub", before.hub != after.hub),
        ("local", before.local_http != after.local_http),
        ("spool", before.spool != after.spool),
        (
            "sparkplug",
            before.sparkplug != after.sparkplug
                || after.sparkplug.is_some() && before.dictionary != after.dictionary,
        ),
        (
            "vision",
            before.vision != after.vision || before.cameras.is_empty() && !after.cameras.is_empty(),
        ),
    ];
    changed
        .into_iter()
        .filter_map(|(section, is_changed)| is_changed.then_some(section))
        .collect()
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

fn new_pipeline(config: &Config, boot: Uuid, appender: Appender, health: Arc<Health>) -> Pipeline {
    let engine = Engine::new(&config.edge.name, &config.points, Uuid::now_v7);
    let sealer = Sealer::new(
        &config.edge.name,
        boot,
        config.dictionary.id(),
        config.spool.frame_readings_max,
        config.spool.frame_age_max,
    );
    let signals = Signals::new(&config.signals, Uuid::now_v7);
    Pipeline::new(engine, sealer, appender, health).with_signals(signals)
}

/// What can be entered on the local pages, and by whom.
fn book(config: &Config) -> Book {
    Book {
        manual: config.signals.manual.clone(),
        badges: Badges::new(config.badges.clone()),
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
