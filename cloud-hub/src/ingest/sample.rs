//! How do readings get in that came in no frame? By the same COPY and the same newest value as those of frames; who
//! calls has made sure that none of them is stored already.

use std::collections::HashMap;

use super::{
    copy::{COPY_READINGS, Rows},
    frame::remember_newest,
};
use crate::{
    kernel::bulk::{BulkError, BulkTx},
    series::bus::Sample,
};

/// Stores readings and gives the newest of each tag, for live pages.
///
/// # Errors
/// [`BulkError`].
pub(crate) async fn store_samples(tx: &mut BulkTx<'_>, samples: &[Sample]) -> Result<Vec<Sample>, BulkError> {
    if samples.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = Rows::with_capacity(samples.len());
    let mut newest: HashMap<i32, Sample> = HashMap::new();
    for sample in samples {
        rows.push(
            sample.time_us,
            sample.tag_id,
            sample.value,
            sample.quality.cast_signed(),
        );
        let known = newest.entry(sample.tag_id).or_insert(*sample);
        if sample.time_us >= known.time_us {
            *known = *sample;
        }
    }
    tx.copy_in(COPY_READINGS, rows.finish()).await?;
    remember_newest(tx, newest.values()).await?;
    Ok(newest.into_values().collect())
}
