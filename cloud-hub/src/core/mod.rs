//! Core: what every context refers to (addresses, locations, contacts, notes, labels, attachments, settings).

pub mod address;
pub mod attachment;
pub mod contact;
pub mod label;
pub mod label_use;
pub mod location;
pub mod note;
pub mod system_config;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// Routes under `/api/v1`, besides those of plain records.
pub fn routes() -> OpenApiRouter<App> {
    attachment::routes()
}
