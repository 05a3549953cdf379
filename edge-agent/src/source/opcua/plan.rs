//! Which nodes have been silent too long? Pure bookkeeping of when each was heard and when it is due.

use std::time::Duration;

use protocol::Micros;

use super::slots::Slots;

/// A node may be this many periods late before it is asked for; the server's publishing interval comes on top.
const PERIODS_LATE: u32 = 2;

/// When each watched node was last heard, or last reported as silent; by slot.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    nodes: Vec<Option<Node>>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// Zero when it reports on change only.
    period: Micros,
    /// How long it may be silent.
    patience: Micros,
    /// When it is to be asked for.
    due_us: Micros,
}

impl Watch {
    /// Watches what the slots hold; what it watched already keeps its due time.
    pub fn follow(&mut self, slots: &Slots, publish: Duration, now_us: Micros) {
        self.nodes.resize(slots.len(), None);
        let mut held = std::mem::replace(&mut self.nodes, vec![None; slots.len()]);
        for (slot, plan) in slots.iter() {
            let patience = (plan.period * PERIODS_LATE + publish).as_micros() as Micros;
            let mut node = Node {
                period: plan.period.as_micros() as Micros,
                patience,
                due_us: now_us + patience,
            };
            if let Some(known) = held[slot as usize].take() {
                node.due_us = known.due_us.min(node.due_us);
            }
            self.nodes[slot as usize] = Some(node);
        }
    }

    /// A node gave a reading.
    pub fn heard(&mut self, slot: u32, now_us: Micros) {
        if let Some(Some(node)) = self.nodes.get_mut(slot as usize) {
            node.due_us = now_us + node.patience;
        }
    }

    /// The session is gone: no node will be heard, so each is due by its next period at the latest.
    pub fn lost(&mut self, now_us: Micros) {
        for node in self.nodes.iter_mut().flatten() {
            node.due_us = node.due_us.min(now_us + node.period);
        }
    }

    /// The slots of nodes that are due and silent. Each is named once a period from then on.
    pub fn silent(&mut self, now_us: Micros) -> Vec<u32> {
        let mut out = Vec::new();
        for (slot, node) in (0..).zip(&mut self.nodes) {
            if let Some(node) = node
                && node.period > 0
                && now_us >= node.due_us
            {
                node.due_us = now_us + node.period;
                out.push(slot);
            }
        }
        out
    }

    /// How often to look: half the shortest period.
    pub fn look_every(&self) -> Duration {
        let shortest_us = self
            .nodes
            .iter()
            .flatten()
            .map(|node| node.period)
            .filter(|period_us| *period_us > 0)
            .min()
            .unwrap_or(1_000_000);
        Duration::from_micros((shortest_us / 2).clamp(50_000, 1_000_000) as u64)
    }
}

#[cfg(test)]
mod tests {
    use protocol::reading::Alias;

    use super::*;
    use crate::source::opcua::config::{NodeIdentifier, NodePlan};

    fn node(alias: u32, period_s: u64) -> NodePlan {
        NodePlan {
            alias: Alias(alias),
            node: NodeIdentifier::Number(alias),
            namespace_uri: None,
            sampling: Duration::from_secs(1),
            period: Duration::from_secs(period_s),
            queue_size: 2,
        }
    }

    fn watch(nodes: &[NodePlan], publish: Duration) -> Watch {
        let mut watch = Watch::default();
        watch.follow(&Slots::new(nodes), publish, 0);
        watch
    }

    #[test]
    fn a_silent_node_is_named_after_two_periods_and_then_once_a_period() {
        let mut watch = watch(&[node(3, 2)], Duration::from_secs(1));
        let named: Vec<i64> = (0..=12)
            .filter(|second| !watch.silent(second * 1_000_000).is_empty())
            .collect();
        assert_eq!(named, [5, 7, 9, 11]);
    }

    #[test]
    fn a_node_that_was_heard_is_left_alone() {
        let mut watch = watch(&[node(1, 1), node(2, 1)], Duration::ZERO);
        for second in 1..10 {
            watch.heard(0, second * 1_000_000);
            assert!(!watch.silent(second * 1_000_000).contains(&0));
        }
    }

    #[test]
    fn a_node_that_reports_on_change_is_never_due() {
        let mut watch = watch(&[node(1, 0)], Duration::ZERO);
        assert!(watch.silent(i64::MAX / 2).is_empty());
    }

    #[test]
    fn t33_a_node_that_stays_is_due_when_it_was_due() {
        let mut slots = Slots::new(&[node(1, 2)]);
        let mut watch = Watch::default();
        watch.follow(&slots, Duration::ZERO, 0);
        slots.follow(&[node(9, 1), node(1, 2)]);
        watch.follow(&slots, Duration::ZERO, 3_000_000);
        assert_eq!(watch.silent(4_000_000), [0]);
    }
}
