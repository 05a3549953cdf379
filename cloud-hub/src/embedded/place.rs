//! Where does the cluster live, and as whom? PostgreSQL refuses root, so a hub run by root hands the files to
//! the user `postgres`; a socket path has a limit of 107 bytes, so long ones move to a short directory.

use std::{
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{Gid, Uid, User};
use sha2::{Digest, Sha256};

use super::{EmbeddedError, files};

/// Room for `/.s.PGSQL.5432.lock` within the 107 bytes of a Unix socket's path.
const SOCKET_DIR_BYTES_MAX: usize = 85;

/// The directories of one cluster and the account that owns them.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) base: PathBuf,
    pub(super) socket_dir: PathBuf,
    owner: Option<(Uid, Gid)>,
}

impl Place {
    /// Makes the directories, private to their owner.
    pub(super) fn prepare(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let data_dir = data_dir.canonicalize().map_err(files(data_dir))?;
        let owner = if Uid::effective().is_root() {
            let user = User::from_name("postgres")
                .ok()
                .flatten()
                .ok_or(EmbeddedError::NoUser)?;
            Some((user.uid, user.gid))
        } else {
            None
        };
        let base = base(&data_dir, owner)?;
        let socket_dir = socket_dir(&base);
        let place = Self {
            base,
            socket_dir,
            owner,
        };
        place.make_private(&place.base)?;
        place.make_private(&place.socket_dir)?;
        Ok(place)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.base.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.base.join("postgres.log")
    }

    /// Makes `command` run as the cluster's owner.
    pub(super) fn as_owner<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some((uid, gid)) = self.owner {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command.current_dir(&self.base)
    }

    /// The process that `postmaster.pid` names, when it lives and is a PostgreSQL.
    pub(super) fn live_postmaster(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        // A number may have been given to another process since.
        name.starts_with("postgres").then_some(pid)
    }

    fn make_private(&self, dir: &Path) -> Result<(), EmbeddedError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(files(dir))?;
        if let Some((uid, gid)) = self.owner {
            nix::unistd::chown(dir, Some(uid), Some(gid)).map_err(|error| files(dir)(error.into()))?;
        }
        let metadata = std::fs::symlink_metadata(dir).map_err(files(dir))?;
        let uid = self.owner.map_or_else(Uid::effective, |(uid, _)| uid);
        if !metadata.is_dir() || metadata.uid() != uid.as_raw() {
            let foreign = std::io::Error::other("it belongs to somebody else");
            return Err(files(dir)(foreign));
        }
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(files(dir))
    }
}

/// `data_dir/postgres`, or a directory of its own under `/var/lib/foodflow` where the account that PostgreSQL
/// must run as cannot reach the data directory (as below a private home).
fn base(data_dir: &Path, owner: Option<(Uid, Gid)>) -> Result<PathBuf, EmbeddedError> {
    let Some((uid, gid)) = owner else {
        return Ok(data_dir.join("postgres"));
    };
    let metadata = std::fs::metadata(data_dir).map_err(files(data_dir))?;
    let mode = metadata.permissions().mode();
    if mode & 0o001 == 0 {
        // Passing through is all that is granted; what lies in the data directory keeps its own modes.
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(mode | 0o001))
            .map_err(files(data_dir))?;
    }
    if data_dir.ancestors().all(|dir| may_pass(dir, uid, gid)) {
        return Ok(data_dir.join("postgres"));
    }
    let elsewhere = PathBuf::from("/var/lib/foodflow").join(format!("postgres-{}", short_name(data_dir)));
    if let Some(parent) = elsewhere.parent() {
        std::fs::create_dir_all(parent).map_err(files(parent))?;
    }
    tracing::warn!(
        cluster = %elsewhere.display(),
        "user postgres cannot reach {}; the database is kept elsewhere", data_dir.display()
    );
    Ok(elsewhere)
}

fn may_pass(dir: &Path, uid: Uid, gid: Gid) -> bool {
    std::fs::metadata(dir).is_ok_and(|metadata| {
        let mode = metadata.permissions().mode();
        if metadata.uid() == uid.as_raw() {
            mode & 0o100 != 0
        } else if metadata.gid() == gid.as_raw() {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        }
    })
}

fn socket_dir(base: &Path) -> PathBuf {
    let beside = base.join("run");
    if beside.as_os_str().len() <= SOCKET_DIR_BYTES_MAX {
        beside
    } else {
        PathBuf::from(format!("/tmp/foodflow-{}", short_name(base)))
    }
}

fn short_name(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let number = digest
        .iter()
        .take(6)
        .fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    format!("{number:012x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_socket() {
        assert_eq!(socket_dir(Path::new("/d/postgres")), Path::new("/d/postgres/run"));
        let long = PathBuf::from("/").join("x".repeat(120));
        assert!(socket_dir(&long).as_os_str().len() < 40);
        assert_ne!(socket_dir(&long), socket_dir(&long.join("y")));
    }
}
