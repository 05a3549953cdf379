//! Where did the judging of rules stand, and where does it stand now? Marks of many rules, read and kept together.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use protocol::Micros;
use uuid::Uuid;

use super::{
    judge::{Judge, Mark, Span},
    load::Loaded,
};
use crate::kernel::{
    clock::time_from_us,
    tenancy::{TenancyError, TenantTx},
};

const MINUTES_KEPT_US: Micros = 15 * 60_000_000;
const HOURS_KEPT_US: Micros = 3 * 86_400_000_000;
const DAYS_KEPT_US: Micros = 35 * 86_400_000_000;

const BEFORE: &str = "
SELECT n.rule_id, m.at, m.state FROM unnest($1::uuid[], $2::timestamptz[]) AS n (rule_id, before)
CROSS JOIN LATERAL (SELECT s.at, s.state FROM alarm_state s
    WHERE s.rule_id = n.rule_id AND s.at < coalesce(n.before, 'infinity') ORDER BY s.at DESC LIMIT 1) m";

/// Each rule's newest mark before the time from which on it is due, or its newest; a fresh one from the rule's beginning
/// when there is none. In the order of the rules.
pub(super) async fn before(
    tx: &mut TenantTx,
    rules: &[Loaded],
    due_us: &BTreeMap<Uuid, Micros>,
) -> Result<Vec<Mark>, TenancyError> {
    let ids: Vec<Uuid> = rules.iter().map(Loaded::id).collect();
    let times: Vec<Option<DateTime<Utc>>> = ids
        .iter()
        .map(|id| due_us.get(id).map(|us| time_from_us(*us)))
        .collect();
    let rows: Vec<(Uuid, DateTime<Utc>, Vec<u8>)> = sqlx::query_as(BEFORE)
        .bind(&ids)
        .bind(times)
        .fetch_all(tx.conn())
        .await?;
    let mut known: HashMap<Uuid, (Micros, Judge)> = rows
        .into_iter()
        .filter_map(|(id, at, state)| Some((id, (at.timestamp_micros(), postcard::from_bytes(&state).ok()?))))
        .collect();
    let mark = |rule: &Loaded| {
        let (at_us, judge) = known.remove(&rule.id()).unwrap_or_else(|| {
            let first = rule.timeline.versions.first();
            let first_us = first.map_or(Micros::MIN, |version| version.from_us);
            (first_us - 1, Judge::new(rule.name()))
        });
        Mark {
            at_us,
            judge,
            span: Span::Head,
        }
    };
    Ok(rules.iter().map(mark).collect())
}

/// The marks that one rule's judging made.
#[derive(Debug)]
pub(super) struct Made {
    /// The rule.
    pub(super) rule_id: Uuid,
    /// It was judged from here on.
    pub(super) after_us: Micros,
    /// To be kept, the newest last.
    pub(super) marks: Vec<Mark>,
}

impl Made {
    /// Whether nothing was taken in: the mark that it began from stands.
    fn is_still(&self) -> bool {
        matches!(&self.marks[..], [only] if only.at_us == self.after_us)
    }
}

/// Marks after the one that judging began from are made anew; the newest is always at the end.
const FORGET: &str = "
DELETE FROM alarm_state s USING unnest($1::uuid[], $2::timestamptz[]) AS n (rule_id, after)
WHERE s.rule_id = n.rule_id AND s.at >= n.after AND (s.at > n.after OR s.span = 0)";

const AGE: &str = "
DELETE FROM alarm_state s USING unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
    AS n (rule_id, minutes, hours, days)
WHERE s.rule_id = n.rule_id AND ((s.span = 1 AND s.at < n.minutes) OR (s.span = 2 AND s.at < n.hours) OR s.at < n.days)";

const KEEP: &str = "
INSERT INTO alarm_state AS s (rule_id, at, span, state)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int2[], $4::bytea[])
ON CONFLICT (rule_id, at) DO UPDATE SET state = excluded.state, span = greatest(s.span, excluded.span)";

/// Keeps marks, and forgets those that are made anew and those that are too old.
pub(super) async fn keep(tx: &mut TenantTx, made: &[Made]) -> Result<(), TenancyError> {
    let moved: Vec<&Made> = made.iter().filter(|made| !made.is_still()).collect();
    if moved.is_empty() {
        return Ok(());
    }
    let rules: Vec<Uuid> = moved.iter().map(|made| made.rule_id).collect();
    let after: Vec<DateTime<Utc>> = moved.iter().map(|made| time_from_us(made.after_us)).collect();
    sqlx::query(FORGET)
        .bind(rules)
        .bind(after)
        .execute(tx.conn())
        .await?;
    age(tx, &moved).await?;
    let (mut ids, mut times, mut spans, mut states) = (vec![], vec![], vec![], vec![]);
    for made in moved {
        let mut last = None;
        for mark in &made.marks {
            // Marks in one place: the one that is kept longest.
            if last.replace(mark.at_us) == Some(mark.at_us) {
                continue;
            }
            let state =
                postcard::to_stdvec(&mark.judge).map_err(|error| sqlx::Error::Encode(error.into()))?;
            ids.push(made.rule_id);
            times.push(time_from_us(mark.at_us));
            spans.push(mark.span.number());
            states.push(state);
        }
    }
    sqlx::query(KEEP)
        .bind(ids)
        .bind(times)
        .bind(spans)
        .bind(states)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Only a rule that came into another minute has a mark that grew too old.
async fn age(tx: &mut TenantTx, moved: &[&Made]) -> Result<(), TenancyError> {
    let older = moved.iter().filter(|made| made.marks.len() > 1);
    let (mut ids, mut minutes, mut hours, mut days) = (vec![], vec![], vec![], vec![]);
    for made in older {
        let Some(head) = made.marks.last() else { continue };
        ids.push(made.rule_id);
        minutes.push(time_from_us(head.at_us - MINUTES_KEPT_US));
        hours.push(time_from_us(head.at_us - HOURS_KEPT_US));
        days.push(time_from_us(head.at_us - DAYS_KEPT_US));
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(AGE)
        .bind(ids)
        .bind(minutes)
        .bind(hours)
        .bind(days)
        .execute(tx.conn())
        .await?;
    Ok(())
}
