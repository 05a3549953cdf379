//! Can the record be trusted? The audit chain, its signed roots, and signatures of people on records.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
