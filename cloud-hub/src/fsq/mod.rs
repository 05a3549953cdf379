//! Food safety and quality: from a deviation at a critical control point to the lots on hold.

pub mod domain;
pub mod query;
pub mod resources;
pub mod workflow;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    query::routes()
}
