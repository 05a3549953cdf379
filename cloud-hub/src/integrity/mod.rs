//! Can the record be trusted? The audit chain, its signed roots, and signatures of people on records.

pub mod audit;
mod canonical;
pub mod chain;
pub mod key;
pub mod root;
pub mod root_file;
pub mod sign_days;
mod signed;
pub mod verify;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "integrity";

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(audit::list_audit_entries))
        .routes(routes!(audit::read_audit_entry))
        .routes(routes!(audit::verify_audit))
        .routes(routes!(audit::list_audit_roots))
        .routes(routes!(audit::read_audit_key))
}
