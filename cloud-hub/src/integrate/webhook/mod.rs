//! How are other systems told of events as they happen? Webhooks: signed, at least once, in order for each record, with
//! a log of every attempt. The forms are those of Standard Webhooks; see docs/guide/webhooks.md.

pub mod deliveries;
pub mod dispatch;
mod queue;
pub mod record;
mod schedule;
mod send;
mod sign;
mod target;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub use dispatch::run;

/// The tag of the operations on webhooks.
pub(super) const TAG: &str = "integrations";

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(record::list_webhooks, record::create_webhook))
        .routes(routes!(
            record::read_webhook,
            record::update_webhook,
            record::delete_webhook
        ))
        .routes(routes!(record::rotate_webhook_secret))
        .routes(routes!(deliveries::list_webhook_deliveries))
        .routes(routes!(deliveries::test_webhook))
        .routes(routes!(deliveries::redeliver_webhook))
        .routes(routes!(deliveries::replay_webhook))
}
