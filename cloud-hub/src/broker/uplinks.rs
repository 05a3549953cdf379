//! Whose message does ingest take next, and who must wait? One queue for all sockets, bounded in bytes and fair among
//! tenants: deficit round-robin over tenants (Shreedhar and Varghese, 1995), and within a tenant events before live
//! before backfill.
//!
//! A tenant may hold as much as is still free (the dynamic threshold of Choudhury and Hahne, 1998): alone it gets half
//! of the room, and there is always some left for a tenant that was quiet. A socket whose tenant holds more is not read
//! until its last message was taken, which its device feels as acknowledgements that do not come.
//! A message counts from its arrival until whoever took it drops it, which is after the commit.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::Uplink;

/// Bytes that a tenant may take at its turn: several usual frames, so that turns stay rare.
const QUANTUM_BYTES: usize = 16 * 1024;
/// What a message takes besides its topic and payload.
const OVERHEAD_BYTES: usize = 256;

/// Nobody takes messages any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ingest takes no more messages")]
pub struct Closed;

/// How much of one tenant is in the hub and not yet committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which tenant, by slug.
    pub tenant: String,
    /// Messages.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How long the oldest has been waiting for its commit.
    pub oldest: Duration,
}

/// Makes a queue that holds about `bytes_max` bytes, beyond that one message a socket.
pub fn channel(bytes_max: usize) -> (UplinkSender, UplinkReceiver) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            senders: 1,
            ..State::default()
        }),
        arrived: Notify::new(),
        bytes_max,
    });
    (UplinkSender(shared.clone()), UplinkReceiver(shared))
}

// === the queue ===

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
    bytes_max: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<String, Tenant>,
    /// Tenants with something to take, in the order of their turns.
    turns: VecDeque<String>,
    /// Bytes of all tenants, queued or taken.
    held_bytes: usize,
    arrivals: u64,
    senders: usize,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Tenant {
    lanes: [VecDeque<Queued>; 3],
    held_bytes: usize,
    deficit_bytes: usize,
    /// When each message that is not yet committed came.
    arrived_at: BTreeMap<u64, Instant>,
}

#[derive(Debug)]
struct Queued {
    uplink: Uplink,
    bytes: usize,
    arrival: u64,
    /// Told when the message is taken, where its socket waits for that.
    room: Option<oneshot::Sender<()>>,
}

/// Which of a tenant's messages go first: events, dictionaries and health; live; backfill.
fn lane(topic: &str) -> usize {
    match topic.rsplit('/').next() {
        Some("events" | "dict" | "status") => 0,
        Some("backfill") => 2,
        _ => 1,
    }
}

impl Tenant {
    fn next_bytes(&self) -> Option<usize> {
        self.lanes
            .iter()
            .find_map(VecDeque::front)
            .map(|queued| queued.bytes)
    }

    fn pop(&mut self) -> Option<Queued> {
        self.lanes.iter_mut().find_map(VecDeque::pop_front)
    }
}

