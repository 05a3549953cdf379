//! Where is what the hub has already, in case it asks again? Whole segments of the log under another name, deleted
//! by age and, before anything that waits, by the quota.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::Micros;

use super::segment::Segment;

/// A segment of which nothing waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The segment's number.
    pub number: u64,
    /// Seal time of the earliest frame in it.
    pub from_us: Micros,
    /// Seal time of the latest.
    pub to_us: Micros,
    /// Bytes on disk.
    pub bytes: u64,
    path: PathBuf,
}

impl Kept {
    /// The kept segment that a file's name tells of.
    pub fn of(directory: &Path, name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("kept-")?.strip_suffix(".log")?.split('-');
        let mut number = || parts.next()?.parse::<i64>().ok();
        let (segment, from_us, to_us) = (number()?, number()?, number()?);
        let path = directory.join(name);
        Some(Self {
            number: u64::try_from(segment).ok()?,
            from_us,
            to_us,
            bytes: fs::metadata(&path).ok()?.len(),
            path,
        })
    }

    /// Keeps a segment.
    pub fn keep(directory: &Path, segment: &Segment) -> io::Result<Self> {
        let (from_us, to_us) = segment.sealed_us.unwrap_or_default();
        let (from_us, to_us) = (from_us.max(0), to_us.max(0));
        let path = directory.join(format!("kept-{:010}-{from_us}-{to_us}.log", segment.number));
        fs::rename(segment.path(), &path)?;
        Ok(Self {
            number: segment.number,
            from_us,
            to_us,
            bytes: segment.bytes(),
            path,
        })
    }

    /// Its bytes.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        fs::read(&self.path)
    }

    /// Deletes it.
    pub fn delete(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}
