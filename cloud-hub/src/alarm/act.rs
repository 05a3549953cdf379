//! What do people do about an alarm? Acknowledge, shelve, reset, take out of service: tried against where the machine
//! stands, written down, shown at once, and taken in by the judging of the rule like a reading.

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use protocol::{
    Micros,
    alarm::{AlarmAction, AlarmState as Shown, AlarmVerb},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    evaluate::{lock, publish},
    judge::{Deed as AlarmDeed, Judge},
    list::{Alarm, find},
    load::{alarm as behaviour, deeds},
    rule::AlarmRule,
    state,
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed, caller::Caller, clock::time_from_us, event::NewEvent, permission::Permission,
        reply::Reply, tenancy::TenantTx,
    },
    request::{Json, Path},
};

const REASON_CHARS_MAX: usize = 500;

/// What can be done about an alarm of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmVerbAsked {
    /// Seen, and being dealt with.
    Acknowledge,
    /// Hide it until `until_us`.
    Shelve,
    /// End the shelving now.
    Unshelve,
    /// Release a latched alarm.
    Reset,
    /// Out of service for maintenance.
    TakeOutOfService,
    /// Back into service.
    ReturnToService,
}

impl AlarmVerbAsked {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledge",
            Self::Shelve => "shelve",
            Self::Unshelve => "unshelve",
            Self::Reset => "reset",
            Self::TakeOutOfService => "take_out_of_service",
            Self::ReturnToService => "return_to_service",
        }
    }

    fn with(self, until_us: Option<Micros>) -> Result<AlarmVerb> {
        match (self, until_us) {
            (Self::Shelve, Some(until_us)) => Ok(AlarmVerb::Shelve { until_us }),
            (Self::Shelve, None) => Err(Error::Invalid("`until_us` must be given to shelve".to_owned())),
            (_, Some(_)) => Err(Error::Invalid("`until_us` is for `shelve` only".to_owned())),
            (Self::Acknowledge, None) => Ok(AlarmVerb::Acknowledge),
            (Self::Unshelve, None) => Ok(AlarmVerb::Unshelve),
            (Self::Reset, None) => Ok(AlarmVerb::Reset),
            (Self::TakeOutOfService, None) => Ok(AlarmVerb::TakeOutOfService),
            (Self::ReturnToService, None) => Ok(AlarmVerb::ReturnToService),
        }
    }
}

/// What a person does.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlarmActionAsked {
    /// What.
    verb: AlarmVerbAsked,
    /// End of a shelving.
    until_us: Option<Micros>,
    /// Why, 1 to 500 characters.
    reason: String,
}

/// Acts on an alarm of the hub. Alarms of edges are acted on through their edge.
#[utoipa::path(post, path = "/sensors/alarms/{id}/actions", operation_id = "act_on_alarm", tag = TAG, security(("bearer" = ["alarm.act"])),
    params(("id" = Uuid, Path, description = "Alarm")), request_body = AlarmActionAsked,
    responses((status = 200, description = "Done", body = Alarm)))]
pub async fn act_on_alarm(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(asked): Json<AlarmActionAsked>,
) -> Result<Reply> {
    act(app, caller, id, asked).await
}

/// What is said with an acknowledgement.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlarmReason {
    /// What is being done about it, 1 to 500 characters.
    reason: String,
}

impl AlarmReason {
    fn asking(self, verb: AlarmVerbAsked) -> AlarmActionAsked {
        AlarmActionAsked {
            verb,
            until_us: None,
            reason: self.reason,
        }
    }
}

/// Acknowledges an alarm of the hub: it is seen, and being dealt with. That never ends it.
#[utoipa::path(post, path = "/sensors/alarms/{id}/acknowledge", operation_id = "acknowledge_alarm", tag = TAG, security(("bearer" = ["alarm.act"])),
    params(("id" = Uuid, Path, description = "Alarm")), request_body = AlarmReason,
    responses((status = 200, description = "Acknowledged", body = Alarm)))]
pub async fn acknowledge_alarm(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(said): Json<AlarmReason>,
) -> Result<Reply> {
    act(app, caller, id, said.asking(AlarmVerbAsked::Acknowledge)).await
}

/// Resets a latched alarm of the hub.
#[utoipa::path(post, path = "/sensors/alarms/{id}/reset", operation_id = "reset_alarm", tag = TAG, security(("bearer" = ["alarm.act"])),
    params(("id" = Uuid, Path, description = "Alarm")), request_body = AlarmReason,
    responses((status = 200, description = "Reset", body = Alarm)))]
