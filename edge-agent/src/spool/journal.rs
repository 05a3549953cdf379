//! What is the legal record that does not depend on the database? An append-only file of critical-control-point
//! events: each record is checksummed, made durable, and carries the hash of the one before it, so that an edit, a
//! deletion or a reordering shows.
//!
//! ```text
//! length u32 LE · CRC32C of the payload u32 LE · payload
//! payload = seq u64 LE · SHA-256 of the previous payload (32) · written i64 LE (microseconds) · postcard Event
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use protocol::{Micros, event::Event};
use sha2::{Digest as _, Sha256};

const HEADER: usize = 8;
const EVENT_AT: usize = 8 + 32 + 8;
/// No event of a control point is longer; a longer length is damage.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    tip: Tip,
}

/// Where the chain ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tip {
    /// Number of the last record; 0 for none.
    pub seq: u64,
    /// SHA-256 of the last payload.
    pub hash: [u8; 32],
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written.
    pub written_us: Micros,
    /// What happened.
    pub event: Event,
}

/// What reading a journal found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    /// Every sound record, in order.
    pub entries: Vec<Entry>,
    /// Where the sound chain ends.
    pub tip: Tip,
    /// Bytes that are sound.
    pub sound_bytes: usize,
    /// What is wrong after that, if anything follows.
    pub fault: Option<String>,
    /// Whether what follows looks like one record that a power cut left unfinished.
    pub is_torn: bool,
}

/// Reads a journal's bytes up to the first fault. Pure: an auditor can run it on a copy.
pub fn verify(bytes: &[u8]) -> Verified {
    let mut verified = Verified::default();
    while verified.sound_bytes < bytes.len() {
        match next(&bytes[verified.sound_bytes..], &verified.tip) {
            Ok((entry, hash, length)) => {
                verified.tip = Tip { seq: entry.seq, hash };
                verified.entries.push(entry);
                verified.sound_bytes += length;
            }
            Err(fault) => {
                verified.fault = Some(format!("at byte {}: {fault}", verified.sound_bytes));
                verified.is_torn = is_torn(&bytes[verified.sound_bytes..]);
                break;
            }
        }
    }
    verified
}

/// Whether nothing sound can follow: the last record reaches to the end or beyond, or the file was extended and
/// never filled.
fn is_torn(rest: &[u8]) -> bool {
    let Some((header, _)) = rest.split_first_chunk::<HEADER>() else {
        return true;
    };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    (EVENT_AT..=PAYLOAD_BYTES_MAX).contains(&length) && HEADER + length >= rest.len()
        || rest.iter().all(|byte| *byte == 0)
}

fn next(bytes: &[u8], tip: &Tip) -> Result<(Entry, [u8; 32], usize), &'static str> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or("a torn header")?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if !(EVENT_AT..=PAYLOAD_BYTES_MAX).contains(&length) {
        return Err("an impossible length");
    }
    let payload = rest.get(..length).ok_or("a torn record")?;
    if crc32c::crc32c(payload) != u32::from_le_bytes([header[4], header[5], header[6], header[7]]) {
        return Err("a wrong checksum");
    }
    let (seq, after) = payload.split_first_chunk::<8>().ok_or("a torn record")?;
    let (previous, after) = after.split_first_chunk::<32>().ok_or("a torn record")?;
    let (written, event) = after.split_first_chunk::<8>().ok_or("a torn record")?;
    if *previous != tip.hash || u64::from_le_bytes(*seq) != tip.seq + 1 {
        return Err("a record that does not follow from the one before it");
    }
    let entry = Entry {
        seq: u64::from_le_bytes(*seq),
        written_us: Micros::from_le_bytes(*written),
        event: postcard::from_bytes(event).map_err(|_| "a record of an unknown form")?,
    };
    Ok((entry, Sha256::digest(payload).into(), HEADER + length))
}

fn encode(tip: &Tip, written_us: Micros, event: &Event) -> (Vec<u8>, Tip) {
    let event = postcard::to_stdvec(event).expect("plain data serialises to memory");
    let mut payload = Vec::with_capacity(EVENT_AT + event.len());
    payload.extend_from_slice(&(tip.seq + 1).to_le_bytes());
    payload.extend_from_slice(&tip.hash);
    payload.extend_from_slice(&written_us.to_le_bytes());
    payload.extend_from_slice(&event);
    let mut record = Vec::with_capacity(HEADER + payload.len());
    record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    record.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    record.extend_from_slice(&payload);
    let tip = Tip {
        seq: tip.seq + 1,
        hash: Sha256::digest(&payload).into(),
    };
    (record, tip)
}

/// What was found when a journal was opened.
#[derive(Debug, Default)]
pub struct Found {
    /// Sound records.
    pub entries: Vec<Entry>,
    /// The damaged file, when there was one and it was set aside.
    pub set_aside: Option<PathBuf>,
}

