//! How do nodes become monitored items? In chunks that the server accepts, over as many subscriptions as it needs; one
//! node that is refused costs the others nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use opcua::{
    client::{
        MonitoredItemMap, OnSubscriptionNotificationCore, Session, UARequest as _,
        services::{CreateMonitoredItems, DeleteMonitoredItems},
    },
    types::{
        DataChangeFilter, DataChangeTrigger, Error, ExtensionObject, MonitoredItemCreateRequest,
        MonitoredItemCreateResult, MonitoringMode, MonitoringParameters, NodeId, NotificationMessage,
        ReadValueId, StatusCode, TimestampsToReturn, VariableId,
    },
};
use tokio::sync::mpsc;

use super::{
    client::{Namespaces, REQUEST_WITHIN, failure, in_time},
    config::{NodePlan, Server},
    limits::{Learned, Limits, is_too_large},
    pulse,
    sequence::Sequence,
    slots::Slots,
};
use crate::source::error::SourceError;

/// Most values in one notification message.
const NOTIFICATIONS_MAX: u32 = 10_000;
/// A subscription without values says so at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Nodes named in one warning.
const NAMED_MAX: usize = 5;

/// A notification message and the subscription it is of.
#[derive(Debug)]
pub struct Note {
    /// Its place among [`Items::subscriptions`].
    pub subscription: usize,
    /// The message.
    pub message: NotificationMessage,
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// The server's number for it.
    pub id: u32,
    /// What came of it.
    pub sequence: Sequence,
    /// When a message of it was last heard, steady time.
    pub heard_us: i64,
    /// The same by the wall clock, for records.
    pub heard_at_us: i64,
    /// After this long without a message it is dead.
    pub silence_max: Duration,
    items: usize,
    is_full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    subscription: usize,
    id: u32,
}

/// The monitored items of one session.
pub struct Items {
    /// The subscriptions, in order of creation.
    pub subscriptions: Vec<Subscription>,
    session: Arc<Session>,
    limits: Limits,
    publish: Duration,
    session_timeout: Duration,
    held: HashMap<u32, Item>,
    refused: BTreeMap<u32, StatusCode>,
    notes: mpsc::Sender<Note>,
}

impl std::fmt::Debug for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items")
            .field("subscriptions", &self.subscriptions)
            .field("held", &self.held.len())
            .field("refused", &self.refused.len())
            .finish_non_exhaustive()
    }
}

/// An item that is to be made.
struct Wanted {
    slot: u32,
    node: NodeId,
    sampling: Duration,
    queue_size: u32,
}

/// Takes messages from the library as they come. When the agent cannot keep up a message is dropped, and missed by its
/// number.
struct Taker {
    subscription: usize,
    notes: mpsc::Sender<Note>,
}

impl OnSubscriptionNotificationCore for Taker {
    fn on_subscription_notification(&mut self, message: NotificationMessage, _: MonitoredItemMap<'_>) {
        let note = Note {
            subscription: self.subscription,
            message,
        };
        if self.notes.try_send(note).is_err() {
            tracing::warn!("a notification message was dropped: the agent cannot keep up");
        }
    }
}

impl Items {
    /// No items yet; messages go to `notes`.
    pub fn new(session: Arc<Session>, server: &Server, limits: Limits, notes: mpsc::Sender<Note>) -> Self {
        Self {
            subscriptions: Vec::new(),
            session,
            limits,
            publish: server.publish,
            session_timeout: server.session_timeout,
            held: HashMap::new(),
            refused: BTreeMap::new(),
            notes,
        }
    }

    /// The slots whose items are in a subscription.
    pub fn slots_of(&self, subscription: usize) -> Vec<u32> {
        let mut slots: Vec<u32> = self
            .held
            .iter()
            .filter(|(_, item)| item.subscription == subscription)
            .map(|(slot, _)| *slot)
            .collect();
        slots.sort_unstable();
        slots
    }

