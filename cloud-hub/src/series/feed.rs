//! What can a live stream that broke still be told? The last ten minutes of events other than samples, shared by
//! all streams, and what heartbeats say of the edges.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::Micros;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::bus::{LiveBus, LiveEvent, LiveKind};
use crate::{
    app::App,
    edges::health::{EdgeState, edges},
    error::Result,
    kernel::tenancy::TenantSlug,
};

const RESUME_US_MAX: Micros = 600_000_000;
const RING_EVENTS_MAX: usize = 20_000;
const LISTENERS_MAX: usize = 2_000;
const HEARTBEAT_AGE_US_MAX: Micros = 4_000_000;
const EDGES_MAX: i64 = 1_000;
/// The ring is behind by microseconds; a hub too busy for even this says `resync`.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// The last ten minutes of events other than samples, and what heartbeats say.
#[derive(Debug)]
pub struct Feed {
    /// Names this start of the hub: cursors of another start mean nothing here.
    boot: u32,
    ring: Mutex<Ring>,
    /// The newest cursor that was looked at for the ring.
    seen: watch::Sender<u64>,
    heartbeats: Mutex<HashMap<TenantSlug, (Micros, Arc<Value>)>>,
    listeners: Arc<Semaphore>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<LiveEvent>>,
    /// Everything after this cursor is in the ring.
    complete_after: u64,
}

impl Ring {
    fn push(&mut self, event: Arc<LiveEvent>) {
        let oldest_us = event.at_us - RESUME_US_MAX;
        self.events.push_back(event);
        while self.events.len() > RING_EVENTS_MAX
            || self.events.front().is_some_and(|first| first.at_us < oldest_us)
        {
            if let Some(gone) = self.events.pop_front() {
                self.complete_after = self.complete_after.max(gone.cursor);
            }
        }
    }

