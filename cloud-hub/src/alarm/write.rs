//! What is stored of alarms, and how do changes get there? Rows, journal, audit entries and events of many rules in a
//! few statements.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::Serialize;
use serde_json::json;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{
    judge::Occurrence,
    list::{self, Alarm},
    load::Loaded,
    settle::{Ack, Cause, Change, Reach, Row},
    state::{name, parse},
};
use crate::kernel::{
    audit::Deed,
    clock::time_from_us,
    event::NewEvent,
    tenancy::{TenancyError, TenantTx},
};

// === what is stored ===

#[derive(FromRow)]
struct StoredRow {
    rule_id: Uuid,
    id: Uuid,
    raised_at: DateTime<Utc>,
    cleared_at: Option<DateTime<Utc>>,
    value: Option<f64>,
    score: Option<f64>,
    rule_version: Option<i32>,
    model_version: Option<i32>,
    state: Option<String>,
    found_at: Option<DateTime<Utc>>,
    withdrawn_at: Option<DateTime<Utc>>,
    shelved_until: Option<DateTime<Utc>>,
    acked_at: Option<DateTime<Utc>>,
    acked_by: Option<String>,
}

impl From<StoredRow> for Row {
    fn from(row: StoredRow) -> Self {
        let us = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_micros());
        Self {
            occurrence: Occurrence {
                id: row.id,
                raised_us: row.raised_at.timestamp_micros(),
                cleared_us: us(row.cleared_at),
                value: row.value,
                score: row.score,
                rule_version: row.rule_version.unwrap_or_default(),
                model_version: row.model_version,
            },
            state: parse(row.state.as_deref().unwrap_or_default()),
            found_us: us(row.found_at).unwrap_or_default(),
            withdrawn_us: us(row.withdrawn_at),
            shelved_until_us: us(row.shelved_until),
            acked: us(row.acked_at).zip(row.acked_by),
        }
    }
}

/// Three questions, so that each has its index: a rule may have raised thousands of alarms.
const STORED: &str = "
WITH n AS (SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) AS n (rule_id, after, open)),
found AS (
    SELECT a.id FROM n JOIN alarm a ON a.rule_id = n.rule_id AND a.raised_at > n.after
    UNION
    SELECT a.id FROM n JOIN alarm a ON a.id = n.open AND a.rule_id = n.rule_id
    UNION
    SELECT a.id FROM n JOIN alarm a ON a.rule_id = n.rule_id AND a.state <> 'normal' AND a.withdrawn_at IS NULL)
SELECT a.rule_id, a.id, a.raised_at, a.cleared_at, a.value, a.score, a.rule_version, a.model_version, a.state,
    a.found_at, a.withdrawn_at, a.shelved_until, a.acked_at, a.acked_by
FROM found f JOIN alarm a ON a.id = f.id WHERE a.raised_at IS NOT NULL";

/// The alarms of rules that may change, by rule.
pub(super) async fn stored(
    tx: &mut TenantTx,
    reaches: &[(Uuid, Reach)],
) -> Result<BTreeMap<Uuid, Vec<Row>>, TenancyError> {
    let ids: Vec<Uuid> = reaches.iter().map(|(id, _)| *id).collect();
    let after: Vec<DateTime<Utc>> = reaches
        .iter()
        .map(|(_, reach)| time_from_us(reach.after_us))
        .collect();
    let open: Vec<Option<Uuid>> = reaches.iter().map(|(_, reach)| reach.open).collect();
    let rows: Vec<StoredRow> = sqlx::query_as(STORED)
        .bind(ids)
        .bind(after)
        .bind(open)
        .fetch_all(tx.conn())
        .await?;
    let mut by_rule: BTreeMap<Uuid, Vec<Row>> = BTreeMap::new();
    for row in rows {
        by_rule.entry(row.rule_id).or_default().push(row.into());
    }
    Ok(by_rule)
}

const ACKS: &str = "
SELECT x.rule_id, x.alarm_id, x.at, x.actor FROM unnest($1::uuid[]) AS n (rule_id)
CROSS JOIN LATERAL (SELECT a.rule_id, a.alarm_id, a.at, a.actor, a.id FROM alarm_action a
    WHERE a.rule_id = n.rule_id AND a.verb IN ('acknowledge', 'reset') ORDER BY a.at DESC, a.id DESC LIMIT 1000) x
