//! Which commands were done already, and what came of them? Each id is done once, however often it is sent and
//! however often the agent starts. Decisions are pure; the memory is one file of the newest 1,000.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use protocol::{
    Micros,
    command::{Command, CommandOutcome},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::durable;

/// Commands remembered. The hub sends one until its answer is stored, so an older one does not come again.
pub const DONE_MAX: usize = 1_000;
/// Longest reason that is kept and sent.
const REASON_CHARS_MAX: usize = 2_000;

/// A command that was done, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: Uuid,
    at_us: Micros,
    outcome: CommandOutcome,
}

/// The commands that were done, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    entries: VecDeque<Entry>,
    #[serde(skip)]
    path: PathBuf,
}

impl Done {
    /// What earlier starts did.
    ///
    /// # Errors
    /// The disk's.
    pub fn load(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("commands.json");
        let done: Self = durable::load_json(&path)?.unwrap_or_default();
        Ok(Self { path, ..done })
    }

    /// What came of a command, and when.
    pub fn find(&self, id: Uuid) -> Option<(Micros, &CommandOutcome)> {
        let entry = self.entries.iter().rev().find(|entry| entry.id == id)?;
        Some((entry.at_us, &entry.outcome))
    }

    /// Remembers what came of a command; it is remembered in memory even when the disk refuses.
    ///
    /// # Errors
    /// The disk's: then the command may be done once more after a restart.
    pub fn add(&mut self, id: Uuid, at_us: Micros, outcome: CommandOutcome) -> io::Result<()> {
        self.entries.push_back(Entry { id, at_us, outcome });
        while self.entries.len() > DONE_MAX {
            self.entries.pop_front();
        }
        durable::perform(&durable::replace_json(&self.path, self)?)
    }
}

/// What to do with a command that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was done: answer as before.
    Repeat(Micros, CommandOutcome),
    /// It is not done any more: answer so.
    Refuse(CommandOutcome),
    /// Do it.
    Do,
}

/// Decides by what was done and the edge's clock.
pub fn decide(done: &Done, command: &Command, now_us: Micros) -> Decision {
    if let Some((at_us, outcome)) = done.find(command.id) {
        return Decision::Repeat(at_us, outcome.clone());
    }
    match command.expires_us {
        Some(expires_us) if expires_us <= now_us => Decision::Refuse(refused(&format!(
            "it expired {} s before it was to be done, by the edge's clock; give it again",
            (now_us - expires_us) / 1_000_000
        ))),
        _ => Decision::Do,
    }
}

/// A refusal with its reason, cut to what may travel.
pub fn refused(reason: &str) -> CommandOutcome {
    CommandOutcome::Refused { reason: cut(reason) }
}

/// A rollback with its reason, cut to what may travel.
pub fn rolled_back(reason: &str) -> CommandOutcome {
    CommandOutcome::RolledBack { reason: cut(reason) }
}

fn cut(reason: &str) -> String {
    match reason.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::command::Order;

    use super::*;

    fn command(id: u128, expires_us: Option<Micros>) -> Command {
        Command {
            id: Uuid::from_u128(id),
            issued_us: 0,
            expires_us,
            by: "avery".to_owned(),
            order: Order::Replay { from_us: 0, to_us: 1 },
        }
    }

    #[test]
    fn a_command_is_done_once_over_all_starts_and_answered_as_the_first_time() {
        let directory = tempfile::tempdir().unwrap();
        let mut done = Done::load(directory.path()).unwrap();
        let given = command(7, Some(100));
        assert_eq!(decide(&done, &given, 50), Decision::Do);
        done.add(given.id, 50, CommandOutcome::Done).unwrap();
        let again = Done::load(directory.path()).unwrap();
        // Also when it has expired meanwhile: it was done.
        assert_eq!(
            decide(&again, &given, 500),
            Decision::Repeat(50, CommandOutcome::Done)
        );
    }

    #[test]
    fn an_expired_command_is_refused_and_one_that_never_expires_is_done() {
        let done = Done::default();
        let Decision::Refuse(CommandOutcome::Refused { reason }) =
            decide(&done, &command(1, Some(2_000_000)), 5_000_000)
        else {
            panic!("not refused")
        };
        assert!(reason.contains("expired 3 s"), "{reason}");
        assert_eq!(decide(&done, &command(2, None), Micros::MAX), Decision::Do);
    }

    #[test]
    fn a_reason_of_any_length_fits_and_is_cut_at_a_character() {
        let CommandOutcome::Refused { reason } = refused(&"ä".repeat(5_000)) else {
            panic!("not refused")
        };
        assert_eq!(reason.chars().count(), REASON_CHARS_MAX + 1);
    }

    proptest! {
        // Each change is made durable, which is slow on a busy disk.
        #![proptest_config(ProptestConfig::with_cases(4))]
        #[test]
        fn the_newest_thousand_are_known_and_no_more_are_kept(extra in 0usize..6) {
            let directory = tempfile::tempdir().unwrap();
            let mut done = Done { path: directory.path().join("commands.json"), ..Done::default() };
            done.entries.extend((0..DONE_MAX).map(|id| Entry {
                id: Uuid::from_u128(id as u128),
                at_us: 0,
                outcome: CommandOutcome::AlreadySo,
            }));
            for id in DONE_MAX..DONE_MAX + extra {
                done.add(Uuid::from_u128(id as u128), 0, CommandOutcome::Done).unwrap();
            }
            prop_assert_eq!(done.entries.len(), DONE_MAX);
            for id in 0..DONE_MAX + extra {
                prop_assert_eq!(done.find(Uuid::from_u128(id as u128)).is_some(), id >= extra);
            }
        }
    }
}
