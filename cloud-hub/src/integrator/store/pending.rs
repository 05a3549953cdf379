//! What is kept of values that are no tag yet? Their names, listed once, and their newest readings, as far as there is
//! room; and the names that were announced before their first value.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use protocol::{
    Micros,
    integrator::{Code, Fact, Refused, Standing, Version, different, standing},
};
use uuid::Uuid;

use super::{Name, Place, State, Work, known_tags, name_of, versions::by_time};
use crate::{
    integrator::{HELD_READINGS_MAX, PENDING_TAGS_MAX},
    kernel::{
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
    },
};

impl<'a> Work<'a> {
    /// Values that are no tag yet: their names are listed once, their readings held as far as there is room.
    pub(super) async fn unknown(&mut self, tx: &mut BulkTx<'_>, places: &[Place]) -> Result<(), BulkError> {
        let mut groups: BTreeMap<Name<'a>, Vec<Place>> = BTreeMap::new();
        for place in places {
            groups.entry(name_of(self.fact(*place))).or_default().push(*place);
        }
        if groups.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row<'_>> = groups
            .iter()
            .map(|((device, name), places)| {
                let newest = places.last().map(|place| self.fact(*place));
                Row {
                    device,
                    name,
                    sample: newest.map_or_else(String::new, sample_of),
                    readings: places.len() as i64,
                    seen_us: places
                        .iter()
                        .map(|place| self.said[place.0].received_us)
                        .max()
                        .unwrap_or_default(),
                    ..Row::default()
                }
            })
            .collect();
        let listed = list(tx, self.edge_id, &rows).await?;
        let mut held: Vec<(Uuid, Place)> = Vec::new();
        for (key, places) in &groups {
            for place in places {
                self.outcomes[place.0].states[place.1] = match listed
                    .get(&(key.0.to_owned(), key.1.to_owned()))
                {
                    Some((id, false)) => {
                        held.push((*id, *place));
                        State::Held
                    }
                    Some((_, true)) => State::Dismissed,
                    None => {
                        let hint = format!(
                            "{PENDING_TAGS_MAX} values of this client wait to be adopted already; adopt or dismiss some"
                        );
                        self.outcomes[place.0]
                            .refused
                            .push(Refused::new(Code::TooManyTags, hint, key.1));
                        State::Refused
                    }
                };
            }
        }
        self.hold(tx, &held).await
    }

    /// Holds readings as versions of their times; the newest times are kept, as far as there is room.
    async fn hold(&mut self, tx: &mut BulkTx<'_>, held: &[(Uuid, Place)]) -> Result<(), BulkError> {
        let ids: Vec<Uuid> = held.iter().map(|(id, _)| *id).collect();
        let times: Vec<DateTime<Utc>> = held
            .iter()
            .map(|(_, place)| time_from_us(self.fact(*place).time_us))
            .collect();
        let mut known = held_versions(tx, &ids, &times).await?;
        let mut rows: Vec<(Uuid, i32, &Fact)> = Vec::new();
        for (id, place) in held {
            let fact = self.fact(*place);
            let versions = known.entry((*id, fact.time_us)).or_default();
            match standing(versions, &fact.version()) {
                Standing::Duplicate => {}
                Standing::Contradiction => {
                    let refused = different(&fact.name, versions, &fact.version());
                    self.outcomes[place.0].refused.push(refused);
                    self.outcomes[place.0].states[place.1] = State::Refused;
                }
                Standing::Newer | Standing::Older => {
                    versions.push(fact.version());
                    rows.push((*id, i32::try_from(versions.len()).unwrap_or(i32::MAX), fact));
                }
            }
        }
        insert_held(tx, &rows).await?;
        tx.execute(
            "WITH ranked AS (SELECT pending_id, time, number, dense_rank() OVER (PARTITION BY pending_id ORDER BY time DESC) AS n \
               FROM pending_reading WHERE pending_id = ANY($1)), \
             gone AS (DELETE FROM pending_reading r USING ranked k WHERE k.pending_id = r.pending_id AND k.time = r.time \
               AND k.number = r.number AND k.n > $2 RETURNING r.pending_id), \
             counted AS (SELECT pending_id, count(*) AS n FROM gone GROUP BY pending_id) \
             UPDATE pending_tag p SET dropped = p.dropped + c.n FROM counted c WHERE p.id = c.pending_id",
            &[&ids, &HELD_READINGS_MAX],
        )
        .await?;
        Ok(())
    }

