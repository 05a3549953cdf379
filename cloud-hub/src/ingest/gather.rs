//! How many frames go into one transaction? As many as come while the database is busy, up to a limit; an
//! event never waits for more.

use protocol::Micros;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    read::{self, Item},
};
use crate::{broker::UplinkReceiver, kernel::clock::Clock};

/// Most messages in a batch, whatever they hold.
const ITEMS_MAX: usize = 512;
/// Most bytes of payload in a batch, beyond which only one message may go: pictures come with events.
const BYTES_MAX: usize = 8 << 20;

/// Items that are stored together, and when the first of them came.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) first_us: Micros,
    rows: usize,
    bytes: usize,
    is_urgent: bool,
}

impl Batch {
    fn push(&mut self, item: Item, now_us: Micros) {
        if self.items.is_empty() {
            self.first_us = now_us;
        }
        self.rows += item.content.rows();
        self.bytes += item.payload.len();
        self.is_urgent |= item.content.is_urgent();
        self.items.push(item);
    }

    fn is_full(&self, rows_max: usize) -> bool {
        self.rows >= rows_max || self.bytes >= BYTES_MAX || self.items.len() >= ITEMS_MAX
    }
}

/// Reads messages and hands batches on. A full batch waits for the writer, and the bounded queue of uplinks
/// behind it fills: that is the back-pressure that edges feel. Which tenant's message comes next is the queue's affair.
pub(super) async fn run(
    mut uplinks: UplinkReceiver,
    batches: mpsc::Sender<Batch>,
    settings: Settings,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut batch = Batch::default();
    let mut deadline = Instant::now();
    loop {
        let may_take = !batch.is_full(settings.rows_max);
        let is_due = !batch.items.is_empty();
        let due_at = if batch.is_urgent || !may_take {
            Instant::now()
        } else {
            deadline
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            taken = uplinks.recv(), if may_take => {
                let Some(taken) = taken else { break };
                if batch.items.is_empty() {
                    deadline = Instant::now() + settings.gather;
                }
                let now_us = clock.now_us();
                if let Some(item) = read::item(taken, now_us) {
                    batch.push(item, now_us);
                }
            }
            permit = async { sleep_until(due_at).await; batches.reserve().await }, if is_due => {
                let Ok(permit) = permit else { return };
                permit.send(std::mem::take(&mut batch));
            }
        }
    }
    // The broker is gone. What was taken before is still stored; a closed writer settles it by dropping it.
    if !batch.items.is_empty() {
        drop(batches.send(batch).await);
    }
}
