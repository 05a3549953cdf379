//! Suppliers: who we buy raw material and packaging from, and who of them is approved.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A company approved (or not) to deliver goods to a plant.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Supplier {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// Short name used on receipts, unique in the tenant.
    pub code: String,
    /// Legal name.
    pub name: String,
    /// Score of the last audit in percent, 0 to 100; absent until first audited.
    pub audit_score_pct: Option<f64>,
    /// Last day on which the approval holds; absent while there is none.
    pub approved_until: Option<NaiveDate>,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSupplier {
    code: String,
    name: String,
    audit_score_pct: Option<f64>,
    approved_until: Option<NaiveDate>,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SupplierPatch {
    name: Option<String>,
    audit_score_pct: Option<f64>,
    approved_until: Option<NaiveDate>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SupplierFilter {
    code: Option<String>,
    /// Part of the name or the code.
    q: Option<String>,
    approved_until_min: Option<NaiveDate>,
}

impl Resource for Supplier {
    type New = NewSupplier;
    type Patch = SupplierPatch;
    type Filter = SupplierFilter;
    const NAME: &str = "supplier";
    const PLURAL: &str = "suppliers";
    const CONTEXT: &str = "fsq";
    const READ: Permission = Permission::SupplierRead;
    const WRITE: Permission = Permission::SupplierWrite;
    const SORTABLE: &[&str] = &["code", "name"];
    const SEARCHED: &[&str] = &["code", "name"];

    fn id(&self) -> Uuid {
        self.id
    }
}
