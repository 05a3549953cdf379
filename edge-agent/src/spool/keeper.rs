//! What does the spool's thread do? Journal first, then the log, then whoever asks; in between it tidies up. It owns
//! everything on disk.

use std::{
    collections::BTreeSet, sync::Arc, sync::atomic::AtomicBool, sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use protocol::{Micros, event::Event, frame::FrameId, lane::Lane, tag::Dictionary};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::{
    BATCHES_WAITING_MAX, Batch, Stored,
    dictionaries::Dictionaries,
    evict,
    fetch::Replayed,
    journal::Journal,
    record::{Key, Record},
    store::{LIVE_WAITING_MAX, Notes, Store, StoreError},
    trace_spooled,
};
use crate::{clock, health::Health};

/// After a failed write the disk is tried again this often.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How often gauges that cost a look at the disk are renewed.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Dictionaries of the past that stay for replays.
const DICTIONARIES_SPARED: usize = 16;

/// A question to the spool's thread.
pub(super) enum Request {
    After(Lane, Option<u64>, usize, oneshot::Sender<Vec<(Key, Record)>>),
    Get(Vec<Key>, oneshot::Sender<Vec<(Key, Record)>>),
    Remove(Vec<(FrameId, Key)>),
    Dictionary(Uuid, oneshot::Sender<Option<Vec<u8>>>),
    Dictionaries(oneshot::Sender<Vec<Uuid>>),
    Replay(Micros, Micros, oneshot::Sender<Option<Replayed>>),
    Adopt(Box<Dictionary>, oneshot::Sender<bool>),
}

/// Everything the spool's thread owns.
pub(super) struct Keeper {
    pub(super) store: Store,
    pub(super) journal: Journal,
    pub(super) dictionaries: Dictionaries,
    pub(super) current: Uuid,
    pub(super) health: Arc<Health>,
    /// What was stored last.
    pub(super) changed: watch::Sender<Stored>,
    /// Whether so much waits that readings are sealed without an identity.
    pub(super) is_backed_up: Arc<AtomicBool>,
    /// Taken and not yet on disk.
    pub(super) waiting: Vec<Batch>,
}

impl Keeper {
    pub(super) async fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        mut requests: mpsc::Receiver<Request>,
    ) {
        let mut measure = tokio::time::interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        let mut is_failing = false;
        let mut has_requests = true;
        loop {
            tokio::select! {
                biased;
                // While the disk refuses nothing more is taken: the channel fills and the pipeline notices.
                count = batches.recv_many(&mut taken, BATCHES_WAITING_MAX), if !is_failing => {
                    if count == 0 {
                        break;
                    }
                    self.waiting.append(&mut taken);
                    is_failing = !self.store_waiting();
                    if !is_failing {
                        self.settle();
                    }
                }
                () = tokio::time::sleep(RETRY_EVERY), if is_failing => is_failing = !self.store_waiting(),
                request = requests.recv(), if has_requests => match request {
                    Some(request) => self.answer(request),
                    None => has_requests = false,
                },
                _ = measure.tick() => self.measure(),
            }
        }
        if !self.waiting.is_empty() && !self.store_waiting() {
            tracing::error!("the last readings could not be stored");
        }
        if let Err(error) = self.journal.checkpoint(clock::now_us()) {
            tracing::warn!(%error, "no checkpoint of the journal");
        }
        self.store.close();
    }

    /// Writes everything that waits as one group; whether the disk took it.
    fn store_waiting(&mut self) -> bool {
        let result = self.try_store();
        self.tell_gaps();
        match result {
            Ok(keys) => {
                self.waiting.clear();
                let live = keys.into_iter().filter(|key| key.lane == Lane::Live);
                let rewinds = self.changed.borrow().rewinds;
                self.changed.send_replace(Stored {
                    live: live.collect(),
                    rewinds,
                });
                true
            }
            Err(error) => {
                self.health.spool.write_errors.fetch_add(1, Relaxed);
                tracing::error!(%error, "the spool cannot write; trying again");
                false
            }
        }
    }

    fn try_store(&mut self) -> Result<Vec<Key>, StoreError> {
        let now_us = clock::now_us();
        let path = self.journal.path().to_owned();
        // The journal first: an event is on record before it can be sent. Events are taken out once written, so
        // that a retry does not write them twice.
        let events: Vec<Event> = self
            .waiting
            .iter()
            .flat_map(|batch| batch.journal.clone())
            .collect();
        self.journal
            .append(&events, now_us)
            .map_err(|source| StoreError::Io { path, source })?;
        self.waiting.iter_mut().for_each(|batch| batch.journal.clear());
        let Some(last) = self.waiting.last() else {
            return Ok(Vec::new());
        };
        let notes = Notes {
            states: last.states.clone(),
            journal_seq: self.journal.seq(),
            sealed_us: last.sealed_us,
        };
        let records: Vec<Record> = self
            .waiting
            .iter_mut()
            .flat_map(|batch| std::mem::take(&mut batch.records))
            .collect();
        let readings: u64 = records.iter().map(|record| u64::from(record.meta.readings)).sum();
        let keys = match self.store.append(&records, notes) {
            Ok(keys) => keys,
            Err(error) => {
                if let Some(first) = self.waiting.first_mut() {
                    first.records = records;
                }
                return Err(error);
            }
        };
        self.health.spool.spooled_readings.fetch_add(readings, Relaxed);
        self.gauge();
        // Parts have no name yet; they get one when they are merged.
        let named = records
            .iter()
            .filter(|record| record.meta.id.lane != Lane::Backfill);
        named.for_each(|record| trace_spooled(&record.meta));
        Ok(keys)
    }

    /// One step of moving what waits out of the log.
    fn settle(&mut self) {
        if let Err(error) = self.store.settle() {
            // It stays in the log, which is as durable.
            tracing::warn!(%error, "the backlog takes nothing now; trying again");
        }
        self.tell_gaps();
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::After(lane, after, max, reply) => {
                let frames = self.store.after(lane, after, max).unwrap_or_else(|error| {
                    tracing::error!(%error, "the spool cannot be read");
                    Vec::new()
                });
                reply.send(frames).unwrap_or_default();
            }
            Request::Get(keys, reply) => {
                let found = keys
                    .into_iter()
                    .filter_map(|key| Some((key, self.store.get(key)?)));
                reply.send(found.collect()).unwrap_or_default();
            }
            Request::Remove(frames) => self.remove(&frames),
            Request::Dictionary(id, reply) => reply.send(self.dictionaries.get(id)).unwrap_or_default(),
            Request::Dictionaries(reply) => {
                reply
                    .send(self.needed().into_iter().collect())
                    .unwrap_or_default();
            }
            Request::Adopt(dictionary, reply) => reply.send(self.adopt(&dictionary)).unwrap_or_default(),
            Request::Replay(from_us, to_us, reply) => {
                reply.send(self.replay(from_us, to_us)).unwrap_or_default();
            }
        }
        self.tell_gaps();
    }

    fn remove(&mut self, frames: &[(FrameId, Key)]) {
        let keys: Vec<Key> = frames.iter().map(|(_, key)| *key).collect();
        let removed = self.store.remove(&keys);
        let readings: u64 = removed.iter().map(|meta| u64::from(meta.readings)).sum();
        self.health
            .spool
            .acknowledged_readings
            .fetch_add(readings, Relaxed);
        self.gauge();
    }

    fn replay(&mut self, from_us: Micros, to_us: Micros) -> Option<Replayed> {
        match self.store.replay(from_us, to_us) {
            Ok(replayed) => {
                tracing::info!(
                    frames = replayed.totals.frames,
                    from_us,
                    to_us,
                    "frames wait again for the hub"
                );
                self.changed.send_modify(|stored| stored.rewinds += 1);
                self.gauge();
                Some(replayed)
            }
            Err(error) => {
                tracing::error!(%error, "what was kept cannot be read");
                None
            }
        }
    }

    fn gauge(&self) {
        let totals = self.store.totals();
        self.health.spool.backlog_frames.store(totals.frames, Relaxed);
        self.health.spool.backlog_readings.store(totals.readings, Relaxed);
        self.is_backed_up
            .store(self.store.live_waiting() >= LIVE_WAITING_MAX, Relaxed);
    }

    /// Shows what an earlier start left, before anything is taken; nothing here opens a database.
    pub(super) fn begin(&mut self) {
        self.gauge();
        self.tell_gaps();
    }

    /// Renews the costlier gauges and tidies up.
    fn measure(&mut self) {
        self.gauge();
        self.settle();
        let now_us = clock::now_us();
        self.store.tend(now_us);
        if let Err(error) = self.journal.tend(now_us) {
            tracing::warn!(%error, "no checkpoint of the journal; trying again");
        }
        self.health
            .spool
            .oldest_us
            .store(self.store.oldest_us().unwrap_or(0), Relaxed);
        self.health
            .spool
            .disk_bytes
            .store(self.store.disk_bytes(), Relaxed);
        if let Err(error) = self.dictionaries.prune(&self.needed(), DICTIONARIES_SPARED) {
            tracing::warn!(%error, "unneeded dictionaries not deleted");
        }
    }

    /// The current dictionary and those that waiting frames need.
    fn needed(&self) -> BTreeSet<Uuid> {
        let mut needed: BTreeSet<Uuid> = self.store.dictionaries().into_iter().collect();
        needed.insert(self.current);
        needed
    }

    /// Makes another dictionary the current one; whether it is on disk.
    fn adopt(&mut self, dictionary: &Dictionary) -> bool {
        match self.dictionaries.keep(dictionary) {
            Ok(id) => {
                self.current = id;
                true
            }
            Err(error) => {
                tracing::error!(%error, "the new dictionary cannot be kept");
                false
            }
        }
    }

    fn tell_gaps(&mut self) {
        for gap in self.store.take_gaps() {
            tracing::error!(frames = gap.frames, readings = gap.readings, reason = %gap.reason, "records given up");
            self.health.spool.lost_readings.fetch_add(gap.readings, Relaxed);
            if gap.reason == evict::QUOTA {
                self.health
                    .spool
                    .evicted_unsent_readings
                    .fetch_add(gap.readings, Relaxed);
            }
            self.health.note_gap(gap);
        }
    }
}
