//! Edges: how they are, how they join, and whether they are who they say.

pub mod artefact;
pub mod authority;
pub mod clock;
pub mod command;
pub mod config;
pub mod credential;
pub mod directory;
pub mod dispatch;
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
        .routes(routes!(command::list_edge_commands, command::create_edge_command))
        .routes(routes!(config::read_edge_config, config::put_edge_config))
        .routes(routes!(config::list_edge_config_revisions))
        .routes(routes!(artefact::create_edge_update))
        .routes(routes!(
            artefact::list_edge_artefacts,
            artefact::create_edge_artefact
        ))
        .routes(routes!(artefact::fetch_edge_artefact))
}
