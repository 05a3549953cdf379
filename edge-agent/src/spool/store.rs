//! What waits for the hub, and where? What is new goes into a write-ahead log and is durable there; what still waits
//! when a segment of the log is full moves into generations of sled databases, readings merged into dense frames.
//! Nothing is deleted but on the hub's acknowledgement, or by the quota and then on record.
//!
//! A frame that may have been sent keeps its identity for ever. Readings sealed while much waits already are *parts*:
//! they have no identity until they are merged, so that merging leaves no hole in any sequence.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use protocol::{Micros, event::Gap, lane::Lane};
use uuid::Uuid;

use super::{
    generation::{Generation, GenerationError, Missing},
    kept::Kept,
    record::{Key, Meta, Record},
    segment::Segment,
    wal::{self, Mark, Slot},
};
pub use super::{summary::Totals, wal::Notes};

/// Live frames that may wait with an identity of their own; beyond it readings are sealed as parts.
pub const LIVE_WAITING_MAX: u64 = 256;
/// Why records are given up.
pub const DAMAGED: &str = "damaged frame";

/// How large the store may grow, and how long it keeps what the hub has.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes on disk.
    pub quota_bytes: u64,
    /// A generation is closed at this size.
    pub generation_bytes: u64,
    /// What the hub has stays this long for replays, as far as the quota allows; 0: not at all.
    pub keep_us: Micros,
}

impl Limits {
    /// A segment of the log is closed at this size.
    pub fn segment_bytes(&self) -> u64 {
        (self.quota_bytes / 64).clamp(4 << 10, 4 << 20)
    }

    /// Left free, so that what must be rewritten always has a place.
    pub fn headroom_bytes(&self) -> u64 {
        self.quota_bytes / if self.has_backlog() { 16 } else { 8 }
    }

    /// Whether there is room for databases beside the log.
    pub fn has_backlog(&self) -> bool {
        self.quota_bytes >= 4 * super::generation::EMPTY_BYTES
    }
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another agent uses the directory.
    #[error("{}: another agent is running on this data directory", .0.display())]
    InUse(PathBuf),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A generation refused.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

impl StoreError {
    /// Whether the file system has no room.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// What was found when the store was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Files and directories that could not be read and were set aside.
    pub set_aside: Vec<PathBuf>,
    /// Saved states of the control points.
    pub states: Vec<(String, Vec<u8>)>,
    /// Number of the last journal record whose event is in the store.
    pub journal_seq: Option<u64>,
    /// When the last frame before this start was sealed.
    pub last_sealed_us: Option<Micros>,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    pub(super) directory: PathBuf,
    pub(super) limits: Limits,
    pub(super) boot: Uuid,
    /// The log, oldest first; the last one is written to.
    pub(super) segments: VecDeque<Segment>,
    /// The backlog, oldest first; the last one is written to.
    pub(super) generations: VecDeque<Generation>,
    /// Segments of which the hub has everything, oldest first.
    pub(super) kept: VecDeque<Kept>,
    pub(super) next_ordinal: u64,
    pub(super) mark: Mark,
    pub(super) notes: Notes,
    /// What was given up and not told yet.
    pub(super) gaps: Vec<Gap>,
    /// Held for as long as the store is open; none for who only looks.
    _lock: Option<File>,
}

impl Store {
    /// Opens or creates the store for one start of the agent. What cannot be read is renamed to `corrupt-…`.
    pub fn open(
        directory: &Path,
        limits: Limits,
        boot: Uuid,
        now_us: Micros,
    ) -> Result<(Self, Recovered), StoreError> {
        let io_error = |source| io_at(directory, source);
        fs::create_dir_all(directory).map_err(io_error)?;
        let lock = lock(directory)?;
        let (mut store, mut recovered) = Self::found(directory, limits, boot, Some(lock));
        let names = names(directory).map_err(io_error)?;
        store.take_up_generations(&names, now_us, &mut recovered)?;
        store.take_up_segments(&names, now_us, &mut recovered)?;
        store.kept = names
            .iter()
            .filter_map(|name| Kept::of(directory, name))
            .collect();
        store.kept.make_contiguous().sort_by_key(|kept| kept.number);
        store.mark.numbering.entry(boot).or_insert(0);
        if let Err(error) = store.begin_segment() {
            // A full disk stops no judgement: what comes waits, and is told if it has to be given up.
            tracing::error!(%error, "the spool cannot write; trying again");
        }
        Ok((store, recovered))
    }

