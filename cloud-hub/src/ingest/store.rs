//! What becomes of one tenant's items within its transaction? Each is judged, frames that nobody stored before become
//! rows together, and what cannot be used is kept as a dead letter.

use std::{collections::HashMap, sync::Arc};

use protocol::{Micros, Reading};
use uuid::Uuid;

use super::{
    dictionary::{Dictionaries, Mapping},
    event::{self, Events, bury},
    fleet::Issuing,
    frame::{self, Resolved},
    read::{Content, Item, misdating},
    seen::{self, Statuses},
};
use crate::{
    kernel::bulk::{BulkError, BulkTx},
    series::bus::LiveKind,
};

/// What is remembered of a tenant between transactions.
#[derive(Debug, Default)]
pub(super) struct Known {
    edges: HashMap<String, Uuid>,
    pub(super) dictionaries: Dictionaries,
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Stored,
    Rejected(String),
    NeedDictionary(Uuid),
}

/// What a tenant's items led to, once it is committed.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) verdicts: Vec<Verdict>,
    pub(super) live: Vec<LiveKind>,
    pub(super) readings: u64,
    /// Newest source time among the readings.
    pub(super) newest_us: Option<Micros>,
}

/// Items on their way into rows.
#[derive(Debug, Default)]
struct Judged<'a> {
    frames: Vec<Resolved<'a>>,
    statuses: Statuses<'a>,
}

/// Stores a tenant's items.
pub(super) async fn items(
    tx: &mut BulkTx<'_>,
    known: &mut Known,
    items: &[Item],
    events: Events,
    issuing: Issuing<'_>,
) -> Result<Stored, BulkError> {
    let (mut verdicts, mut live) = (Vec::with_capacity(items.len()), Vec::new());
    let mut judged = Judged::default();
    for (index, item) in items.iter().enumerate() {
        let verdict = judge(tx, known, (index, item), &mut judged).await?;
        if let Verdict::Rejected(reason) = &verdict {
            bury(tx, &item.edge, &item.topic, &item.payload, reason).await?;
        }
        if matches!(item.content, Content::Status(_)) {
            live.push(LiveKind::Edge {
                name: item.edge.clone(),
            });
        }
        verdicts.push(verdict);
    }
    let claimed = frame::claim(tx, judged.frames).await?;
    let readings = claimed.iter().flat_map(|resolved| &resolved.frame.readings);
    let (count, newest_us) = (
        readings.clone().count(),
        readings.map(|reading| reading.time_us).max(),
    );
    for (lane, samples) in frame::store_readings(tx, &claimed, issuing.now).await? {
        live.push(LiveKind::Samples { lane, samples });
    }
    frame::keep_unsynced(tx, &claimed, |index| items[index].payload.as_ref()).await?;
    bury_misdated(tx, items, &claimed).await?;
    let filed = event::store(tx, &claimed, events, issuing).await?;
    for unfiled in filed.unfiled {
        let item = &items[unfiled.index];
        bury(tx, &item.edge, &item.topic, &unfiled.bytes, &unfiled.reason).await?;
    }
    live.extend(filed.live);
    seen::note(tx, &claimed, &judged.statuses, issuing.now).await?;
    Ok(Stored {
        verdicts,
        live,
        readings: count as u64,
        newest_us,
    })
}

async fn bury_misdated(
    tx: &mut BulkTx<'_>,
    items: &[Item],
    claimed: &[Resolved<'_>],
) -> Result<(), BulkError> {
    for resolved in claimed.iter().filter(|resolved| !resolved.misdated.is_empty()) {
        let item = &items[resolved.index];
        let (bytes, reason) = (
            serde_json::to_vec(resolved.misdated).unwrap_or_default(),
            misdating(resolved.misdated),
        );
        tracing::warn!(edge = %item.edge, %reason, "kept as a dead letter");
        bury(tx, &item.edge, &item.topic, &bytes, &reason).await?;
    }
    Ok(())
}

/// Decides on one item and stores it, except for a frame's rows and an edge's health: those of all go in together.
async fn judge<'a>(
    tx: &mut BulkTx<'_>,
    known: &mut Known,
    (index, item): (usize, &'a Item),
    judged: &mut Judged<'a>,
) -> Result<Verdict, BulkError> {
    let edge_id = edge_id(tx, known, &item.edge).await?;
    Ok(match &item.content {
        Content::Status(status) => {
            judged.statuses.push((index, edge_id, status));
            Verdict::Stored
        }
        Content::Dictionary(id, dictionary) => {
            let stored = known.dictionaries.store(tx, edge_id, *id, dictionary).await?;
            stored.map_or_else(Verdict::Rejected, |()| Verdict::Stored)
        }
        Content::Unusable { reason, .. } => Verdict::Rejected(reason.clone()),
        Content::Frame(frame, misdated) => {
            let id = frame.header.dictionary;
            match known.dictionaries.find(tx, edge_id, id).await? {
                None => Verdict::NeedDictionary(id),
                Some(mapping) => resolve(
                    (index, edge_id, &item.edge),
                    (frame, misdated),
                    mapping,
                    &mut judged.frames,
                ),
            }
        }
    })
}

fn resolve<'a>(
    (index, edge_id, edge): (usize, Uuid, &'a str),
    (frame, misdated): (&'a protocol::frame::Frame, &'a [Reading]),
    mapping: Arc<Mapping>,
    frames: &mut Vec<Resolved<'a>>,
) -> Verdict {
    if let Some(alias) = frame::unknown_alias(frame, &mapping) {
        return Verdict::Rejected(format!("alias {alias} is not in the frame's dictionary"));
    }
    frames.push(Resolved {
        index,
        edge_id,
        edge,
        frame,
        misdated,
        mapping,
    });
    Verdict::Stored
}

/// The row of an edge; enrolling made it, and a frame that comes first makes it too.
async fn edge_id(tx: &mut BulkTx<'_>, known: &mut Known, edge: &str) -> Result<Uuid, BulkError> {
    if let Some(id) = known.edges.get(edge) {
        return Ok(*id);
    }
    tx.execute(
        "INSERT INTO {schema}.edge (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        &[&Uuid::now_v7(), &edge],
    )
    .await?;
    let rows = tx
        .query("SELECT id FROM {schema}.edge WHERE name = $1", &[&edge])
        .await?;
    let id = rows.first().map_or_else(Uuid::nil, |row| row.get(0));
    known.edges.insert(edge.to_owned(), id);
    Ok(id)
}
