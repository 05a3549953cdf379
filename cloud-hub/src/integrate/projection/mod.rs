//! How is the event store seen another way? Projections: tables that follow the events and can be made from them
//! again. What an event means for a table is decided by a pure function; this writes it down, in order, once.

pub mod activity;
pub mod letters;
pub mod rebuild;
pub mod run;
pub mod search;
pub mod state;

use std::future::Future;

use sqlx::PgConnection;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::event::DomainEvent;
use crate::app::App;

pub use activity::ActivityDays;
pub use run::{BATCH, catch_up, run, step};
pub use search::SearchEntries;
pub use state::Stand;

/// Why a projection cannot take an event in; a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// A table that follows the events.
pub trait Projection: Send + Sync + 'static {
    /// Its row in `projection`, and its table.
    const NAME: &'static str;
    /// What one event does to the table.
    type Change: Send + Sync;

    /// What `event` means. Depends on nothing but the event.
    ///
    /// # Errors
    /// [`Unfit`] when it means nothing that the table can hold.
    fn change(event: &DomainEvent) -> Result<Option<Self::Change>, Unfit>;

    /// Writes it into the rows of a generation.
    fn write(
        conn: &mut PgConnection,
        generation: i32,
        change: &Self::Change,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Every projection, by name.
pub(super) const NAMES: [&str; 2] = [SearchEntries::NAME, ActivityDays::NAME];

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(search::search_records))
        .routes(routes!(activity::list_activity))
        .routes(routes!(rebuild::list_projections))
        .routes(routes!(rebuild::replay_events))
        .routes(routes!(letters::list_event_dead_letters))
        .routes(routes!(letters::retry_event_dead_letter))
}
