//! Which roles are there? What each may do is decided by the permissions of the contexts.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A person's role in a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything within the tenant.
    Admin,
    /// Runs a shift.
    Supervisor,
    /// Food safety and quality: deviations, holds, dispositions.
    FsqManager,
    /// Works a line.
    Operator,
    /// A machine that exchanges data.
    Integrator,
    /// Reads everything, changes nothing.
    Auditor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Admin,
        Self::Supervisor,
        Self::FsqManager,
        Self::Operator,
        Self::Integrator,
        Self::Auditor,
    ];

    /// The role's name in SQL, tokens and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Supervisor => "supervisor",
            Self::FsqManager => "fsq_manager",
            Self::Operator => "operator",
            Self::Integrator => "integrator",
            Self::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such role; expected admin, supervisor, fsq_manager, operator, integrator or auditor")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or(UnknownRole)
    }
}
