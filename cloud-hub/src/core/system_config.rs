//! System settings: what the tenant has decided for all of its own, by key. No place for secrets.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A setting of the tenant.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct SystemConfig {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// Dotted name, unique in the tenant.
    pub key: String,
    /// Any JSON but null.
    pub value: Value,
    /// What it decides.
    pub description: String,
}

/// What a client sends to create one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSystemConfig {
    #[schema(example = "labels.printer")]
    key: String,
    value: Value,
    description: Option<String>,
}

/// What a client sends to change one; absent fields stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemConfigPatch {
    value: Option<Value>,
    description: Option<String>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SystemConfigFilter {
    key: Option<String>,
    /// Part of the key or the description.
    q: Option<String>,
}

impl Resource for SystemConfig {
    type New = NewSystemConfig;
    type Patch = SystemConfigPatch;
    type Filter = SystemConfigFilter;
    const NAME: &str = "system_config";
    const PLURAL: &str = "system-configs";
    const CONTEXT: &str = "core";
    const READ: Permission = Permission::TenantRead;
    const WRITE: Permission = Permission::TenantConfigure;
    const SORTABLE: &[&str] = &["key"];
    const SEARCHED: &[&str] = &["key", "description"];

    fn id(&self) -> Uuid {
        self.id
    }
}