pub async fn reset_alarm(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(said): Json<AlarmReason>,
) -> Result<Reply> {
    act(app, caller, id, said.asking(AlarmVerbAsked::Reset)).await
}

/// Until when an alarm is hidden, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlarmShelving {
    /// It comes back by itself then.
    until_us: Micros,
    /// Why, 1 to 500 characters.
    reason: String,
}

/// Hides an alarm of the hub for a stated time.
#[utoipa::path(post, path = "/sensors/alarms/{id}/shelve", operation_id = "shelve_alarm", tag = TAG, security(("bearer" = ["alarm.act"])),
    params(("id" = Uuid, Path, description = "Alarm")), request_body = AlarmShelving,
    responses((status = 200, description = "Shelved", body = Alarm)))]
pub async fn shelve_alarm(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(said): Json<AlarmShelving>,
) -> Result<Reply> {
    let asked = AlarmActionAsked {
        verb: AlarmVerbAsked::Shelve,
        until_us: Some(said.until_us),
        reason: said.reason,
    };
    act(app, caller, id, asked).await
}

async fn act(app: App, caller: Caller, id: Uuid, asked: AlarmActionAsked) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::AlarmAct).await?;
    let reason = asked.reason.trim().to_owned();
    if !(1..=REASON_CHARS_MAX).contains(&reason.chars().count()) {
        return Err(Error::Invalid(format!(
            "`reason` must have 1 to {REASON_CHARS_MAX} characters"
        )));
    }
    let alarm = find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound { entity: "alarm" })?;
    let rule_id = hubs_own(&alarm)?;
    lock(&mut tx, rule_id).await?;
    let rule = present_or_last(&mut tx, rule_id).await?;
    let now_us = app.clock.now_us();
    let deed = AlarmDeed {
        alarm_id: id,
        action: AlarmAction {
            id: Uuid::now_v7(),
            code: alarm.code.clone(),
            subject: alarm.subject.clone(),
            at_us: now_us,
            by: tx.actor().display(),
            second: None,
            reason,
            verb: asked.verb.with(asked.until_us)?,
        },
    };
    let judge = newest(&mut tx, &rule, now_us).await?;
    let to = outcome(&alarm, &judge, &rule, &deed, asked.verb)?;
    note(&mut tx, rule_id, &deed, asked.verb, asked.until_us).await?;
    show(&mut tx, &alarm, &deed, (asked.verb, asked.until_us), to).await?;
    let shown = find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound { entity: "alarm" })?;
    tx.audit(
        &Deed::on(asked.verb.as_str(), "alarm", id)
            .before(&alarm)
            .after(&shown),
    );
    let said = json!({ "verb": asked.verb, "by": deed.action.by, "state": shown.state });
    tx.event(&NewEvent::new("AlarmActedOn", "alarm", id, said));
    let reply = tx.finish(StatusCode::OK, &shown).await?;
    publish(&app, &caller.tenant, &shown);
    Ok(reply)
}

/// The rule as it is, or as it last was: what a deleted rule left is still to be looked at.
async fn present_or_last(tx: &mut TenantTx, rule_id: Uuid) -> Result<AlarmRule> {
    let known: Option<serde_json::Value> = sqlx::query_scalar(
        "SELECT coalesce((SELECT to_jsonb(r) FROM alarm_rule r WHERE r.id = $1), (SELECT v.rule FROM alarm_rule_version v \
           WHERE v.rule_id = $1 AND v.rule IS NOT NULL ORDER BY v.version DESC LIMIT 1))",
    )
    .bind(rule_id)
    .fetch_one(tx.conn())
    .await?;
    known
        .and_then(|rule| serde_json::from_value(rule).ok())
        .ok_or_else(|| Error::Conflict("no rule of this alarm is known".to_owned()))
}

/// The rule of an alarm that can be acted on here.
fn hubs_own(alarm: &Alarm) -> Result<Uuid> {
    if let Some(edge) = &alarm.edge {
        return Err(Error::Conflict(format!(
            "this alarm is {edge}'s own; act on it with a command to that edge"
        )));
    }
    if alarm.withdrawn_us.is_some() {
        return Err(Error::Conflict(
            "late readings have disproved this alarm; nothing is to be done".to_owned(),
        ));
    }
    alarm
        .rule_id
        .ok_or_else(|| Error::Conflict("no rule of this alarm is known".to_owned()))
}

