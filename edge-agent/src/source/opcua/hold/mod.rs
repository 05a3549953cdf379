//! How is one session held, and what when it breaks? By Part 4 §6.7: a new channel and the old session first, else a
//! new session and its subscriptions transferred; then every message in between is asked for again. What cannot be
//! had is reported as a gap, and what cannot be resumed is begun anew.

mod connect;
mod deliver;
mod held;
mod resume;
mod serve;

use std::{path::PathBuf, sync::Arc, time::Duration};

use opcua::{
    client::Session,
    types::{MonitoredItemNotification, StatusCode},
};
use rand::Rng as _;
use tokio::sync::{mpsc, watch};

use super::{
    client::Namespaces,
    config::Server,
    endpoint::Ended,
    limits::{self, Learned},
    pki::Refusal,
    slots::Slots,
};
use crate::source::error::SourceError;

const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A certificate that was just accepted should be taken soon.
const BACKOFF_REFUSED_MAX: Duration = Duration::from_secs(5);

/// What is to be watched now.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The server.
    pub server: Arc<Server>,
    /// Its nodes.
    pub slots: Arc<Slots>,
}

/// What a session reports.
pub enum Report {
    /// Connected and subscribed.
    Up(Arc<Session>, Arc<Namespaces>, limits::Limits),
    /// Values, in the order in which the server sent them; the handle is a slot's, or [`HANDLE`](super::pulse::HANDLE).
    Values(Vec<MonitoredItemNotification>, i64),
    /// Nodes that the server does not watch, and why.
    Refused(Vec<(u32, StatusCode)>),
    /// Values that were sent and are lost.
    Gap(Lost),
    /// The server's certificate is not accepted.
    Untrusted(Refusal),
    /// The session is lost; it may be resumed.
    Down(String),
}

/// Values that are lost.
#[derive(Debug)]
pub struct Lost {
    /// Whose; none for every node that reports on change only: what is due is watched for anyway.
    pub slots: Option<Vec<u32>>,
    /// After this.
    pub from_us: i64,
    /// Before this.
    pub to_us: i64,
    /// Messages lost; 1 where the number is not known.
    pub messages: u32,
    /// Why.
    pub reason: &'static str,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Up(..) => f.write_str("Up"),
            Self::Values(values, _) => write!(f, "Values({})", values.len()),
            Self::Refused(nodes) => write!(f, "Refused({nodes:?})"),
            Self::Gap(lost) => write!(f, "Gap({lost:?})"),
            Self::Untrusted(refusal) => write!(f, "Untrusted({refusal:?})"),
            Self::Down(reason) => write!(f, "Down({reason})"),
        }
    }
}

/// Why a session is left for good.
enum Over {
    /// Nobody takes reports any more.
    Closed,
    /// It ended; another follows.
    Ended(Ended),
    /// Another server, or another way to it, is configured.
    Reconfigured,
}

impl From<SourceError> for Over {
    fn from(error: SourceError) -> Self {
        Self::Ended(Ended::Lost(error))
    }
}

/// Holds one session after the other until nobody takes reports any more, with growing, jittered pauses.
pub async fn keep(mut desired: watch::Receiver<Desired>, pki_dir: PathBuf, reports: mpsc::Sender<Report>) {
    let mut learned = Learned::new(desired.borrow().server.publish);
    let mut backoff = BACKOFF_MIN;
    let mut heard_at_us = None;
    loop {
        let mut holding = Holding {
            desired: &mut desired,
            learned: &mut learned,
            reports: &reports,
            heard_at_us: &mut heard_at_us,
            was_up: false,
        };
        let over = holding.session(&pki_dir).await;
        let was_up = holding.was_up;
        let (report, backoff_max) = match over {
            Over::Closed => return,
            Over::Reconfigured => {
                learned = Learned::new(desired.borrow().server.publish);
                backoff = BACKOFF_MIN;
                continue;
            }
            Over::Ended(Ended::Refused(refusal)) => (Report::Untrusted(refusal), BACKOFF_REFUSED_MAX),
            Over::Ended(Ended::Lost(error)) => (Report::Down(error.to_string()), BACKOFF_MAX),
        };
        tracing::warn!(source = %desired.borrow().server.name, ended = ?report, "OPC UA session ended");
        if reports.send(report).await.is_err() {
            return;
        }
        let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
        backoff = if was_up {
            BACKOFF_MIN
        } else {
            (backoff * 2).min(backoff_max)
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A corrected address is worth an attempt at once.
            Ok(()) = desired.changed() => {}
            () = reports.closed() => return,
        }
    }
}

/// One session and what it needs from outside.
struct Holding<'a> {
    desired: &'a mut watch::Receiver<Desired>,
    learned: &'a mut Learned,
    reports: &'a mpsc::Sender<Report>,
    /// When a value was last heard, in this session or one before.
    heard_at_us: &'a mut Option<i64>,
    was_up: bool,
}
