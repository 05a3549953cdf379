//! How do other systems hear of what happened? The event store, projections and webhooks.

pub mod event;
pub mod feed;
pub mod projection;
pub mod wake;
pub mod webhook;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(feed::list_events))
        .merge(projection::routes())
        .merge(webhook::routes())
}
