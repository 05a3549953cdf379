//! What were the true times of what an edge recorded before its clock was set? Frames that were sealed unsynchronised
//! are kept as they came; once the edge says by how much its clock was wrong, exactly their rows are moved, whether
//! they were stored before or arrive after. A reading that bears its source's own time is left alone.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use protocol::{
    Micros, Reading,
    envelope::payload_crc,
    event::Event,
    frame::Frame,
    lane::Lane,
    limit::Deviation,
    topic::{Channel, Topic},
};
use serde_json::json;
use sqlx::FromRow;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    app::App,
    ingest::{is_possible, is_stamped_here},
    kernel::{
        audit::{Actor, Deed},
        clock::time_from_us,
        tenancy::{Db, TenancyError, TenantSlug, TenantTx},
    },
    tenant::provision,
};

const TURN: Duration = Duration::from_secs(10);
/// Frames that are corrected in one transaction.
const FRAMES_AT_ONCE: i64 = 16;
/// A clock that was not synchronised for longer is not corrected further back.
const KEPT_DAYS: i64 = 7;

/// Runs until `stop` is cancelled.
pub async fn run(app: App, stop: CancellationToken) {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        let tenants = match provision::tenant_slugs(&app.db).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(%error, "the correction of clocks waits for the database");
                continue;
            }
        };
        for tenant in tenants {
            let now = app.clock.now();
            if let Err(error) = settle(&app.db, &tenant, now, &stop).await {
                tracing::warn!(%tenant, %error, "times could not be corrected");
            }
        }
    }
}

