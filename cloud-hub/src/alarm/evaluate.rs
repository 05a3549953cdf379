//! How are rules judged in the database? Many in one transaction with what they say, each from its last mark before the
//! earliest reading that arrived. A lock a rule lets several hubs share the work; identities derived from rule and time
//! would keep them from saying it twice even without.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use protocol::Micros;
use serde_json::json;
use uuid::Uuid;

use super::{
    duty::Judged,
    judge::{Deed, Event, Judge, Mark, Occurrence, Replay},
    list::Alarm,
    load::{Loaded, deeds, load},
    marks::{self, Made},
    models::Models,
    readings::Readings,
    settle::{Change, Reach, settle},
    watch::Input,
    write::{acks, say, stored, write},
};
use crate::{
    app::App,
    kernel::{
        audit::Actor,
        clock::time_from_us,
        tenancy::{TenancyError, TenantSlug, TenantTx},
    },
    series::bus::LiveKind,
};

/// Readings dated later than this are judged when their time has come.
pub(super) const AHEAD_US_MAX: Micros = 60_000_000;

/// Judges rules together, all that no other hub is at.
///
/// # Errors
/// [`TenancyError`]; nothing was judged then.
pub(super) async fn evaluate(
    app: &App,
    tenant: &TenantSlug,
    rules: &[Uuid],
    models: &Models,
) -> Result<Judged, TenancyError> {
    let mut tx = app.db.begin_as(tenant, Actor::Hub { duty: "alarms" }).await?;
    let locked = try_lock(&mut tx, rules).await?;
    let now_us = app.clock.now_us();
    let loaded = load(&mut tx, &locked, now_us, models).await?;
    let due = Due::load(&mut tx, &locked, now_us).await?;
    let verdicts = judge(&mut tx, &loaded, &due, now_us).await?;
    let (changes, made, rest) = compare(&mut tx, &loaded, verdicts, now_us).await?;
    marks::keep(&mut tx, &made).await?;
    write(&mut tx, &changes, now_us).await?;
    due.settle(&mut tx, &rest).await?;
    let (said, is_news) = say(&mut tx, &changes).await?;
    let judged = Judged {
        rules: loaded.len(),
        changed: changes.len(),
        elsewhere: rules.len() - locked.len(),
        left: rest.len(),
    };
    if is_news {
        tx.commit().await?;
    } else {
        tx.commit_unaudited("alarms follow from readings, which are records of their own")
            .await?;
    }
    for alarm in said {
        publish(app, tenant, &alarm);
    }
    Ok(judged)
}

/// Tells live pages of an alarm.
pub(super) fn publish(app: &App, tenant: &TenantSlug, alarm: &Alarm) {
    let kind = LiveKind::Alarm {
        line_id: alarm.line_id,
        alarm: std::sync::Arc::new(json!(alarm)),
    };
    app.live.publish(tenant, app.clock.now_us(), kind);
}

/// Those of the rules that nobody else judges or acts on now.
async fn try_lock(tx: &mut TenantTx, rules: &[Uuid]) -> Result<Vec<Uuid>, TenancyError> {
    Ok(sqlx::query_scalar(
        "SELECT n.id FROM unnest($1::uuid[]) AS n (id) \
         WHERE pg_try_advisory_xact_lock(hashtextextended('alarm ' || n.id, 0))",
    )
    .bind(rules)
    .fetch_all(tx.conn())
    .await?)
}

