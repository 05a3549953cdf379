//! What must be done now and then? Another look at recent deviations, and noticing edges
//! that went silent. Every duty may be repeated and may fail: it is tried again at its next turn.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    fsq::workflow::deviation,
    kernel::{
        bulk::{BulkConnection, BulkError},
        database::Target,
        tenancy::{TenancyError, TenantSlug},
    },
    series::bus::LiveKind,
    tenant::provision,
};

const TURN: Duration = Duration::from_secs(10);
/// Residence times are minutes.
const TURNS_TO_REVIEW: u64 = 3;
/// An edge reports every 10 s; three reports missed is silence.
const SILENCE_S: i64 = 35;
/// Product that passed a control point this long ago has reached its lot.
const REVIEW_HOURS: i64 = 24;

/// Runs until `stop` is cancelled.
pub(super) async fn run(app: App, target: Target, stop: CancellationToken) {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    for turn in 0u64.. {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        app.metrics.run_upkeep();
        let tenants = match tenants(&app).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(%error, "maintenance waits for the database");
                continue;
            }
        };
        for tenant in tenants {
            if let Err(error) = notice_silence(&app, &tenant).await {
                tracing::warn!(%tenant, %error, "edges could not be looked at");
            }
            if turn % TURNS_TO_REVIEW == 0
                && let Err(error) = review(&app, &target, &mut connection, &tenant).await
            {
                tracing::warn!(%tenant, %error, "deviations could not be looked at again");
                connection = None;
            }
        }
    }
}

async fn tenants(app: &App) -> Result<Vec<TenantSlug>, TenancyError> {
    let mut tx = app.db.platform().await?;
    let tenants = provision::tenants(tx.conn()).await?;
    Ok(tenants.into_iter().map(|tenant| tenant.slug).collect())
}

/// A hub that was killed, or an edge whose line was cut, leaves an edge online that is not.
async fn notice_silence(app: &App, tenant: &TenantSlug) -> Result<(), TenancyError> {
    let mut tx = app.db.begin(tenant).await?;
    let silent: Vec<String> = sqlx::query_scalar(
        "UPDATE edge SET is_online = false WHERE is_online AND NOT is_sessionless AND last_seen_at < $1 \
         RETURNING name",
    )
    .bind(app.clock.now() - chrono::Duration::seconds(SILENCE_S))
    .fetch_all(tx.conn())
    .await?;
    tx.commit_unaudited("who is online is a state, not a record")
        .await?;
    for name in silent {
        app.live
            .publish(tenant, app.clock.now_us(), LiveKind::Edge { name });
    }
    Ok(())
}

async fn review(
    app: &App,
    target: &Target,
    connection: &mut Option<BulkConnection>,
    tenant: &TenantSlug,
) -> Result<(), BulkError> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(BulkConnection::connect(&target.bulk).await?),
    };
    let now = app.clock.now();
    let mut tx = connection.begin(tenant).await?;
    let held = deviation::review(&mut tx, now - chrono::Duration::hours(REVIEW_HOURS), now).await?;
    tx.commit().await?;
    for held in held {
        let now_us = app.clock.now_us();
        app.live.publish(
            tenant,
            now_us,
            LiveKind::Hold {
                id: held.hold_id,
                version: held.version,
            },
        );
        app.live
            .publish(tenant, now_us, LiveKind::Line { id: held.line_id });
    }
    Ok(())
}
