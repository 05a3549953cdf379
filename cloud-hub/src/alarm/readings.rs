//! Which readings are judged? Those of many rules' tags in one question, each tag's from where the first rule that
//! listens to it stands. What is too much for one turn is cut, and up to where a tag is whole is known.

use std::{cmp::Ordering, collections::BTreeMap};

use chrono::{DateTime, Utc};
use protocol::{Micros, Quality};

use super::watch::Input;
use crate::kernel::{
    clock::time_from_us,
    tenancy::{TenancyError, TenantTx},
};

/// Readings of one turn; the rest is due at once.
const READINGS_MAX: usize = 500_000;
/// However many tags there are, each gets so many.
const TAG_READINGS_MIN: usize = 1_000;

/// A tag's readings of a time without a gap, in the order in which they are judged.
#[derive(Debug, Default)]
struct OfTag {
    inputs: Vec<Input>,
    /// There is more after this time.
    cut_us: Option<Micros>,
}

/// Readings of many tags.
#[derive(Debug, Default)]
pub(super) struct Readings(BTreeMap<i32, OfTag>);

/// Readings of one time are never parted: `WITH TIES`.
const READ: &str = "
SELECT n.tag_id, x.time, x.value, x.quality FROM unnest($1::int4[], $2::timestamptz[]) AS n (tag_id, after)
CROSS JOIN LATERAL (
    SELECT r.time, r.value, r.quality FROM reading r
    WHERE r.tag_id = n.tag_id AND r.time > n.after AND r.time > $3 AND r.time <= $4
    ORDER BY r.time FETCH FIRST ($5) ROWS WITH TIES) x";

type Row = (i32, DateTime<Utc>, Option<f64>, i16);

impl Readings {
    /// The readings of tags after a time each, up to `until_us`.
    pub(super) async fn load(
        tx: &mut TenantTx,
        wanted: &BTreeMap<i32, Micros>,
        until_us: Micros,
    ) -> Result<Self, TenancyError> {
        let Some(first_us) = wanted.values().min() else {
            return Ok(Self::default());
        };
        let tag_max = (READINGS_MAX / wanted.len()).max(TAG_READINGS_MIN);
        let tags: Vec<i32> = wanted.keys().copied().collect();
        let after: Vec<DateTime<Utc>> = wanted.values().map(|us| time_from_us(*us)).collect();
        let rows: Vec<Row> = sqlx::query_as(READ)
            .bind(tags)
            .bind(after)
            .bind(time_from_us(*first_us))
            .bind(time_from_us(until_us))
            .bind(tag_max as i64)
            .fetch_all(tx.conn())
            .await?;
        Ok(Self::of_rows(rows, tag_max))
    }

    fn of_rows(mut rows: Vec<Row>, tag_max: usize) -> Self {
        rows.sort_unstable_by(|a, b| {
            (a.0, a.1, a.3)
                .cmp(&(b.0, b.1, b.3))
                .then_with(|| by_value(a.2, b.2))
        });
        let mut all: BTreeMap<i32, OfTag> = BTreeMap::new();
        for (tag_id, time, value, quality) in rows {
            all.entry(tag_id).or_default().inputs.push(Input {
                tag_id,
                time_us: time.timestamp_micros(),
                value,
                quality: Quality::from_i16(quality),
            });
        }
        for of_tag in all.values_mut().filter(|it| it.inputs.len() >= tag_max) {
            of_tag.cut_us = of_tag.inputs.last().map(|last| last.time_us);
        }
        Self(all)
    }

    /// The readings of a rule's tags after a time, in the order in which they are judged; and, when there are more,
    /// up to where these are whole.
    pub(super) fn of(&self, tags: &[i32], after_us: Micros) -> (Vec<Input>, Option<Micros>) {
        let known = || tags.iter().filter_map(|tag| self.0.get(tag));
        let cut_us = known().filter_map(|of_tag| of_tag.cut_us).min();
        let cut_us = cut_us.map(|cut_us| cut_us.max(after_us));
        let until_us = cut_us.unwrap_or(Micros::MAX);
        let mut inputs: Vec<Input> = Vec::new();
        for of_tag in known() {
            let from = of_tag.inputs.partition_point(|input| input.time_us <= after_us);
            let whole = of_tag.inputs[from..].iter();
            inputs.extend(whole.take_while(|input| input.time_us <= until_us));
        }
        // Stable: within a tag the order stays.
        inputs.sort_by_key(|input| (input.time_us, input.tag_id));
        (inputs, cut_us)
    }
}

/// A value before none, as the database sorts them.
fn by_value(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tag_id: i32, time_us: Micros, value: Option<f64>, quality: i16) -> Row {
        (tag_id, time_from_us(time_us), value, quality)
    }

    fn seen(inputs: &[Input]) -> Vec<(Micros, i32, Option<f64>)> {
        let brief = |it: &Input| (it.time_us, it.tag_id, it.value);
        inputs.iter().map(brief).collect()
    }

    #[test]
    fn tags_are_merged_by_time_then_tag_then_quality_then_value() {
        let rows = vec![
            row(2, 10, Some(1.0), 0),
            row(1, 20, Some(5.0), 0),
            row(1, 10, None, 4),
            row(1, 10, Some(3.0), 0),
            row(1, 10, Some(2.0), 0),
            row(1, 5, Some(9.0), 0),
        ];
        let (inputs, cut) = Readings::of_rows(rows, 100).of(&[2, 1], 5);
        let expected = [
            (10, 1, Some(2.0)),
            (10, 1, Some(3.0)),
            (10, 1, None),
            (10, 2, Some(1.0)),
            (20, 1, Some(5.0)),
        ];
        assert_eq!((seen(&inputs), cut), (expected.to_vec(), None));
    }

    #[test]
    fn a_rule_is_given_no_more_than_up_to_where_every_tag_of_it_is_whole() {
        let mut rows: Vec<Row> = (1..=3).map(|n| row(1, n * 10, Some(0.0), 0)).collect();
        rows.extend((1..=2).map(|n| row(2, n * 100, Some(1.0), 0)));
        let readings = Readings::of_rows(rows, 3);
        let (inputs, cut) = readings.of(&[1, 2], 0);
        assert_eq!((inputs.len(), cut), (3, Some(30)), "tag 2 waits for tag 1");
        let (inputs, cut) = readings.of(&[2], 0);
        assert_eq!((inputs.len(), cut), (2, None));
        let (inputs, cut) = readings.of(&[1], 500);
        assert_eq!((inputs.len(), cut), (0, Some(500)), "it stood beyond the cut");
    }
}
