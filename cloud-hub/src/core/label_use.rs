//! Label uses: which record bears which label.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A label on a record.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct LabelUse {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// The label.
    pub label_id: Uuid,
    /// What it is on: the record's table, for example `supplier`.
    pub entity: String,
    /// And which of them.
    pub entity_id: Uuid,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLabelUse {
    label_id: Uuid,
    #[schema(example = "supplier")]
    entity: String,
    entity_id: Uuid,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelUsePatch {
    label_id: Option<Uuid>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LabelUseFilter {
    label_id: Option<Uuid>,
    entity: Option<String>,
    entity_id: Option<Uuid>,
}

impl Resource for LabelUse {
    type New = NewLabelUse;
    type Patch = LabelUsePatch;
    type Filter = LabelUseFilter;
    const NAME: &str = "label_use";
    const PLURAL: &str = "label-uses";
    const CONTEXT: &str = "core";
    const READ: Permission = Permission::CoreRead;
    const WRITE: Permission = Permission::CoreWrite;
    const SORTABLE: &[&str] = &[];

    fn id(&self) -> Uuid {
        self.id
    }
}
