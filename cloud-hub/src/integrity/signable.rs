//! Which records can be signed, and what of them? Those of this list, read as their row stands, in the one form
//! whose hash the signature is over.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    kernel::{audit::canonical, permission::Permission, tenancy::TenantTx},
};

/// A kind of record that people sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RecordType {
    /// A batch.
    Batch,
    /// A critical control point with its limits.
    Ccp,
    /// A deviation.
    Deviation,
    /// A hold with the lots on it.
    Hold,
    /// A lot.
    Lot,
    /// A supplier with its approval.
    Supplier,
}

impl RecordType {
    /// Its table, and its name in signatures and in the audit chain.
    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Ccp => "ccp",
            Self::Deviation => "deviation",
            Self::Hold => "hold",
            Self::Lot => "lot",
            Self::Supplier => "supplier",
        }
    }

    /// Whoever signs it or looks at its signatures must be allowed to see it.
    pub(super) const fn read(self) -> Permission {
        match self {
            Self::Batch => Permission::BatchRead,
            Self::Ccp => Permission::CcpRead,
            Self::Deviation => Permission::DeviationRead,
            Self::Hold => Permission::HoldRead,
            Self::Lot => Permission::LotRead,
            Self::Supplier => Permission::SupplierRead,
        }
    }

    /// What belongs to it beside its row `t`, as SQL.
    const fn more(self) -> &'static str {
        match self {
            Self::Hold => {
                "jsonb_build_object('lots', (SELECT coalesce(jsonb_agg(l.lot_id ORDER BY l.lot_id), '[]') \
                   FROM hold_lot l WHERE l.hold_id = t.id))"
            }
            _ => "'{}'::jsonb",
        }
    }
}

/// A record as it stands now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Current {
    /// Its version.
    pub(super) version: i32,
    fields: Map<String, Value>,
}

impl Current {
    /// What is signed: canonical JSON.
    pub(super) fn text(&self) -> String {
        canonical(&Value::Object(self.fields.clone()))
    }

    /// Whether it still is what was signed. Columns that later programs added are no change of the record.
    pub(super) fn matches(&self, signed: &str) -> bool {
        let Ok(Value::Object(was)) = serde_json::from_str(signed) else {
            return false;
        };
        let known = self.fields.iter().filter(|(field, _)| was.contains_key(*field));
        let now: Map<String, Value> = known
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        canonical(&Value::Object(now)) == signed
    }
}

/// Reads a record. With `lock` nobody changes it until the transaction ends.
///
/// # Errors
/// [`Error::NotFound`], also when the record is on a line out of the caller's reach.
pub(super) async fn read(tx: &mut TenantTx, kind: RecordType, id: Uuid, lock: bool) -> Result<Current> {
    let sql = format!(
        "SELECT t.version, (to_jsonb(t) || {more})::text FROM {table} t WHERE t.id = $1{lock}",
        more = kind.more(),
        table = kind.table(),
        lock = if lock { " FOR SHARE OF t" } else { "" },
    );
    let found: Option<(i32, String)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    let (version, text) = found.ok_or(Error::NotFound { entity: kind.table() })?;
    let fields = serde_json::from_str(&text).map_err(|source| Error::Internal(source.into()))?;
    Ok(Current { version, fields })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn current(fields: Value) -> Current {
        let Value::Object(fields) = fields else {
            panic!("a record is an object")
        };
        Current { version: 1, fields }
    }

    #[test]
    fn a_record_matches_what_was_signed_until_a_field_of_then_changes() {
        let signed = current(json!({ "b": 1.5, "a": "x" })).text();
        assert_eq!(signed, r#"{"a":"x","b":1.5}"#);
        assert!(current(json!({ "a": "x", "b": 1.5 })).matches(&signed));
        assert!(current(json!({ "a": "x", "b": 1.5, "added": null })).matches(&signed));
        assert!(!current(json!({ "a": "y", "b": 1.5 })).matches(&signed));
        assert!(!current(json!({ "a": "x" })).matches(&signed));
        assert!(!current(json!({ "a": "x" })).matches("nonsense"));
    }
}