    /// A tenant's events after `cursor`; `None` when some may be gone.
    fn after(&self, tenant: &TenantSlug, cursor: u64) -> Option<Vec<Arc<LiveEvent>>> {
        (cursor >= self.complete_after).then(|| {
            let missed = self
                .events
                .iter()
                .filter(|event| event.cursor > cursor && event.tenant == *tenant);
            missed.cloned().collect()
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// A tenant's events after the one of that id; `None` when they can no longer be told. Those up to `newest`
    /// were published before the caller listened, and the ring may be about to take them: it is waited for.
    pub(super) async fn missed_since(
        &self,
        id: &str,
        tenant: &TenantSlug,
        newest: u64,
    ) -> Option<Vec<Arc<LiveEvent>>> {
        let mut seen = self.seen.subscribe();
        let caught_up = timeout(CATCH_UP_MAX, seen.wait_for(|seen| *seen >= newest)).await;
        if !matches!(caught_up, Ok(Ok(_))) {
            return None;
        }
        lock(&self.ring).after(tenant, self.cursor_of(id)?)
    }

    /// A place among those who listen; `None` when there are too many.
    pub(super) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        self.listeners.clone().try_acquire_owned().ok()
    }

    /// Ends every stream.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts to remember what the bus says; `stop` ends every stream.
    pub fn start(bus: &LiveBus, stop: CancellationToken) -> Arc<Self> {
        let mut random = [0; 4];
        // Without randomness two starts of the hub could share a name; a stream would then miss a `resync`.
        let boot = getrandom::fill(&mut random).map_or(std::process::id(), |()| u32::from_be_bytes(random));
        let events = bus.subscribe();
        let complete_after = bus.cursor().saturating_sub(1);
        let ring = Ring {
            complete_after,
            ..Ring::default()
        };
        let feed = Arc::new(Self {
            boot,
            ring: Mutex::new(ring),
            seen: watch::Sender::new(complete_after),
            heartbeats: Mutex::default(),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
            stop,
        });
        tokio::spawn(remember(feed.clone(), events, bus.clone()));
        feed
    }

    /// The event id of a cursor.
    pub(super) fn id(&self, cursor: u64) -> String {
        format!("{:x}-{cursor}", self.boot)
    }

    fn cursor_of(&self, id: &str) -> Option<u64> {
        let (boot, cursor) = id.split_once('-')?;
        (u32::from_str_radix(boot, 16).ok()? == self.boot).then(|| cursor.parse().ok())?
    }

    /// The edges' health as heartbeats carry it, asked at most every four seconds a tenant. While the database is
    /// away the last answer stands.
    pub(super) async fn edges(&self, app: &App, tenant: &TenantSlug) -> Arc<Value> {
        let now_us = app.clock.now_us();
        let known = lock(&self.heartbeats).get(tenant).cloned();
        if let Some((at_us, value)) = &known
            && now_us - at_us < HEARTBEAT_AGE_US_MAX
        {
            return value.clone();
        }
        let Ok(fresh) = read_edges(app, tenant, now_us).await else {
            return known.map_or_else(|| Arc::new(json!({})), |(_, value)| value);
        };
        let fresh = Arc::new(fresh);
        lock(&self.heartbeats).insert(tenant.clone(), (now_us, fresh.clone()));
        fresh
    }
}

async fn remember(feed: Arc<Feed>, mut events: broadcast::Receiver<Arc<LiveEvent>>, bus: LiveBus) {
    loop {
        let received = tokio::select! {
            () = feed.stop.cancelled() => return,
            received = events.recv() => received,
        };
        match received {
            Ok(event) => {
                let cursor = event.cursor;
                if !matches!(event.kind, LiveKind::Samples { .. }) {
                    lock(&feed.ring).push(event);
                }
                feed.seen.send_replace(cursor);
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let mut ring = lock(&feed.ring);
                ring.events.clear();
                ring.complete_after = bus.cursor();
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn read_edges(app: &App, tenant: &TenantSlug, now_us: Micros) -> Result<Value> {
    let mut tx = app.db.begin(tenant).await?;
    let found = edges(&mut tx, None, EDGES_MAX, now_us).await?;
    // Of those that keep in touch: nobody else's silence says anything.
    let kept = found.into_iter().filter(|edge| edge.state != EdgeState::OnDemand);
    let health = kept.map(|edge| {
        let said = json!({
            "state": edge.state, "lag_ms": edge.lag_ms, "backlog_frames": edge.backlog_frames,
        });
        (edge.name, said)
    });
    Ok(Value::Object(health.collect()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(cursor: u64, at_us: Micros) -> Arc<LiveEvent> {
        let tenant = TenantSlug::parse("akron").unwrap();
        Arc::new(LiveEvent {
            tenant,
            cursor,
            at_us,
            is_here: true,
            kind: LiveKind::Defect { id: Uuid::nil() },
        })
    }

    #[test]
    fn the_ring_resumes_within_ten_minutes_and_never_pretends_beyond() {
        let akron = TenantSlug::parse("akron").unwrap();
        let mut ring = Ring::default();
        for cursor in 1..=3 {
            ring.push(event(cursor, cursor as i64 * 1_000_000));
        }
        let missed = ring.after(&akron, 1).unwrap();
        assert_eq!(
            missed.iter().map(|event| event.cursor).collect::<Vec<_>>(),
            [2, 3]
        );
        assert!(
            ring.after(&TenantSlug::parse("other").unwrap(), 0)
                .unwrap()
                .is_empty()
        );
        ring.push(event(4, RESUME_US_MAX + 2_500_000));
        assert!(ring.after(&akron, 1).is_none(), "events 1 and 2 are gone");
        assert_eq!(ring.after(&akron, 2).unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_was_published_the_moment_before_is_told_to_who_resumes() {
        let (bus, akron) = (LiveBus::new(), TenantSlug::parse("akron").unwrap());
        let feed = Feed::start(&bus, CancellationToken::new());
        let before = bus.cursor() - 1;
        // On this one thread nobody has looked at it yet when it is asked for.
        bus.publish(&akron, 1, LiveKind::Defect { id: Uuid::nil() });
        let missed = feed
            .missed_since(&feed.id(before), &akron, bus.cursor() - 1)
            .await
            .unwrap();
        assert_eq!(missed.len(), 1);
    }

    #[tokio::test]
    async fn a_cursor_of_another_start_of_the_hub_is_not_ours() {
        let bus = LiveBus::new();
        let (one, other) = (
            Feed::start(&bus, CancellationToken::new()),
            Feed::start(&bus, CancellationToken::new()),
        );
        assert_eq!(one.cursor_of(&one.id(17)), Some(17));
        assert_eq!(other.cursor_of(&one.id(17)), None);
        assert_eq!(one.cursor_of("nonsense"), None);
    }
}
