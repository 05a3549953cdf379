//! What is one segment of the write-ahead log? A file that only grows, made durable with every group, with an index
//! of what in it still waits. All that is written goes through here first.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use protocol::{Micros, lane::Lane};

use super::{
    record::{Key, Meta, Record},
    wal::{self, Item, Mark, Notes, Slot},
};

/// Fewer bytes than any frame takes.
const FRAME_BYTES_MIN: u64 = 64;

/// One segment.
#[derive(Debug)]
pub struct Segment {
    /// Its number; segments are filled in order.
    pub number: u64,
    /// Frames with an identity that wait, by key.
    pub waiting: BTreeMap<Key, Slot>,
    /// Readings without an identity, by ordinal.
    pub parts: BTreeMap<u64, Slot>,
    /// Frames in it that the hub has.
    pub done: u64,
    /// Seal times of what is in it, earliest and latest.
    pub sealed_us: Option<(Micros, Micros)>,
    /// Nothing in it but events without pictures, as far as was looked.
    pub is_plain: bool,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// No more frames may follow: it is of an earlier start, or a write to it failed.
    is_spoilt: bool,
}

/// What opening a segment found.
#[derive(Debug, Default)]
pub struct Opened {
    /// The newest notes.
    pub notes: Option<Notes>,
    /// The newest mark.
    pub mark: Option<Mark>,
    /// Ordinals of all sound frames and parts, lowest and highest.
    pub ordinals: Option<(u64, u64)>,
    /// Frames missing between sound ones: ordinals count up by one.
    pub missing_frames: u64,
    /// Their readings, guessed from the neighbours.
    pub missing_readings: u64,
    /// Bytes that do not check and are no torn end.
    pub damaged_bytes: u64,
    /// Frames in a torn end, as far as can be told.
    pub unfinished_frames: u64,
}

impl Segment {
    /// Name of a segment's file.
    pub fn file_name(number: u64) -> String {
        format!("wal-{number:010}.log")
    }

    /// The number in a file's name.
    pub fn number_of(name: &str) -> Option<u64> {
        name.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok()
    }

