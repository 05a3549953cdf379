//! An edge found a control point out of control: record it and hold what is suspect, in one transaction.
//!
//! The same deviation is told several times (opened, extended, closed, and each again after a lost
//! acknowledgement). Every telling may add lots to the hold; none removes one, and none reopens it.

use chrono::{DateTime, Utc};
use protocol::limit::{Deviation, DeviationKind, Phase};
use serde_json::json;
use uuid::Uuid;

use super::hold::{self, HeldProduct};
use crate::{
    fsq::domain::suspect::Window,
    kernel::{
        audit::{Actor, Deed},
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
        event::NewEvent,
    },
};

/// The control point that a deviation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPoint {
    /// Row id.
    pub id: Uuid,
    /// Its code, `CCP-1`.
    pub code: String,
    /// The line it is on.
    pub line_id: Uuid,
    /// Where product passes it, when known.
    pub equipment_id: Option<Uuid>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The deviation's id.
    pub deviation_id: Uuid,
    /// Its row version now.
    pub version: i32,
    /// Its line.
    pub line_id: Uuid,
    /// The hold, when there is product to hold.
    pub hold: Option<HeldProduct>,
}

const UPSERT: &str = "
INSERT INTO deviation AS d (id, ccp_id, kind, status, suspect, detected_at, value_extreme, limit_low,
    limit_high, limit_version, edge_id)
VALUES ($1, $2, $3, $4, tstzrange($5, CASE WHEN $4 = 'closed' THEN $6::timestamptz END, '[]'), $7, $8, $9, $10,
    $11, $12)
ON CONFLICT (id) DO UPDATE SET
    version = d.version + 1,
    kind = CASE WHEN excluded.kind = 'limit' THEN excluded.kind ELSE d.kind END,
    status = CASE WHEN d.status = 'closed' THEN d.status ELSE excluded.status END,
    suspect = CASE WHEN d.status = 'closed' THEN d.suspect ELSE excluded.suspect END,
    value_extreme = coalesce(excluded.value_extreme, d.value_extreme)
RETURNING version, status, lower(suspect), upper(suspect), xmax = 0 AS is_new";

/// Records what an edge said of a deviation and holds the suspect lots.
///
/// # Errors
/// [`BulkError`].
pub async fn record(
    tx: &mut BulkTx<'_>,
    point: &ControlPoint,
    (edge_id, edge): (Uuid, &str),
    said: &Deviation,
) -> Result<Recorded, BulkError> {
    tx.act_as(
        Actor::Edge {
            name: edge.to_owned(),
        },
        said.id.to_string(),
    );
    let status = if said.phase == Phase::Closed {
        "closed"
    } else {
        "open"
    };
    let until_us = said.until_us.max(said.last_good_us);
    let rows = tx
        .query(
            UPSERT,
            &[
                &said.id,
                &point.id,
                &kind_name(said.kind),
                &status,
                &time_from_us(said.last_good_us),
                &time_from_us(until_us),
                &time_from_us(said.detected_us),
                &said.value_extreme,
                &said.limit_low,
                &said.limit_high,
                &said.limit_version.cast_signed(),
                &edge_id,
            ],
        )
        .await?;
    let row = rows.first().expect("an upsert returns its row");
    let (version, is_new): (i32, bool) = (row.get(0), row.get(4));
    let told = json!({ "ccp": point.code, "kind": kind_name(said.kind), "edge": edge, "status": status,
        "last_good_us": said.last_good_us, "until_us": until_us, "detected_us": said.detected_us,
        "value_extreme": said.value_extreme, "limit_low": said.limit_low, "limit_high": said.limit_high,
        "limit_version": said.limit_version, "version": version });
    let (action, kind) = if is_new {
        ("open", "CCPViolation")
    } else {
        ("extend", "CCPViolationExtended")
    };
    tx.audit(&Deed::on(action, "deviation", said.id).after(&told));
    tx.event(&NewEvent::new(kind, "deviation", said.id, told));
    // While it lasts, what is suspect reaches to now; the row says so by having no end.
    let (from, to): (DateTime<Utc>, Option<DateTime<Utc>>) = (row.get(2), row.get(3));
    let window = Window {
        from_us: from.timestamp_micros(),
        to_us: to.map_or(until_us, |to| to.timestamp_micros()),
    };
    let reason = format!("{} at {}", kind_title(said.kind), point.code);
    let hold = hold::place(tx, point, said.id, window, &reason).await?;
    Ok(Recorded {
        deviation_id: said.id,
        version,
        line_id: point.line_id,
        hold,
    })
}

const RECENT: &str = "
SELECT d.id, d.kind, lower(d.suspect), upper(d.suspect), c.id, c.code, c.line_id, c.equipment_id
FROM deviation d JOIN ccp c ON c.id = d.ccp_id
WHERE d.status = 'open' OR upper(d.suspect) > $1";

/// Looks again at recent deviations: product that passed the point in the window may reach a lot that did not
/// exist yet when the deviation was recorded.
///
/// # Errors
/// [`BulkError`].
pub async fn review(
    tx: &mut BulkTx<'_>,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<HeldProduct>, BulkError> {
    let mut held = Vec::new();
    for row in tx.query(RECENT, &[&since]).await? {
        let point = ControlPoint {
            id: row.get(4),
            code: row.get(5),
            line_id: row.get(6),
            equipment_id: row.get(7),
        };
        let (from, to): (DateTime<Utc>, Option<DateTime<Utc>>) = (row.get(2), row.get(3));
        let window = Window {
            from_us: from.timestamp_micros(),
            to_us: to.unwrap_or(now).timestamp_micros(),
        };
        let (deviation_id, kind): (Uuid, String) = (row.get(0), row.get(1));
        tx.act_as(Actor::Hub { duty: "review" }, deviation_id.to_string());
        let reason = format!("{kind} at {}", point.code);
        let placed = hold::place(tx, &point, deviation_id, window, &reason).await?;
        held.extend(placed.filter(|held| held.added > 0));
    }
    Ok(held)
}

/// The kind's name in SQL.
const fn kind_name(kind: DeviationKind) -> &'static str {
    match kind {
        DeviationKind::Limit => "limit",
        DeviationKind::MonitoringGap => "monitoring_gap",
        DeviationKind::SensorStuck => "sensor_stuck",
        DeviationKind::HoldTime => "hold_time",
        DeviationKind::Cooling => "cooling",
        DeviationKind::Challenge => "challenge",
        DeviationKind::MissedCheck => "missed_check",
    }
}

const fn kind_title(kind: DeviationKind) -> &'static str {
    match kind {
        DeviationKind::Limit => "Critical limit not met",
        DeviationKind::MonitoringGap => "Not monitored",
        DeviationKind::SensorStuck => "Sensor stuck",
        DeviationKind::HoldTime => "Not held long enough",
        DeviationKind::Cooling => "Cooled too slowly",
        DeviationKind::Challenge => "Challenge failed",
        DeviationKind::MissedCheck => "Check missed",
    }
}
