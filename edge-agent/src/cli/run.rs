//! `foodflow-edge run`: the agent, until SIGTERM or Ctrl-C; SIGHUP reads the configuration again.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::ExitWith;
use crate::{
    agent::{self, Exit},
    fleet::{EXIT_RESTART, remote_config},
};

/// Run the agent.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the spool, the journal and the identity are kept.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Runs the agent; SIGTERM and Ctrl-C stop it cleanly.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let (config, origin) = remote_config::open(&args.config, &args.data_dir)?;
    tracing::info!(runs = %origin.choice, "configuration");
    // The first user of TLS finds the provider installed; a second installation is refused, which is fine.
    drop(rustls::crypto::ring::default_provider().install_default());
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        }
    });
    match agent::run(config, origin, &args.data_dir, stop).await? {
        Exit::Stopped => Ok(()),
        Exit::Restart => Err(ExitWith(EXIT_RESTART).into()),
    }
}
