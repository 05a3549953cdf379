//! How does a person (or Prometheus) see the agent without the hub, and tell it something? A status page, `/status.json`,
//! `/metrics` and `/health` on a local address, and forms for values and alarms. Looking is open to whoever reaches the
//! address; writing needs a badge and its PIN. All of it works with the hub away.

mod alarms;
pub mod badge;
mod entry;
mod form;
mod html;
mod manual;
mod metrics;
mod page;
mod signed;
mod status;

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use protocol::{Micros, event::ManualEntry};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::status::{Status, status};
use self::{
    alarms::AlarmForm,
    badge::Badges,
    form::{FORM_BYTES_MAX, Fields, FormError, Forms},
    manual::ManualForm,
    signed::SignedForm as _,
};
use crate::{health::Health, signal::ManualPlan, source::Acquired};

/// Entries that are shown again.
const RECORDED_SHOWN: usize = 20;
/// How long a form waits for the pipeline to take it.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

/// What can be entered on the local pages, and by whom. Changes with the configuration.
#[derive(Debug)]
pub struct Book {
    /// Tags whose values people enter.
    pub manual: Vec<ManualPlan>,
    /// Who may sign.
    pub badges: Badges,
}

/// What the local pages share. Clones are the same.
#[derive(Clone, Debug)]
pub struct Local {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    health: Arc<Health>,
    acquired: mpsc::Sender<Acquired>,
    forms: Forms,
    book: Mutex<Arc<Book>>,
    recorded: Mutex<VecDeque<ManualEntry>>,
}

impl Local {
    /// Pages that show `health` and hand what is entered to the pipeline.
    pub fn new(health: Arc<Health>, acquired: mpsc::Sender<Acquired>, book: Book) -> Self {
        let shared = Shared {
            health,
            acquired,
            forms: Forms::new(),
            book: Mutex::new(Arc::new(book)),
            recorded: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Puts another configuration in force.
    pub fn replace(&self, book: Book) {
        *locked(&self.shared.book) = Arc::new(book);
    }

    fn book(&self) -> Arc<Book> {
        locked(&self.shared.book).clone()
    }

    fn health(&self) -> &Health {
        &self.shared.health
    }

    /// The identity of a form that counts; none when it was recorded already, and that is what the person is told.
    fn form(&self, headers: &HeaderMap, fields: &Fields, now_us: Micros) -> Result<Option<Uuid>, Refusal> {
        match self.shared.forms.check(headers, fields, now_us) {
            Ok(id) => Ok(Some(id)),
            Err(FormError::Used) => Ok(None),
            Err(error @ FormError::Invalid) => Err(Refusal {
                status: StatusCode::FORBIDDEN,
                message: format!("Not recorded: {error}."),
            }),
        }
    }

    /// Hands over messages that belong together: all of them or, when the pipeline takes nothing, none.
    async fn hand_over(&self, messages: Vec<Acquired>) -> Result<(), Refusal> {
        let room = self.shared.acquired.reserve_many(messages.len());
        let Ok(Ok(permits)) = tokio::time::timeout(TAKEN_WITHIN, room).await else {
            return Err(Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message: "Not recorded: the agent is too busy or is stopping. Send it again.".to_owned(),
            });
        };
        for (permit, message) in permits.zip(messages) {
            permit.send(message);
        }
        Ok(())
    }

    fn remember(&self, entry: ManualEntry) {
        let mut recorded = locked(&self.shared.recorded);
        recorded.truncate(RECORDED_SHOWN - 1);
        recorded.push_front(entry);
    }

    fn recorded(&self) -> Vec<ManualEntry> {
        locked(&self.shared.recorded).iter().cloned().collect()
    }
}

/// A panic while holding one of these locks cannot leave the plain data behind them half-written.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a form was not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    /// For people; names the remedy.
    message: String,
}

impl Refusal {
    fn unusable(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message: message.into(),
        }
    }
}

impl From<badge::Denied> for Refusal {
    fn from(denied: badge::Denied) -> Self {
        let status = match denied {
            badge::Denied::Locked { .. } => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::FORBIDDEN,
        };
        Self {
            status,
            message: format!("Not recorded: {denied}."),
        }
    }
}

/// The local server's routes.
pub fn router(local: Local) -> Router {
    Router::new()
        .route("/", get(page))
        .route(ManualForm::PATH, signed::route::<ManualForm>())
        .route(AlarmForm::PATH, signed::route::<AlarmForm>())
        .route("/status.json", get(status_json))
        .route("/metrics", get(metrics_text))
        .route("/health", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .with_state(local)
}

async fn page(State(local): State<Local>) -> Response {
    html::answer(StatusCode::OK, page::render(&status(local.health())))
}

async fn status_json(State(local): State<Local>) -> Json<Status> {
    Json(status(local.health()))
}

async fn metrics_text(State(local): State<Local>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, metrics::render(&status(local.health()))).into_response()
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, local: Local, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router(local))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

/// Tells scripts where the page is, whole or not at all.
pub fn write_ready(data_dir: &Path, http: &str) -> io::Result<()> {
    let text = serde_json::json!({ "http": http, "pid": std::process::id() }).to_string();
    let temporary = data_dir.join("ready.tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, data_dir.join("ready.json"))
}

/// Takes the ready file away again.
pub fn clear_ready(data_dir: &Path) {
    let path = data_dir.join("ready.json");
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "ready file not removed");
    }
}

#[cfg(test)]
mod tests;
