//! How does what was acquired survive until the hub has it? Append, make durable, only then send; delete on the
//! hub's acknowledgement only. One thread owns the disk; this is its handle and its loop.

pub mod dictionaries;
pub mod generation;
pub mod journal;
pub mod record;
pub mod seal;
pub mod store;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::Duration,
};

use protocol::{
    Micros,
    event::{Event, Gap},
    frame::FrameId,
    lane::Lane,
    tag::Dictionary,
};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use self::{
    dictionaries::Dictionaries,
    journal::Journal,
    record::{Key, Record},
    store::{Limits, Notes, Recovered, Store, StoreError},
};
use crate::{ccp, clock, health::Health};

/// Batches that may wait for the disk: at four a second more than a minute.
const BATCHES_WAITING_MAX: usize = 256;
const REQUESTS_WAITING_MAX: usize = 64;
/// After a failed write the disk is tried again this often.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How often gauges that cost a look at the disk are renewed.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What is stored together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Frames.
    pub records: Vec<Record>,
    /// States of the control points after the events in it.
    pub states: Vec<(String, Vec<u8>)>,
    /// Events of the legal record among the batch's; they go to the journal first.
    pub journal: Vec<Event>,
    /// When it was sealed.
    pub sealed_us: Micros,
}

/// A question to the spool's thread.
enum Request {
    After(Lane, Option<u64>, usize, oneshot::Sender<Vec<(Key, Record)>>),
    Get(Vec<Key>, oneshot::Sender<Vec<(Key, Record)>>),
    Remove(Vec<(FrameId, Key)>),
    Dictionary(Uuid, oneshot::Sender<Option<Vec<u8>>>),
    Dictionaries(oneshot::Sender<Vec<Uuid>>),
    Adopt(Box<Dictionary>, oneshot::Sender<bool>),
}

/// The pipeline's end: where batches go in.
#[derive(Debug)]
pub struct Appender {
    tx: mpsc::Sender<Batch>,
}

/// The disk does not keep up, or the spool is gone; the batch comes back.
#[derive(Debug)]
pub struct Refused(pub Box<Batch>);

impl Appender {
    /// An appender into a channel that the test reads.
    #[cfg(test)]
    pub(crate) fn into_channel(capacity: usize) -> (Self, mpsc::Receiver<Batch>) {
        let (tx, rx) = mpsc::channel(capacity);
        (Self { tx }, rx)
    }

    /// Whether the next batch will be taken.
    pub fn has_room(&self) -> bool {
        self.tx.capacity() > 0 && !self.tx.is_closed()
    }

    /// Hands a batch over without waiting.
    pub fn append(&self, batch: Batch) -> Result<(), Refused> {
        self.tx.try_send(batch).map_err(|error| match error {
            mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch) => {
                Refused(Box::new(batch))
            }
        })
    }
}

/// The uplink's end: what waits for the hub.
#[derive(Clone, Debug)]
pub struct Outbox {
    tx: mpsc::Sender<Request>,
    changed: watch::Receiver<Vec<Key>>,
}

impl Outbox {
    async fn ask<T: Default>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Request) -> T {
        let (tx, rx) = oneshot::channel();
        if self.tx.send(question(tx)).await.is_err() {
            return T::default();
        }
        rx.await.unwrap_or_default()
    }

    /// Up to `max` frames of a lane after an ordinal, oldest first.
    pub async fn after(&self, lane: Lane, after: Option<u64>, max: usize) -> Vec<(Key, Record)> {
        self.ask(|tx| Request::After(lane, after, max, tx)).await
    }

    /// Those of the keys that are still stored.
    pub async fn get(&self, keys: Vec<Key>) -> Vec<(Key, Record)> {
        self.ask(|tx| Request::Get(keys, tx)).await
    }

    /// Deletes frames that the hub has acknowledged.
    pub async fn remove(&self, frames: Vec<(FrameId, Key)>) {
        if self.tx.send(Request::Remove(frames)).await.is_err() {
            tracing::debug!("the spool is closed: acknowledged frames will be sent again");
        }
    }

    /// A dictionary's envelope.
    pub async fn dictionary(&self, id: Uuid) -> Option<Vec<u8>> {
        self.ask(|tx| Request::Dictionary(id, tx)).await
    }

    /// The current dictionary and those that waiting frames need.
    pub async fn dictionaries(&self) -> Vec<Uuid> {
        self.ask(Request::Dictionaries).await
    }

    /// Makes another dictionary the current one; whether it is on disk. Frames that use it may be appended then.
    pub async fn adopt(&self, dictionary: Dictionary) -> bool {
        self.ask(|tx| Request::Adopt(Box::new(dictionary), tx)).await
    }

    /// Waits for the spool's thread to end.
    pub async fn ended(&self) {
        self.tx.closed().await;
    }

    /// Notices that something was stored, and which live frames were stored last.
    pub fn changed(&self) -> watch::Receiver<Vec<Key>> {
        self.changed.clone()
    }
}

