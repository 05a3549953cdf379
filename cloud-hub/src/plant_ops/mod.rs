//! PlantOps: plants, lines, tags and their readings, and the batches that run on the lines.

pub mod batch;
pub mod export;
pub mod line;
pub mod plant;
pub mod reading;
pub mod tag;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "plant-ops";

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(plant::list_plants))
        .routes(routes!(plant::read_plant))
        .routes(routes!(line::list_lines))
        .routes(routes!(line::read_line))
        .routes(routes!(tag::list_tags))
        .routes(routes!(reading::list_readings))
        .routes(routes!(export::export_readings))
        .routes(routes!(export::export_batches))
        .routes(routes!(batch::list_batches, batch::create_batch))
        .routes(routes!(batch::read_batch))
        .routes(routes!(batch::start_batch))
        .routes(routes!(batch::complete_batch))
}
