//! Edges: how they are, how they join, and whether they are who they say.

pub mod credential;
pub mod directory;
pub mod enroll;
pub mod health;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "edges";

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::list_edges))
        .routes(routes!(enroll::enroll_edge))
        .routes(routes!(
            credential::list_enroll_codes,
            credential::create_enroll_code
        ))
        .routes(routes!(credential::withdraw_enroll_code))
        .routes(routes!(credential::revoke_edge))
}
