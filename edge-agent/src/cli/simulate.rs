//! `foodflow-edge simulate`: which plant, where and how fast?
//! Arguments in, exit when told; everything else is `crate::simulate`.
#![expect(
    clippy::print_stdout,
    reason = "a command tells its caller where the plant answers"
)]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::simulate::{Options, Simulator, config_out::AgentSettings, load::Load};

/// Serves a simulated plant: Modbus TCP, OPC UA, camera frames and faults on command.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Directory for ready.json, edge.toml, certificates and frames.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// The same seed gives the same plant.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Modbus TCP address; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub modbus: SocketAddr,
    /// OPC UA address.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub opcua: SocketAddr,
    /// Address of the HTTP control of faults.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub control: SocketAddr,
    /// Where frames appear; DATA_DIR/camera unless given.
    #[arg(long)]
    pub camera_dir: Option<PathBuf>,
    /// Plant seconds a wall second, 0.01 to 1000.
    #[arg(long, default_value = "1", value_parser = speed)]
    pub speed: f64,
    /// Plant time from frame to frame.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub frame_period: Duration,
    /// Share of trays, 0 to 1, with a defect outside bursts.
    #[arg(long, default_value = "0", value_parser = share)]
    pub defect_rate: f64,
    /// Serve counters instead of the plant: devices=N,tags=M[,advance=tick|read].
    #[arg(long)]
    pub load: Option<Load>,
    /// Period of the counters of a load, and of the polls in its edge.toml; an agent takes 10ms or more.
    #[arg(long, default_value = "100ms", value_parser = tick)]
    pub tick: Duration,
    /// MQTT address of the hub in the written edge.toml.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub hub_mqtt: String,
    /// Local HTTP address of the agent in the written edge.toml.
    #[arg(long, default_value = "127.0.0.1:9180")]
    pub local_http: String,
    /// Manifest of the vision model in the written edge.toml.
    #[arg(long, default_value = "vision/models/tray-defects/manifest.json")]
    pub vision_manifest: PathBuf,
    /// ONNX Runtime library in the written edge.toml.
    #[arg(long)]
    pub vision_runtime: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// When a server cannot start or fails.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let data_dir = args.data_dir.clone();
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let simulator = Simulator::start(&args.into())
        .await
        .context("starting the simulated plant")?;
    let ready = simulator.ready();
    println!("modbus   {}", ready.modbus);
    if let (Some(opcua), Some(control)) = (&ready.opcua, &ready.control) {
        println!("opc ua   {opcua}");
        println!("control  http://{control}/scenario");
    }
    if let Some(camera_dir) = &ready.camera_dir {
        println!("frames   {}", camera_dir.display());
    }
    println!("config   {}", data_dir.join("edge.toml").display());
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            // Without a handler for SIGINT the default one ends the process: nothing to report.
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    simulator
        .run_until(shutdown)
        .await
        .context("simulating the plant")
}

impl From<SimulateArgs> for Options {
    fn from(args: SimulateArgs) -> Self {
        Self {
            data_dir: args.data_dir,
            seed: args.seed,
            speed: args.speed,
            modbus: args.modbus,
            opcua: args.opcua,
            control: args.control,
            camera_dir: args.camera_dir,
            frame_period: args.frame_period,
            defect_rate: args.defect_rate,
            load: args.load,
            tick: args.tick,
            agent: AgentSettings {
                hub_mqtt: args.hub_mqtt,
                local_http: args.local_http,
                vision_manifest: args.vision_manifest,
                vision_runtime: args.vision_runtime,
            },
        }
    }
}

/// `250ms`, `2s` or `1.5s`; from a millisecond to an hour.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(ms), _) => ms.parse::<f64>().map(|ms| ms / 1_000.0),
        (None, Some(s)) => s.parse::<f64>(),
        (None, None) => return Err("a duration ends in `ms` or `s`".to_owned()),
    };
    match seconds {
        Ok(s) if (0.001..=3_600.0).contains(&s) => Ok(Duration::from_secs_f64(s)),
        Ok(_) => Err("a duration is 1ms to 3600s".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn tick(text: &str) -> Result<Duration, String> {
    let tick = duration(text)?;
    if tick < Duration::from_millis(10) {
        Err("a tick is at least 10ms".to_owned())
    } else {
        Ok(tick)
    }
}

fn speed(text: &str) -> Result<f64, String> {
    within(text, 0.01, 1_000.0)
}

fn share(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1.0)
}

fn within(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let n: f64 = text
        .parse()
        .map_err(|error: std::num::ParseFloatError| error.to_string())?;
    if (low..=high).contains(&n) {
        Ok(n)
    } else {
        Err(format!("must be {low} to {high}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: SimulateArgs,
    }

    #[test]
    fn defaults_are_a_real_time_plant_on_free_ports_without_defects() {
        let args = Command::try_parse_from(["simulate", "--data-dir", "d"])
            .unwrap()
            .args;
        assert_eq!((args.speed, args.defect_rate), (1.0, 0.0));
        assert_eq!(
            (args.modbus.port(), args.opcua.port(), args.control.port()),
            (0, 0, 0)
        );
        assert_eq!(args.frame_period, Duration::from_secs(2));
    }

    #[test]
    fn impossible_arguments_are_refused() {
        for bad in [
            ["--speed", "0"],
            ["--speed", "NaN"],
            ["--defect-rate", "1.1"],
            ["--tick", "0s"],
            ["--tick", "9ms"],
            ["--tick", "5"],
            ["--frame-period", "-1s"],
            ["--load", "devices=0,tags=1"],
            ["--modbus", "nowhere"],
        ] {
            let all = ["simulate", "--data-dir", "d", bad[0], bad[1]];
            assert!(Command::try_parse_from(all).is_err(), "{bad:?}");
        }
    }
}
