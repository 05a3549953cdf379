//! Which Sparkplug hosts are there? One for each client, so that no client's births say anything of another's edge
//! nodes; and one state for each tenant, which its edge nodes wait for.

use std::{collections::HashMap, time::Duration};

use protocol::{
    Micros,
    sparkplug::{
        Outgoing,
        host::{Effect, Host, HostSelf, Patience},
    },
};

use super::told::Client;
use crate::kernel::tenancy::TenantSlug;

/// A patience that waits so long for a missing message
/// (tck-id-operational-behavior-host-reordering-param).
pub fn patience(reorder: Duration) -> Patience {
    Patience {
        reorder_us: Micros::try_from(reorder.as_micros()).unwrap_or(Micros::MAX),
        ..Patience::default()
    }
}

/// The hosts of one hub.
#[derive(Debug)]
pub(super) struct Hosts {
    patience: Patience,
    by_client: HashMap<Client, Host>,
    states: HashMap<TenantSlug, HostSelf>,
}

impl Hosts {
    /// No hosts yet; each that comes waits so long for what is missing.
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            by_client: HashMap::new(),
            states: HashMap::new(),
        }
    }

    /// The host of a client.
    pub(super) fn of(&mut self, client: &Client) -> &mut Host {
        let patience = self.patience;
        self.by_client
            .entry(client.clone())
            .or_insert_with(|| Host::new(patience))
    }

    /// The client's last connection ended.
    pub(super) fn lost(&mut self, client: &Client, now_us: Micros) -> Vec<Effect> {
        self.by_client
            .remove(client)
            .map_or_else(Vec::new, |mut host| host.lost(now_us))
    }

    /// Another hub has heard the client since: a birth that only that hub heard may have given an alias to another
    /// metric, and sequence numbers start anew too often to show it. Its nodes are asked for their births again.
    pub(super) fn forget(&mut self, client: &Client) {
        self.by_client.remove(client);
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

#[cfg(test)]
mod tests {
    use protocol::sparkplug::{decode, edge_node::EdgeNode};

    use super::*;

    const DATA: &str = "spBv1.0/akron/NDATA/n1";

    /// A node's birth, which has number 0, and data of a number without metrics.
    fn birth_and_data(seq: u64) -> (Outgoing, Vec<u8>) {
        let mut node = EdgeNode::new("akron", "n1", []).unwrap();
        drop(node.connect(1_000_000));
        let birth = node.birth(|_| true, 1_000_000).remove(0);
        let mut data = decode(&birth.payload).unwrap();
        (data.seq, data.metrics) = (Some(seq), Vec::new());
        (birth, Vec::from(data))
    }

    #[test]
    fn a_gap_is_waited_for_as_long_as_is_configured() {
        let client = ("akron".to_owned(), "line-pc".to_owned());
        let (birth, late) = birth_and_data(5);
        for (configured, due_us) in [
            (Duration::from_millis(300), 1_300_000),
            (Duration::MAX, Micros::MAX),
        ] {
            let mut hosts = Hosts::new(patience(configured));
            let host = hosts.of(&client);
            drop(host.hear(&birth.topic, &birth.payload, 1_000_000));
            drop(host.hear(DATA, &late, 1_000_000));
            assert_eq!(host.due_us(), Some(due_us));
        }
    }

    #[test]
    fn a_node_that_another_hub_heard_since_says_nothing_here_until_it_is_born_again() {
        let client = ("akron".to_owned(), "plant-broker".to_owned());
        // The number that comes next here, though another hub may have heard 256 messages in between.
        let (birth, data) = birth_and_data(1);
        let mut hosts = Hosts::new(Patience::default());
        drop(hosts.of(&client).hear(&birth.topic, &birth.payload, 1_000_000));
        assert_eq!(hosts.of(&client).is_online("akron", "n1", None), Some(true));
        hosts.forget(&client);
        let effects = hosts.of(&client).hear(DATA, &data, 2_000_000);
        assert_ne!(hosts.of(&client).is_online("akron", "n1", None), Some(true));
        assert!(
            effects.iter().any(|effect| matches!(effect, Effect::Ask(_))),
            "{effects:?}"
        );
    }
}
