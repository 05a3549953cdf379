//! What happens to a pushed configuration? Checked whole, written, run, watched; kept when the agent runs as well as
//! before, otherwise what ran before runs again. Each step can be the last before a power cut.

use std::{sync::Arc, time::Duration};

use protocol::command::CommandOutcome;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Request,
    gate::{Gate, Vitals},
    inbox,
    remote_config::{self, Choice, Origin, Pushed, State, Trial},
    task::{Fleet, LOOK_EVERY, Running, current, set_current},
};
use crate::{config::Config, durable, hex};

/// Does `Order::Configure`.
pub(super) async fn configure(
    fleet: &Fleet,
    running: &Running,
    command: Uuid,
    revision: u64,
    toml: &str,
) -> CommandOutcome {
    match begin(fleet, running, command, revision, toml).await {
        Ok(trial) => decide(fleet, running, trial).await,
        Err(outcome) => outcome,
    }
}

/// Goes on with a trial that an earlier start began.
pub(super) async fn resume(fleet: &Fleet, running: &Running, trial: Trial) -> CommandOutcome {
    decide(fleet, running, trial).await
}

/// Checks, writes and runs it; otherwise says what to answer.
async fn begin(
    fleet: &Fleet,
    running: &Running,
    command: Uuid,
    revision: u64,
    toml: &str,
) -> Result<Trial, CommandOutcome> {
    let refused = |error: std::io::Error| inbox::refused(&format!("nothing was changed: {error}"));
    let (config, origin) = current(running);
    let state = remote_config::load(&fleet.data_dir).map_err(refused)?;
    if let Some(outcome) = is_settled(&state, &origin, revision, toml) {
        return Err(outcome);
    }
    let next = remote_config::check(revision, toml, &config, std::env::vars())
        .map_err(|refusal| inbox::refused(&refusal.to_string()))?;
    let trial = Trial {
        command,
        before: Vitals::of(&fleet.health),
        has_new_hub: remote_config::has_new_hub(&config, &next),
        starts: 0,
    };
    let pushed = Pushed {
        revision,
        sha256: hex::sha256_hex(toml.as_bytes()),
        local_sha256: origin.local_sha256.clone(),
    };
    // A local file that was edited since is what a rollback returns to, not the revision that it replaced.
    let base = match origin.choice {
        Choice::Pushed(_) => state,
        Choice::Local | Choice::LocalEdited { .. } => State::default(),
    };
    let begun = base.begun(pushed.clone(), trial.clone());
    let steps = remote_config::push_steps(&fleet.data_dir, toml, &begun).map_err(refused)?;
    durable::perform(&steps).map_err(refused)?;
    let origin = Origin {
        running_sha256: pushed.sha256.clone(),
        choice: Choice::Pushed(pushed),
        fell_back: None,
        ..origin
    };
    match reload(fleet, running, next, origin).await {
        Ok(()) => Ok(trial),
        Err(reason) => {
            let reason = format!("it could not be run: {reason}");
            save(fleet, &begun.rolled_back(&reason));
            Err(inbox::rolled_back(&reason))
        }
    }
}

/// What to answer when there is nothing to do, or when a person at the machine decided otherwise.
fn is_settled(state: &State, origin: &Origin, revision: u64, toml: &str) -> Option<CommandOutcome> {
    if origin.running_sha256 == hex::sha256_hex(toml.as_bytes()) {
        return Some(CommandOutcome::AlreadySo);
    }
    let newest = state.current.as_ref().map_or(0, |pushed| pushed.revision);
    if revision > newest {
        return None;
    }
    Some(match origin.choice {
        Choice::LocalEdited { revision: old } => inbox::refused(&format!(
            "the local file was edited after revision {old} and runs; push a revision after {old} to replace it"
        )),
        Choice::Local | Choice::Pushed(_) => CommandOutcome::AlreadySo,
    })
}

async fn reload(fleet: &Fleet, running: &Running, config: Config, origin: Origin) -> Result<(), String> {
    let shared = Arc::new(config.clone());
    let question = |answer| Request::Reload {
        config: Box::new(config),
        origin: Box::new(origin.clone()),
        answer,
    };
    let answer = fleet.ask(question).await;
    answer.unwrap_or_else(|| Err("the agent is shutting down".to_owned()))?;
    set_current(running, shared, origin);
    Ok(())
}

/// Watches until the trial is decided, and makes the decision last.
async fn decide(fleet: &Fleet, running: &Running, trial: Trial) -> CommandOutcome {
    let within = current(running).0.fleet.probation;
    let mut gate = Gate::new(trial.before, trial.has_new_hub, within / 6, within);
    let verdict = watch(fleet, &mut gate).await;
    let state = match remote_config::load(&fleet.data_dir) {
        Ok(state) => state,
        Err(error) => return inbox::refused(&format!("the trial cannot be decided: {error}")),
    };
    match verdict {
        Ok(()) => {
            let kept = state.kept();
            save(fleet, &kept);
            if let Err(error) = remote_config::tidy(&fleet.data_dir, &kept) {
                tracing::warn!(%error, "old configurations stay");
            }
            CommandOutcome::Done
        }
        Err(reason) => {
            tracing::warn!(%reason, "configuration rolled back");
            save(fleet, &state.rolled_back(&reason));
            run_what_ran_before(fleet, running).await;
            inbox::rolled_back(&reason)
        }
    }
}

/// Looks until the gate opens or closes.
pub(super) async fn watch(fleet: &Fleet, gate: &mut Gate) -> Result<(), String> {
    let start = Instant::now();
    let mut look = tokio::time::interval(LOOK_EVERY.min(Duration::from_millis(250)));
    loop {
        look.tick().await;
        if let Some(verdict) = gate.look(start.elapsed(), &Vitals::of(&fleet.health)) {
            return verdict;
        }
    }
}

async fn run_what_ran_before(fleet: &Fleet, running: &Running) {
    let (config, origin) = current(running);
    match remote_config::look_again(&origin.local_path, &fleet.data_dir, &config.dictionary) {
        Ok((config, origin)) => {
            if let Err(reason) = reload(fleet, running, config, origin).await {
                tracing::error!(%reason, "what ran before does not run: the agent must be restarted");
            }
        }
        Err(error) => tracing::error!(%error, "what ran before cannot be read"),
    }
}

/// The answer to an undone configuration was given: it need not be remembered.
pub(super) fn answered(data_dir: &std::path::Path, command: Uuid) {
    let Ok(state) = remote_config::load(data_dir) else {
        return;
    };
    if state
        .undone
        .as_ref()
        .is_some_and(|undone| undone.command == command)
    {
        let state = State {
            undone: None,
            ..state
        };
        if let Err(error) = remote_config::save(data_dir, &state) {
            tracing::warn!(%error, "an answer is given once more after the next start");
        }
    }
}

fn save(fleet: &Fleet, state: &State) {
    if let Err(error) = remote_config::save(&fleet.data_dir, state) {
        tracing::error!(%error, "the state of the configuration is not on disk");
    }
}