    fn found(directory: &Path, limits: Limits, boot: Uuid, lock: Option<File>) -> (Self, Recovered) {
        let store = Self {
            directory: directory.to_owned(),
            limits,
            boot,
            segments: VecDeque::new(),
            generations: VecDeque::new(),
            kept: VecDeque::new(),
            next_ordinal: 0,
            mark: Mark::default(),
            notes: Notes::default(),
            gaps: Vec::new(),
            _lock: lock,
        };
        (store, Recovered::default())
    }

    fn take_up_generations(
        &mut self,
        names: &[String],
        now_us: Micros,
        recovered: &mut Recovered,
    ) -> Result<(), StoreError> {
        let mut numbers: Vec<u64> = names
            .iter()
            .filter_map(|name| Generation::number_of(name))
            .collect();
        numbers.sort_unstable();
        for number in numbers {
            match Generation::attach(&self.directory, number) {
                Ok((generation, missing)) => {
                    self.note_missing(&generation, missing);
                    let summary = &generation.summary;
                    self.next_ordinal = self
                        .next_ordinal
                        .max(summary.ordinals.map_or(0, |(_, last)| last + 1));
                    adopt_mark(&mut self.mark, &summary.mark);
                    self.generations.push_back(generation);
                }
                Err(error) => {
                    tracing::error!(%error, "generation set aside");
                    let name = Generation::directory_name(number);
                    recovered.set_aside.push(self.set_aside(&name, now_us)?);
                    self.gaps
                        .push(gap("corrupt segment", (0, now_us), Totals::default()));
                }
            }
        }
        Ok(())
    }

