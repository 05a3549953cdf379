pub mod event;
pub mod feed;
pub mod projection;
pub mod wake;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(feed::list_events))
        .merge(projection::routes())
}
