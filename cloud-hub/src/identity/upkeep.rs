//! What of identity is forgotten, and when? Sessions whose time has passed are marked so, and tokens and mails that
//! can mean nothing any more are deleted.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    kernel::{
        audit::Actor,
        tenancy::{TenancyError, TenantSlug},
    },
    tenant::provision,
};

const TURN: Duration = Duration::from_hours(1);

/// Each takes the present as `$1`. A used refresh token is kept as long as its session could still be misused.
const DUTIES: [&str; 4] = [
    "UPDATE session SET ended_at = expires_at, ended_because = 'expired' WHERE ended_at IS NULL AND expires_at <= $1",
    "DELETE FROM refresh_token t USING session s WHERE s.id = t.session_id AND s.expires_at < $1 - interval '1 day'",
    "DELETE FROM one_time_token WHERE expires_at < $1 - interval '30 days'",
    "DELETE FROM mail_message WHERE state <> 'waiting' AND expires_at < $1 - interval '30 days'",
];

/// Runs until `stop` is cancelled.
pub async fn run(app: App, stop: CancellationToken) {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        if let Err(error) = sweep(&app).await {
            tracing::warn!(%error, "old sessions and tokens could not be cleared away");
        }
    }
}

async fn sweep(app: &App) -> Result<(), TenancyError> {
    let mut platform = app.db.platform().await?;
    let tenants = provision::tenants(platform.conn()).await?;
    drop(platform);
    for tenant in tenants {
        match forget(app, &tenant.slug).await {
            Ok(()) | Err(TenancyError::NotMigrated(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Clears away what of a tenant has passed.
///
/// # Errors
/// [`TenancyError`].
pub async fn forget(app: &App, tenant: &TenantSlug) -> Result<(), TenancyError> {
    let mut tx = app.db.begin_as(tenant, Actor::Hub { duty: "upkeep" }).await?;
    let now = app.clock.now();
    for duty in DUTIES {
        sqlx::query(duty).bind(now).execute(tx.conn()).await?;
    }
    tx.commit_unaudited("what ended by itself changes no record")
        .await
}
