//! What can be asked of `foodflow-edge` on the command line? One file a subcommand. Exit codes: 0 done, 1 failed at
//! run time, 2 bad usage or configuration, 75 the agent is to be started again by its launcher.

pub mod badge;
pub mod browse;
pub mod check;
pub mod diag;
pub mod enroll;
pub mod launch;
pub mod plan;
pub mod read;
pub mod replay;
pub mod run;
pub mod simulate;
pub mod spool;
pub mod trust;
pub mod update;
pub mod verify;
pub mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::ConfigError;

/// async-opcua reports every failed attempt as an error of its own; the agent says the same once.
const LOG_FILTER: &str = "info,opcua_client=off,opcua_core=off,opcua_crypto=off,opcua_types=off,rumqttc=off";

/// FoodFlow OS edge agent.
#[derive(Debug, Parser)]
#[command(name = "foodflow-edge", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log as JSON lines.
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent.
    Run(run::RunArgs),
    /// Start the agent, and new versions of it: the service's main process.
    Launch(launch::LaunchArgs),
    /// Check a configuration and list every fault in it.
    Check(check::CheckArgs),
    /// Estimate what a configuration costs: requests, bytes, days of outage.
    Plan(plan::PlanArgs),
    /// Watch a running agent, or tags, as they change.
    Watch(watch::WatchArgs),
    /// Judge recorded readings again and compare with the recorded checks.
    Replay(replay::ReplayArgs),
    /// Examine everything the agent depends on, for a person or a support case.
    Diag(diag::DiagArgs),
    /// Look at installed versions, install one, sign one.
    Update(update::UpdateArgs),
    /// List the nodes of an OPC UA server.
    Browse(browse::BrowseArgs),
    /// Show and accept the certificate of an OPC UA server.
    Trust(trust::TrustArgs),
    /// Read one tag now.
    Read(read::ReadArgs),
    /// Exchange a one-time code for this edge's identity.
    Enroll(enroll::EnrollArgs),
    /// Serve a simulated plant: Modbus TCP, OPC UA, camera frames and faults on command.
    Simulate(Box<simulate::SimulateArgs>),
    /// Badges of people who sign on the local page.
    Badge(badge::BadgeArgs),
    /// Look into the spool of a stopped agent.
    Spool(spool::SpoolArgs),
    /// Verify the record of the control points, offline.
    Verify(verify::VerifyArgs),
}

/// An end that was said already, or is none: only the exit code is left.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("exit code {0}")]
pub struct ExitWith(pub u8);

/// What a command was pointed at cannot be read at all: exit code 2, for a broken record is something else.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Unusable(pub anyhow::Error);

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.log_json);
    // The launcher only waits: it gets no worker threads.
    let mut builder = if matches!(cli.command, Command::Launch(_)) {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start")),
    };
    let result = runtime.block_on(dispatch(cli.command));
    // A blocking call that hangs (a dead network share) must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Launch(args) => launch::run(args).await,
        Command::Check(args) => check::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Watch(args) => watch::run(args).await,
        Command::Replay(args) => replay::run(&args),
        Command::Diag(args) => diag::run(args).await,
        Command::Update(args) => update::run(&args),
        Command::Browse(args) => browse::run(args).await,
        Command::Trust(args) => trust::run(args).await,
        Command::Read(args) => read::run(args).await,
        Command::Enroll(args) => enroll::run(args).await,
        Command::Simulate(args) => simulate::run(*args).await,
        Command::Badge(args) => badge::run(&args),
        Command::Spool(args) => spool::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}

fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
}

/// Says what went wrong, with its causes; a bad configuration is the user's to mend and has its own code.
#[expect(
    clippy::print_stderr,
    reason = "the one place where the program reports failure"
)]
fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(ExitWith(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    if let Some(faulty) = error.downcast_ref::<ConfigError>() {
        eprintln!("{faulty}");
        if let Some(cause) = std::error::Error::source(faulty) {
            eprintln!("  {cause}");
        }
        return ExitCode::from(2);
    }
    eprintln!("error: {error:#}");
    ExitCode::from(if error.is::<Unusable>() { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
