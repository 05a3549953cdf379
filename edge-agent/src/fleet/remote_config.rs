//! Which configuration runs: the local file, or what the hub pushed? Where pushed configurations lie, what a push
//! may change, and which one is run after a power cut at any moment. Decision 18.
//!
//! ```text
//! DATA/config/<revision>.toml   a pushed configuration, never changed once written
//! DATA/config/current.json      which one runs, which one ran before, and whether the newest is on trial
//! ```

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::gate::Vitals;
use protocol::tag::Dictionary;

use crate::{
    config::{self, Config, ConfigError, Fault},
    durable::{self, Step},
    hex,
};

/// Longest configuration that is looked at.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Starts that a configuration on trial gets: a power cut is not its fault, three in a row are.
pub const TRIAL_STARTS_MAX: u32 = 3;

/// A configuration that the hub pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Its number.
    pub revision: u64,
    /// SHA-256 of its text, lower-case hex.
    pub sha256: String,
    /// SHA-256 of the local file when it was pushed: a local file that differs was edited since, and wins.
    pub local_sha256: String,
}

/// A configuration that runs and is not yet known to run well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The command that brought it.
    pub command: Uuid,
    /// How the agent did before.
    pub before: Vitals,
    /// Whether the hub's address is part of the change.
    pub has_new_hub: bool,
    /// Times the agent started with it.
    pub starts: u32,
}

/// A command whose configuration was undone while nobody could answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The command.
    pub command: Uuid,
    /// Why, for people.
    pub reason: String,
}

/// What is known about pushed configurations. One file, so that it changes in one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The newest one that was taken; none: the local file runs.
    pub current: Option<Pushed>,
    /// What ran before it; none: the local file.
    pub previous: Option<Pushed>,
    /// The newest one is on trial.
    pub trial: Option<Trial>,
    /// What is still to be answered.
    pub undone: Option<Undone>,
}

/// Which configuration is run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The local file: nothing was pushed.
    Local,
    /// A pushed one.
    Pushed(Pushed),
    /// The local file, because it was edited after this revision was pushed.
    LocalEdited {
        /// The pushed revision that is not run.
        revision: u64,
    },
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("the local file"),
            Self::Pushed(pushed) => write!(f, "revision {} of the hub", pushed.revision),
            Self::LocalEdited { revision } => {
                write!(f, "the local file, edited after revision {revision} of the hub")
            }
        }
    }
}

/// Why a push is refused before anything is written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a usable configuration.
    #[error("revision {revision}: {}", faults.join("; "))]
    Faulty {
        /// Which.
        revision: u64,
        /// Everything that is wrong, `line N: …`.
        faults: Vec<String>,
    },
    /// It would change what only a person at the machine may change.
    #[error("`{0}` cannot be changed from the hub: edit the local file on the line PC")]
    Held(&'static str),
    /// It is absurdly long.
    #[error("{bytes} bytes; at most {TEXT_BYTES_MAX} are taken")]
    TooLong {
        /// How long.
        bytes: usize,
    },
}

/// Which configuration the agent was started with.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file that was named on the command line.
    pub local_path: PathBuf,
    /// SHA-256 of its text.
    pub local_sha256: String,
    /// SHA-256 of the text that runs.
    pub running_sha256: String,
    /// Where that text came from.
    pub choice: Choice,
    /// Why it is not the one that should run: an alarm.
    pub fell_back: Option<String>,
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("config")
}

fn state_path(data_dir: &Path) -> PathBuf {
    directory(data_dir).join("current.json")
}

/// Where a revision's text lies.
pub fn text_path(data_dir: &Path, revision: u64) -> PathBuf {
    directory(data_dir).join(format!("{revision}.toml"))
}

/// What is known about pushed configurations.
///
/// # Errors
/// The disk's.
pub fn load(data_dir: &Path) -> io::Result<State> {
    Ok(durable::load_json(&state_path(data_dir))?.unwrap_or_default())
}

/// The steps that make `state` the one that counts.
///
/// # Errors
/// Never in practice: plain data serialises.
pub fn save_steps(data_dir: &Path, state: &State) -> io::Result<Vec<Step>> {
    durable::replace_json(&state_path(data_dir), state)
}

