//! Which PostgreSQL is installed? The programs must be of the major version that wrote the data.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::EmbeddedError;

/// The directory of `postgres` and `initdb` of one version.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

/// Oldest version whose SQL the migrations use.
const MAJOR_MIN: u32 = 15;

impl Binaries {
    /// Looks at `FOODFLOW_PG_BIN`, what `pg_config` says, and Debian's directories, newest first. Data already
    /// in `data` decides the version.
    ///
    /// # Errors
    /// [`EmbeddedError::NoBinaries`] saying what to install.
    pub fn find(data: &Path) -> Result<Self, EmbeddedError> {
        let wanted = written_by(data);
        let found: Vec<(u32, PathBuf)> = candidates()
            .into_iter()
            .filter_map(|dir| Some((major_of(&dir)?, dir)))
            .filter(|(major, _)| *major >= MAJOR_MIN)
            .collect();
        found
            .iter()
            .find(|(major, _)| wanted.is_none_or(|wanted| wanted == *major))
            .map(|(_, dir)| Self { dir: dir.clone() })
            .ok_or_else(|| EmbeddedError::NoBinaries(advice(wanted, &found)))
    }

    /// Path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn advice(wanted: Option<u32>, found: &[(u32, PathBuf)]) -> String {
    let majors: Vec<String> = found.iter().map(|(major, _)| major.to_string()).collect();
    match wanted {
        Some(wanted) => format!(
            "the data was written by PostgreSQL {wanted}, installed is {}; install postgresql-{wanted} or point \
             FOODFLOW_PG_BIN at its programs",
            if majors.is_empty() {
                "none".to_owned()
            } else {
                majors.join(", ")
            }
        ),
        None => format!(
            "no PostgreSQL {MAJOR_MIN} or newer found; install it (Debian: apt install postgresql) or point \
             FOODFLOW_PG_BIN at the directory of `postgres` and `initdb`"
        ),
    }
}

fn written_by(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn candidates() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = std::env::var_os("FOODFLOW_PG_BIN")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let major = path.file_name()?.to_str()?.parse().ok()?;
            Some((major, path.join("bin")))
        })
        .collect();
    debian.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    dirs.extend(debian.into_iter().map(|(_, dir)| dir));
    dirs
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` says 15; both programs must be there.
fn major_of(dir: &Path) -> Option<u32> {
    if !dir.join("initdb").exists() {
        return None;
    }
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_major(version: &str) -> Option<u32> {
    let number = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_line_gives_its_major() {
        assert_eq!(
            parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("nonsense"), None);
    }

    #[test]
    fn data_of_a_version_that_is_not_installed_says_which_to_install() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("PG_VERSION"), "9\n").unwrap();
        let error = Binaries::find(dir.path()).unwrap_err().to_string();
        assert!(error.contains("install postgresql-9"), "{error}");
    }
}