    /// What was announced is listed before its first value comes.
    pub(super) async fn announcements(
        &mut self,
        tx: &mut BulkTx<'_>,
        messages: &[usize],
    ) -> Result<(), BulkError> {
        let said = self.said;
        let rows: BTreeMap<Name<'_>, Row<'_>> = messages
            .iter()
            .flat_map(|index| {
                said[*index]
                    .announced
                    .iter()
                    .map(|it| (said[*index].received_us, it))
            })
            .map(|(seen_us, (device, name, discovery))| {
                let row = Row {
                    device,
                    name,
                    unit: discovery.unit.as_deref().unwrap_or_default(),
                    proposed: Some(&discovery.name),
                    stale_after_s: discovery
                        .expire_after_s
                        .filter(|s| *s > 0)
                        .and_then(|s| i32::try_from(s).ok()),
                    seen_us,
                    ..Row::default()
                };
                ((device.as_str(), name.as_str()), row)
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let names: HashSet<Name<'_>> = rows.keys().copied().collect();
        let tags = known_tags(tx, self.edge_id, &names).await?;
        let new: Vec<Row<'_>> = rows
            .into_iter()
            .filter(|(name, _)| !tags.contains_key(name))
            .map(|(_, row)| row)
            .collect();
        list(tx, self.edge_id, &new).await.map(drop)
    }
}

/// The versions that are held of these times already.
async fn held_versions(
    tx: &mut BulkTx<'_>,
    ids: &[Uuid],
    times: &[DateTime<Utc>],
) -> Result<HashMap<(Uuid, Micros), Vec<Version>>, BulkError> {
    let rows = tx
        .query(
            "SELECT p.pending_id, p.time, p.value, p.quality, p.rev FROM pending_reading p \
             JOIN (SELECT DISTINCT * FROM unnest($1::uuid[], $2::timestamptz[]) AS n (id, time)) n \
               ON p.pending_id = n.id AND p.time = n.time ORDER BY p.number",
            &[&ids, &times],
        )
        .await?;
    Ok(by_time(&rows))
}

async fn insert_held(tx: &mut BulkTx<'_>, rows: &[(Uuid, i32, &Fact)]) -> Result<(), BulkError> {
    let ids: Vec<Uuid> = rows.iter().map(|(id, ..)| *id).collect();
    let numbers: Vec<i32> = rows.iter().map(|(_, number, _)| *number).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|(.., fact)| time_from_us(fact.time_us)).collect();
    let values: Vec<Option<f64>> = rows.iter().map(|(.., fact)| fact.value).collect();
    let qualities: Vec<i16> = rows.iter().map(|(.., fact)| fact.quality.to_i16()).collect();
    let revs: Vec<Option<i64>> = rows.iter().map(|(.., fact)| fact.rev).collect();
    tx.execute(
        "INSERT INTO pending_reading (pending_id, number, time, value, quality, rev) \
         SELECT * FROM unnest($1::uuid[], $2::int4[], $3::timestamptz[], $4::float8[], $5::int2[], $6::int8[])",
        &[&ids, &numbers, &times, &values, &qualities, &revs],
    )
    .await?;
    Ok(())
}

/// A name to be listed.
#[derive(Debug, Default)]
struct Row<'a> {
    device: &'a str,
    name: &'a str,
    unit: &'a str,
    proposed: Option<&'a str>,
    stale_after_s: Option<i32>,
    sample: String,
    readings: i64,
    seen_us: Micros,
}

const LIST: &str = "
INSERT INTO pending_tag AS p (id, edge_id, device, name, unit, proposed_name, stale_after_s, sample, readings,
    first_seen_at, last_seen_at)
SELECT n.id, $1, n.device, n.name, n.unit, n.proposed, n.stale_after_s, n.sample, n.readings, n.at, n.at
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[], $9::int8[],
    $10::timestamptz[]) WITH ORDINALITY
    AS n (id, device, name, unit, proposed, stale_after_s, sample, readings, at, number)
LEFT JOIN pending_tag k ON k.edge_id = $1 AND k.device = n.device AND k.name = n.name
WHERE k.id IS NOT NULL OR n.number + (SELECT count(*) FROM pending_tag c WHERE c.edge_id = $1) <= $11
ON CONFLICT (edge_id, device, name) DO UPDATE SET
    unit = CASE WHEN excluded.unit = '' THEN p.unit ELSE excluded.unit END,
    proposed_name = coalesce(excluded.proposed_name, p.proposed_name),
    stale_after_s = coalesce(excluded.stale_after_s, p.stale_after_s),
    sample = CASE WHEN excluded.readings = 0 THEN p.sample ELSE excluded.sample END,
    readings = p.readings + excluded.readings,
    last_seen_at = greatest(p.last_seen_at, excluded.last_seen_at)
RETURNING device, name, id, dismissed_at IS NOT NULL";

/// Lists names as far as there is room; gives those that are listed, and whether they were dismissed.
async fn list(
    tx: &mut BulkTx<'_>,
    edge_id: Uuid,
    rows: &[Row<'_>],
) -> Result<HashMap<(String, String), (Uuid, bool)>, BulkError> {
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = rows.iter().map(|_| Uuid::now_v7()).collect();
    let devices: Vec<&str> = rows.iter().map(|row| row.device).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    let units: Vec<String> = rows.iter().map(|row| plain(row.unit)).collect();
    let proposed: Vec<Option<String>> = rows.iter().map(|row| row.proposed.map(plain)).collect();
    let stale: Vec<Option<i32>> = rows.iter().map(|row| row.stale_after_s).collect();
    let samples: Vec<&str> = rows.iter().map(|row| row.sample.as_str()).collect();
    let readings: Vec<i64> = rows.iter().map(|row| row.readings).collect();
    let seen: Vec<DateTime<Utc>> = rows.iter().map(|row| time_from_us(row.seen_us)).collect();
    let listed = tx
        .query(
            LIST,
            &[
                &edge_id,
                &ids,
                &devices,
                &names,
                &units,
                &proposed,
                &stale,
                &samples,
                &readings,
                &seen,
                &PENDING_TAGS_MAX,
            ],
        )
        .await?;
    Ok(listed
        .iter()
        .map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3))))
        .collect())
}

/// Text as the database holds it: without zero characters, and short.
pub(super) fn plain(text: &str) -> String {
    text.replace('\0', "\u{FFFD}").chars().take(200).collect()
}

fn sample_of(fact: &Fact) -> String {
    match (&fact.text, fact.value) {
        (Some(text), _) => plain(text),
        (None, Some(value)) => value.to_string(),
        (None, None) => fact.quality.name().to_owned(),
    }
}
