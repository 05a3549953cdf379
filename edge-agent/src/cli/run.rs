//! `foodflow-edge run`: the agent, until SIGTERM or Ctrl-C; SIGHUP reads the configuration again.

use std::path::PathBuf;

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{self, Reload},
    config,
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

/// Runs the agent; SIGTERM and Ctrl-C stop it cleanly, SIGHUP reads the configuration again. One that is faulty
/// changes nothing.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
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
    let (reloads_tx, reloads) = mpsc::channel(1);
    tokio::spawn(reload_on_hangup(
        args.config,
        config.dictionary.clone(),
        signal(SignalKind::hangup())?,
        reloads_tx,
    ));
    agent::run(config, &args.data_dir, reloads, stop).await?;
    Ok(())
}

async fn reload_on_hangup(
    path: PathBuf,
    mut running: protocol::tag::Dictionary,
    mut hangup: tokio::signal::unix::Signal,
    reloads: mpsc::Sender<Reload>,
) {
    while hangup.recv().await.is_some() {
        let config = match config::load_after(&path, &running) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "configuration not changed");
                continue;
            }
        };
        let dictionary = config.dictionary.clone();
        let (answer, outcome) = oneshot::channel();
        if reloads.send(Reload { config, answer }).await.is_err() {
            return;
        }
        if matches!(outcome.await, Ok(Ok(_))) {
            running = dictionary;
        }
    }
}
