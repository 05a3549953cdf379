//! Vision: what the cameras saw and what was concluded.

pub mod result;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "vision";

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(result::list_vision_results))
        .routes(routes!(result::read_vision_image))
}