/// As the judging of a rule takes it: whoever acts on its alarms waits for it.
pub(super) async fn lock(tx: &mut TenantTx, rule_id: Uuid) -> Result<(), TenancyError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('alarm ' || $1, 0))")
        .bind(rule_id.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

// === what is due ===

struct Due {
    ids: Vec<i64>,
    /// From where on, by rule.
    from_us: BTreeMap<Uuid, Micros>,
}

impl Due {
    async fn load(tx: &mut TenantTx, rules: &[Uuid], now_us: Micros) -> Result<Self, TenancyError> {
        let rows: Vec<(i64, Uuid, DateTime<Utc>)> = sqlx::query_as(
            "SELECT id, rule_id, from_at FROM alarm_due WHERE rule_id = ANY($1) AND from_at <= $2",
        )
        .bind(rules)
        .bind(time_from_us(now_us + AHEAD_US_MAX))
        .fetch_all(tx.conn())
        .await?;
        let mut from_us: BTreeMap<Uuid, Micros> = BTreeMap::new();
        for (_, rule_id, from) in &rows {
            let us = from.timestamp_micros();
            let first = from_us.entry(*rule_id).or_insert(us);
            *first = us.min(*first);
        }
        let ids = rows.into_iter().map(|(id, ..)| id).collect();
        Ok(Self { ids, from_us })
    }

    /// Takes off what was judged, and notes the rest.
    async fn settle(self, tx: &mut TenantTx, rest: &[(Uuid, Micros)]) -> Result<(), TenancyError> {
        if !self.ids.is_empty() {
            sqlx::query("DELETE FROM alarm_due WHERE id = ANY($1)")
                .bind(self.ids)
                .execute(tx.conn())
                .await?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let (rules, from): (Vec<Uuid>, Vec<DateTime<Utc>>) = rest
            .iter()
            .map(|(id, from_us)| (*id, time_from_us(*from_us)))
            .unzip();
        sqlx::query(
            "INSERT INTO alarm_due (rule_id, from_at) SELECT * FROM unnest($1::uuid[], $2::timestamptz[])",
        )
        .bind(rules)
        .bind(from)
        .execute(tx.conn())
        .await?;
        Ok(())
    }
}

// === what is found ===

/// What one rule's readings come to.
struct Verdict {
    reach: Reach,
    marks: Vec<Mark>,
    judge: Judge,
    found: Vec<Occurrence>,
    /// There is more to judge after this time.
    cut_us: Option<Micros>,
}

/// Judges each rule from its mark on, in the order of the rules.
async fn judge(
    tx: &mut TenantTx,
    loaded: &[Loaded],
    due: &Due,
    now_us: Micros,
) -> Result<Vec<Verdict>, TenancyError> {
    let marks = marks::before(tx, loaded, &due.from_us).await?;
    let placed = loaded
        .iter()
        .zip(&marks)
        .map(|(rule, mark)| (&rule.rule, mark.at_us));
    let mut deeds = deeds(tx, placed).await?;
    let mut wanted: BTreeMap<i32, Micros> = BTreeMap::new();
    for (rule, mark) in loaded.iter().zip(&marks) {
        for tag in &rule.tags {
            let after = wanted.entry(*tag).or_insert(mark.at_us);
            *after = mark.at_us.min(*after);
        }
    }
    let readings = Readings::load(tx, &wanted, now_us + AHEAD_US_MAX).await?;
    let mut verdicts = Vec::with_capacity(loaded.len());
    for (rule, mark) in loaded.iter().zip(marks) {
        let (inputs, cut_us) = readings.of(&rule.tags, mark.at_us);
        let deeds = deeds.remove(&rule.id()).unwrap_or_default();
        verdicts.push(replay(rule, mark, inputs, deeds, cut_us, now_us));
        // A day's readings take a while; others want this thread too.
        tokio::task::yield_now().await;
    }
    Ok(verdicts)
}

/// Judges one rule. Where its readings were cut, so is what people did and what time brings: that comes with the rest.
fn replay(
    rule: &Loaded,
    mark: Mark,
    inputs: Vec<Input>,
    deeds: Vec<Deed>,
    cut_us: Option<Micros>,
    now_us: Micros,
) -> Verdict {
    let reach = Reach {
        after_us: mark.at_us,
        until_us: cut_us.unwrap_or(Micros::MAX),
        open: mark.judge.open().map(|open| open.id),
    };
    let mut deeds = deeds
        .into_iter()
        .filter(|deed| deed.action.at_us <= reach.until_us)
        .peekable();
    let mut replay = Replay::from(&rule.timeline, mark);
    for input in inputs {
        while let Some(deed) = deeds.next_if(|deed| deed.action.at_us < input.time_us) {
            replay.take(&Event::Deed(deed));
        }
        replay.take(&Event::Reading(input));
    }
    deeds.for_each(|deed| replay.take(&Event::Deed(deed)));
    let (marks, judge, found) = replay.finish(now_us.min(reach.until_us));
    Verdict {
        reach,
        marks,
        judge,
        found: found.occurrences,
        cut_us,
    }
}

type Compared<'l> = (Vec<(&'l Loaded, Change)>, Vec<Made>, Vec<(Uuid, Micros)>);

/// What changes against what is stored; the marks to keep; what is left to be judged.
async fn compare<'l>(
    tx: &mut TenantTx,
    loaded: &'l [Loaded],
    verdicts: Vec<Verdict>,
    now_us: Micros,
) -> Result<Compared<'l>, TenancyError> {
    let reaches: Vec<(Uuid, Reach)> = loaded
        .iter()
        .zip(&verdicts)
        .map(|(rule, verdict)| (rule.id(), verdict.reach))
        .collect();
    let mut stored = stored(tx, &reaches).await?;
    let found = loaded
        .iter()
        .zip(&verdicts)
        .filter(|(_, it)| !it.found.is_empty());
    let told: BTreeSet<Uuid> = found
        .map(|(rule, _)| rule.id())
        .chain(stored.keys().copied())
        .collect();
    let acks = acks(tx, &Vec::from_iter(told)).await?;
    let (mut changes, mut made, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for (rule, verdict) in loaded.iter().zip(verdicts) {
        let (id, reach) = (rule.id(), verdict.reach);
        let before = stored.remove(&id).unwrap_or_default();
        let acks = acks.get(&id).map_or(&[][..], Vec::as_slice);
        let changed = settle(&before, &verdict.found, reach, &verdict.judge, acks, now_us);
        changes.extend(changed.into_iter().map(|change| (rule, change)));
        rest.extend(verdict.cut_us.map(|cut_us| (id, cut_us + 1)));
        made.push(Made {
            rule_id: id,
            after_us: reach.after_us,
            marks: verdict.marks,
        });
    }
    Ok((changes, made, rest))
}
