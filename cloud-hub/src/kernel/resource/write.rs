//! What changes a record? Creating, changing and deleting, each with its audit entry and its event.

use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{
    Resource,
    columns::{column, names},
    list::{lock, returning, row},
};
use crate::{
    error::{Error, Result},
    kernel::{
        audit::{Deed, value},
        event::NewEvent,
        freeze::{check_deletable, check_frozen},
        tenancy::TenantTx,
    },
};

/// Inserts a row.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Conflict`] when a constraint of the table refuses it.
pub async fn create<R: Resource>(tx: &mut TenantTx, new: &R::New) -> Result<R> {
    let mut values = row(new)?;
    // What the client left out has the table's default.
    values.retain(|_, value| !value.is_null());
    values.insert("id".to_owned(), Value::from(Uuid::now_v7().to_string()));
    let columns = names(values.keys());
    let sql = format!(
        "INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM jsonb_populate_record(null::{table}, $1) \
         RETURNING {returning}",
        table = R::NAME,
        returning = returning::<R>(),
    );
    let made: R = sqlx::query_as(AssertSqlSafe(sql))
        .bind(Value::Object(values))
        .fetch_one(tx.conn())
        .await?;
    note_on::<R>(tx, "create", "Created", made.id(), (None, Some(value(&made))));
    Ok(made)
}

/// Changes a row that is still at `version`. `given` is the patch as the client sent it: it tells a field that is
/// null from one that is absent.
///
/// # Errors
/// [`Error::Stale`]; [`Error::NotFound`]; [`Error::Invalid`] when a constraint refuses it; [`Error::Conflict`] when
/// this version is signed and no reason was given.
pub async fn update<R: Resource>(
    tx: &mut TenantTx,
    id: Uuid,
    version: i32,
    patch: &R::Patch,
    given: &Map<String, Value>,
) -> Result<R> {
    let before = value(lock::<R>(tx, id).await?);
    check_version::<R>(&before, version)?;
    check_frozen(tx, R::NAME, id).await?;
    let mut values = row(patch)?;
    let named: Vec<String> = given.keys().map(|field| column(field)).collect();
    values.retain(|column, _| named.contains(column));
    let mut sets = vec!["version = t.version + 1".to_owned()];
    sets.extend(values.keys().map(|column| format!("{column} = p.{column}")));
    let sql = format!(
        "UPDATE {table} t SET {sets} FROM jsonb_populate_record(null::{table}, $2) p \
         WHERE t.id = $1 RETURNING {returning}",
        table = R::NAME,
        sets = sets.join(", "),
        returning = returning::<R>(),
    );
    let after: R = sqlx::query_as(AssertSqlSafe(sql))
        .bind(id)
        .bind(Value::Object(values))
        .fetch_one(tx.conn())
        .await?;
    note_on::<R>(tx, "update", "Updated", id, (Some(before), Some(value(&after))));
    Ok(after)
}

/// Removes a row that is still at `version`; the audit chain keeps what it was.
///
/// # Errors
/// [`Error::Stale`]; [`Error::NotFound`]; [`Error::Conflict`] while other rows refer to it, or when it was signed.
pub async fn delete<R: Resource>(tx: &mut TenantTx, id: Uuid, version: i32) -> Result<()> {
    let before = value(lock::<R>(tx, id).await?);
    check_version::<R>(&before, version)?;
    check_deletable(tx, R::NAME, id).await?;
    let sql = format!("DELETE FROM {} WHERE id = $1", R::NAME);
    sqlx::query(AssertSqlSafe(sql))
        .bind(id)
        .execute(tx.conn())
        .await?;
    note_on::<R>(tx, "delete", "Deleted", id, (Some(before), None));
    Ok(())
}

fn check_version<R: Resource>(row: &Value, version: i32) -> Result<()> {
    if row.get("version").and_then(Value::as_i64) == Some(i64::from(version)) {
        Ok(())
    } else {
        Err(Error::Stale { entity: R::NAME })
    }
}

/// The audit entry and the event `SupplierCreated` of a deed on `supplier`. The table is told by the type of the row.
fn note_on<R: Resource>(
    tx: &mut TenantTx,
    verb: &'static str,
    past: &str,
    id: Uuid,
    change: (Option<Value>, Option<Value>),
) {
    let (before, after) = change;
    let payload = after.clone().or_else(|| before.clone()).unwrap_or_default();
    tx.event(&NewEvent::new(
        format!("{}{past}", camel(R::NAME)),
        R::NAME,
        id,
        payload,
    ));
    tx.audit(&Deed {
        action: verb,
        entity: R::NAME,
        entity_id: Some(id.to_string()),
        before,
        after,
    });
}

fn camel(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_uppercase().collect::<String>() + letters.as_str()
        })
    };
    name.split('_').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_name_is_the_tables_in_camel_case() {
        assert_eq!(camel("system_config"), "SystemConfig");
    }
}
