//! How does another version get here and come to run? Verified manifest, download that resumes, staging beside what
//! runs, restart by the launcher, and a trial that ends with the version before it unless the new one runs well.

pub mod download;
pub mod launch;
pub mod manifest;
pub mod versions;

use std::{io, path::Path, time::Duration};

use ed25519_dalek::VerifyingKey;
use protocol::command::CommandOutcome;
use uuid::Uuid;

use self::{
    download::{DownloadError, Place},
    manifest::{Manifest, ManifestError},
    versions::{Installed, Trial},
};
use super::{
    Request,
    gate::{Gate, Vitals},
    inbox,
    task::Fleet,
    trial::watch,
};
use crate::uplink::identity;

/// Set by the launcher for what it starts.
pub const LAUNCHED: &str = "FOODFLOW_LAUNCHED";
/// A new version must run well for this long without a break.
const SETTLE: Duration = Duration::from_secs(3);

/// Why a version is not installed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Nobody would start it.
    #[error(
        "this agent was not started by `foodflow-edge launch`, which starts versions; see docs/ref/edge-cli.md"
    )]
    NotLaunched,
    /// It may not be.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It did not arrive.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// Nobody says where it lies.
    #[error("the manifest names no `url`, and this edge does not know its hub's address: enrol it again")]
    NoPlace,
    /// The disk refuses.
    #[error("the disk: {0}")]
    Disk(#[from] io::Error),
}

/// Whether a launcher started this agent.
pub fn is_launched() -> bool {
    std::env::var_os(LAUNCHED).is_some()
}

/// Verifies a manifest against what runs here; none when it runs already.
///
/// # Errors
/// [`ManifestError`].
pub fn admitted(
    manifest: &[u8],
    signature: &[u8],
    keys: &[VerifyingKey],
) -> Result<Option<Manifest>, ManifestError> {
    let manifest = manifest::verify(manifest, signature, keys)?;
    let is_new = manifest::admit(&manifest, manifest::running(), &manifest::target())?;
    Ok(is_new.then_some(manifest))
}

/// Where a program is fetched from. The edge's password goes to its own hub and to nobody else.
fn place(manifest: &Manifest, data_dir: &Path) -> Result<Place, UpdateError> {
    let hub = identity::hub_url(data_dir)?;
    let at_hub = |hub: &String| format!("{hub}/api/v1/edge-artefacts/{}", manifest.sha256.to_lowercase());
    let url = match (&manifest.url, &hub) {
        (Some(url), _) => url.clone(),
        (None, Some(hub)) => at_hub(hub),
        (None, None) => return Err(UpdateError::NoPlace),
    };
    let is_hub = hub.is_some_and(|hub| url.starts_with(&format!("{hub}/")));
    let identity = if is_hub {
        identity::load(data_dir).map_err(io::Error::other)?
    } else {
        None
    };
    Ok(Place { url, identity })
}

/// Puts a program that lies complete at its `.part` on trial: the next start is its first.
///
/// # Errors
/// [`UpdateError`] when it is not what was signed, or the disk refuses.
pub fn stage(
    data_dir: &Path,
    manifest: &Manifest,
    command: Option<Uuid>,
    before: Vitals,
) -> Result<(), UpdateError> {
    let program = versions::program(data_dir, manifest.version);
    download::finish(&program, manifest)?;
    let installed = Installed {
        version: manifest.version,
        sha256: manifest.sha256.to_lowercase(),
    };
    let state = versions::load(data_dir)?.staged(installed, command, before);
    versions::save(data_dir, &state)?;
    Ok(())
}

