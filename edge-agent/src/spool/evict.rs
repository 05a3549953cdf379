//! What goes when there is no room? First what the hub has already, then the oldest readings, then the pictures of
//! events, and the oldest events last. Whatever waited and goes is counted and told.

use protocol::{Micros, event::Event, frame::Frame, lane::Lane};

use super::{
    generation::Generation,
    kept::Kept,
    record::{Key, Meta, Record},
    segment::Segment,
    store::{Store, StoreError, Totals, gap},
    wal,
};

/// Why records are given up.
pub const QUOTA: &str = "quota";

/// What can be given up as one.
#[derive(Clone, Copy, Debug)]
enum Place {
    Generation(usize),
    Segment(usize),
}

/// What is taken out of a place that is given up.
#[derive(Debug, Default)]
struct Taken {
    events: Vec<(Key, Record)>,
    lost: Totals,
    sealed_us: Option<(Micros, Micros)>,
    had_readings: bool,
}

impl Taken {
    fn lose(&mut self, meta: &Meta) {
        self.lost.add(meta);
        self.span((meta.sealed_us, meta.sealed_us));
    }

    fn span(&mut self, (from_us, to_us): (Micros, Micros)) {
        let (first, last) = self.sealed_us.unwrap_or((from_us, to_us));
        self.sealed_us = Some((first.min(from_us), last.max(to_us)));
    }
}

