//! How can an auditor tell that the end of the record was cut off? From a signed word on how long it was: kept beside
//! the journal, shown to the hub, and printed by whoever wants to hold one.
//!
//! One JSON object a line. What is signed is the plain text of [`Statement::text`], by the edge's own Ed25519 key.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use protocol::Micros;
use serde::{Deserialize, Serialize};

use super::chain::Tip;
use crate::{
    durable::write_whole,
    hex::{hex, unhex_array},
};

const KEY_FILE: &str = "key";
/// The public half, hexadecimal: give it to the auditor when the edge is taken into use.
pub const PUBLIC_KEY_FILE: &str = "public-key";
/// A line each.
pub const CHECKPOINTS_FILE: &str = "checkpoints.jsonl";
/// No file of statements is read beyond this: ten years of one an hour.
const STATEMENTS_BYTES_MAX: u64 = 64 << 20;

/// The edge's key for its journal.
pub struct Key(SigningKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", hex(self.0.verifying_key().as_bytes()))
    }
}

/// What is said of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It reached this far.
    Checkpoint,
    /// What lay before this was removed because it was old enough.
    Removed,
}

/// A signed word on the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// What is said.
    pub kind: Kind,
    /// Number of the last record it is about.
    pub seq: u64,
    /// SHA-256 of that record's payload, hexadecimal.
    pub hash: String,
    /// When it was made, by the edge's clock.
    pub at_us: Micros,
    /// Ed25519 over the statement's text, hexadecimal.
    pub signature: String,
}

impl Statement {
    /// What is signed.
    pub fn text(&self) -> String {
        let kind = match self.kind {
            Kind::Checkpoint => "checkpoint",
            Kind::Removed => "removed",
        };
        format!(
            "foodflow journal v1\n{kind}\n{}\n{}\n{}\n",
            self.seq, self.hash, self.at_us
        )
    }

    /// Where the chain was.
    pub fn tip(&self) -> Option<Tip> {
        Some(Tip {
            seq: self.seq,
            hash: unhex_array(&self.hash)?,
        })
    }

    /// Whether the key signed it.
    pub fn is_by(&self, key: &VerifyingKey) -> bool {
        let signature = unhex_array::<64>(&self.signature).map(|bytes| Signature::from_bytes(&bytes));
        signature.is_some_and(|signature| key.verify_strict(self.text().as_bytes(), &signature).is_ok())
    }
}

impl Key {
    /// Reads the key, or draws one at the first start.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(KEY_FILE);
        let key = match fs::read(&path) {
            Ok(bytes) => {
                let bytes: [u8; 32] = bytes.try_into().map_err(|_| {
                    let hint = "is no key of 32 bytes; restore it, or move it away and tell the auditor of the new one";
                    io::Error::other(format!("{}: {hint}", path.display()))
                })?;
                SigningKey::from_bytes(&bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                rand::RngCore::fill_bytes(&mut rand::rng(), &mut secret);
                write_whole(&path, &secret, 0o600)?;
                SigningKey::from_bytes(&secret)
            }
            Err(error) => return Err(error),
        };
        let public = directory.join(PUBLIC_KEY_FILE);
        if !public.exists() {
            write_whole(&public, hex(key.verifying_key().as_bytes()).as_bytes(), 0o644)?;
        }
        Ok(Self(key))
    }

    /// Signs a word on where the chain is.
    pub fn sign(&self, kind: Kind, tip: &Tip, at_us: Micros) -> Statement {
        let mut statement = Statement {
            kind,
            seq: tip.seq,
            hash: hex(&tip.hash),
            at_us,
            signature: String::new(),
        };
        statement.signature = hex(&self.0.sign(statement.text().as_bytes()).to_bytes());
        statement
    }
}

/// The public key in hexadecimal digits.
pub fn public_key(text: &str) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(&unhex_array(text)?).ok()
}

/// Adds a statement to the file, durably.
pub fn add(directory: &Path, statement: &Statement) -> io::Result<()> {
    let mut line = serde_json::to_vec(statement)?;
    line.push(b'\n');
    let path = directory.join(CHECKPOINTS_FILE);
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&line)?;
    file.sync_data()
}

/// Reads statements, a line each; lines that are none are counted.
pub fn read(path: &Path) -> io::Result<(Vec<Statement>, usize)> {
    let mut text = String::new();
    File::open(path)?
        .take(STATEMENTS_BYTES_MAX)
        .read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let parsed: Vec<Option<Statement>> = lines.map(|line| serde_json::from_str(line).ok()).collect();
    let unreadable = parsed.iter().filter(|statement| statement.is_none()).count();
    Ok((parsed.into_iter().flatten().collect(), unreadable))
}
