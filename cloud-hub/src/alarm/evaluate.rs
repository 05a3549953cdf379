//! How is a rule judged in the database? From the last mark before the earliest reading that arrived, in one
//! transaction with what it says. A lock a rule lets several hubs share the work; identities derived from rule and time
//! would keep them from saying it twice even without.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use protocol::{Micros, Quality};
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    judge::{Event, Judge, Mark, Occurrence, Replay, Span},
    list::{self, Alarm},
    load::{Loaded, deeds, load},
    settle::{Ack, Cause, Change, Reach, Row, settle},
    state::{name, parse},
    watch::Input,
};
use crate::{
    app::App,
    kernel::{
        audit::{Actor, Deed},
        clock::time_from_us,
        event::NewEvent,
        tenancy::{TenancyError, TenantSlug, TenantTx},
    },
    series::bus::LiveKind,
};

/// Readings dated later than this are judged when their time has come.
const AHEAD_US_MAX: Micros = 60_000_000;
/// Readings of one turn; the rest is due at once.
const READINGS_MAX: usize = 500_000;
const MINUTES_KEPT_US: Micros = 15 * 60_000_000;
const HOURS_KEPT_US: Micros = 3 * 86_400_000_000;
const DAYS_KEPT_US: Micros = 35 * 86_400_000_000;

/// Judges one rule and says how many alarms changed; none when another hub is at it.
///
/// # Errors
/// [`TenancyError`].
pub(super) async fn evaluate(
    app: &App,
    tenant: &TenantSlug,
    rule_id: Uuid,
) -> Result<Option<usize>, TenancyError> {
    let mut tx = app.db.begin_as(tenant, Actor::Hub { duty: "alarms" }).await?;
    if !try_lock(&mut tx, rule_id).await? {
        return Ok(None);
    }
    let now_us = app.clock.now_us();
    let Some(loaded) = load(&mut tx, rule_id, now_us).await? else {
        return Ok(Some(0));
    };
    let due = due(&mut tx, rule_id, now_us).await?;
    let mark = mark_before(&mut tx, &loaded, due.from_us).await?;
    let reach = Reach {
        after_us: mark.at_us,
        open: mark.judge.open().map(|open| open.id),
    };
    let (marks, judge, found) = replay(&mut tx, &loaded, mark, now_us).await?;
    keep(&mut tx, rule_id, reach.after_us, &marks).await?;
    let stored = stored(&mut tx, rule_id, reach).await?;
    let acks = acks(&mut tx, rule_id).await?;
    let changes = settle(&stored, &found, reach, &judge, &acks, now_us);
    for change in &changes {
        write(&mut tx, &loaded, change, now_us).await?;
    }
    sqlx::query("DELETE FROM alarm_due WHERE id = ANY($1)")
        .bind(&due.ids)
        .execute(tx.conn())
        .await?;
    let said = say(&mut tx, &changes).await?;
    let is_news = said.iter().any(|(_, is_news)| *is_news);
    if is_news {
        tx.commit().await?;
    } else {
        tx.commit_unaudited("alarms follow from readings, which are records of their own")
            .await?;
    }
    for (alarm, _) in said {
        publish(app, tenant, &alarm);
    }
    Ok(Some(changes.len()))
}

/// Tells live pages of an alarm.
pub(super) fn publish(app: &App, tenant: &TenantSlug, alarm: &Alarm) {
    let kind = LiveKind::Alarm {
        line_id: alarm.line_id,
        alarm: std::sync::Arc::new(json!(alarm)),
    };
    app.live.publish(tenant, app.clock.now_us(), kind);
}

async fn try_lock(tx: &mut TenantTx, rule_id: Uuid) -> Result<bool, TenancyError> {
    Ok(
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('alarm ' || $1, 0))")
            .bind(rule_id.to_string())
            .fetch_one(tx.conn())
            .await?,
    )
}

