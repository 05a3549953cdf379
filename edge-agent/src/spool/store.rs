//! What waits for the hub, and where? Generations of sled databases under one directory: append and make durable,
//! hand out oldest first, delete on acknowledgement only, give up the oldest telemetry when the quota is reached.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use protocol::{
    Micros,
    event::{Event, Gap},
    frame::Frame,
    lane::Lane,
};
use uuid::Uuid;

use super::{
    generation::{Generation, GenerationError, Scanned},
    record::{Key, Meta, Record},
};

/// Key prefixes of what is not a frame; lanes use 0 to 2.
const NUMBERS: u8 = 0xF0;
const STATES: u8 = 0xF1;
/// Frames moved in one write when a generation is evicted.
const KEPT_AT_ONCE: usize = 64;

/// How large the store may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes on disk.
    pub quota_bytes: u64,
    /// A generation is closed at this size.
    pub generation_bytes: u64,
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

/// What was found when the store was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Directories that could not be read and were set aside.
    pub set_aside: Vec<PathBuf>,
    /// Frames whose checksum failed.
    pub damaged_frames: u64,
    /// Saved states of the control points.
    pub states: Vec<(String, Vec<u8>)>,
    /// Number of the last journal record whose event is in the store.
    pub journal_seq: Option<u64>,
    /// When the last frame before this start was sealed.
    pub last_sealed_us: Option<Micros>,
}

/// What belongs to a batch beside its frames.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// States of the control points after the batch's events.
    pub states: Vec<(String, Vec<u8>)>,
    /// Number of the last journal record whose event is in the batch or before it.
    pub journal_seq: u64,
    /// When the batch was sealed.
    pub sealed_us: Micros,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames.
    pub frames: u64,
    /// Readings in them.
    pub readings: u64,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    limits: Limits,
    /// Oldest first; the last one is written to.
    generations: VecDeque<Generation>,
    next_ordinal: u64,
    totals: Totals,
    dictionaries: BTreeMap<Uuid, u64>,
    notes: Notes,
    closed_bytes: u64,
    /// Held for as long as the store is open.
    _lock: File,
}

impl Store {
    /// Opens or creates the store. Generations that cannot be read are renamed to `corrupt-<time>`.
    pub fn open(directory: &Path, limits: Limits, now_us: Micros) -> Result<(Self, Recovered), StoreError> {
        let io_error = |source| StoreError::Io {
            path: directory.to_owned(),
            source,
        };
        fs::create_dir_all(directory).map_err(io_error)?;
        let lock = lock(directory)?;
        let mut store = Self {
            directory: directory.to_owned(),
            limits,
            generations: VecDeque::new(),
            next_ordinal: 0,
            totals: Totals::default(),
            dictionaries: BTreeMap::new(),
            notes: Notes::default(),
            closed_bytes: 0,
            _lock: lock,
        };
        let mut recovered = Recovered::default();
        let mut newest = 0;
        for number in numbers(directory).map_err(io_error)? {
            newest = number;
            match open_scanned(directory, number) {
                Ok((generation, scanned)) => store.adopt(generation, &scanned, &mut recovered)?,
                Err(error) => {
                    tracing::error!(%error, "generation set aside");
                    recovered
                        .set_aside
                        .push(set_aside(directory, number, now_us).map_err(io_error)?);
                }
            }
        }
        store.notes.states.clone_from(&recovered.states);
        store.notes.journal_seq = recovered.journal_seq.unwrap_or(0);
        store.notes.sealed_us = recovered.last_sealed_us.unwrap_or(0);
        if store.generations.is_empty() || !recovered.set_aside.is_empty() {
            store.begin(newest + 1)?;
        }
        store.measure_closed();
        Ok((store, recovered))
    }

