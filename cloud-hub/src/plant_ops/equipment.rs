//! Equipment: the machines product passes through on a line.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A machine on a line.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Equipment {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// Short code, unique in the tenant.
    pub code: String,
    /// Name for people.
    pub name: String,
    /// The line it stands on.
    pub line_id: Uuid,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEquipment {
    code: String,
    name: String,
    line_id: Uuid,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EquipmentPatch {
    name: Option<String>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EquipmentFilter {
    code: Option<String>,
    line_id: Option<Uuid>,
    /// Part of the code or the name.
    q: Option<String>,
}

impl Resource for Equipment {
    type New = NewEquipment;
    type Patch = EquipmentPatch;
    type Filter = EquipmentFilter;
    const NAME: &str = "equipment";
    const PLURAL: &str = "equipment";
    const CONTEXT: &str = "plant-ops";
    const READ: Permission = Permission::PlantRead;
    const WRITE: Permission = Permission::PlantWrite;
    const SORTABLE: &[&str] = &["code", "name"];
    const SEARCHED: &[&str] = &["code", "name"];

    fn id(&self) -> Uuid {
        self.id
    }
}
