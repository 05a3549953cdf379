//! How do other systems hear of what happened? The event store, projections and webhooks.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
