//! `foodflow-hub serve`: start, say so in ready.json, wait for a signal, stop in order.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::Place;
use crate::{
    config::{Config, Overrides},
    embedded,
    hub::{Hub, Options, write_ready},
};

pub(super) async fn run(
    place: &Place,
    is_embedded: bool,
    http: Option<SocketAddr>,
    mqtt: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let overrides = Overrides {
        http,
        mqtt,
        embedded: is_embedded,
        ..place.overrides()
    };
    let config = Config::load(place.config.as_deref(), &overrides)?;
    let data_dir = config.data_dir.clone();
    std::fs::create_dir_all(&data_dir).with_context(|| format!("creating {}", data_dir.display()))?;
    // Taken before anything of another hub is touched; released by the end of the process, however it ends.
    let _serving = embedded::lock(&data_dir, "serve.lock").await?;
    let ready = data_dir.join("ready.json");
    // One that an earlier hub left says nothing about this one.
    if ready.exists() {
        std::fs::remove_file(&ready).with_context(|| format!("removing {}", ready.display()))?;
    }
    // Before anything starts, so that a signal during the start is not lost.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let started = tokio::select! {
        started = Hub::start(Options { config, embedded: place.settings() }) => started,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let hub = started?;
    write_ready(&data_dir, hub.http, hub.mqtt).context("writing ready.json")?;
    tracing::info!(http = %hub.http, mqtt = %hub.mqtt, "the hub takes traffic");
    let is_told = tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
        () = hub.failed() => false,
    };
    tracing::info!(is_told, "stopping");
    if let Err(error) = std::fs::remove_file(&ready) {
        tracing::warn!(%error, "ready.json could not be removed");
    }
    hub.stop().await;
    // Whoever supervises the process starts it anew; edges keep their frames meanwhile.
    anyhow::ensure!(is_told, "a part of the hub ended by itself");
    Ok(())
}
