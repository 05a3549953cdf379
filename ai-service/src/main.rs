//! `foodflow-ai serve`: the AI service as a program of its own. The hub's embedded default mounts the same router.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;

/// Models of FoodFlow OS over HTTP.
#[derive(Debug, Parser)]
#[command(version)]
enum Cli {
    /// Serve until SIGTERM or Ctrl-C.
    Serve {
        /// Address to listen on.
        #[arg(long, env = "FOODFLOW_AI__HTTP", default_value = "127.0.0.1:8090")]
        http: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .init();
    let Cli::Serve { http } = Cli::parse();
    let listener = tokio::net::TcpListener::bind(http)
        .await
        .with_context(|| format!("listening on {http}"))?;
    tracing::info!(http = %listener.local_addr()?, "serving");
    axum::serve(listener, ai_service::api::router())
        .with_graceful_shutdown(stop())
        .await
        .context("serving")
}

async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
