//! May a record that somebody signed still be changed? Its signed version never: a later version is made for a
//! reason that is given, and shows the signature as superseded. What was ever signed is not deleted.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::tenancy::TenantTx;
use crate::error::{Error, Result};

/// Lets a change of a record pass unless its present version is signed and no reason was given. Call it with the
/// row locked; `table` is the kind of record, too. What an edge or a duty adds by itself is not asked: machines
/// give no reasons, and the later version shows.
///
/// # Errors
/// [`Error::Conflict`].
pub async fn check_frozen(tx: &mut TenantTx, table: &'static str, id: Uuid) -> Result<()> {
    if tx.context().why.is_some() {
        return Ok(());
    }
    let sql = format!(
        "SELECT EXISTS (SELECT FROM signature s JOIN {table} t ON t.id = s.record_id \
           AND t.version = s.record_version WHERE s.record_type = '{table}' AND s.record_id = $1)"
    );
    let is_signed: bool = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(id)
        .fetch_one(tx.conn())
        .await?;
    if is_signed {
        return Err(Error::Conflict(format!(
            "this version of the {table} is signed; say in `X-Change-Reason` why there must be a later one"
        )));
    }
    Ok(())
}

/// Lets a deletion pass unless any version of the record was signed.
///
/// # Errors
/// [`Error::Conflict`].
pub async fn check_deletable(tx: &mut TenantTx, table: &'static str, id: Uuid) -> Result<()> {
    let is_signed: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM signature WHERE record_type = $1 AND record_id = $2)")
            .bind(table)
            .bind(id)
            .fetch_one(tx.conn())
            .await?;
    if is_signed {
        return Err(Error::Conflict(format!(
            "the {table} was signed; a signed record is not deleted"
        )));
    }
    Ok(())
}
