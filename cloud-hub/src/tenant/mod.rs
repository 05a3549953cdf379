//! How does a tenant come to be, what is it set to, and how do its edges prove who they are?

pub mod enrolment;
pub mod fleet;
pub mod migrate;
pub mod provision;
pub mod user;
#[cfg(test)]
mod zero_downtime;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
