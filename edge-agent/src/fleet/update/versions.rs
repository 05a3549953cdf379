//! Which version of the agent runs next? Installed versions lie beside each other; one file says which is current,
//! which was before it and whether the current one is on trial. Pure decisions; the launcher and the agent act.
//!
//! ```text
//! DATA/versions/<version>/foodflow-edge        an installed program, never changed once it has its name
//! DATA/versions/<version>/foodflow-edge.part   a download that is not finished
//! DATA/versions/state.json                     which runs: changed in one rename, never half
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::command::CommandOutcome;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    super::{gate::Vitals, inbox},
    manifest::Version,
};
use crate::durable;

/// Starts that a version on trial gets: a power cut is not its fault. An end by itself is, the first time.
pub const TRIAL_STARTS_MAX: u32 = 3;

/// An installed program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Its version.
    pub version: Version,
    /// SHA-256 of the file, lower-case hex; looked at before each start.
    pub sha256: String,
}

/// A version that runs and is not yet known to run well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The command that brought it; none: a person at the machine.
    pub command: Option<Uuid>,
    /// How the agent did before.
    pub before: Vitals,
    /// Times it was started.
    pub starts: u32,
}

/// How the newest trial ended, until the hub has been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concluded {
    /// Which version.
    pub version: Version,
    /// The command that brought it.
    pub command: Option<Uuid>,
    /// Why it does not run; none: it does.
    pub failure: Option<String>,
}

impl Concluded {
    /// What is answered.
    pub fn outcome(&self) -> CommandOutcome {
        match &self.failure {
            None => CommandOutcome::Done,
            Some(reason) => inbox::rolled_back(&format!("version {}: {reason}", self.version)),
        }
    }
}

/// What is known about installed versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The one to run; none: the packaged one.
    pub current: Option<Installed>,
    /// The one to run when the current one fails its trial; none: the packaged one.
    pub previous: Option<Installed>,
    /// The current one is on trial.
    pub trial: Option<Trial>,
    /// How the newest trial ended.
    pub concluded: Option<Concluded>,
}

/// What the launcher starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The program that the launcher itself is.
    Packaged,
    /// An installed one.
    Installed(Installed),
}

/// How a started agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code; none: by a signal, or it could not be started.
    Exited(Option<i32>),
    /// It did not report that it runs well, and was stopped.
    TimedOut,
    /// The service manager asked for it.
    Stopped,
}

impl State {
    /// A version is put on trial.
    #[must_use]
    pub fn staged(&self, installed: Installed, command: Option<Uuid>, before: Vitals) -> Self {
        Self {
            previous: self.current.clone(),
            current: Some(installed),
            trial: Some(Trial {
                command,
                before,
                starts: 0,
            }),
            concluded: None,
        }
    }

    /// The version on trial runs well.
    #[must_use]
    pub fn confirmed(&self) -> Self {
        self.concluded_with(None)
    }

    /// The version on trial does not: the one before it is current again.
    #[must_use]
    pub fn reverted(&self, reason: &str) -> Self {
        Self {
            current: self.previous.clone(),
            previous: None,
            ..self.concluded_with(Some(reason.to_owned()))
        }
    }

    fn concluded_with(&self, failure: Option<String>) -> Self {
        let concluded = self.trial.as_ref().zip(self.current.as_ref());
        let concluded = concluded.map(|(trial, current)| Concluded {
            version: current.version,
            command: trial.command,
            failure,
        });
        Self {
            trial: None,
            concluded: concluded.or_else(|| self.concluded.clone()),
            ..self.clone()
        }
    }