/// Does `Order::Update`; none when the agent is about to be started anew and the start after that answers.
pub(super) async fn install(
    fleet: &Fleet,
    command: Option<Uuid>,
    manifest: &[u8],
    signature: &[u8],
) -> Option<CommandOutcome> {
    match fetch_and_stage(fleet, command, manifest, signature).await {
        Ok(true) => {
            tracing::warn!("another version is staged: restarting");
            let is_told = fleet.requests.send(Request::Restart).await.is_ok();
            (!is_told).then(|| inbox::refused("the agent is shutting down; give it again"))
        }
        Ok(false) => Some(CommandOutcome::AlreadySo),
        Err(error) => Some(inbox::refused(&error.to_string())),
    }
}

async fn fetch_and_stage(
    fleet: &Fleet,
    command: Option<Uuid>,
    manifest: &[u8],
    signature: &[u8],
) -> Result<bool, UpdateError> {
    let Some(manifest) = admitted(manifest, signature, &fleet.config.fleet.trusted_keys)? else {
        return Ok(false);
    };
    if !is_launched() {
        return Err(UpdateError::NotLaunched);
    }
    let state = versions::load(&fleet.data_dir)?;
    // A power cut between staging and restarting: it is staged.
    let is_staged = state.trial.is_some()
        && state
            .current
            .as_ref()
            .is_some_and(|current| current.version == manifest.version);
    if !is_staged {
        let program = versions::program(&fleet.data_dir, manifest.version);
        let place = place(&manifest, &fleet.data_dir)?;
        download::fetch(&manifest, &place, &program, fleet.config.hub.ca_file.as_deref()).await?;
        let (data_dir, before) = (fleet.data_dir.clone(), Vitals::of(&fleet.health));
        let staging = tokio::task::spawn_blocking(move || stage(&data_dir, &manifest, command, before));
        staging.await.map_err(io::Error::other)??;
    }
    Ok(true)
}

/// Reports a version on trial as running well, once it does. The launcher ends it when that takes too long.
pub(super) async fn confirm(fleet: &Fleet, trial: Trial) -> Option<CommandOutcome> {
    let mut gate = Gate::new(trial.before, false, SETTLE, Duration::MAX);
    let verdict = watch(fleet, &mut gate).await;
    let confirmed = versions::load(&fleet.data_dir).and_then(|state| {
        let state = state.confirmed();
        versions::save(&fleet.data_dir, &state)?;
        Ok(state)
    });
    match confirmed {
        Ok(state) => {
            tracing::info!(version = %manifest::running(), ?verdict, "the new version runs well");
            if let Err(error) = versions::tidy(&fleet.data_dir, &state) {
                tracing::warn!(%error, "old versions stay");
            }
            trial.command.map(|_| CommandOutcome::Done)
        }
        Err(error) => {
            // The launcher will start the version before it, and that answers.
            tracing::error!(%error, "the new version cannot report that it runs well");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::identity::Identity;

    fn manifest(url: Option<&str>) -> Manifest {
        Manifest {
            version: manifest::running(),
            target: manifest::target(),
            sha256: "AB".repeat(32),
            size: 1,
            url: url.map(str::to_owned),
            min_version: None,
            released: String::new(),
        }
    }

    #[test]
    fn the_edges_password_goes_to_its_own_hub_and_to_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            place(&manifest(None), directory.path()),
            Err(UpdateError::NoPlace)
        ));
        let identity = Identity {
            mqtt_username: "akron/akron-1".to_owned(),
            mqtt_password: "secret".to_owned(),
        };
        identity::save(directory.path(), &identity).unwrap();
        identity::save_hub_url(directory.path(), "https://hub.example/").unwrap();
        let place = |url| place(&manifest(url), directory.path()).unwrap();
        let at_hub = place(None);
        assert_eq!(at_hub.identity, Some(identity));
        let by_hash = format!("https://hub.example/api/v1/edge-artefacts/{}", "ab".repeat(32));
        assert_eq!(at_hub.url, by_hash);
        for stranger in [
            "https://hub.example.evil/p",
            "https://other.example/p",
            "http://hub.example/p",
        ] {
            assert_eq!(place(Some(stranger)).identity, None, "{stranger}");
        }
    }
}
