//! Whose events were just committed? Tells consumers in this process at once, so that they need not ask all the time.
//! It is a hint and no more: what another hub commits is found by looking now and then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use super::tenancy::TenantSlug;

/// Beats kept for a consumer that is behind; one that lost some looks at every tenant.
const BEATS_KEPT: usize = 1_024;

/// Requests of one tenant that may wait for events at once: each holds one of the tenant's turns meanwhile.
const WAITING_MAX: usize = 4;

/// What a consumer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// This tenant has new events.
    Committed(TenantSlug),
    /// The hub stops: whoever waits for events waits no longer.
    Stopping,
}

/// The pulse of one hub. Cloning it gives another handle on the same.
#[derive(Clone, Debug)]
pub struct Pulse {
    beats: broadcast::Sender<Beat>,
    waiting: Arc<Mutex<HashMap<TenantSlug, usize>>>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            beats: broadcast::Sender::new(BEATS_KEPT),
            waiting: Arc::default(),
        }
    }
}

/// A request's place among those that wait; left when it is dropped.
#[derive(Debug)]
pub struct Place {
    pulse: Pulse,
    tenant: TenantSlug,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.pulse.waiting();
        if let Some(there) = waiting.get_mut(&self.tenant) {
            *there -= 1;
            if *there == 0 {
                waiting.remove(&self.tenant);
            }
        }
    }
}

impl Pulse {
    /// Tells that a tenant has new events.
    pub fn committed(&self, tenant: &TenantSlug) {
        // Without consumers there is nobody to tell.
        drop(self.beats.send(Beat::Committed(tenant.clone())));
    }

    /// Tells that the hub stops.
    pub fn stopping(&self) {
        drop(self.beats.send(Beat::Stopping));
    }

    /// Every beat from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Beat> {
        self.beats.subscribe()
    }

    /// A place to wait, unless too many of the tenant's requests wait already.
    pub fn place(&self, tenant: &TenantSlug) -> Option<Place> {
        let mut waiting = self.waiting();
        let there = waiting.entry(tenant.clone()).or_default();
        if *there >= WAITING_MAX {
            return None;
        }
        *there += 1;
        Some(Place {
            pulse: self.clone(),
            tenant: tenant.clone(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<TenantSlug, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_waits_with_many_requests_leaves_room_for_its_others() {
        let (pulse, busy) = (Pulse::default(), TenantSlug::parse("busy").unwrap());
        let mut places: Vec<Place> = (0..WAITING_MAX).map(|_| pulse.place(&busy).unwrap()).collect();
        assert!(pulse.place(&busy).is_none());
        assert!(pulse.place(&TenantSlug::parse("quiet").unwrap()).is_some());
        places.pop();
        assert!(pulse.place(&busy).is_some());
        places.clear();
        assert!(pulse.waiting().is_empty(), "nothing is kept of those who left");
    }
}
