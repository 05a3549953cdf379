//! Where does a plant come from when there is none?
//! A deterministic Akron plant: Modbus TCP, OPC UA and camera frames, with faults on command and their ground
//! truth. It knows nothing of the agent that reads it, except how to print a configuration for one.

pub mod camera;
pub mod clock;
pub mod config_ccp;
pub mod config_out;
pub mod control;
pub mod fault;
pub mod gateway;
pub mod load;
pub mod modbus;
pub mod opcua;
pub mod plant;
pub mod scenario;
pub mod score;
mod server;
pub mod sparkplug;
pub mod state;
pub mod tags;
pub mod truth;
pub mod writes;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{config_out::AgentSettings, fault::Fault, load::Load, state::PlantState};

/// How long servers may take to say goodbye to their clients.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// What to simulate and where to serve it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds `ready.json`, `edge.toml`, the OPC UA certificate store and, by default, the camera's frames.
    pub data_dir: PathBuf,
    /// Seed of everything random.
    pub seed: u64,
    /// Plant seconds a wall second; positive.
    pub speed: f64,
    /// Address of the Modbus server.
    pub modbus: SocketAddr,
    /// Address of the OPC UA server.
    pub opcua: SocketAddr,
    /// Address of the HTTP control.
    pub control: SocketAddr,
    /// Where frames appear; `camera` in the data directory unless given.
    pub camera_dir: Option<PathBuf>,
    /// Plant time from frame to frame.
    pub frame_period: Duration,
    /// Share of trays, 0 to 1, with a defect outside bursts.
    pub defect_rate: f64,
    /// Faults ordered ahead: which, from when on in plant time.
    pub faults: Vec<(Fault, Duration)>,
    /// Where the ground truth is written at the end.
    pub truth: Option<PathBuf>,
    /// The MQTT broker to which line 4's Sparkplug node and the oven's gateway publish, if there is one.
    pub broker: Option<(String, u16)>,
    /// Serve counters for a throughput test instead of the plant.
    pub load: Option<Load>,
    /// Period of the counters of a load.
    pub tick: Duration,
    /// What the written agent configuration says about the agent.
    pub agent: AgentSettings,
}

impl Options {
    /// A plant in real time on free ports of this machine, a frame every 2 s, without defects, faults or a broker.
    pub fn on_free_ports(data_dir: PathBuf, seed: u64, agent: AgentSettings) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data_dir,
            seed,
            speed: 1.0,
            modbus: any,
            opcua: any,
            control: any,
            camera_dir: None,
            frame_period: Duration::from_secs(2),
            defect_rate: 0.0,
            faults: Vec::new(),
            truth: None,
            broker: None,
            load: None,
            tick: Duration::from_millis(100),
            agent,
        }
    }
}

/// Why the simulator cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address} for {server}")]
    Bind {
        /// Which server.
        server: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A server stopped by itself.
    #[error("the {server} server stopped")]
    Stopped {
        /// Which server.
        server: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The OPC UA library refused or stopped; it explains itself in words only.
    #[error("opc ua: {0}")]
    OpcUa(String),
}

/// Where a running simulator answers: the content of `ready.json`. A load has only Modbus and its control.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// `host:port`; of the first device of a load.
    pub modbus: SocketAddr,
    /// Every device's address, where each has one of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<SocketAddr>,
    /// `opc.tcp://host:port/`.
    pub opcua: Option<String>,
    /// `host:port`.
    pub control: Option<SocketAddr>,
    /// Where frames appear.
    pub camera_dir: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
    /// Plant seconds a wall second.
    pub speed: f64,
    /// When plant time was 0, UTC microseconds.
    pub epoch_us: i64,
    /// Process id.
    pub pid: u32,
}

/// A serving simulator.
#[derive(Debug)]
pub struct Simulator {
    ready: Ready,
    plant: Option<PlantState>,
    truth: Option<PathBuf>,
    stop: CancellationToken,
    servers: JoinSet<Result<(), SimulateError>>,
}

impl Simulator {
    /// Binds everything, starts serving, then writes `edge.toml` and, last, `ready.json`.
    ///
    /// # Errors
    /// [`SimulateError`]; nothing is left running then.
    pub async fn start(options: &Options) -> Result<Self, SimulateError> {
        std::fs::create_dir_all(&options.data_dir).map_err(|source| SimulateError::Write {
            path: options.data_dir.clone(),
            source,
        })?;
        server::remove_stale(&options.data_dir.join("ready.json"))?;
        let (simulator, config) = match options.load {
            Some(load) => server::start_load(options, load).await?,
            None => server::start_plant(options).await?,
        };
        server::write_whole(&options.data_dir.join("edge.toml"), config.as_bytes())?;
        let ready = serde_json::to_vec_pretty(&simulator.ready).expect("a struct of strings is JSON");
        server::write_whole(&options.data_dir.join("ready.json"), &ready)?;
        Ok(simulator)
    }

    /// Where it answers.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The plant behind it; a load has none.
    pub fn plant(&self) -> Option<&PlantState> {
        self.plant.as_ref()
    }

    /// Serves until `shutdown`, or until a server fails; then writes the ground truth where it was asked for.
    ///
    /// # Errors
    /// The failure that ended it.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), SimulateError> {
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = self.servers.join_next() => ended.unwrap_or_else(|panic| {
                Err(SimulateError::Stopped { server: "simulator's", source: io::Error::other(panic) })
            }),
        };
        self.stop.cancel();
        let farewell = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_MAX, farewell).await.is_err() {
            tracing::debug!("clients did not leave in time");
        }
        if let (Some(path), Some(plant)) = (&self.truth, &self.plant) {
            let lines = plant.scenario().truth_lines();
            server::write_whole(path, lines.as_bytes())?;
        }
        ended
    }
}

#[cfg(test)]
mod tests;