/// As the judging of a rule takes it: whoever acts on its alarms waits for it.
pub(super) async fn lock(tx: &mut TenantTx, rule_id: Uuid) -> Result<(), TenancyError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('alarm ' || $1, 0))")
        .bind(rule_id.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

// === what is judged, and from where ===

struct Due {
    ids: Vec<i64>,
    from_us: Option<Micros>,
}

async fn due(tx: &mut TenantTx, rule_id: Uuid, now_us: Micros) -> Result<Due, TenancyError> {
    let rows: Vec<(i64, DateTime<Utc>)> =
        sqlx::query_as("SELECT id, from_at FROM alarm_due WHERE rule_id = $1 AND from_at <= $2")
            .bind(rule_id)
            .bind(time_from_us(now_us + AHEAD_US_MAX))
            .fetch_all(tx.conn())
            .await?;
    Ok(Due {
        from_us: rows.iter().map(|(_, from)| from.timestamp_micros()).min(),
        ids: rows.into_iter().map(|(id, _)| id).collect(),
    })
}

/// The newest mark before a time, or the newest; a fresh one from the rule's beginning when there is none.
async fn mark_before(
    tx: &mut TenantTx,
    loaded: &Loaded,
    before_us: Option<Micros>,
) -> Result<Mark, TenancyError> {
    let row: Option<(DateTime<Utc>, Vec<u8>)> = sqlx::query_as(
        "SELECT at, state FROM alarm_state WHERE rule_id = $1 AND ($2::timestamptz IS NULL OR at < $2) \
         ORDER BY at DESC LIMIT 1",
    )
    .bind(loaded.timeline.rule_id)
    .bind(before_us.map(time_from_us))
    .fetch_optional(tx.conn())
    .await?;
    let known = row.and_then(|(at, state)| Some((at.timestamp_micros(), postcard::from_bytes(&state).ok()?)));
    let first_us = loaded
        .timeline
        .versions
        .first()
        .map_or(Micros::MIN, |version| version.from_us);
    let (at_us, judge) = known.unwrap_or_else(|| (first_us - 1, Judge::new(loaded.name())));
    Ok(Mark {
        at_us,
        judge,
        span: Span::Head,
    })
}

type ReadingRow = (i32, DateTime<Utc>, Option<f64>, i16);

async fn replay(
    tx: &mut TenantTx,
    loaded: &Loaded,
    mark: Mark,
    now_us: Micros,
) -> Result<(Vec<Mark>, Judge, Vec<Occurrence>), TenancyError> {
    let after_us = mark.at_us;
    let mut deeds = deeds(tx, &loaded.rule, after_us).await?.into_iter().peekable();
    let mut replay = Replay::from(&loaded.timeline, mark);
    let mut rows = sqlx::query_as::<_, ReadingRow>(
        "SELECT tag_id, time, value, quality FROM reading WHERE tag_id = ANY($1) AND time > $2 AND time <= $3 \
         ORDER BY time, tag_id, quality, value LIMIT $4",
    )
    .bind(&loaded.tags)
    .bind(time_from_us(after_us))
    .bind(time_from_us(now_us + AHEAD_US_MAX))
    .bind(READINGS_MAX as i64)
    .fetch(tx.conn());
    let (mut count, mut last_us) = (0, after_us);
    while let Some((tag_id, time, value, quality)) = rows.try_next().await? {
        let time_us = time.timestamp_micros();
        while let Some(deed) = deeds.next_if(|deed| deed.action.at_us < time_us) {
            replay.take(&Event::Deed(deed));
        }
        replay.take(&Event::Reading(Input {
            tag_id,
            time_us,
            value,
            quality: Quality::from_i16(quality),
        }));
        (count, last_us) = (count + 1, time_us);
    }
    drop(rows);
    if count == READINGS_MAX {
        // The rest in a turn of its own; people's actions among it come there too.
        sqlx::query("INSERT INTO alarm_due (rule_id, from_at) VALUES ($1, $2)")
            .bind(loaded.timeline.rule_id)
            .bind(time_from_us(last_us))
            .execute(tx.conn())
            .await?;
    } else {
        deeds.for_each(|deed| replay.take(&Event::Deed(deed)));
    }
    let (marks, judge, found) = replay.finish(now_us);
    Ok((marks, judge, found.occurrences))
}

/// Keeps marks and forgets those after `after_us`, which are made anew, and those that are too old.
async fn keep(
    tx: &mut TenantTx,
    rule_id: Uuid,
    after_us: Micros,
    marks: &[Mark],
) -> Result<(), TenancyError> {
    let Some(head) = marks.last() else {
        return Ok(());
    };
    sqlx::query(
        "DELETE FROM alarm_state WHERE rule_id = $1 AND (at > $2 OR span = 0 OR (span = 1 AND at < $3) \
           OR (span = 2 AND at < $4) OR at < $5)",
    )
    .bind(rule_id)
    .bind(time_from_us(after_us))
    .bind(time_from_us(head.at_us - MINUTES_KEPT_US))
    .bind(time_from_us(head.at_us - HOURS_KEPT_US))
    .bind(time_from_us(head.at_us - DAYS_KEPT_US))
    .execute(tx.conn())
    .await?;
    let (mut times, mut spans, mut states) = (Vec::new(), Vec::new(), Vec::new());
    for mark in marks {
        // Marks in one place: the one that is kept longest.
        if times.last() == Some(&time_from_us(mark.at_us)) {
            continue;
        }
        let state = postcard::to_stdvec(&mark.judge).map_err(|error| sqlx::Error::Encode(error.into()))?;
        times.push(time_from_us(mark.at_us));
        spans.push(mark.span.number());
        states.push(state);
    }
    sqlx::query(
        "INSERT INTO alarm_state AS s (rule_id, at, span, state) \
         SELECT $1, n.at, n.span, n.state FROM unnest($2::timestamptz[], $3::int2[], $4::bytea[]) AS n (at, span, state) \
         ON CONFLICT (rule_id, at) DO UPDATE SET state = excluded.state, span = greatest(s.span, excluded.span)",
    )
    .bind(rule_id)
    .bind(times)
    .bind(spans)
    .bind(states)
    .execute(tx.conn())
    .await?;
    Ok(())
}

// === what is stored ===

#[derive(FromRow)]
struct StoredRow {
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

async fn stored(tx: &mut TenantTx, rule_id: Uuid, reach: Reach) -> Result<Vec<Row>, TenancyError> {
    let rows: Vec<StoredRow> = sqlx::query_as(
        "SELECT id, raised_at, cleared_at, value, score, rule_version, model_version, state, found_at, withdrawn_at, \
           shelved_until, acked_at, acked_by FROM alarm \
         WHERE rule_id = $1 AND raised_at IS NOT NULL \
           AND (raised_at > $2 OR id = $3 OR (state <> 'normal' AND withdrawn_at IS NULL))",
    )
    .bind(rule_id)
    .bind(time_from_us(reach.after_us))
    .bind(reach.open)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Row::from).collect())
}

