//! What is one generation of the backlog? A sled database that is filled, drained and then deleted whole: sled never
//! gives space back, so its directory does. It is opened only when something in it is wanted, because opening reads
//! all of it. All that is known of sled 0.34's traps is in this file.
//!
//! ```text
//! key of a frame           lane, ordinal (`record.rs`) → the record
//! 0xE0 · key of a frame    whether it waits (1) or the hub has it (0), and its Meta
//! 0xF0                     the Mark as of the last write
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use protocol::{Micros, lane::Lane};

use super::{
    record::{Key, Meta, Record},
    segment::sync_directory,
    summary::Summary,
    wal::Mark,
};

const CACHE_BYTES: u64 = 4 << 20;
/// Keys scanned at a time: a whole-tree iterator holds every page it passed.
const SCAN_WINDOW: usize = 256;
/// What an empty database takes.
pub const EMPTY_BYTES: u64 = 4 << 20;
const INDEX: u8 = 0xE0;
const MARK: [u8; 1] = [0xF0];

/// A generation that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// sled refused.
    #[error("{}: {source}", path.display())]
    Sled {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: sled::Error,
    },
    /// sled panicked, as it does on some damage.
    #[error("{}: damaged: {said}", path.display())]
    Panicked {
        /// The directory.
        path: PathBuf,
        /// What the panic said.
        said: String,
    },
}

/// One sled database.
#[derive(Debug)]
pub struct Generation {
    /// Its number; generations are filled in order.
    pub number: u64,
    /// What is in it.
    pub summary: Summary,
    /// Nothing in it but events without pictures, as far as was looked.
    pub is_plain: bool,
    path: PathBuf,
    opened: Option<Opened>,
    /// Bytes on disk when it was last looked at.
    bytes: u64,
    is_changed: bool,
}

#[derive(Debug)]
struct Opened {
    db: sled::Db,
    /// The file that sled writes to: its own `flush` is no fsync.
    sync: File,
    waiting: BTreeMap<Key, Meta>,
}

/// What opening a database showed that its summary did not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Frames that were stored and are not there.
    pub frames: u64,
    /// Their readings, guessed from the others.
    pub readings: u64,
}

impl Generation {
    /// Name of a generation's directory.
    pub fn directory_name(number: u64) -> String {
        format!("pack-{number:08}")
    }

    /// The number in a directory's name.
    pub fn number_of(name: &str) -> Option<u64> {
        name.strip_prefix("pack-")?.parse().ok()
    }

    /// Creates a generation and makes its existence durable.
    pub fn create(parent: &Path, number: u64, mark: &Mark) -> Result<Self, GenerationError> {
        let mut generation = Self {
            number,
            summary: Summary {
                mark: mark.clone(),
                ..Summary::default()
            },
            path: parent.join(Self::directory_name(number)),
            opened: None,
            is_plain: false,
            bytes: 0,
            is_changed: true,
        };
        generation.open()?;
        generation.put(&[], mark)?;
        sync_directory(parent).map_err(|source| generation.io_error(source))?;
        generation.save_summary()?;
        Ok(generation)
    }

    /// Takes up a generation that an earlier start left, by its summary; opens it only where there is none.
    pub fn attach(parent: &Path, number: u64) -> Result<(Self, Missing), GenerationError> {
        let path = parent.join(Self::directory_name(number));
        let summary = Summary::read(&path);
        let mut generation = Self {
            number,
            bytes: directory_bytes(&path),
            path,
            opened: None,
            is_plain: false,
            is_changed: summary.is_none(),
            summary: summary.unwrap_or_default(),
        };
        let missing = if generation.is_changed {
            generation.open()?
        } else {
            Missing::default()
        };
        Ok((generation, missing))
    }

    fn io_error(&self, source: io::Error) -> GenerationError {
        GenerationError::Io {
            path: self.path.clone(),
            source,
        }
    }

    /// Opens the database if it is not open, and corrects the summary; what is missing is said once.
    pub fn open(&mut self) -> Result<Missing, GenerationError> {
        if self.opened.is_some() {
            return Ok(Missing::default());
        }
        let db = guarded(&self.path, || {
            sled::Config::new()
                .path(&self.path)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .open()
        })?;
        let sync = File::open(self.path.join("db")).map_err(|source| self.io_error(source))?;
        let (mut found, waiting) = guarded(&self.path, || read_index(&db))?;
        let missing = Missing::between(&self.summary, &found);
        // The summary may be the younger of the two where damage took the end of the database.
        if self.summary.mark.merged_below > found.mark.merged_below {
            found.mark = self.summary.mark.clone();
        }
        self.is_changed |= found != self.summary;
        self.summary = found;
        self.opened = Some(Opened { db, sync, waiting });
        Ok(missing)
    }

    fn opened(&mut self) -> Result<&mut Opened, GenerationError> {
        self.open()?;
        Ok(self.opened.as_mut().expect("it was opened just now"))
    }

