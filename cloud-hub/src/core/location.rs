//! Locations: where food is handled, as traceability records describe it (21 CFR 1.1310, location description).

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A place where food is handled.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Location {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// Short code, unique in the tenant.
    pub code: String,
    /// Business name.
    pub business_name: String,
    /// Phone number of who can say more.
    pub phone: Option<String>,
    /// Where it is.
    pub address_id: Option<Uuid>,
    /// GS1 Global Location Number: 13 digits with a check digit.
    pub gln: Option<String>,
    /// The plant it belongs to, when it is our own.
    pub plant_id: Option<Uuid>,
    /// First day on which it is in use; absent for always.
    pub valid_from: Option<NaiveDate>,
    /// Last day on which it is in use.
    pub valid_until: Option<NaiveDate>,
    /// Whether business name, phone and a whole address are there. Found by the hub.
    pub is_fsma_complete: bool,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLocation {
    code: String,
    business_name: String,
    #[schema(example = "+1 330 555 0100")]
    phone: Option<String>,
    address_id: Option<Uuid>,
    #[schema(example = "0614141000012")]
    gln: Option<String>,
    plant_id: Option<Uuid>,
    valid_from: Option<NaiveDate>,
    valid_until: Option<NaiveDate>,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LocationPatch {
    business_name: Option<String>,
    phone: Option<String>,
    address_id: Option<Uuid>,
    gln: Option<String>,
    plant_id: Option<Uuid>,
    valid_from: Option<NaiveDate>,
    valid_until: Option<NaiveDate>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LocationFilter {
    code: Option<String>,
    gln: Option<String>,
    is_fsma_complete: Option<bool>,
    /// Part of the code or the name.
    q: Option<String>,
    /// In use on this day or before.
    valid_from_max: Option<NaiveDate>,
    /// In use on this day or after.
    valid_until_min: Option<NaiveDate>,
}

impl Resource for Location {
    type New = NewLocation;
    type Patch = LocationPatch;
    type Filter = LocationFilter;
    const NAME: &str = "location";
    const PLURAL: &str = "locations";
    const CONTEXT: &str = "core";
    const READ: Permission = Permission::CoreRead;
    const WRITE: Permission = Permission::CoreWrite;
    const SORTABLE: &[&str] = &["code", "business_name"];
    const SEARCHED: &[&str] = &["code", "business_name"];

    fn id(&self) -> Uuid {
        self.id
    }
}
