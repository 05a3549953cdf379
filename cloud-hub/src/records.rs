//! Which plain records are there? The one list of them: their routes are built from it, and a test takes every one
//! of them from creation to deletion.

use utoipa_axum::router::OpenApiRouter;

use crate::{
    alarm::rule::AlarmRule,
    app::App,
    core::{
        address::Address, contact::Contact, label::Label, label_use::LabelUse, location::Location,
        note::Note, system_config::SystemConfig,
    },
    fsq::resources::supplier::Supplier,
    kernel::resource::Record,
    plant_ops::{equipment::Equipment, plant::Plant},
};

/// Every kind of plain record, what others refer to first.
pub fn all() -> Vec<Record> {
    vec![
        Record::of::<Plant>(),
        Record::of::<Equipment>(),
        Record::of::<Supplier>(),
        Record::of::<Address>(),
        Record::of::<Location>(),
        Record::of::<Contact>(),
        Record::of::<Note>(),
        Record::of::<Label>(),
        Record::of::<LabelUse>(),
        Record::of::<SystemConfig>(),
        Record::of::<AlarmRule>(),
    ]
}

/// Their routes under `/api/v1`.
pub fn routes() -> OpenApiRouter<App> {
    let routes = all().into_iter().map(|record| record.routes());
    routes.fold(OpenApiRouter::new(), OpenApiRouter::merge)
}
