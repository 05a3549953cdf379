//! What just happened? A broadcast of what was committed, here and by other hubs, for live pages. Lossy for slow
//! listeners, who are told how many events they missed; the database stays the truth.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

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
    /// Other hubs may have committed something that was not heard of here.
    Missed,
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
    /// Whether this hub committed it; else another hub of the same database did.
    pub is_here: bool,
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
    watchers: Arc<Mutex<Watchers>>,
    is_shared: Arc<AtomicBool>,
}

/// Who looks at samples: by tenant and number, the tags, none for all.
#[derive(Debug, Default)]
struct Watchers {
    by_tenant: HashMap<TenantSlug, HashMap<u64, HashSet<i32>>>,
    count: u64,
}

/// One who looks at samples, until it is dropped.
#[derive(Debug)]
pub struct Watching {
    bus: LiveBus,
    tenant: TenantSlug,
    number: u64,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watchers = self.bus.watchers();
        if let Some(of_tenant) = watchers.by_tenant.get_mut(&self.tenant) {
            of_tenant.remove(&self.number);
            if of_tenant.is_empty() {
                watchers.by_tenant.remove(&self.tenant);
            }
        }
    }
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
            watchers: Arc::default(),
            is_shared: Arc::default(),
        }
    }

    /// Tells every listener of what this hub committed. Without listeners nothing happens.
    pub fn publish(&self, tenant: &TenantSlug, at_us: Micros, kind: LiveKind) {
        self.send(tenant, at_us, kind, true);
    }

    /// Tells every listener of what another hub committed.
    pub fn relay(&self, tenant: &TenantSlug, at_us: Micros, kind: LiveKind) {
        self.send(tenant, at_us, kind, false);
    }

    fn send(&self, tenant: &TenantSlug, at_us: Micros, kind: LiveKind, is_here: bool) {
        let mut next = self.next();
        let event = LiveEvent {
            tenant: tenant.clone(),
            cursor: *next,
            at_us,
            is_here,
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

    /// Notes that somebody looks at samples of these tags; none: of all.
    pub fn watch(&self, tenant: &TenantSlug, tags: &HashSet<i32>) -> Watching {
        let mut watchers = self.watchers();
        watchers.count += 1;
        let number = watchers.count;
        let of_tenant = watchers.by_tenant.entry(tenant.clone()).or_default();
        of_tenant.insert(number, tags.clone());
        Watching {
            bus: self.clone(),
            tenant: tenant.clone(),
            number,
        }
    }

    /// The tags that are looked at, by tenant; none: all of them.
    pub fn watched(&self) -> HashMap<TenantSlug, HashSet<i32>> {
        let watchers = self.watchers();
        let together = |all: &HashMap<u64, HashSet<i32>>| {
            if all.values().any(HashSet::is_empty) {
                HashSet::new()
            } else {
                all.values().flatten().copied().collect()
            }
        };
        let each = watchers.by_tenant.iter();
        each.map(|(tenant, all)| (tenant.clone(), together(all)))
            .collect()
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether other hubs work on the same database.
    pub fn share(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// Whether other hubs work on the same database.
    pub fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// The cursor of the next event.
    pub fn cursor(&self) -> u64 {
        *self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_of_those_who_look_are_asked_for_together_while_they_do() {
        let (bus, akron) = (LiveBus::new(), TenantSlug::parse("akron").unwrap());
        let one = bus.watch(&akron, &HashSet::from([1, 2]));
        let other = bus.watch(&akron, &HashSet::from([2, 3]));
        assert_eq!(bus.watched()[&akron], HashSet::from([1, 2, 3]));
        let all = bus.watch(&akron, &HashSet::new());
        assert_eq!(bus.watched()[&akron], HashSet::new(), "every tag");
        drop((all, one));
        assert_eq!(bus.watched()[&akron], HashSet::from([2, 3]));
        drop(other);
        assert!(bus.watched().is_empty());
    }
}