    /// Whether the database is open.
    pub fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Closes the database; what it holds is known from the summary.
    pub fn close(&mut self) -> Result<(), GenerationError> {
        self.save_summary()?;
        if let Some(opened) = self.opened.take() {
            self.bytes = directory_bytes(&self.path);
            guarded(&self.path, || opened.db.flush().map(drop))?;
            drop(opened);
        }
        Ok(())
    }

    /// Writes the summary if it changed.
    pub fn save_summary(&mut self) -> Result<(), GenerationError> {
        if self.is_changed {
            self.summary
                .write(&self.path)
                .map_err(|source| self.io_error(source))?;
            self.is_changed = false;
        }
        Ok(())
    }

    /// Stores frames together with a mark, durably; all of it or nothing. A frame that is there already waits again.
    pub fn put(&mut self, records: &[(Key, Record)], mark: &Mark) -> Result<(), GenerationError> {
        let mut batch = sled::Batch::default();
        for (key, record) in records {
            batch.insert(&key.to_bytes(), record.to_bytes());
            batch.insert(index_key(*key), index_value(true, &record.meta));
        }
        batch.insert(
            &MARK,
            postcard::to_stdvec(mark).expect("plain data serialises to memory"),
        );
        let path = self.path.clone();
        let opened = self.opened()?;
        let known: Vec<bool> = guarded(&path, || {
            let known = records
                .iter()
                .map(|(key, _)| opened.db.contains_key(index_key(*key)));
            let known = known.collect::<sled::Result<_>>()?;
            opened.db.apply_batch(batch)?;
            opened.db.flush()?;
            Ok(known)
        })?;
        opened
            .sync
            .sync_data()
            .map_err(|source| GenerationError::Io { path, source })?;
        for ((key, record), is_known) in records.iter().zip(known) {
            let waited = self.opened()?.waiting.insert(*key, record.meta.clone()).is_some();
            if !is_known {
                self.summary.add(*key, &record.meta);
            } else if !waited {
                self.summary.waiting[usize::from(key.lane.number())].add(&record.meta);
            }
        }
        self.summary.mark = mark.clone();
        self.is_changed = true;
        self.is_plain &= records.is_empty();
        // The log may forget these frames after this: whoever starts next must know that they are here.
        self.save_summary()
    }

    /// Notes that the hub has these; made durable by the next write. Returns what was waiting.
    pub fn acknowledge(&mut self, keys: &[Key]) -> Result<Vec<(Key, Meta)>, GenerationError> {
        let mut done = Vec::new();
        for key in keys
            .iter()
            .filter(|key| self.summary.may_hold(key.ordinal))
            .copied()
            .collect::<Vec<_>>()
        {
            let path = self.path.clone();
            let opened = self.opened()?;
            let Some(meta) = opened.waiting.get(&key).cloned() else {
                continue;
            };
            guarded(&path, || {
                opened.db.insert(index_key(key), index_value(false, &meta))
            })?;
            opened.waiting.remove(&key);
            self.summary.waiting[usize::from(key.lane.number())].subtract(&meta);
            self.is_changed = true;
            done.push((key, meta));
        }
        Ok(done)
    }

    /// Lets frames that the hub has and that were sealed in a time wait again, at most `max`; returns their metas.
    pub fn replay(
        &mut self,
        (from_us, to_us): (Micros, Micros),
        max: usize,
    ) -> Result<Vec<Meta>, GenerationError> {
        let touches = |(from, to): (Micros, Micros)| from <= to_us && to >= from_us;
        if !self.summary.sealed_us.is_some_and(touches) {
            return Ok(Vec::new());
        }
        let path = self.path.clone();
        let opened = self.opened()?;
        let mut found = Vec::new();
        guarded(&path, || {
            each_index(&opened.db, |key, waits, meta| {
                if !waits && found.len() < max && (from_us..=to_us).contains(&meta.sealed_us) {
                    found.push((key, meta));
                }
            })
        })?;
        let mut batch = sled::Batch::default();
        for (key, meta) in &found {
            batch.insert(index_key(*key), index_value(true, meta));
        }
        guarded(&path, || {
            opened.db.apply_batch(batch)?;
            opened.db.flush().map(drop)
        })?;
        opened.waiting.extend(found.iter().cloned());
        for (key, meta) in &found {
            self.summary.waiting[usize::from(key.lane.number())].add(meta);
        }
        self.is_changed |= !found.is_empty();
        self.save_summary()?;
        Ok(found.into_iter().map(|(_, meta)| meta).collect())
    }

    /// Keys of up to `max` waiting frames of a lane after an ordinal, oldest first.
    pub fn after(&mut self, lane: Lane, after: Option<u64>, max: usize) -> Result<Vec<Key>, GenerationError> {
        if self.summary.waiting[usize::from(lane.number())].frames == 0 {
            return Ok(Vec::new());
        }
        let Some(from) = after.map_or(Some(0), |after| after.checked_add(1)) else {
            return Ok(Vec::new());
        };
        let range = Key { lane, ordinal: from }..=Key {
            lane,
            ordinal: u64::MAX,
        };
        let keys = self.opened()?.waiting.range(range).map(|(key, _)| *key);
        Ok(keys.take(max).collect())
    }

