//! PlantOps: plants, lines, tags and their readings, and the batches that run on the lines.

pub mod batch;
pub mod equipment;
pub mod export;
pub mod line;
pub mod plant;
pub mod reading;
pub mod series;
pub mod series_export;
pub mod tag;
pub mod version;
mod zone;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "plant-ops";

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(line::list_lines))
        .routes(routes!(line::read_line))
        .routes(routes!(tag::list_tags))
        .routes(routes!(reading::list_readings))
        .routes(routes!(export::export_readings))
        .routes(routes!(series::read_series))
        .routes(routes!(series::read_series_as_of))
        .routes(routes!(version::list_reading_versions))
        .routes(routes!(series::read_last_values))
        .routes(routes!(series_export::export_series))
        .routes(routes!(export::export_batches))
        .routes(routes!(batch::list_batches, batch::create_batch))
        .routes(routes!(batch::read_batch))
        .routes(routes!(batch::start_batch))
        .routes(routes!(batch::complete_batch))
}