async fn settle(
    db: &Db,
    tenant: &TenantSlug,
    now: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<(), TenancyError> {
    while !stop.is_cancelled() && correct_some(db, tenant, now).await? > 0 {}
    while !stop.is_cancelled() && forget_some(db, tenant, now).await? > 0 {}
    Ok(())
}

/// A frame that waits, and by how much its clock was wrong.
#[derive(Debug, FromRow)]
struct Waiting {
    edge_id: Uuid,
    edge: String,
    boot: Uuid,
    lane: i16,
    seq: i64,
    payload: Vec<u8>,
    by_us: i64,
}

const DUE: &str = "
SELECT f.edge_id, e.name AS edge, f.boot, f.lane, f.seq, f.payload, s.correction_us AS by_us
FROM clock_step s
JOIN unsynced_frame f ON f.edge_id = s.edge_id AND f.boot = s.boot
    AND f.sealed_at <= s.at - s.by_us * interval '1 microsecond'
JOIN edge e ON e.id = f.edge_id
WHERE s.correction_us <> 0
ORDER BY s.edge_id, s.boot, s.seq, s.place, f.lane, f.seq LIMIT $1 FOR UPDATE OF f SKIP LOCKED";

/// Corrects some frames of a tenant; says how many. 0: none is left.
///
/// # Errors
/// When the database does not answer.
pub async fn correct_some(db: &Db, tenant: &TenantSlug, now: DateTime<Utc>) -> Result<usize, TenancyError> {
    let mut tx = db
        .begin_as(
            tenant,
            Actor::Hub {
                duty: "clock correction",
            },
        )
        .await?;
    let due: Vec<Waiting> = sqlx::query_as(DUE)
        .bind(FRAMES_AT_ONCE)
        .fetch_all(tx.conn())
        .await?;
    if due.is_empty() {
        return Ok(0);
    }
    let mut done: HashMap<(Uuid, Uuid, i64), (usize, i64)> = HashMap::new();
    let count = due.len();
    for frame in due {
        if !take(&mut tx, &frame).await? {
            continue;
        }
        let moved = move_frame(&mut tx, &frame, now).await?;
        let sum = done.entry((frame.edge_id, frame.boot, frame.by_us)).or_default();
        *sum = (sum.0 + 1, sum.1 + moved);
    }
    for ((edge_id, boot, by_us), (frames, readings)) in done {
        let after = json!({ "boot": boot, "by_us": by_us, "frames": frames, "readings": readings });
        tx.audit(&Deed::on("correct_clock", "edge", edge_id).after(after));
    }
    tx.commit().await?;
    Ok(count)
}

/// Takes the frame out of those that wait; false when it is gone already.
async fn take(tx: &mut TenantTx, frame: &Waiting) -> Result<bool, TenancyError> {
    let taken =
        sqlx::query("DELETE FROM unsynced_frame WHERE edge_id = $1 AND boot = $2 AND lane = $3 AND seq = $4")
            .bind(frame.edge_id)
            .bind(frame.boot)
            .bind(frame.lane)
            .bind(frame.seq)
            .execute(tx.conn())
            .await?;
    Ok(taken.rows_affected() > 0)
}

async fn move_frame(tx: &mut TenantTx, waiting: &Waiting, now: DateTime<Utc>) -> Result<i64, TenancyError> {
    let now_us = now.timestamp_micros();
    let frame = match Frame::decode(&waiting.payload) {
        Ok(frame) if is_possible(frame.header.sealed_us.saturating_add(waiting.by_us), now_us) => frame,
        Ok(_) => {
            bury(
                tx,
                waiting,
                "the correction of its clock leads to an impossible time",
            )
            .await?;
            return Ok(0);
        }
        // It was read when it came; a newer program may have left it.
        Err(error) => {
            bury(tx, waiting, &error.to_string()).await?;
            return Ok(0);
        }
    };
    let sealed_us = frame.header.sealed_us;
    let stamped: Vec<&Reading> = frame
        .readings
        .iter()
        .filter(|reading| is_stamped_here(reading.time_us, sealed_us))
        .collect();
    let mapping = mapping(tx, waiting.edge_id, frame.header.dictionary).await?;
    let is_unknown = |reading: &&&Reading| !mapping.contains_key(&reading.tag.0.cast_signed());
    if let Some(reading) = stamped.iter().find(is_unknown) {
        let reason = format!("alias {} is not in the frame's dictionary", reading.tag.0);
        bury(tx, waiting, &reason).await?;
    }
    let moved = move_rows(tx, waiting, Stored::of(&frame, &stamped, &mapping)).await?;
    for event in &frame.events {
        move_event(tx, waiting, event, sealed_us).await?;
    }
    Ok(moved)
}

/// The rows of a frame that bear its clock's time, as they were stored.
#[derive(Debug, Default)]
struct Stored {
    tags: Vec<i32>,
    times: Vec<DateTime<Utc>>,
    values: Vec<Option<f64>>,
    qualities: Vec<i16>,
    ccps: Vec<String>,
    check_froms: Vec<DateTime<Utc>>,
    missed: Vec<i32>,
    missed_froms: Vec<DateTime<Utc>>,
}

impl Stored {
    fn of(frame: &Frame, stamped: &[&Reading], mapping: &HashMap<i32, i32>) -> Self {
        let tag = |alias: u32| mapping.get(&alias.cast_signed()).copied();
        let sealed_us = frame.header.sealed_us;
        let mut stored = Self::default();
        for reading in stamped {
            let Some(tag_id) = tag(reading.tag.0) else {
                continue;
            };
            stored.tags.push(tag_id);
            stored.times.push(time_from_us(reading.time_us));
            stored.values.push(reading.value());
            stored.qualities.push(reading.quality.to_i16());
        }
        for event in &frame.events {
            match event {
                Event::CcpCheck(check) if is_stamped_here(check.to_us, sealed_us) => {
                    stored.ccps.push(check.ccp.clone());
                    stored.check_froms.push(time_from_us(check.from_us));
                }
                Event::NotRead(not_read) if is_stamped_here(not_read.to_us, sealed_us) => {
                    for tag_id in not_read.tags.iter().filter_map(|alias| tag(alias.0)) {
                        stored.missed.push(tag_id);
                        stored.missed_froms.push(time_from_us(not_read.from_us));
                    }
                }
                _ => {}
            }
        }
        stored
    }
}

/// Rules are judged again from the earlier of where the readings were and where they are now.
async fn note_moved(tx: &mut TenantTx, waiting: &Waiting, stored: &Stored) -> Result<(), TenancyError> {
    let by = chrono::Duration::microseconds(waiting.by_us.min(0));
    let times: Vec<_> = stored
        .times
        .iter()
        .map(|time| time.checked_add_signed(by).unwrap_or(*time))
        .collect();
    sqlx::query("SELECT note_alarm_due($1, $2)")
        .bind(&stored.tags)
        .bind(times)
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn move_rows(tx: &mut TenantTx, waiting: &Waiting, stored: Stored) -> Result<i64, TenancyError> {
    note_moved(tx, waiting, &stored).await?;
    let moved =
        sqlx::query_scalar("SELECT correct_clock($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)")
            .bind(waiting.edge_id)
            .bind(waiting.boot)
            .bind(waiting.lane)
            .bind(waiting.seq)
            .bind(waiting.by_us)
            .bind(stored.tags)
            .bind(stored.times)
            .bind(stored.values)
            .bind(stored.qualities)
            .bind(stored.ccps)
            .bind(stored.check_froms)
            .bind(stored.missed)
            .bind(stored.missed_froms);
    Ok(moved.fetch_one(tx.conn()).await?)
}

async fn mapping(tx: &mut TenantTx, edge_id: Uuid, id: Uuid) -> Result<HashMap<i32, i32>, TenancyError> {
    let rows: Vec<(i32, i32)> = sqlx::query_as(
        "SELECT a.alias, a.tag_id FROM dictionary d, unnest(d.aliases, d.tag_ids) AS a (alias, tag_id) \
         WHERE d.edge_id = $1 AND d.id = $2",
    )
    .bind(edge_id)
    .bind(id)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().collect())
}

const MOVE_ALARM: &str = "
UPDATE alarm SET raised_at = CASE WHEN raised_at = $3 THEN raised_at + $4 * interval '1 microsecond' ELSE raised_at END,
    cleared_at = CASE WHEN cleared_at = $3 THEN cleared_at + $4 * interval '1 microsecond' ELSE cleared_at END,
    state_at = CASE WHEN state_at = $3 THEN state_at + $4 * interval '1 microsecond' ELSE state_at END
WHERE id = $1 AND edge_id = $2";

const MOVE_INSPECTION: &str = "
UPDATE vision_result SET taken_at = taken_at + $4 * interval '1 microsecond'
WHERE id = $1 AND edge_id = $2 AND taken_at = $3";

/// What else bears a time of that clock. The journal of alarms and manual entries go with their frame.
async fn move_event(
    tx: &mut TenantTx,
    waiting: &Waiting,
    event: &Event,
    sealed_us: Micros,
) -> Result<(), TenancyError> {
    let (sql, id, at_us) = match event {
        Event::Alarm(alarm) => (MOVE_ALARM, alarm.id, alarm.at_us),
        Event::AlarmChange(change) => (MOVE_ALARM, change.id, change.at_us),
        Event::Inspection(inspection) => (MOVE_INSPECTION, inspection.id, inspection.taken_us),
        Event::Deviation(said) if is_stamped_here(said.until_us.max(said.detected_us), sealed_us) => {
            return move_deviation(tx, waiting, said).await;
        }
        _ => return Ok(()),
    };
    if is_stamped_here(at_us, sealed_us) {
        sqlx::query(sql)
            .bind(id)
            .bind(waiting.edge_id)
            .bind(time_from_us(at_us))
            .bind(waiting.by_us)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// Ends of the window that this frame told are moved; one that a later frame told, by a better clock, stays. What is
/// suspect then is looked for again by the review of recent deviations.
async fn move_deviation(tx: &mut TenantTx, waiting: &Waiting, said: &Deviation) -> Result<(), TenancyError> {
    let moved: Option<(DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "UPDATE deviation d SET version = version + 1, \
           detected_at = CASE WHEN detected_at = $4 THEN detected_at + n.d ELSE detected_at END, \
           suspect = tstzrange(n.low, greatest(n.low, CASE WHEN upper(suspect) = $5 THEN upper(suspect) + n.d \
             ELSE upper(suspect) END), '[]') \
         FROM (SELECT $6 * interval '1 microsecond' AS d, $3 + $6 * interval '1 microsecond' AS low) n \
         WHERE d.id = $1 AND d.edge_id = $2 AND lower(d.suspect) = $3 RETURNING lower(d.suspect), d.detected_at",
    )
    .bind(said.id)
    .bind(waiting.edge_id)
    .bind(time_from_us(said.last_good_us))
    .bind(time_from_us(said.detected_us))
    .bind(time_from_us(said.until_us.max(said.last_good_us)))
    .bind(waiting.by_us)
    .fetch_optional(tx.conn())
    .await?;
    if let Some((from, detected)) = moved {
        let before = json!({ "window_from_us": said.last_good_us, "detected_us": said.detected_us });
        let after =
            json!({ "window_from_us": from.timestamp_micros(), "detected_us": detected.timestamp_micros() });
        tx.audit(
            &Deed::on("correct_clock", "deviation", said.id)
                .before(before)
                .after(after),
        );
    }
    Ok(())
}

// === what is never corrected ===

async fn bury(tx: &mut TenantTx, frame: &Waiting, reason: &str) -> Result<(), TenancyError> {
    let lane = u8::try_from(frame.lane)
        .ok()
        .and_then(lane_of)
        .unwrap_or(Lane::Live);
    let topic = Topic::new(tx.tenant().as_str(), &frame.edge, Channel::Up(lane)).to_string();
    sqlx::query(
        "INSERT INTO dead_letter (id, edge_name, topic, crc32c, payload, reason) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT DO NOTHING",
    )
    .bind(Uuid::now_v7())
    .bind(&frame.edge)
    .bind(topic)
    .bind(i64::from(payload_crc(&frame.payload)))
    .bind(&frame.payload)
    .bind(reason.chars().take(500).collect::<String>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn lane_of(number: u8) -> Option<Lane> {
    Lane::ALL.into_iter().find(|lane| lane.number() == number)
}

const OLD: &str = "
SELECT f.edge_id, e.name AS edge, f.boot, f.lane, f.seq, CASE WHEN f.misdated > 0 THEN f.payload ELSE '' END AS payload,
    0::bigint AS by_us
FROM unsynced_frame f JOIN edge e ON e.id = f.edge_id
WHERE f.received_at < $1 ORDER BY f.received_at LIMIT 256 FOR UPDATE OF f SKIP LOCKED";

/// Forgets frames whose clock was not corrected within seven days; readings that were never stored go where
/// everything goes that cannot be used, with the reason. Says how many.
///
/// # Errors
/// When the database does not answer.
pub async fn forget_some(db: &Db, tenant: &TenantSlug, now: DateTime<Utc>) -> Result<usize, TenancyError> {
    let mut tx = db.begin(tenant).await?;
    let old: Vec<Waiting> = sqlx::query_as(OLD)
        .bind(now - chrono::Duration::days(KEPT_DAYS))
        .fetch_all(tx.conn())
        .await?;
    if old.is_empty() {
        return Ok(0);
    }
    for frame in &old {
        if !frame.payload.is_empty() {
            bury(&mut tx, frame, "readings with an impossible time, of a clock that was not set right within seven days; check the clock of the edge").await?;
        }
        take(&mut tx, frame).await?;
    }
    tx.commit_unaudited("copies of frames that are stored; what was not is a dead letter now")
        .await?;
    Ok(old.len())
}
