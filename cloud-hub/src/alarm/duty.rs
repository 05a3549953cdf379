//! When are rules judged? A second after readings of their tags were stored, by whichever hub comes first; and every
//! five seconds for what time alone brings: silence, the end of a shelving, a rule that was changed.

use std::{collections::BTreeSet, ops::AddAssign, time::Duration};

use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    evaluate::{AHEAD_US_MAX, evaluate},
    models::Models,
};
use crate::{
    app::App,
    kernel::{
        clock::time_from_us,
        tenancy::{TenancyError, TenantSlug},
    },
    series::bus::{LiveEvent, LiveKind},
    tenant::provision,
};

/// Readings of this long are judged together.
const TURN: Duration = Duration::from_secs(1);
/// Every so many turns all tenants are looked at, whether or not this hub stored readings of theirs.
const TURNS_TO_ALL: u64 = 5;
/// Rules that are judged in one transaction: few round trips, and yet whoever acts on an alarm does not wait long.
const TOGETHER: usize = 200;

/// Rules with something new: readings, actions or versions; and deleted ones whose end nobody noted yet.
const NEWS: &str = "
SELECT r.id FROM alarm_rule r WHERE r.id IN (SELECT d.rule_id FROM alarm_due d WHERE d.from_at <= $1)
UNION
SELECT r.id FROM alarm_rule r
WHERE NOT EXISTS (SELECT FROM alarm_rule_version v WHERE v.rule_id = r.id AND v.version = r.version)
UNION
SELECT v.rule_id FROM alarm_rule_version v
WHERE v.rule IS NOT NULL AND NOT EXISTS (SELECT FROM alarm_rule r WHERE r.id = v.rule_id)
    AND NOT EXISTS (SELECT FROM alarm_rule_version w WHERE w.rule_id = v.rule_id AND w.version > v.version)";

/// Rules for which time alone may bring something, deleted ones with an alarm that stands among them.
const TIMED: &str = "
SELECT r.id FROM alarm_rule r WHERE r.kind = 'no_data' AND r.is_enabled
UNION
SELECT DISTINCT a.rule_id FROM alarm a
WHERE a.rule_id IS NOT NULL AND a.state <> 'normal' AND a.withdrawn_at IS NULL";

/// Runs until `stop` is cancelled.
pub async fn run(app: App, stop: CancellationToken) {
    let mut stored = app.live.subscribe();
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut busy, models) = (BTreeSet::new(), Models::default());
    for turn in 0u64.. {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = turns.tick() => break,
                event = stored.recv() => note(&mut busy, event, &mut stored),
            }
        }
        let is_all = turn % TURNS_TO_ALL == 0;
        let tenants = if is_all {
            tenants(&app).await
        } else {
            std::mem::take(&mut busy).into_iter().collect()
        };
        for tenant in tenants {
            if stop.is_cancelled() {
                return;
            }
            match judge_with(&app, &tenant, is_all, &models).await {
                Ok(judged) if judged.left > 0 => drop(busy.insert(tenant)),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%tenant, %error, "alarm rules could not be judged; they are tried again");
                }
            }
        }
    }
}

type Heard = Result<std::sync::Arc<LiveEvent>, RecvError>;

/// Whose readings were stored. What was missed is found by the next look at all tenants.
fn note(busy: &mut BTreeSet<TenantSlug>, heard: Heard, stored: &mut Receiver<std::sync::Arc<LiveEvent>>) {
    match heard {
        Ok(event) if event.is_here && matches!(event.kind, LiveKind::Samples { .. }) => {
            busy.insert(event.tenant.clone());
        }
        Ok(_) => {}
        Err(_) => *stored = stored.resubscribe(),
    }
}

async fn tenants(app: &App) -> Vec<TenantSlug> {
    let asked = async {
        let mut tx = app.db.platform().await?;
        Ok::<_, TenancyError>(provision::tenants(tx.conn()).await?)
    };
    match asked.await {
        Ok(tenants) => tenants.into_iter().map(|tenant| tenant.slug).collect(),
        Err(error) => {
            tracing::warn!(%error, "alarm rules wait for the database");
            vec![]
        }
    }
}

/// What one look at a tenant came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Rules that were judged.
    pub rules: usize,
    /// Alarms that changed.
    pub changed: usize,
    /// Rules that another hub was judging at that moment.
    pub elsewhere: usize,
    /// Rules with more readings than one turn takes in.
    pub left: usize,
}

impl AddAssign for Judged {
    fn add_assign(&mut self, more: Self) {
        self.rules += more.rules;
        self.changed += more.changed;
        self.elsewhere += more.elsewhere;
        self.left += more.left;
    }
}

/// Judges what is due in one tenant. A rule that cannot be judged holds up no other.
///
/// # Errors
/// [`TenancyError`] when not even the list of rules can be read.
pub async fn judge(app: &App, tenant: &TenantSlug, with_time: bool) -> Result<Judged, TenancyError> {
    judge_with(app, tenant, with_time, &Models::default()).await
}

async fn judge_with(
    app: &App,
    tenant: &TenantSlug,
    with_time: bool,
    models: &Models,
) -> Result<Judged, TenancyError> {
    let rules = due(app, tenant, with_time).await?;
    let mut judged = Judged::default();
    for together in rules.chunks(TOGETHER) {
        match evaluate(app, tenant, together, models).await {
            Ok(more) => judged += more,
            Err(error @ TenancyError::Unavailable(_)) => return Err(error),
            // One of them is at fault, and only that one is not to be judged.
            Err(_) => {
                for rule in together {
                    judged += alone(app, tenant, *rule, models).await;
                }
            }
        }
    }
    Ok(judged)
}

/// The rules to look at.
async fn due(app: &App, tenant: &TenantSlug, with_time: bool) -> Result<Vec<Uuid>, TenancyError> {
    let mut tx = app.db.begin(tenant).await?;
    let mut rules: BTreeSet<Uuid> = sqlx::query_scalar(NEWS)
        .bind(time_from_us(app.clock.now_us() + AHEAD_US_MAX))
        .fetch_all(tx.conn())
        .await?
        .into_iter()
        .collect();
    if with_time {
        let timed: Vec<Uuid> = sqlx::query_scalar(TIMED).fetch_all(tx.conn()).await?;
        rules.extend(timed);
    }
    Ok(rules.into_iter().collect())
}

async fn alone(app: &App, tenant: &TenantSlug, rule: Uuid, models: &Models) -> Judged {
    match evaluate(app, tenant, &[rule], models).await {
        Ok(judged) => judged,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%tenant, %rule, %error, cause, "an alarm rule could not be judged");
            metrics::counter!("foodflow_alarm_failures_total").increment(1);
            Judged::default()
        }
    }
}
