//! What is handed out to be sent, and in which order? Per lane by age; readings that have no identity yet are given
//! one on the way, and nothing overtakes them.

use std::collections::BTreeMap;

use protocol::{Micros, lane::Lane};

use super::{
    record::{Key, Record},
    store::{DAMAGED, Store, StoreError, Totals, gap},
    wal,
};

/// Frames that one replay lets wait again.
pub const REPLAY_FRAMES_MAX: u64 = 100_000;
/// Bytes rewritten at a time for a replay.
const REPLAY_BYTES: usize = 256 << 10;

/// What a replay let wait again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Frames and their readings.
    pub totals: Totals,
    /// Whether more was asked for than one replay does or the quota has room for.
    pub is_cut: bool,
}

impl Store {
    /// Up to `max` frames after an ordinal, oldest first: events, or for any other lane all readings. Damaged ones
    /// are given up on record.
    pub fn after(
        &mut self,
        lane: Lane,
        after: Option<u64>,
        max: usize,
    ) -> Result<Vec<(Key, Record)>, StoreError> {
        loop {
            let mut keys = self.keys_after(lane, after, max);
            if lane != Lane::Events
                && let Some((index, first)) = self.first_part()
            {
                keys.retain(|key| key.ordinal < first);
                if keys.is_empty() && self.merge_into_log(index)? {
                    continue;
                }
            }
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let found: Vec<_> = keys
                .iter()
                .filter_map(|key| Some((*key, self.get(*key)?)))
                .collect();
            // All damaged: they are gone now, look further.
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    /// The oldest part and the segment it is in.
    fn first_part(&self) -> Option<(usize, u64)> {
        let firsts = self.segments.iter().enumerate().filter_map(|(index, segment)| {
            let ordinal = segment.parts.keys().next()?;
            Some((index, *ordinal))
        });
        firsts.min_by_key(|(_, ordinal)| *ordinal)
    }

    fn keys_after(&mut self, lane: Lane, after: Option<u64>, max: usize) -> Vec<Key> {
        let lanes: &[Lane] = if lane == Lane::Events {
            &[Lane::Events]
        } else {
            &[Lane::Live, Lane::Backfill]
        };
        let Some(from) = after.map_or(Some(0), |after| after.checked_add(1)) else {
            return Vec::new();
        };
        let mut found: BTreeMap<u64, Key> = BTreeMap::new();
        for lane in lanes {
            let range = Key {
                lane: *lane,
                ordinal: from,
            }..=Key {
                lane: *lane,
                ordinal: u64::MAX,
            };
            for segment in &self.segments {
                let keys = segment.waiting.range(range.clone()).take(max);
                found.extend(keys.map(|(key, _)| (key.ordinal, *key)));
            }
        }
        let mut index = 0;
        while index < self.generations.len() {
            // Databases are opened only as far as they are needed: those of younger frames are not.
            let enough = found.keys().nth(max.saturating_sub(1)).copied();
            let first = self.generations[index]
                .summary
                .ordinals
                .map_or(u64::MAX, |(first, _)| first);
            if enough.is_some_and(|enough| first > enough) {
                index += 1;
                continue;
            }
            if let Some(keys) = self.keys_of_generation(index, lanes, after, max) {
                found.extend(keys.into_iter().map(|key| (key.ordinal, key)));
                index += 1;
            }
        }
        found.into_values().take(max).collect()
    }

    /// None when the generation had to be taken out of use.
    fn keys_of_generation(
        &mut self,
        index: usize,
        lanes: &[Lane],
        after: Option<u64>,
        max: usize,
    ) -> Option<Vec<Key>> {
        let mut keys = Vec::new();
        for lane in lanes {
            let generation = &mut self.generations[index];
            if generation.summary.waiting[usize::from(lane.number())].frames == 0 {
                continue;
            }
            let was_open = generation.is_open();
            let found = generation
                .open()
                .and_then(|missing| Ok((missing, generation.after(*lane, after, max)?)));
            match found {
                Ok((missing, found)) => {
                    keys.extend(found);
                    if missing.frames > 0 {
                        let generation = self.generations.remove(index)?;
                        self.note_missing(&generation, missing);
                        self.generations.insert(index, generation);
                    }
                }
                Err(error) => {
                    self.quarantine(index, &error);
                    return None;
                }
            }
            if !was_open {
                self.close_idle();
            }
        }
        Some(keys)
    }

    /// One frame that waits; a damaged one is given up on record.
    pub fn get(&mut self, key: Key) -> Option<Record> {
        let logged = self
            .segments
            .iter()
            .rev()
            .find_map(|segment| Some((segment, segment.waiting.get(&key)?)));
        if let Some((segment, slot)) = logged {
            let meta = slot.meta.clone();
            if let Some(record) = segment.read(slot) {
                return Some(record);
            }
            self.give_up_damaged(key, (meta.sealed_us, meta.sealed_us), u64::from(meta.readings));
            return None;
        }
        for index in 0..self.generations.len() {
            match self.generations[index].get(key) {
                Ok(None) => {}
                Ok(Some(Some(record))) => return Some(record),
                Ok(Some(None)) => {
                    let waiting = self.generations[index].waiting().unwrap_or_default();
                    let meta = waiting
                        .into_iter()
                        .find(|(found, _)| *found == key)
                        .map(|(_, meta)| meta);
                    let at_us = meta.as_ref().map_or(0, |meta| meta.sealed_us);
                    self.give_up_damaged(
                        key,
                        (at_us, at_us),
                        meta.map_or(0, |meta| u64::from(meta.readings)),
                    );
                    return None;
                }
                Err(error) => {
                    self.quarantine(index, &error);
                    return None;
                }
            }
        }
        None
    }

    fn give_up_damaged(&mut self, key: Key, times: (Micros, Micros), readings: u64) {
        self.remove(&[key]);
        self.gaps
            .push(gap(DAMAGED, times, Totals { frames: 1, readings }));
    }

    /// Lets frames that the hub has acknowledged wait again, under the identity they had, as far as they were sealed
    /// in a time and are still on disk.
    pub fn replay(&mut self, from_us: Micros, to_us: Micros) -> Result<Replayed, StoreError> {
        let mut replayed = Replayed::default();
        let mut index = 0;
        while index < self.generations.len() {
            let max = usize::try_from(REPLAY_FRAMES_MAX - replayed.totals.frames).unwrap_or(0);
            match self.generations[index].replay((from_us, to_us), max) {
                Ok(metas) => {
                    for meta in &metas {
                        replayed.totals.add(meta);
                    }
                    index += 1;
                }
                Err(error) => self.quarantine(index, &error),
            }
            self.close_idle();
        }
        for kept in self.kept.clone() {
            if kept.from_us <= to_us && kept.to_us >= from_us {
                let bytes = kept.read().map_err(|source| self.io_error(source))?;
                self.replay_segment(&bytes, (from_us, to_us), &mut replayed)?;
            }
        }
        let paths: Vec<_> = self
            .segments
            .iter()
            .map(|segment| segment.path().to_owned())
            .collect();
        for path in paths {
            let bytes = std::fs::read(path).map_err(|source| self.io_error(source))?;
            self.replay_segment(&bytes, (from_us, to_us), &mut replayed)?;
        }
        replayed.is_cut |= replayed.totals.frames >= REPLAY_FRAMES_MAX;
        Ok(replayed)
    }

    /// Writes frames of a segment's bytes to the log again, unless they wait.
    fn replay_segment(
        &mut self,
        bytes: &[u8],
        times: (Micros, Micros),
        replayed: &mut Replayed,
    ) -> Result<(), StoreError> {
        let (mut group, mut slots) = (Vec::new(), Vec::new());
        for slot in super::segment::frames_between(bytes, times.0, times.1) {
            let used = self.disk_bytes()
                + self.limits.headroom_bytes()
                + group.len() as u64
                + u64::from(slot.length);
            if replayed.totals.frames >= REPLAY_FRAMES_MAX || used > self.limits.quota_bytes {
                replayed.is_cut = true;
                break;
            }
            let range = slot.at as usize..slot.at as usize + slot.length as usize;
            let record = bytes.get(range).and_then(Record::from_bytes);
            let Some(record) = record.filter(|_| !self.waits(slot.key)) else {
                continue;
            };
            replayed.totals.add(&record.meta);
            slots.push((
                false,
                wal::put_frame(&mut group, slot.key.ordinal, &record, false),
            ));
            if group.len() >= REPLAY_BYTES {
                self.log(&group, std::mem::take(&mut slots))?;
                group.clear();
            }
        }
        if slots.is_empty() {
            return Ok(());
        }
        self.log(&group, slots)
    }

    fn waits(&mut self, key: Key) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.waiting.contains_key(&key))
            || self
                .generations
                .iter_mut()
                .any(|generation| matches!(generation.get(key), Ok(Some(_))))
    }
}
