//! How does a segment of the write-ahead log lie on disk? Records that can be told apart after damage: each starts
//! with four known bytes, and whatever does not check is skipped up to the next that does. Pure.
//!
//! ```text
//! "FFWL" · length of the payload u32 LE · CRC32C of kind and payload u32 LE · kind u8 · payload
//! kind 1 frame, 2 part    ordinal u64 LE · the record as in `record.rs`
//! kind 3 done             postcard list of ordinals that the hub has acknowledged
//! kind 4 notes            postcard Notes: what belongs to the frames before it
//! kind 5 mark             postcard Mark: which parts have become frames of the backlog
//! ```

use std::collections::BTreeMap;

use protocol::Micros;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::record::{Key, Meta, Record};

const MAGIC: [u8; 4] = *b"FFWL";
const HEADER: usize = 13;
/// No record is longer: a frame's envelope ends at 1 MiB. A longer length is damage.
const PAYLOAD_BYTES_MAX: usize = 2 << 20;
const FRAME: u8 = 1;
const PART: u8 = 2;
const DONE: u8 = 3;
const NOTES: u8 = 4;
const MARK: u8 = 5;
/// Bytes before the record proper in a frame's or part's payload.
const ORDINAL: usize = 8;

/// What belongs to a batch beside its frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// States of the control points after the batch's events.
    pub states: Vec<(String, Vec<u8>)>,
    /// Number of the last journal record whose event is in the batch or before it; 0 for not known.
    pub journal_seq: u64,
    /// When the batch was sealed.
    pub sealed_us: Micros,
}

/// Which parts have become frames, and which numbers those frames took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Parts below this ordinal are in frames of the backlog.
    pub merged_below: u64,
    /// The next number in lane backfill of each boot that still has parts.
    pub numbering: BTreeMap<Uuid, u64>,
    /// No frame has this ordinal or a higher one yet, as far as known: ordinals are never used twice.
    pub next_ordinal: u64,
}

/// One record of a segment.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A frame with its identity.
    Frame(Slot),
    /// Readings that have no identity yet.
    Part(Slot),
    /// Frames that the hub has.
    Done(Vec<u64>),
    /// What belongs to the frames before it.
    Notes(Notes),
    /// How far parts have been merged.
    Mark(Mark),
}

/// Where a frame or part lies in its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its key.
    pub key: Key,
    /// What is known of it.
    pub meta: Meta,
    /// First byte of the record.
    pub at: u64,
    /// Its length in bytes.
    pub length: u32,
}

/// What a segment holds.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Every sound record in order.
    pub items: Vec<Item>,
    /// Where the last sound record ends.
    pub sound_bytes: u64,
    /// Bytes that do not check and stand before a sound record: damage, not a write that a power cut ended.
    pub damaged_bytes: u64,
    /// Frames, as far as can be told, in bytes at the end that do not check: a write that a power cut ended, or damage.
    pub unfinished_frames: u64,
}

fn put(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    let length = out.len() - start - HEADER;
    out[start + 12] = kind;
    let crc = crc32c::crc32c(&out[start + 12..]);
    out[start..start + 4].copy_from_slice(&MAGIC);
    out[start + 4..start + 8].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

fn put_plain<T: Serialize>(out: &mut Vec<u8>, kind: u8, value: &T) {
    put(out, kind, |out| {
        out.extend(postcard::to_stdvec(value).expect("plain data serialises to memory"));
    });
}

/// Appends a frame or, where it has no identity yet, a part; returns its slot counted from the start of `out`.
pub fn put_frame(out: &mut Vec<u8>, ordinal: u64, record: &Record, is_part: bool) -> Slot {
    let bytes = record.to_bytes();
    let at = out.len() + HEADER + ORDINAL;
    put(out, if is_part { PART } else { FRAME }, |out| {
        out.extend_from_slice(&ordinal.to_le_bytes());
        out.extend_from_slice(&bytes);
    });
    Slot {
        key: Key {
            lane: record.meta.id.lane,
            ordinal,
        },
        meta: record.meta.clone(),
        at: at as u64,
        length: bytes.len() as u32,
    }
}

/// Appends the word that the hub has these.
pub fn put_done(out: &mut Vec<u8>, ordinals: &[u64]) {
    put_plain(out, DONE, &ordinals);
}

/// Appends notes.
pub fn put_notes(out: &mut Vec<u8>, notes: &Notes) {
    put_plain(out, NOTES, notes);
}

/// Appends a mark.
pub fn put_mark(out: &mut Vec<u8>, mark: &Mark) {
    put_plain(out, MARK, mark);
}

/// Reads a segment's bytes, skipping what does not check.
pub fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut at = 0;
    let mut skipped = 0;
    while at < bytes.len() {
        if let Some((item, length)) = next(bytes, at) {
            scan.items.push(item);
            scan.damaged_bytes += std::mem::take(&mut skipped);
            at += length;
            scan.sound_bytes = at as u64;
        } else {
            let onward = find_magic(bytes, at + 1);
            skipped += (onward - at) as u64;
            at = onward;
        }
    }
    scan.unfinished_frames = unfinished(&bytes[scan.sound_bytes as usize..]);
    scan
}