impl State {
    fn push(&mut self, uplink: Uplink, bytes_max: usize) -> Option<oneshot::Receiver<()>> {
        let name = uplink.device.tenant.clone();
        let bytes = OVERHEAD_BYTES + uplink.topic.len() + uplink.payload.len();
        let free_bytes = bytes_max.saturating_sub(self.held_bytes);
        let tenant = self.tenants.entry(name.clone()).or_default();
        let (room, waits) = if tenant.held_bytes >= free_bytes {
            let (room, waits) = oneshot::channel();
            (Some(room), Some(waits))
        } else {
            (None, None)
        };
        if tenant.next_bytes().is_none() {
            self.turns.push_back(name);
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        tenant.held_bytes += bytes;
        tenant.arrived_at.insert(arrival, Instant::now());
        self.held_bytes += bytes;
        tenant.lanes[lane(&uplink.topic)].push_back(Queued {
            uplink,
            bytes,
            arrival,
            room,
        });
        waits
    }

    /// The next message by deficit round-robin.
    fn pop(&mut self) -> Option<Queued> {
        loop {
            let name = self.turns.front()?;
            let tenant = self.tenants.get_mut(name)?;
            let Some(bytes) = tenant.next_bytes() else {
                // Who has nothing to send saves up no turns.
                tenant.deficit_bytes = 0;
                self.turns.pop_front();
                continue;
            };
            if bytes <= tenant.deficit_bytes {
                tenant.deficit_bytes -= bytes;
                let queued = tenant.pop();
                if tenant.next_bytes().is_none() {
                    tenant.deficit_bytes = 0;
                    self.turns.pop_front();
                }
                return queued;
            }
            tenant.deficit_bytes += QUANTUM_BYTES;
            self.turns.rotate_left(1);
        }
    }

    fn release(&mut self, name: &str, arrival: u64, bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        let Some(tenant) = self.tenants.get_mut(name) else {
            return;
        };
        tenant.held_bytes = tenant.held_bytes.saturating_sub(bytes);
        tenant.arrived_at.remove(&arrival);
        if tenant.arrived_at.is_empty() {
            self.tenants.remove(name);
        }
    }
}

// === its two ends ===

/// Where messages of devices go in. Cloning it gives another handle on the same queue.
#[derive(Debug)]
pub struct UplinkSender(Arc<Shared>);

impl UplinkSender {
    /// Puts a message into the queue. What comes back, when something does, ends when the message was taken: until
    /// then its sender must send no more.
    ///
    /// # Errors
    /// [`Closed`]; the message is dropped, which tells its device to try again.
    pub fn offer(&self, uplink: Uplink) -> Result<Option<oneshot::Receiver<()>>, Closed> {
        let mut state = self.0.state();
        if state.is_closed {
            return Err(Closed);
        }
        let waits = state.push(uplink, self.0.bytes_max);
        drop(state);
        self.0.arrived.notify_one();
        Ok(waits)
    }

    /// Puts a message into the queue and waits until there is room for more.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn send(&self, uplink: Uplink) -> Result<(), Closed> {
        match self.offer(uplink)? {
            Some(waits) => waits.await.map_err(|_| Closed),
            None => Ok(()),
        }
    }
}

impl Clone for UplinkSender {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(self.0.clone())
    }
}

impl Drop for UplinkSender {
    fn drop(&mut self) {
        self.0.state().senders -= 1;
        self.0.arrived.notify_one();
    }
}

/// Where ingest takes messages out.
#[derive(Debug)]
pub struct UplinkReceiver(Arc<Shared>);

impl UplinkReceiver {
    /// Shows what is in the queue, without being an end of it.
    pub fn watch(&self) -> UplinkWatch {
        UplinkWatch(self.0.clone())
    }

    /// The next message; `None` once the queue is empty and no sender is left. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Taken> {
        loop {
            {
                let mut state = self.0.state();
                if let Some(queued) = state.pop() {
                    if let Some(room) = queued.room {
                        // The socket may be gone: then nobody waits for room.
                        room.send(()).unwrap_or_default();
                    }
                    let hold = Hold {
                        shared: self.0.clone(),
                        tenant: queued.uplink.device.tenant.clone(),
                        arrival: queued.arrival,
                        bytes: queued.bytes,
                    };
                    return Some(Taken {
                        uplink: queued.uplink,
                        hold,
                    });
                }
                if state.senders == 0 {
                    return None;
                }
            }
            self.0.arrived.notified().await;
        }
    }
}

impl Drop for UplinkReceiver {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closed = true;
        // Dropping the messages tells their devices to try again.
        let left = (
            std::mem::take(&mut state.tenants),
            std::mem::take(&mut state.turns),
        );
        state.held_bytes = 0;
        drop(state);
        drop(left);
    }
}

/// Shows what is in the queue.
#[derive(Clone, Debug)]
pub struct UplinkWatch(Arc<Shared>);

impl UplinkWatch {
    /// What is in the hub and not committed, of each tenant that has something.
    pub fn waiting(&self) -> Vec<Waiting> {
        let now = Instant::now();
        let state = self.0.state();
        let waiting = state.tenants.iter().map(|(name, tenant)| Waiting {
            tenant: name.clone(),
            messages: tenant.arrived_at.len(),
            bytes: tenant.held_bytes,
            oldest: tenant
                .arrived_at
                .first_key_value()
                .map_or(Duration::ZERO, |(_, at)| now.duration_since(*at)),
        });
        waiting.collect()
    }
}

