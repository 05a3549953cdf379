//! What may the hub ask of an edge? Commands, sent on `cmd` again and again until the edge's answer, an
//! [`Event::CommandResult`](crate::event::Event::CommandResult), is stored. An edge does each id once.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    alarm::AlarmAction,
    envelope::{self, DecodeError, Kind},
    limit::CriticalLimit,
    reading::Micros,
};

/// One request of the hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Stable identity: the same command sent twice is done once and answered twice.
    pub id: Uuid,
    /// When it was given, by the hub's clock.
    pub issued_us: Micros,
    /// It is refused after this time by the edge's clock; none: it never grows old.
    pub expires_us: Option<Micros>,
    /// Who gave it, for the record: an account's name or `hub`.
    pub by: String,
    /// What is to be done.
    pub order: Order,
}

/// What is to be done. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Replace the configuration. It is validated whole; what is unusable, or does not run well, is rolled back.
    Configure {
        /// Counts up by one a change; one that is not newer than the edge's is answered as already applied.
        revision: u64,
        /// The whole file.
        toml: String,
    },
    /// Replace the critical limits of the control points that are named; each bears its own version.
    SetLimits {
        /// Counts up by one a change.
        revision: u64,
        /// The limits; a control point that the edge does not have makes the whole order refused.
        limits: Vec<CriticalLimit>,
    },
    /// Do something about an alarm.
    Alarm(AlarmAction),
    /// Send again what was sealed in this time, acknowledged or not, as far as it is still on disk.
    Replay {
        /// First seal time.
        from_us: Micros,
        /// Last seal time.
        to_us: Micros,
    },
    /// Install another version of the agent: the signed manifest's bytes and its detached signature.
    Update {
        /// The manifest, JSON.
        manifest: Vec<u8>,
        /// Ed25519 over the manifest's bytes, by a release key.
        signature: Vec<u8>,
    },
    /// The answer to an [`Event::CertificateRequest`](crate::event::Event::CertificateRequest).
    Certificate {
        /// The chain, leaf first, PEM.
        chain_pem: String,
    },
}

impl Order {
    /// Its kind in one word, for logs and records.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Configure { .. } => "configure",
            Self::SetLimits { .. } => "set_limits",
            Self::Alarm(_) => "alarm",
            Self::Replay { .. } => "replay",
            Self::Update { .. } => "update",
            Self::Certificate { .. } => "certificate",
        }
    }
}

/// What an edge did with a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The command.
    pub id: Uuid,
    /// When it was done or refused.
    pub at_us: Micros,
    /// What came of it.
    pub outcome: CommandOutcome,
}

/// What came of a command. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// Done.
    Done,
    /// There was nothing to do: it was so already.
    AlreadySo,
    /// Not done, and nothing was changed.
    Refused {
        /// For people; names the place and the remedy.
        reason: String,
    },
    /// Done, found not to work, and undone.
    RolledBack {
        /// For people.
        reason: String,
    },
}

/// A command in an envelope.
pub fn encode(command: &Command) -> Vec<u8> {
    envelope::seal(Kind::Command, &command.id, command)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`DecodeError`] for anything else.
pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
    envelope::open(bytes, Kind::Command)?.body()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_back_as_it_was_written() {
        let command = Command {
            id: Uuid::from_u128(7),
            issued_us: 1,
            expires_us: Some(2),
            by: "avery".to_owned(),
            order: Order::Configure {
                revision: 3,
                toml: "[edge]\n".to_owned(),
            },
        };
        assert_eq!(decode(&encode(&command)), Ok(command.clone()));
        let mut damaged = encode(&command);
        *damaged.last_mut().unwrap() ^= 1;
        assert!(matches!(decode(&damaged), Err(DecodeError::Checksum { .. })));
    }
}
