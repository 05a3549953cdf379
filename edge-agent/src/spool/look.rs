//! What lies in a spool that nobody runs? Reads every file of a directory or of a copy of it and changes none:
//! databases are opened as copies of their own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    generation::{Generation, directory_bytes},
    kept::Kept,
    record::{Key, Record},
    segment::Segment,
    wal::{self, Item},
};

/// Where a frame was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for the hub.
    Waits,
    /// It waits and gets its identity when it is merged.
    Part,
    /// The hub has it.
    Acknowledged,
}

/// What is known of one file or directory.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// `log`, `kept`, `backlog` or `set_aside`.
    pub kind: &'static str,
    /// Bytes on disk.
    pub bytes: u64,
    /// Frames that wait.
    pub waiting_frames: u64,
    /// Readings in them.
    pub waiting_readings: u64,
    /// Frames that the hub has.
    pub acknowledged_frames: u64,
    /// Seal time of the earliest frame.
    pub from_us: Option<i64>,
    /// Seal time of the latest frame.
    pub to_us: Option<i64>,
    /// What is wrong with it, if anything.
    pub fault: Option<String>,
    /// Frames lost to that, as far as can be told.
    pub records_lost_estimate: u64,
}

impl Place {
    fn new(name: &str, kind: &'static str, bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            bytes,
            waiting_frames: 0,
            waiting_readings: 0,
            acknowledged_frames: 0,
            from_us: None,
            to_us: None,
            fault: None,
            records_lost_estimate: 0,
        }
    }

    fn count(&mut self, record: &Record, state: State) {
        let meta = &record.meta;
        if state == State::Acknowledged {
            self.acknowledged_frames += 1;
        } else {
            self.waiting_frames += 1;
            self.waiting_readings += u64::from(meta.readings);
        }
        self.from_us = Some(
            self.from_us
                .map_or(meta.sealed_us, |from| from.min(meta.sealed_us)),
        );
        self.to_us = Some(self.to_us.map_or(meta.sealed_us, |to| to.max(meta.sealed_us)));
    }

    fn wrong(&mut self, fault: String, lost: u64) {
        self.fault.get_or_insert(fault);
        self.records_lost_estimate += lost;
    }
}

/// Looks at every place of a spool's directory, oldest first, and shows each frame in it.
pub fn look(
    directory: &Path,
    mut show: impl FnMut(Key, &Record, State) -> io::Result<()>,
) -> io::Result<Vec<Place>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    let mut places = Vec::new();
    for name in names {
        let path = directory.join(&name);
        if let Some(kept) = Kept::of(directory, &name) {
            let mut place = Place::new(&name, "kept", kept.bytes);
            look_at_log(&kept.read()?, true, &mut place, &mut show)?;
            places.push(place);
        } else if Segment::number_of(&name).is_some() {
            let bytes = fs::read(&path)?;
            let mut place = Place::new(&name, "log", bytes.len() as u64);
            look_at_log(&bytes, false, &mut place, &mut show)?;
            places.push(place);
        } else if Generation::number_of(&name).is_some() {
            let mut place = Place::new(&name, "backlog", directory_bytes(&path));
            look_at_backlog(directory, &name, &mut place, &mut show)?;
            places.push(place);
        } else if name.starts_with("corrupt-") {
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            let mut place = Place::new(&name, "set_aside", bytes.max(directory_bytes(&path)));
            place.fault = Some("set aside when it was found damaged; a person should look at it".to_owned());
            places.push(place);
        }
    }
    Ok(places)
}

fn look_at_log(
    bytes: &[u8],
    is_kept: bool,
    place: &mut Place,
    show: &mut impl FnMut(Key, &Record, State) -> io::Result<()>,
) -> io::Result<()> {
    let scan = wal::scan(bytes);
    let mut merged_below = 0;
    let mut done = std::collections::BTreeSet::new();
    for item in &scan.items {
        match item {
            Item::Done(ordinals) => done.extend(ordinals.iter().copied()),
            Item::Mark(mark) => merged_below = merged_below.max(mark.merged_below),
            Item::Frame(_) | Item::Part(_) | Item::Notes(_) => {}
        }
    }
    for item in &scan.items {
        let (slot, state) = match item {
            Item::Part(slot) if slot.key.ordinal < merged_below || is_kept => continue,
            Item::Part(slot) => (slot, State::Part),
            Item::Frame(slot) if is_kept || done.contains(&slot.key.ordinal) => (slot, State::Acknowledged),
            Item::Frame(slot) => (slot, State::Waits),
            _ => continue,
        };
        let range = slot.at as usize..slot.at as usize + slot.length as usize;
        if let Some(record) = bytes.get(range).and_then(Record::from_bytes) {
            place.count(&record, state);
            show(slot.key, &record, state)?;
        }
    }
    if scan.damaged_bytes > 0 {
        place.wrong(format!("{} bytes do not check", scan.damaged_bytes), 1);
    }
    Ok(())
}

fn look_at_backlog(
    directory: &Path,
    name: &str,
    place: &mut Place,
    show: &mut impl FnMut(Key, &Record, State) -> io::Result<()>,
) -> io::Result<()> {
    let copy = Copy::of(&directory.join(name), name)?;
    let number = Generation::number_of(name).unwrap_or(0);
    let opened = Generation::attach(&copy.parent, number).and_then(|(mut generation, missing)| {
        let more = generation.open()?;
        Ok((generation, missing.frames + more.frames))
    });
    let (mut generation, missing) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let known = super::summary::Summary::read(&directory.join(name)).unwrap_or_default();
            place.wrong(error.to_string(), known.totals().frames);
            return Ok(());
        }
    };
    if missing > 0 {
        place.wrong("frames that were stored are not there".to_owned(), missing);
    }
    for (key, _) in generation.waiting().map_err(io::Error::other)? {
        match generation.get(key).map_err(io::Error::other)? {
            Some(Some(record)) => {
                place.count(&record, State::Waits);
                show(key, &record, State::Waits)?;
            }
            _ => place.wrong("a frame's checksum is wrong".to_owned(), 1),
        }
    }
    for (key, record) in generation.acknowledged().map_err(io::Error::other)? {
        place.count(&record, State::Acknowledged);
        show(key, &record, State::Acknowledged)?;
    }
    Ok(())
}

/// A copy of a database in the temporary directory, deleted when dropped.
struct Copy {
    parent: PathBuf,
}

impl Copy {
    fn of(from: &Path, name: &str) -> io::Result<Self> {
        let unique = uuid::Uuid::now_v7();
        let parent = std::env::temp_dir().join(format!("foodflow-look-{unique}"));
        let copy = Self { parent };
        copy_tree(from, &copy.parent.join(name))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.parent) {
            tracing::debug!(%error, "a temporary copy stays");
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
