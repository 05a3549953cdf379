//! Is the legal record whole? What an auditor runs on a stopped edge's directory or on a copy: every file, every
//! link, every signed checkpoint. Reads only, and names the first thing that is wrong.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ed25519_dalek::VerifyingKey;
use protocol::Micros;

use super::{
    chain::{self, Entry, Tip},
    checkpoint::{self, CHECKPOINTS_FILE, Kind, PUBLIC_KEY_FILE, Statement},
    files,
};
use crate::hex;

/// What the auditor brings along.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The edge's public key; the one in the directory counts where none is brought.
    pub public_key: Option<VerifyingKey>,
    /// Checkpoints from elsewhere.
    pub checkpoints: Vec<Statement>,
}

/// What was found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// Sound records.
    pub records: u64,
    /// Number of the first record that is there.
    pub first_seq: Option<u64>,
    /// Number of the last sound record.
    pub last_seq: u64,
    /// SHA-256 of the last sound record's payload, hexadecimal.
    pub last_hash: String,
    /// When the first and the last sound record were written.
    pub written_us: Option<(Micros, Micros)>,
    /// Files read, in order.
    pub files: Vec<String>,
    /// Checkpoints that agree with the records.
    pub checkpoints: u64,
    /// Checkpoints about records that were removed for their age.
    pub checkpoints_before: u64,
    /// Files that were set aside as damaged, or cut-off ends.
    pub set_aside: Vec<String>,
    /// The first thing that is wrong; none when the record is whole.
    pub fault: Option<String>,
}

impl Report {
    fn wrong(&mut self, fault: impl FnOnce() -> String) {
        if self.fault.is_none() {
            self.fault = Some(fault());
        }
    }
}

/// Verifies a journal's directory and shows each sound record.
///
/// # Errors
/// When there is no journal or it cannot be read at all.
pub fn audit(directory: &Path, held: &Held, mut show: impl FnMut(&Entry)) -> io::Result<Report> {
    let mut report = Report::default();
    let paths = files(directory)?;
    let own = directory.join(CHECKPOINTS_FILE);
    let (statements, unreadable) = if own.exists() {
        checkpoint::read(&own)?
    } else {
        (Vec::new(), 0)
    };
    if paths.is_empty() && statements.is_empty() && held.checkpoints.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no journal here"));
    }
    let key = public_key(directory, held)?;
    let statements: Vec<&Statement> = held.checkpoints.iter().chain(&statements).collect();
    let mut seen = Seen::default();
    let removed = statements
        .iter()
        .filter(|statement| statement.kind == Kind::Removed && key.is_some_and(|key| statement.is_by(&key)))
        .max_by_key(|statement| statement.seq);
    seen.start = removed.and_then(|statement| statement.tip()).unwrap_or_default();
    read_chain(&paths, &mut seen, &mut report, &mut show)?;
    if let Some(key) = &key {
        for statement in &statements {
            check(statement, key, &seen, &mut report);
        }
    } else if !statements.is_empty() {
        report.wrong(|| format!("checkpoints without `{PUBLIC_KEY_FILE}`: bring the edge's public key"));
    }
    if unreadable > 1 {
        report.wrong(|| format!("{CHECKPOINTS_FILE}: {unreadable} lines are no checkpoints"));
    }
    report.set_aside = set_aside(directory)?;
    Ok(report)
}

/// Hashes of all sound records, and where the chain begins and ends.
#[derive(Debug, Default)]
struct Seen {
    start: Tip,
    hashes: Vec<[u8; 32]>,
}

fn read_chain(
    paths: &[PathBuf],
    seen: &mut Seen,
    report: &mut Report,
    show: &mut impl FnMut(&Entry),
) -> io::Result<()> {
    let mut tip = seen.start;
    for path in paths {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let bytes = fs::read(path)?;
        let verified = chain::verify(&bytes, tip);
        for entry in &verified.entries {
            report.first_seq.get_or_insert(entry.seq);
            let first_us = report
                .written_us
                .map_or(entry.written_us, |(first_us, _)| first_us);
            report.written_us = Some((first_us, entry.written_us));
            show(entry);
        }
        report.records += verified.entries.len() as u64;
        seen.hashes.extend(verified.hashes);
        tip = verified.tip;
        report.files.push(name.clone());
        if let Some(fault) = verified.fault {
            let torn = if verified.is_torn {
                "; a power cut may have left it unfinished"
            } else {
                ""
            };
            report.wrong(|| format!("{name}: {fault}{torn}"));
            break;
        }
    }
    report.last_seq = tip.seq;
    report.last_hash = hex::hex(&tip.hash);
    Ok(())
}

fn check(statement: &Statement, key: &VerifyingKey, seen: &Seen, report: &mut Report) {
    if !statement.is_by(key) {
        report.wrong(|| {
            format!(
                "the checkpoint of record {} is not signed by this edge",
                statement.seq
            )
        });
        return;
    }
    if statement.seq <= seen.start.seq {
        report.checkpoints_before += 1;
        return;
    }
    let index = usize::try_from(statement.seq - seen.start.seq - 1).unwrap_or(usize::MAX);
    match seen.hashes.get(index) {
        None => report.wrong(|| {
            let last = seen.start.seq + seen.hashes.len() as u64;
            format!(
                "record {}: missing; a signed checkpoint says that there were {}",
                last + 1,
                statement.seq
            )
        }),
        Some(hash) if hex::hex(hash) != statement.hash => {
            report.wrong(|| format!("record {}: not the one that was signed for", statement.seq));
        }
        Some(_) => report.checkpoints += 1,
    }
}

fn public_key(directory: &Path, held: &Held) -> io::Result<Option<VerifyingKey>> {
    if held.public_key.is_some() {
        return Ok(held.public_key);
    }
    match fs::read_to_string(directory.join(PUBLIC_KEY_FILE)) {
        Ok(text) => Ok(checkpoint::public_key(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn set_aside(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("corrupt-") || name.starts_with("torn-") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