    /// What to start now, and the state to write before. `is_whole` looks at an installed program's file.
    #[must_use]
    pub fn start(&self, packaged: Version, is_whole: impl Fn(&Installed) -> bool) -> (Self, Start) {
        let mut state = self.clone();
        if state
            .trial
            .as_ref()
            .is_some_and(|trial| trial.starts >= TRIAL_STARTS_MAX)
        {
            state = state.reverted(&format!(
                "it was started {TRIAL_STARTS_MAX} times and never reported that it runs well"
            ));
        }
        while let Some(current) = state.current.clone() {
            // The machine's package was brought up beyond what the fleet had installed.
            if current.version <= packaged && state.trial.is_none() {
                state.current = None;
                state.previous = None;
                break;
            }
            if is_whole(&current) {
                if let Some(trial) = &mut state.trial {
                    trial.starts += 1;
                }
                return (state, Start::Installed(current));
            }
            state = state.reverted("its file is damaged or gone");
        }
        (state, Start::Packaged)
    }

    /// The started agent ended: the state to write, and whether to start again at once. The state was read after
    /// the end, for the agent may have confirmed itself just before.
    #[must_use]
    pub fn ended(&self, end: End) -> (Self, bool) {
        if end == End::Stopped {
            let mut state = self.clone();
            if let Some(trial) = &mut state.trial {
                trial.starts = trial.starts.saturating_sub(1);
            }
            return (state, false);
        }
        // A version that was staged just now has not been started: its trial is still to come.
        let Some(trial) = self.trial.as_ref().filter(|trial| trial.starts > 0) else {
            let is_asked = end == End::Exited(Some(i32::from(super::super::EXIT_RESTART)));
            return (self.clone(), is_asked);
        };
        let reason = match end {
            End::Exited(Some(code)) => format!("it ended with exit code {code} on start {}", trial.starts),
            End::Exited(None) => format!(
                "it was ended by a signal or could not be started, on start {}",
                trial.starts
            ),
            End::TimedOut | End::Stopped => "it did not report in time that it runs well".to_owned(),
        };
        (self.reverted(&reason), true)
    }
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("versions")
}

fn state_path(data_dir: &Path) -> PathBuf {
    directory(data_dir).join("state.json")
}

/// Where a version's program lies.
pub fn program(data_dir: &Path, version: Version) -> PathBuf {
    directory(data_dir)
        .join(version.to_string())
        .join("foodflow-edge")
}

/// What is known about installed versions.
///
/// # Errors
/// The disk's.
pub fn load(data_dir: &Path) -> io::Result<State> {
    Ok(durable::load_json(&state_path(data_dir))?.unwrap_or_default())
}

/// Makes `state` the one that counts.
///
/// # Errors
/// The disk's.
pub fn save(data_dir: &Path, state: &State) -> io::Result<()> {
    durable::perform(&durable::replace_json(&state_path(data_dir), state)?)
}

/// The hub was told how a trial ended.
pub fn answered(data_dir: &Path, command: Uuid) {
    let is_it = |state: &State| {
        let concluded = state.concluded.as_ref();
        concluded.is_some_and(|concluded| concluded.command == Some(command))
    };
    forget(data_dir, is_it);
}

/// Nobody is to be told how a trial ended: a person at the machine began it.
pub fn forget_conclusion(data_dir: &Path) {
    forget(data_dir, |state| {
        let concluded = state.concluded.as_ref();
        concluded.is_some_and(|concluded| concluded.command.is_none())
    });
}

fn forget(data_dir: &Path, is_it: impl Fn(&State) -> bool) {
    let Ok(state) = load(data_dir) else { return };
    if is_it(&state) {
        let state = State {
            concluded: None,
            ..state
        };
        if let Err(error) = save(data_dir, &state) {
            tracing::warn!(%error, "an answer is given once more after the next start");
        }
    }
}

/// Removes programs that are neither current nor the one before.
///
/// # Errors
/// The disk's.
pub fn tidy(data_dir: &Path, state: &State) -> io::Result<()> {
    let kept: Vec<String> = [&state.current, &state.previous]
        .into_iter()
        .flatten()
        .map(|installed| installed.version.to_string())
        .collect();
    for entry in fs::read_dir(directory(data_dir))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<Version>().is_ok() && !kept.contains(&name) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
