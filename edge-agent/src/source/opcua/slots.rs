//! Which monitored items stay when the tags change? Pure: every watched node has a slot for as long as it is watched,
//! and the slot is its handle at the server, so that a changed tag list touches only the items that changed.

use std::collections::HashMap;

use super::config::{NodeIdentifier, NodePlan};

/// The nodes that are watched, by slot. A slot is never used again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slots {
    plans: Vec<Option<NodePlan>>,
}

type Key<'a> = (&'a NodeIdentifier, Option<&'a str>, u128, u32);

/// What the server knows of an item; alias and period are the agent's own business.
fn key(plan: &NodePlan) -> Key<'_> {
    (
        &plan.node,
        plan.namespace_uri.as_deref(),
        plan.sampling.as_micros(),
        plan.queue_size,
    )
}

impl Slots {
    /// One slot a node.
    pub fn new(tags: &[NodePlan]) -> Self {
        Self {
            plans: tags.iter().cloned().map(Some).collect(),
        }
    }

    /// The node in a slot.
    pub fn get(&self, slot: u32) -> Option<&NodePlan> {
        self.plans.get(slot as usize)?.as_ref()
    }

    /// Every slot in use and its node.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &NodePlan)> {
        (0..)
            .zip(&self.plans)
            .filter_map(|(slot, plan)| Some((slot, plan.as_ref()?)))
    }

    /// Slots ever used; every slot is below.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether no slot was ever used.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Watches these nodes from now on: what was watched keeps its slot, what is new gets a new one.
    pub fn follow(&mut self, tags: &[NodePlan]) {
        let held = std::mem::take(&mut self.plans);
        let mut free: HashMap<Key<'_>, Vec<usize>> = HashMap::new();
        for (slot, plan) in held.iter().enumerate().rev() {
            if let Some(plan) = plan {
                free.entry(key(plan)).or_default().push(slot);
            }
        }
        self.plans = vec![None; held.len()];
        for tag in tags {
            match free.get_mut(&key(tag)).and_then(Vec::pop) {
                Some(slot) => self.plans[slot] = Some(tag.clone()),
                None => self.plans.push(Some(tag.clone())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use protocol::reading::Alias;

    use super::*;

    fn plan(alias: u32, node: u32) -> NodePlan {
        NodePlan {
            alias: Alias(alias),
            node: NodeIdentifier::Number(node),
            namespace_uri: None,
            sampling: Duration::from_secs(1),
            period: Duration::from_secs(1),
            queue_size: 2,
        }
    }

    fn plans(nodes: &[u32]) -> Vec<NodePlan> {
        (0..).zip(nodes).map(|(alias, node)| plan(alias, *node)).collect()
    }

    #[test]
    fn t33_a_tag_among_others_leaves_the_others_their_slots() {
        let mut slots = Slots::new(&plans(&[1, 2, 3]));
        slots.follow(&plans(&[4, 1, 3]));
        let now: Vec<(u32, u32)> = slots.iter().map(|(slot, plan)| (slot, plan.alias.0)).collect();
        assert_eq!(now, [(0, 1), (2, 2), (3, 0)]);
    }

    proptest! {
        #[test]
        fn after_a_change_exactly_the_new_tags_are_watched_and_no_slot_is_used_again(
            before in prop::collection::vec(0_u32..12, 0..20),
            after in prop::collection::vec(0_u32..12, 0..20),
        ) {
            let mut slots = Slots::new(&plans(&before));
            slots.follow(&plans(&after));
            let mut watched: Vec<(u32, NodeIdentifier)> =
                slots.iter().map(|(_, plan)| (plan.alias.0, plan.node.clone())).collect();
            watched.sort_by_key(|(alias, _)| *alias);
            let wanted: Vec<(u32, NodeIdentifier)> =
                plans(&after).into_iter().map(|plan| (plan.alias.0, plan.node)).collect();
            prop_assert_eq!(watched, wanted);
            for (slot, plan) in slots.iter() {
                if let Some(node) = before.get(slot as usize) {
                    prop_assert_eq!(&plan.node, &NodeIdentifier::Number(*node), "slot {} changed its node", slot);
                }
            }
        }
    }
}
