//! How does a frame lie in the store? Keys that sort by lane and age, values with their own checksum. Pure.
//!
//! ```text
//! key    lane number (1) · ordinal, big endian (8)
//! value  CRC32C of the rest, little endian (4) · length of what follows it (2) · postcard Meta, or nothing where
//!        the envelope's own header says the same · the frame's envelope
//! ```

use protocol::{
    Micros,
    frame::{Frame, FrameId},
    lane::Lane,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a frame lies: lane, and the order in which it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The lane.
    pub lane: Lane,
    /// Counts up over all lanes and starts.
    pub ordinal: u64,
}

impl Key {
    /// As stored.
    pub fn to_bytes(self) -> [u8; 9] {
        let mut bytes = [0; 9];
        bytes[0] = self.lane.number();
        bytes[1..].copy_from_slice(&self.ordinal.to_be_bytes());
        bytes
    }

    /// From its stored form; none for keys that are no frame's.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (number, ordinal) = bytes.split_first()?;
        Some(Self {
            lane: Lane::ALL.into_iter().find(|lane| lane.number() == *number)?,
            ordinal: u64::from_be_bytes(ordinal.try_into().ok()?),
        })
    }
}

/// What is known of a frame without opening its envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Its identity.
    pub id: FrameId,
    /// The dictionary that explains it.
    pub dictionary: Uuid,
    /// When it was sealed.
    pub sealed_us: Micros,
    /// Readings in it.
    pub readings: u32,
    /// Events in it.
    pub events: u32,
}

/// A frame as it is stored and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What is known of it.
    pub meta: Meta,
    /// The bytes to send.
    pub envelope: Vec<u8>,
}

impl Record {
    /// The stored form.
    ///
    /// # Panics
    /// Never: a [`Meta`] serialises to memory, to well under 64 KiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        // The header repeats it all: on small frames that is every fourteenth byte of the disk.
        let meta = if in_header(&self.envelope).as_ref() == Some(&self.meta) {
            Vec::new()
        } else {
            postcard::to_stdvec(&self.meta).expect("plain data serialises to memory")
        };
        let mut bytes = Vec::with_capacity(6 + meta.len() + self.envelope.len());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(meta.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&meta);
        bytes.extend_from_slice(&self.envelope);
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// From its stored form; none when any bit of it changed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (meta, envelope) = split(bytes)?;
        Some(Self {
            meta,
            envelope: envelope.to_vec(),
        })
    }

    /// Only what is known of it, checked like the whole.
    pub fn meta_from_bytes(bytes: &[u8]) -> Option<Meta> {
        split(bytes).map(|(meta, _)| meta)
    }
}

fn split(bytes: &[u8]) -> Option<(Meta, &[u8])> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (meta, envelope) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let meta = if meta.is_empty() {
        in_header(envelope)?
    } else {
        postcard::from_bytes(meta).ok()?
    };
    Some((meta, envelope))
}

fn in_header(envelope: &[u8]) -> Option<Meta> {
    let header = Frame::decode_header(envelope).ok()?;
    Some(Meta {
        id: header.id,
        dictionary: header.dictionary,
        sealed_us: header.sealed_us,
        readings: header.readings,
        events: header.events,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(envelope: Vec<u8>) -> Record {
        Record {
            meta: Meta {
                id: FrameId {
                    boot: Uuid::from_u128(7),
                    lane: Lane::Live,
                    seq: 42,
                },
                dictionary: Uuid::from_u128(9),
                sealed_us: 1_700_000_000_000_000,
                readings: 1000,
                events: 0,
            },
            envelope,
        }
    }

    #[test]
    fn keys_sort_by_lane_and_age() {
        let key = |lane, ordinal| Key { lane, ordinal }.to_bytes();
        assert!(key(Lane::Events, u64::MAX) < key(Lane::Live, 0));
        assert!(key(Lane::Live, 255) < key(Lane::Live, 256));
        assert_eq!(
            Key::from_bytes(&key(Lane::Live, 256)).map(|key| key.ordinal),
            Some(256)
        );
        assert_eq!(Key::from_bytes(&[0xF0, 1]), None);
    }

    #[test]
    fn a_frame_whose_header_says_it_all_is_stored_with_six_bytes_more() {
        let mut record = record(Vec::new());
        let frame = Frame {
            header: protocol::frame::Header {
                id: record.meta.id,
                edge: "akron-1".to_owned(),
                dictionary: record.meta.dictionary,
                sealed_us: record.meta.sealed_us,
                clock: protocol::frame::ClockState::default(),
                readings: 0,
                events: 0,
            },
            readings: Vec::new(),
            events: Vec::new(),
        };
        record.meta.readings = 0;
        record.envelope = frame.encode().unwrap();
        let bytes = record.to_bytes();
        assert_eq!(bytes.len(), record.envelope.len() + 6);
        assert_eq!(Record::from_bytes(&bytes), Some(record));
    }

    proptest! {
        #[test]
        fn a_record_survives_and_any_changed_bit_is_noticed(
            envelope in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let record = record(envelope);
            let mut bytes = record.to_bytes();
            prop_assert_eq!(Record::from_bytes(&bytes), Some(record));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Record::from_bytes(&bytes), None);
        }
    }
}
