//! How do readings become rows, whether they came in a frame or not? By one COPY, with a note of the rollups and the alarm
//! rules that they concern and the newest value of each tag. Who calls has made sure that none is stored already.

use chrono::{DateTime, Utc};
use protocol::Micros;

use super::{
    copy::{COPY_READINGS, Rows},
    mark::{Marks, minute_of},
    per_tag::PerTag,
};
use crate::{
    kernel::{
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
    },
    series::bus::Sample,
};

/// Readings on their way into a tenant's tables.
#[derive(Debug)]
pub(super) struct Landing {
    rows: Rows,
    marks: Marks,
    tags: PerTag,
}

impl Landing {
    /// None yet, with room for `readings`.
    pub(super) fn with_capacity(readings: usize) -> Self {
        Self {
            rows: Rows::with_capacity(readings),
            marks: Marks::default(),
            tags: PerTag::default(),
        }
    }

    /// Takes a reading.
    pub(super) fn note(&mut self, sample: Sample) {
        let Sample { tag_id, time_us, .. } = sample;
        self.rows
            .push(time_us, tag_id, sample.value, sample.quality.cast_signed());
        let tag = self.tags.note(sample);
        let minute_us = minute_of(time_us);
        // A minute that the tag's last reading marked is marked.
        if tag.marked_us != Some(minute_us) {
            tag.marked_us = Some(minute_us);
            self.marks.note(tag_id, time_us);
        }
    }

    /// Writes them; the newest of each tag.
    ///
    /// # Errors
    /// [`BulkError`].
    pub(super) async fn store(
        self,
        tx: &mut BulkTx<'_>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Sample>, BulkError> {
        if self.rows.count() == 0 {
            return Ok(vec![]);
        }
        metrics::histogram!("foodflow_ingest_copy_readings").record(self.rows.count() as f64);
        let (count, copied) = (
            self.rows.count() as u64,
            tx.copy_in(COPY_READINGS, self.rows.finish()).await?,
        );
        debug_assert_eq!(count, copied, "COPY takes every row or fails");
        self.marks.store(tx).await?;
        let tags = self.tags.finish();
        let earliest: Vec<(i32, Micros)> = tags
            .iter()
            .map(|tag| (tag.newest.tag_id, tag.earliest_us))
            .collect();
        note_earliest(tx, &earliest).await?;
        let newest: Vec<Sample> = tags.into_iter().map(|tag| tag.newest).collect();
        remember_newest(tx, &newest, now).await?;
        Ok(newest)
    }
}

/// Stores readings that came in no frame and gives the newest of each tag, for live pages.
///
/// # Errors
/// [`BulkError`].
pub(crate) async fn store_samples(
    tx: &mut BulkTx<'_>,
    samples: &[Sample],
    now: DateTime<Utc>,
) -> Result<Vec<Sample>, BulkError> {
    let mut landing = Landing::with_capacity(samples.len());
    for sample in samples {
        landing.note(*sample);
    }
    landing.store(tx, now).await
}

/// Alarm rules of these tags are judged from here on, whether that is late or not.
async fn note_earliest(tx: &mut BulkTx<'_>, earliest: &[(i32, Micros)]) -> Result<(), BulkError> {
    let (tags, times): (Vec<i32>, Vec<DateTime<Utc>>) = earliest
        .iter()
        .map(|(tag, time_us)| (*tag, time_from_us(*time_us)))
        .unzip();
    tx.query("SELECT {schema}.note_alarm_due($1, $2)", &[&tags, &times])
        .await?;
    Ok(())
}

const NEWEST: &str = "
INSERT INTO {schema}.tag_last AS l (tag_id, time, value, quality, received_at)
SELECT tag_id, time, value, quality, $5 FROM unnest($1::int4[], $2::timestamptz[], $3::float8[], $4::int2[])
    AS n (tag_id, time, value, quality)
ON CONFLICT (tag_id) DO UPDATE SET time = excluded.time, value = excluded.value, quality = excluded.quality,
    received_at = excluded.received_at
WHERE excluded.time > l.time";

/// The current value never goes backwards, whatever arrives late. Rows are taken in order of tag, so that two
/// hubs never wait for each other.
async fn remember_newest(
    tx: &mut BulkTx<'_>,
    newest: &[Sample],
    now: DateTime<Utc>,
) -> Result<(), BulkError> {
    let tags: Vec<i32> = newest.iter().map(|sample| sample.tag_id).collect();
    let times: Vec<DateTime<Utc>> = newest.iter().map(|sample| time_from_us(sample.time_us)).collect();
    let values: Vec<Option<f64>> = newest.iter().map(|sample| sample.value).collect();
    let qualities: Vec<i16> = newest.iter().map(|sample| sample.quality.cast_signed()).collect();
    tx.execute(NEWEST, &[&tags, &times, &values, &qualities, &now])
        .await?;
    Ok(())
}
