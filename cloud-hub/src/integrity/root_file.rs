//! Where does the customer find the roots? One small file a tenant and a day under `audit-roots/`, which they copy
//! to where the hub's operator cannot reach it. It says the statement, its signature and the key.

use std::{
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::root::Root;
use crate::kernel::hex::{from_hex, hex};

/// Folder under the data directory.
pub const FOLDER: &str = "audit-roots";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    statement: String,
    signature: String,
    public_key: String,
}

/// Where a tenant's root of a day is.
pub(super) fn path(data_dir: &Path, tenant: &str, root: &Root) -> PathBuf {
    let name = format!("{}.json", root.day);
    data_dir.join(FOLDER).join(tenant).join(name)
}

/// Writes a root that has no file yet, as a whole or not at all; one that is there is left as it is.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(data_dir: &Path, tenant: &str, root: &Root) -> io::Result<()> {
    let path = path(data_dir, tenant, root);
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let stored = Stored {
        statement: root.statement.clone(),
        signature: hex(&root.signature),
        public_key: hex(&root.public_key),
    };
    let text = serde_json::to_string_pretty(&stored).map_err(io::Error::other)? + "\n";
    let draft = path.with_extension(format!("draft.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(draft, path)
}

/// Reads the roots in `folder`, or in its subfolder of the tenant, by day.
///
/// # Errors
/// When a file cannot be read or is no root.
pub fn read(folder: &Path, tenant: &str) -> io::Result<Vec<Root>> {
    let own = folder.join(tenant);
    let folder = if own.is_dir() { &own } else { folder };
    let mut roots = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path)?;
            let root = parse(&text)
                .ok_or_else(|| io::Error::other(format!("{} is no audit root", path.display())))?;
            roots.push(root);
        }
    }
    roots.sort_by_key(|root| root.day);
    Ok(roots)
}

fn parse(text: &str) -> Option<Root> {
    let stored: Stored = serde_json::from_str(text).ok()?;
    let mut root = Root {
        day: chrono::NaiveDate::MIN,
        last_seq: 0,
        last_hash: Vec::new(),
        statement: stored.statement,
        signature: from_hex::<64>(&stored.signature)?.to_vec(),
        public_key: from_hex::<32>(&stored.public_key)?.to_vec(),
    };
    let stated = root.stated()?;
    root.day = stated.day;
    root.last_seq = stated.last_seq;
    root.last_hash = from_hex::<32>(&stated.last_hash)?.to_vec();
    Some(root)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::integrity::key::AuditKey;

    #[test]
    fn a_root_is_read_back_as_it_was_signed_and_its_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let key = AuditKey::from_bytes(&[1; 32]);
        let day = chrono::NaiveDate::from_ymd_opt(2026, 11, 1).unwrap();
        let root = Root::sign("akron", day, (5, [5; 32]), None, &key);
        write(dir.path(), "akron", &root).unwrap();
        let other = Root::sign("akron", day, (6, [6; 32]), None, &key);
        write(dir.path(), "akron", &other).unwrap();
        let folder = dir.path().join(FOLDER);
        assert_eq!(read(&folder, "akron").unwrap(), std::slice::from_ref(&root));
        let file = path(dir.path(), "akron", &root);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        std::fs::write(&file, "{}").unwrap();
        assert!(read(&folder, "akron").is_err());
    }
}
