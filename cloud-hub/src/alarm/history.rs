//! What would a rule have said of what is stored? Readings of a time, read once and judged any number of times; the
//! blocks that a model is learnt from. Nothing is written.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use protocol::{Micros, Quality};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    model::{BlockMeans, Model},
    season::Zone,
    watch::{Input, Kind, Spec, Watch},
};
use crate::{
    error::{Error, Result},
    kernel::{clock::time_from_us, tenancy::TenantTx},
};

/// Most readings that one question looks at.
pub const READINGS_MAX: usize = 1_000_000;
/// Longest time that one question looks at.
pub const RANGE_US_MAX: Micros = 92 * 86_400_000_000;

/// One time that a condition was true.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AnomalySpan {
    /// When it began, by the time of the readings.
    pub from_us: Micros,
    /// When it ended; null while it lasts.
    pub to_us: Option<Micros>,
    /// The value that was judged.
    pub value: Option<f64>,
    /// Its score, where the kind has one.
    pub score: Option<f64>,
}

/// The readings of a rule's tags in a time, in the order in which they are judged.
///
/// # Errors
/// [`Error::Invalid`] for a time that is too long or holds too much.
pub(super) async fn inputs(
    tx: &mut TenantTx,
    spec: &Spec,
    (from_us, to_us): (Micros, Micros),
) -> Result<Vec<Input>> {
    let span_us = to_us.checked_sub(from_us);
    if !span_us.is_some_and(|span_us| (1..=RANGE_US_MAX).contains(&span_us)) {
        return Err(Error::Invalid(
            "`to_us` must be after `from_us`, by at most 92 days".to_owned(),
        ));
    }
    let tags: Vec<i32> = spec.tags.iter().copied().chain(spec.running_tag).collect();
    let mut rows = sqlx::query_as::<_, (i32, DateTime<Utc>, Option<f64>, i16)>(
        "SELECT tag_id, time, value, quality FROM reading WHERE tag_id = ANY($1) AND time >= $2 AND time < $3 \
         ORDER BY time, tag_id, quality, value",
    )
    .bind(tags)
    .bind(time_from_us(from_us))
    .bind(time_from_us(to_us))
    .fetch(tx.conn());
    let mut inputs = Vec::new();
    while let Some((tag_id, time, value, quality)) = rows.try_next().await? {
        if inputs.len() == READINGS_MAX {
            return Err(Error::Invalid(format!(
                "more than {READINGS_MAX} readings; choose a shorter time"
            )));
        }
        inputs.push(Input {
            tag_id,
            time_us: time.timestamp_micros(),
            value,
            quality: Quality::from_i16(quality),
        });
    }
    Ok(inputs)
}

/// When the condition was true in a time that begins at `from_us`.
pub fn spans(spec: &Spec, model: Option<&Model>, inputs: &[Input], from_us: Micros) -> Vec<AnomalySpan> {
    let (mut watch, mut turns) = (Watch::default(), Vec::new());
    watch.begin(from_us);
    for input in inputs {
        watch.take(spec, model, input, &mut turns);
    }
    let mut spans: Vec<AnomalySpan> = Vec::new();
    for turn in turns {
        if turn.is_active {
            spans.push(AnomalySpan {
                from_us: turn.at_us,
                to_us: None,
                value: turn.value,
                score: turn.score,
            });
        } else if let Some(last) = spans.last_mut() {
            last.to_us = Some(turn.at_us);
        }
    }
    spans
}

/// The blocks of a time in which every tag has a good value and the line ran.
pub fn blocks(spec: &Spec, inputs: &[Input]) -> Vec<BlockMeans> {
    let mut blocks: Vec<BlockMeans> = Vec::new();
    let mut at_hand: Option<(Micros, Vec<(u32, f64)>)> = None;
    let mut is_running = true;
    let mut end = |block: Option<(Micros, Vec<(u32, f64)>)>| {
        if let Some((from_us, sums)) = block
            && sums.iter().all(|(n, _)| *n > 0)
        {
            let means = sums.iter().map(|(n, sum)| sum / f64::from(*n)).collect();
            blocks.push(BlockMeans { from_us, means });
        }
    };
    for input in inputs {
        let from_us = input.time_us - input.time_us.rem_euclid(spec.window_us);
        if at_hand.as_ref().is_some_and(|(of_us, _)| *of_us != from_us) {
            end(at_hand.take());
        }
        if spec.running_tag == Some(input.tag_id) {
            is_running = input.value.map_or(is_running, |rate| rate > 0.0);
        }
        let place = spec.tags.iter().position(|tag| *tag == input.tag_id);
        let value = input.value.filter(|_| input.quality.is_good() && is_running);
        if let (Some(place), Some(value)) = (place, value) {
            let (_, sums) = at_hand.get_or_insert_with(|| (from_us, vec![(0, 0.0); spec.tags.len()]));
            sums[place].0 += 1;
            sums[place].1 += value;
        }
    }
    end(at_hand);
    blocks
}

/// A model for a kind that needs one; by the clocks of `zone` when the hour of the week matters.
///
/// # Errors
/// [`Error::Invalid`] when there is too little to learn from.
pub fn learn(spec: &Spec, zone: Zone, inputs: &[Input], seed: u64) -> Result<Option<(Model, usize)>> {
    if !spec.kind.is_trained() {
        return Ok(None);
    }
    let blocks = blocks(spec, inputs);
    let model = Model::learn(spec.kind, spec.is_seasonal.then_some(zone), &blocks, seed)
        .map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(Some((model, blocks.len())))
}

/// Whether a kind judges single values, so that a deadband means something.
pub(super) fn has_band(kind: Kind) -> bool {
    matches!(kind, Kind::Threshold | Kind::Rate)
}
