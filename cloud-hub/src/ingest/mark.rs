//! Which rollups do new readings make wrong? Their minutes, hour by hour, noted in the transaction that stores them:
//! whoever makes rollups next finds the note and the readings, or neither.

use std::collections::{BTreeMap, btree_map::Entry};

use chrono::{DateTime, Utc};
use protocol::Micros;

use crate::kernel::{
    bulk::{BulkError, BulkTx},
    clock::time_from_us,
};

const MINUTE_US: Micros = 60_000_000;
const HOUR_US: Micros = 60 * MINUTE_US;

/// Start of the minute that a time lies in.
pub(super) fn minute_of(time_us: Micros) -> Micros {
    time_us - time_us.rem_euclid(MINUTE_US)
}

/// Minutes that changed, by hour.
#[derive(Debug, Default)]
pub(super) struct Marks {
    done: BTreeMap<Micros, Mark>,
    /// The hour of the last reading: the next one mostly lies in it, too.
    current: Option<(Micros, Mark)>,
}

/// What changed within one hour: these tags, in whole minutes from `from_us` to `to_us` (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    from_us: Micros,
    to_us: Micros,
    /// In no order, and some more than once, until it is finished.
    tags: Vec<i32>,
}

impl Mark {
    fn note(&mut self, tag_id: i32, minute_us: Micros) {
        self.from_us = self.from_us.min(minute_us);
        self.to_us = self.to_us.max(minute_us + MINUTE_US);
        if self.tags.last() != Some(&tag_id) {
            self.tags.push(tag_id);
        }
    }

    fn join(&mut self, other: Self) {
        self.from_us = self.from_us.min(other.from_us);
        self.to_us = self.to_us.max(other.to_us);
        self.tags.extend(other.tags);
    }
}

impl Marks {
    /// Notes a reading.
    pub(super) fn note(&mut self, tag_id: i32, time_us: Micros) {
        let minute_us = minute_of(time_us);
        let hour_us = time_us - time_us.rem_euclid(HOUR_US);
        if let Some((hour, mark)) = &mut self.current
            && *hour == hour_us
        {
            return mark.note(tag_id, minute_us);
        }
        self.put_away();
        let mark = Mark {
            from_us: minute_us,
            to_us: minute_us + MINUTE_US,
            tags: vec![tag_id],
        };
        self.current = Some((hour_us, mark));
    }

    fn put_away(&mut self) {
        if let Some((hour_us, mark)) = self.current.take() {
            match self.done.entry(hour_us) {
                Entry::Vacant(place) => {
                    place.insert(mark);
                }
                Entry::Occupied(mut known) => known.get_mut().join(mark),
            }
        }
    }

    /// What changed, hour by hour, each tag once.
    fn finish(mut self) -> impl Iterator<Item = Mark> {
        self.put_away();
        self.done.into_values().map(|mut mark| {
            mark.tags.sort_unstable();
            mark.tags.dedup();
            mark
        })
    }

    /// Writes the notes.
    pub(super) async fn store(self, tx: &mut BulkTx<'_>) -> Result<(), BulkError> {
        let (mut froms, mut tos, mut tags): (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>, Vec<i32>) =
            (vec![], vec![], vec![]);
        for mark in self.finish() {
            for tag in &mark.tags {
                froms.push(time_from_us(mark.from_us));
                tos.push(time_from_us(mark.to_us));
                tags.push(*tag);
            }
        }
        tx.execute(STORE, &[&froms, &tos, &tags]).await?;
        Ok(())
    }
}

const STORE: &str = "
INSERT INTO {schema}.rollup_dirty (tag_ids, from_time, to_time)
SELECT array_agg(tag_id), from_time, to_time
FROM unnest($1::timestamptz[], $2::timestamptz[], $3::int4[]) AS n (from_time, to_time, tag_id)
GROUP BY from_time, to_time";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_is_of_whole_minutes_of_one_hour() {
        let mut marks = Marks::default();
        for (tag, time_us) in [
            (1, HOUR_US + 90_000_000),
            (2, HOUR_US + 30_000_000),
            (1, 2 * HOUR_US - 1),
            (3, -1),
        ] {
            marks.note(tag, time_us);
        }
        let found: Vec<_> = marks.finish().collect();
        assert_eq!(
            found,
            [
                Mark {
                    from_us: -MINUTE_US,
                    to_us: 0,
                    tags: vec![3]
                },
                Mark {
                    from_us: HOUR_US,
                    to_us: 2 * HOUR_US,
                    tags: vec![1, 2]
                },
            ]
        );
    }

    proptest! {
        #[test]
        fn every_reading_lies_in_a_mark_of_its_tag(readings in prop::collection::vec((0..5, -HOUR_US * 50..HOUR_US * 50), 1..100)) {
            let mut marks = Marks::default();
            for (tag, time_us) in &readings {
                marks.note(*tag, *time_us);
            }
            let marks: Vec<_> = marks.finish().collect();
            for (tag, time_us) in &readings {
                let covers = |mark: &Mark| mark.tags.contains(tag) && (mark.from_us..mark.to_us).contains(time_us);
                prop_assert!(marks.iter().any(covers));
            }
            for mark in &marks {
                prop_assert_eq!(mark.from_us.div_euclid(HOUR_US), (mark.to_us - 1).div_euclid(HOUR_US));
            }
        }
    }
}
