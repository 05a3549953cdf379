//! Who waits when everybody comes at once? A tenant has so many requests served at the same time and no more; its
//! others wait their turn, so that a busy tenant cannot take every database connection from the rest.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Requests of one tenant that wait; more are sent away at once.
const WAITING_MAX: usize = 256;

#[derive(Debug)]
struct Lane {
    turns: Arc<Semaphore>,
    /// Those that wait or are served.
    present: usize,
}

type Lanes<K> = Arc<Mutex<HashMap<K, Lane>>>;

/// The turns of everybody who is here now; nothing is kept of those who are not.
#[derive(Debug)]
pub(super) struct Turns<K> {
    at_once: usize,
    /// How long a request waits before it is sent away.
    wait_max: Duration,
    lanes: Lanes<K>,
}

/// A request's turn: others of its tenant wait until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<K: Hash + Eq> {
    // Dropped first, so that a lane that is left has no turn taken.
    _permit: OwnedSemaphorePermit,
    _visit: Visit<K>,
}

#[derive(Debug)]
struct Visit<K: Hash + Eq> {
    key: K,
    lanes: Lanes<K>,
}

impl<K: Hash + Eq> Drop for Visit<K> {
    fn drop(&mut self) {
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get_mut(&self.key) {
            lane.present -= 1;
            if lane.present == 0 {
                lanes.remove(&self.key);
            }
        }
    }
}

fn lock<K>(lanes: &Lanes<K>) -> MutexGuard<'_, HashMap<K, Lane>> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Hash + Eq + Clone> Turns<K> {
    pub(super) fn new(at_once: usize, wait_max: Duration) -> Self {
        Self {
            at_once,
            wait_max,
            lanes: Arc::default(),
        }
    }

    /// Waits for a turn; `None` when too many wait already, or it takes too long.
    pub(super) async fn take(&self, key: K) -> Option<Turn<K>> {
        let (turns, visit) = self.visit(key)?;
        let permit = timeout(self.wait_max, turns.acquire_owned()).await.ok()?.ok()?;
        Some(Turn {
            _permit: permit,
            _visit: visit,
        })
    }

    fn visit(&self, key: K) -> Option<(Arc<Semaphore>, Visit<K>)> {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.entry(key.clone()).or_insert_with(|| Lane {
            turns: Arc::new(Semaphore::new(self.at_once)),
            present: 0,
        });
        if lane.present >= self.at_once + WAITING_MAX {
            return None;
        }
        lane.present += 1;
        let lanes = Arc::clone(&self.lanes);
        Some((Arc::clone(&lane.turns), Visit { key, lanes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_tenant_waits_for_itself_and_others_do_not() {
        let turns = Turns::new(2, Duration::from_millis(20));
        let (first, _second) = (
            turns.take("busy").await.unwrap(),
            turns.take("busy").await.unwrap(),
        );
        assert!(turns.take("busy").await.is_none(), "its third waits in vain");
        assert!(turns.take("quiet").await.is_some());
        drop(first);
        assert!(turns.take("busy").await.is_some());
    }

    #[tokio::test]
    async fn a_queue_has_an_end_and_nothing_is_left_of_it() {
        let turns = Arc::new(Turns::new(1, Duration::from_mins(1)));
        let served = turns.take(7).await.unwrap();
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { turns.take(7).await.is_some() })
            })
            .collect();
        while lock(&turns.lanes)[&7].present <= WAITING_MAX {
            tokio::task::yield_now().await;
        }
        assert!(turns.visit(7).is_none(), "one more is sent away at once");
        drop(served);
        for one in waiting {
            assert!(one.await.unwrap());
        }
        assert!(lock(&turns.lanes).is_empty());
    }
}
