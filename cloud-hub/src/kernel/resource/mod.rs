//! What does a plain record cost? One `impl Resource` and a table: listing, reading, creating (also many at once),
//! changing, deleting and exporting are the same for all, each with its permission, audit entry and event.
//!
//! A table qualifies when its rows have no life cycle of their own. Whatever has states (holds, batches, accounts)
//! writes its verbs by hand.
//!
//! Column names reach SQL from two places only: [`Resource`] constants and the field names of the Rust structs bound
//! to it. Values travel as one JSON bind that `jsonb_populate_record` types after the table, so no client text is
//! ever SQL. A field `x_us` (integer UTC microseconds) is the column `x_at` (`timestamptz`).

mod columns;
mod document;
mod list;
mod record;
mod routes;
mod write;

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{FromRow, postgres::PgRow};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::permission::Permission;

pub use columns::columns;
pub use list::{ListParams, Statement, list, read, statement};
pub use record::Record;
pub use routes::routes;
pub use write::{create, delete, update};

/// A row of a plain table of a tenant, as the API shows it.
pub trait Resource:
    Serialize + DeserializeOwned + ToSchema + for<'r> FromRow<'r, PgRow> + Send + Sync + Unpin + 'static
{
    /// What a client may set at creation.
    type New: DeserializeOwned + Serialize + ToSchema + Send + Sync + 'static;
    /// What a client may change: every field an `Option`. A field that is absent stays, one that is null is cleared.
    type Patch: DeserializeOwned + Serialize + ToSchema + Send + Sync + 'static;
    /// What a list may be narrowed by: every field an `Option`. `x` is equal to the column, `x_min` and `x_max` bound
    /// it, `q` is text found in [`Resource::SEARCHED`].
    type Filter: DeserializeOwned + Serialize + IntoParams + Send + Sync + 'static;

    /// Singular `snake_case` name: table, audit entity and operation-id suffix.
    const NAME: &'static str;
    /// Plural, as in the URL and in `list_{PLURAL}`; `-` in the URL is `_` in the operation id.
    const PLURAL: &'static str;
    /// Bounded context: URL segment and OpenAPI tag.
    const CONTEXT: &'static str;
    /// Who may list, read and export.
    const READ: Permission;
    /// Who may create, change and delete.
    const WRITE: Permission;
    /// `NOT NULL` columns a list may be sorted by, besides `id`.
    const SORTABLE: &'static [&'static str];
    /// Text columns that `q` looks in.
    const SEARCHED: &'static [&'static str] = &[];

    /// Primary key.
    fn id(&self) -> Uuid;
}