    /// Forgets refusals, so that [`follow`](Self::follow) tries those nodes again; whether there were any.
    pub fn retry_refused(&mut self) -> bool {
        let had = !self.refused.is_empty();
        self.refused.clear();
        had
    }

    /// Watches the server's own clock; whether it lets itself be watched.
    pub async fn watch_clock(&mut self, learned: &mut Learned) -> Result<bool, SourceError> {
        let clock = Wanted {
            slot: pulse::HANDLE,
            node: NodeId::from(VariableId::Server_ServerStatus_CurrentTime),
            sampling: pulse::sampling(self.publish),
            queue_size: 1,
        };
        self.create(VecDeque::from([clock]), learned).await?;
        Ok(self.refused.remove(&pulse::HANDLE).is_none())
    }

    /// Makes and removes items until exactly what the slots hold is watched; the slots newly refused and why.
    ///
    /// # Errors
    /// When the session does not answer, or ends.
    pub async fn follow(
        &mut self,
        slots: &Slots,
        (namespaces, namespace_uri): (&Namespaces, &str),
        learned: &mut Learned,
    ) -> Result<Vec<(u32, StatusCode)>, SourceError> {
        self.refused.retain(|slot, _| slots.get(*slot).is_some());
        let gone: Vec<u32> = self
            .held
            .keys()
            .copied()
            .filter(|slot| *slot != pulse::HANDLE && slots.get(*slot).is_none())
            .collect();
        self.delete(&gone).await?;
        let before: BTreeSet<u32> = self.refused.keys().copied().collect();
        let mut wanted = VecDeque::new();
        for (slot, plan) in slots.iter() {
            if self.held.contains_key(&slot) || self.refused.contains_key(&slot) {
                continue;
            }
            match node_id(namespaces, namespace_uri, plan) {
                Some(node) => wanted.push_back(Wanted {
                    slot,
                    node,
                    sampling: plan.sampling,
                    queue_size: plan.queue_size,
                }),
                None => {
                    self.refused.insert(slot, StatusCode::BadNodeIdUnknown);
                }
            }
        }
        self.create(wanted, learned).await?;
        let newly = self.refused.iter().filter(|(slot, _)| !before.contains(slot));
        Ok(newly.map(|(slot, status)| (*slot, *status)).collect())
    }

    async fn create(
        &mut self,
        mut queue: VecDeque<Wanted>,
        learned: &mut Learned,
    ) -> Result<(), SourceError> {
        let mut revised = Revised::default();
        while !queue.is_empty() {
            let Some(subscription) = self.subscription().await? else {
                self.refuse(queue, StatusCode::BadTooManySubscriptions);
                break;
            };
            let chunk: Vec<Wanted> = queue.drain(..queue.len().min(self.limits.items)).collect();
            match self.create_chunk(subscription, &chunk).await {
                Ok(results) => {
                    let again = self.note_results(subscription, chunk, &results, &mut revised);
                    for item in again.into_iter().rev() {
                        queue.push_front(item);
                    }
                }
                Err(error) if is_too_large(error.status()) && chunk.len() > 1 => {
                    learned.too_large(chunk.len());
                    self.limits.items = (chunk.len() / 2).max(1);
                    tracing::info!(
                        items = self.limits.items,
                        status = %error.status(),
                        "the server takes fewer monitored items in one request"
                    );
                    for item in chunk.into_iter().rev() {
                        queue.push_front(item);
                    }
                }
                Err(error) if error.status() == StatusCode::BadTooManyMonitoredItems => {
                    if self.subscriptions[subscription].items > 0 {
                        self.subscriptions[subscription].is_full = true;
                        for item in chunk.into_iter().rev() {
                            queue.push_front(item);
                        }
                    } else {
                        self.refuse(chunk, error.status());
                    }
                }
                Err(error) => return Err(failure("CreateMonitoredItems", &error.status().to_string())),
            }
        }
        revised.warn();
        Ok(())
    }

