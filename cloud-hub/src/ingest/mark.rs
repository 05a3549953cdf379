//! Which rollups do new readings make wrong? Their minutes, hour by hour, noted in the transaction that stores them:
//! whoever makes rollups next finds the note and the readings, or neither.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use protocol::Micros;

use crate::kernel::{
    bulk::{BulkError, BulkTx},
    clock::time_from_us,
};

const MINUTE_US: Micros = 60_000_000;
const HOUR_US: Micros = 60 * MINUTE_US;

/// Minutes that changed, by hour.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<Micros, Mark>);

/// What changed within one hour: these tags, in whole minutes from `from_us` to `to_us` (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    from_us: Micros,
    to_us: Micros,
    tags: BTreeSet<i32>,
}

impl Marks {
    /// Notes a reading.
    pub(super) fn note(&mut self, tag_id: i32, time_us: Micros) {
        let minute_us = time_us - time_us.rem_euclid(MINUTE_US);
        let hour_us = time_us - time_us.rem_euclid(HOUR_US);
        let mark = self.0.entry(hour_us).or_insert_with(|| Mark {
            from_us: minute_us,
            to_us: minute_us + MINUTE_US,
            tags: BTreeSet::new(),
        });
        mark.from_us = mark.from_us.min(minute_us);
        mark.to_us = mark.to_us.max(minute_us + MINUTE_US);
        mark.tags.insert(tag_id);
    }

    /// Writes the notes.
    pub(super) async fn store(self, tx: &mut BulkTx<'_>) -> Result<(), BulkError> {
        let (mut froms, mut tos, mut tags): (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>, Vec<i32>) =
            (vec![], vec![], vec![]);
        for mark in self.0.values() {
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
        let found: Vec<_> = marks.0.values().cloned().collect();
        assert_eq!(
            found,
            [
                Mark {
                    from_us: -MINUTE_US,
                    to_us: 0,
                    tags: [3].into()
                },
                Mark {
                    from_us: HOUR_US,
                    to_us: 2 * HOUR_US,
                    tags: [1, 2].into()
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
            for (tag, time_us) in &readings {
                let covers = |mark: &Mark| mark.tags.contains(tag) && (mark.from_us..mark.to_us).contains(time_us);
                prop_assert!(marks.0.values().any(covers));
            }
            for mark in marks.0.values() {
                prop_assert_eq!(mark.from_us.div_euclid(HOUR_US), (mark.to_us - 1).div_euclid(HOUR_US));
            }
        }
    }
}