    fn adopt(
        &mut self,
        generation: Generation,
        scanned: &Scanned,
        recovered: &mut Recovered,
    ) -> Result<(), StoreError> {
        recovered.damaged_frames += scanned.damaged;
        for (key, meta) in &scanned.frames {
            self.count(meta);
            self.next_ordinal = self.next_ordinal.max(key.ordinal + 1);
        }
        // Later generations were written later: what they say replaces what earlier ones said.
        for (code, state) in generation.prefixed(STATES)? {
            let code = String::from_utf8_lossy(&code).into_owned();
            recovered.states.retain(|(known, _)| *known != code);
            recovered.states.push((code, state));
        }
        for (name, value) in generation.prefixed(NUMBERS)? {
            let Ok(value) = value.try_into().map(u64::from_be_bytes) else {
                continue;
            };
            match name.as_slice() {
                b"journal" => recovered.journal_seq = Some(value),
                b"sealed" => recovered.last_sealed_us = Micros::try_from(value).ok(),
                b"ordinal" => self.next_ordinal = self.next_ordinal.max(value),
                _ => {}
            }
        }
        self.generations.push_back(generation);
        Ok(())
    }

    fn count(&mut self, meta: &Meta) {
        self.totals.frames += 1;
        self.totals.readings += u64::from(meta.readings);
        *self.dictionaries.entry(meta.dictionary).or_default() += 1;
    }

    fn discount(&mut self, meta: &Meta) {
        self.totals.frames = self.totals.frames.saturating_sub(1);
        self.totals.readings = self.totals.readings.saturating_sub(u64::from(meta.readings));
        if let Some(frames) = self.dictionaries.get_mut(&meta.dictionary) {
            *frames = frames.saturating_sub(1);
            if *frames == 0 {
                self.dictionaries.remove(&meta.dictionary);
            }
        }
    }

    /// Stores records and makes them durable; returns their keys. After an error nothing counts as stored.
    pub fn append(&mut self, records: &[Record], notes: Notes) -> Result<Vec<Key>, StoreError> {
        let mut batch = sled::Batch::default();
        let mut keys = Vec::with_capacity(records.len());
        for (record, ordinal) in records.iter().zip(self.next_ordinal..) {
            let key = Key {
                lane: record.meta.id.lane,
                ordinal,
            };
            batch.insert(&key.to_bytes(), record.to_bytes());
            keys.push(key);
        }
        let next_ordinal = self.next_ordinal + records.len() as u64;
        put_notes(&mut batch, &notes, next_ordinal);
        let active = self.active()?;
        active.write(batch)?;
        active.frames += records.len() as u64;
        self.next_ordinal = next_ordinal;
        self.notes = notes;
        for record in records {
            self.count(&record.meta);
        }
        if self.active()?.disk_bytes() >= self.limits.generation_bytes {
            self.roll()?;
        }
        Ok(keys)
    }

    fn active(&mut self) -> Result<&mut Generation, StoreError> {
        if self.generations.is_empty() {
            self.begin(1)?;
        }
        Ok(self
            .generations
            .back_mut()
            .expect("there is always a generation to write to"))
    }

    /// Closes the generation being written to and begins the next.
    pub fn roll(&mut self) -> Result<(), StoreError> {
        let number = self
            .generations
            .back()
            .map_or(1, |generation| generation.number + 1);
        self.begin(number)?;
        self.drop_drained();
        self.measure_closed();
        Ok(())
    }

    fn begin(&mut self, number: u64) -> Result<(), StoreError> {
        let generation = Generation::open(&self.directory, number)?;
        let mut batch = sled::Batch::default();
        put_notes(&mut batch, &self.notes, self.next_ordinal);
        generation.write(batch)?;
        self.generations.push_back(generation);
        Ok(())
    }

    /// Removes acknowledged frames; returns the meta of those that were there.
    pub fn remove(&mut self, keys: &[Key]) -> Result<Vec<Meta>, StoreError> {
        let mut removed = Vec::with_capacity(keys.len());
        for key in keys {
            for generation in &mut self.generations {
                if let Some(meta) = generation.remove(*key)? {
                    removed.push(meta);
                    break;
                }
            }
        }
        for meta in &removed {
            self.discount(meta);
        }
        self.drop_drained();
        Ok(removed)
    }

