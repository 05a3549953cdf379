//! What do an edge's aliases mean? A dictionary becomes rows of `tag`, once; the mapping from alias to tag is
//! remembered in the database and in memory.

use std::{collections::HashMap, sync::Arc};

use protocol::{reading::Alias, tag::Dictionary};
use uuid::Uuid;

use crate::kernel::bulk::{BulkError, BulkTx};

/// What ingest needs of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownTag {
    pub(super) id: i32,
    pub(super) is_simulated: bool,
}

/// Aliases of one dictionary.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    dense: Vec<Option<KnownTag>>,
    sparse: HashMap<u32, KnownTag>,
}

/// Aliases below this are looked up by index; edges number from 0.
const DENSE_MAX: u32 = 1 << 18;

impl Mapping {
    fn new(tags: impl Iterator<Item = (u32, KnownTag)>) -> Self {
        let mut mapping = Self::default();
        for (alias, tag) in tags {
            if alias < DENSE_MAX {
                let index = alias as usize;
                if mapping.dense.len() <= index {
                    mapping.dense.resize(index + 1, None);
                }
                mapping.dense[index] = Some(tag);
            } else {
                mapping.sparse.insert(alias, tag);
            }
        }
        mapping
    }

    /// The tag behind an alias.
    pub(super) fn get(&self, alias: Alias) -> Option<KnownTag> {
        self.dense
            .get(alias.0 as usize)
            .copied()
            .flatten()
            .or_else(|| self.sparse.get(&alias.0).copied())
    }
}

/// Dictionaries in memory, by edge and content. What a transaction that failed put here is still true when it
/// is repeated only if it committed; so new ones wait in `fresh` until then (a transaction that failed drops the whole of this).
#[derive(Debug, Default)]
pub(super) struct Dictionaries {
    known: HashMap<(Uuid, Uuid), Arc<Mapping>>,
    fresh: Vec<((Uuid, Uuid), Arc<Mapping>)>,
}

/// Why a dictionary is refused; for people.
pub(super) type Refusal = String;

impl Dictionaries {
    /// The transaction that brought new ones was committed.
    pub(super) fn committed(&mut self) {
        self.known.extend(self.fresh.drain(..));
    }

    /// Finds a dictionary in memory or in the database.
    pub(super) async fn find(
        &mut self,
        tx: &mut BulkTx<'_>,
        edge_id: Uuid,
        id: Uuid,
    ) -> Result<Option<Arc<Mapping>>, BulkError> {
        let key = (edge_id, id);
        let fresh = self
            .fresh
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, mapping)| mapping);
        if let Some(mapping) = self.known.get(&key).or(fresh) {
            return Ok(Some(Arc::clone(mapping)));
        }
        let rows = tx
            .query(
                "SELECT a.alias, t.id, t.is_simulated FROM {schema}.dictionary d, \
                   unnest(d.aliases, d.tag_ids) AS a (alias, tag_id), {schema}.tag t \
                 WHERE d.edge_id = $1 AND d.id = $2 AND t.id = a.tag_id",
                &[&edge_id, &id],
            )
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let tags = rows.iter().map(|row| {
            let alias: i32 = row.get(0);
            let tag = KnownTag {
                id: row.get(1),
                is_simulated: row.get(2),
            };
            (alias.cast_unsigned(), tag)
        });
        let mapping = Arc::new(Mapping::new(tags));
        self.fresh.push((key, Arc::clone(&mapping)));
        Ok(Some(mapping))
    }

    /// Stores a dictionary: its tags first, then what its aliases mean.
    pub(super) async fn store(
        &mut self,
        tx: &mut BulkTx<'_>,
        edge_id: Uuid,
        id: Uuid,
        dictionary: &Dictionary,
    ) -> Result<Result<(), Refusal>, BulkError> {
        if dictionary.tags.is_empty() {
            return Ok(Err("a dictionary without tags explains nothing".to_owned()));
        }
        let names: Vec<&str> = dictionary.tags.iter().map(|tag| tag.name.as_str()).collect();
        if let Some(refusal) = owned_by_another(tx, edge_id, &names).await? {
            return Ok(Err(refusal));
        }
        upsert_tags(tx, edge_id, dictionary, &names).await?;
        let ids: HashMap<String, i32> = tx
            .query(
                "SELECT name, id FROM {schema}.tag WHERE name = ANY($1)",
                &[&names],
            )
            .await?
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let aliases: Vec<i32> = dictionary
            .tags
            .iter()
            .map(|tag| tag.alias.0.cast_signed())
            .collect();
        let tag_ids: Vec<i32> = names.iter().filter_map(|name| ids.get(*name).copied()).collect();
        tx.execute(
            "INSERT INTO {schema}.dictionary (edge_id, id, aliases, tag_ids) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (edge_id, id) DO NOTHING",
            &[&edge_id, &id, &aliases, &tag_ids],
        )
        .await?;
        let tags = dictionary.tags.iter().zip(&tag_ids).map(|(tag, id)| {
            (
                tag.alias.0,
                KnownTag {
                    id: *id,
                    is_simulated: tag.simulated,
                },
            )
        });
        self.fresh.push(((edge_id, id), Arc::new(Mapping::new(tags))));
        Ok(Ok(()))
    }
}

