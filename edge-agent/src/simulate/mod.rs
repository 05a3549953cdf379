//! Where does a plant come from when there is none?
//! A deterministic Akron plant: Modbus TCP, OPC UA and camera frames, with faults on command and their ground
//! truth. It knows nothing of the agent that reads it, except how to print a configuration for one.

pub mod camera;
pub mod clock;
pub mod config_out;
pub mod control;
pub mod load;
pub mod modbus;
pub mod opcua;
pub mod plant;
pub mod scenario;
pub mod state;
pub mod tags;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    camera::Camera,
    config_out::AgentSettings,
    load::{Load, LoadRegisters},
    modbus::{PlantRegisters, RegisterBank},
    state::PlantState,
};

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
    /// Serve counters for a throughput test instead of the plant.
    pub load: Option<Load>,
    /// Period of the counters of a load.
    pub tick: Duration,
    /// What the written agent configuration says about the agent.
    pub agent: AgentSettings,
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

/// Where a running simulator answers: the content of `ready.json`. A load has only Modbus.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// `host:port`.
    pub modbus: SocketAddr,
    /// `opc.tcp://host:port/`.
    pub opcua: Option<String>,
    /// `host:port`.
    pub control: Option<SocketAddr>,
    /// Where frames appear.
    pub camera_dir: Option<PathBuf>,
    /// Process id.
    pub pid: u32,
}

/// A serving simulator.
#[derive(Debug)]
pub struct Simulator {
    ready: Ready,
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
        remove_stale(&options.data_dir.join("ready.json"))?;
        let (simulator, config) = match options.load {
            Some(load) => Self::start_load(options, load).await?,
            None => Self::start_plant(options).await?,
        };
        write_whole(&options.data_dir.join("edge.toml"), config.as_bytes())?;
        let ready = serde_json::to_vec_pretty(&simulator.ready).expect("a struct of strings is JSON");
        write_whole(&options.data_dir.join("ready.json"), &ready)?;
        Ok(simulator)
    }

    /// Where it answers.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Serves until `shutdown`, or until a server fails.
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
        ended
    }

    async fn start_plant(options: &Options) -> Result<(Self, String), SimulateError> {
        let modbus = bind("modbus", options.modbus).await?;
        let opcua = bind("opc ua", options.opcua).await?;
        let control = bind("control", options.control).await?;
        let opcua_at = local("opc ua", &opcua)?;
        let plant = PlantState::start(options.seed, options.speed);
        let stop = CancellationToken::new();
        let host = opcua_at.ip().to_string();
        let lines = opcua::build(
            plant.clone(),
            &host,
            opcua_at.port(),
            &options.data_dir,
            stop.clone(),
        )?;
        let camera = Camera {
            plant: plant.clone(),
            directory: camera_directory(options)?,
            period: options.frame_period,
            defect_rate: options.defect_rate,
        };
        camera.prepare()?;
        let ready = Ready {
            modbus: local("modbus", &modbus)?,
            opcua: Some(format!("opc.tcp://{opcua_at}/")),
            control: Some(local("control", &control)?),
            camera_dir: Some(camera.directory.clone()),
            pid: std::process::id(),
        };
        let config = config_out::plant_config(
            &options.agent,
            ready.modbus,
            &format!("opc.tcp://{opcua_at}/"),
            &camera.directory,
        );
        let mut servers = JoinSet::new();
        serve_modbus(
            &mut servers,
            modbus,
            Arc::new(PlantRegisters(plant.clone())),
            &stop,
        );
        servers.spawn(lines.serve(opcua));
        let (control_stop, camera_stop) = (stop.clone(), stop.clone());
        servers.spawn(async move {
            let served = control::serve(plant, control, control_stop).await;
            served.map_err(|source| SimulateError::Stopped {
                server: "control",
                source,
            })
        });
        servers.spawn(async move {
            camera.serve(camera_stop).await;
            Ok(())
        });
        Ok((Self { ready, stop, servers }, config))
    }

    async fn start_load(options: &Options, load: Load) -> Result<(Self, String), SimulateError> {
        let modbus = bind("modbus", options.modbus).await?;
        let address = local("modbus", &modbus)?;
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        serve_modbus(
            &mut servers,
            modbus,
            Arc::new(LoadRegisters::new(load, options.tick)),
            &stop,
        );
        let pid = std::process::id();
        let ready = Ready {
            modbus: address,
            opcua: None,
            control: None,
            camera_dir: None,
            pid,
        };
        let config = config_out::load_config(&options.agent, address, load, options.tick);
        Ok((Self { ready, stop, servers }, config))
    }
}

fn serve_modbus(
    servers: &mut JoinSet<Result<(), SimulateError>>,
    listener: TcpListener,
    bank: Arc<dyn RegisterBank>,
    stop: &CancellationToken,
) {
    let stop = stop.clone();
    servers.spawn(async move {
        let served = modbus::serve(listener, bank, stop).await;
        served.map_err(|source| SimulateError::Stopped {
            server: "modbus",
            source,
        })
    });
}

async fn bind(server: &'static str, address: SocketAddr) -> Result<TcpListener, SimulateError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| SimulateError::Bind {
            server,
            address,
            source,
        })
}

fn local(server: &'static str, listener: &TcpListener) -> Result<SocketAddr, SimulateError> {
    listener
        .local_addr()
        .map_err(|source| SimulateError::Stopped { server, source })
}

/// Absolute, because the agent that reads the configuration may run elsewhere.
fn camera_directory(options: &Options) -> Result<PathBuf, SimulateError> {
    let directory = options
        .camera_dir
        .clone()
        .unwrap_or_else(|| options.data_dir.join("camera"));
    std::path::absolute(&directory).map_err(|source| SimulateError::Write {
        path: directory,
        source,
    })
}

fn remove_stale(path: &Path) -> Result<(), SimulateError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SimulateError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The file appears with its whole content or not at all.
fn write_whole(path: &Path, content: &[u8]) -> Result<(), SimulateError> {
    let partial = path.with_extension("tmp");
    let written = std::fs::write(&partial, content).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|source| SimulateError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
