//! What is a client told is wrong, how often? Counted by hour and code with the newest of each, so that people see it too.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use protocol::{Micros, integrator::Refused};

use super::{Work, pending::plain};
use crate::kernel::{
    bulk::{BulkError, BulkTx},
    clock::time_from_us,
};

const HOUR_US: Micros = 3_600_000_000;
/// Older counts are dropped: people look at the last day, and sometimes at the same day of last week.
const KEPT_US: Micros = 8 * 24 * HOUR_US;

const COUNT: &str = "
INSERT INTO integrator_error AS e (edge_id, hour, code, number, count, topic, hint, sample, first_at, last_at)
SELECT $1, n.* FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[],
    $9::timestamptz[], $10::timestamptz[]) AS n
ON CONFLICT (edge_id, hour, code) DO UPDATE SET count = e.count + excluded.count, topic = excluded.topic,
    hint = excluded.hint, sample = excluded.sample, first_at = least(e.first_at, excluded.first_at),
    last_at = greatest(e.last_at, excluded.last_at)";

/// Errors of one code in one hour.
struct Counted<'a> {
    newest: &'a Refused,
    topic: &'a str,
    count: i64,
    first_us: Micros,
    last_us: Micros,
}

impl Work<'_> {
    /// Adds what these messages were refused for to the client's counts.
    pub(super) async fn errors(&self, tx: &mut BulkTx<'_>, messages: &[usize]) -> Result<(), BulkError> {
        let counted = self.counted(messages);
        let Some(newest_us) = counted.values().map(|it| it.last_us).max() else {
            return Ok(());
        };
        let each = || counted.iter();
        let hours: Vec<DateTime<Utc>> = each().map(|((hour_us, _), _)| time_from_us(*hour_us)).collect();
        let numbers: Vec<&str> = each().map(|((_, number), _)| *number).collect();
        let codes: Vec<String> = each().map(|(_, it)| code_name(it.newest)).collect();
        let counts: Vec<i64> = each().map(|(_, it)| it.count).collect();
        let text = |of: fn(&Counted<'_>) -> String| -> Vec<String> { each().map(|(_, it)| of(it)).collect() };
        let times = |of: fn(&Counted<'_>) -> Micros| -> Vec<DateTime<Utc>> {
            each().map(|(_, it)| time_from_us(of(it))).collect()
        };
        tx.execute(
            COUNT,
            &[
                &self.edge_id,
                &hours,
                &codes,
                &numbers,
                &counts,
                &text(|it| plain(it.topic)),
                &text(|it| plain(&it.newest.hint)),
                &text(|it| plain(&it.newest.sample)),
                &times(|it| it.first_us),
                &times(|it| it.last_us),
            ],
        )
        .await?;
        tx.execute(
            "DELETE FROM integrator_error WHERE edge_id = $1 AND hour < $2",
            &[&self.edge_id, &time_from_us(newest_us - KEPT_US)],
        )
        .await?;
        Ok(())
    }

    /// By hour and number of the code.
    fn counted(&self, messages: &[usize]) -> BTreeMap<(Micros, &'static str), Counted<'_>> {
        let mut counted: BTreeMap<_, Counted<'_>> = BTreeMap::new();
        for index in messages {
            let said = &self.said[*index];
            let at_us = said.received_us;
            let hour_us = at_us - at_us.rem_euclid(HOUR_US);
            for refused in said.refused.iter().chain(&self.outcomes[*index].refused) {
                let known = counted
                    .entry((hour_us, refused.code.number()))
                    .or_insert_with(|| Counted {
                        newest: refused,
                        topic: &said.topic,
                        count: 0,
                        first_us: at_us,
                        last_us: at_us,
                    });
                known.count += 1;
                known.last_us = known.last_us.max(at_us);
                known.first_us = known.first_us.min(at_us);
                (known.newest, known.topic) = (refused, &said.topic);
            }
        }
        counted
    }
}

/// As it is told: `BAD_JSON`.
fn code_name(refused: &Refused) -> String {
    serde_json::to_value(refused.code)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_else(|| refused.code.number().to_owned())
}
