//! How do the parts make one agent? The only file that knows them all: opens the spool, starts the pipeline, the
//! sources, the inspectors, the uplink and the local page, and takes them down in the reverse order.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    ccp::Engine,
    clock,
    config::Config,
    health::{Health, SourceHealth, UplinkState},
    inspect::{self, Mailbox},
    local,
    pipeline::Pipeline,
    source::{Acquired, Closed, Outlet, camera, modbus, opcua},
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

/// Runs the agent until `stop`; everything acquired by then is on disk when it returns.
pub async fn run(config: Config, data_dir: &Path, stop: CancellationToken) -> Result<(), AgentError> {
    let data_dir_error = |source| AgentError::DataDir {
        path: data_dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(data_dir).map_err(data_dir_error)?;
    // A ready file of an earlier start would send scripts to a port that is no longer ours.
    local::clear_ready(data_dir);
    let mut running = Running::start(&config, data_dir).await?;
    if let Err(error) = local::write_ready(data_dir, &running.http) {
        // A full disk stops no judgement.
        tracing::error!(%error, "ready.json cannot be written");
    }
    tracing::info!(edge = %config.edge.name, http = %running.http, tags = config.tag_count(), "agent running");
    let ended = tokio::select! {
        () = stop.cancelled() => None,
        part = running.ended() => Some(part),
    };
    running.stop().await;
    local::clear_ready(data_dir);
    tracing::info!("agent stopped");
    // A part that ended would be a silence that nobody notices: the service manager starts the agent anew.
    ended.map_or(Ok(()), |part| Err(AgentError::Ended(part)))
}

type Tasks = JoinSet<Result<(), Closed>>;

/// The agent's parts while they run.
struct Running {
    http: String,
    sources: Tasks,
    cameras: Tasks,
    cameras_stop: CancellationToken,
    mailbox: Mailbox,
    inspectors: Vec<std::thread::JoinHandle<()>>,
    acquired: mpsc::Sender<Acquired>,
    pipeline: JoinHandle<()>,
    pipeline_stop: CancellationToken,
    uplink: Option<JoinHandle<()>>,
    uplink_stop: CancellationToken,
    page: JoinHandle<io::Result<()>>,
    spool: std::thread::JoinHandle<()>,
    outbox: Outbox,
}

impl Running {
    async fn start(config: &Config, data_dir: &Path) -> Result<Self, AgentError> {
        let identity = identity::load(data_dir)?;
        let boot = Uuid::now_v7();
        let health = Arc::new(Health::new(
            &config.edge.name,
            boot,
            clock::now_us(),
            source_health(config),
        ));
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
        let page = tokio::spawn(local::serve(listener, health.clone(), CancellationToken::new()));

        let (acquired_tx, acquired) = mpsc::channel(ACQUIRED_WAITING_MAX);
        let mut pipeline = new_pipeline(config, boot, spool.appender, health.clone());
        pipeline.recover(spool.left, &config.dictionary, clock::now_us());
        let pipeline_stop = CancellationToken::new();
        let pipeline = tokio::spawn(pipeline.run(acquired, pipeline_stop.clone()));

        let mailbox = Mailbox::default();
        let cameras_stop = CancellationToken::new();
        let (sources, cameras) =
            start_sources(config, data_dir, (&mailbox, &cameras_stop), &acquired_tx, &health);
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
            http,
            sources,
            cameras,
            cameras_stop,
            mailbox,
            inspectors,
            acquired: acquired_tx,
            pipeline,
            pipeline_stop,
            uplink,
            uplink_stop,
            page,
            spool: spool.thread,
            outbox: spool.outbox,
        })
    }

    /// Waits for a part to end that should not.
    async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.pipeline => "the pipeline",
            Some(_) = self.sources.join_next() => "a source",
            Some(_) = self.cameras.join_next() => "a camera",
            () = self.outbox.ended() => "the spool",
            _ = &mut self.page => "the local page",
            () = task_ended(self.uplink.as_mut()) => "the uplink",
        }
    }

    /// Sources first, so that nothing comes after the pipeline's last frame; the uplink while the spool still
    /// answers, so that it can take its leave; what it has not sent waits on disk.
    async fn stop(mut self) {
        self.sources.shutdown().await;
        self.stop_cameras().await;
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

    /// Every picture that was taken from its directory becomes a record, looked at or not.
    async fn stop_cameras(&mut self) {
        self.cameras_stop.cancel();
        let ending = async { while self.cameras.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, ending).await.is_err() {
            tracing::warn!("a camera did not stop in time");
            self.cameras.abort_all();
        }
        for shot in self.mailbox.close() {
            let record = inspect::not_performed(&shot, "the agent stopped before inspection");
            if self
                .acquired
                .send(Acquired::Inspection(Box::new(record)))
                .await
                .is_err()
            {
                tracing::error!(camera = %shot.camera, "a picture ends without a record");
            }
        }
        let inspectors = std::mem::take(&mut self.inspectors);
        let joined =
            tokio::task::spawn_blocking(|| inspectors.into_iter().all(|thread| thread.join().is_ok()));
        if !matches!(tokio::time::timeout(STOP_WITHIN, joined).await, Ok(Ok(true))) {
            tracing::error!("an inspection did not end in time");
        }
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
    Pipeline::new(engine, sealer, appender, health)
}

async fn listen(address: &str) -> Result<TcpListener, AgentError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| AgentError::Listen {
            address: address.to_owned(),
            source,
        })
}

/// One entry a source, in the order in which they are started.
fn source_health(config: &Config) -> Vec<Arc<SourceHealth>> {
    let modbus = config
        .modbus
        .iter()
        .map(|device| SourceHealth::new("modbus", &device.name));
    let opcua = config
        .opcua
        .iter()
        .map(|server| SourceHealth::new("opcua", &server.name));
    let cameras = config
        .cameras
        .iter()
        .map(|camera| SourceHealth::new("camera", &camera.name));
    modbus.chain(opcua).chain(cameras).collect()
}

fn start_sources(
    config: &Config,
    data_dir: &Path,
    (mailbox, cameras_stop): (&Mailbox, &CancellationToken),
    acquired: &mpsc::Sender<Acquired>,
    health: &Health,
) -> (Tasks, Tasks) {
    let (mut tasks, mut cameras) = (JoinSet::new(), JoinSet::new());
    let mut outlets = health
        .sources
        .iter()
        .map(|source| Outlet::new(acquired.clone(), source.clone()));
    for (device, outlet) in config.modbus.iter().zip(outlets.by_ref()) {
        tasks.spawn(modbus::run(device.clone(), outlet));
    }
    for (server, outlet) in config.opcua.iter().zip(outlets.by_ref()) {
        tasks.spawn(opcua::run(server.clone(), data_dir.join("opcua-pki"), outlet));
    }
    for (camera, outlet) in config.cameras.iter().zip(outlets.by_ref()) {
        cameras.spawn(camera::run(
            camera.clone(),
            mailbox.clone(),
            outlet,
            cameras_stop.clone(),
        ));
    }
    (tasks, cameras)
}