    fn drop_drained(&mut self) {
        let active = self.generations.back().map(|generation| generation.number);
        while let Some(index) = self
            .generations
            .iter()
            .position(|generation| generation.frames == 0 && Some(generation.number) != active)
        {
            if let Some(generation) = self.generations.remove(index)
                && let Err(error) = generation.delete()
            {
                tracing::warn!(%error, "drained generation not deleted");
            }
            self.measure_closed();
        }
    }

    /// Up to `max` frames of a lane after an ordinal, oldest first. Damaged ones are removed and counted.
    pub fn after(
        &mut self,
        lane: Lane,
        after: Option<u64>,
        max: usize,
    ) -> Result<(Vec<(Key, Record)>, u64), StoreError> {
        let (mut out, mut damaged) = (BTreeMap::new(), Vec::new());
        // Events that survived an eviction lie in a younger generation than their neighbours: look in all.
        for generation in &self.generations {
            for (key, record) in generation.after(lane, after, max)? {
                match record {
                    Some(record) => drop(out.insert(key, record)),
                    None => damaged.push(key),
                }
            }
            if lane != Lane::Events && out.len() >= max {
                break;
            }
        }
        let lost = damaged.len() as u64;
        if lost > 0 {
            // A damaged frame has no meta to discount by: count anew.
            for key in damaged {
                for generation in &mut self.generations {
                    generation.remove(key)?;
                }
            }
            self.recount()?;
        }
        Ok((out.into_iter().take(max).collect(), lost))
    }

    fn recount(&mut self) -> Result<(), StoreError> {
        let mut generations = std::mem::take(&mut self.generations);
        self.totals = Totals::default();
        self.dictionaries.clear();
        for generation in &mut generations {
            for (_, meta) in generation.scan()?.frames {
                self.count(&meta);
            }
        }
        self.generations = generations;
        Ok(())
    }

    /// One frame, if it is still there and sound.
    pub fn get(&self, key: Key) -> Result<Option<Record>, StoreError> {
        for generation in self.generations.iter().rev() {
            if let Some(bytes) = generation.get(&key.to_bytes())? {
                return Ok(Record::from_bytes(&bytes));
            }
        }
        Ok(None)
    }

    /// Seal time of the oldest frame that waits.
    pub fn oldest_us(&self) -> Option<Micros> {
        let oldest = |lane| {
            let first = self.generations.iter().find_map(|generation| {
                let found = generation.after(lane, None, 1).ok()?;
                found.into_iter().next()?.1
            });
            first.map(|record| record.meta.sealed_us)
        };
        Lane::ALL.into_iter().filter_map(oldest).min()
    }

    /// What waits.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Dictionaries that waiting frames need.
    pub fn dictionaries(&self) -> Vec<Uuid> {
        self.dictionaries.keys().copied().collect()
    }

    fn measure_closed(&mut self) {
        let closed = self.generations.len().saturating_sub(1);
        self.closed_bytes = self
            .generations
            .iter()
            .take(closed)
            .map(Generation::disk_bytes)
            .sum();
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.closed_bytes + self.generations.back().map_or(0, Generation::disk_bytes)
    }

    /// Moves frames of events to the youngest generation.
    fn keep(
        &mut self,
        oldest: &Generation,
        events: &[(Key, Meta)],
        drop_pictures: bool,
    ) -> Result<(), StoreError> {
        let active = self.active()?;
        for chunk in events.chunks(KEPT_AT_ONCE) {
            let mut batch = sled::Batch::default();
            for (key, _) in chunk {
                let Some(bytes) = oldest.get(&key.to_bytes())? else {
                    continue;
                };
                let lean = drop_pictures.then(|| without_pictures(&bytes)).flatten();
                batch.insert(&key.to_bytes(), lean.map_or(bytes, sled::IVec::from));
                active.frames += 1;
            }
            active.write(batch)?;
        }
        Ok(())
    }

