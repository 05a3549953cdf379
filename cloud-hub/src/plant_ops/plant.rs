//! Which plants does the tenant run, and in which time zone do their people live?

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::zone;
use crate::kernel::{permission::Permission, resource::Resource};

/// A site.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Plant {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// Short code, for example `akron`.
    pub code: String,
    /// Name for people.
    pub name: String,
    /// IANA time zone.
    pub zone: String,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPlant {
    code: String,
    name: String,
    #[serde(deserialize_with = "zone::needed")]
    #[schema(example = "America/New_York")]
    zone: String,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlantPatch {
    name: Option<String>,
    #[serde(default, deserialize_with = "zone::if_given")]
    #[schema(example = "America/New_York")]
    zone: Option<String>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PlantFilter {
    code: Option<String>,
    /// Part of the code or the name.
    q: Option<String>,
}

impl Resource for Plant {
    type New = NewPlant;
    type Patch = PlantPatch;
    type Filter = PlantFilter;
    const NAME: &str = "plant";
    const PLURAL: &str = "plants";
    const CONTEXT: &str = "plant-ops";
    const READ: Permission = Permission::PlantRead;
    const WRITE: Permission = Permission::PlantWrite;
    const SORTABLE: &[&str] = &["code", "name"];
    const SEARCHED: &[&str] = &["code", "name"];

    fn id(&self) -> Uuid {
        self.id
    }
}
