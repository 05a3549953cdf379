//! What is in a generation, without opening it? A small checked file beside the database. It may be older than the
//! database: then it tells of frames that the hub has by now, and opening the generation corrects it.

use std::{collections::BTreeMap, fs, io, path::Path};

use protocol::{Micros, lane::Lane};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    record::{Key, Meta},
    wal::Mark,
};
use crate::durable;

const FILE: &str = "summary";
/// No summary is longer.
const BYTES_MAX: u64 = 1 << 20;

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Frames.
    pub frames: u64,
    /// Readings in them.
    pub readings: u64,
}

impl Totals {
    /// Counts one more.
    pub fn add(&mut self, meta: &Meta) {
        self.frames += 1;
        self.readings += u64::from(meta.readings);
    }

    /// Counts one less.
    pub fn subtract(&mut self, meta: &Meta) {
        self.frames = self.frames.saturating_sub(1);
        self.readings = self.readings.saturating_sub(u64::from(meta.readings));
    }

    /// Counts all of another.
    pub fn include(&mut self, other: Self) {
        self.frames += other.frames;
        self.readings += other.readings;
    }
}

/// What is known of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Frames ever stored in it, waiting or not.
    pub stored: u64,
    /// What waits, by lane number.
    pub waiting: [Totals; 3],
    /// Seal times of what was stored, earliest and latest.
    pub sealed_us: Option<(Micros, Micros)>,
    /// Ordinals of what was stored, lowest and highest.
    pub ordinals: Option<(u64, u64)>,
    /// Frames stored by dictionary.
    pub dictionaries: BTreeMap<Uuid, u64>,
    /// How far parts had been merged with the last write.
    pub mark: Mark,
}

impl Summary {
    /// Counts a frame that was stored and waits.
    pub fn add(&mut self, key: Key, meta: &Meta) {
        self.stored += 1;
        self.waiting[usize::from(key.lane.number())].add(meta);
        *self.dictionaries.entry(meta.dictionary).or_default() += 1;
        let (first, last) = self.ordinals.unwrap_or((key.ordinal, key.ordinal));
        self.ordinals = Some((first.min(key.ordinal), last.max(key.ordinal)));
        let (from, to) = self.sealed_us.unwrap_or((meta.sealed_us, meta.sealed_us));
        self.sealed_us = Some((from.min(meta.sealed_us), to.max(meta.sealed_us)));
    }

    /// Whether a frame of this ordinal may be in it.
    pub fn may_hold(&self, ordinal: u64) -> bool {
        self.ordinals
            .is_some_and(|(first, last)| (first..=last).contains(&ordinal))
    }

    /// All that waits.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.waiting.iter().for_each(|lane| totals.include(*lane));
        totals
    }

    /// Readings that wait.
    pub fn telemetry(&self) -> Totals {
        let mut totals = self.waiting[usize::from(Lane::Live.number())];
        totals.include(self.waiting[usize::from(Lane::Backfill.number())]);
        totals
    }

    /// Reads a generation's summary; none when there is none that checks.
    pub fn read(directory: &Path) -> Option<Self> {
        let path = directory.join(FILE);
        if fs::metadata(&path).ok()?.len() > BYTES_MAX {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let (crc, rest) = bytes.split_first_chunk::<4>()?;
        (crc32c::crc32c(rest) == u32::from_le_bytes(*crc))
            .then(|| postcard::from_bytes(rest).ok())
            .flatten()
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let rest = postcard::to_stdvec(self).expect("plain data serialises to memory");
        let whole = [&crc32c::crc32c(&rest).to_le_bytes(), &rest[..]].concat();
        durable::write_whole(&directory.join(FILE), &whole, 0o666)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_reads_back_and_a_damaged_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Summary::read(directory.path()), None);
        let summary = Summary {
            stored: 3,
            ..Summary::default()
        };
        summary.write(directory.path()).unwrap();
        assert_eq!(Summary::read(directory.path()), Some(summary));
        let path = directory.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[5] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(Summary::read(directory.path()), None);
    }
}
