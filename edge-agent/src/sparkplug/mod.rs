//! How do others on the plant's floor follow what the agent reads? As a Sparkplug B edge node beside the uplink: births,
//! deaths and data on their broker. It is a view, not the record: what it cannot say in time is said again by a birth.

mod client;
pub mod config;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use protocol::Reading;
use tokio::sync::mpsc;

pub use client::run;

/// Batches that may wait for the node.
const TAP_WAITING_MAX: usize = 1_024;

/// The pipeline's end: a copy of what is acquired. It never waits.
#[derive(Clone, Debug)]
pub struct Tap {
    tx: mpsc::Sender<Arc<[Reading]>>,
    has_missed: Arc<AtomicBool>,
}

/// The node's end.
#[derive(Debug)]
pub struct Tapped {
    rx: mpsc::Receiver<Arc<[Reading]>>,
    has_missed: Arc<AtomicBool>,
}

/// A tap and what comes out of it.
pub fn tap() -> (Tap, Tapped) {
    let (tx, rx) = mpsc::channel(TAP_WAITING_MAX);
    let has_missed = Arc::new(AtomicBool::new(false));
    let tap = Tap {
        tx,
        has_missed: has_missed.clone(),
    };
    (tap, Tapped { rx, has_missed })
}

impl Tap {
    /// Copies readings to the node; when it does not keep up it will tell everything anew.
    pub fn give(&self, readings: &[Reading]) {
        if self.tx.try_send(readings.into()).is_err() {
            self.has_missed.store(true, Relaxed);
        }
    }
}

impl Tapped {
    async fn next(&mut self) -> Option<Arc<[Reading]>> {
        self.rx.recv().await
    }

    /// Whether something was missed since the last question.
    fn has_missed(&self) -> bool {
        self.has_missed.swap(false, Relaxed)
    }
}
