//! How do frames become rows? `read` turns messages into items, `gather` collects them into batches while the
//! database is busy, `write` stores a batch in one transaction, `acknowledge` tells the edges.
//!
//! Nothing is acknowledged before its commit; nothing is given up while the database is away.

mod acknowledge;
mod board;
mod copy;
mod dictionary;
mod event;
mod fleet;
mod frame;
mod gather;
mod land;
mod mark;
mod per_tag;
mod read;
mod seen;
mod store;
mod write;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use acknowledge::Publish;
pub(crate) use event::bury;
pub(crate) use land::store_samples;
pub(crate) use read::{is_possible, is_stamped_here};

use crate::{
    broker::UplinkReceiver,
    edges::authority::DeviceAuthority,
    kernel::{clock::Clock, database::Target},
    series::bus::LiveBus,
};

/// How ingest batches.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most readings in a transaction.
    pub rows_max: usize,
    /// Longest wait for more frames.
    pub gather: Duration,
}

/// What ingest works with.
#[derive(Clone)]
pub struct Context {
    /// The database, as the login role.
    pub target: Target,
    /// Where acknowledgements go.
    pub publish: Arc<dyn Publish>,
    /// Who is told after a commit.
    pub live: LiveBus,
    /// Signs the keys of edges.
    pub authority: DeviceAuthority,
    /// Now.
    pub clock: Clock,
    /// How ingest batches.
    pub settings: Settings,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Runs until `uplinks` closes or `stop` is cancelled. What was taken but not stored by then is settled with
/// [`Settled::Retry`](crate::broker::Settled::Retry): the edge still has it.
pub async fn run(context: Context, uplinks: UplinkReceiver, stop: CancellationToken) {
    let (batches, waiting) = mpsc::channel(1);
    let board = board::Board::default();
    let telling = board::run(board.clone(), uplinks.watch(), context.clock.clone());
    let gather = gather::run(
        uplinks,
        batches,
        context.settings,
        context.clock.clone(),
        stop.clone(),
    );
    let write = write::run(context, board, waiting, stop);
    tokio::select! {
        _ = async { tokio::join!(gather, write) } => {}
        () = telling => {}
    }
}
