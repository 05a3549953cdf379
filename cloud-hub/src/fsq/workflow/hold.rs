//! Which lots go on hold for a deviation, and putting them there. Lots are only ever added.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use protocol::Micros;
use serde_json::json;
use uuid::Uuid;

use super::deviation::ControlPoint;
use crate::{
    fsq::domain::suspect::{FlowLink, LotSpan, Suspect, Window, downstream, suspect_lots},
    kernel::{
        audit::Deed,
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
        event::NewEvent,
    },
};

/// A hold as it stands after it was placed or looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldProduct {
    /// The hold.
    pub hold_id: Uuid,
    /// Its row version.
    pub version: i32,
    /// Lots added this time.
    pub added: usize,
    /// The control point's line.
    pub line_id: Uuid,
}

/// Holds what is suspect in `window` at `point`. No product, no hold.
///
/// # Errors
/// [`BulkError`].
pub(super) async fn place(
    tx: &mut BulkTx<'_>,
    point: &ControlPoint,
    deviation_id: Uuid,
    window: Window,
    reason: &str,
) -> Result<Option<HeldProduct>, BulkError> {
    let suspect = find(tx, point, window).await?;
    if suspect.lots.is_empty() {
        return Ok(None);
    }
    let lots: Vec<Uuid> = suspect.lots.into_iter().collect();
    let (hold_id, code, version, is_new) = open(tx, deviation_id, reason, suspect.widened).await?;
    let added: Vec<Uuid> = tx
        .query(
            "INSERT INTO hold_lot (hold_id, lot_id) SELECT $1, unnest($2::uuid[]) \
             ON CONFLICT DO NOTHING RETURNING lot_id",
            &[&hold_id, &lots],
        )
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    if added.is_empty() {
        return Ok(Some(HeldProduct {
            hold_id,
            version,
            added: 0,
            line_id: point.line_id,
        }));
    }
    hold_lots(tx, &added).await?;
    let version = if is_new {
        version
    } else {
        grow(tx, hold_id, suspect.widened).await?
    };
    let (action, kind) = if is_new {
        ("place", "HoldPlaced")
    } else {
        ("extend", "HoldExtended")
    };
    let placed = json!({ "code": code, "deviation_id": deviation_id, "lots": added, "widened": suspect.widened,
        "reason": reason, "version": version });
    tx.audit(&Deed::on(action, "hold", hold_id).after(&placed));
    tx.event(&NewEvent::new(kind, "hold", hold_id, placed));
    Ok(Some(HeldProduct {
        hold_id,
        version,
        added: added.len(),
        line_id: point.line_id,
    }))
}

/// Lots that were not held yet are now; each has its entry in the chain and its event.
async fn hold_lots(tx: &mut BulkTx<'_>, lots: &[Uuid]) -> Result<(), BulkError> {
    let rows = tx
        .query(
            "UPDATE lot n SET status = 'held', version = n.version + 1 FROM lot o \
             WHERE o.id = n.id AND n.id = ANY($1) AND n.status <> 'held' RETURNING n.id, n.code, o.status, n.version",
            &[&lots],
        )
        .await?;
    for row in rows {
        let (id, code, was, version): (Uuid, String, String, i32) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let now = json!({ "code": code, "status": "held", "version": version });
        tx.audit(
            &Deed::on("hold", "lot", id)
                .before(json!({ "code": code, "status": was }))
                .after(&now),
        );
        tx.event(&NewEvent::new("LotHeld", "lot", id, now));
    }
    Ok(())
}

async fn open(
    tx: &mut BulkTx<'_>,
    deviation_id: Uuid,
    reason: &str,
    widened: bool,
) -> Result<(Uuid, String, i32, bool), BulkError> {
    if let Some((id, code, version)) = placed(tx, deviation_id).await? {
        return Ok((id, code, version, false));
    }
    let id = Uuid::now_v7();
    let made = tx
        .query(
            "INSERT INTO hold (id, code, deviation_id, reason, widened) \
             VALUES ($1, 'HOLD-' || nextval('hold_number'), $2, $3, $4) ON CONFLICT (deviation_id) DO NOTHING \
             RETURNING code",
            &[&id, &deviation_id, &reason, &widened],
        )
        .await?;
    if let Some(row) = made.first() {
        return Ok((id, row.get(0), 1, true));
    }
    // Ingest and the review placed it at once; the other one's is committed by now.
    let there = placed(tx, deviation_id).await?;
    let (id, code, version) = there.expect("a hold is never deleted");
    Ok((id, code, version, false))
}