/// Where the rule stands now, with what was done since it was judged last.
async fn newest(tx: &mut TenantTx, rule: &AlarmRule, now_us: Micros) -> Result<Judge> {
    let row: Option<(DateTime<Utc>, Vec<u8>)> = sqlx::query_as(
        "SELECT at, state FROM alarm_state WHERE rule_id = $1 AND at <= $2 ORDER BY at DESC LIMIT 1",
    )
    .bind(rule.id)
    .bind(time_from_us(now_us + 60_000_000))
    .fetch_optional(tx.conn())
    .await?;
    let known = row.and_then(|(at, state)| Some((at.timestamp_micros(), postcard::from_bytes(&state).ok()?)));
    let (at_us, mut judge): (Micros, Judge) = known
        .ok_or_else(|| Error::Conflict("the rule of this alarm was not judged yet; try again".to_owned()))?;
    let mut done = deeds(tx, std::iter::once((rule, at_us))).await?;
    for deed in done.remove(&rule.id).unwrap_or_default() {
        judge.follow_deed(&behaviour(rule), &deed);
    }
    Ok(judge)
}

/// The state after the action.
fn outcome(
    alarm: &Alarm,
    judge: &Judge,
    rule: &AlarmRule,
    deed: &AlarmDeed,
    verb: AlarmVerbAsked,
) -> Result<Shown> {
    let settles_one = matches!(verb, AlarmVerbAsked::Acknowledge | AlarmVerbAsked::Reset);
    if settles_one && judge.newest() != deed.alarm_id && !alarm.is_active {
        // An earlier occurrence asks for itself.
        return if state::parse(&alarm.state) == Shown::Normal {
            Err(Error::Conflict("there is nothing to acknowledge".to_owned()))
        } else {
            Ok(Shown::Normal)
        };
    }
    if judge.newest() != deed.alarm_id && settles_one {
        // Only time brought it (silence): no mark knows it, and it is seen all the same.
        return match (verb, state::parse(&alarm.state)) {
            (AlarmVerbAsked::Acknowledge, Shown::Unacknowledged) => Ok(Shown::Acknowledged),
            _ => Err(Error::Conflict("there is nothing to acknowledge".to_owned())),
        };
    }
    judge.would(&behaviour(rule), deed).map_err(Error::Conflict)
}

async fn note(
    tx: &mut TenantTx,
    rule_id: Uuid,
    deed: &AlarmDeed,
    verb: AlarmVerbAsked,
    until_us: Option<Micros>,
) -> Result<()> {
    let at: DateTime<Utc> = time_from_us(deed.action.at_us);
    sqlx::query(
        "WITH due AS (INSERT INTO alarm_due (rule_id, from_at) VALUES ($2, $4)) \
         INSERT INTO alarm_action (id, rule_id, alarm_id, at, verb, until_at, actor, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(deed.action.id)
    .bind(rule_id)
    .bind(deed.alarm_id)
    .bind(at)
    .bind(verb.as_str())
    .bind(until_us.map(time_from_us))
    .bind(&deed.action.by)
    .bind(&deed.action.reason)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Shows the new state at once; judging the rule again comes to the same.
async fn show(
    tx: &mut TenantTx,
    alarm: &Alarm,
    deed: &AlarmDeed,
    (verb, until_us): (AlarmVerbAsked, Option<Micros>),
    to: Shown,
) -> Result<()> {
    let acks = matches!(verb, AlarmVerbAsked::Acknowledge | AlarmVerbAsked::Reset);
    let at: DateTime<Utc> = time_from_us(deed.action.at_us);
    sqlx::query(
        "UPDATE alarm SET state = $2, state_at = $3, version = version + 1, \
           acked_at = CASE WHEN $4 THEN $3 ELSE acked_at END, acked_by = CASE WHEN $4 THEN $5 ELSE acked_by END, \
           shelved_until = $6 WHERE id = $1",
    )
    .bind(alarm.id)
    .bind(state::name(to))
    .bind(at)
    .bind(acks)
    .bind(&deed.action.by)
    .bind(until_us.map(time_from_us))
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "INSERT INTO alarm_entry (rule_id, alarm_id, line_id, code, subject, at, found_at, from_state, to_state, cause, \
           actor, reason, priority, value) VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, 'action', $9, $10, $11, $12)",
    )
    .bind(alarm.rule_id)
    .bind(alarm.id)
    .bind(alarm.line_id)
    .bind(&alarm.code)
    .bind(&alarm.subject)
    .bind(at)
    .bind(&alarm.state)
    .bind(state::name(to))
    .bind(&deed.action.by)
    .bind(&deed.action.reason)
    .bind(alarm.priority.unwrap_or(3))
    .bind(alarm.value)
    .execute(tx.conn())
    .await?;
    Ok(())
}
