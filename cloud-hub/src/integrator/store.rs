//! How is what integrators said kept? One transaction for a tenant's messages: values of known tags go where frames'
//! readings go, each once by tag and time; values of unknown ones are held until somebody adopts them.

mod devices;
mod errors;
mod pending;
mod versions;

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use protocol::{
    Micros, Quality,
    integrator::{Fact, Refused, Standing, Version, different, standing},
};
use uuid::Uuid;

use self::versions::Later;
use super::read::{Said, Stale};
use crate::{
    ingest::{bury, store_samples},
    kernel::bulk::{BulkError, BulkTx},
    series::bus::Sample,
};

/// What became of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Stored now.
    Stored(i32),
    /// Stored before.
    Duplicate(i32),
    /// Another version of a reading, which holds from now on.
    Revised(i32),
    /// Another version of a reading, kept beside the one that holds.
    Superseded(i32),
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
            Self::Revised(_) => "revised",
            Self::Superseded(_) => "superseded",
            Self::Held => "held",
            Self::Dismissed => "dismissed",
            Self::Refused => "refused",
        }
    }

    pub(super) fn tag_id(self) -> Option<i32> {
        match self {
            Self::Stored(id) | Self::Duplicate(id) | Self::Revised(id) | Self::Superseded(id) => Some(id),
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
    let (mut samples, mut later) = (Vec::new(), Vec::new());
    for (client, messages) in &by_client {
        let is_sessionless = messages.iter().all(|index| said[*index].answer.is_some());
        let edge_id = edge_id(tx, client, is_sessionless, now).await?;
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
            later: &mut later,
        };
        work.values(tx, messages).await?;
        work.announcements(tx, messages).await?;
        work.devices(tx, messages).await?;
        work.errors(tx, messages).await?;
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
    let mut newest = store_samples(tx, &samples, now).await?;
    newest.extend(versions::store(tx, &later).await?);
    Ok(Stored {
        outcomes,
        newest,
        readings: samples.len() as u64,
    })
}

/// The row of a client; enrolling made it, and HTTP's callers have none before their first message.
async fn edge_id(
    tx: &mut BulkTx<'_>,
    client: &str,
    is_sessionless: bool,
    now: DateTime<Utc>,
) -> Result<Uuid, BulkError> {
    let rows = tx
        .query(
            "INSERT INTO edge AS e (id, name, is_online, last_seen_at, is_sessionless) VALUES ($1, $2, true, $3, $4) \
             ON CONFLICT (name) DO UPDATE SET is_online = true, last_seen_at = greatest(e.last_seen_at, $3) RETURNING id",
            &[&Uuid::now_v7(), &client, &now, &is_sessionless],
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
    later: &'a mut Vec<Later>,
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
            let stale = message.stale.iter().flat_map(stale_names);
            names.extend(stale.map(|(name, _)| name));
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

    /// Values of tags: stored, as versions where the tag has a value of that time.
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
        let mut have = versions::known(tx, samples.iter().map(|(_, sample)| sample)).await?;
        for (place, sample) in samples {
            let known = have.entry((sample.tag_id, sample.time_us)).or_default();
            let rev = place.and_then(|place| self.fact(place).rev);
            let state = self.version(place, sample, rev, known);
            if let Some((message, number)) = place {
                self.outcomes[message].states[number] = state;
            }
        }
        Ok(())
    }

    /// What becomes of one value beside what its tag has for that time.
    fn version(
        &mut self,
        place: Option<Place>,
        sample: Sample,
        rev: Option<i64>,
        known: &mut Vec<Version>,
    ) -> State {
        let tag_id = sample.tag_id;
        let said = Version {
            value: sample.value,
            quality: Quality::from_i16(sample.quality.cast_signed()),
            rev,
        };
        let standing = standing(known, &said);
        let state = match standing {
            Standing::Duplicate => return State::Duplicate(tag_id),
            Standing::Contradiction => {
                if let Some(place) = place {
                    let refused = different(&self.fact(place).name, known, &said);
                    self.outcomes[place.0].refused.push(refused);
                }
                return State::Refused;
            }
            Standing::Newer if known.is_empty() => State::Stored(tag_id),
            Standing::Newer => State::Revised(tag_id),
            Standing::Older => State::Superseded(tag_id),
        };
        let is_first = known.is_empty();
        known.push(said);
        if is_first {
            self.samples.push(sample);
        }
        if !is_first || rev.is_some() {
            self.later.push(Later {
                edge_id: self.edge_id,
                sample,
                rev,
                is_first,
            });
        }
        state
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
            let names = message.stale.iter().flat_map(stale_names);
            for ((tag_id, simulated), at_us) in
                names.filter_map(|(name, at_us)| Some((tags.get(&name)?, at_us)))
            {
                samples.push(Sample {
                    tag_id: *tag_id,
                    time_us: at_us,
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
}

/// The names that went stale, and when.
fn stale_names(stale: &Stale) -> impl Iterator<Item = (Name<'_>, Micros)> {
    let names = stale.names.iter();
    names.map(|name| ((stale.device.as_str(), name.as_str()), stale.at_us))
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
