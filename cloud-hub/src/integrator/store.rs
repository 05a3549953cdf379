//! How is what integrators said kept? One transaction for a tenant's messages: values of known tags go where frames'
//! readings go, each once by tag and time; values of unknown ones are held until somebody adopts them.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use protocol::{
    Micros, Quality,
    integrator::{Code, Fact, Refused, different},
};
use uuid::Uuid;

use super::{DEVICES_MAX, HELD_READINGS_MAX, PENDING_TAGS_MAX, read::Said};
use crate::{
    ingest::{bury, store_samples},
    kernel::{
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
    },
    series::bus::Sample,
};

/// What became of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Stored now.
    Stored(i32),
    /// Stored before.
    Duplicate(i32),
    /// Held until its tag is adopted.
    Held,
    /// Its tag was dismissed: counted, and nothing else.
    Dismissed,
    /// Not taken; the refusal says why.
    Refused,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stored(_) => "stored",
            Self::Duplicate(_) => "duplicate",
            Self::Held => "held",
            Self::Dismissed => "dismissed",
            Self::Refused => "refused",
        }
    }

    pub(super) fn tag_id(self) -> Option<i32> {
        match self {
            Self::Stored(id) | Self::Duplicate(id) => Some(id),
            _ => None,
        }
    }
}

/// What became of one message.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// By value, as the message has them.
    pub(super) states: Vec<State>,
    /// What the store refuses beyond what the reader did.
    pub(super) refused: Vec<Refused>,
}

/// What became of some messages.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) outcomes: Vec<Outcome>,
    /// The newest of each tag, for live pages.
    pub(super) newest: Vec<Sample>,
    pub(super) readings: u64,
}

/// A value's place: message and number in it.
type Place = (usize, usize);
/// Device and name.
type Name<'a> = (&'a str, &'a str);

/// Stores messages of one tenant.
pub(super) async fn store(
    tx: &mut BulkTx<'_>,
    said: &[Said],
    dead: &[bool],
    now: DateTime<Utc>,
) -> Result<Stored, BulkError> {
    let mut outcomes: Vec<Outcome> = said
        .iter()
        .map(|said| Outcome {
            states: vec![State::Refused; said.facts.len()],
            refused: Vec::new(),
        })
        .collect();
    let mut by_client: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, said) in said.iter().enumerate() {
        by_client.entry(&said.client).or_default().push(index);
    }
    let mut samples = Vec::new();
    for (client, messages) in &by_client {
        let edge_id = edge_id(tx, client, now).await?;
        tx.query(
            "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 21))",
            &[&edge_id.to_string()],
        )
        .await?;
        let mut work = Work {
            edge_id,
            said,
            outcomes: &mut outcomes,
            samples: &mut samples,
        };
        work.values(tx, messages).await?;
        work.announcements(tx, messages).await?;
        work.devices(tx, messages).await?;
        for index in messages.iter().filter(|index| dead[**index]) {
            let Said {
                topic,
                payload,
                refused,
                ..
            } = &said[*index];
            let reason = refused.first().map_or_else(String::new, ToString::to_string);
            bury(tx, client, topic, payload, &reason).await?;
        }
    }
    let newest = store_samples(tx, &samples, now).await?;
    Ok(Stored {
        outcomes,
        newest,
        readings: samples.len() as u64,
    })
}

/// The row of a client; enrolling made it, and HTTP's callers have none before their first message.
async fn edge_id(tx: &mut BulkTx<'_>, client: &str, now: DateTime<Utc>) -> Result<Uuid, BulkError> {
    let rows = tx
        .query(
            "INSERT INTO edge AS e (id, name, is_online, last_seen_at) VALUES ($1, $2, true, $3) \
             ON CONFLICT (name) DO UPDATE SET is_online = true, last_seen_at = greatest(e.last_seen_at, $3) RETURNING id",
            &[&Uuid::now_v7(), &client, &now],
        )
        .await?;
    Ok(rows.first().map_or_else(Uuid::nil, |row| row.get(0)))
}

/// One client's part of a transaction.
struct Work<'a> {
    edge_id: Uuid,
    said: &'a [Said],
    outcomes: &'a mut Vec<Outcome>,
    samples: &'a mut Vec<Sample>,
}