ORDER BY x.at, x.id";

/// The acknowledgements and resets of rules, by rule, oldest first.
pub(super) async fn acks(
    tx: &mut TenantTx,
    rules: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<Ack>>, TenancyError> {
    let mut by_rule: BTreeMap<Uuid, Vec<Ack>> = BTreeMap::new();
    if rules.is_empty() {
        return Ok(by_rule);
    }
    let rows: Vec<(Uuid, Uuid, DateTime<Utc>, String)> =
        sqlx::query_as(ACKS).bind(rules).fetch_all(tx.conn()).await?;
    for (rule_id, alarm_id, at, by) in rows {
        by_rule.entry(rule_id).or_default().push(Ack {
            alarm_id,
            at_us: at.timestamp_micros(),
            by,
        });
    }
    Ok(by_rule)
}

// === what changes ===

#[derive(Serialize)]
struct NewRow<'a> {
    id: Uuid,
    line_id: Option<Uuid>,
    code: &'a str,
    subject: &'a str,
    message: &'a str,
    raised_at: DateTime<Utc>,
    cleared_at: Option<DateTime<Utc>>,
    state: &'static str,
    state_at: DateTime<Utc>,
    is_active: bool,
    priority: i16,
    rule_id: Uuid,
    rule_version: i32,
    model_version: Option<i32>,
    value: Option<f64>,
    score: Option<f64>,
    found_at: DateTime<Utc>,
    withdrawn_at: Option<DateTime<Utc>>,
    shelved_until: Option<DateTime<Utc>>,
    acked_at: Option<DateTime<Utc>>,
    acked_by: Option<&'a str>,
}

impl<'a> NewRow<'a> {
    fn of(rule: &'a Loaded, row: &'a Row, now_us: Micros) -> Self {
        let (occurrence, time) = (&row.occurrence, |us: Option<Micros>| us.map(time_from_us));
        Self {
            id: occurrence.id,
            line_id: rule.line_id,
            code: &rule.rule.code,
            subject: &rule.rule.tag_name,
            message: &rule.rule.name,
            raised_at: time_from_us(occurrence.raised_us),
            cleared_at: time(occurrence.cleared_us),
            state: name(row.state),
            state_at: time_from_us(now_us),
            is_active: occurrence.cleared_us.is_none() && row.withdrawn_us.is_none(),
            priority: rule.rule.priority,
            rule_id: rule.id(),
            rule_version: occurrence.rule_version,
            model_version: occurrence.model_version,
            value: occurrence.value,
            score: occurrence.score,
            found_at: time_from_us(row.found_us),
            withdrawn_at: time(row.withdrawn_us),
            shelved_until: time(row.shelved_until_us),
            acked_at: time(row.acked.as_ref().map(|(at_us, _)| *at_us)),
            acked_by: row.acked.as_ref().map(|(_, by)| by.as_str()),
        }
    }
}

const WRITE: &str = "
INSERT INTO alarm AS a (id, edge_id, line_id, code, subject, message, raised_at, cleared_at, state, state_at, is_active,
    priority, rule_id, rule_version, model_version, value, score, found_at, withdrawn_at, shelved_until, acked_at, acked_by)
SELECT n.id, NULL, n.line_id, n.code, n.subject, n.message, n.raised_at, n.cleared_at, n.state, n.state_at, n.is_active,
    n.priority, n.rule_id, n.rule_version, n.model_version, n.value, n.score, n.found_at, n.withdrawn_at,
    n.shelved_until, n.acked_at, n.acked_by
FROM jsonb_to_recordset($1) AS n (id uuid, line_id uuid, code text, subject text, message text, raised_at timestamptz,
    cleared_at timestamptz, state text, state_at timestamptz, is_active boolean, priority int2, rule_id uuid,
    rule_version int, model_version int, value float8, score float8, found_at timestamptz, withdrawn_at timestamptz,
    shelved_until timestamptz, acked_at timestamptz, acked_by text)
