//! `foodflow-edge simulate`: which plant, where and how fast? `simulate score`: how well did an agent do?
//! Arguments in, exit when told; everything else is `crate::simulate`.
#![expect(
    clippy::print_stdout,
    reason = "a command tells its caller where the plant answers"
)]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::simulate::{
    Options, Ready, Simulator,
    config_out::AgentSettings,
    fault::Fault,
    load::Load,
    score::{self, Timing},
    truth::Truth,
};

/// Serves a simulated plant: Modbus TCP, OPC UA, camera frames and faults on command.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct SimulateArgs {
    #[command(subcommand)]
    command: Option<SimulateCommand>,
    /// Directory for ready.json, edge.toml, certificates and frames.
    #[arg(long, required = true)]
    pub data_dir: Option<PathBuf>,
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
    /// Plant seconds a wall second, 0.1 to 100000.
    #[arg(long, default_value = "1", value_parser = speed)]
    pub speed: f64,
    /// Plant time from frame to frame.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub frame_period: Duration,
    /// Share of trays, 0 to 1, with a defect outside bursts.
    #[arg(long, default_value = "0", value_parser = share)]
    pub defect_rate: f64,
    /// A fault ordered ahead in plant time, like f2@60s; may be given several times.
    #[arg(long = "fault", value_parser = ordered)]
    pub faults: Vec<(Fault, Duration)>,
    /// Where the ground truth is written at the end, a line of JSON an entry.
    #[arg(long)]
    pub truth: Option<PathBuf>,
    /// MQTT broker, host:port, to which line 4's Sparkplug node publishes.
    #[arg(long, value_parser = broker)]
    pub broker: Option<(String, u16)>,
    /// Make no camera frames, and write none into edge.toml.
    #[arg(long)]
    pub no_camera: bool,
    /// Serve counters instead of the plant:
    /// devices=N,tags=M and, after commas: advance=tick|read period=1s ports=own dead=N refuse=N late=1.2s:N exception=6:N.
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

#[derive(Debug, Clone, Subcommand)]
enum SimulateCommand {
    /// Compare an agent's records with the ground truth.
    Score(ScoreArgs),
}

#[derive(Debug, Clone, Args)]
struct ScoreArgs {
    /// The ground truth: what `simulate --truth` wrote, or `GET /truth`.
    #[arg(long)]
    truth: PathBuf,
    /// The agent's records, a line of JSON each: an event, or an object with an `event`.
    #[arg(long)]
    records: PathBuf,
    /// The simulator's ready.json: when the plant started and how fast it ran.
    #[arg(long)]
    plant: PathBuf,
    /// What polling and scheduling may cost on top of what is expected, wall time.
    #[arg(long, default_value = "1s", value_parser = duration)]
    slack: Duration,
}

/// Scores and prints the report as JSON.
fn run_score(args: &ScoreArgs) -> anyhow::Result<()> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let ready: Ready = serde_json::from_str(&read(&args.plant)?)
        .with_context(|| format!("{} is no ready.json of a simulator", args.plant.display()))?;
    let text = read(&args.truth)?;
    let lines = text.lines().enumerate();
    let truth: Vec<Truth> = lines
        .map(|(n, line)| {
            serde_json::from_str(line).with_context(|| {
                format!(
                    "{}:{}: not an entry of a ground truth",
                    args.truth.display(),
                    n + 1
                )
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let events = score::read_events(&read(&args.records)?)
        .with_context(|| format!("reading {}", args.records.display()))?;
    let timing = Timing {
        epoch_us: ready.epoch_us,
        speed: ready.speed,
        slack_s: args.slack.as_secs_f64(),
    };
    let ended_us = truth
        .iter()
        .filter_map(|truth| truth.to_us.or(Some(truth.from_us)))
        .max();
    let report = score::score(&truth, &events, timing, ended_us.unwrap_or_default());
    println!("{}", serde_json::to_string_pretty(&report)?);
    if !report.is_passed() {
        bail!("the records are not what the ground truth says");
    }
    Ok(())
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// When a server cannot start or fails.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    if let Some(SimulateCommand::Score(score)) = &args.command {
        return run_score(score);
    }
    let data_dir = args.data_dir.clone().unwrap_or_default();
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let simulator = Simulator::start(&args.into())
        .await
        .context("starting the simulated plant")?;
    let ready = simulator.ready();
    println!("modbus   {}", ready.modbus);
    if let Some(control) = &ready.control {
        println!("control  http://{control}/scenario");
    }
    if let Some(opcua) = &ready.opcua {
        println!("opc ua   {opcua}");
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
            data_dir: args.data_dir.unwrap_or_default(),
            seed: args.seed,
            speed: args.speed,
            modbus: args.modbus,
            opcua: args.opcua,
            control: args.control,
            camera_dir: args.camera_dir,
            frame_period: args.frame_period,
            defect_rate: args.defect_rate,
            faults: args.faults,
            truth: args.truth,
            broker: args.broker,
            load: args.load,
            tick: args.tick,
            agent: AgentSettings {
                hub_mqtt: args.hub_mqtt,
                local_http: args.local_http,
                vision_manifest: args.vision_manifest,
                vision_runtime: args.vision_runtime,
                has_camera: !args.no_camera,
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

/// `f2@60s`: which fault, and from when on.
fn ordered(text: &str) -> Result<(Fault, Duration), String> {
    let parts = text.split_once('@');
    let (fault, after) = parts.ok_or("a fault is ordered like f2@60s")?;
    let fault = fault
        .parse()
        .map_err(|()| format!("no fault `{fault}`: there are f1 to f20"))?;
    Ok((fault, duration(after)?))
}

fn broker(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    port.ok_or_else(|| "a broker is host:port, like 127.0.0.1:1883".to_owned())
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
    within(text, 0.1, 100_000.0)
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
    fn faults_are_ordered_by_plant_time() {
        let line = [
            "simulate",
            "--data-dir",
            "d",
            "--fault",
            "f2@60s",
            "--fault",
            "f19@1.5s",
        ];
        let args = Command::try_parse_from(line).unwrap().args;
        assert_eq!(
            args.faults,
            [
                (Fault::F2, Duration::from_mins(1)),
                (Fault::F19, Duration::from_millis(1_500))
            ]
        );
    }

    #[test]
    fn scoring_needs_no_plant_to_serve_and_serving_needs_a_directory() {
        let line = [
            "simulate",
            "score",
            "--truth",
            "t",
            "--records",
            "r",
            "--plant",
            "p",
        ];
        assert!(Command::try_parse_from(line).unwrap().args.command.is_some());
        assert!(Command::try_parse_from(["simulate"]).is_err());
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
            ["--fault", "f21@1s"],
            ["--fault", "f2"],
            ["--broker", "1883"],
        ] {
            let all = ["simulate", "--data-dir", "d", bad[0], bad[1]];
            assert!(Command::try_parse_from(all).is_err(), "{bad:?}");
        }
    }
}
