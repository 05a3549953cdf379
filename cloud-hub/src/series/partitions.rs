//! Is there a place for tomorrow's readings? Daily partitions are made ahead; on a hypertable there is nothing
//! to do, and the SQL function knows that.

use crate::kernel::{
    clock::Clock,
    tenancy::{Db, TenancyError, TenantSlug},
};

/// Days made ahead, so that the hub may be down over a long weekend.
const DAYS_AHEAD: i64 = 7;

/// Makes what is missing for one tenant and says how many partitions were made.
///
/// # Errors
/// [`TenancyError`].
pub async fn ensure(db: &Db, tenant: &TenantSlug, clock: &Clock) -> Result<i32, TenancyError> {
    let today = clock.now().date_naive();
    let mut tx = db.begin(tenant).await?;
    let made = sqlx::query_scalar("SELECT ensure_partitions($1, $2)")
        .bind(today - chrono::Duration::days(1))
        .bind(today + chrono::Duration::days(DAYS_AHEAD))
        .fetch_one(tx.conn())
        .await?;
    tx.commit_unaudited("partitions hold no record of their own")
        .await?;
    Ok(made)
}
