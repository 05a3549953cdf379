//! What is the demonstration plant making? On each line a batch that finished yesterday and one that has been
//! running for two hours, each with its lot and the lots that went into it.

use chrono::{DateTime, Datelike, Duration, Utc};
use chrono_tz::America::New_York;
use serde::Deserialize;
use uuid::Uuid;

use super::Ids;
use crate::kernel::tenancy::{TenancyError, TenantTx};

/// How long the running batches have been running.
const RUNNING_HOURS: i64 = 2;

#[derive(Debug, Deserialize)]
pub(super) struct Run {
    line: String,
    sku: String,
    made_at: String,
    inputs: Vec<Input>,
}

impl Run {
    /// Line, SKU and equipment, as named.
    #[cfg(test)]
    pub(super) fn names(&self) -> [&String; 3] {
        [&self.line, &self.sku, &self.made_at]
    }
}

#[derive(Debug, Deserialize)]
struct Input {
    code: String,
    item: String,
    quantity: f64,
    unit: String,
}

/// A batch to be made up.
struct Batch {
    code: String,
    started: DateTime<Utc>,
    completed: Option<DateTime<Utc>>,
}

/// `SKU-YJJJ-LB`: last digit of the year, day of the year in the plant's zone, line, batch letter.
fn lot_code(sku: &str, line: &str, at: DateTime<Utc>, letter: char) -> String {
    let day = at.with_timezone(&New_York);
    let line = line.trim_start_matches('L');
    format!("{sku}-{}{:03}-{line}{letter}", day.year() % 10, day.ordinal())
}

pub(super) async fn runs(
    tx: &mut TenantTx,
    runs: &[Run],
    ids: &Ids,
    now: DateTime<Utc>,
) -> Result<(), TenancyError> {
    for run in runs {
        let line_id = Ids::of(&ids.lines, &run.line);
        let is_there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM batch WHERE line_id = $1)")
            .bind(line_id)
            .fetch_one(tx.conn())
            .await?;
        if is_there {
            continue;
        }
        let finished = now - Duration::hours(24);
        let before = Batch {
            code: lot_code(&run.sku, &run.line, finished, 'A'),
            started: finished,
            completed: Some(finished + Duration::hours(7)),
        };
        let started = now - Duration::hours(RUNNING_HOURS);
        let running = Batch {
            code: lot_code(&run.sku, &run.line, started, 'B'),
            started,
            completed: None,
        };
        for batch in [before, running] {
            make(tx, run, ids, &batch).await?;
        }
    }
    Ok(())
}

async fn make(tx: &mut TenantTx, run: &Run, ids: &Ids, batch: &Batch) -> Result<(), TenancyError> {
    let (batch_id, lot_id) = (Uuid::now_v7(), Uuid::now_v7());
    let line_id = Ids::of(&ids.lines, &run.line);
    sqlx::query(
        "INSERT INTO batch (id, code, sku_id, line_id, state, started_at, completed_at) \
         VALUES ($1, $2, $3, $4, CASE WHEN $6::timestamptz IS NULL THEN 'running' ELSE 'complete' END, $5, $6)",
    )
    .bind(batch_id)
    .bind(&batch.code)
    .bind(Ids::of(&ids.skus, &run.sku))
    .bind(line_id)
    .bind(batch.started)
    .bind(batch.completed)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "INSERT INTO batch_interval (batch_id, equipment_id, during) \
         SELECT $1, id, tstzrange($3, $4) FROM equipment WHERE line_id = $2",
    )
    .bind(batch_id)
    .bind(line_id)
    .bind(batch.started)
    .bind(batch.completed)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "INSERT INTO lot (id, code, kind, sku_id, item_name, status, quantity, unit, batch_id, equipment_id, \
           produced_range) \
         SELECT $1, $2, 'finished', s.id, s.name, \
           CASE WHEN $6::timestamptz IS NULL THEN 'in_process' ELSE 'released' END, \
           round(l.target_per_min * 0.9 * extract(epoch FROM coalesce($6, $5 + $8) - $5)::float8 / 60), 'units', \
           $3, $4, tstzrange($5, $6) \
         FROM sku s JOIN line l ON l.id = s.line_id WHERE s.id = $7",
    )
    .bind(lot_id)
    .bind(&batch.code)
    .bind(batch_id)
    .bind(Ids::of(&ids.equipment, &run.made_at))
    .bind(batch.started)
    .bind(batch.completed)
    .bind(Ids::of(&ids.skus, &run.sku))
    .bind(Duration::hours(RUNNING_HOURS))
    .execute(tx.conn())
    .await?;
    for input in &run.inputs {
        feed(tx, input, lot_id, batch.started).await?;
    }
    Ok(())
}

/// The input's lot, and that half of it went into the lot made.
async fn feed(tx: &mut TenantTx, input: &Input, lot_id: Uuid, at: DateTime<Utc>) -> Result<(), TenancyError> {
    let input_id: Uuid = sqlx::query_scalar(
        "INSERT INTO lot (id, code, kind, item_name, status, quantity, unit) \
         VALUES ($1, $2, 'raw_material', $3, 'released', $4, $5) \
         ON CONFLICT (code) DO UPDATE SET item_name = excluded.item_name RETURNING id",
    )
    .bind(Uuid::now_v7())
    .bind(&input.code)
    .bind(&input.item)
    .bind(input.quantity)
    .bind(&input.unit)
    .fetch_one(tx.conn())
    .await?;
    sqlx::query("INSERT INTO lot_edge (parent_id, child_id, quantity, unit, at) VALUES ($1, $2, $3, $4, $5)")
        .bind(input_id)
        .bind(lot_id)
        .bind(input.quantity / 2.0)
        .bind(&input.unit)
        .bind(at)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The canary's lot has the code of one of Akron's, so that a leak would show a wrong quantity.
pub(super) async fn canary(tx: &mut TenantTx) -> Result<(), TenancyError> {
    sqlx::query(
        "INSERT INTO lot (id, code, kind, item_name, status, quantity, unit) \
         VALUES ($1, 'OWM32-6286-1A', 'finished', 'Canary Supply milk', 'released', 999, 'cases') \
         ON CONFLICT (code) DO NOTHING",
    )
    .bind(Uuid::now_v7())
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lot_code_takes_its_day_from_the_plants_zone() {
        // 02:30 UTC on 14 October is still the 13th (day 286) in Akron.
        let at = DateTime::parse_from_rfc3339("2026-10-14T02:30:00Z")
            .unwrap()
            .to_utc();
        assert_eq!(lot_code("OWM32", "L1", at, 'A'), "OWM32-6286-1A");
    }
}
