//! How does what was acquired survive until the hub has it? Append, make durable, only then send; delete on the
//! hub's acknowledgement only. One thread owns the disk; this is its handle and its loop.

pub mod dictionaries;
pub mod evict;
pub mod fetch;
pub mod generation;
pub mod journal;
mod keeper;
pub mod kept;
pub mod look;
pub mod merge;
pub mod record;
pub mod seal;
pub mod segment;
pub mod settle;
pub mod store;
pub mod summary;
pub mod wal;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use protocol::{Micros, event::Event, frame::FrameId, lane::Lane, tag::Dictionary};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use self::{
    dictionaries::Dictionaries,
    fetch::Replayed,
    journal::{Journal, Rotation},
    keeper::{Keeper, Request},
    record::{Key, Meta, Record},
    store::{Limits, Recovered, Store, StoreError},
};
use crate::{ccp, clock, health::Health};

/// Batches that may wait for the disk: at four a second more than a minute.
const BATCHES_WAITING_MAX: usize = 256;
const REQUESTS_WAITING_MAX: usize = 64;

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

/// What was stored last, for who sends it.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Live frames.
    pub live: Vec<Key>,
    /// Counts how often frames of the past came to wait again.
    pub rewinds: u64,
}

/// The pipeline's end: where batches go in.
#[derive(Debug)]
pub struct Appender {
    tx: mpsc::Sender<Batch>,
    is_backed_up: Arc<AtomicBool>,
}

/// The disk does not keep up, or the spool is gone; the batch comes back.
#[derive(Debug)]
pub struct Refused(pub Box<Batch>);

impl Appender {
    /// An appender into a channel that the test reads.
    #[cfg(test)]
    pub(crate) fn into_channel(capacity: usize) -> (Self, mpsc::Receiver<Batch>) {
        let (tx, rx) = mpsc::channel(capacity);
        let is_backed_up = Arc::default();
        (Self { tx, is_backed_up }, rx)
    }

    /// Whether the next batch will be taken.
    pub fn has_room(&self) -> bool {
        self.tx.capacity() > 0 && !self.tx.is_closed()
    }

    /// The lane in which readings are sealed now: live while what came before goes out; backfill, without an identity
    /// of their own, once much waits.
    pub fn lane(&self) -> Lane {
        if self.is_backed_up.load(Relaxed) {
            Lane::Backfill
        } else {
            Lane::Live
        }
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
    changed: watch::Receiver<Stored>,
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

    /// Lets frames that the hub has acknowledged and that were sealed in a time wait again; none when the spool
    /// cannot read what it kept.
    pub async fn replay(&self, from_us: Micros, to_us: Micros) -> Option<Replayed> {
        self.ask(|tx| Request::Replay(from_us, to_us, tx)).await
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
    pub fn changed(&self) -> watch::Receiver<Stored> {
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
    rotation: Rotation,
    dictionary: &Dictionary,
    health: Arc<Health>,
) -> Result<Spool, StoreError> {
    let directory = data_dir.join("spool");
    let io_error = |source| StoreError::Io {
        path: data_dir.to_owned(),
        source,
    };
    let now_us = clock::now_us();
    let (store, recovered) = Store::open(&directory, limits, health.boot, now_us)?;
    let (journal, found) = Journal::open(&data_dir.join("journal"), rotation, now_us).map_err(io_error)?;
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
    let (changed_tx, changed) = watch::channel(Stored::default());
    let is_backed_up = Arc::<AtomicBool>::default();
    let mut keeper = Keeper {
        store,
        journal,
        dictionaries,
        current,
        health,
        changed: changed_tx,
        is_backed_up: is_backed_up.clone(),
        waiting: Vec::new(),
    };
    keeper.begin();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || runtime.block_on(keeper.run(batches, requests)))
        .map_err(io_error)?;
    Ok(Spool {
        appender: Appender {
            tx: batches_tx,
            is_backed_up,
        },
        outbox: Outbox {
            tx: requests_tx,
            changed,
        },
        left,
        thread,
    })
}

/// Names a frame that is now durable: what a log at debug level names, the hub must end up with.
fn trace_spooled(meta: &Meta) {
    tracing::debug!(
        boot = %meta.id.boot, lane = meta.id.lane.number(), seq = meta.id.seq, readings = meta.readings,
        "frame spooled"
    );
}

#[cfg(test)]
mod powercut_tests;

/// The events among `events` that belong to the legal record.
pub fn for_journal(events: &[Event]) -> Vec<Event> {
    events
        .iter()
        .filter(|event| ccp::is_record(event))
        .cloned()
        .collect()
}
