//! Is the chain whole up to here? One entry after the other is held against the one before, against its own hash
//! and against its own text; the first that does not fit is named. Pure: entries come from a database or a file.

use std::{borrow::Cow, fmt};

use chrono::NaiveDate;
use serde::{Deserialize, de::IgnoredAny};

use super::canonical::is_canonical;
use crate::kernel::audit::{GENESIS, link};

/// A row of `audit_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Row<'a> {
    /// Its place in the chain.
    pub seq: i64,
    /// When, in UTC microseconds.
    pub at_us: i64,
    /// Who, by kind.
    pub actor_kind: &'a str,
    /// Who of that kind.
    pub actor_id: Option<&'a str>,
    /// A verb.
    pub action: &'a str,
    /// On what.
    pub entity: &'a str,
    /// On which one.
    pub entity_id: Option<&'a str>,
    /// In what matter.
    pub correlation_id: Option<&'a str>,
    /// The entry: the text that the hash is over.
    pub event: &'a str,
    /// Hash of the row before.
    pub prev_hash: &'a [u8],
    /// Its own hash.
    pub hash: &'a [u8],
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not there, though later ones are.
    #[error("the row is missing")]
    Missing,
    /// It lies where no row should be.
    #[error("the row has a place that was taken before")]
    OutOfPlace,
    /// It does not follow the row before.
    #[error("its prev_hash is not the hash of the row before")]
    PrevHash,
    /// Its text, its place or its hash was changed.
    #[error("its hash is not the hash of what it says")]
    Hash,
    /// Its text was never an entry of the chain.
    #[error("its event is no canonical JSON of an audit entry")]
    Event,
    /// A column that repeats a part of the text says something else.
    #[error("its column {0} differs from its event")]
    Column(&'static str),
    /// The chain once was longer.
    #[error("the chain was cut: the root of {day} was signed over {last_seq} rows")]
    Cut {
        /// Day of the root that says so.
        day: NaiveDate,
        /// Rows there were.
        last_seq: i64,
    },
    /// The chain was written anew after the root was signed.
    #[error("its hash is not the one signed in the root of {0}")]
    Rewritten(NaiveDate),
    /// The root itself is not good.
    #[error("the root of {day} is not good: {fault}")]
    Root {
        /// Day of the root.
        day: NaiveDate,
        /// What is wrong with it.
        fault: super::root::RootFault,
    },
    /// A signature on a record is not what was signed.
    #[error("signature {id}: {fault}")]
    Signature {
        /// The signature.
        id: String,
        /// What is wrong with it.
        fault: &'static str,
    },
}

/// Behind every row: the place of what the chain does not know.
pub(super) const NOWHERE: i64 = i64::MAX;

/// The first place where the chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The row.
    pub seq: i64,
    /// What is wrong with it.
    pub fault: Fault,
}

impl Broken {
    /// A fault of a row.
    pub const fn at(seq: i64, fault: Fault) -> Self {
        Self { seq, fault }
    }

    /// The row, where it is one.
    pub fn row(&self) -> Option<i64> {
        (self.seq != NOWHERE).then_some(self.seq)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(seq) => write!(f, "row {seq}: {}", self.fault),
            None => write!(f, "{}", self.fault),
        }
    }
}

/// How far the chain was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    next: i64,
    /// Hash of the row before; unknown where the walk did not begin at the start.
    last_hash: Option<[u8; 32]>,
    first_prev_hash: Option<[u8; 32]>,
    rows: u64,
}

impl Walk {
    /// From row `seq` on. From the first row on, its predecessor's hash is known to be zero; further on, it is
    /// taken as the row says it, and whoever walked up to there compares.
    pub fn from(seq: i64) -> Self {
        let is_start = seq <= 1;
        Self {
            next: seq.max(1),
            last_hash: is_start.then_some(GENESIS),
            first_prev_hash: None,
            rows: 0,
        }
    }

    /// The row that comes next.
    pub const fn next(&self) -> i64 {
        self.next
    }

    /// Rows that held.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Hash of the last row that held.
    pub const fn last_hash(&self) -> Option<[u8; 32]> {
        self.last_hash
    }

    /// What the first row says of the row before it.
    pub const fn first_prev_hash(&self) -> Option<[u8; 32]> {
        self.first_prev_hash
    }

