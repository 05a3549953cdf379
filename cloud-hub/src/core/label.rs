//! Labels: the tenant's own words to sort records by. (A tag is a named point of the plant.)

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A word to sort records by.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Label {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// The word, unique in the tenant.
    pub name: String,
    /// `#` and six hexadecimal digits.
    pub colour: Option<String>,
    /// What it is for.
    pub description: String,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLabel {
    name: String,
    #[schema(example = "#2f855a")]
    colour: Option<String>,
    description: Option<String>,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelPatch {
    name: Option<String>,
    colour: Option<String>,
    description: Option<String>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LabelFilter {
    name: Option<String>,
    /// Part of the name.
    q: Option<String>,
}

impl Resource for Label {
    type New = NewLabel;
    type Patch = LabelPatch;
    type Filter = LabelFilter;
    const NAME: &str = "label";
    const PLURAL: &str = "labels";
    const CONTEXT: &str = "core";
    const READ: Permission = Permission::CoreRead;
    const WRITE: Permission = Permission::CoreWrite;
    const SORTABLE: &[&str] = &["name"];
    const SEARCHED: &[&str] = &["name"];

    fn id(&self) -> Uuid {
        self.id
    }
}
