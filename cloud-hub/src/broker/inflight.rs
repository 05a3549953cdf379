//! Which messages that the router forwarded with QoS 1 are not acknowledged yet? The router takes acknowledgements in
//! the order in which it forwarded, and ends a link that does otherwise; clients and messages that were never sent to
//! one do not keep to it.

use std::collections::VecDeque;

/// Packet ids that the router waits for, oldest first.
#[derive(Debug, Default)]
pub(super) struct Inflight {
    waiting: VecDeque<Waiting>,
    /// How many of them the client has.
    with_client: u16,
}

#[derive(Debug)]
struct Waiting {
    pkid: u16,
    is_settled: bool,
}

impl Inflight {
    /// The client was sent it.
    pub(super) fn sent(&mut self, pkid: u16) {
        self.with_client = self.with_client.saturating_add(1);
        self.waiting.push_back(Waiting {
            pkid,
            is_settled: false,
        });
    }

    /// The client was sent nothing that it could acknowledge.
    pub(super) fn not_sent(&mut self, pkid: u16) {
        self.waiting.push_back(Waiting {
            pkid,
            is_settled: true,
        });
    }

    /// The client acknowledged it; whether it had been sent it.
    pub(super) fn acknowledged(&mut self, pkid: u16) -> bool {
        let mut waiting = self.waiting.iter_mut();
        let Some(found) = waiting.find(|it| it.pkid == pkid && !it.is_settled) else {
            return false;
        };
        found.is_settled = true;
        self.with_client -= 1;
        true
    }

    /// The next packet id to be acknowledged to the router, as long as there is one.
    pub(super) fn next_settled(&mut self) -> Option<u16> {
        let first = self.waiting.front().filter(|it| it.is_settled)?.pkid;
        self.waiting.pop_front();
        Some(first)
    }

    /// How many messages the client has not acknowledged.
    pub(super) fn with_client(&self) -> u16 {
        self.with_client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(inflight: &mut Inflight) -> Vec<u16> {
        std::iter::from_fn(|| inflight.next_settled()).collect()
    }

    #[test]
    fn the_router_is_told_in_its_own_order_whatever_the_clients_is() {
        let mut inflight = Inflight::default();
        for pkid in [1, 2, 4] {
            inflight.sent(pkid);
        }
        inflight.not_sent(5);
        assert_eq!((settled(&mut inflight), inflight.with_client()), (vec![], 3));
        assert!(inflight.acknowledged(2));
        assert_eq!((settled(&mut inflight), inflight.with_client()), (vec![], 2));
        assert!(inflight.acknowledged(1));
        assert_eq!(settled(&mut inflight), [1, 2]);
        assert!(inflight.acknowledged(4));
        assert_eq!((settled(&mut inflight), inflight.with_client()), (vec![4, 5], 0));
    }

    #[test]
    fn an_acknowledgement_of_nothing_or_of_something_twice_is_known_as_such() {
        let mut inflight = Inflight::default();
        assert!(!inflight.acknowledged(1));
        inflight.sent(1);
        inflight.sent(2);
        assert!(inflight.acknowledged(2) && !inflight.acknowledged(2));
        inflight.not_sent(3);
        assert!(!inflight.acknowledged(3), "it was never sent");
        assert_eq!(inflight.with_client(), 1);
    }
}
