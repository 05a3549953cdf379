//! How does a tenant come to be, what is it set to, and how do its edges prove who they are?

pub mod api;
pub mod archive;
pub mod download;
pub mod enrolment;
pub mod fleet;
pub mod migrate;
pub mod operator;
pub mod provision;
pub mod registry;
pub mod settings;
pub mod user;
#[cfg(test)]
mod zero_downtime;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in documentation.
pub const TAG: &str = "tenancy";

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(api::create_tenant, api::list_tenants))
        .routes(routes!(api::read_tenant, api::rename_tenant, api::delete_tenant))
        .routes(routes!(api::activate_tenant))
        .routes(routes!(api::deactivate_tenant))
        .routes(routes!(api::configure_tenant))
        .routes(routes!(download::export_tenant))
}