impl<'a> Work<'a> {
    fn fact(&self, (message, number): Place) -> &'a Fact {
        &self.said[message].facts[number]
    }

    async fn values(&mut self, tx: &mut BulkTx<'_>, messages: &[usize]) -> Result<(), BulkError> {
        let said = self.said;
        let places = messages
            .iter()
            .flat_map(|index| (0..said[*index].facts.len()).map(|number| (*index, number)));
        let places: Vec<Place> = places.collect();
        let mut names: HashSet<Name<'a>> = places.iter().map(|place| name_of(self.fact(*place))).collect();
        for message in messages.iter().map(|index| &said[*index]) {
            let stale = message
                .stale
                .iter()
                .flat_map(|(device, names)| names.iter().map(move |name| (device.as_str(), name.as_str())));
            names.extend(stale);
        }
        if names.is_empty() {
            return Ok(());
        }
        let tags = known_tags(tx, self.edge_id, &names).await?;
        let (known, unknown): (Vec<Place>, Vec<Place>) = places
            .into_iter()
            .partition(|place| tags.contains_key(&name_of(self.fact(*place))));
        self.known(tx, &known, &tags, messages).await?;
        self.unknown(tx, &unknown).await
    }

    /// Values of tags: stored, unless the tag has a value of that time.
    async fn known(
        &mut self,
        tx: &mut BulkTx<'_>,
        places: &[Place],
        tags: &HashMap<Name<'a>, (i32, bool)>,
        messages: &[usize],
    ) -> Result<(), BulkError> {
        let mut samples: Vec<(Option<Place>, Sample)> = Vec::new();
        for place in places {
            let fact = self.fact(*place);
            let Some((tag_id, simulated)) = tags.get(&name_of(fact)) else {
                continue;
            };
            let sample = Sample {
                tag_id: *tag_id,
                time_us: fact.time_us,
                value: fact.value,
                quality: fact.quality.code(),
                simulated: *simulated,
            };
            samples.push((Some(*place), sample));
        }
        samples.extend(
            self.stale(tx, tags, messages)
                .await?
                .into_iter()
                .map(|sample| (None, sample)),
        );
        let mut have = existing(tx, samples.iter().map(|(_, sample)| sample)).await?;
        for (place, sample) in samples {
            let key = (sample.tag_id, sample.time_us);
            let state = match have.get(&key) {
                None => {
                    have.insert(key, sample.value);
                    self.samples.push(sample);
                    State::Stored(sample.tag_id)
                }
                Some(first) if *first == sample.value => State::Duplicate(sample.tag_id),
                Some(first) => {
                    if let Some(place) = place {
                        let refused = different(&self.fact(place).name, *first, sample.value);
                        self.outcomes[place.0].refused.push(refused);
                    }
                    State::Refused
                }
            };
            if let Some((message, number)) = place {
                self.outcomes[message].states[number] = state;
            }
        }
        Ok(())
    }

    /// What marks tags as stale: no value, later than any that they have, so that it is their newest even where the
    /// source's clock is ahead.
    async fn stale(
        &self,
        tx: &mut BulkTx<'_>,
        tags: &HashMap<Name<'a>, (i32, bool)>,
        messages: &[usize],
    ) -> Result<Vec<Sample>, BulkError> {
        let mut samples = Vec::new();
        for message in messages.iter().map(|index| &self.said[*index]) {
            let names = message
                .stale
                .iter()
                .flat_map(|(device, names)| names.iter().map(move |name| (device.as_str(), name.as_str())));
            for (tag_id, simulated) in names.filter_map(|name| tags.get(&name)) {
                samples.push(Sample {
                    tag_id: *tag_id,
                    time_us: message.received_us,
                    value: None,
                    quality: Quality::BAD_NOT_CONNECTED.code(),
                    simulated: *simulated,
                });
            }
        }
        if samples.is_empty() {
            return Ok(samples);
        }
        let ids: Vec<i32> = samples.iter().map(|sample| sample.tag_id).collect();
        let rows = tx
            .query(
                "SELECT tag_id, time FROM tag_last WHERE tag_id = ANY($1)",
                &[&ids],
            )
            .await?;
        let newest: HashMap<i32, Micros> = rows
            .iter()
            .map(|row| (row.get(0), row.get::<_, DateTime<Utc>>(1).timestamp_micros()))
            .collect();
        for sample in &mut samples {
            let after = newest
                .get(&sample.tag_id)
                .map_or(Micros::MIN, |newest| newest + 1);
            sample.time_us = sample.time_us.max(after);
        }
        Ok(samples)
    }

    /// Values that are no tag yet: their names are listed once, their readings held as far as there is room.
    async fn unknown(&mut self, tx: &mut BulkTx<'_>, places: &[Place]) -> Result<(), BulkError> {
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

    async fn hold(&self, tx: &mut BulkTx<'_>, held: &[(Uuid, Place)]) -> Result<(), BulkError> {
        let ids: Vec<Uuid> = held.iter().map(|(id, _)| *id).collect();
        let facts: Vec<&Fact> = held.iter().map(|(_, place)| self.fact(*place)).collect();
        let times: Vec<DateTime<Utc>> = facts.iter().map(|fact| time_from_us(fact.time_us)).collect();
        let values: Vec<Option<f64>> = facts.iter().map(|fact| fact.value).collect();
        let qualities: Vec<i16> = facts.iter().map(|fact| fact.quality.to_i16()).collect();
        tx.execute(
            "INSERT INTO pending_reading (pending_id, time, value, quality) \
             SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::float8[], $4::int2[]) ON CONFLICT DO NOTHING",
            &[&ids, &times, &values, &qualities],
        )
        .await?;
        tx.execute(
            "WITH ranked AS (SELECT pending_id, time, row_number() OVER (PARTITION BY pending_id ORDER BY time DESC) AS n \
               FROM pending_reading WHERE pending_id = ANY($1)), \
             gone AS (DELETE FROM pending_reading r USING ranked k WHERE k.pending_id = r.pending_id AND k.time = r.time \
               AND k.n > $2 RETURNING r.pending_id), \
             counted AS (SELECT pending_id, count(*) AS n FROM gone GROUP BY pending_id) \
             UPDATE pending_tag p SET dropped = p.dropped + c.n FROM counted c WHERE p.id = c.pending_id",
            &[&ids, &HELD_READINGS_MAX],
        )
        .await?;
        Ok(())
    }

    /// What was announced is listed before its first value comes.
    async fn announcements(&mut self, tx: &mut BulkTx<'_>, messages: &[usize]) -> Result<(), BulkError> {
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

    /// Who came, went, spoke, and raised or cleared an alarm.
    async fn devices(&self, tx: &mut BulkTx<'_>, messages: &[usize]) -> Result<(), BulkError> {
        let mut seen: BTreeMap<&str, (Option<bool>, Micros)> = BTreeMap::new();
        for message in messages.iter().map(|index| &self.said[*index]) {
            for fact in &message.facts {
                let known = seen.entry(&fact.device).or_insert((None, message.received_us));
                known.1 = message.received_us;
            }
            for (device, is_online) in &message.presence {
                seen.insert(device, (Some(*is_online), message.received_us));
            }
        }
        if !seen.is_empty() {
            let names: Vec<&str> = seen.keys().copied().collect();
            let states: Vec<Option<bool>> = seen.values().map(|(state, _)| *state).collect();
            let times: Vec<DateTime<Utc>> = seen.values().map(|(_, at)| time_from_us(*at)).collect();
            let ids: Vec<Uuid> = seen.iter().map(|_| Uuid::now_v7()).collect();
            tx.execute(
                DEVICES,
                &[&self.edge_id, &names, &states, &times, &DEVICES_MAX, &ids],
            )
            .await?;
        }
        for message in messages.iter().map(|index| &self.said[*index]) {
            for (device, name, text) in &message.alarms {
                self.alarm(tx, (device, name), text.as_deref(), message.received_us)
                    .await?;
            }
        }
        Ok(())
    }

    /// One standing alarm for each device and type.
    async fn alarm(
        &self,
        tx: &mut BulkTx<'_>,
        (device, name): Name<'_>,
        text: Option<&str>,
        at_us: Micros,
    ) -> Result<(), BulkError> {
        let (code, at) = (format!("device.{name}"), time_from_us(at_us));
        match text {
            Some(text) => {
                let message: String = text.replace('\0', "\u{FFFD}").chars().take(500).collect();
                tx.execute(
                    "INSERT INTO alarm (id, edge_id, code, subject, message, raised_at) SELECT $1, $2, $3, $4, $5, $6 \
                     WHERE NOT EXISTS (SELECT FROM alarm WHERE edge_id = $2 AND code = $3 AND subject = $4 AND cleared_at IS NULL)",
                    &[&Uuid::now_v7(), &self.edge_id, &code, &device, &message, &at],
                )
                .await?
            }
            None => {
                tx.execute(
                    "UPDATE alarm SET cleared_at = $4 WHERE edge_id = $1 AND code = $2 AND subject = $3 AND cleared_at IS NULL",
                    &[&self.edge_id, &code, &device, &at],
                )
                .await?
            }
        };
        Ok(())
    }
}

const DEVICES: &str = "
INSERT INTO integrator_device AS d (id, edge_id, name, is_online, since_at, last_seen_at)
SELECT n.id, $1, n.name, coalesce(n.is_online, true), n.at, n.at
FROM unnest($2::text[], $3::bool[], $4::timestamptz[], $6::uuid[]) AS n (name, is_online, at, id)
WHERE EXISTS (SELECT FROM integrator_device k WHERE k.edge_id = $1 AND k.name = n.name)
   OR (SELECT count(*) FROM integrator_device k WHERE k.edge_id = $1) < $5
ON CONFLICT (edge_id, name) DO UPDATE SET last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at),
    is_online = excluded.is_online,
    since_at = CASE WHEN d.is_online = excluded.is_online THEN d.since_at ELSE excluded.since_at END";

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
fn plain(text: &str) -> String {
    text.replace('\0', "\u{FFFD}").chars().take(200).collect()
}

