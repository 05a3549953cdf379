//! What must be done for a tenant's series now and then? Rollups brought up to date, partitions made ahead, old chunks
//! compressed, what is older than the tenant keeps dropped. Everything may be repeated, by several hubs at once, and may
//! fail: it is tried again at its next turn.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::partitions;
use crate::{
    app::App,
    kernel::tenancy::{Db, TenancyError, TenantSlug},
    tenant::{
        provision,
        settings::{self, StorageSettings},
    },
};

const TURN: Duration = Duration::from_secs(5);
/// Partitions are made a week ahead, so that an hour between looks is plenty.
const TURNS_TO_STORAGE: u64 = 720;
/// A minute's rollup is made this long after its end: stragglers of the same second come with it.
const GRACE_S: i64 = 5;
/// Marks in one transaction: about as many as one busy minute leaves.
const MARKS_AT_ONCE: i32 = 500;
/// How long one tenant's backlog may hold up the others' rollups.
const TENANT_TIME_MAX: Duration = Duration::from_secs(2);
/// A chunk is compressed a day after its end: late data mostly comes before.
const COMPRESS_AFTER_DAYS: i64 = 1;
const CHUNKS_AT_ONCE: i32 = 4;

/// Runs until `stop` is cancelled.
pub async fn run(app: App, stop: CancellationToken) {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0u64.. {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        let tenants = match provision::tenant_slugs(&app.db).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(%error, "the upkeep of series waits for the database");
                continue;
            }
        };
        let mut oldest_s = 0.0_f64;
        for tenant in tenants {
            if stop.is_cancelled() {
                return;
            }
            let now = app.clock.now();
            match refresh(&app.db, &tenant, now).await {
                Ok(lag_s) => oldest_s = oldest_s.max(lag_s),
                Err(TenancyError::NotMigrated(_)) => continue,
                Err(error) => tracing::warn!(%tenant, %error, "rollups could not be brought up to date"),
            }
            if turn % TURNS_TO_STORAGE == 0
                && let Err(error) = keep_storage(&app, &tenant).await
            {
                tracing::error!(%tenant, %error, "the storage of readings could not be looked after");
            }
        }
        metrics::gauge!("foodflow_rollup_lag_seconds").set(oldest_s);
    }
}

/// Brings a tenant's rollups up to date, for a while; says for how many seconds the oldest minute
/// that is not right could have been made.
///
/// # Errors
/// [`TenancyError`].
pub async fn refresh(db: &Db, tenant: &TenantSlug, now: DateTime<Utc>) -> Result<f64, TenancyError> {
    let until = now - chrono::Duration::seconds(GRACE_S);
    let started = Instant::now();
    while started.elapsed() < TENANT_TIME_MAX {
        let mut tx = db.begin(tenant).await?;
        let marks: Option<i32> = sqlx::query_scalar("SELECT refresh_rollups($1, $2)")
            .bind(until)
            .bind(MARKS_AT_ONCE)
            .fetch_one(tx.conn())
            .await?;
        tx.commit_unaudited("rollups follow from the readings").await?;
        // None: another hub is at it.
        if matches!(marks, None | Some(0)) {
            break;
        }
        metrics::counter!("foodflow_rollup_marks_total").increment(marks.unwrap_or(0).unsigned_abs().into());
    }
    let mut tx = db.begin(tenant).await?;
    let oldest: Option<DateTime<Utc>> =
        sqlx::query_scalar("SELECT min(greatest(to_time, marked_at)) FROM rollup_dirty WHERE to_time <= $1")
            .bind(until)
            .fetch_one(tx.conn())
            .await?;
    Ok(oldest.map_or(0.0, |oldest| (now - oldest).as_seconds_f64()))
}

async fn keep_storage(app: &App, tenant: &TenantSlug) -> crate::error::Result<()> {
    partitions::ensure(&app.db, tenant, &app.clock).await?;
    let now = app.clock.now();
    let compressed = compress(&app.db, tenant, now).await?;
    let kept = settings::load(&app.db, tenant).await?.storage;
    let dropped = retain(&app.db, tenant, kept, now).await?;
    if compressed > 0 || dropped > 0 {
        tracing::info!(%tenant, compressed, dropped, "storage of readings looked after");
    }
    Ok(())
}

/// Compresses what is old enough, a few chunks at a time; says how many. On a form that cannot there are none.
///
/// # Errors
/// [`TenancyError`].
pub async fn compress(db: &Db, tenant: &TenantSlug, now: DateTime<Utc>) -> Result<i32, TenancyError> {
    let mut done = 0;
    loop {
        let mut tx = db.begin(tenant).await?;
        let some: i32 = sqlx::query_scalar("SELECT compress_before($1, $2)")
            .bind(now - chrono::Duration::days(COMPRESS_AFTER_DAYS))
            .bind(CHUNKS_AT_ONCE)
            .fetch_one(tx.conn())
            .await?;
        tx.commit_unaudited("compressing changes no record").await?;
        done += some;
        if some < CHUNKS_AT_ONCE {
            return Ok(done);
        }
    }
}

/// Drops what is older than the tenant keeps; says how many partitions or chunks went.
///
/// # Errors
/// [`TenancyError`].
pub async fn retain(
    db: &Db,
    tenant: &TenantSlug,
    kept: StorageSettings,
    now: DateTime<Utc>,
) -> Result<i32, TenancyError> {
    let mut dropped = 0;
    let ago = |days: u32| now - chrono::Duration::days(days.into());
    for (sql, days) in [
        ("SELECT drop_before($1)", kept.reading_days),
        ("SELECT drop_minutes_before($1)", kept.minute_days),
    ] {
        let Some(days) = days else { continue };
        let mut tx = db.begin(tenant).await?;
        dropped += sqlx::query_scalar::<_, i32>(sql)
            .bind(ago(days))
            .fetch_one(tx.conn())
            .await?;
        tx.commit_unaudited("the tenant's own settings say what goes, and those are audited")
            .await?;
    }
    Ok(dropped)
}