/// What an earlier start left behind.
#[derive(Debug, Default)]
pub struct Left {
    /// What was found in the store.
    pub store: Recovered,
    /// Events that are in the journal and did not reach the store.
    pub unstored: Vec<Event>,
    /// A damaged journal, set aside.
    pub journal_set_aside: Option<std::path::PathBuf>,
}

/// A running spool.
#[derive(Debug)]
pub struct Spool {
    /// For the pipeline.
    pub appender: Appender,
    /// For the uplink.
    pub outbox: Outbox,
    /// What an earlier start left behind.
    pub left: Left,
    /// Ends once the appender is dropped and everything is on disk.
    pub thread: JoinHandle<()>,
}

/// Opens the spool under a data directory and starts its thread.
pub fn start(
    data_dir: &Path,
    limits: Limits,
    dictionary: &Dictionary,
    health: Arc<Health>,
) -> Result<Spool, StoreError> {
    let directory = data_dir.join("spool");
    let io_error = |source| StoreError::Io {
        path: data_dir.to_owned(),
        source,
    };
    let now_us = clock::now_us();
    let (store, recovered) = Store::open(&directory, limits, now_us)?;
    let (journal, found) = Journal::open(&data_dir.join("journal"), now_us).map_err(io_error)?;
    let dictionaries = Dictionaries::open(&directory.join("dictionaries")).map_err(io_error)?;
    let current = dictionaries.keep(dictionary).map_err(io_error)?;
    let unstored = recovered.journal_seq.map_or_else(Vec::new, |stored| {
        let missing = found.entries.into_iter().filter(|entry| entry.seq > stored);
        missing.map(|entry| entry.event).collect()
    });
    let left = Left {
        store: recovered,
        unstored,
        journal_set_aside: found.set_aside,
    };
    let (batches_tx, batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let (requests_tx, requests) = mpsc::channel(REQUESTS_WAITING_MAX);
    let (changed_tx, changed) = watch::channel(Vec::new());
    let mut keeper = Keeper {
        store,
        journal,
        dictionaries,
        current,
        health,
        changed: changed_tx,
        waiting: Vec::new(),
    };
    keeper.measure();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || runtime.block_on(keeper.run(batches, requests)))
        .map_err(io_error)?;
    Ok(Spool {
        appender: Appender { tx: batches_tx },
        outbox: Outbox {
            tx: requests_tx,
            changed,
        },
        left,
        thread,
    })
}

/// Everything the spool's thread owns.
struct Keeper {
    store: Store,
    journal: Journal,
    dictionaries: Dictionaries,
    current: Uuid,
    health: Arc<Health>,
    /// The live frames stored last.
    changed: watch::Sender<Vec<Key>>,
    /// Taken and not yet on disk.
    waiting: Vec<Batch>,
}

impl Keeper {
    async fn run(mut self, mut batches: mpsc::Receiver<Batch>, mut requests: mpsc::Receiver<Request>) {
        let mut measure = tokio::time::interval(MEASURE_EVERY);
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
    }

