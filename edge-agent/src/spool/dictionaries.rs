//! Where are the dictionaries that waiting frames need? One file each, named by content id, written before the
//! first frame that uses it and deleted when no frame does.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use protocol::tag::Dictionary;
use uuid::Uuid;

use crate::durable;

/// The dictionaries on disk.
#[derive(Debug)]
pub struct Dictionaries {
    directory: PathBuf,
}

impl Dictionaries {
    /// Opens or creates the directory.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// A directory that is only read.
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.directory.join(format!("{id}.dict"))
    }

    /// Keeps a dictionary, durably; one that is damaged on disk is written anew.
    pub fn keep(&self, dictionary: &Dictionary) -> io::Result<Uuid> {
        let id = dictionary.id();
        let path = self.path(id);
        if self.get(id).is_none() {
            durable::write_whole(&path, &dictionary.encode(), 0o666)?;
        }
        Ok(id)
    }

    /// A dictionary's envelope, if it is there and sound.
    pub fn get(&self, id: Uuid) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(id)).ok()?;
        let found = Dictionary::decode(&bytes).ok()?;
        (found.id() == id).then_some(bytes)
    }

    /// Deletes every dictionary that is not among `needed`, but for the youngest `spare`: frames that are kept for
    /// replays may need them.
    pub fn prune(&self, needed: &BTreeSet<Uuid>, spare: usize) -> io::Result<()> {
        let mut unneeded = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let path = entry.path();
            let id = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse::<Uuid>().ok());
            if id.is_some_and(|id| !needed.contains(&id)) {
                unneeded.push((entry.metadata()?.modified()?, path));
            }
        }
        unneeded.sort();
        let doomed = unneeded.len().saturating_sub(spare);
        for (_, path) in unneeded.into_iter().take(doomed) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_kept_until_nothing_needs_it() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Dictionaries::open(directory.path()).unwrap();
        let id = kept.keep(&Dictionary::default()).unwrap();
        assert_eq!(kept.get(id), Some(Dictionary::default().encode()));
        kept.prune(&BTreeSet::from([id]), 0).unwrap();
        assert!(kept.get(id).is_some());
        kept.prune(&BTreeSet::new(), 1).unwrap();
        assert!(kept.get(id).is_some());
        kept.prune(&BTreeSet::new(), 0).unwrap();
        assert!(kept.get(id).is_none());
    }

    #[test]
    fn a_damaged_dictionary_is_not_handed_out() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Dictionaries::open(directory.path()).unwrap();
        let id = kept.keep(&Dictionary::default()).unwrap();
        fs::write(directory.path().join(format!("{id}.dict")), b"garbage").unwrap();
        assert!(kept.get(id).is_none());
        kept.keep(&Dictionary::default()).unwrap();
        assert!(
            kept.get(id).is_some(),
            "the current one is known and written anew"
        );
    }
}