    /// Everything that waits, by key.
    pub fn waiting(&mut self) -> Result<Vec<(Key, Meta)>, GenerationError> {
        let waiting = self.opened()?.waiting.iter();
        Ok(waiting.map(|(key, meta)| (*key, meta.clone())).collect())
    }

    /// Frames in it that the hub has.
    pub fn acknowledged(&mut self) -> Result<Vec<(Key, Record)>, GenerationError> {
        let path = self.path.clone();
        let opened = self.opened()?;
        guarded(&path, || {
            let (mut keys, mut found) = (Vec::new(), Vec::new());
            each_index(&opened.db, |key, waits, _| keys.extend((!waits).then_some(key)))?;
            for key in keys {
                let bytes = opened.db.get(key.to_bytes())?;
                found.extend(bytes.and_then(|bytes| Some((key, Record::from_bytes(&bytes)?))));
            }
            Ok(found)
        })
    }

    /// A waiting frame; `Some(None)` when it is damaged, none when it does not wait here.
    pub fn get(&mut self, key: Key) -> Result<Option<Option<Record>>, GenerationError> {
        if !self.summary.may_hold(key.ordinal) {
            return Ok(None);
        }
        let path = self.path.clone();
        let opened = self.opened()?;
        if !opened.waiting.contains_key(&key) {
            return Ok(None);
        }
        let bytes = guarded(&path, || opened.db.get(key.to_bytes()))?;
        Ok(Some(bytes.and_then(|bytes| Record::from_bytes(&bytes))))
    }

    /// Hands acknowledgements to the operating system.
    pub fn flush(&mut self) -> Result<(), GenerationError> {
        if let Some(opened) = &self.opened
            && self.is_changed
        {
            guarded(&self.path, || opened.db.flush().map(drop))?;
        }
        self.save_summary()
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.opened
            .as_ref()
            .and_then(|opened| opened.db.size_on_disk().ok())
            .unwrap_or(self.bytes)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Deletes the generation with everything in it.
    pub fn delete(self) -> io::Result<()> {
        let Self { path, opened, .. } = self;
        drop(opened);
        fs::remove_dir_all(path)
    }
}

impl Missing {
    fn between(summary: &Summary, found: &Summary) -> Self {
        let frames = summary.stored.saturating_sub(found.stored);
        let (all, waiting) = (summary.totals(), found.totals());
        // Of the missing ones no more can have waited than the summary says.
        let readings = all.readings.saturating_sub(waiting.readings);
        Self {
            frames,
            readings: if frames == 0 { 0 } else { readings },
        }
    }
}

fn index_key(key: Key) -> Vec<u8> {
    [&[INDEX], key.to_bytes().as_slice()].concat()
}

fn index_value(waits: bool, meta: &Meta) -> Vec<u8> {
    postcard::to_stdvec(&(waits, meta)).expect("plain data serialises to memory")
}

fn each_index(db: &sled::Db, mut each: impl FnMut(Key, bool, Meta)) -> sled::Result<()> {
    let mut from = vec![INDEX];
    loop {
        let end = [INDEX + 1];
        let window: Vec<_> = db
            .range::<&[u8], _>(from.as_slice()..end.as_slice())
            .take(SCAN_WINDOW)
            .collect::<Result<_, _>>()?;
        let Some((last, _)) = window.last() else {
            return Ok(());
        };
        from = [last.as_ref(), &[0]].concat();
        for (key, value) in &window {
            if let (Some(key), Ok((waits, meta))) = (
                Key::from_bytes(&key[1..]),
                postcard::from_bytes::<(bool, Meta)>(value),
            ) {
                each(key, waits, meta);
            }
        }
    }
}

fn read_index(db: &sled::Db) -> sled::Result<(Summary, BTreeMap<Key, Meta>)> {
    let (mut summary, mut waiting) = (Summary::default(), BTreeMap::new());
    each_index(db, |key, waits, meta| {
        summary.add(key, &meta);
        if waits {
            waiting.insert(key, meta);
        } else {
            summary.waiting[usize::from(key.lane.number())].subtract(&meta);
        }
    })?;
    let mark = db.get(MARK)?;
    summary.mark = mark
        .and_then(|mark| postcard::from_bytes(&mark).ok())
        .unwrap_or_default();
    Ok((summary, waiting))
}

/// Bytes of all files under a directory.
pub fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        });
    sizes.sum()
}

/// Runs a sled operation; its panics become errors, because damage on disk must not stop the line.
fn guarded<T>(path: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T, GenerationError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|source| GenerationError::Sled {
            path: path.to_owned(),
            source,
        }),
        Err(panic) => Err(GenerationError::Panicked {
            path: path.to_owned(),
            said: panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message")
                .to_owned(),
        }),
    }
}