    /// Creates an empty segment that starts with notes and a mark.
    pub fn create(directory: &Path, number: u64, notes: &Notes, mark: &Mark) -> io::Result<Self> {
        let path = directory.join(Self::file_name(number));
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)?;
        let mut segment = Self::over(number, path, file);
        let mut bytes = Vec::new();
        wal::put_notes(&mut bytes, notes);
        wal::put_mark(&mut bytes, mark);
        if let Err(error) = segment.write(&bytes).and_then(|_| sync_directory(directory)) {
            drop(fs::remove_file(&segment.path));
            return Err(error);
        }
        Ok(segment)
    }

    /// A segment of which nothing is known.
    fn over(number: u64, path: PathBuf, file: File) -> Self {
        Self {
            number,
            waiting: BTreeMap::new(),
            parts: BTreeMap::new(),
            done: 0,
            sealed_us: None,
            is_plain: false,
            path,
            file,
            bytes: 0,
            is_spoilt: false,
        }
    }

    /// Opens a segment that an earlier start left. Nothing in it is changed; acknowledgements that
    /// are noted in it later overwrite a torn end.
    pub fn open(directory: &Path, number: u64) -> io::Result<(Self, Opened)> {
        let path = directory.join(Self::file_name(number));
        let bytes = fs::read(&path)?;
        let scan = wal::scan(&bytes);
        let writable = OpenOptions::new().read(true).write(true).open(&path);
        let file = writable.or_else(|_| File::open(&path))?;
        let mut segment = Self::over(number, path, file);
        segment.bytes = scan.sound_bytes;
        // Each start writes to a segment of its own.
        segment.is_spoilt = true;
        let mut opened = Opened {
            damaged_bytes: scan.damaged_bytes,
            unfinished_frames: scan.unfinished_frames,
            ..Opened::default()
        };
        let mut seen = Vec::new();
        for item in scan.items {
            segment.take(item, &mut opened, &mut seen);
        }
        count_missing(&mut opened, &mut seen);
        Ok((segment, opened))
    }

    fn take(&mut self, item: Item, opened: &mut Opened, seen: &mut Vec<(u64, u32)>) {
        match item {
            Item::Frame(slot) => {
                seen.push((slot.key.ordinal, slot.meta.readings));
                self.index(slot, false);
            }
            Item::Part(slot) => {
                seen.push((slot.key.ordinal, slot.meta.readings));
                self.index(slot, true);
            }
            Item::Done(ordinals) => {
                for ordinal in ordinals {
                    self.forget(ordinal);
                }
            }
            Item::Notes(notes) => opened.notes = Some(notes),
            Item::Mark(mark) => {
                self.merged(mark.merged_below);
                opened.mark = Some(mark);
            }
        }
    }

    /// Takes note of a frame or part that was written.
    pub fn index(&mut self, slot: Slot, is_part: bool) {
        let at_us = slot.meta.sealed_us;
        let (from_us, to_us) = self.sealed_us.unwrap_or((at_us, at_us));
        self.sealed_us = Some((from_us.min(at_us), to_us.max(at_us)));
        self.is_plain = false;
        if is_part {
            self.parts.insert(slot.key.ordinal, slot);
        } else {
            self.waiting.insert(slot.key, slot);
        }
    }

    fn forget(&mut self, ordinal: u64) -> Option<Slot> {
        let found = Lane::ALL
            .into_iter()
            .find_map(|lane| self.waiting.remove(&Key { lane, ordinal }));
        self.done += u64::from(found.is_some());
        found
    }

    /// Parts below an ordinal are in the backlog.
    pub fn merged(&mut self, below: u64) {
        self.parts = self.parts.split_off(&below);
    }

    /// Whether the file takes more.
    pub fn is_writable(&self) -> bool {
        !self.is_spoilt
    }

    /// Whether a write failed and nothing is in it.
    pub fn is_failed(&self) -> bool {
        self.is_spoilt
            && self.waiting.is_empty()
            && self.parts.is_empty()
            && self.done == 0
            && self.sealed_us.is_none()
    }

    /// Appends and makes durable; returns where. After an error nothing of it will be read.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        if self.is_spoilt {
            return Err(io::Error::other("an earlier write to this segment failed"));
        }
        let at = self.bytes;
        let written = self
            .file
            .write_all_at(bytes, at)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // After a failed sync nothing is known about what lies there: the next try is on a new file.
            self.is_spoilt = true;
            if let Err(error) = self.file.set_len(at) {
                tracing::debug!(%error, "a half-written group could not be cut off");
            }
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        Ok(at)
    }

    /// Notes that the hub has these; made durable by the next group. A word that is lost makes them be sent again.
    pub fn acknowledge(&mut self, keys: &[Key]) -> Vec<Meta> {
        let metas: Vec<(u64, Meta)> = keys
            .iter()
            .filter_map(|key| Some((key.ordinal, self.waiting.remove(key)?.meta)))
            .collect();
        self.done += metas.len() as u64;
        if !metas.is_empty() {
            let ordinals: Vec<u64> = metas.iter().map(|(ordinal, _)| *ordinal).collect();
            let mut bytes = Vec::new();
            wal::put_done(&mut bytes, &ordinals);
            match self.file.write_all_at(&bytes, self.bytes) {
                Ok(()) => self.bytes += bytes.len() as u64,
                Err(error) => {
                    tracing::debug!(%error, "acknowledgements not noted: frames may be sent again");
                    self.is_spoilt = true;
                }
            }
        }
        metas.into_iter().map(|(_, meta)| meta).collect()
    }

    /// The record at a slot; none when it is damaged.
    pub fn read(&self, slot: &Slot) -> Option<Record> {
        let mut bytes = vec![0; slot.length as usize];
        self.file.read_exact_at(&mut bytes, slot.at).ok()?;
        Record::from_bytes(&bytes)
    }

    /// Everything that waits, with or without identity.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.waiting.values().chain(self.parts.values())
    }

    /// Frames that the hub has and that were sealed in this time.
    pub fn acknowledged_between(&self, from_us: Micros, to_us: Micros) -> io::Result<Vec<Slot>> {
        let slots = frames_between(&fs::read(&self.path)?, from_us, to_us);
        let done = slots
            .into_iter()
            .filter(|slot| !self.waiting.contains_key(&slot.key));
        Ok(done.collect())
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Deletes the file.
    pub fn delete(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// Frames with an identity in a segment's bytes that were sealed in a time.
pub fn frames_between(bytes: &[u8], from_us: Micros, to_us: Micros) -> Vec<Slot> {
    let frames = wal::scan(bytes).items.into_iter().filter_map(|item| match item {
        Item::Frame(slot) if (from_us..=to_us).contains(&slot.meta.sealed_us) => Some(slot),
        _ => None,
    });
    frames.collect()
}

/// Frames moved here from an evicted place keep their old ordinal: only holes in a rising run count.
fn count_missing(opened: &mut Opened, seen: &mut [(u64, u32)]) {
    opened.ordinals = seen
        .iter()
        .map(|(ordinal, _)| *ordinal)
        .min()
        .zip(seen.iter().map(|(ordinal, _)| *ordinal).max());
    if opened.damaged_bytes == 0 {
        return;
    }
    seen.sort_unstable();
    for pair in seen.windows(2) {
        let hole = (pair[1].0 - pair[0].0).saturating_sub(1);
        opened.missing_frames += hole;
        opened.missing_readings += hole * u64::from(pair[0].1.max(pair[1].1));
    }
    // Damage at the very start or in a record that is no frame leaves no hole; something was lost all the same. Nor
    // can more have been lost than fits into the bytes.
    let most = opened.damaged_bytes.div_ceil(FRAME_BYTES_MIN);
    if opened.missing_frames > most {
        opened.missing_readings = opened.missing_readings / opened.missing_frames * most;
        opened.missing_frames = most;
    }
    opened.missing_frames = opened.missing_frames.max(1);
}

/// Makes a directory's entries durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
