//! How is one edge of many operated from afar? Commands of the hub, pushed configurations, signed versions,
//! certificates, and what the service manager is told. Decision 18.

pub mod certificate;
pub mod config;
pub mod gate;
pub mod inbox;
pub mod notify;
pub mod remote_config;
pub mod task;
mod trial;
pub mod update;

use protocol::{Micros, command::CommandOutcome, limit::CriticalLimit};
use tokio::sync::oneshot;

use self::remote_config::Origin;
use crate::config::Config;

/// What the fleet asks of the running agent. Dropping an answer's sender counts as a refusal.
#[derive(Debug)]
pub enum Request {
    /// Run with another configuration. `Err` means that the one before runs on, untouched.
    Reload {
        /// The configuration, checked.
        config: Box<Config>,
        /// Where it came from, for an agent that starts its parts anew.
        origin: Box<Origin>,
        /// Whether it runs.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Put critical limits into force.
    SetLimits {
        /// Number of the change.
        revision: u64,
        /// The limits; all or none.
        limits: Vec<CriticalLimit>,
        /// What came of it.
        answer: oneshot::Sender<CommandOutcome>,
    },
    /// Send again what was sealed in this time.
    Replay {
        /// First seal time.
        from_us: Micros,
        /// Last seal time.
        to_us: Micros,
        /// What came of it.
        answer: oneshot::Sender<CommandOutcome>,
    },
    /// End cleanly with [`EXIT_RESTART`]: another version is to be started.
    Restart,
}

/// Exit code with which the agent asks to be started again. `EX_TEMPFAIL`.
pub const EXIT_RESTART: u8 = 75;