impl Journal {
    /// Opens or creates the journal. A torn last record (a power cut while writing) is cut off; a fault before the
    /// end is damage, and the file is set aside for an auditor.
    pub fn open(directory: &Path, now_us: Micros) -> io::Result<(Self, Found)> {
        fs::create_dir_all(directory)?;
        let path = directory.join("ccp.journal");
        let mut bytes = Vec::new();
        if path.exists() {
            File::open(&path)?.read_to_end(&mut bytes)?;
        }
        let verified = verify(&bytes);
        let mut found = Found {
            entries: verified.entries,
            set_aside: None,
        };
        let mut tip = verified.tip;
        let remaining = bytes.len() - verified.sound_bytes;
        if remaining > 0 && !verified.is_torn {
            let aside = directory.join(format!("corrupt-{now_us}.journal"));
            fs::rename(&path, &aside)?;
            found.set_aside = Some(aside);
            tip = Tip::default();
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        if found.set_aside.is_none() {
            if remaining > 0 {
                // What is cut off is kept: only a person can tell a power cut from an edit.
                fs::write(
                    directory.join(format!("torn-{now_us}.bin")),
                    &bytes[verified.sound_bytes..],
                )?;
            }
            file.set_len(verified.sound_bytes as u64)?;
        }
        file.seek(SeekFrom::End(0))?;
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok((Self { file, path, tip }, found))
    }

    /// Number of the last record.
    pub fn seq(&self) -> u64 {
        self.tip.seq
    }

    /// Appends events and makes them durable. After an error the chain ends where it ended before.
    pub fn append<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a Event>,
        now_us: Micros,
    ) -> io::Result<()> {
        let mut tip = self.tip;
        let mut records = Vec::new();
        for event in events {
            let (record, after) = encode(&tip, now_us, event);
            records.extend_from_slice(&record);
            tip = after;
        }
        if records.is_empty() {
            return Ok(());
        }
        let end = self.file.stream_position()?;
        let written = self.file.write_all(&records).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a record must not stand before the next one.
            self.file.set_len(end)?;
            self.file.seek(SeekFrom::Start(end))?;
            return Err(error);
        }
        self.tip = tip;
        Ok(())
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use protocol::event::Gap;

    use super::*;

    fn event(number: u64) -> Event {
        Event::Gap(Gap {
            from_us: 0,
            to_us: 1,
            frames: number,
            readings: 0,
            reason: "test".to_owned(),
        })
    }

    fn filled(records: u64) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 0).unwrap();
        for number in 1..=records {
            journal.append([&event(number)], 1000).unwrap();
        }
        let path = journal.path().to_owned();
        (directory, path)
    }

    #[test]
    fn records_come_back_in_order_and_the_chain_goes_on() {
        let (directory, path) = filled(3);
        let (mut journal, found) = Journal::open(directory.path(), 0).unwrap();
        assert_eq!(found.entries.len(), 3);
        journal.append([&event(4), &event(5)], 2000).unwrap();
        let verified = verify(&fs::read(path).unwrap());
        assert_eq!((verified.tip.seq, verified.fault), (5, None));
    }

    #[test]
    fn a_record_torn_at_any_byte_is_cut_off_and_the_others_stay() {
        let (directory, path) = filled(3);
        let whole = fs::read(&path).unwrap();
        let two = verify(&whole[..whole.len() - 1]).sound_bytes;
        for length in two + 1..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (journal, found) = Journal::open(directory.path(), 0).unwrap();
            assert_eq!((journal.seq(), found.entries.len()), (2, 2), "torn at {length}");
        }
    }

    #[test]
    fn an_edit_a_deletion_and_a_swap_all_show() {
        let (_directory, path) = filled(4);
        let whole = fs::read(&path).unwrap();
        let length = whole.len() / 4;
        for at in 0..whole.len() {
            let mut edited = whole.clone();
            edited[at] ^= 1;
            assert!(verify(&edited).fault.is_some(), "edit at {at}");
        }
        let deleted = [&whole[..length], &whole[2 * length..]].concat();
        assert!(verify(&deleted).fault.is_some());
        let swapped = [&whole[length..2 * length], &whole[..length], &whole[2 * length..]].concat();
        assert!(verify(&swapped).fault.is_some());
    }

    #[test]
    fn a_journal_damaged_before_its_end_is_set_aside_whole() {
        let (directory, path) = filled(10);
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 0xFF;
        fs::write(&path, &bytes).unwrap();
        let (journal, found) = Journal::open(directory.path(), 7).unwrap();
        assert_eq!(journal.seq(), 0);
        assert_eq!(fs::read(found.set_aside.unwrap()).unwrap(), bytes);
    }
}