    /// Writes everything that waits as one group; whether the disk took it.
    fn store_waiting(&mut self) -> bool {
        match self.try_store() {
            Ok(keys) => {
                self.waiting.clear();
                self.changed
                    .send_replace(keys.into_iter().filter(|key| key.lane == Lane::Live).collect());
                true
            }
            Err(error) => {
                self.health.spool.write_errors.fetch_add(1, Relaxed);
                tracing::error!(%error, "the spool cannot write; trying again");
                // sled refuses everything after one failure: the next try is on a new generation.
                if let Err(error) = self.store.roll() {
                    tracing::debug!(%error, "no new generation yet");
                }
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
        trace_spooled(&records);
        Ok(keys)
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::After(lane, after, max, reply) => {
                let frames = self.store.after(lane, after, max).unwrap_or_else(|error| {
                    tracing::error!(%error, "the spool cannot be read");
                    (Vec::new(), 0)
                });
                if frames.1 > 0 {
                    self.gave_up(Gap {
                        from_us: 0,
                        to_us: clock::now_us(),
                        frames: frames.1,
                        readings: 0,
                        reason: "damaged frame".to_owned(),
                    });
                }
                reply.send(frames.0).unwrap_or_default();
            }
            Request::Get(keys, reply) => {
                let found = keys
                    .into_iter()
                    .filter_map(|key| Some((key, self.store.get(key).ok()??)));
                reply.send(found.collect()).unwrap_or_default();
            }
            Request::Remove(frames) => self.remove(&frames),
            Request::Dictionary(id, reply) => reply.send(self.dictionaries.get(id)).unwrap_or_default(),
            Request::Dictionaries(reply) => {
                reply
                    .send(self.needed().into_iter().collect())
                    .unwrap_or_default();
            }
            Request::Adopt(dictionary, reply) => {
                let kept = self.dictionaries.keep(&dictionary);
                match &kept {
                    Ok(id) => self.current = *id,
                    Err(error) => tracing::error!(%error, "the new dictionary cannot be kept"),
                }
                reply.send(kept.is_ok()).unwrap_or_default();
            }
        }
    }

    fn remove(&mut self, frames: &[(FrameId, Key)]) {
        let keys: Vec<Key> = frames.iter().map(|(_, key)| *key).collect();
        match self.store.remove(&keys) {
            Ok(removed) => {
                let readings: u64 = removed.iter().map(|meta| u64::from(meta.readings)).sum();
                self.health
                    .spool
                    .acknowledged_readings
                    .fetch_add(readings, Relaxed);
            }
            Err(error) => tracing::error!(%error, "acknowledged frames not deleted: they will be sent again"),
        }
        self.gauge();
    }

    fn gauge(&self) {
        let totals = self.store.totals();
        self.health.spool.backlog_frames.store(totals.frames, Relaxed);
        self.health.spool.backlog_readings.store(totals.readings, Relaxed);
    }

    /// Renews the costlier gauges and keeps to the quota.
    fn measure(&mut self) {
        self.gauge();
        match self.store.evict() {
            Ok(Some(gap)) => self.gave_up(gap),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "nothing could be evicted"),
        }
        let oldest_us = self.store.oldest_us().unwrap_or(0);
        self.health.spool.oldest_us.store(oldest_us, Relaxed);
        self.health
            .spool
            .disk_bytes
            .store(self.store.disk_bytes(), Relaxed);
        if let Err(error) = self.dictionaries.prune(&self.needed()) {
            tracing::warn!(%error, "unneeded dictionaries not deleted");
        }
    }

    /// The current dictionary and those that waiting frames need.
    fn needed(&self) -> BTreeSet<Uuid> {
        let mut needed: BTreeSet<Uuid> = self.store.dictionaries().into_iter().collect();
        needed.insert(self.current);
        needed
    }

    fn gave_up(&mut self, gap: Gap) {
        tracing::error!(frames = gap.frames, readings = gap.readings, reason = %gap.reason, "records given up");
        self.health.spool.lost_readings.fetch_add(gap.readings, Relaxed);
        self.health.note_gap(gap);
    }
}

/// Names every frame that is now durable: what a log at debug level names, the hub must end up with.
fn trace_spooled(records: &[Record]) {
    for Record { meta, .. } in records {
        tracing::debug!(
            boot = %meta.id.boot, lane = meta.id.lane.number(), seq = meta.id.seq, readings = meta.readings,
            "frame spooled"
        );
    }
}

/// The events among `events` that belong to the legal record.
pub fn for_journal(events: &[Event]) -> Vec<Event> {
    events
        .iter()
        .filter(|event| ccp::is_record(event))
        .cloned()
        .collect()
}