    async fn create_chunk(
        &self,
        subscription: usize,
        chunk: &[Wanted],
    ) -> Result<Vec<MonitoredItemCreateResult>, Error> {
        let id = self.subscriptions[subscription].id;
        let call = CreateMonitoredItems::new(id, &self.session)
            .items_to_create(chunk.iter().map(request).collect())
            .timestamps_to_return(TimestampsToReturn::Both)
            .send(self.session.channel());
        let answer = tokio::time::timeout(REQUEST_WITHIN * 2, call).await;
        let created = answer.map_err(|_| Error::new(StatusCode::BadTimeout, "no reply in time"))??;
        Ok(created
            .results
            .into_iter()
            .map(|created| created.result)
            .collect())
    }

    /// Notes what was made and refused; what belongs into another subscription comes back.
    fn note_results(
        &mut self,
        subscription: usize,
        chunk: Vec<Wanted>,
        results: &[MonitoredItemCreateResult],
        revised: &mut Revised,
    ) -> Vec<Wanted> {
        let mut again = Vec::new();
        for (item, result) in chunk.into_iter().zip(results) {
            if result.status_code.is_good() {
                revised.note(&item, result);
                let id = result.monitored_item_id;
                self.held.insert(item.slot, Item { subscription, id });
                self.subscriptions[subscription].items += 1;
            } else if result.status_code == StatusCode::BadTooManyMonitoredItems
                && self.subscriptions[subscription].items > 0
            {
                self.subscriptions[subscription].is_full = true;
                again.push(item);
            } else {
                self.refused.insert(item.slot, result.status_code);
            }
        }
        again
    }

    fn refuse(&mut self, items: impl IntoIterator<Item = Wanted>, status: StatusCode) {
        self.refused
            .extend(items.into_iter().map(|item| (item.slot, status)));
    }

    /// The subscription that takes new items, made if need be; none when the server makes no more.
    async fn subscription(&mut self) -> Result<Option<usize>, SourceError> {
        if let Some(last) = self.subscriptions.last()
            && !last.is_full
        {
            return Ok(Some(self.subscriptions.len() - 1));
        }
        let publishes = |time: Duration| (time.as_secs_f64() / self.publish.as_secs_f64()).ceil() as u32;
        let keep_alive = publishes(KEEP_ALIVE).max(1);
        let lifetime = publishes(self.session_timeout).max(keep_alive * 3);
        let ordinal = self.subscriptions.len();
        let taker = Taker {
            subscription: ordinal,
            notes: self.notes.clone(),
        };
        let created = self
            .session
            .create_subscription(
                self.publish,
                lifetime,
                keep_alive,
                NOTIFICATIONS_MAX,
                0,
                true,
                taker,
            )
            .await;
        let id = match created {
            Ok(id) => id,
            Err(error) if error.status() == StatusCode::BadTooManySubscriptions && ordinal > 0 => {
                return Ok(None);
            }
            Err(error) => return Err(failure("CreateSubscription", &error.status().to_string())),
        };
        let (publish, keep_alive) = self.revised(id).unwrap_or((self.publish, keep_alive));
        self.subscriptions.push(Subscription {
            id,
            sequence: Sequence::default(),
            heard_us: i64::MAX,
            heard_at_us: crate::clock::now_us(),
            silence_max: publish * keep_alive * 2 + publish,
            items: 0,
            is_full: false,
        });
        Ok(Some(ordinal))
    }

    /// What the server made of publishing interval and keep-alive count.
    fn revised(&self, id: u32) -> Option<(Duration, u32)> {
        let state = self.session.subscription_state().lock();
        let subscription = state.get(id)?;
        let publish = subscription.publishing_interval();
        if publish.abs_diff(self.publish) > self.publish / 100 {
            tracing::warn!(asked = ?self.publish, revised = ?publish, "the server publishes at another interval");
        }
        Some((publish, subscription.max_keep_alive_count()))
    }

