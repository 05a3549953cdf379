//! Identity: who is calling, what their role may do, and how they sign in.

pub mod address;
pub mod attempts;
pub mod break_glass;
pub mod hashing;
pub mod login;
pub mod mail;
pub mod mail_sender;
pub mod me;
pub mod one_time;
mod pace;
pub mod password;
pub mod registration;
pub mod session;
pub mod source;
pub mod upkeep;

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
        .routes(routes!(registration::register))
        .routes(routes!(registration::verify_email))
        .routes(routes!(registration::resend_verification))
        .routes(routes!(password::change_password))
        .routes(routes!(password::initiate_reset))
        .routes(routes!(password::forgot_password))
        .routes(routes!(password::confirm_reset))
        .routes(routes!(password::reset_password))
        .routes(routes!(break_glass::break_glass))
        .routes(routes!(me::me))
}