    /// Gives up the oldest telemetry while the quota is exceeded; events move to the youngest generation. Where only
    /// events are left their pictures go, then the oldest of them. Returns what was given up.
    pub fn evict(&mut self) -> Result<Option<Gap>, StoreError> {
        let mut gap: Option<Gap> = None;
        while self.disk_bytes() > self.limits.quota_bytes {
            if self.generations.len() < 2 {
                self.roll()?;
                if self.generations.len() < 2 {
                    break;
                }
            }
            let Some(mut oldest) = self.generations.pop_front() else {
                break;
            };
            let (events, telemetry): (Vec<_>, Vec<_>) = oldest
                .scan()?
                .frames
                .into_iter()
                .partition(|(key, _)| key.lane == Lane::Events);
            let only_events = telemetry.is_empty();
            let drop_pictures = only_events && any_pictures(&oldest, &events)?;
            // Nothing but plain records is left: the oldest go, the journal still has those of control points.
            let doomed = match self.generations.len() {
                _ if drop_pictures || !only_events => 0,
                1 => events.len().div_ceil(2),
                _ => events.len(),
            };
            let (given_up, kept) = events.split_at(doomed);
            for (_, meta) in telemetry.iter().chain(given_up) {
                self.discount(meta);
                merge(&mut gap, meta);
            }
            self.keep(&oldest, kept, drop_pictures)?;
            if let Err(error) = oldest.delete() {
                tracing::warn!(%error, "evicted generation not deleted");
            }
            self.measure_closed();
        }
        Ok(gap)
    }
}

fn any_pictures(generation: &Generation, events: &[(Key, Meta)]) -> Result<bool, StoreError> {
    for (key, _) in events {
        let bytes = generation.get(&key.to_bytes())?;
        if bytes.is_some_and(|bytes| without_pictures(&bytes).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A frame without its pictures; none when it has none.
fn without_pictures(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut record = Record::from_bytes(bytes)?;
    let mut frame = Frame::decode(&record.envelope).ok()?;
    let mut has_any = false;
    for event in &mut frame.events {
        if let Event::Inspection(inspection) = event {
            has_any |= inspection.thumbnail_jpeg.take().is_some();
        }
    }
    if !has_any {
        return None;
    }
    record.envelope = frame.encode().ok()?;
    Some(record.to_bytes())
}

fn merge(gap: &mut Option<Gap>, meta: &Meta) {
    let gap = gap.get_or_insert_with(|| Gap {
        from_us: meta.sealed_us,
        to_us: meta.sealed_us,
        frames: 0,
        readings: 0,
        reason: "quota".to_owned(),
    });
    gap.from_us = gap.from_us.min(meta.sealed_us);
    gap.to_us = gap.to_us.max(meta.sealed_us);
    gap.frames += 1;
    gap.readings += u64::from(meta.readings);
}

fn put_notes(batch: &mut sled::Batch, notes: &Notes, next_ordinal: u64) {
    let mut number = |name: &[u8], value: u64| {
        batch.insert([&[NUMBERS], name].concat(), &value.to_be_bytes());
    };
    // 0 stands for "not known yet": a new store must not claim that nothing of an old journal was stored.
    if notes.journal_seq > 0 {
        number(b"journal", notes.journal_seq);
    }
    if notes.sealed_us > 0 {
        number(b"sealed", notes.sealed_us.unsigned_abs());
    }
    number(b"ordinal", next_ordinal);
    for (code, state) in &notes.states {
        batch.insert([&[STATES], code.as_bytes()].concat(), state.as_slice());
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let io_error = |source| StoreError::Io {
        path: path.clone(),
        source,
    };
    let file = File::create(&path).map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error(source)),
    }
}

/// Numbers of the generations in a directory, oldest first.
fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(Generation::number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn open_scanned(directory: &Path, number: u64) -> Result<(Generation, Scanned), GenerationError> {
    let mut generation = Generation::open(directory, number)?;
    let scanned = generation.scan()?;
    Ok((generation, scanned))
}

fn set_aside(directory: &Path, number: u64, now_us: Micros) -> io::Result<PathBuf> {
    let from = directory.join(Generation::directory_name(number));
    let to = directory.join(format!("corrupt-{now_us}-{number}"));
    fs::rename(from, &to)?;
    Ok(to)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
