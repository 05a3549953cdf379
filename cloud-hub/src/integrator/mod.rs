//! How do others' devices and gateways get their values in? `read` understands a message, `store` keeps what it says
//! in one transaction, `told` answers on the error and echo topics, `pending` lets people adopt what is new, `errors` shows
//! what clients were told, `http`
//! takes the same messages without a broker, `sparkplug` is the host of Sparkplug's edge nodes, and `broker_rules`
//! tells brokers outside who may do what.

mod accept;
pub mod broker_rules;
pub mod errors;
pub mod export;
pub mod http;
pub mod pending;
mod read;
mod settle;
mod sparkplug;
mod store;
mod told;

use utoipa_axum::{router::OpenApiRouter, routes};

pub use accept::{Asked, Context, Intake, run};
pub use sparkplug::patience;
pub use told::{Question, explain};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "integrator";

/// Most values of one client that wait to be adopted.
pub const PENDING_TAGS_MAX: i64 = 2_000;
/// Most readings that are held for one of them.
pub const HELD_READINGS_MAX: i64 = 1_000;
/// Most devices of one client whose presence is remembered.
pub const DEVICES_MAX: i64 = 2_000;

/// Routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(pending::list_pending_tags))
        .routes(routes!(pending::adopt_pending_tag))
        .routes(routes!(pending::dismiss_pending_tag))
        .routes(routes!(pending::restore_pending_tag))
        .routes(routes!(pending::list_integrator_devices))
        .routes(routes!(errors::list_integrator_errors))
        .routes(routes!(http::ingest_message))
}
