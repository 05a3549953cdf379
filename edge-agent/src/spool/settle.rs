//! How does what waits move out of the log? Parts are merged into frames of the backlog, then frames that still wait
//! are copied, then the segment is kept or deleted. In small steps, so that new readings never wait long.

use protocol::{Micros, lane::Lane};

use super::{
    generation::{EMPTY_BYTES, Generation},
    kept::Kept,
    merge::{Merger, Refused},
    record::{Key, Record},
    segment::{Segment, sync_directory},
    store::{DAMAGED, Store, StoreError, Totals, gap},
    wal::{self, Mark},
};

/// Frames that one step merges or copies.
const FRAMES_AT_ONCE: usize = 4;
const COPIED_AT_ONCE: usize = 32;
/// Closed segments that may stay as they are while all in them is on its way.
const CLOSED_MAX: usize = 2;
/// Numbers start here for a boot whose count was lost with damaged files: never used before.
const LOST_COUNT: u64 = 1 << 40;
/// Databases open at a time: the one written to and the one being drained.
const OPEN_MAX: usize = 2;

/// What merging some parts gave.
#[derive(Debug, Default)]
struct Merging {
    frames: Vec<(Key, Record)>,
    mark: Mark,
    damaged: Totals,
}

impl Store {
    /// One step for closed segments; whether there was something to do.
    pub fn settle(&mut self) -> Result<bool, StoreError> {
        let closed = self.segments.len().saturating_sub(1);
        let Some(index) = (0..closed).find(|index| self.is_ripe(*index, closed)) else {
            return Ok(false);
        };
        let segment = &self.segments[index];
        if !segment.parts.is_empty() {
            self.merge_into_backlog(index)?;
        } else if !segment.waiting.is_empty() {
            self.copy_into_backlog(index)?;
        } else {
            self.retire(index)?;
        }
        Ok(true)
    }

    /// Whether a closed segment can be worked on.
    fn is_ripe(&self, index: usize, closed: usize) -> bool {
        let segment = &self.segments[index];
        let is_empty = segment.parts.is_empty() && segment.waiting.is_empty();
        if !self.limits.has_backlog() {
            return is_empty;
        }
        is_empty || !segment.parts.is_empty() || closed > CLOSED_MAX
    }

    fn merge_into_backlog(&mut self, index: usize) -> Result<(), StoreError> {
        self.active_generation()?;
        // The database may know of a merge that the log does not: then these parts are gone from it now.
        if self.segments[index].parts.is_empty() {
            return Ok(());
        }
        let merging = merge(&self.segments[index], &self.mark, self.boot);
        let bytes: usize = merging
            .frames
            .iter()
            .map(|(_, record)| record.envelope.len())
            .sum();
        self.make_room(2 * bytes as u64)?;
        let generation = self.active_generation()?;
        self.generations[generation].put(&merging.frames, &merging.mark)?;
        let mut bytes = Vec::new();
        wal::put_mark(&mut bytes, &merging.mark);
        self.merged(merging);
        self.log(&bytes, Vec::new())
    }

    /// Merges parts of a segment into frames in the log itself: they are about to be sent. Whether there were any.
    pub(super) fn merge_into_log(&mut self, index: usize) -> Result<bool, StoreError> {
        let merging = merge(&self.segments[index], &self.mark, self.boot);
        let mut bytes = Vec::new();
        let slots = merging.frames.iter().map(|(key, record)| {
            let slot = wal::put_frame(&mut bytes, key.ordinal, record, false);
            (false, slot)
        });
        let slots = slots.collect();
        wal::put_mark(&mut bytes, &merging.mark);
        self.log(&bytes, slots)?;
        Ok(self.merged(merging))
    }

    fn merged(&mut self, merging: Merging) -> bool {
        for (_, Record { meta, .. }) in &merging.frames {
            super::trace_spooled(meta);
        }
        if merging.damaged.frames > 0 {
            self.gaps
                .push(gap(DAMAGED, (0, self.notes.sealed_us), merging.damaged));
        }
        self.mark = merging.mark;
        let below = self.mark.merged_below;
        self.segments.iter_mut().for_each(|segment| segment.merged(below));
        !merging.frames.is_empty()
    }

    fn copy_into_backlog(&mut self, index: usize) -> Result<(), StoreError> {
        let segment = &self.segments[index];
        let (mut frames, mut damaged) = (Vec::new(), Vec::new());
        for slot in segment.waiting.values().take(COPIED_AT_ONCE) {
            match segment.read(slot) {
                Some(record) => frames.push((slot.key, record)),
                None => damaged.push((slot.key, slot.meta.clone())),
            }
        }
        let bytes: usize = frames.iter().map(|(_, record)| record.envelope.len()).sum();
        self.make_room(2 * bytes as u64)?;
        // Making room may have given this very segment up.
        let generation = self.active_generation()?;
        let mark = self.mark.clone();
        self.generations[generation].put(&frames, &mark)?;
        if let Some(segment) = self.segments.get_mut(index) {
            for key in frames
                .iter()
                .map(|(key, _)| key)
                .chain(damaged.iter().map(|(key, _)| key))
            {
                segment.waiting.remove(key);
            }
        }
        for (_, meta) in damaged {
            let mut lost = Totals::default();
            lost.add(&meta);
            self.gaps
                .push(gap(DAMAGED, (meta.sealed_us, meta.sealed_us), lost));
        }
        Ok(())
    }

