//! How does a session begin? The server is asked how it may be entered, the library's loop is started, and a clock that
//! is far off is noticed before anything is watched.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use opcua::{
    client::{
        Session, SessionConnectMode, SessionEventLoop, SessionPollResult, SubscriptionActivity,
        transport::Connector,
    },
    types::{NodeId, StatusCode, VariableId, Variant},
};
use tokio::{sync::mpsc, time::Instant};

use super::{Holding, held::Held};
use crate::{
    clock,
    source::{
        error::SourceError,
        opcua::{
            client::{self, Manner, failure},
            config::Server,
            endpoint::{self, Ended},
            items::Items,
            limits,
            pki::Pki,
        },
    },
};

/// Messages that may wait to be taken from the library.
const NOTES_WAITING_MAX: usize = 256;
const EVENTS_WAITING_MAX: usize = 256;
/// Beyond this the server's clock is taken to be wrong rather than late.
const SKEW_MAX_US: i64 = 300_000_000;
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// What the library says of the session.
#[derive(Debug)]
pub(super) enum Event {
    Lost(StatusCode),
    Failed(StatusCode),
    Connected(SessionConnectMode),
    NoSubscription,
}

/// Drives the library and passes on what matters; ends with the session.
async fn drive<C: Connector + Send + Sync + 'static>(
    event_loop: SessionEventLoop<C>,
    events: mpsc::Sender<Event>,
) {
    let mut stream = Box::pin(event_loop.enter());
    while let Some(polled) = stream.next().await {
        let event = match polled {
            Ok(SessionPollResult::ConnectionLost(status)) => Event::Lost(status),
            Ok(SessionPollResult::ReconnectFailed(status)) => Event::Failed(status),
            Ok(SessionPollResult::Reconnected(mode)) => Event::Connected(mode),
            Ok(SessionPollResult::Subscription(SubscriptionActivity::PublishFailed(
                StatusCode::BadNoSubscription,
            ))) => Event::NoSubscription,
            Ok(_) => continue,
            Err(status) => {
                // The last word; the channel closing says the rest.
                drop(events.send(Event::Failed(status)).await);
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Ends a task with its owner.
pub(super) struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Holding<'_> {
    pub(super) async fn connect(
        &mut self,
        server: &Arc<Server>,
        pki_dir: &Path,
    ) -> Result<(Held, AbortOnDrop), Ended> {
        let store = |error| failure("certificate store", &endpoint::causes(&error));
        let pki = Pki::open(pki_dir).map_err(store)?;
        let approach = endpoint::approach(server, &pki).await?;
        let manner = Manner {
            reconnects: true,
            is_skewed: self.learned.is_skewed,
        };
        let client = client::client(&pki, server, manner)?;
        let (session, event_loop) = client::open(&client, approach)?;
        let (events_tx, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
        let driver = AbortOnDrop(tokio::spawn(drive(event_loop, events_tx)));
        let established = tokio::time::timeout(CONNECT_WITHIN, events.recv()).await;
        match established {
            Ok(Some(Event::Connected(_))) => {}
            Ok(Some(Event::Failed(status) | Event::Lost(status))) => {
                return Err(failure("connect", &status.to_string()).into());
            }
            Ok(_) => return Err(failure("connect", "the session ended").into()),
            Err(_) => {
                return Err(Ended::Lost(SourceError::Timeout {
                    address: server.url.clone(),
                    limit: CONNECT_WITHIN,
                }));
            }
        }
        self.check_clock(&session).await?;
        let limits = self
            .learned
            .limits(server.items_per_request, limits::declared(&session).await);
        let namespaces = Arc::new(client::namespaces(&session).await?);
        let (notes_tx, notes) = mpsc::channel(NOTES_WAITING_MAX);
        let items = Items::new(session.clone(), server, limits, notes_tx);
        let held = Held {
            server: server.clone(),
            session,
            namespaces,
            limits,
            items,
            notes,
            events,
            pulse: None,
            is_cut_off: false,
            start: Instant::now(),
        };
        Ok((held, driver))
    }

    /// A server whose clock is far off is entered anew, in the manner that bears it.
    async fn check_clock(&mut self, session: &Session) -> Result<(), SourceError> {
        let clock_node = NodeId::from(VariableId::Server_ServerStatus_CurrentTime);
        let values = client::read_chunk(session, &[clock_node]).await?;
        let time = values.first().and_then(|value| value.value.as_ref());
        match time {
            Some(Variant::DateTime(time)) => self.judge_clock(time.as_chrono().timestamp_micros()),
            _ => Ok(()),
        }
    }

    pub(super) fn judge_clock(&mut self, server_us: i64) -> Result<(), SourceError> {
        let ahead_us = server_us.saturating_sub(clock::now_us());
        if self.learned.is_skewed || ahead_us.abs() <= SKEW_MAX_US {
            return Ok(());
        }
        self.learned.is_skewed = true;
        tracing::warn!(
            ahead_s = ahead_us / 1_000_000,
            "the server's clock is far from this machine's; source times are kept as the server gives them"
        );
        Err(failure(
            "clock check",
            "the server's clock is far off; connecting anew",
        ))
    }
}