async fn acks(tx: &mut TenantTx, rule_id: Uuid) -> Result<Vec<Ack>, TenancyError> {
    let rows: Vec<(Uuid, DateTime<Utc>, String)> = sqlx::query_as(
        "SELECT alarm_id, at, actor FROM (SELECT alarm_id, at, actor, id FROM alarm_action \
           WHERE rule_id = $1 AND verb IN ('acknowledge', 'reset') ORDER BY at DESC, id DESC LIMIT 1000) a \
         ORDER BY at, id",
    )
    .bind(rule_id)
    .fetch_all(tx.conn())
    .await?;
    let ack = |(alarm_id, at, by): (Uuid, DateTime<Utc>, String)| Ack {
        alarm_id,
        at_us: at.timestamp_micros(),
        by,
    };
    Ok(rows.into_iter().map(ack).collect())
}

const WRITE: &str = "
INSERT INTO alarm AS a (id, edge_id, line_id, code, subject, message, raised_at, cleared_at, state, state_at, is_active,
    priority, rule_id, rule_version, model_version, value, score, found_at, withdrawn_at, shelved_until, acked_at, acked_by)
VALUES ($1, NULL, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
ON CONFLICT (id) DO UPDATE SET cleared_at = excluded.cleared_at, state = excluded.state, state_at = excluded.state_at,
    is_active = excluded.is_active, value = excluded.value, score = excluded.score,
    rule_version = excluded.rule_version, model_version = excluded.model_version, withdrawn_at = excluded.withdrawn_at,
    shelved_until = excluded.shelved_until, acked_at = excluded.acked_at, acked_by = excluded.acked_by,
    version = a.version + 1
WHERE a.rule_id = excluded.rule_id";

const ENTRY: &str = "
INSERT INTO alarm_entry (rule_id, alarm_id, line_id, code, subject, at, found_at, from_state, to_state, cause, actor, priority, value)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// Writes a row and its entries.
pub(super) async fn write(
    tx: &mut TenantTx,
    loaded: &Loaded,
    change: &Change,
    now_us: Micros,
) -> Result<(), TenancyError> {
    let (row, occurrence, rule) = (&change.row, &change.row.occurrence, &loaded.rule);
    let time = |us: Option<Micros>| us.map(time_from_us);
    sqlx::query(WRITE)
        .bind(occurrence.id)
        .bind(loaded.line_id)
        .bind(&rule.code)
        .bind(&rule.tag_name)
        .bind(&rule.name)
        .bind(time_from_us(occurrence.raised_us))
        .bind(time(occurrence.cleared_us))
        .bind(name(row.state))
        .bind(time_from_us(now_us))
        .bind(occurrence.cleared_us.is_none() && row.withdrawn_us.is_none())
        .bind(rule.priority)
        .bind(loaded.timeline.rule_id)
        .bind(occurrence.rule_version)
        .bind(occurrence.model_version)
        .bind(occurrence.value)
        .bind(occurrence.score)
        .bind(time_from_us(row.found_us))
        .bind(time(row.withdrawn_us))
        .bind(time(row.shelved_until_us))
        .bind(row.acked.as_ref().map(|(at_us, _)| time_from_us(*at_us)))
        .bind(row.acked.as_ref().map(|(_, by)| by.clone()))
        .execute(tx.conn())
        .await?;
    for (cause, at_us, from) in &change.entries {
        let actor = row.acked.as_ref().filter(|_| *cause == Cause::Action);
        sqlx::query(ENTRY)
            .bind(loaded.timeline.rule_id)
            .bind(occurrence.id)
            .bind(loaded.line_id)
            .bind(&rule.code)
            .bind(&rule.tag_name)
            .bind(time_from_us(*at_us))
            .bind(time_from_us(now_us))
            .bind(from.map(name))
            .bind(name(row.state))
            .bind(cause.as_str())
            .bind(actor.map(|(_, by)| by.clone()))
            .bind(rule.priority)
            .bind(occurrence.value)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// What is told of the changes: the alarms as they are now, and whether one began or was withdrawn, which stands in
/// the audit chain.
async fn say(tx: &mut TenantTx, changes: &[Change]) -> Result<Vec<(Alarm, bool)>, TenancyError> {
    let mut said = Vec::with_capacity(changes.len());
    for change in changes {
        let id = change.row.occurrence.id;
        let Some(alarm) = list::find(tx, id).await? else {
            continue;
        };
        let mut is_news = false;
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
        said.push((alarm, is_news));
    }
    Ok(said)
}
