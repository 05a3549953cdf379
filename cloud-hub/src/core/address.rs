//! Addresses: a physical place, in the words of the post or by coordinates.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A physical place.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Address {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// Street and number; empty where coordinates say more.
    pub street: String,
    /// City.
    pub city: String,
    /// State or province; needed in the United States.
    pub region: String,
    /// Postal or zip code.
    pub postal_code: String,
    /// ISO 3166-1, two letters.
    pub country: String,
    /// WGS 84, degrees; with the longitude or not at all.
    pub latitude: Option<f64>,
    /// WGS 84, degrees.
    pub longitude: Option<f64>,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAddress {
    street: Option<String>,
    city: String,
    region: Option<String>,
    postal_code: Option<String>,
    #[schema(example = "US")]
    country: String,
    #[schema(example = 41.08)]
    latitude: Option<f64>,
    #[schema(example = -81.52)]
    longitude: Option<f64>,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressPatch {
    street: Option<String>,
    city: Option<String>,
    region: Option<String>,
    postal_code: Option<String>,
    country: Option<String>,
    latitude: Option<f64>,
    longitude: Option<f64>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AddressFilter {
    city: Option<String>,
    country: Option<String>,
    /// Part of the street or the city.
    q: Option<String>,
}

impl Resource for Address {
    type New = NewAddress;
    type Patch = AddressPatch;
    type Filter = AddressFilter;
    const NAME: &str = "address";
    const PLURAL: &str = "addresses";
    const CONTEXT: &str = "core";
    const READ: Permission = Permission::CoreRead;
    const WRITE: Permission = Permission::CoreWrite;
    const SORTABLE: &[&str] = &["city", "country"];
    const SEARCHED: &[&str] = &["street", "city"];

    fn id(&self) -> Uuid {
        self.id
    }
}