    /// Takes the next row in.
    ///
    /// # Errors
    /// [`Broken`] names the first row that does not hold; the walk is over then.
    pub fn step(&mut self, row: &Row<'_>) -> Result<(), Broken> {
        if row.seq > self.next {
            return Err(Broken::at(self.next, Fault::Missing));
        }
        if row.seq < self.next {
            return Err(Broken::at(row.seq, Fault::OutOfPlace));
        }
        let broken = |fault| Broken::at(row.seq, fault);
        let prev_hash: [u8; 32] = row.prev_hash.try_into().map_err(|_| broken(Fault::PrevHash))?;
        if self.last_hash.is_some_and(|last| last != prev_hash) {
            return Err(broken(Fault::PrevHash));
        }
        let hash = link(&prev_hash, row.seq, row.event);
        if hash != row.hash {
            return Err(broken(Fault::Hash));
        }
        check_text(row).map_err(broken)?;
        self.first_prev_hash.get_or_insert(prev_hash);
        self.last_hash = Some(hash);
        self.next = row.seq.saturating_add(1);
        self.rows += 1;
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event<'a> {
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    actor: EventActor<'a>,
    at_us: i64,
    #[serde(borrow)]
    entity: Cow<'a, str>,
    entity_id: Option<String>,
    correlation_id: Option<String>,
    #[serde(rename = "before")]
    _before: IgnoredAny,
    #[serde(rename = "after")]
    _after: IgnoredAny,
    #[serde(rename = "why")]
    _why: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventActor<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    id: Option<String>,
    #[serde(rename = "name")]
    _name: Option<String>,
}

fn check_text(row: &Row<'_>) -> Result<(), Fault> {
    let event: Event<'_> = serde_json::from_str(row.event).map_err(|_| Fault::Event)?;
    if !is_canonical(row.event) {
        return Err(Fault::Event);
    }
    for (column, holds) in [
        ("at_us", event.at_us == row.at_us),
        ("actor_kind", event.actor.kind == row.actor_kind),
        ("actor_id", event.actor.id.as_deref() == row.actor_id),
        ("action", event.action == row.action),
        ("entity", event.entity == row.entity),
        ("entity_id", event.entity_id.as_deref() == row.entity_id),
        (
            "correlation_id",
            event.correlation_id.as_deref() == row.correlation_id,
        ),
    ] {
        if !holds {
            return Err(Fault::Column(column));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::kernel::audit::{Actor, Deed, entry};

    #[derive(Clone)]
    struct Held {
        seq: i64,
        event: String,
        prev_hash: [u8; 32],
        hash: [u8; 32],
    }

    impl Held {
        fn row(&self) -> Row<'_> {
            Row {
                seq: self.seq,
                at_us: 1_000_000,
                actor_kind: "hub",
                actor_id: Some("test"),
                action: "create",
                entity: "lot",
                entity_id: Some("x\"y"),
                correlation_id: Some("c"),
                event: &self.event,
                prev_hash: &self.prev_hash,
                hash: &self.hash,
            }
        }
    }

    fn chain(rows: i64) -> Vec<Held> {
        let at = DateTime::from_timestamp_micros(1_000_000).unwrap();
        let mut prev_hash = GENESIS;
        let held = (1..=rows).map(|seq| {
            let deed = Deed::on("create", "lot", "x\"y").after(seq);
            let event = entry(&deed, &Actor::Hub { duty: "test" }, at, "c", None);
            let hash = link(&prev_hash, seq, &event);
            let row = Held {
                seq,
                event,
                prev_hash,
                hash,
            };
            prev_hash = hash;
            row
        });
        held.collect()
    }

    fn walk(rows: &[Held]) -> Result<Walk, Broken> {
        let mut walk = Walk::from(1);
        for row in rows {
            walk.step(&row.row())?;
        }
        Ok(walk)
    }

    #[test]
    fn a_whole_chain_holds_from_any_row_on() {
        let rows = chain(9);
        assert_eq!(walk(&rows).unwrap().rows(), 9);
        let mut late = Walk::from(5);
        for row in &rows[4..] {
            late.step(&row.row()).unwrap();
        }
        assert_eq!(late.first_prev_hash(), Some(rows[3].hash));
        assert_eq!((late.next(), late.last_hash()), (10, Some(rows[8].hash)));
    }

    #[test]
    fn rows_that_are_gone_swapped_or_put_in_are_named() {
        let mut gone = chain(5);
        gone.remove(2);
        assert_eq!(walk(&gone).unwrap_err(), Broken::at(3, Fault::Missing));
        let mut swapped = chain(5);
        swapped.swap(1, 2);
        (swapped[1].seq, swapped[2].seq) = (2, 3);
        assert_eq!(walk(&swapped).unwrap_err(), Broken::at(2, Fault::PrevHash));
        let mut twice = chain(5);
        twice.insert(3, twice[2].clone());
        assert_eq!(walk(&twice).unwrap_err(), Broken::at(3, Fault::OutOfPlace));
        let mut other = chain(5);
        other[3] = Held {
            prev_hash: [1; 32],
            hash: link(&[1; 32], 4, &other[3].event),
            ..other[3].clone()
        };
        assert_eq!(walk(&other).unwrap_err(), Broken::at(4, Fault::PrevHash));
    }

    #[test]
    fn an_entry_that_was_never_written_by_the_chain_is_no_entry_though_its_hash_is_right() {
        let mut rows = chain(2);
        rows[1].event = rows[1].event.replace(":2,", ": 2,");
        rows[1].hash = link(&rows[1].prev_hash, 2, &rows[1].event);
        assert_eq!(walk(&rows).unwrap_err(), Broken::at(2, Fault::Event));
    }
}
