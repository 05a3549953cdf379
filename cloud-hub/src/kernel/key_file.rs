//! Where do the hub's own keys come from? Files of 32 random bytes in the data directory, made once, readable by
//! their owner only. Several hubs of one installation share them by sharing the files.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

/// Length of every key.
pub const KEY_BYTES: usize = 32;

/// Reads `data_dir/name`, making it (mode 0600) the first time.
///
/// # Errors
/// When the file can be neither read nor made, or is not a key.
pub fn load_or_create(data_dir: &Path, name: &str) -> std::io::Result<[u8; KEY_BYTES]> {
    let path = data_dir.join(name);
    if !path.exists() {
        create(&path)?;
    }
    let bytes = std::fs::read(&path)?;
    bytes
        .try_into()
        .map_err(|_| std::io::Error::other(format!("{} is no key of {KEY_BYTES} bytes", path.display())))
}

/// A fresh key at `path`.
fn create(path: &Path) -> std::io::Result<()> {
    let mut key = [0u8; KEY_BYTES];
    getrandom::fill(&mut key).map_err(std::io::Error::other)?;
    place(path, &key, 0o600)
}

/// Writes a file beside `path` and links it there, unless one is there: two hubs that start at once agree on one.
///
/// # Errors
/// When it can be neither written nor linked.
pub fn place(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let draft = path.with_extension(format!("draft.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
