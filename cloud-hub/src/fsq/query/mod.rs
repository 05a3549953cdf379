//! Read models of food safety: the CCP board, deviations, holds and lots, as pages show them.

pub mod ccp;
pub mod challenge;
pub mod deviation;
pub mod hold;
pub mod limit;
pub mod lot;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "fsq";

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(lot::list_lots))
        .routes(routes!(lot::export_lots))
        .routes(routes!(lot::read_lot))
        .routes(routes!(ccp::list_ccps))
        .routes(routes!(ccp::read_ccp))
        .routes(routes!(limit::put_ccp_limit))
        .routes(routes!(limit::list_ccp_limits))
        .routes(routes!(deviation::list_deviations))
        .routes(routes!(deviation::read_deviation))
        .routes(routes!(deviation::acknowledge_deviation))
        .routes(routes!(hold::list_holds))
        .routes(routes!(hold::read_hold))
}
