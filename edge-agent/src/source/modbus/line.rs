//! Who may talk on a connection, and what becomes of it after a failure? Devices with the same endpoint (units behind
//! one gateway) take turns on one connection. It is dropped at the first doubt and made anew at once; when that fails
//! it is dialled in the background with growing pauses, and whoever asks meanwhile is told at once.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex as SyncMutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep, sleep_until},
};
use tokio_modbus::{Request, Response};
use tokio_util::task::AbortOnDropHandle;

use super::{client::Connection, endpoint::Endpoint};
use crate::source::error::SourceError;

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A connection without a reply for longer may have been closed by the device; what must not be repeated is not
/// tried on it.
const IDLE_MIN: Duration = Duration::from_secs(2);

/// The connections of one agent, by endpoint. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    open: Arc<SyncMutex<HashMap<Endpoint, Weak<Line>>>>,
}

impl Lines {
    /// The connection to an endpoint; made when first used, and closed when nobody holds it any more.
    pub fn line(&self, endpoint: &Endpoint) -> Arc<Line> {
        // A panic while holding the lock cannot leave the map half-written.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = open.get(endpoint).and_then(Weak::upgrade) {
            return line;
        }
        open.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Line::new(endpoint.clone()));
        open.insert(endpoint.clone(), Arc::downgrade(&line));
        line
    }
}

/// How a request is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The unit asked.
    pub unit_id: u8,
    /// No reply within this is a failure; also the limit for connecting.
    pub limit: Duration,
    /// Silence to keep between the last reply and the request.
    pub pause: Duration,
    /// Whether the request may be made again on a new connection when the old one turns out to be dead. Not for writes.
    pub may_repeat: bool,
}

/// One connection and its turn-taking.
#[derive(Debug)]
pub struct Line {
    endpoint: Endpoint,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    replied: Option<Instant>,
    /// On a serial line a late reply carries nothing to tell it by: the line must be quiet until then.
    quiet_until: Option<Instant>,
}

#[derive(Debug, Default)]
enum Phase {
    /// Not connected; the next request connects.
    #[default]
    Fresh,
    Up(Connection),
    Redialling {
        task: AbortOnDropHandle<Connection>,
        failure: Arc<SyncMutex<Failure>>,
    },
}

/// Why there is no connection, kept to be told again.
#[derive(Clone, Debug)]
struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl Line {
    /// A line of one's own, not connected yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            state: Mutex::default(),
        }
    }

    /// Connects if there is no connection; what goes wrong is told to the first request.
    pub async fn warm(&self, limit: Duration) {
        let mut state = self.state.lock().await;
        if let Ok((connection, _)) = state.connection(&self.endpoint, limit).await {
            state.phase = Phase::Up(connection);
        }
    }

    /// Makes a request in turn.
    ///
    /// # Errors
    /// As [`Connection::open`] and [`Connection::call`].
    pub async fn exchange(&self, asking: Asking, request: Request<'static>) -> Result<Response, SourceError> {
        let mut state = self.state.lock().await;
        // Taken out for the exchange: when this is cancelled, the connection goes with the reply still on its way.
        let (mut connection, was_used) = state.connection(&self.endpoint, asking.limit).await?;
        if was_used && !asking.may_repeat && state.is_idle() {
            drop(connection);
            connection = state.dial(&self.endpoint, asking.limit).await?;
        }
        state.keep_silence(asking.pause).await;
        let again = (was_used && asking.may_repeat).then(|| request.clone());
        let mut result = connection.call(asking.unit_id, request, asking.limit).await;
        if let (Err(SourceError::Transport { .. }), Some(request)) = (&result, again) {
            // Closed by the device while idle, or out of step: a new connection answers within the same cycle.
            drop(connection);
            connection = state.dial(&self.endpoint, asking.limit).await?;
            result = connection.call(asking.unit_id, request, asking.limit).await;
        }
        state.replied = Some(Instant::now());
        match &result {
            Ok(_) | Err(SourceError::Refused(_)) => state.phase = Phase::Up(connection),
            Err(_) if matches!(self.endpoint, Endpoint::Serial(_)) => {
                state.quiet_until = Some(Instant::now() + asking.limit);
            }
            Err(_) => {}
        }
        result
    }
}

impl State {
    /// The connection, and whether it was used before.
    async fn connection(
        &mut self,
        endpoint: &Endpoint,
        limit: Duration,
    ) -> Result<(Connection, bool), SourceError> {
        match std::mem::take(&mut self.phase) {
            Phase::Up(connection) => Ok((connection, true)),
            Phase::Fresh => Ok((self.dial(endpoint, limit).await?, false)),
            Phase::Redialling { task, .. } if task.is_finished() => match task.await {
                // It may have waited for long.
                Ok(connection) => Ok((connection, true)),
                Err(_) => Ok((self.dial(endpoint, limit).await?, false)),
            },
            Phase::Redialling { task, failure } => {
                let error = locked(&failure).error(endpoint);
                self.phase = Phase::Redialling { task, failure };
                Err(error)
            }
        }
    }

    /// Connects now; failing that, goes on in the background.
    async fn dial(&mut self, endpoint: &Endpoint, limit: Duration) -> Result<Connection, SourceError> {
        if let Some(until) = self.quiet_until.take() {
            sleep_until(until).await;
        }
        let error = match Connection::open(endpoint, limit).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let failure = Arc::new(SyncMutex::new(Failure::of(&error)));
        let task = tokio::spawn(redial(endpoint.clone(), limit, failure.clone()));
        self.phase = Phase::Redialling {
            task: AbortOnDropHandle::new(task),
            failure,
        };
        Err(error)
    }

    fn is_idle(&self) -> bool {
        self.replied.is_none_or(|replied| replied.elapsed() >= IDLE_MIN)
    }

    async fn keep_silence(&mut self, pause: Duration) {
        if let Some(replied) = self.replied.filter(|_| !pause.is_zero()) {
            sleep_until(replied + pause).await;
        }
    }
}

async fn redial(endpoint: Endpoint, limit: Duration, failure: Arc<SyncMutex<Failure>>) -> Connection {
    let mut pause = PAUSE_MIN;
    loop {
        sleep(pause).await;
        match Connection::open(&endpoint, limit).await {
            Ok(connection) => return connection,
            Err(error) => *locked(&failure) = Failure::of(&error),
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn locked(failure: &SyncMutex<Failure>) -> std::sync::MutexGuard<'_, Failure> {
    failure.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Failure {
    fn of(error: &SourceError) -> Self {
        match error {
            SourceError::Connect { source, .. } => Self {
                kind: source.kind(),
                text: source.to_string(),
            },
            other => Self {
                kind: io::ErrorKind::Other,
                text: other.to_string(),
            },
        }
    }

    fn error(&self, endpoint: &Endpoint) -> SourceError {
        SourceError::Connect {
            address: endpoint.to_string(),
            source: io::Error::new(self.kind, self.text.clone()),
        }
    }
}
