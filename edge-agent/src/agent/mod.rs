//! What runs, and until when? Starts the agent's parts, follows a changed configuration while they run, starts them anew
//! where that is not enough, and ends when told to or when a part fails.

mod making;
mod parts;

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::parts::Parts;
use crate::{
    config::Config,
    fleet::{
        Request, notify,
        remote_config::{self, Origin},
    },
    local,
    source::running::Changes,
    spool,
    uplink::identity,
};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data directory cannot be used.
    #[error("data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The spool cannot be opened.
    #[error("the spool cannot be opened")]
    Spool(#[from] spool::store::StoreError),
    /// The identity cannot be read.
    #[error("the identity cannot be read")]
    Identity(#[from] identity::IdentityError),
    /// The local page cannot be served.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A part ended while the agent ran.
    #[error("{0} ended unexpectedly; the log says why")]
    Ended(&'static str),
}

/// Why the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to.
    Stopped,
    /// Another version is to be started.
    Restart,
}

/// What follows when the parts have stopped.
enum Next {
    Exit(Exit),
    /// All parts start anew with another configuration.
    Anew(Box<(Config, Origin)>),
}

/// What following a configuration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The sources that were touched.
    pub sources: Changes,
    /// Whether control points, signals or tags changed.
    pub has_new_rules: bool,
}

/// Why a running agent keeps its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It would be another agent.
    #[error("the edge's name and tenant cannot change while it runs; restart the agent")]
    OtherEdge,
    /// Frames could not be explained.
    #[error("the new tag dictionary cannot be written to disk")]
    Disk,
}

/// Runs the agent until `stop`; everything acquired by then is on disk when it returns. SIGHUP makes it read its
/// configuration again.
pub async fn run(
    mut config: Config,
    mut origin: Origin,
    data_dir: &Path,
    stop: CancellationToken,
) -> Result<Exit, AgentError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(AgentError::Thread)?;
    loop {
        match run_parts(config, &origin, data_dir, (&mut hangup, &stop)).await? {
            Next::Exit(exit) => return Ok(exit),
            Next::Anew(anew) => (config, origin) = *anew,
        }
    }
}

async fn run_parts(
    config: Config,
    origin: &Origin,
    data_dir: &Path,
    (hangup, stop): (&mut Signal, &CancellationToken),
) -> Result<Next, AgentError> {
    let data_dir_error = |source| AgentError::DataDir {
        path: data_dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(data_dir).map_err(data_dir_error)?;
    // A ready file of an earlier start would send scripts to a port that is no longer ours.
    local::clear_ready(data_dir);
    let (mut parts, mut requests) = Parts::start(config, origin, data_dir).await?;
    if let Err(error) = local::write_ready(data_dir, &parts.http) {
        // A full disk stops no judgement.
        tracing::error!(%error, "ready.json cannot be written");
    }
    notify::ready(&format!("{} runs with {}", parts.config.edge.name, origin.choice));
    tracing::info!(
        edge = %parts.config.edge.name, http = %parts.http, tags = parts.config.tag_count(), "agent running"
    );
    let next = loop {
        let next = tokio::select! {
            () = stop.cancelled() => Some(Next::Exit(Exit::Stopped)),
            // A part that ended would be a silence that nobody notices: the service manager starts the agent anew.
            part = parts.ended() => break Err(AgentError::Ended(part)),
            Some(request) = requests.recv() => asked(&mut parts, request).await,
            Some(()) = hangup.recv() => read_again(&mut parts, &origin.local_path, data_dir).await,
        };
        if let Some(next) = next {
            break Ok(next);
        }
    };
    if !matches!(next, Ok(Next::Anew(_))) {
        notify::stopping();
    }
    parts.stop().await;
    local::clear_ready(data_dir);
    tracing::info!("agent stopped");
    next
}

/// Does what the fleet asks; what follows, when the parts cannot go on.
async fn asked(parts: &mut Parts, request: Request) -> Option<Next> {
    match request {
        Request::Restart => Some(Next::Exit(Exit::Restart)),
        Request::Reload {
            config,
            origin,
            answer,
        } => {
            if parts.must_start_anew(&config) {
                drop(answer.send(Ok(())));
                return Some(Next::Anew(Box::new((*config, *origin))));
            }
            let followed = parts.follow(*config).await;
            drop(answer.send(followed.map(drop).map_err(|error| error.to_string())));
            None
        }
        Request::SetLimits { limits, answer, .. } => {
            drop(answer.send(parts.set_limits(limits).await));
            None
        }
        Request::Replay {
            from_us,
            to_us,
            answer,
        } => {
            drop(answer.send(parts.replay(from_us, to_us).await));
            None
        }
    }
}

/// Reads the configuration again; a faulty one changes nothing.
async fn read_again(parts: &mut Parts, local_path: &Path, data_dir: &Path) -> Option<Next> {
    let opened = remote_config::look_again(local_path, data_dir, &parts.config.dictionary);
    let (config, origin) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(%error, "configuration not changed");
            return None;
        }
    };
    if parts.is_other_edge(&config) {
        tracing::error!(error = %ReloadError::OtherEdge, "configuration not changed");
        return None;
    }
    if parts.must_start_anew(&config) {
        tracing::info!("the change needs the parts to start anew");
        return Some(Next::Anew(Box::new((config, origin))));
    }
    match parts.follow(config).await {
        Ok(_) => parts.say_origin(origin),
        Err(error) => tracing::error!(%error, "configuration not changed"),
    }
    None
}
