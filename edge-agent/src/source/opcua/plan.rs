//! Which nodes have been silent too long? Pure bookkeeping of when each was heard and when it is due.

use std::time::Duration;

use protocol::{Micros, reading::Alias};

use super::config::NodePlan;

/// A node may be this many periods late before it is asked for; the server's publishing interval comes on top.
const PERIODS_LATE: u32 = 2;

/// When each node was last heard, or last reported as silent.
#[derive(Clone, Debug)]
pub struct Watch {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
struct Node {
    alias: Alias,
    period_us: Micros,
    patience_us: Micros,
    next_due_us: Micros,
}

impl Watch {
    /// Every node heard just now.
    pub fn new(nodes: &[NodePlan], publish: Duration, now_us: Micros) -> Self {
        let nodes = nodes.iter().map(|node| {
            let patience_us = (node.period * PERIODS_LATE + publish).as_micros() as Micros;
            Node {
                alias: node.alias,
                period_us: node.period.as_micros() as Micros,
                patience_us,
                next_due_us: now_us + patience_us,
            }
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// A node gave a reading.
    pub fn heard(&mut self, index: usize, now_us: Micros) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.next_due_us = now_us + node.patience_us;
        }
    }

    /// The session is gone: no node will be heard, so each is due by its next period at the latest.
    pub fn lost(&mut self, now_us: Micros) {
        for node in &mut self.nodes {
            node.next_due_us = node.next_due_us.min(now_us + node.period_us);
        }
    }

    /// Nodes that are due and silent: index and alias. Each is named once a period from then on.
    pub fn silent(&mut self, now_us: Micros) -> Vec<(usize, Alias)> {
        let mut out = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.period_us > 0 && now_us >= node.next_due_us {
                node.next_due_us = now_us + node.period_us;
                out.push((index, node.alias));
            }
        }
        out
    }

    /// How often to look: half the shortest period.
    pub fn look_every(&self) -> Duration {
        let shortest_us = self
            .nodes
            .iter()
            .map(|node| node.period_us)
            .filter(|period_us| *period_us > 0)
            .min()
            .unwrap_or(1_000_000);
        Duration::from_micros((shortest_us / 2).clamp(50_000, 1_000_000) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::opcua::config::NodeIdentifier;

    fn node(alias: u32, period_s: u64) -> NodePlan {
        NodePlan {
            alias: Alias(alias),
            node: NodeIdentifier::Number(alias),
            sampling: Duration::from_secs(1),
            period: Duration::from_secs(period_s),
        }
    }

    #[test]
    fn a_silent_node_is_named_after_two_periods_and_then_once_a_period() {
        let mut watch = Watch::new(&[node(3, 2)], Duration::from_secs(1), 0);
        let named: Vec<i64> = (0..=12)
            .filter(|second| !watch.silent(second * 1_000_000).is_empty())
            .collect();
        assert_eq!(named, [5, 7, 9, 11]);
    }

    #[test]
    fn a_node_that_was_heard_is_left_alone() {
        let mut watch = Watch::new(&[node(1, 1), node(2, 1)], Duration::ZERO, 0);
        for second in 1..10 {
            watch.heard(0, second * 1_000_000);
            assert!(!watch.silent(second * 1_000_000).contains(&(0, Alias(1))));
        }
    }

    #[test]
    fn a_node_that_reports_on_change_is_never_due() {
        let mut watch = Watch::new(&[node(1, 0)], Duration::ZERO, 0);
        assert!(watch.silent(i64::MAX / 2).is_empty());
    }
}
