//! What is the legal record that does not depend on the database? Append-only files of critical-control-point
//! events: each record is made durable before anything is sent, and carries the hash of the one before it. The chain
//! runs across files; a file is closed by size and by month, and removed, on record, when it is old enough.

pub mod audit;
pub mod chain;
pub mod checkpoint;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use protocol::{Micros, event::Event};

pub use self::chain::{Entry, Tip, Verified};
use self::checkpoint::{Key, Kind, Statement};
use super::segment::sync_directory;

const DAY_US: Micros = 86_400_000_000;
/// A checkpoint is signed this often, when there is anything new.
const CHECKPOINT_EVERY_US: Micros = 3_600_000_000;

/// When files are closed and removed.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// A file is closed at this size.
    pub file_bytes: u64,
    /// A file is removed when its last record is older.
    pub keep_us: Micros,
}

impl Default for Rotation {
    /// 64 MiB, two years: 21 CFR 117.315.
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            keep_us: 2 * 366 * DAY_US,
        }
    }
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    rotation: Rotation,
    key: Key,
    /// None until the first record of a file is written.
    file: Option<(File, PathBuf)>,
    tip: Tip,
    month: i64,
    /// Where the last checkpoint was, and when.
    signed: (u64, Micros),
}

/// What was found when a journal was opened.
#[derive(Debug, Default)]
pub struct Found {
    /// Sound records of the last file.
    pub entries: Vec<Entry>,
    /// A copy of the damaged file, when there was one.
    pub set_aside: Option<PathBuf>,
}

/// The journal's files in order.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("ccp-") && name.ends_with(".journal") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Months since 1970, by days of a 365.2425-day year: only that it changes once a month matters.
fn month(at_us: Micros) -> i64 {
    const MONTH_US: Micros = 2_629_746_000_000;
    at_us.div_euclid(MONTH_US)
}

impl Journal {
    /// Opens or creates the journal. A torn last record (a power cut while writing) is cut off; where a fault stands
    /// before the end a copy of the file is set aside for an auditor and the chain goes on from its last sound record.
    pub fn open(directory: &Path, rotation: Rotation, now_us: Micros) -> io::Result<(Self, Found)> {
        fs::create_dir_all(directory)?;
        let key = Key::open(directory)?;
        let mut journal = Self {
            directory: directory.to_owned(),
            rotation,
            key,
            file: None,
            tip: Tip::default(),
            month: month(now_us),
            signed: (0, now_us),
        };
        let mut found = Found::default();
        let mut paths = files(directory)?;
        while let Some(path) = paths.pop() {
            let bytes = fs::read(&path)?;
            if let Some(start) = chain::start_of(&bytes) {
                journal.resume(path, &bytes, start, now_us, &mut found)?;
                break;
            }
            // Begun and never filled: the power went in between.
            fs::remove_file(&path)?;
        }
        journal.signed = (journal.tip.seq, now_us);
        sync_directory(directory)?;
        Ok((journal, found))
    }

    fn resume(
        &mut self,
        path: PathBuf,
        bytes: &[u8],
        start: Tip,
        now_us: Micros,
        found: &mut Found,
    ) -> io::Result<()> {
        let verified = chain::verify(bytes, start);
        let rest = &bytes[verified.sound_bytes..];
        if !rest.is_empty() && !verified.is_torn {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let aside = self.directory.join(format!("corrupt-{now_us}-{name}"));
            fs::write(&aside, bytes)?;
            found.set_aside = Some(aside);
        } else if !rest.is_empty() {
            // What is cut off is kept: only a person can tell a power cut from an edit.
            fs::write(self.directory.join(format!("torn-{now_us}.bin")), rest)?;
        }
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(verified.sound_bytes as u64)?;
        file.seek(SeekFrom::End(0))?;
        file.sync_all()?;
        self.tip = verified.tip;
        self.month = verified
            .entries
            .last()
            .map_or(self.month, |entry| month(entry.written_us));
        found.entries = verified.entries;
        self.file = Some((file, path));
        Ok(())
    }

    /// Number of the last record.
    pub fn seq(&self) -> u64 {
        self.tip.seq
    }

    /// Where the chain ends.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// Appends events and makes them durable. After an error the chain ends where it ended before.
    pub fn append<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a Event>,
        now_us: Micros,
    ) -> io::Result<()> {
        let mut tip = self.tip;
        let mut records = Vec::new();
        for event in events {
            let (record, after) = chain::encode(&tip, now_us, event);
            records.extend_from_slice(&record);
            tip = after;
        }
        if records.is_empty() {
            return Ok(());
        }
        self.rotate(now_us)?;
        if self.file.is_none() {
            let path = self
                .directory
                .join(format!("ccp-{:012}.journal", self.tip.seq + 1));
            let file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .open(&path)?;
            sync_directory(&self.directory)?;
            self.file = Some((file, path));
            self.month = month(now_us);
        }
        let (file, _) = self.file.as_mut().expect("it was opened just now");
        let end = file.stream_position()?;
        let written = file.write_all(&records).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Half a record must not stand before the next one.
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            return Err(error);
        }
        self.tip = tip;
        Ok(())
    }

    /// Closes the file when it is full or of another month.
    fn rotate(&mut self, now_us: Micros) -> io::Result<()> {
        let Some((file, _)) = &mut self.file else {
            return Ok(());
        };
        let length = file.stream_position()?;
        if length > 0 && (length >= self.rotation.file_bytes || month(now_us) > self.month) {
            self.file = None;
            self.checkpoint(now_us)?;
        }
        Ok(())
    }

    /// Signs where the chain is, if that is new.
    pub fn checkpoint(&mut self, now_us: Micros) -> io::Result<Option<Statement>> {
        if self.signed.0 == self.tip.seq {
            return Ok(None);
        }
        let statement = self.key.sign(Kind::Checkpoint, &self.tip, now_us);
        checkpoint::add(&self.directory, &statement)?;
        self.signed = (self.tip.seq, now_us);
        Ok(Some(statement))
    }

    /// What is done once in a while: a checkpoint when one is due, and what is old enough removed, on record.
    pub fn tend(&mut self, now_us: Micros) -> io::Result<()> {
        if now_us - self.signed.1 >= CHECKPOINT_EVERY_US || now_us < self.signed.1 {
            self.checkpoint(now_us)?;
            self.signed.1 = now_us;
            self.remove_old(now_us)?;
        }
        Ok(())
    }

    /// Removes whole files whose last record is old enough; a signed statement says up to where.
    pub fn remove_old(&mut self, now_us: Micros) -> io::Result<()> {
        let current = self.file.as_ref().map(|(_, path)| path.clone());
        for path in files(&self.directory)? {
            let bytes = fs::read(&path)?;
            let verified = chain::start_of(&bytes).map(|start| chain::verify(&bytes, start));
            let Some(verified) = verified.filter(|verified| verified.fault.is_none()) else {
                return Ok(());
            };
            let is_old = verified
                .entries
                .last()
                .is_some_and(|last| now_us - last.written_us > self.rotation.keep_us);
            if !is_old || Some(&path) == current.as_ref() {
                return Ok(());
            }
            let statement = self.key.sign(Kind::Removed, &verified.tip, now_us);
            checkpoint::add(&self.directory, &statement)?;
            fs::remove_file(&path)?;
            sync_directory(&self.directory)?;
            tracing::info!(path = %path.display(), up_to = verified.tip.seq, "records removed for their age");
        }
        Ok(())
    }

    /// Where the files lie.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
#[path = "../journal_tests.rs"]
mod tests;