fn sample_of(fact: &Fact) -> String {
    match (&fact.text, fact.value) {
        (Some(text), _) => plain(text),
        (None, Some(value)) => value.to_string(),
        (None, None) => fact.quality.name().to_owned(),
    }
}

fn name_of(fact: &Fact) -> Name<'_> {
    (&fact.device, &fact.name)
}

/// Which of these names are tags.
async fn known_tags<'n>(
    tx: &mut BulkTx<'_>,
    edge_id: Uuid,
    names: &HashSet<Name<'n>>,
) -> Result<HashMap<Name<'n>, (i32, bool)>, BulkError> {
    let (devices, values): (Vec<&str>, Vec<&str>) = names.iter().copied().unzip();
    let rows = tx
        .query(
            "SELECT n.number, t.id, t.is_simulated FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n (device, name, number) \
             JOIN integrator_tag i ON i.edge_id = $1 AND i.device = n.device AND i.name = n.name JOIN tag t ON t.id = i.tag_id",
            &[&edge_id, &devices, &values],
        )
        .await?;
    let found = rows.iter().filter_map(|row| {
        let at = usize::try_from(row.get::<_, i64>(0) - 1).ok()?;
        Some(((*devices.get(at)?, *values.get(at)?), (row.get(1), row.get(2))))
    });
    Ok(found.collect())
}

/// The values that tags have at these times already.
async fn existing(
    tx: &mut BulkTx<'_>,
    samples: impl Iterator<Item = &Sample> + Clone,
) -> Result<HashMap<(i32, Micros), Option<f64>>, BulkError> {
    let tags: Vec<i32> = samples.clone().map(|sample| sample.tag_id).collect();
    let times: Vec<DateTime<Utc>> = samples.map(|sample| time_from_us(sample.time_us)).collect();
    if tags.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = tx
        .query(
            "SELECT r.tag_id, r.time, r.value FROM unnest($1::int4[], $2::timestamptz[]) AS n (tag_id, time) \
             JOIN LATERAL (SELECT x.tag_id, x.time, x.value FROM reading x WHERE x.tag_id = n.tag_id AND x.time = n.time \
               LIMIT 1) r ON true",
            &[&tags, &times],
        )
        .await?;
    let found = rows.iter().map(|row| {
        let time: DateTime<Utc> = row.get(1);
        ((row.get(0), time.timestamp_micros()), row.get(2))
    });
    Ok(found.collect())
}
