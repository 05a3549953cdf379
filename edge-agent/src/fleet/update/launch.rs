//! Which program is started, and what when it ends? `foodflow-edge launch` is the service's main process: it starts
//! the agent as its child, gives a new version a limited time to report that it runs well, and starts the one before
//! it otherwise. It reads no configuration and opens no port: there is little in it that a bad version could break.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::{
    super::notify,
    LAUNCHED, download, manifest,
    versions::{self, End, Installed, Start, State},
};

/// How long a child that was asked to end may take: the spool is sealed meanwhile.
const END_WITHIN: Duration = Duration::from_secs(25);
/// One that is on trial and hangs gets less.
const HUNG_END_WITHIN: Duration = Duration::from_secs(5);
/// How often a trial's state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the launcher was told.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The agent's arguments, from `run` on.
    pub arguments: Vec<OsString>,
    /// The agent's data directory.
    pub data_dir: PathBuf,
    /// How long a new version may take to report that it runs well.
    pub trial: Duration,
}

/// Starts agents until one ends for good; its exit code.
///
/// # Errors
/// When signals cannot be received or the packaged program cannot be started.
pub async fn run(launch: &Launch) -> io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let (program, is_packaged) = next_program(launch);
        let mut child = match spawn(launch, &program) {
            Ok(child) => child,
            Err(error) if is_packaged => return Err(error),
            Err(error) => {
                tracing::error!(%error, program = %program.display(), "cannot be started");
                after(launch, End::Exited(None));
                continue;
            }
        };
        tracing::info!(program = %program.display(), "started");
        let (end, status) = tokio::select! {
            _ = terminate.recv() => (End::Stopped, end(&mut child, END_WITHIN).await?),
            _ = interrupt.recv() => (End::Stopped, end(&mut child, END_WITHIN).await?),
            status = child.wait() => {
                let status = status?;
                (End::Exited(status.code()), status)
            }
            () = trial_ends(launch) => {
                tracing::error!(within_s = launch.trial.as_secs(), "the new version did not report that it runs well");
                (End::TimedOut, end(&mut child, HUNG_END_WITHIN).await?)
            }
        };
        if !after(launch, end) {
            return Ok(exit_code(status));
        }
    }
}

/// Decides what to start and puts that on disk first. A state that cannot be read or written must not keep the line
/// without an agent: then it is the packaged one.
fn next_program(launch: &Launch) -> (PathBuf, bool) {
    let packaged = packaged_program();
    let decided = versions::load(&launch.data_dir).and_then(|state| {
        let (next, start) = state.start(manifest::running(), |installed| {
            is_whole(&launch.data_dir, installed)
        });
        if next != state {
            versions::save(&launch.data_dir, &next)?;
        }
        Ok(start)
    });
    match decided {
        Ok(Start::Installed(installed)) => (versions::program(&launch.data_dir, installed.version), false),
        Ok(Start::Packaged) => (packaged, true),
        Err(error) => {
            tracing::error!(%error, "installed versions are not known: the packaged one is started");
            (packaged, true)
        }
    }
}

/// The program that this launcher is. A package that was upgraded meanwhile has put another in its place.
fn packaged_program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/foodflow-edge"));
    match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    }
}

fn is_whole(data_dir: &Path, installed: &Installed) -> bool {
    let path = versions::program(data_dir, installed.version);
    download::sha256_file(&path).is_ok_and(|found| found == installed.sha256)
}

/// Notes how the child ended; whether another is started.
fn after(launch: &Launch, end: End) -> bool {
    let decided = versions::load(&launch.data_dir).and_then(|state| {
        let (next, again) = state.ended(end);
        if let Some(failure) = next
            .concluded
            .as_ref()
            .filter(|_| next != state)
            .and_then(|concluded| concluded.failure.as_ref())
        {
            tracing::error!(%failure, "the version before it is started");
        }
        if next != state {
            versions::save(&launch.data_dir, &next)?;
        }
        Ok(again)
    });
    decided.unwrap_or_else(|error| {
        tracing::error!(%error, ?end, "how the agent ended is not on disk");
        false
    })
}

fn spawn(launch: &Launch, program: &Path) -> io::Result<Child> {
    Command::new(program)
        .args(&launch.arguments)
        .env(LAUNCHED, "1")
        // The watchdog's messages come from the child; systemd takes them by NotifyAccess=all.
        .env_remove("WATCHDOG_PID")
        .kill_on_drop(true)
        .spawn()
}

/// Ends when a version that is on trial has had its time; never for one that is not, or reports itself well.
async fn trial_ends(launch: &Launch) {
    let is_on_trial = || {
        let state: State = versions::load(&launch.data_dir).unwrap_or_default();
        state.trial.is_some_and(|trial| trial.starts > 0)
    };
    let deadline = tokio::time::sleep(launch.trial);
    tokio::pin!(deadline);
    while is_on_trial() {
        // Until it reports itself well it is the launcher that decides, not the service manager's watchdog.
        notify::watchdog();
        tokio::select! {
            () = &mut deadline => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    std::future::pending::<()>().await;
}

/// Asks a child to end, then makes it.
async fn end(child: &mut Child, within: Duration) -> io::Result<ExitStatus> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok())
        && let Err(error) = signal::kill(Pid::from_raw(pid), Signal::SIGTERM)
    {
        tracing::debug!(%error, "the child is gone");
    }
    if let Ok(status) = tokio::time::timeout(within, child.wait()).await {
        return status;
    }
    tracing::error!("the agent does not end: killed");
    child.kill().await?;
    child.wait().await
}

/// The child's exit code, or 128 and the signal's number as shells have it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
