//! How far is a projection, and which rows of it are read? Its row in the table `projection`, locked by whoever moves
//! it, so that several hubs take turns.

use sqlx::{FromRow, PgConnection};

/// Where a projection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Stand {
    /// The last event in the rows that are read.
    pub seq: i64,
    /// The generation of those rows.
    pub generation: i32,
    /// The generation that is being made beside it.
    pub rebuilding: Option<i32>,
    /// The last event in that one.
    pub rebuilt_seq: Option<i64>,
}

/// Which rows are to be brought forward, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those that are read.
    Current { generation: i32, after: i64 },
    /// Those being made anew.
    Rebuild { generation: i32, after: i64 },
}

impl Lane {
    pub(super) const fn generation(self) -> i32 {
        match self {
            Self::Current { generation, .. } | Self::Rebuild { generation, .. } => generation,
        }
    }

    pub(super) const fn after(self) -> i64 {
        match self {
            Self::Current { after, .. } | Self::Rebuild { after, .. } => after,
        }
    }
}

impl Stand {
    /// What to do when the newest event is `newest`: readers come first, a rebuild has the time that is left.
    /// A rebuild that has caught up with them has one more turn, in which it takes over.
    pub(super) fn lane(self, newest: i64) -> Option<Lane> {
        if self.seq < newest {
            return Some(Lane::Current {
                generation: self.generation,
                after: self.seq,
            });
        }
        let generation = self.rebuilding?;
        Some(Lane::Rebuild {
            generation,
            after: self.rebuilt_seq.unwrap_or(0),
        })
    }
}

/// Reads where a projection stands and keeps others from moving it; `None` while another hub does.
pub(super) async fn take_turn(conn: &mut PgConnection, name: &str) -> Result<Option<Stand>, sqlx::Error> {
    sqlx::query_as(
        "SELECT seq, generation, rebuilding, rebuilt_seq FROM projection WHERE name = $1 \
         FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(name)
    .fetch_optional(conn)
    .await
}

/// As [`take_turn`], but waits for the other.
pub(super) async fn wait_turn(conn: &mut PgConnection, name: &str) -> Result<Option<Stand>, sqlx::Error> {
    sqlx::query_as(
        "SELECT seq, generation, rebuilding, rebuilt_seq FROM projection WHERE name = $1 FOR NO KEY UPDATE",
    )
    .bind(name)
    .fetch_optional(conn)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_come_first_and_a_rebuild_has_the_time_that_is_left() {
        let stand = Stand {
            seq: 5,
            generation: 1,
            rebuilding: Some(2),
            rebuilt_seq: Some(3),
        };
        let current = Lane::Current {
            generation: 1,
            after: 5,
        };
        let rebuild = Lane::Rebuild {
            generation: 2,
            after: 3,
        };
        assert_eq!(stand.lane(6), Some(current));
        assert_eq!(stand.lane(5), Some(rebuild));
        let idle = Stand {
            rebuilding: None,
            rebuilt_seq: None,
            ..stand
        };
        assert_eq!(idle.lane(5), None);
    }
}
