//! How is one record of the legal record linked to the one before it? Checksummed, numbered and carrying the hash of
//! its predecessor, so that an edit, a deletion or a reordering shows. Pure.
//!
//! ```text
//! length u32 LE · CRC32C of the payload u32 LE · payload
//! payload = seq u64 LE · SHA-256 of the previous payload (32) · written i64 LE (microseconds) · postcard Event
//! ```

use protocol::{Micros, event::Event};
use sha2::{Digest as _, Sha256};

use crate::hex::hex;

const HEADER: usize = 8;
const EVENT_AT: usize = 8 + 32 + 8;
/// No event of a control point is longer; a longer length is damage.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Where the chain ends.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Tip {
    /// Number of the last record; 0 for none.
    pub seq: u64,
    /// SHA-256 of the last payload.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for Tip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.seq, hex(&self.hash))
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written.
    pub written_us: Micros,
    /// What happened.
    pub event: Event,
}

/// What reading a journal found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    /// Every sound record, in order.
    pub entries: Vec<Entry>,
    /// Hashes of their payloads.
    pub hashes: Vec<[u8; 32]>,
    /// Where the sound chain ends.
    pub tip: Tip,
    /// Bytes that are sound.
    pub sound_bytes: usize,
    /// What is wrong after that, if anything follows.
    pub fault: Option<String>,
    /// Whether what follows looks like one record that a power cut left unfinished.
    pub is_torn: bool,
}

/// Reads a file's bytes up to the first fault; `from` is where the chain ended before it.
pub fn verify(bytes: &[u8], from: Tip) -> Verified {
    let mut verified = Verified {
        tip: from,
        ..Verified::default()
    };
    while verified.sound_bytes < bytes.len() {
        match next(&bytes[verified.sound_bytes..], &verified.tip) {
            Ok((entry, hash, length)) => {
                verified.tip = Tip { seq: entry.seq, hash };
                verified.entries.push(entry);
                verified.hashes.push(hash);
                verified.sound_bytes += length;
            }
            Err(fault) => {
                let record = verified.tip.seq + 1;
                verified.fault = Some(format!(
                    "record {record}, at byte {}: {fault}",
                    verified.sound_bytes
                ));
                verified.is_torn = is_torn(&bytes[verified.sound_bytes..]);
                break;
            }
        }
    }
    verified
}

/// Whether nothing sound can follow: the last record reaches to the end or beyond, or the file was extended and
/// never filled.
fn is_torn(rest: &[u8]) -> bool {
    let Some((header, _)) = rest.split_first_chunk::<HEADER>() else {
        return true;
    };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    (EVENT_AT..=PAYLOAD_BYTES_MAX).contains(&length) && HEADER + length >= rest.len()
        || rest.iter().all(|byte| *byte == 0)
}

fn next(bytes: &[u8], tip: &Tip) -> Result<(Entry, [u8; 32], usize), &'static str> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or("a torn header")?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if !(EVENT_AT..=PAYLOAD_BYTES_MAX).contains(&length) {
        return Err("an impossible length");
    }
    let payload = rest.get(..length).ok_or("a torn record")?;
    if crc32c::crc32c(payload) != u32::from_le_bytes([header[4], header[5], header[6], header[7]]) {
        return Err("a wrong checksum");
    }
    let (seq, after) = payload.split_first_chunk::<8>().ok_or("a torn record")?;
    let (previous, after) = after.split_first_chunk::<32>().ok_or("a torn record")?;
    let (written, event) = after.split_first_chunk::<8>().ok_or("a torn record")?;
    if *previous != tip.hash || u64::from_le_bytes(*seq) != tip.seq + 1 {
        return Err("a record that does not follow from the one before it");
    }
    let entry = Entry {
        seq: u64::from_le_bytes(*seq),
        written_us: Micros::from_le_bytes(*written),
        event: postcard::from_bytes(event).map_err(|_| "a record of an unknown form")?,
    };
    Ok((entry, Sha256::digest(payload).into(), HEADER + length))
}

/// Where the chain was before the first record of a file, by that record's own word.
pub fn start_of(bytes: &[u8]) -> Option<Tip> {
    let payload = bytes.get(HEADER..)?;
    let (seq, rest) = payload.split_first_chunk::<8>()?;
    let (hash, _) = rest.split_first_chunk::<32>()?;
    let seq = u64::from_le_bytes(*seq).checked_sub(1)?;
    Some(Tip { seq, hash: *hash })
}

/// The record of an event, and where the chain is after it.
pub fn encode(tip: &Tip, written_us: Micros, event: &Event) -> (Vec<u8>, Tip) {
    let event = postcard::to_stdvec(event).expect("plain data serialises to memory");
    let mut payload = Vec::with_capacity(EVENT_AT + event.len());
    payload.extend_from_slice(&(tip.seq + 1).to_le_bytes());
    payload.extend_from_slice(&tip.hash);
    payload.extend_from_slice(&written_us.to_le_bytes());
    payload.extend_from_slice(&event);
    let mut record = Vec::with_capacity(HEADER + payload.len());
    record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    record.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    record.extend_from_slice(&payload);
    let tip = Tip {
        seq: tip.seq + 1,
        hash: Sha256::digest(&payload).into(),
    };
    (record, tip)
}
