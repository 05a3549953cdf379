//! Why is there no transaction, and does it help to ask again?

/// Why there is no transaction.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// No tenant of that name: for callers, not found.
    #[error("no such tenant")]
    UnknownTenant,
    /// The tenant's schema is not what this program needs yet: try again later.
    #[error("the tenant's schema is at version {0}; it is being migrated, or its migration failed")]
    NotMigrated(i64),
    /// A change that left no audit entry: a fault of this program, undone.
    #[error("the transaction changed data without an audit entry")]
    Unaudited,
    /// The database cannot be reached now: try again later.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// A value that no column can hold: a zero character in a text, a number out of range.
    #[error("the database cannot hold such a value")]
    BadValue(#[source] sqlx::Error),
    /// Anything else.
    #[error("the database refused")]
    Database(#[source] sqlx::Error),
}

/// Connection lost; a conflict between transactions; disk, memory or connections used up; cancelled, shutting
/// down or starting: the same request may succeed later.
fn will_pass(sqlstate: &str) -> bool {
    ["08", "40", "53", "55", "57"]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}

impl From<sqlx::Error> for TenancyError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            sqlx::Error::Database(ref refusal) if refusal.code().is_some_and(|code| will_pass(&code)) => {
                Self::Unavailable(error)
            }
            sqlx::Error::Database(ref refusal)
                if matches!(
                    refusal.code().as_deref(),
                    Some("22001" | "22003" | "22007" | "22008" | "22009" | "22021" | "22P02" | "22P05")
                ) =>
            {
                Self::BadValue(error)
            }
            _ => Self::Database(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for state in [
            "08006", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01", "57P03",
        ] {
            assert!(will_pass(state), "{state}");
        }
        for state in ["22021", "23505", "42P01", "XX000"] {
            assert!(!will_pass(state), "{state}");
        }
    }
}
