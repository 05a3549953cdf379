//! `make demo`: a simulated plant, an edge agent and a hub on this machine. With `--once` the three journeys are
//! run and timed, everything is stopped, and the exit code says whether all of them arrived.
#![expect(clippy::print_stdout, reason = "a demo talks to the person who started it")]

#[path = "../tests/e2e/journeys.rs"]
mod journeys;
#[path = "../tests/e2e/plant.rs"]
#[allow(dead_code, reason = "shared with the tests, which need more of it")]
mod plant;

use std::process::ExitCode;

use anyhow::{Result, bail};
use plant::{Options, Plant};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes without the backtrace that Debug would add.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => stay().await,
        ["--once"] => once().await,
        _ => bail!("usage: make demo, or make demo ARGS=--once"),
    }
}

async fn once() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("foodflow-demo-").tempdir()?;
    let options = Options::on_free_ports(folder.path())?;
    let plant = Plant::start(options).await?;
    let outcome = run_journeys(&plant).await;
    plant.stop()?;
    outcome
}

async fn run_journeys(plant: &Plant) -> Result<()> {
    report(&journeys::register_to_api(plant).await?);
    report(&journeys::dip_to_hold(plant).await?);
    report(&journeys::frame_to_verdict(plant).await?);
    Ok(())
}

fn report(journey: &journeys::Journey) {
    println!(
        "{:<20} {:>8.1} ms   {}",
        journey.name, journey.latency_ms, journey.what
    );
}

async fn stay() -> Result<()> {
    let root = plant::repository().join("data/demo");
    let fixed = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let free = Options::on_free_ports(&root)?;
    let options = Options {
        http: fixed(8080),
        mqtt: fixed(1883),
        edge_http: fixed(9180),
        password: password(&root)?,
        ..free
    };
    let plant = Plant::start(options).await?;
    println!("Dashboard    {}", plant.url());
    println!(
        "Sign in      tenant {}, {}, {}",
        plant::TENANT,
        plant::ADMIN,
        plant.options.password
    );
    println!("API          {}/docs", plant.url());
    println!("Edge status  http://{}", plant.options.edge_http);
    println!(
        "Faults       curl -X POST http://{}/scenario/f2   (also f1, f4, defect-burst?count=5, normal)",
        plant.control
    );
    println!("Ctrl-C stops everything; the data stays in {}", root.display());
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    plant.stop()
}

/// The password of the demo's users: drawn once, kept beside the demo's data so that a second start shows the same.
fn password(root: &std::path::Path) -> Result<String> {
    let file = root.join("password");
    if let Ok(known) = std::fs::read_to_string(&file) {
        return Ok(known);
    }
    std::fs::create_dir_all(root)?;
    let drawn = uuid::Uuid::now_v7().simple().to_string()[18..].to_owned();
    std::fs::write(&file, &drawn)?;
    Ok(drawn)
}
