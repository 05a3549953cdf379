//! When is a root signed? After each UTC midnight, and at the start for the days that were missed: what the chain
//! held at the end of the day, in the database and in a file that the customer keeps.

use std::{io, time::Duration};

use chrono::{DateTime, Days, NaiveDate, Utc};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{key::AuditKey, root::Root, root_file, verify};
use crate::{
    app::App,
    kernel::{
        audit::Actor,
        tenancy::{Db, TenancyError, TenantSlug, TenantTx},
    },
    tenant::provision,
};

const TURN: Duration = Duration::from_secs(30);
/// A first entry whose time is nonsense must not ask for a root of every day since then.
const MISSED_DAYS_MAX: u64 = 366;

/// Signs until `stop` is cancelled. A day that failed is tried again at the next turn.
pub async fn run(app: App, stop: CancellationToken) {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        let today = app.clock.now().date_naive();
        if done == Some(today) {
            continue;
        }
        match sign_all(&app).await {
            Ok(true) => done = Some(today),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "roots wait for the database"),
        }
    }
}

/// Whether every tenant's roots are signed and written.
async fn sign_all(app: &App) -> Result<bool, TenancyError> {
    let mut tx = app.db.platform().await?;
    let tenants = provision::tenants(tx.conn()).await?;
    drop(tx);
    let mut is_done = true;
    for tenant in tenants {
        let signed = sign_due(&app.db, &tenant.slug, &app.audit_key, app.clock.now()).await;
        if let Err(error) = signed {
            tracing::error!(tenant = %tenant.slug, %error, "the audit chain's root could not be signed");
            is_done = false;
        }
        match write_missing(app, &tenant.slug).await {
            Ok(Err(error)) => {
                tracing::error!(tenant = %tenant.slug, %error, "audit roots could not be written");
                is_done = false;
            }
            other => drop(other?),
        }
    }
    Ok(is_done)
}

/// Signs the roots of a tenant's days that are over at `now` and have none, oldest first.
///
/// # Errors
/// [`TenancyError`]; what was signed before stays.
pub async fn sign_due(
    db: &Db,
    tenant: &TenantSlug,
    key: &AuditKey,
    now: DateTime<Utc>,
) -> Result<Vec<Root>, TenancyError> {
    let mut signed = Vec::new();
    let today = now.date_naive();
    loop {
        let mut tx = db.begin_as(tenant, Actor::Hub { duty: "roots" }).await?;
        let previous = newest(&mut tx).await?;
        let day = match &previous {
            Some(root) => root.day.succ_opt(),
            None => first_day(&mut tx, today).await?,
        };
        let Some(day) = day.filter(|day| *day < today) else {
            return Ok(signed);
        };
        let Some(place) = end_of(&mut tx, day, previous.as_ref()).await? else {
            return Ok(signed);
        };
        let root = Root::sign(tenant.as_str(), day, place, previous.as_ref(), key);
        if append(&mut tx, &root).await? {
            tx.commit_unaudited("a root seals the chain; an entry of it would extend what it seals")
                .await?;
            signed.push(root);
        }
    }
}

async fn newest(tx: &mut TenantTx) -> Result<Option<Root>, TenancyError> {
    Ok(sqlx::query_as(
        "SELECT day, last_seq, last_hash, statement, signature, public_key FROM audit_root \
         ORDER BY day DESC LIMIT 1",
    )
    .fetch_optional(tx.conn())
    .await?)
}

async fn first_day(tx: &mut TenantTx, today: NaiveDate) -> Result<Option<NaiveDate>, TenancyError> {
    let first_us: Option<i64> = sqlx::query_scalar("SELECT at_us FROM audit_event ORDER BY seq LIMIT 1")
        .fetch_optional(tx.conn())
        .await?;
    let day = first_us.map(|us| crate::kernel::clock::time_from_us(us).date_naive());
    let earliest = today.checked_sub_days(Days::new(MISSED_DAYS_MAX));
    Ok(day.max(earliest.filter(|_| day.is_some())))
}

/// Where the chain stood at the end of a day: its last entry of before midnight. Entries have the time at which
/// their transaction began, so one that was long under way belongs to the root of the day after.
async fn end_of(
    tx: &mut TenantTx,
    day: NaiveDate,
    previous: Option<&Root>,
) -> Result<Option<(i64, [u8; 32])>, TenancyError> {
    let midnight = day.and_time(chrono::NaiveTime::MIN).and_utc() + chrono::Duration::days(1);
    let last: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT seq, hash FROM audit_event WHERE at_us < $1 ORDER BY seq DESC LIMIT 1")
            .bind(midnight.timestamp_micros())
            .fetch_optional(tx.conn())
            .await?;
    let before = previous.map(|root| (root.last_seq, root.last_hash.clone()));
    // A clock that was set back makes no root shorter than the one before.
    let place = last.max(before);
    Ok(place.and_then(|(seq, hash)| Some((seq, hash.try_into().ok()?))))
}

/// Whether it was appended; another hub may have been quicker.
async fn append(tx: &mut TenantTx, root: &Root) -> Result<bool, TenancyError> {
    Ok(sqlx::query_scalar("SELECT sign_root($1, $2, $3, $4, $5, $6)")
        .bind(root.day)
        .bind(root.last_seq)
        .bind(&root.last_hash)
        .bind(&root.statement)
        .bind(&root.signature)
        .bind(&root.public_key)
        .fetch_one(tx.conn())
        .await?)
}

/// Writes the files of roots that have none: of those just signed, and of those that a crash left without.
async fn write_missing(app: &App, tenant: &TenantSlug) -> Result<io::Result<()>, TenancyError> {
    let mut tx = app.db.begin_as(tenant, Actor::Hub { duty: "roots" }).await?;
    let roots = verify::roots(&mut tx).await?;
    drop(tx);
    let (data_dir, tenant) = (app.config.data_dir.clone(), tenant.clone());
    let written = spawn_blocking(move || {
        let mut roots = roots.iter();
        roots.try_for_each(|root| root_file::write(&data_dir, tenant.as_str(), root))
    });
    Ok(written
        .await
        .unwrap_or_else(|failed| Err(io::Error::other(failed))))
}