    fn take_up_segments(
        &mut self,
        names: &[String],
        now_us: Micros,
        recovered: &mut Recovered,
    ) -> Result<(), StoreError> {
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| Segment::number_of(name)).collect();
        numbers.sort_unstable();
        for number in numbers {
            let name = Segment::file_name(number);
            let (segment, opened) = match Segment::open(&self.directory, number) {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, %name, "segment set aside");
                    recovered.set_aside.push(self.set_aside(&name, now_us)?);
                    self.gaps
                        .push(gap("corrupt segment", (0, now_us), Totals::default()));
                    continue;
                }
            };
            if let Some(notes) = opened.notes {
                self.notes = notes;
            }
            if let Some(mark) = &opened.mark {
                adopt_mark(&mut self.mark, mark);
            }
            self.next_ordinal = self
                .next_ordinal
                .max(opened.ordinals.map_or(0, |(_, last)| last + 1));
            if opened.unfinished_frames > 0 {
                // Nothing of it was promised, but it was acquired.
                let lost = Totals {
                    frames: opened.unfinished_frames,
                    readings: 0,
                };
                let last_us = segment
                    .sealed_us
                    .map_or(self.notes.sealed_us, |(_, last_us)| last_us);
                self.gaps
                    .push(gap("unfinished write", (last_us, now_us.max(last_us)), lost));
            }
            if opened.damaged_bytes > 0 {
                // What is sound stays in use; a copy of the whole waits for a person.
                let copy = self.directory.join(format!("corrupt-{now_us}-{name}"));
                if let Err(error) = fs::copy(segment.path(), &copy) {
                    tracing::warn!(%error, "the damaged segment could not be copied");
                }
                let lost = Totals {
                    frames: opened.missing_frames,
                    readings: opened.missing_readings,
                };
                let times = segment.sealed_us.unwrap_or((0, now_us));
                self.gaps.push(gap("corrupt segment", times, lost));
                recovered.set_aside.push(copy);
            }
            self.segments.push_back(segment);
        }
        self.next_ordinal = self.next_ordinal.max(self.mark.next_ordinal);
        recovered.states.clone_from(&self.notes.states);
        recovered.journal_seq = Some(self.notes.journal_seq).filter(|seq| *seq > 0);
        recovered.last_sealed_us = Some(self.notes.sealed_us).filter(|sealed_us| *sealed_us > 0);
        let below = self.mark.merged_below;
        self.segments.iter_mut().for_each(|segment| segment.merged(below));
        Ok(())
    }

    pub(super) fn io_error(&self, source: io::Error) -> StoreError {
        io_at(&self.directory, source)
    }

    fn set_aside(&self, name: &str, now_us: Micros) -> Result<PathBuf, StoreError> {
        let to = self.directory.join(format!("corrupt-{now_us}-{name}"));
        fs::rename(self.directory.join(name), &to).map_err(|source| self.io_error(source))?;
        Ok(to)
    }

    pub(super) fn note_missing(&mut self, generation: &Generation, missing: Missing) {
        if missing.frames > 0 {
            let lost = Totals {
                frames: missing.frames,
                readings: missing.readings,
            };
            let times = generation.summary.sealed_us.unwrap_or((0, self.notes.sealed_us));
            tracing::error!(path = %generation.path().display(), frames = lost.frames, "frames of a generation are gone");
            self.gaps.push(gap("corrupt segment", times, lost));
        }
    }

    /// Takes a generation that fails out of use; what waited in it is given up on record, and it is set aside.
    pub(super) fn quarantine(&mut self, index: usize, error: &GenerationError) {
        let Some(generation) = self.generations.remove(index) else {
            return;
        };
        tracing::error!(%error, "generation set aside");
        let times = generation.summary.sealed_us.unwrap_or((0, self.notes.sealed_us));
        self.gaps
            .push(gap("corrupt segment", times, generation.summary.totals()));
        let name = Generation::directory_name(generation.number);
        drop(generation);
        if let Err(error) = self.set_aside(&name, self.notes.sealed_us) {
            tracing::error!(%error, "it could not be renamed");
        }
    }

    /// Stores records and makes them durable; returns their keys. Records of lane backfill are parts. After an error
    /// nothing counts as stored.
    pub fn append(&mut self, records: &[Record], notes: Notes) -> Result<Vec<Key>, StoreError> {
        let mut bytes = Vec::new();
        let mut slots = Vec::with_capacity(records.len());
        for (record, ordinal) in records.iter().zip(self.next_ordinal..) {
            let is_part = record.meta.id.lane == Lane::Backfill;
            slots.push((is_part, wal::put_frame(&mut bytes, ordinal, record, is_part)));
        }
        // After the frames: a torn group must not say that events are stored which are not.
        wal::put_notes(&mut bytes, &notes);
        self.make_room(bytes.len() as u64)?;
        let keys = slots.iter().map(|(_, slot)| slot.key).collect();
        while let Err(error) = self.log(&bytes, slots.clone()) {
            // The disk is fuller than the quota knows: what the hub has goes first.
            if !error.is_no_space() || !self.give_up_kept()? {
                return Err(error);
            }
        }
        self.next_ordinal += records.len() as u64;
        self.notes = notes;
        Ok(keys)
    }

    /// Writes to the log, beginning a new segment where the last one is full or failed.
    pub(super) fn log(&mut self, bytes: &[u8], slots: Vec<(bool, Slot)>) -> Result<(), StoreError> {
        let full = self.limits.segment_bytes();
        let fits = |segment: &Segment| segment.is_writable() && segment.bytes() < full;
        if !self.segments.back().is_some_and(fits)
            && let Err(error) = self.begin_segment()
        {
            // Without room for another file the last one grows on, where it can.
            if !self.segments.back().is_some_and(Segment::is_writable) {
                return Err(error);
            }
            tracing::debug!(%error, "no new segment");
        }
        let path = self.directory.clone();
        let segment = self
            .segments
            .back_mut()
            .expect("a segment was begun or is writable");
        let at = segment.write(bytes).map_err(|source| io_at(&path, source))?;
        for (is_part, mut slot) in slots {
            slot.at += at;
            segment.index(slot, is_part);
        }
        Ok(())
    }

    /// Closes the segment that is written to and begins the next.
    pub fn begin_segment(&mut self) -> Result<(), StoreError> {
        // On a full disk one attempt after the other leaves a file with nothing in it.
        if let Some(failed) = self.segments.pop_back_if(|segment| segment.is_failed()) {
            failed.delete().map_err(|source| self.io_error(source))?;
        }
        let boots: BTreeSet<Uuid> = self
            .segments
            .iter()
            .flat_map(|segment| segment.parts.values().map(|slot| slot.meta.id.boot))
            .collect();
        let current = self.boot;
        self.mark
            .numbering
            .retain(|boot, _| *boot == current || boots.contains(boot));
        self.mark.next_ordinal = self.next_ordinal;
        let kept = self.kept.back().map_or(0, |kept| kept.number);
        let number = self
            .segments
            .back()
            .map_or(kept, |segment| segment.number.max(kept))
            + 1;
        let segment = Segment::create(&self.directory, number, &self.notes, &self.mark)
            .map_err(|source| self.io_error(source))?;
        self.segments.push_back(segment);
        Ok(())
    }

    /// Notes that the hub has these; returns what is known of those that were waiting.
    pub fn remove(&mut self, keys: &[Key]) -> Vec<Meta> {
        let mut removed: BTreeMap<Key, Meta> = BTreeMap::new();
        for segment in &mut self.segments {
            let held: Vec<Key> = keys
                .iter()
                .filter(|key| segment.waiting.contains_key(key))
                .copied()
                .collect();
            if !held.is_empty() {
                removed.extend(held.clone().into_iter().zip(segment.acknowledge(&held)));
            }
        }
        let rest: Vec<Key> = keys
            .iter()
            .filter(|key| !removed.contains_key(key))
            .copied()
            .collect();
        let mut index = 0;
        while index < self.generations.len() {
            match self.generations[index].acknowledge(&rest) {
                Ok(done) => {
                    removed.extend(done);
                    index += 1;
                }
                Err(error) => self.quarantine(index, &error),
            }
        }
        removed.into_values().collect()
    }

    /// Live frames that wait under an identity of their own.
    pub fn live_waiting(&self) -> u64 {
        let is_live = |key: &&Key| key.lane == Lane::Live;
        let logged = self
            .segments
            .iter()
            .map(|segment| segment.waiting.keys().filter(is_live).count() as u64);
        let packed = self
            .generations
            .iter()
            .map(|generation| generation.summary.waiting[1].frames);
        logged.sum::<u64>() + packed.sum::<u64>()
    }

    /// Seal time of the oldest frame that waits.
    pub fn oldest_us(&self) -> Option<Micros> {
        let packed = self
            .generations
            .iter()
            .find(|generation| generation.summary.totals().frames > 0);
        let packed = packed.and_then(|generation| Some(generation.summary.sealed_us?.0));
        let logged = self
            .segments
            .iter()
            .flat_map(Segment::slots)
            .map(|slot| slot.meta.sealed_us)
            .min();
        packed.into_iter().chain(logged).min()
    }

    /// What waits. Until a generation is opened its part may include frames that the hub has by now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for generation in &self.generations {
            totals.include(generation.summary.totals());
        }
        for slot in self.segments.iter().flat_map(Segment::slots) {
            totals.add(&slot.meta);
        }
        totals
    }

    /// Dictionaries that stored frames need.
    pub fn dictionaries(&self) -> Vec<Uuid> {
        let packed = self
            .generations
            .iter()
            .flat_map(|generation| generation.summary.dictionaries.keys().copied());
        let logged = self
            .segments
            .iter()
            .flat_map(Segment::slots)
            .map(|slot| slot.meta.dictionary);
        packed
            .chain(logged)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Bytes on disk, without the dictionaries.
    pub fn disk_bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(Segment::bytes).sum();
        let generations: u64 = self.generations.iter().map(Generation::disk_bytes).sum();
        segments + generations + self.kept.iter().map(|kept| kept.bytes).sum::<u64>()
    }

    /// Number of the last journal record whose event is in the store, as far as known; else 0.
    pub fn journal_seq(&self) -> u64 {
        self.notes.journal_seq
    }

    /// What was given up since the last call.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }

    /// Makes summaries current and closes what is open.
    pub fn close(mut self) {
        for generation in &mut self.generations {
            if let Err(error) = generation.close() {
                tracing::warn!(%error, "a generation could not be closed");
            }
        }
    }
}

/// The younger of two marks holds.
fn adopt_mark(mark: &mut Mark, other: &Mark) {
    mark.merged_below = mark.merged_below.max(other.merged_below);
    mark.next_ordinal = mark.next_ordinal.max(other.next_ordinal);
    for (boot, next) in &other.numbering {
        let number = mark.numbering.entry(*boot).or_insert(*next);
        *number = (*number).max(*next);
    }
}

/// The record of what was given up.
pub(super) fn gap(reason: &str, (from_us, to_us): (Micros, Micros), lost: Totals) -> Gap {
    Gap {
        from_us,
        to_us,
        frames: lost.frames,
        readings: lost.readings,
        reason: reason.to_owned(),
    }
}

fn io_at(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        source,
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|source| io_at(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_at(&path, source)),
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

#[cfg(test)]
#[path = "store_tests/mod.rs"]
mod tests;