/// Makes `state` the one that counts.
///
/// # Errors
/// The disk's.
pub fn save(data_dir: &Path, state: &State) -> io::Result<()> {
    durable::perform(&save_steps(data_dir, state)?)
}

impl State {
    /// Which configuration is run, the local file having this hash. Pure.
    pub fn choose(&self, local_sha256: &str) -> Choice {
        match &self.current {
            None => Choice::Local,
            Some(pushed) if pushed.local_sha256 == local_sha256 => Choice::Pushed(pushed.clone()),
            Some(pushed) => Choice::LocalEdited {
                revision: pushed.revision,
            },
        }
    }

    /// A push begins its trial.
    #[must_use]
    pub fn begun(&self, pushed: Pushed, trial: Trial) -> Self {
        Self {
            previous: self.current.clone(),
            current: Some(pushed),
            trial: Some(trial),
            undone: self.undone.clone(),
        }
    }

    /// The trial ended well.
    #[must_use]
    pub fn kept(&self) -> Self {
        Self {
            trial: None,
            ..self.clone()
        }
    }

    /// The trial ended badly: what ran before runs again, and the command is still to be answered.
    #[must_use]
    pub fn rolled_back(&self, reason: &str) -> Self {
        let undone = self.trial.as_ref().map(|trial| Undone {
            command: trial.command,
            reason: reason.to_owned(),
        });
        Self {
            current: self.previous.clone(),
            previous: None,
            trial: None,
            undone,
        }
    }

    /// The agent starts: a configuration on trial is counted, and given up after too many starts.
    #[must_use]
    pub fn started(&self, local_sha256: &str) -> Self {
        let Some(trial) = &self.trial else {
            return self.clone();
        };
        if matches!(self.choose(local_sha256), Choice::LocalEdited { .. }) {
            return self.rolled_back("the local file was edited during the trial and wins");
        }
        if trial.starts >= TRIAL_STARTS_MAX {
            return self.rolled_back(&format!("the agent ended {TRIAL_STARTS_MAX} times with it"));
        }
        let mut counted = self.clone();
        if let Some(trial) = &mut counted.trial {
            trial.starts += 1;
        }
        counted
    }
}

/// The steps that put a pushed text on trial; the last of them is the change.
///
/// # Errors
/// Never in practice: plain data serialises.
pub fn push_steps(data_dir: &Path, text: &str, state: &State) -> io::Result<Vec<Step>> {
    let revision = state.current.as_ref().map_or(0, |pushed| pushed.revision);
    let path = text_path(data_dir, revision);
    let mut steps = durable::replace(&path, text.as_bytes().to_vec(), 0o600);
    steps.extend(save_steps(data_dir, state)?);
    Ok(steps)
}

/// Removes texts that can no longer be returned to.
///
/// # Errors
/// The disk's.
pub fn tidy(data_dir: &Path, state: &State) -> io::Result<()> {
    let kept: BTreeSet<PathBuf> = [&state.current, &state.previous]
        .into_iter()
        .flatten()
        .map(|pushed| text_path(data_dir, pushed.revision))
        .collect();
    for entry in std::fs::read_dir(directory(data_dir))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && !kept.contains(&path) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Reads and checks a pushed text against what runs; nothing is written.
///
/// # Errors
/// [`Refusal`], with every fault.
pub fn check(
    revision: u64,
    text: &str,
    running: &Config,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Config, Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Refusal::TooLong { bytes: text.len() });
    }
    let variables: Vec<_> = variables.collect();
    // A change that cannot be followed while the parts run is read as at a start: they start anew.
    let parsed = config::parse_after(text, variables.clone().into_iter(), &running.dictionary)
        .or_else(|_| config::parse_with(text, variables.into_iter()));
    let config = parsed.map_err(|faults| Refusal::Faulty {
        revision,
        faults: faults.iter().map(fault_text).collect(),
    })?;
    match held(running, &config) {
        Some(key) => Err(Refusal::Held(key)),
        None => Ok(config),
    }
}

fn fault_text(fault: &Fault) -> String {
    match fault.line {
        0 => format!("environment: {}", fault.message),
        line => format!("line {line}: {}", fault.message),
    }
}

