//! Whose events were just committed? Tells consumers in this process at once, so that they need not ask all the time.
//! It is a hint and no more: what another hub commits is found by looking now and then.

use tokio::sync::broadcast;

use super::tenancy::TenantSlug;

/// Beats kept for a consumer that is behind; one that lost some looks at every tenant.
const BEATS_KEPT: usize = 1_024;

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
pub struct Pulse(broadcast::Sender<Beat>);

impl Default for Pulse {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEATS_KEPT))
    }
}

impl Pulse {
    /// Tells that a tenant has new events.
    pub fn committed(&self, tenant: &TenantSlug) {
        // Without consumers there is nobody to tell.
        drop(self.0.send(Beat::Committed(tenant.clone())));
    }

    /// Tells that the hub stops.
    pub fn stopping(&self) {
        drop(self.0.send(Beat::Stopping));
    }

    /// Every beat from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Beat> {
        self.0.subscribe()
    }
}