async fn owned_by_another(
    tx: &mut BulkTx<'_>,
    edge_id: Uuid,
    names: &[&str],
) -> Result<Option<Refusal>, BulkError> {
    let taken = tx
        .query(
            "SELECT t.name, e.name FROM {schema}.tag t JOIN {schema}.edge e ON e.id = t.edge_id \
             WHERE t.name = ANY($1) AND t.edge_id <> $2 ORDER BY t.name LIMIT 1",
            &[&names, &edge_id],
        )
        .await?;
    Ok(taken.first().map(|row| {
        let (tag, owner): (String, String) = (row.get(0), row.get(1));
        format!("tag `{tag}` is published by edge `{owner}` already; rename it in one of the two")
    }))
}

async fn upsert_tags(
    tx: &mut BulkTx<'_>,
    edge_id: Uuid,
    dictionary: &Dictionary,
    names: &[&str],
) -> Result<(), BulkError> {
    let tags = &dictionary.tags;
    let units: Vec<&str> = tags.iter().map(|tag| tag.unit.as_str()).collect();
    let descriptions: Vec<&str> = tags.iter().map(|tag| tag.description.as_str()).collect();
    let lines: Vec<Option<&str>> = tags.iter().map(|tag| tag.line.as_deref()).collect();
    let periods: Vec<i32> = tags
        .iter()
        .map(|tag| i32::try_from(tag.period_ms).unwrap_or(i32::MAX))
        .collect();
    let simulated: Vec<bool> = tags.iter().map(|tag| tag.simulated).collect();
    // A row is written only when it changes: an edge that restarts with the same dictionary writes none.
    tx.execute(
        "INSERT INTO {schema}.tag AS t (name, edge_id, line_id, unit, description, period_ms, is_simulated) \
         SELECT n.name, $1, l.id, n.unit, n.description, n.period_ms, n.is_simulated \
         FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bool[]) \
           AS n (name, unit, description, line, period_ms, is_simulated) LEFT JOIN {schema}.line l ON l.code = n.line \
         ORDER BY n.name \
         ON CONFLICT (name) DO UPDATE SET edge_id = excluded.edge_id, line_id = excluded.line_id, \
           unit = excluded.unit, description = excluded.description, period_ms = excluded.period_ms, \
           is_simulated = excluded.is_simulated \
         WHERE (t.edge_id, t.line_id, t.unit, t.description, t.period_ms, t.is_simulated) IS DISTINCT FROM \
           (excluded.edge_id, excluded.line_id, excluded.unit, excluded.description, excluded.period_ms, \
            excluded.is_simulated)",
        &[
            &edge_id,
            &names,
            &units,
            &descriptions,
            &lines,
            &periods,
            &simulated,
        ],
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_far_from_zero_costs_no_memory_and_is_found() {
        let tag = |id| KnownTag {
            id,
            is_simulated: false,
        };
        let mapping = Mapping::new([(0, tag(5)), (u32::MAX, tag(6))].into_iter());
        assert_eq!(mapping.get(Alias(0)), Some(tag(5)));
        assert_eq!(mapping.get(Alias(u32::MAX)), Some(tag(6)));
        assert_eq!(mapping.get(Alias(1)), None);
        assert_eq!(mapping.dense.len(), 1);
    }
}
