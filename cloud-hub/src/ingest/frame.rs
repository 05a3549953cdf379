//! Which frames of a batch are new, and what rows do they bring? Claiming a frame's identity and storing its
//! rows happen in one transaction, so a frame sent twice is stored once.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use protocol::{
    Reading,
    frame::{Frame, FrameId},
    lane::Lane,
};
use uuid::Uuid;

use super::{dictionary::Mapping, land::Landing, per_tag::PerTag};
use crate::{
    kernel::{
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
    },
    series::bus::Sample,
};

/// A frame whose aliases are all known.
#[derive(Clone, Debug)]
pub(super) struct Resolved<'a> {
    /// Its place in the batch.
    pub(super) index: usize,
    pub(super) edge_id: Uuid,
    pub(super) edge: &'a str,
    pub(super) frame: &'a Frame,
    /// Readings that came with it and have an impossible time.
    pub(super) misdated: &'a [Reading],
    pub(super) mapping: Arc<Mapping>,
}

impl Resolved<'_> {
    /// Whether the edge's clock was synchronised when the frame was sealed.
    fn is_synced(&self) -> bool {
        self.frame.header.clock.synced
    }

    /// Readings that wait for the correction of their clock: they are neither stored nor refused.
    fn waiting(&self) -> i32 {
        let settled = self.frame.readings.len() + self.misdated.len();
        (self.frame.header.readings as usize).saturating_sub(settled) as i32
    }
}

/// Whether every reading's alias stands for a tag; else the one that does not.
pub(super) fn unknown_alias(frame: &Frame, mapping: &Mapping) -> Option<u32> {
    frame
        .readings
        .iter()
        .find(|reading| mapping.get(reading.tag).is_none())
        .map(|reading| reading.tag.0)
}

const CLAIM: &str = "
INSERT INTO {schema}.frame (edge_id, boot, lane, seq, sealed_at, readings, events, clock_synced)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int2[], $4::int8[], $5::timestamptz[], $6::int4[], $7::int4[],
    $8::bool[])
ON CONFLICT DO NOTHING
RETURNING edge_id, boot, lane, seq";

fn column<T>(frames: &[Resolved<'_>], value: impl Fn(&Frame) -> T) -> Vec<T> {
    frames.iter().map(|resolved| value(resolved.frame)).collect()
}

/// Claims the identities and keeps the frames that nobody claimed before, each once. They are claimed in the order of
/// their identity: two hubs that were sent the same frames never wait for each other in a circle.
pub(super) async fn claim<'a>(
    tx: &mut BulkTx<'_>,
    frames: Vec<Resolved<'a>>,
) -> Result<Vec<Resolved<'a>>, BulkError> {
    if frames.is_empty() {
        return Ok(frames);
    }
    let by_arrival = frames;
    let mut frames = by_arrival.clone();
    frames.sort_by_key(|resolved| identity(resolved.edge_id, &resolved.frame.header.id));
    let edges: Vec<Uuid> = frames.iter().map(|resolved| resolved.edge_id).collect();
    let rows = tx
        .query(
            CLAIM,
            &[
                &edges,
                &column(&frames, |frame| frame.header.id.boot),
                &column(&frames, |frame| i16::from(frame.header.id.lane.number())),
                &column(&frames, |frame| frame.header.id.seq.cast_signed()),
                &column(&frames, |frame| time_from_us(frame.header.sealed_us)),
                &column(&frames, |frame| frame.readings.len() as i32),
                &column(&frames, |frame| frame.events.len() as i32),
                &column(&frames, |frame| frame.header.clock.synced),
            ],
        )
        .await?;
    let mut claimed: HashSet<(Uuid, Uuid, i16, i64)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    // Removing what is taken keeps the second of two equal frames in one batch out.
    Ok(by_arrival
        .into_iter()
        .filter(|resolved| claimed.remove(&identity(resolved.edge_id, &resolved.frame.header.id)))
        .collect())
}

const UNSYNCED: &str = "
INSERT INTO {schema}.unsynced_frame (edge_id, boot, lane, seq, sealed_at, misdated, payload)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int2[], $4::int8[], $5::timestamptz[], $6::int4[], $7::bytea[])
ON CONFLICT DO NOTHING";

/// Keeps frames that were sealed by a clock that may be wrong as they came, three bytes a reading: when the edge says
/// what the times truly were, exactly their rows can be told from all others.
pub(super) async fn keep_unsynced<'i>(
    tx: &mut BulkTx<'_>,
    frames: &[Resolved<'_>],
    payload: impl Fn(usize) -> &'i [u8],
) -> Result<(), BulkError> {
    let unsynced: Vec<Resolved<'_>> = frames.iter().filter(|it| !it.is_synced()).cloned().collect();
    if unsynced.is_empty() {
        return Ok(());
    }
    let edges: Vec<Uuid> = unsynced.iter().map(|resolved| resolved.edge_id).collect();
    let misdated: Vec<i32> = unsynced.iter().map(Resolved::waiting).collect();
    let payloads: Vec<&[u8]> = unsynced.iter().map(|resolved| payload(resolved.index)).collect();
    tx.execute(
        UNSYNCED,
        &[
            &edges,
            &column(&unsynced, |frame| frame.header.id.boot),
            &column(&unsynced, |frame| i16::from(frame.header.id.lane.number())),
            &column(&unsynced, |frame| frame.header.id.seq.cast_signed()),
            &column(&unsynced, |frame| time_from_us(frame.header.sealed_us)),
            &misdated,
            &payloads,
        ],
    )
    .await?;
    Ok(())
}

fn identity(edge_id: Uuid, id: &FrameId) -> (Uuid, Uuid, i16, i64) {
    (
        edge_id,
        id.boot,
        i16::from(id.lane.number()),
        id.seq.cast_signed(),
    )
}

/// Stores the readings of claimed frames and gives the newest of each tag and lane, for live pages.
pub(super) async fn store_readings(
    tx: &mut BulkTx<'_>,
    frames: &[Resolved<'_>],
    now: DateTime<Utc>,
) -> Result<Vec<(Lane, Vec<Sample>)>, BulkError> {
    let mut landing =
        Landing::with_capacity(frames.iter().map(|resolved| resolved.frame.readings.len()).sum());
    let mut newest: BTreeMap<u8, (Lane, PerTag)> = BTreeMap::new();
    for resolved in frames {
        let lane = resolved.frame.header.id.lane;
        let (_, newest) = newest
            .entry(lane.number())
            .or_insert_with(|| (lane, PerTag::default()));
        for reading in &resolved.frame.readings {
            // `unknown_alias` found them all.
            let Some(tag) = resolved.mapping.get(reading.tag) else {
                continue;
            };
            let sample = Sample {
                tag_id: tag.id,
                time_us: reading.time_us,
                value: reading.value(),
                quality: reading.quality.code(),
                simulated: tag.is_simulated,
            };
            landing.note(sample);
            newest.note(sample);
        }
    }
    landing.store(tx, now).await?;
    let samples = |tags: PerTag| tags.finish().into_iter().map(|tag| tag.newest).collect();
    Ok(newest
        .into_values()
        .map(|(lane, tags)| (lane, samples(tags)))
        .collect())
}