/// What a push may not change: the name under which records are kept, and what decides which code runs here.
fn held(running: &Config, pushed: &Config) -> Option<&'static str> {
    let differs = [
        ("edge.name", running.edge.name != pushed.edge.name),
        ("edge.tenant", running.edge.tenant != pushed.edge.tenant),
        ("vision.runtime", running.vision.runtime != pushed.vision.runtime),
        (
            "update.trusted_keys",
            running.fleet.trusted_keys != pushed.fleet.trusted_keys,
        ),
    ];
    differs
        .into_iter()
        .find_map(|(key, differs)| differs.then_some(key))
}

/// Whether the hub is reached in another way: then only a new connection proves anything.
pub fn has_new_hub(running: &Config, pushed: &Config) -> bool {
    running.hub.mqtt != pushed.hub.mqtt || running.hub.ca_file != pushed.hub.ca_file
}

/// Chooses and reads the configuration to start with, counting the start of one on trial. A pushed one that is damaged
/// or no longer usable is left for what ran before it, on record.
///
/// # Errors
/// [`ConfigError`] when the local file, being the one to run, cannot be used.
pub fn open(local_path: &Path, data_dir: &Path) -> Result<(Config, Origin), ConfigError> {
    let (found, next, opened) = choose(local_path, data_dir, &Dictionary::default(), State::started)?;
    if next != found {
        let path = state_path(data_dir);
        save(data_dir, &next).map_err(|source| ConfigError::Unreadable { path, source })?;
    }
    Ok(opened)
}

/// What [`open`] would choose; nothing is counted or written.
///
/// # Errors
/// As [`open`].
pub fn look(local_path: &Path, data_dir: &Path) -> Result<(Config, Origin), ConfigError> {
    look_again(local_path, data_dir, &Dictionary::default())
}

/// Like [`look`], for an agent that runs: tags keep their aliases where that is possible.
///
/// # Errors
/// As [`open`].
pub fn look_again(
    local_path: &Path,
    data_dir: &Path,
    running: &Dictionary,
) -> Result<(Config, Origin), ConfigError> {
    let (_, _, opened) = choose(local_path, data_dir, running, |state, _| state.clone())?;
    Ok(opened)
}

/// Reads a file so that it can be followed while the parts run, else as at a start.
fn read(path: &Path, running: &Dictionary) -> Result<Config, ConfigError> {
    config::load_after(path, running).or_else(|_| config::load(path))
}

fn choose(
    local_path: &Path,
    data_dir: &Path,
    running: &Dictionary,
    begin: impl Fn(&State, &str) -> State,
) -> Result<(State, State, (Config, Origin)), ConfigError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ConfigError::Unreadable { path, source }
    };
    let local = std::fs::read(local_path).map_err(unreadable(local_path))?;
    let local_sha256 = hex::sha256_hex(&local);
    let found = load(data_dir).map_err(unreadable(&state_path(data_dir)))?;
    let mut state = begin(&found, &local_sha256);
    let mut fell_back = None;
    let (config, choice) = loop {
        let choice = state.choose(&local_sha256);
        let Choice::Pushed(pushed) = &choice else {
            break (read(local_path, running)?, choice);
        };
        match read_pushed(data_dir, pushed, running) {
            Ok(config) => break (config, choice),
            Err(reason) => {
                let reason = format!("revision {} of the hub is not run: {reason}", pushed.revision);
                state = state.rolled_back(&reason);
                fell_back = Some(reason);
            }
        }
    };
    let running_sha256 = match &choice {
        Choice::Pushed(pushed) => pushed.sha256.clone(),
        Choice::Local | Choice::LocalEdited { .. } => local_sha256.clone(),
    };
    let origin = Origin {
        local_path: local_path.to_owned(),
        local_sha256,
        running_sha256,
        choice,
        fell_back,
    };
    Ok((found, state, (config, origin)))
}

fn read_pushed(data_dir: &Path, pushed: &Pushed, running: &Dictionary) -> Result<Config, String> {
    let path = text_path(data_dir, pushed.revision);
    let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if hex::sha256_hex(&bytes) != pushed.sha256 {
        return Err(format!("{}: not what was pushed", path.display()));
    }
    read(&path, running).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