impl Store {
    /// Gives up what must go so that this many bytes more fit into the quota.
    pub fn make_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        let most = self.limits.quota_bytes - self.limits.headroom_bytes();
        while self.disk_bytes() + bytes > most {
            if !self.give_up_oldest()? {
                break;
            }
        }
        Ok(())
    }

    /// Deletes the oldest of what the hub has; whether there was any.
    pub(super) fn give_up_kept(&mut self) -> Result<bool, StoreError> {
        if let Some(kept) = self.kept.pop_front() {
            Kept::delete(kept).map_err(|source| self.io_error(source))?;
            return Ok(true);
        }
        let is_drained = |generation: &Generation| generation.summary.totals().frames == 0;
        let last = self.generations.len().saturating_sub(1);
        match self.generations.iter().take(last).position(is_drained) {
            Some(index) => self.delete_generation(index).map(|()| true),
            None => Ok(false),
        }
    }

    /// Whether anything could go.
    fn give_up_oldest(&mut self) -> Result<bool, StoreError> {
        if self.give_up_kept()? {
            return Ok(true);
        }
        if let Some(place) = self.oldest_that_can_go() {
            return self.give_up(place, false).map(|()| true);
        }
        // The segment that is written to is all that is left of the log.
        let is_large = |segment: &Segment| segment.bytes() >= self.limits.quota_bytes / 4;
        if self.segments.back().is_some_and(is_large) {
            self.begin_segment()?;
            return Ok(true);
        }
        // Nothing but plain events: the oldest go, the journal still has those of control points.
        let place = if self.generations.is_empty() {
            (self.segments.len() > 1).then_some(Place::Segment(0))
        } else {
            Some(Place::Generation(0))
        };
        place.map_or(Ok(false), |place| self.give_up(place, true).map(|()| true))
    }

    /// The oldest place that holds readings or pictures.
    fn oldest_that_can_go(&mut self) -> Option<Place> {
        for (index, generation) in self.generations.iter_mut().enumerate() {
            if generation.summary.telemetry().frames > 0 {
                return Some(Place::Generation(index));
            }
            if !generation.is_plain {
                let events = read_events(generation).unwrap_or_default();
                if events
                    .iter()
                    .any(|(_, record)| without_pictures(record).is_some())
                {
                    return Some(Place::Generation(index));
                }
                generation.is_plain = true;
            }
        }
        let closed = self.segments.len().saturating_sub(1);
        for (index, segment) in self.segments.iter_mut().take(closed).enumerate() {
            if segment.slots().any(|slot| slot.key.lane != Lane::Events) {
                return Some(Place::Segment(index));
            }
            if !segment.is_plain {
                let mut events = segment.waiting.values().filter_map(|slot| segment.read(slot));
                if segment.waiting.is_empty() || events.any(|record| without_pictures(&record).is_some()) {
                    return Some(Place::Segment(index));
                }
                segment.is_plain = true;
            }
        }
        None
    }

    fn give_up(&mut self, place: Place, is_last_resort: bool) -> Result<(), StoreError> {
        let taken = match place {
            Place::Generation(index) => self.take_generation(index),
            Place::Segment(index) => self.take_segment(index),
        };
        self.carry_over(taken, is_last_resort)?;
        match place {
            Place::Generation(index) => self.delete_generation(index),
            Place::Segment(index) => match self.segments.remove(index).map(Segment::delete) {
                Some(Err(source)) => Err(self.io_error(source)),
                _ => Ok(()),
            },
        }
    }

    fn delete_generation(&mut self, index: usize) -> Result<(), StoreError> {
        match self.generations.remove(index).map(Generation::delete) {
            Some(Err(source)) => Err(self.io_error(source)),
            _ => Ok(()),
        }
    }

    fn take_generation(&mut self, index: usize) -> Taken {
        let generation = &mut self.generations[index];
        let events = generation.summary.waiting[usize::from(Lane::Events.number())];
        let mut taken = Taken {
            lost: generation.summary.telemetry(),
            sealed_us: generation.summary.sealed_us,
            ..Taken::default()
        };
        if events.frames > 0 {
            match read_events(generation) {
                Ok(events) => taken.events = events,
                // It cannot be read and goes whole.
                Err(error) => {
                    tracing::error!(%error, "events of a generation cannot be read");
                    taken.lost.include(events);
                }
            }
        }
        taken.had_readings = taken.lost.frames > 0;
        taken
    }

    fn take_segment(&mut self, index: usize) -> Taken {
        let mut taken = Taken::default();
        let segment = &self.segments[index];
        for slot in segment.slots() {
            if slot.key.lane == Lane::Events {
                taken
                    .events
                    .extend(segment.read(slot).map(|record| (slot.key, record)));
            } else {
                taken.lose(&slot.meta);
            }
        }
        taken.had_readings = taken.lost.frames > 0;
        taken
    }

    /// Writes events of a place that is given up to the log, as far as they have room there, and tells the rest.
    fn carry_over(&mut self, mut taken: Taken, is_last_resort: bool) -> Result<(), StoreError> {
        let free = self.limits.quota_bytes.saturating_sub(self.disk_bytes());
        let most = self.limits.headroom_bytes().min(free);
        let is_too_much = |events: &[(Key, Record)]| size(events) > most;
        if is_last_resort {
            let doomed = taken.events.len().div_ceil(2);
            let given_up: Vec<_> = taken.events.drain(..doomed).collect();
            for (_, record) in &given_up {
                taken.lose(&record.meta);
            }
        } else if !taken.had_readings || is_too_much(&taken.events) {
            drop_pictures(&mut taken.events);
        }
        while is_too_much(&taken.events) {
            let (_, record) = taken.events.remove(0);
            taken.lose(&record.meta);
        }
        let mut bytes = Vec::new();
        let slots: Vec<_> = taken
            .events
            .iter()
            .map(|(key, record)| (false, wal::put_frame(&mut bytes, key.ordinal, record, false)))
            .collect();
        if !slots.is_empty() {
            self.log(&bytes, slots)?;
        }
        if taken.lost.frames > 0 {
            let times = taken.sealed_us.unwrap_or((0, self.notes.sealed_us));
            self.gaps.push(gap(QUOTA, times, taken.lost));
        }
        Ok(())
    }
}

fn read_events(
    generation: &mut Generation,
) -> Result<Vec<(Key, Record)>, super::generation::GenerationError> {
    let mut events = Vec::new();
    for (key, _) in generation.waiting()? {
        if key.lane == Lane::Events
            && let Some(Some(record)) = generation.get(key)?
        {
            events.push((key, record));
        }
    }
    Ok(events)
}

fn size(events: &[(Key, Record)]) -> u64 {
    events
        .iter()
        .map(|(_, record)| record.envelope.len() as u64 + 64)
        .sum()
}

fn drop_pictures(events: &mut [(Key, Record)]) {
    for (_, record) in events {
        if let Some(envelope) = without_pictures(record) {
            record.envelope = envelope;
        }
    }
}

/// A frame without its pictures; none when it has none.
fn without_pictures(record: &Record) -> Option<Vec<u8>> {
    let mut frame = Frame::decode(&record.envelope).ok()?;
    let mut has_any = false;
    for event in &mut frame.events {
        if let Event::Inspection(inspection) = event {
            has_any |= inspection.thumbnail_jpeg.take().is_some();
        }
    }
    has_any.then(|| frame.encode().ok()).flatten()
}
