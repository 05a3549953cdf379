//! Identity: who is calling, what their role may do, and how they sign in.

pub mod address;
pub mod attempts;
pub mod hashing;
pub mod login;
pub mod me;
pub mod oidc;
mod pace;
pub mod provider;
pub mod session;
pub mod source;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "identity";

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login::login))
        .routes(routes!(login::refresh))
        .routes(routes!(login::logout))
        .routes(routes!(me::me))
        .routes(routes!(oidc::list))
        .routes(routes!(oidc::start))
        .routes(routes!(oidc::finish))
        .routes(routes!(oidc::exchange))
        .routes(routes!(oidc::end_session))
        .routes(routes!(provider::list, provider::create))
        .routes(routes!(provider::read, provider::update, provider::delete))
}