    fn retire(&mut self, index: usize) -> Result<(), StoreError> {
        let Some(segment) = self.segments.remove(index) else {
            return Ok(());
        };
        if self.limits.keep_us > 0 && segment.done > 0 {
            let kept = Kept::keep(&self.directory, &segment).map_err(|source| self.io_error(source))?;
            self.kept.push_back(kept);
        } else {
            segment.delete().map_err(|source| self.io_error(source))?;
        }
        sync_directory(&self.directory).map_err(|source| self.io_error(source))
    }

    /// Index of the generation that is written to, opened; a new one where the last is full or fails.
    pub(super) fn active_generation(&mut self) -> Result<usize, StoreError> {
        let full = self.limits.generation_bytes;
        if let Some(last) = self.generations.len().checked_sub(1)
            && self.generations[last].disk_bytes() < full.max(2 * EMPTY_BYTES)
        {
            match self.generations[last].open() {
                Ok(missing) => {
                    if missing.frames > 0 {
                        let generation = self.generations.remove(last).expect("it is the last");
                        self.note_missing(&generation, missing);
                        self.generations.push_back(generation);
                    }
                    self.learn(last);
                    return Ok(last);
                }
                Err(error) => self.quarantine(last, &error),
            }
        }
        self.make_room(EMPTY_BYTES)?;
        let number = self.generations.back().map_or(0, |generation| generation.number);
        let aside = highest_set_aside(&self.directory);
        let generation = Generation::create(&self.directory, number.max(aside) + 1, &self.mark)?;
        self.generations.push_back(generation);
        self.close_idle();
        Ok(self.generations.len() - 1)
    }

    /// Takes over a mark that only the database has: the agent ended between its two writes.
    fn learn(&mut self, index: usize) {
        let mark = &self.generations[index].summary.mark;
        if mark.merged_below > self.mark.merged_below {
            self.mark = mark.clone();
            let below = self.mark.merged_below;
            self.segments.iter_mut().for_each(|segment| segment.merged(below));
        }
    }

    /// Closes databases beyond those that are in use.
    pub(super) fn close_idle(&mut self) {
        let open = self
            .generations
            .iter()
            .filter(|generation| generation.is_open())
            .count();
        let last = self.generations.len().saturating_sub(1);
        let mut surplus = open.saturating_sub(OPEN_MAX);
        // The youngest but one first: draining works from the old end.
        for generation in self.generations.iter_mut().take(last).rev() {
            if surplus > 0 && generation.is_open() {
                if let Err(error) = generation.close() {
                    tracing::warn!(%error, "a generation could not be closed");
                }
                surplus -= 1;
            }
        }
    }

    /// What is done once in a while: acknowledgements to disk, what is old or drained deleted.
    pub fn tend(&mut self, now_us: Micros) {
        for generation in &mut self.generations {
            if let Err(error) = generation.flush() {
                tracing::warn!(%error, "acknowledgements not written: frames may be sent again");
            }
        }
        let oldest_us = now_us - self.limits.keep_us;
        while self.kept.front().is_some_and(|kept| kept.to_us < oldest_us) {
            if let Some(Err(error)) = self.kept.pop_front().map(Kept::delete) {
                tracing::warn!(%error, "a kept segment could not be deleted");
            }
        }
        self.drop_drained(oldest_us);
        self.close_idle();
    }

    fn drop_drained(&mut self, oldest_us: Micros) {
        let last = self.generations.len().saturating_sub(1);
        let is_done = |generation: &Generation| {
            generation.summary.totals().frames == 0
                && (self.limits.keep_us == 0
                    || generation
                        .summary
                        .sealed_us
                        .is_none_or(|(_, to_us)| to_us < oldest_us))
        };
        let drained: Vec<usize> = (0..last)
            .filter(|index| is_done(&self.generations[*index]))
            .collect();
        for index in drained.into_iter().rev() {
            if let Some(Err(error)) = self.generations.remove(index).map(Generation::delete) {
                tracing::warn!(%error, "a drained generation could not be deleted");
            }
        }
    }
}

/// Merges the first parts of a segment into a few frames.
fn merge(segment: &Segment, mark: &Mark, boot: uuid::Uuid) -> Merging {
    let mut merging = Merging {
        mark: mark.clone(),
        ..Merging::default()
    };
    let mut parts = segment.parts.values().peekable();
    while merging.frames.len() < FRAMES_AT_ONCE && parts.peek().is_some() {
        let (mut merger, mut first) = (Merger::default(), None);
        while let Some(slot) = parts.peek() {
            let ordinal = slot.key.ordinal;
            let taken = segment
                .read(slot)
                .map_or(Err(Refused::Damaged), |part| merger.push(&part));
            match taken {
                Ok(()) => drop(first.get_or_insert(ordinal)),
                Err(Refused::Damaged) => merging.damaged.add(&slot.meta),
                Err(Refused::Full) => break,
            }
            merging.mark.merged_below = ordinal + 1;
            parts.next();
        }
        let numbering = &mut merging.mark.numbering;
        let frame = merger.finish(|of| {
            let start = if of == boot {
                0
            } else {
                LOST_COUNT + first.unwrap_or(0)
            };
            let next = numbering.entry(of).or_insert(start);
            *next += 1;
            *next - 1
        });
        if let (Some(ordinal), Some(record)) = (first, frame) {
            let lane = Lane::Backfill;
            merging.frames.push((Key { lane, ordinal }, record));
        }
    }
    merging
}

/// A number that was set aside is not used again: its name says when it was damaged.
fn highest_set_aside(directory: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let numbers = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_prefix("corrupt-")?
            .split("-pack-")
            .nth(1)?
            .parse::<u64>()
            .ok()
    });
    numbers.max().unwrap_or(0)
}
