//! What does the hub know of its edges' health? The last word of a batch on each edge, written in one statement after
//! everything else and in the order of ids, so that two hubs that store frames of the same edges never wait for each
//! other in a circle.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use protocol::Micros;
use uuid::Uuid;

use super::{frame::Resolved, read::Status};
use crate::kernel::{
    bulk::{BulkError, BulkTx},
    clock::time_from_us,
};

/// Statuses of a batch, each with its place and edge.
pub(super) type Statuses<'a> = Vec<(usize, Uuid, &'a Status)>;

/// What one batch says of one edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    is_online: bool,
    was_online: bool,
    has_frame: bool,
    newest_us: Option<Micros>,
    boot: Option<Uuid>,
    software: Option<String>,
    /// Backlog and oldest record, when an edge that is online said how it is.
    health: Option<(Option<u64>, Option<Micros>)>,
}

impl Seen {
    fn hear(&mut self, status: &Status) {
        self.is_online = status.online;
        self.was_online |= status.online;
        self.boot = status.boot.or(self.boot);
        if status.version.is_some() {
            self.software.clone_from(&status.version);
        }
        if status.online {
            self.health = Some((status.backlog_frames, status.oldest_us));
        }
    }

    fn store(&mut self, newest_us: Option<Micros>) {
        (self.is_online, self.was_online, self.has_frame) = (true, true, true);
        self.newest_us = self.newest_us.max(newest_us);
    }
}

/// The last word on each edge: messages in the order in which they came.
fn summary(frames: &[Resolved<'_>], statuses: &Statuses<'_>) -> BTreeMap<Uuid, Seen> {
    enum News<'a> {
        Frame(Option<Micros>),
        Status(&'a Status),
    }
    let stored = frames.iter().map(|resolved| {
        let newest_us = resolved
            .frame
            .readings
            .iter()
            .map(|reading| reading.time_us)
            .max();
        (resolved.index, resolved.edge_id, News::Frame(newest_us))
    });
    let heard = statuses
        .iter()
        .map(|(index, edge_id, status)| (*index, *edge_id, News::Status(status)));
    let mut news: Vec<_> = stored.chain(heard).collect();
    news.sort_by_key(|(index, ..)| *index);
    let mut seen: BTreeMap<Uuid, Seen> = BTreeMap::new();
    for (_, edge_id, one) in news {
        let edge = seen.entry(edge_id).or_default();
        match one {
            News::Frame(newest_us) => edge.store(newest_us),
            News::Status(status) => edge.hear(status),
        }
    }
    seen
}

const NOTE: &str = "
WITH known AS MATERIALIZED (SELECT id FROM {schema}.edge WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE)
UPDATE {schema}.edge e SET is_online = n.is_online,
    last_seen_at = CASE WHEN n.was_online THEN $2 ELSE e.last_seen_at END,
    last_frame_at = CASE WHEN n.has_frame THEN $2 ELSE e.last_frame_at END,
    newest_time = greatest(e.newest_time, n.newest),
    boot = coalesce(n.boot, e.boot), software = coalesce(n.software, e.software),
    backlog_frames = CASE WHEN n.has_health THEN n.backlog ELSE e.backlog_frames END,
    oldest_time = CASE WHEN n.has_health THEN n.oldest ELSE e.oldest_time END
FROM known, unnest($1::uuid[], $3::bool[], $4::bool[], $5::bool[], $6::timestamptz[], $7::uuid[], $8::text[], $9::bool[],
    $10::int8[], $11::timestamptz[])
    AS n (id, is_online, was_online, has_frame, newest, boot, software, has_health, backlog, oldest)
WHERE e.id = known.id AND n.id = known.id";

fn column<T>(seen: &BTreeMap<Uuid, Seen>, value: impl Fn(&Seen) -> T) -> Vec<T> {
    seen.values().map(value).collect()
}

/// Notes at `now` what frames that were stored and statuses say of their edges.
pub(super) async fn note(
    tx: &mut BulkTx<'_>,
    frames: &[Resolved<'_>],
    statuses: &Statuses<'_>,
    now: DateTime<Utc>,
) -> Result<(), BulkError> {
    let seen = summary(frames, statuses);
    if seen.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = seen.keys().copied().collect();
    let backlog = |edge: &Seen| edge.health.and_then(|(frames, _)| frames.map(u64::cast_signed));
    let oldest = |edge: &Seen| edge.health.and_then(|(_, oldest_us)| oldest_us.map(time_from_us));
    tx.execute(
        NOTE,
        &[
            &ids,
            &now,
            &column(&seen, |edge| edge.is_online),
            &column(&seen, |edge| edge.was_online),
            &column(&seen, |edge| edge.has_frame),
            &column(&seen, |edge| edge.newest_us.map(time_from_us)),
            &column(&seen, |edge| edge.boot),
            &column(&seen, |edge| edge.software.clone()),
            &column(&seen, |edge| edge.health.is_some()),
            &column(&seen, backlog),
            &column(&seen, oldest),
        ],
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(online: bool, backlog_frames: Option<u64>) -> Status {
        Status {
            online,
            boot: None,
            version: None,
            backlog_frames,
            oldest_us: None,
        }
    }

    #[test]
    fn the_last_word_counts_and_a_farewell_keeps_the_backlog_that_was_told() {
        let (online, offline) = (status(true, Some(7)), status(false, None));
        let edge = Uuid::from_u128(1);
        let seen = summary(&[], &vec![(0, edge, &online), (1, edge, &offline)]);
        assert_eq!(
            seen[&edge],
            Seen {
                is_online: false,
                was_online: true,
                health: Some((Some(7), None)),
                ..Seen::default()
            }
        );
        let seen = summary(&[], &vec![(1, edge, &online), (0, edge, &offline)]);
        assert!(seen[&edge].is_online);
    }
}