async fn placed(tx: &mut BulkTx<'_>, deviation_id: Uuid) -> Result<Option<(Uuid, String, i32)>, BulkError> {
    let there = tx
        .query(
            "SELECT id, code, version FROM hold WHERE deviation_id = $1 FOR UPDATE",
            &[&deviation_id],
        )
        .await?;
    Ok(there.first().map(|row| (row.get(0), row.get(1), row.get(2))))
}

async fn grow(tx: &mut BulkTx<'_>, hold_id: Uuid, widened: bool) -> Result<i32, BulkError> {
    let rows = tx
        .query(
            "UPDATE hold SET version = version + 1, widened = widened OR $2, status = 'open' \
             WHERE id = $1 RETURNING version",
            &[&hold_id, &widened],
        )
        .await?;
    Ok(rows.first().map_or(1, |row| row.get(0)))
}

/// Batches that were on the control point's equipment, or on its line where the equipment or its occupancy is
/// not recorded.
const BATCHES: &str = "
WITH at_point AS (
    SELECT batch_id FROM batch_interval
    WHERE equipment_id = $1 AND during && tstzrange($3, $4, '[]')
)
SELECT batch_id, false AS by_line FROM at_point
UNION ALL
SELECT id, true FROM batch
WHERE line_id = $2 AND started_at <= $4 AND (completed_at IS NULL OR completed_at >= $3)
  AND NOT EXISTS (SELECT FROM at_point)";

/// Lots that could be suspect: those of the batches, and those made downstream in the time in question.
const LOTS: &str = "
SELECT id, batch_id, equipment_id, lower(produced_range), upper(produced_range), produced_range IS NOT NULL
FROM lot
WHERE batch_id = ANY($1) OR (equipment_id = ANY($2) AND produced_range && tstzrange($3, $4, '[]'))";

/// Everything made from the suspect lots.
const DESCENDANTS: &str = "
WITH RECURSIVE made AS (
    SELECT unnest($1::uuid[]) AS id
    UNION
    SELECT e.child_id FROM lot_edge e JOIN made ON e.parent_id = made.id
)
SELECT id FROM made";

async fn find(tx: &mut BulkTx<'_>, point: &ControlPoint, window: Window) -> Result<Suspect, BulkError> {
    let (from, to) = (time_from_us(window.from_us), time_from_us(window.to_us));
    let rows = tx
        .query(BATCHES, &[&point.equipment_id, &point.line_id, &from, &to])
        .await?;
    let batches: BTreeSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();

    let links = flow_links(tx).await?;
    let windows = point.equipment_id.and_then(|at| downstream(at, window, &links));
    let equipment: Vec<Uuid> = windows
        .iter()
        .flatten()
        .map(|(equipment, _)| *equipment)
        .collect();
    let latest = windows
        .iter()
        .flatten()
        .flat_map(|(_, windows)| windows)
        .map(|w| w.to_us)
        .max();
    let batch_ids: Vec<Uuid> = batches.iter().copied().collect();
    let latest = time_from_us(latest.unwrap_or(window.to_us));
    let lots: Vec<LotSpan> = tx
        .query(LOTS, &[&batch_ids, &equipment, &from, &latest])
        .await?
        .iter()
        .map(lot_span)
        .collect();

    let mut suspect = suspect_lots(windows.as_ref(), &batches, &lots);
    let parents: Vec<Uuid> = suspect.lots.iter().copied().collect();
    let made = tx.query(DESCENDANTS, &[&parents]).await?;
    suspect.lots.extend(made.iter().map(|row| row.get::<_, Uuid>(0)));
    Ok(suspect)
}

async fn flow_links(tx: &mut BulkTx<'_>) -> Result<Vec<FlowLink>, BulkError> {
    const SECOND_US: Micros = 1_000_000;
    let rows = tx
        .query(
            "SELECT from_equipment_id, to_equipment_id, residence_s_min, residence_s_max FROM flow_link",
            &[],
        )
        .await?;
    let link = |row: &tokio_postgres::Row| FlowLink {
        from: row.get(0),
        to: row.get(1),
        min_us: Micros::from(row.get::<_, i32>(2)) * SECOND_US,
        max_us: Micros::from(row.get::<_, i32>(3)) * SECOND_US,
    };
    Ok(rows.iter().map(link).collect())
}

fn lot_span(row: &tokio_postgres::Row) -> LotSpan {
    let (lower, upper): (Option<DateTime<Utc>>, Option<DateTime<Utc>>) = (row.get(3), row.get(4));
    let is_known: bool = row.get(5);
    LotSpan {
        lot: row.get(0),
        batch: row.get(1),
        equipment: row.get(2),
        produced: is_known.then(|| Window {
            from_us: lower.map_or(Micros::MIN, |lower| lower.timestamp_micros()),
            to_us: upper.map_or(Micros::MAX, |upper| upper.timestamp_micros()),
        }),
    }
}
