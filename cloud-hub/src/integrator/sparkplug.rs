//! Which Sparkplug hosts are there? One for each client, so that no client's births say anything of another's edge
//! nodes; and one state for each tenant, which its edge nodes wait for.

use std::collections::HashMap;

use protocol::{
    Micros,
    sparkplug::{
        Outgoing,
        host::{Effect, Host, HostSelf, Patience},
    },
};

use super::told::Client;
use crate::kernel::tenancy::TenantSlug;

/// The hosts of one hub.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    by_client: HashMap<Client, Host>,
    states: HashMap<TenantSlug, HostSelf>,
}

impl Hosts {
    /// The host of a client.
    pub(super) fn of(&mut self, client: &Client) -> &mut Host {
        self.by_client
            .entry(client.clone())
            .or_insert_with(|| Host::new(Patience::default()))
    }

    /// The client's last connection ended.
    pub(super) fn lost(&mut self, client: &Client, now_us: Micros) -> Vec<Effect> {
        self.by_client
            .remove(client)
            .map_or_else(Vec::new, |mut host| host.lost(now_us))
    }

    /// What follows from time that passed.
    pub(super) fn tick(&mut self, now_us: Micros) -> Vec<(Client, Vec<Effect>)> {
        let due = self
            .by_client
            .iter_mut()
            .filter(|(_, host)| host.due_us().is_some_and(|due| due <= now_us));
        due.map(|(client, host)| (client.clone(), host.tick(now_us)))
            .collect()
    }

    /// What this hub says of itself to tenants that it has not told yet.
    pub(super) fn births(
        &mut self,
        host: &str,
        tenants: &[TenantSlug],
        now_us: Micros,
    ) -> Vec<(TenantSlug, Outgoing)> {
        let mut said = Vec::new();
        for tenant in tenants
            .iter()
            .filter(|tenant| !self.states.contains_key(*tenant))
            .cloned()
            .collect::<Vec<_>>()
        {
            if let Some(state) = HostSelf::new(host, now_us) {
                said.push((tenant.clone(), state.birth()));
                self.states.insert(tenant, state);
            }
        }
        said
    }

    /// What it says before it goes.
    pub(super) fn deaths(&self, now_us: Micros) -> Vec<(TenantSlug, Outgoing)> {
        self.states
            .iter()
            .map(|(tenant, state)| (tenant.clone(), state.death(now_us)))
            .collect()
    }
}
