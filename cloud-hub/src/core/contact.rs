//! Contacts: whom to call, and for what.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A person or desk outside of the accounts.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Contact {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// Name.
    pub name: String,
    /// What to call them for.
    pub duty: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
    /// Phone number.
    pub phone: Option<String>,
    /// Where they are.
    pub address_id: Option<Uuid>,
    /// The record they are a contact of: its table.
    pub entity: Option<String>,
    /// And which of them.
    pub entity_id: Option<Uuid>,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewContact {
    name: String,
    duty: Option<String>,
    #[schema(example = "desk@supplier.example")]
    email: Option<String>,
    #[schema(example = "+1 330 555 0100")]
    phone: Option<String>,
    address_id: Option<Uuid>,
    #[schema(example = "supplier")]
    entity: Option<String>,
    entity_id: Option<Uuid>,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactPatch {
    name: Option<String>,
    duty: Option<String>,
    email: Option<String>,
    phone: Option<String>,
    address_id: Option<Uuid>,
    entity: Option<String>,
    entity_id: Option<Uuid>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ContactFilter {
    email: Option<String>,
    entity: Option<String>,
    entity_id: Option<Uuid>,
    /// Part of the name or the duty.
    q: Option<String>,
}

impl Resource for Contact {
    type New = NewContact;
    type Patch = ContactPatch;
    type Filter = ContactFilter;
    const NAME: &str = "contact";
    const PLURAL: &str = "contacts";
    const CONTEXT: &str = "core";
    const READ: Permission = Permission::CoreRead;
    const WRITE: Permission = Permission::CoreWrite;
    const SORTABLE: &[&str] = &["name"];
    const SEARCHED: &[&str] = &["name", "duty"];

    fn id(&self) -> Uuid {
        self.id
    }
}