ON CONFLICT (id) DO UPDATE SET cleared_at = excluded.cleared_at, state = excluded.state, state_at = excluded.state_at,
    is_active = excluded.is_active, value = excluded.value, score = excluded.score,
    rule_version = excluded.rule_version, model_version = excluded.model_version, withdrawn_at = excluded.withdrawn_at,
    shelved_until = excluded.shelved_until, acked_at = excluded.acked_at, acked_by = excluded.acked_by,
    version = a.version + 1
WHERE a.rule_id = excluded.rule_id";

#[derive(Serialize)]
struct NewEntry<'a> {
    place: usize,
    rule_id: Uuid,
    alarm_id: Uuid,
    line_id: Option<Uuid>,
    code: &'a str,
    subject: &'a str,
    at: DateTime<Utc>,
    found_at: DateTime<Utc>,
    from_state: Option<&'static str>,
    to_state: &'static str,
    cause: &'static str,
    actor: Option<&'a str>,
    priority: i16,
    value: Option<f64>,
}

const ENTER: &str = "
INSERT INTO alarm_entry (rule_id, alarm_id, line_id, code, subject, at, found_at, from_state, to_state, cause, actor,
    priority, value)
SELECT n.rule_id, n.alarm_id, n.line_id, n.code, n.subject, n.at, n.found_at, n.from_state, n.to_state, n.cause,
    n.actor, n.priority, n.value
FROM jsonb_to_recordset($1) AS n (place int, rule_id uuid, alarm_id uuid, line_id uuid, code text, subject text,
    at timestamptz, found_at timestamptz, from_state text, to_state text, cause text, actor text, priority int2,
    value float8)
ORDER BY n.place";

/// Writes rows and their entries.
pub(super) async fn write(
    tx: &mut TenantTx,
    changes: &[(&Loaded, Change)],
    now_us: Micros,
) -> Result<(), TenancyError> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows: Vec<NewRow<'_>> = changes
        .iter()
        .map(|(rule, change)| NewRow::of(rule, &change.row, now_us))
        .collect();
    sqlx::query(WRITE).bind(Json(rows)).execute(tx.conn()).await?;
    let mut entries: Vec<NewEntry<'_>> = Vec::new();
    for (rule, change) in changes {
        let row = &change.row;
        for (cause, at_us, from) in &change.entries {
            let actor = row.acked.as_ref().filter(|_| *cause == Cause::Action);
            entries.push(NewEntry {
                place: entries.len(),
                rule_id: rule.id(),
                alarm_id: row.occurrence.id,
                line_id: rule.line_id,
                code: &rule.rule.code,
                subject: &rule.rule.tag_name,
                at: time_from_us(*at_us),
                found_at: time_from_us(now_us),
                from_state: from.map(name),
                to_state: name(row.state),
                cause: cause.as_str(),
                actor: actor.map(|(_, by)| by.as_str()),
                priority: rule.rule.priority,
                value: row.occurrence.value,
            });
        }
    }
    sqlx::query(ENTER).bind(Json(entries)).execute(tx.conn()).await?;
    Ok(())
}

/// What is told of the changes: the alarms as they are now, and whether one of them began or was withdrawn, which
/// stands in the audit chain.
pub(super) async fn say(
    tx: &mut TenantTx,
    changes: &[(&Loaded, Change)],
) -> Result<(Vec<Alarm>, bool), TenancyError> {
    if changes.is_empty() {
        return Ok((vec![], false));
    }
    let ids: Vec<Uuid> = changes.iter().map(|(_, it)| it.row.occurrence.id).collect();
    let found = list::find_all(tx, &ids).await?;
    let mut by_id: HashMap<Uuid, Alarm> = found.into_iter().map(|alarm| (alarm.id, alarm)).collect();
    let (mut said, mut is_news) = (Vec::with_capacity(changes.len()), false);
    for (_, change) in changes {
        let id = change.row.occurrence.id;
        let Some(alarm) = by_id.remove(&id) else { continue };
        for (cause, ..) in &change.entries {
            match cause {
                Cause::Raised => {
                    tx.audit(&Deed::on("raise", "alarm", id).after(&alarm));
                    tx.event(&NewEvent::new("AnomalyDetected", "alarm", id, json!(alarm)));
                }
                Cause::Withdrawn => tx.audit(&Deed::on("withdraw", "alarm", id).after(&alarm)),
                _ => continue,
            }
            is_news = true;
        }
        said.push(alarm);
    }
    Ok((said, is_news))
}
