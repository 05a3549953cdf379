//! How is a file replaced so that a power cut leaves the old or the new one, whole? A change is a list of steps, each
//! of which is harmless when it is the last; tests cut the list anywhere. A file by itself is replaced at once.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// One file operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a file under a name that nobody reads, and make it durable.
    Write {
        /// The name.
        path: PathBuf,
        /// All of it.
        bytes: Vec<u8>,
        /// Permissions, like `0o600`.
        mode: u32,
    },
    /// Give it the name that is read; the one moment at which the change happens.
    Rename {
        /// Under which it was written.
        from: PathBuf,
        /// Which is read.
        to: PathBuf,
    },
    /// Remove what nobody reads any more; it may be gone already.
    Remove(PathBuf),
}

/// Replaces a file: written beside it, then renamed.
pub fn replace(path: &Path, bytes: Vec<u8>, mode: u32) -> Vec<Step> {
    let temporary = beside(path);
    vec![
        Step::Write {
            path: temporary.clone(),
            bytes,
            mode,
        },
        Step::Rename {
            from: temporary,
            to: path.to_owned(),
        },
    ]
}

/// Replaces a file by a value's JSON.
///
/// # Errors
/// Whatever the value's serialisation refuses.
pub fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<Vec<Step>> {
    Ok(replace(path, serde_json::to_vec_pretty(value)?, 0o600))
}

/// Does the steps in order; the first that fails ends it.
///
/// # Errors
/// The disk's, with the file's name.
pub fn perform(steps: &[Step]) -> io::Result<()> {
    steps.iter().try_for_each(|step| {
        let path = match step {
            Step::Write { path, .. } | Step::Remove(path) => path,
            Step::Rename { to, .. } => to,
        };
        do_one(step).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    })
}

fn do_one(step: &Step) -> io::Result<()> {
    match step {
        Step::Write { path, bytes, mode } => {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut file = create(path, *mode)?;
            // Whatever the umask, and whatever an earlier attempt left.
            file.set_permissions(fs::Permissions::from_mode(*mode))?;
            file.write_all(bytes)?;
            file.sync_all()
        }
        Step::Rename { from, to } => rename(from, to),
        Step::Remove(path) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// Replaces a file at once, whole or not at all; the directory must be there. `mode` is what the process's umask leaves
/// of it.
///
/// # Errors
/// The disk's; what was there before still is.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path);
    let mut file = create(&temporary, mode)?;
    // A file left by an earlier attempt may be open to more.
    let left = file.metadata()?.permissions().mode() & mode;
    file.set_permissions(fs::Permissions::from_mode(left))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename(&temporary, path)
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(mode);
    options.open(path)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to)
}

/// The name under which a file is written before it takes its own.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Makes a file's name durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a value that [`replace_json`] wrote; none when there is no file. One that holds something else is set aside
/// under `….damaged`, on the log, and counts as none: every reader has a safe state to fall back to.
///
/// # Errors
/// The disk's.
pub fn load_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            let aside = path.with_extension("damaged");
            tracing::error!(%error, path = %path.display(), aside = %aside.display(), "set aside: not what was written");
            fs::rename(path, aside)?;
            Ok(None)
        }
    }
}

/// Every way in which a power cut can end a list of steps: before each of them, and with each file half-written.
#[cfg(test)]
pub(crate) fn cuts(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut cuts: Vec<Vec<Step>> = (0..=steps.len()).map(|count| steps[..count].to_vec()).collect();
    for (at, step) in steps.iter().enumerate() {
        if let Step::Write { path, bytes, mode } = step {
            let mut torn = steps[..at].to_vec();
            torn.push(Step::Write {
                path: path.clone(),
                bytes: bytes[..bytes.len() / 2].to_vec(),
                mode: *mode,
            });
            cuts.push(torn);
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_at_any_step_leaves_the_old_file_or_the_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let steps = replace(&path, b"new".to_vec(), 0o600);
        for cut in cuts(&steps) {
            perform(&replace(&path, b"old".to_vec(), 0o600)).unwrap();
            perform(&cut).unwrap();
            let found = fs::read(&path).unwrap();
            assert!(found == b"old" || found == b"new", "{cut:?}");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_written_whole_is_open_to_no_more_than_was_said_whatever_an_earlier_attempt_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(beside(&path), "half").unwrap();
        fs::set_permissions(beside(&path), fs::Permissions::from_mode(0o666)).unwrap();
        write_whole(&path, b"secret", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!beside(&path).exists());
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_not_taken_for_nothing_ever_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(load_json::<u32>(&path).unwrap(), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(load_json::<u32>(&path).unwrap(), None);
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), b"{");
    }
}
