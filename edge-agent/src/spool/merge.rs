//! How do many small parts become one dense frame? Readings that were sealed while the hub was away have no identity
//! yet; those of one boot, dictionary and clock state go together under one. Pure.

use protocol::{
    frame::{Frame, FrameId, Header},
    lane::Lane,
    reading::Reading,
};

use super::record::{Meta, Record};

/// Readings in one merged frame: beyond it nothing more is gained.
pub const READINGS_MAX: usize = 10_000;
/// Bytes of parts in one merged frame: values of the store stay under 64 KiB.
const BYTES_MAX: usize = 48 << 10;

/// Collects parts for one frame.
#[derive(Debug, Default)]
pub struct Merger {
    header: Option<Header>,
    readings: Vec<Reading>,
    bytes: usize,
}

/// A part could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It belongs to the next frame.
    Full,
    /// It cannot be read.
    Damaged,
}

impl Merger {
    /// Takes a part.
    pub fn push(&mut self, part: &Record) -> Result<(), Refused> {
        let frame = Frame::decode(&part.envelope).map_err(|_| Refused::Damaged)?;
        if let Some(header) = &mut self.header {
            let fits = self.readings.len() + frame.readings.len() <= READINGS_MAX
                && self.bytes + part.envelope.len() <= BYTES_MAX;
            let same = header.id.boot == frame.header.id.boot
                && header.dictionary == frame.header.dictionary
                && header.clock == frame.header.clock;
            if !fits || !same {
                return Err(Refused::Full);
            }
            header.sealed_us = frame.header.sealed_us;
        } else {
            self.header = Some(frame.header);
        }
        self.bytes += part.envelope.len();
        self.readings.extend(frame.readings);
        Ok(())
    }

    /// The frame of all parts taken, with its number from `number_of` its boot; none when none was taken.
    pub fn finish(self, number_of: impl FnOnce(uuid::Uuid) -> u64) -> Option<Record> {
        let mut header = self.header?;
        header.id = FrameId {
            boot: header.id.boot,
            lane: Lane::Backfill,
            seq: number_of(header.id.boot),
        };
        header.readings = self.readings.len() as u32;
        header.events = 0;
        let meta = Meta {
            id: header.id,
            dictionary: header.dictionary,
            sealed_us: header.sealed_us,
            readings: header.readings,
            events: 0,
        };
        let frame = Frame {
            header,
            readings: self.readings,
            events: Vec::new(),
        };
        match frame.encode() {
            Ok(envelope) => Some(Record { meta, envelope }),
            Err(error) => {
                // Within this module's limits a frame is far below the protocol's.
                tracing::error!(%error, "merged frame cannot be encoded");
                None
            }
        }
    }
}
