//! What is one generation of the spool? A sled database that is filled, drained and then deleted whole: sled never
//! gives space back, so its directory does. All that is known of sled 0.34's traps is in this file.

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use protocol::lane::Lane;

use super::record::{Key, Meta, Record};

const CACHE_BYTES: u64 = 16 << 20;
/// Keys scanned at a time: a whole-tree iterator holds every page it passed.
const SCAN_WINDOW: usize = 64;

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
    /// Frames in it.
    pub frames: u64,
    path: PathBuf,
    db: sled::Db,
    /// The file that sled writes to: its own `flush` is no fsync.
    sync: File,
}

/// The rest of a key after its prefix, and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What a scan of a generation found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Every sound frame.
    pub frames: Vec<(Key, Meta)>,
    /// Frames whose checksum failed; they were removed.
    pub damaged: u64,
}

impl Generation {
    /// Name of a generation's directory.
    pub fn directory_name(number: u64) -> String {
        format!("gen-{number:08}")
    }

    /// The number in a directory's name.
    pub fn number_of(name: &str) -> Option<u64> {
        name.strip_prefix("gen-")?.parse().ok()
    }

    /// Opens or creates a generation and makes its existence durable.
    pub fn open(parent: &Path, number: u64) -> Result<Self, GenerationError> {
        let path = parent.join(Self::directory_name(number));
        let io_error = |source| GenerationError::Io {
            path: path.clone(),
            source,
        };
        let db = guarded(&path, || {
            sled::Config::new()
                .path(&path)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .open()
        })?;
        let sync = File::open(path.join("db")).map_err(io_error)?;
        File::open(&path)
            .and_then(|directory| directory.sync_all())
            .map_err(io_error)?;
        File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(io_error)?;
        Ok(Self {
            number,
            frames: 0,
            path,
            db,
            sync,
        })
    }

    /// Reads every frame's meta, removing those that are damaged.
    pub fn scan(&mut self) -> Result<Scanned, GenerationError> {
        let path = self.path.clone();
        let db = self.db.clone();
        let scanned = guarded(&path, || scan(&db))?;
        self.frames = scanned.frames.len() as u64;
        Ok(scanned)
    }

    /// Writes a batch and makes it durable.
    pub fn write(&self, batch: sled::Batch) -> Result<(), GenerationError> {
        guarded(&self.path, || {
            self.db.apply_batch(batch)?;
            self.db.flush()?;
            Ok(())
        })?;
        self.sync.sync_data().map_err(|source| GenerationError::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// Removes a frame; made durable by the next write. A removal that is lost only makes the frame be sent again.
    pub fn remove(&mut self, key: Key) -> Result<Option<Meta>, GenerationError> {
        let removed = guarded(&self.path, || self.db.remove(key.to_bytes()))?;
        if removed.is_some() {
            self.frames = self.frames.saturating_sub(1);
        }
        Ok(removed.and_then(|bytes| Record::meta_from_bytes(&bytes)))
    }

    /// The stored bytes of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, GenerationError> {
        guarded(&self.path, || self.db.get(key))
    }

    /// Up to `max` frames of a lane after an ordinal, oldest first; a damaged one comes without its record.
    pub fn after(
        &self,
        lane: Lane,
        after: Option<u64>,
        max: usize,
    ) -> Result<Vec<(Key, Option<Record>)>, GenerationError> {
        guarded(&self.path, || {
            let mut out = Vec::new();
            for item in self.db.range::<[u8; 9], _>(lane_range(lane, after)).take(max) {
                let (key, value) = item?;
                out.extend(Key::from_bytes(&key).map(|key| (key, Record::from_bytes(&value))));
            }
            Ok(out)
        })
    }

    /// All entries whose key starts with a prefix.
    pub fn prefixed(&self, prefix: u8) -> Result<Vec<Entry>, GenerationError> {
        guarded(&self.path, || {
            let items = self
                .db
                .scan_prefix([prefix])
                .map(|item| item.map(|(key, value)| (key[1..].to_vec(), value.to_vec())));
            items.collect()
        })
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// Deletes the generation with everything in it.
    pub fn delete(self) -> io::Result<()> {
        let Self { path, db, sync, .. } = self;
        drop(sync);
        drop(db);
        fs::remove_dir_all(path)
    }
}

fn lane_range(lane: Lane, after: Option<u64>) -> (Bound<[u8; 9]>, Bound<[u8; 9]>) {
    let bound = |ordinal| Key { lane, ordinal }.to_bytes();
    let start = after.map_or(Bound::Included(bound(0)), |ordinal| {
        Bound::Excluded(bound(ordinal))
    });
    (start, Bound::Included(bound(u64::MAX)))
}

fn scan(db: &sled::Db) -> sled::Result<Scanned> {
    let mut scanned = Scanned::default();
    for lane in Lane::ALL {
        let mut after = None;
        loop {
            let window: Vec<_> = db
                .range::<[u8; 9], _>(lane_range(lane, after))
                .take(SCAN_WINDOW)
                .collect::<Result<_, _>>()?;
            let Some((last, _)) = window.last() else { break };
            after = Key::from_bytes(last).map(|key| key.ordinal);
            for (key, value) in window {
                if let (Some(key), Some(meta)) = (Key::from_bytes(&key), Record::meta_from_bytes(&value)) {
                    scanned.frames.push((key, meta));
                } else {
                    db.remove(&key)?;
                    scanned.damaged += 1;
                }
            }
            if after.is_none() {
                break;
            }
        }
    }
    Ok(scanned)
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
