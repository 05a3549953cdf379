//! How are the simulator's servers started? Addresses are bound first, so that a taken one leaves nothing running.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Options, Ready, SimulateError, Simulator,
    camera::Camera,
    config_out, control, gateway,
    load::{Gateway, Load, LoadRegisters, OwnPort},
    modbus::{self, Manner, PlantRegisters, RegisterBank},
    opcua,
    scenario::Command,
    sparkplug,
    state::PlantState,
};

type Servers = JoinSet<Result<(), SimulateError>>;

/// The Akron plant and the agent configuration for it.
pub(super) async fn start_plant(options: &Options) -> Result<(Simulator, String), SimulateError> {
    let modbus = bind("modbus", options.modbus).await?;
    let opcua = bind("opc ua", options.opcua).await?;
    let control = bind("control", options.control).await?;
    let opcua_at = local("opc ua", &opcua)?;
    let opcua_url = format!("opc.tcp://{opcua_at}/");
    let plant = PlantState::start(options.seed, options.speed);
    for (fault, after) in &options.faults {
        let start = Command::Start {
            fault: *fault,
            seconds: None,
        };
        plant.scenario().apply(start, after.as_micros() as i64);
    }
    let stop = CancellationToken::new();
    let host = opcua_at.ip().to_string();
    let (port, data_dir) = (opcua_at.port(), &options.data_dir);
    let lines = opcua::build(plant.clone(), &host, port, data_dir, stop.clone())?;
    let camera = Camera {
        plant: plant.clone(),
        directory: camera_directory(options)?,
        period: options.frame_period,
        defect_rate: options.defect_rate,
    };
    camera.prepare()?;
    let ready = Ready {
        modbus: local("modbus", &modbus)?,
        devices: Vec::new(),
        opcua: Some(opcua_url.clone()),
        control: Some(local("control", &control)?),
        camera_dir: Some(camera.directory.clone()),
        seed: options.seed,
        speed: options.speed,
        epoch_us: plant.clock.utc_us(0),
        pid: std::process::id(),
    };
    let places = config_out::Places {
        modbus: ready.modbus,
        opcua_url: &opcua_url,
        camera_dir: &camera.directory,
        broker: options.broker.as_ref().map(|(host, port)| (host.as_str(), *port)),
    };
    let config = config_out::plant_config(&options.agent, options.speed, places);
    let mut servers = JoinSet::new();
    serve_modbus(
        &mut servers,
        modbus,
        Arc::new(PlantRegisters(plant.clone())),
        &stop,
    );
    servers.spawn(lines.serve(opcua));
    serve_control(&mut servers, control, control::of_plant(plant.clone()), &stop);
    if options.agent.has_camera {
        let stop = stop.clone();
        servers.spawn(async move {
            camera.serve(stop).await;
            Ok(())
        });
    }
    if let Some(broker) = options.broker.clone() {
        let (plant, stop) = (plant.clone(), stop.clone());
        servers.spawn(async move {
            let oven = gateway::serve(plant.clone(), broker.clone(), stop.clone());
            tokio::join!(oven, sparkplug::serve(plant, broker, stop));
            Ok(())
        });
    }
    let simulator = Simulator {
        ready,
        plant: Some(plant),
        truth: options.truth.clone(),
        stop,
        servers,
    };
    Ok((simulator, config))
}

/// A load and the agent configuration for it.
pub(super) async fn start_load(options: &Options, load: Load) -> Result<(Simulator, String), SimulateError> {
    let control = bind("control", options.control).await?;
    let bank = Arc::new(LoadRegisters::new(load, options.tick));
    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    let devices = if load.own_ports {
        serve_own_ports(&mut servers, options, &bank, &stop).await?
    } else {
        let modbus = bind("modbus", options.modbus).await?;
        let address = local("modbus", &modbus)?;
        serve_modbus(&mut servers, modbus, Arc::new(Gateway(bank.clone())), &stop);
        vec![address]
    };
    let control_at = local("control", &control)?;
    serve_control(&mut servers, control, control::of_load(bank), &stop);
    let config = config_out::load_config(&options.agent, &devices, load, options.tick);
    let ready = Ready {
        modbus: devices[0],
        devices: if load.own_ports { devices } else { Vec::new() },
        opcua: None,
        control: Some(control_at),
        camera_dir: None,
        seed: options.seed,
        speed: options.speed,
        epoch_us: chrono::Utc::now().timestamp_micros(),
        pid: std::process::id(),
    };
    let simulator = Simulator {
        ready,
        plant: None,
        truth: None,
        stop,
        servers,
    };
    Ok((simulator, config))
}

/// A port for each device, from the given one on when it is not 0. One that refuses holds its port and does not
/// listen.
async fn serve_own_ports(
    servers: &mut Servers,
    options: &Options,
    bank: &Arc<LoadRegisters>,
    stop: &CancellationToken,
) -> Result<Vec<SocketAddr>, SimulateError> {
    let manners = options.load.unwrap_or_default().manners();
    let mut devices = Vec::new();
    for (device, manner) in (1u16..).zip(manners) {
        let mut address = options.modbus;
        if address.port() != 0 {
            address.set_port(address.port().saturating_add(device - 1));
        }
        if manner == Manner::Refuse {
            let (socket, at) = hold(address)?;
            devices.push(at);
            let stop = stop.clone();
            servers.spawn(async move {
                stop.cancelled().await;
                drop(socket);
                Ok(())
            });
            continue;
        }
        let listener = bind("modbus", address).await?;
        devices.push(local("modbus", &listener)?);
        let bank = bank.clone();
        serve_modbus(servers, listener, Arc::new(OwnPort { bank, device }), stop);
    }
    Ok(devices)
}

/// A port that is taken and on which nobody listens: whoever connects is refused.
fn hold(address: SocketAddr) -> Result<(TcpSocket, SocketAddr), SimulateError> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let held = socket.and_then(|socket| {
        socket.bind(address)?;
        let at = socket.local_addr()?;
        Ok((socket, at))
    });
    held.map_err(|source| SimulateError::Bind {
        server: "modbus",
        address,
        source,
    })
}

fn serve_modbus(
    servers: &mut Servers,
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

fn serve_control(
    servers: &mut Servers,
    listener: TcpListener,
    router: axum::Router,
    stop: &CancellationToken,
) {
    let stop = stop.clone();
    servers.spawn(async move {
        let served = control::serve(router, listener, stop).await;
        served.map_err(|source| SimulateError::Stopped {
            server: "control",
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

/// Removes what an earlier run left at `path`.
pub(super) fn remove_stale(path: &Path) -> Result<(), SimulateError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SimulateError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The file appears with its whole content or not at all.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<(), SimulateError> {
    let partial = path.with_extension("tmp");
    let written = std::fs::write(&partial, content).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|source| SimulateError::Write {
        path: path.to_owned(),
        source,
    })
}
