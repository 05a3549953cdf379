//! What is known of a kind of record without its type? Enough to build its routes and to check it against its table.

use utoipa::{
    IntoParams, PartialSchema,
    openapi::{RefOr, path::ParameterIn, schema::Schema},
};
use utoipa_axum::router::OpenApiRouter;

use super::{Resource, columns::column, routes};
use crate::{
    app::App,
    kernel::{export, permission::Permission},
};

/// A kind of plain record.
#[derive(Clone)]
pub struct Record {
    /// Table, audit entity and operation-id suffix.
    pub name: &'static str,
    /// As in the URL.
    pub plural: &'static str,
    /// Bounded context.
    pub context: &'static str,
    /// Who may list, read and export.
    pub read: Permission,
    /// Who may create, change and delete.
    pub write: Permission,
    /// Fields in the order of the struct.
    pub fields: &'static [&'static str],
    /// Fields a list may be sorted by, besides `id`.
    pub sortable: &'static [&'static str],
    /// Columns that `q` looks in.
    pub searched: &'static [&'static str],
    /// Parameters a list may be narrowed by.
    pub filters: Vec<String>,
    /// What a client sends to create one.
    pub new: RefOr<Schema>,
    /// What a client sends to change one.
    pub patch: RefOr<Schema>,
    routes: fn() -> OpenApiRouter<App>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}/{})", self.context, self.plural)
    }
}

impl Record {
    /// What is known of `R`.
    pub fn of<R: Resource>() -> Self {
        let filters = R::Filter::into_params(|| Some(ParameterIn::Query));
        Self {
            name: R::NAME,
            plural: R::PLURAL,
            context: R::CONTEXT,
            read: R::READ,
            write: R::WRITE,
            fields: export::fields::<R>(),
            sortable: R::SORTABLE,
            searched: R::SEARCHED,
            filters: filters.into_iter().map(|it| it.name).collect(),
            new: R::New::schema(),
            patch: R::Patch::schema(),
            routes: routes::<R>,
        }
    }

    /// Its collection under `/api/v1`.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.context, self.plural)
    }

    /// The columns of its fields.
    pub fn columns(&self) -> Vec<String> {
        self.fields.iter().map(|field| column(field)).collect()
    }

    /// Its routes with their OpenAPI operations.
    pub fn routes(&self) -> OpenApiRouter<App> {
        (self.routes)()
    }
}