    async fn delete(&mut self, slots: &[u32]) -> Result<(), SourceError> {
        let mut by_subscription: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for slot in slots {
            if let Some(item) = self.held.remove(slot) {
                by_subscription
                    .entry(item.subscription)
                    .or_default()
                    .push(item.id);
                let subscription = &mut self.subscriptions[item.subscription];
                subscription.items -= 1;
                subscription.is_full = false;
            }
        }
        for (subscription, ids) in by_subscription {
            for chunk in ids.chunks(self.limits.items) {
                let call = DeleteMonitoredItems::new(self.subscriptions[subscription].id, &self.session)
                    .items_to_delete(chunk.to_vec())
                    .send(self.session.channel());
                in_time("DeleteMonitoredItems", call).await?;
            }
        }
        Ok(())
    }
}

/// The node id of a tag; none when the server does not know its namespace.
pub fn node_id(namespaces: &Namespaces, namespace_uri: &str, plan: &NodePlan) -> Option<NodeId> {
    let uri = plan.namespace_uri.as_deref().unwrap_or(namespace_uri);
    namespaces.node_id(uri, &plan.node)
}

fn request(item: &Wanted) -> MonitoredItemCreateRequest {
    // Part 4 §7.22.2: a new timestamp alone is reported too, else an unchanged value looks like a dead one.
    let filter = DataChangeFilter {
        trigger: DataChangeTrigger::StatusValueTimestamp,
        deadband_type: 0,
        deadband_value: 0.0,
    };
    MonitoredItemCreateRequest {
        item_to_monitor: ReadValueId::from(&item.node),
        monitoring_mode: MonitoringMode::Reporting,
        requested_parameters: MonitoringParameters {
            client_handle: handle(item.slot),
            sampling_interval: item.sampling.as_secs_f64() * 1000.0,
            filter: ExtensionObject::from_message(filter),
            queue_size: item.queue_size,
            discard_oldest: true,
        },
    }
}

/// A slot as a handle; 0 is left out, which some servers and the library take for none.
fn handle(slot: u32) -> u32 {
    slot.saturating_add(1)
}

/// The slot of a handle; [`pulse::HANDLE`] stays what it is.
pub fn slot(handle: u32) -> u32 {
    if handle == pulse::HANDLE {
        handle
    } else {
        handle.wrapping_sub(1)
    }
}

/// What the server gave instead of what was asked for.
#[derive(Debug, Default)]
struct Revised {
    items: usize,
    slower: Vec<String>,
    slower_count: usize,
    shorter_count: usize,
}

impl Revised {
    fn note(&mut self, item: &Wanted, result: &MonitoredItemCreateResult) {
        self.items += 1;
        let asked_ms = item.sampling.as_secs_f64() * 1000.0;
        if result.revised_sampling_interval > asked_ms * 1.01 {
            self.slower_count += 1;
            if self.slower.len() < NAMED_MAX {
                let revised_ms = result.revised_sampling_interval;
                self.slower
                    .push(format!("{} {asked_ms} → {revised_ms} ms", item.node));
            }
        }
        if result.revised_queue_size < item.queue_size && item.queue_size > 1 {
            self.shorter_count += 1;
        }
    }

    fn warn(&self) {
        if self.slower_count > 0 {
            tracing::warn!(
                count = self.slower_count,
                of = self.items,
                nodes = self.slower.join(", "),
                "the server samples more slowly than asked"
            );
        }
        if self.shorter_count > 0 {
            tracing::warn!(
                count = self.shorter_count,
                of = self.items,
                "the server queues fewer samples than asked: a late publish may lose some, on record"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_handles_are_one_to_one_and_no_handle_is_zero() {
        for number in [0, 1, 65_535, u32::MAX - 2] {
            assert_eq!(slot(handle(number)), number);
            assert_ne!(handle(number), 0);
            assert_ne!(handle(number), pulse::HANDLE);
        }
        assert_eq!(slot(handle(pulse::HANDLE)), pulse::HANDLE);
    }
}
