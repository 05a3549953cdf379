//! Identity: who is calling, what their role may do, and how they sign in.

pub mod address;
pub mod api_key;
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
pub mod role;
pub mod session;
pub mod source;
pub mod upkeep;
pub mod user;

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
        .routes(routes!(me::read_me))
        .routes(routes!(user::list_users, user::create_user))
        .routes(routes!(user::read_user, user::update_user, user::delete_user))
        .routes(routes!(user::list_user_roles, user::put_user_roles))
        .routes(routes!(user::invite_user))
        .routes(routes!(role::list_roles, role::create_role))
        .routes(routes!(role::read_role, role::update_role, role::delete_role))
        .routes(routes!(role::add_role_permissions))
        .routes(routes!(role::remove_role_permission))
        .routes(routes!(role::list_permissions))
        .routes(routes!(api_key::list_api_keys, api_key::create_api_key))
        .routes(routes!(api_key::read_api_key, api_key::revoke_api_key))
        .routes(routes!(api_key::rotate_api_key))
}
