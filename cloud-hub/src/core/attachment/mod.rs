//! Attachments: files on records. The row says what a file is and where it belongs; the content is kept by its hash.

mod kind;
mod routes;
mod store;

use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

pub(super) use routes::routes;

/// A file on a record.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Attachment {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// What it is on: the record's table, for example `lot`.
    pub entity: String,
    /// And which of them.
    pub entity_id: Uuid,
    /// Name of the file.
    pub name: String,
    /// What it is, as the hub found from its content.
    pub media_type: String,
    /// Length of the content.
    pub bytes: i64,
    /// SHA-256 of the content, in hexadecimal digits.
    pub sha256: String,
    /// When it came.
    pub uploaded_us: Micros,
}

/// What is stored of a new one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAttachment {
    entity: String,
    entity_id: Uuid,
    name: String,
    media_type: String,
    bytes: i64,
    sha256: String,
}

/// What a client sends to change one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachmentPatch {
    name: Option<String>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttachmentFilter {
    entity: Option<String>,
    entity_id: Option<Uuid>,
    sha256: Option<String>,
    /// Part of the name.
    q: Option<String>,
}

impl Resource for Attachment {
    type New = NewAttachment;
    type Patch = AttachmentPatch;
    type Filter = AttachmentFilter;
    const NAME: &str = "attachment";
    const PLURAL: &str = "attachments";
    const CONTEXT: &str = "core";
    const READ: Permission = Permission::CoreRead;
    const WRITE: Permission = Permission::CoreWrite;
    const SORTABLE: &[&str] = &["name", "uploaded_us"];
    const SEARCHED: &[&str] = &["name"];

    fn id(&self) -> Uuid {
        self.id
    }
}