/// Records in the unsound end of a log, without those that are known to be no frames.
fn unfinished(rest: &[u8]) -> u64 {
    if rest.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let is_no_frame = |at: usize| matches!(rest.get(at + 12), Some(&(DONE | NOTES | MARK)));
    let starts: Vec<usize> = (0..rest.len())
        .filter(|at| rest[*at..].starts_with(&MAGIC))
        .collect();
    let frames = starts.iter().filter(|at| !is_no_frame(**at)).count();
    if starts.is_empty() { 1 } else { frames as u64 }
}

fn find_magic(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let found = rest.windows(MAGIC.len()).position(|window| window == MAGIC);
    found.map_or(bytes.len(), |found| from + found)
}

fn next(bytes: &[u8], at: usize) -> Option<(Item, usize)> {
    let header = bytes.get(at..at + HEADER)?;
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    if header[..4] != MAGIC || length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let checked = bytes.get(at + 12..at + HEADER + length)?;
    if crc32c::crc32c(checked) != u32::from_le_bytes(header[8..12].try_into().ok()?) {
        return None;
    }
    let (kind, payload) = checked.split_first()?;
    let item = match *kind {
        FRAME => Item::Frame(slot(payload, at)?),
        PART => Item::Part(slot(payload, at)?),
        DONE => Item::Done(plain(payload)?),
        NOTES => Item::Notes(plain(payload)?),
        MARK => Item::Mark(plain(payload)?),
        _ => return None,
    };
    Some((item, HEADER + length))
}

fn plain<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    postcard::from_bytes(payload).ok()
}

fn slot(payload: &[u8], at: usize) -> Option<Slot> {
    let (ordinal, record) = payload.split_first_chunk::<ORDINAL>()?;
    let meta = Record::meta_from_bytes(record)?;
    Some(Slot {
        key: Key {
            lane: meta.id.lane,
            ordinal: u64::from_le_bytes(*ordinal),
        },
        meta,
        at: (at + HEADER + ORDINAL) as u64,
        length: record.len() as u32,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{frame::FrameId, lane::Lane};

    use super::*;

    fn record(seq: u64) -> Record {
        Record {
            meta: Meta {
                id: FrameId {
                    boot: Uuid::from_u128(1),
                    lane: Lane::Live,
                    seq,
                },
                dictionary: Uuid::from_u128(2),
                sealed_us: 5,
                readings: 3,
                events: 0,
            },
            envelope: vec![seq as u8; 40],
        }
    }

    fn segment(frames: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for seq in 0..frames {
            put_frame(&mut bytes, seq, &record(seq), seq % 2 == 1);
        }
        put_done(&mut bytes, &[0]);
        put_notes(&mut bytes, &Notes::default());
        put_mark(&mut bytes, &Mark::default());
        bytes
    }

    fn ordinals(scan: &Scan) -> Vec<u64> {
        let slots = scan.items.iter().filter_map(|item| match item {
            Item::Frame(slot) | Item::Part(slot) => Some(slot.key.ordinal),
            _ => None,
        });
        slots.collect()
    }

    #[test]
    fn what_was_written_reads_back_in_order_and_at_its_place() {
        let bytes = segment(6);
        let scan = scan(&bytes);
        assert_eq!(ordinals(&scan), [0, 1, 2, 3, 4, 5]);
        assert_eq!((scan.sound_bytes, scan.damaged_bytes), (bytes.len() as u64, 0));
        for item in &scan.items {
            if let Item::Frame(slot) | Item::Part(slot) = item {
                let range = slot.at as usize..slot.at as usize + slot.length as usize;
                assert_eq!(Record::from_bytes(&bytes[range]), Some(record(slot.key.ordinal)));
            }
        }
    }

    #[test]
    fn t3_a_changed_byte_costs_one_record_and_never_the_ones_after_it() {
        let whole = segment(6);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            let scan = scan(&bytes);
            assert_eq!(scan.items.len(), 8, "changed at {at}");
        }
    }

    #[test]
    fn t2_a_log_cut_at_any_byte_keeps_every_whole_record() {
        let whole = segment(6);
        let mut before = 0;
        for length in 0..=whole.len() {
            let scan = scan(&whole[..length]);
            assert_eq!(scan.damaged_bytes, 0, "a torn end is no damage");
            assert!(scan.items.len() >= before && scan.sound_bytes <= length as u64);
            before = scan.items.len();
        }
        assert_eq!(before, 9);
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(scan(&bytes).sound_bytes <= bytes.len() as u64);
        }
    }
}
