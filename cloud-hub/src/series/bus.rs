//! What just happened? A broadcast of what ingest committed, for live pages. Lossy for slow listeners, who are
//! told how many events they missed; the database stays the truth.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{Micros, lane::Lane};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::kernel::tenancy::TenantSlug;

/// Events kept for a listener that is behind.
const EVENTS_KEPT: usize = 4_096;

/// One value as it arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Which tag.
    pub tag_id: i32,
    /// Source time.
    pub time_us: Micros,
    /// The value; none when the quality is bad.
    pub value: Option<f64>,
    /// High 16 bits of the OPC UA status code.
    pub quality: u16,
    /// A simulator produced it.
    pub simulated: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveKind {
    /// Readings were stored: the newest of each tag in the batch, in no order.
    Samples {
        /// How they came; backfill is late by definition.
        lane: Lane,
        /// The values.
        samples: Vec<Sample>,
    },
    /// A deviation opened, grew or closed.
    Deviation {
        /// Which.
        id: Uuid,
        /// Its row version.
        version: i32,
    },
    /// A hold was placed or gained lots.
    Hold {
        /// Which.
        id: Uuid,
        /// Its row version.
        version: i32,
    },
    /// An inspection that did not pass.
    Defect {
        /// Id of the vision result.
        id: Uuid,
    },
    /// An edge came, went or said how it is.
    Edge {
        /// Its name.
        name: String,
    },
    /// An alarm began, changed its state, ended or was withdrawn.
    Alarm {
        /// The line it belongs to.
        line_id: Option<Uuid>,
        /// The whole alarm, as the API shows it.
        alarm: Arc<serde_json::Value>,
    },
    /// A line's batch, holds or deviations changed.
    Line {
        /// Which.
        id: Uuid,
    },
}

/// One event of one tenant.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    /// Whose.
    pub tenant: TenantSlug,
    /// Counts up by one across all tenants while the hub runs.
    pub cursor: u64,
    /// When the hub published it.
    pub at_us: Micros,
    /// What.
    pub kind: LiveKind,
}

/// The bus. Cloning it gives another handle on the same bus.
#[derive(Clone, Debug)]
pub struct LiveBus {
    sender: broadcast::Sender<Arc<LiveEvent>>,
    /// Held while an event is sent: events arrive in the order of their cursors, so that a stream that resumes
    /// after one has been told all before it.
    cursor: Arc<Mutex<u64>>,
}

impl Default for LiveBus {
    fn default() -> Self {
        Self::new()
    }
}

impl LiveBus {
    /// A bus without listeners.
    pub fn new() -> Self {
        Self {
            sender: broadcast::Sender::new(EVENTS_KEPT),
            cursor: Arc::new(Mutex::new(1)),
        }
    }

    /// Tells every listener. Without listeners nothing happens.
    pub fn publish(&self, tenant: &TenantSlug, at_us: Micros, kind: LiveKind) {
        let mut next = self.next();
        let event = LiveEvent {
            tenant: tenant.clone(),
            cursor: *next,
            at_us,
            kind,
        };
        *next += 1;
        // An error says that nobody listens, which is no fault.
        drop(self.sender.send(Arc::new(event)));
    }

    fn next(&self) -> MutexGuard<'_, u64> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<LiveEvent>> {
        self.sender.subscribe()
    }

    /// The cursor of the next event.
    pub fn cursor(&self) -> u64 {
        *self.next()
    }
}
