//! Which traffic goes first? Events before live readings, live readings before backlog.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A priority class of frames, highest first; each has its own sequence and never waits behind a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// CCP verdicts, alarms, inspections, not-read and gap records.
    Events,
    /// Readings acquired now.
    Live,
    /// Readings that waited for the uplink.
    Backfill,
}

impl Lane {
    /// All lanes, highest priority first.
    pub const ALL: [Self; 3] = [Self::Events, Self::Live, Self::Backfill];

    /// The lane's name in topics, metrics and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Live => "live",
            Self::Backfill => "backfill",
        }
    }

    /// The lane's number in SQL and in spool keys; stable.
    pub const fn number(self) -> u8 {
        match self {
            Self::Events => 0,
            Self::Live => 1,
            Self::Backfill => 2,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = UnknownLane;

    fn from_str(name: &str) -> Result<Self, UnknownLane> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.as_str() == name)
            .ok_or(UnknownLane)
    }
}

/// The name is none of `events`, `live`, `backfill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such lane; expected events, live or backfill")]
pub struct UnknownLane;
