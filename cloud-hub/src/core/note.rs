//! Notes: what somebody wanted to say of a record. Who said it is in the audit chain.

use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A remark on a record.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Note {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// What it is on: the record's table, for example `supplier`.
    pub entity: String,
    /// And which of them.
    pub entity_id: Uuid,
    /// The text.
    pub body: String,
    /// When it was written.
    pub noted_us: Micros,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNote {
    #[schema(example = "supplier")]
    entity: String,
    entity_id: Uuid,
    body: String,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotePatch {
    body: Option<String>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct NoteFilter {
    entity: Option<String>,
    entity_id: Option<Uuid>,
    /// Part of the text.
    q: Option<String>,
    /// Written at this time or later.
    noted_us_min: Option<Micros>,
}

impl Resource for Note {
    type New = NewNote;
    type Patch = NotePatch;
    type Filter = NoteFilter;
    const NAME: &str = "note";
    const PLURAL: &str = "notes";
    const CONTEXT: &str = "core";
    const READ: Permission = Permission::CoreRead;
    const WRITE: Permission = Permission::CoreWrite;
    const SORTABLE: &[&str] = &["noted_us"];
    const SEARCHED: &[&str] = &["body"];

    fn id(&self) -> Uuid {
        self.id
    }
}