/// A message that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The message.
    pub uplink: Uplink,
    /// Its place in the hub's memory; dropped once it is settled.
    pub hold: Hold,
}

/// Room that a message takes until this is dropped.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    tenant: String,
    arrival: u64,
    bytes: usize,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared
            .state()
            .release(&self.tenant, self.arrival, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use proptest::prelude::*;
    use rumqttc::v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    };

    use super::*;
    use crate::broker::{Authenticate, BrokerConfig, Device, Limits, Settled, start};

    struct AnyEdge;

    impl Authenticate for AnyEdge {
        fn authenticate(&self, name: String, _: Vec<u8>) -> BoxFuture<'static, Option<Device>> {
            let tenant = "a".to_owned();
            Box::pin(std::future::ready(Some(Device { tenant, name })))
        }
    }

    fn message(tenant: &str, lane: &str, bytes: usize) -> Uplink {
        Uplink {
            device: Device {
                tenant: tenant.to_owned(),
                name: "e1".to_owned(),
            },
            topic: format!("ff/v1/{tenant}/e1/up/{lane}"),
            payload: Bytes::from(vec![0; bytes]),
            settled: oneshot::channel().0,
        }
    }

    async fn take(receiver: &mut UplinkReceiver) -> Taken {
        receiver.recv().await.expect("there is a sender")
    }

    #[tokio::test]
    async fn a_tenant_that_floods_does_not_delay_another() {
        let (sender, mut receiver) = channel(64 << 20);
        for _ in 0..5_000 {
            sender.offer(message("flood", "live", 3_000)).unwrap();
        }
        sender.offer(message("quiet", "live", 3_000)).unwrap();
        let mut before = 0;
        while take(&mut receiver).await.uplink.device.tenant != "quiet" {
            before += 1;
        }
        assert!(
            before <= 2 * QUANTUM_BYTES / 3_000,
            "{before} of the other tenant went first"
        );
    }

    #[tokio::test]
    async fn within_a_tenant_events_go_before_live_and_live_before_backfill() {
        let (sender, mut receiver) = channel(1 << 20);
        for lane in ["backfill", "live", "backfill", "events"] {
            sender.offer(message("a", lane, 10)).unwrap();
        }
        let mut lanes = Vec::new();
        for _ in 0..4 {
            let topic = take(&mut receiver).await.uplink.topic;
            lanes.push(topic.rsplit('/').next().unwrap().to_owned());
        }
        assert_eq!(lanes, ["events", "live", "backfill", "backfill"]);
    }

    #[tokio::test]
    async fn a_socket_of_a_tenant_with_too_much_waits_and_a_quiet_tenant_does_not() {
        let (sender, mut receiver) = channel(100_000);
        let mut offered = 0;
        let waits = loop {
            offered += 1;
            if let Some(waits) = sender.offer(message("flood", "live", 1_000)).unwrap() {
                break waits;
            }
        };
        assert!(
            (35..=45).contains(&offered),
            "half of the room, then it waits: {offered}"
        );
        assert!(sender.offer(message("quiet", "live", 1_000)).unwrap().is_none());
        let mut taken = Vec::new();
        for _ in 0..=offered {
            taken.push(take(&mut receiver).await);
        }
        assert!(waits.await.is_ok(), "it was taken");
        assert_eq!(receiver.watch().waiting().len(), 2, "taken is not committed");
        drop(taken);
        assert!(receiver.watch().waiting().is_empty());
        assert!(sender.offer(message("flood", "live", 1_000)).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_device_that_is_not_acknowledged_keeps_its_messages_and_the_hub_holds_few() {
        const COUNT: usize = 500;
        let (sender, mut receiver) = channel(20_000);
        let config = BrokerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            limits: Limits::default(),
        };
        let broker = start(config, Arc::new(AnyEdge), sender).await.unwrap();
        let mut options = MqttOptions::new("e1", "127.0.0.1", broker.local_addr.port());
        options
            .set_credentials("e1", "any")
            .set_outgoing_inflight_upper_limit(COUNT as u16);
        let (client, mut events) = AsyncClient::new(options, COUNT);
        for _ in 0..COUNT {
            let payload = vec![0; 1_000];
            client
                .try_publish("ff/v1/a/e1/up/live", QoS::AtLeastOnce, false, payload)
                .unwrap();
        }
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let counted = acknowledged.clone();
        let edge = tokio::spawn(async move {
            while counted.load(Ordering::SeqCst) < COUNT {
                if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        // Nobody commits: no more than the room is taken, whatever the edge has to send.
        let mut kept = vec![receiver.recv().await.unwrap()];
        while kept.len() < 5 {
            kept.push(receiver.recv().await.unwrap());
        }
        let held = receiver.watch().waiting();
        assert!(held[0].bytes <= 20_000 + 2 * 1_300, "{held:?}");
        assert_eq!(acknowledged.load(Ordering::SeqCst), 0);
        for _ in 0..COUNT - kept.len() {
            for taken in kept.drain(..) {
                taken.uplink.settled.send(Settled::Stored).unwrap();
            }
            kept.push(receiver.recv().await.unwrap());
        }
        for taken in kept {
            taken.uplink.settled.send(Settled::Stored).unwrap();
        }
        edge.await.unwrap();
        broker.shutdown().await;
    }

    #[tokio::test]
    async fn messages_left_over_and_sockets_that_wait_are_told_when_nobody_takes_them() {
        let (sender, receiver) = channel(10);
        let (settled, told) = oneshot::channel();
        let mut first = message("a", "live", 100);
        first.settled = settled;
        assert!(
            sender.offer(first).unwrap().is_none(),
            "who holds nothing never waits"
        );
        let waits = sender.offer(message("a", "live", 100)).unwrap().unwrap();
        drop(receiver);
        assert!(told.await.is_err() && waits.await.is_err());
        assert_eq!(sender.offer(message("a", "live", 1)).unwrap_err(), Closed);
    }

    #[tokio::test]
    async fn the_end_comes_after_the_last_message() {
        let (sender, mut receiver) = channel(1 << 20);
        sender.offer(message("a", "live", 1)).unwrap();
        drop(sender);
        assert!(receiver.recv().await.is_some() && receiver.recv().await.is_none());
    }

    proptest! {
        #[test]
        fn every_message_comes_out_once_and_a_lane_in_order_whatever_goes_in(
            sent in prop::collection::vec((0..4_usize, 0..3_usize, 0..40_000_usize), 1..200),
        ) {
            let mut state = State::default();
            for (number, (tenant, lane, bytes)) in sent.iter().enumerate() {
                let mut one = message(&format!("t{tenant}"), ["events", "live", "backfill"][*lane], *bytes);
                one.device.name = number.to_string();
                state.push(one, usize::MAX);
            }
            let mut newest: HashMap<String, usize> = HashMap::new();
            let mut count = 0;
            while let Some(queued) = state.pop() {
                let number: usize = queued.uplink.device.name.parse().unwrap();
                let before = newest.insert(queued.uplink.topic.clone(), number);
                prop_assert!(before.is_none_or(|before| before < number));
                state.release(&queued.uplink.device.tenant, queued.arrival, queued.bytes);
                count += 1;
            }
            prop_assert_eq!(count, sent.len());
            prop_assert!(state.tenants.is_empty() && state.turns.is_empty() && state.held_bytes == 0);
        }

        #[test]
        fn two_busy_tenants_get_equal_shares_of_bytes(sizes in (100..30_000_usize, 100..30_000_usize)) {
            let mut state = State::default();
            for _ in 0..400 {
                state.push(message("a", "live", sizes.0), usize::MAX);
                state.push(message("b", "live", sizes.1), usize::MAX);
            }
            let mut taken = HashMap::from([("a".to_owned(), 0_usize), ("b".to_owned(), 0)]);
            loop {
                let Some(queued) = state.pop() else { break };
                *taken.get_mut(&queued.uplink.device.tenant).unwrap() += queued.bytes;
                if state.turns.len() < 2 {
                    break;
                }
                let apart = taken["a"].abs_diff(taken["b"]);
                prop_assert!(apart <= 2 * QUANTUM_BYTES + 40_000, "{} bytes apart", apart);
            }
        }
    }
}
