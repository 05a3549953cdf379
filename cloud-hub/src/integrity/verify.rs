//! Is a tenant's audit trail whole? The chain is walked in parts side by side, each in constant memory; then the
//! parts, the signed roots and the signatures on records are held against it. The first broken row is named.

use chrono::NaiveDate;
use futures_util::{StreamExt as _, stream};
use sqlx::{Row as _, postgres::PgRow};
use tokio_stream::Stream;

use super::{
    chain::{Broken, Fault, Row, Walk},
    root::{Root, Sealed, check_roots, compare},
    signed,
};
use crate::kernel::{
    audit::Actor,
    tenancy::{Db, TenancyError, TenantSlug, TenantTx},
};

/// Fewer rows than this are not worth a connection of their own.
const PART_ROWS_MIN: i64 = 20_000;

/// What to verify.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// First row; the first there is when 1 or less.
    pub from: i64,
    /// Last row; the last there is when greater.
    pub to: i64,
    /// Keys whose roots are believed.
    pub trusted: &'a [[u8; 32]],
    /// Roots that the customer kept.
    pub files: &'a [Root],
    /// Connections to use at once.
    pub parts: usize,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// First row that was looked at.
    pub from: i64,
    /// Last row that was looked at.
    pub to: i64,
    /// Rows that hold.
    pub rows: u64,
    /// Last row of the chain; 0 for an empty one.
    pub head_seq: i64,
    /// Its hash.
    pub head_hash: Option<Vec<u8>>,
    /// Good roots whose row was among those looked at.
    pub roots_checked: usize,
    /// Signatures on records that were looked at; they are once the last row is.
    pub signatures_checked: u64,
    /// The first thing that does not hold.
    pub first_broken: Option<Broken>,
}

/// Verifies rows of one tenant's chain.
///
/// # Errors
/// [`TenancyError`] when they cannot be read; what does not hold is no error.
pub async fn verify(db: &Db, tenant: &TenantSlug, ask: &Ask<'_>) -> Result<Verified, TenancyError> {
    let mut tx = begin(db, tenant).await?;
    // Roots before the head: one that is signed meanwhile is not about rows that are unknown here.
    let stored = roots(&mut tx).await?;
    let head: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT seq, hash FROM audit_event ORDER BY seq DESC LIMIT 1")
            .fetch_optional(tx.conn())
            .await?;
    drop(tx);
    let (head_seq, head_hash) = head.map_or((0, None), |(seq, hash)| (seq, Some(hash)));
    let (mut sealed, bad_root) = check_roots(tenant.as_str(), &stored, ask.trusted, true);
    let (kept, bad_file) = check_roots(tenant.as_str(), ask.files, ask.trusted, false);
    sealed.extend(kept);
    sealed.sort_by_key(|place| place.seq);
    let (from, to) = (ask.from.max(1), ask.to.min(head_seq));
    let is_asked = |place: &&Sealed| (from..=to).contains(&place.seq);
    let roots_checked = sealed.iter().filter(is_asked).map(|it| it.day);
    let roots_checked = roots_checked.collect::<std::collections::BTreeSet<_>>().len();
    let (rows, broken_row) = walk(db, tenant, (from, to), &sealed, ask.parts).await?;
    let (signatures_checked, broken_signature) = if to == head_seq {
        signed::check(&mut begin(db, tenant).await?).await?
    } else {
        (0, None)
    };
    let candidates = [
        broken_row,
        cut(&sealed, head_seq),
        bad_root,
        bad_file,
        compare(ask.files, &stored),
        broken_signature,
    ];
    Ok(Verified {
        from,
        to,
        rows,
        head_seq,
        head_hash,
        roots_checked,
        signatures_checked,
        first_broken: candidates.into_iter().flatten().min_by_key(|it| it.seq),
    })
}

async fn begin(db: &Db, tenant: &TenantSlug) -> Result<TenantTx, TenancyError> {
    db.begin_as(tenant, Actor::Hub { duty: "verify" }).await
}

/// A tenant's roots, by day.
pub(super) async fn roots(tx: &mut TenantTx) -> Result<Vec<Root>, TenancyError> {
    Ok(sqlx::query_as(
        "SELECT day, last_seq, last_hash, statement, signature, public_key FROM audit_root ORDER BY day",
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Rows that a root vouches for are gone from the end.
fn cut(sealed: &[Sealed], head_seq: i64) -> Option<Broken> {
    let longest = sealed.last().filter(|place| place.seq > head_seq)?;
    let (day, last_seq) = (longest.day, longest.seq);
    Some(Broken::at(head_seq + 1, Fault::Cut { day, last_seq }))
}

/// Walks the rows in parts, and says how many hold and which is the first that does not.
async fn walk(
    db: &Db,
    tenant: &TenantSlug,
    (from, to): (i64, i64),
    sealed: &[Sealed],
    parts: usize,
) -> Result<(u64, Option<Broken>), TenancyError> {
    let mut running = Vec::new();
    for (from, to) in split(from, to, parts) {
        let within = sealed.iter().filter(|place| (from..=to).contains(&place.seq));
        let part = walk_part(db.clone(), tenant.clone(), (from, to), within.copied().collect());
        running.push((from, AbortOnDrop(tokio::spawn(part))));
    }
    let (mut rows, mut last_hash) = (0, None);
    for (from, mut part) in running {
        let ended = (&mut part.0).await;
        let (walk, broken) =
            ended.map_err(|source| TenancyError::Database(sqlx::Error::decode(source)))??;
        // A part that does not begin at the start took its first row's word for the hash before it.
        if last_hash.is_some() && walk.first_prev_hash().is_some() && last_hash != walk.first_prev_hash() {
            return Ok((rows, Some(Broken::at(from, Fault::PrevHash))));
        }
        rows += walk.rows();
        last_hash = walk.last_hash();
        if broken.is_some() {
            return Ok((rows, broken));
        }
    }
    Ok((rows, None))
}

/// A part that nobody waits for any more stops.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// At most `parts` ranges of about equal length that together are `from..=to`.
fn split(from: i64, to: i64, parts: usize) -> Vec<(i64, i64)> {
    let rows = to - from + 1;
    if rows <= 0 {
        return Vec::new();
    }
    let parts = i64::try_from(parts).unwrap_or(1).min(rows / PART_ROWS_MIN).max(1);
    let length = rows.div_euclid(parts) + i64::from(rows % parts > 0);
    let starts = (0..parts).map(|part| from + part * length);
    let ranges = starts.map(|start| (start, (start + length - 1).min(to)));
    ranges.filter(|(start, end)| start <= end).collect()
}

async fn walk_part(
    db: Db,
    tenant: TenantSlug,
    (from, to): (i64, i64),
    sealed: Vec<Sealed>,
) -> Result<(Walk, Option<Broken>), TenancyError> {
    let mut tx = begin(&db, &tenant).await?;
    // By index, row after row: sorting a hundred million rows would take the disk.
    sqlx::raw_sql("SET LOCAL enable_sort TO off; SET LOCAL enable_bitmapscan TO off; SET LOCAL jit TO off")
        .execute(tx.conn())
        .await?;
    let mut walk = Walk::from(from);
    let least = if from <= 1 { i64::MIN } else { from };
    let mut rows = select(&mut tx, least, to);
    let mut sealed = sealed.into_iter().peekable();
    while let Some(row) = rows.next().await {
        let row = row?;
        let row = read(&row)?;
        if let Err(broken) = walk.step(&row) {
            return Ok((walk, Some(broken)));
        }
        while let Some(place) = sealed.next_if(|place| place.seq == row.seq) {
            if place.hash != row.hash {
                return Ok((walk, Some(Broken::at(row.seq, Fault::Rewritten(place.day)))));
            }
        }
    }
    let missing = (walk.next() <= to).then(|| Broken::at(walk.next(), Fault::Missing));
    Ok((walk, missing))
}

/// The rows of a range in order, as they arrive.
pub(super) fn select(
    tx: &mut TenantTx,
    least: i64,
    most: i64,
) -> impl Stream<Item = Result<PgRow, sqlx::Error>> + Unpin + '_ {
    let rows = sqlx::query(
        "SELECT seq, at_us, actor_kind, actor_id, action, entity, entity_id, correlation_id, event, prev_hash, hash \
         FROM audit_event WHERE seq >= $1 AND seq <= $2 ORDER BY seq",
    )
    .bind(least)
    .bind(most)
    .fetch(tx.conn());
    stream::StreamExt::fuse(rows)
}

/// A row as [`select`] gives it.
pub(super) fn read(row: &PgRow) -> Result<Row<'_>, sqlx::Error> {
    Ok(Row {
        seq: row.try_get(0)?,
        at_us: row.try_get(1)?,
        actor_kind: row.try_get(2)?,
        actor_id: row.try_get(3)?,
        action: row.try_get(4)?,
        entity: row.try_get(5)?,
        entity_id: row.try_get(6)?,
        correlation_id: row.try_get(7)?,
        event: row.try_get(8)?,
        prev_hash: row.try_get(9)?,
        hash: row.try_get(10)?,
    })
}

/// The rows of whole UTC days: the first of the one, the last of the other.
///
/// # Errors
/// [`TenancyError`].
pub async fn rows_of_days(
    db: &Db,
    tenant: &TenantSlug,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
) -> Result<(Option<i64>, Option<i64>), TenancyError> {
    let mut tx = begin(db, tenant).await?;
    let start_us = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
    let mut bounds = (None, None);
    if let Some(day) = from {
        let first: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM audit_event WHERE at_us >= $1 ORDER BY at_us, seq LIMIT 1")
                .bind(start_us(day))
                .fetch_optional(tx.conn())
                .await?;
        // Nothing since then: an empty range behind the head.
        bounds.0 = Some(first.unwrap_or(i64::MAX));
    }
    if let Some(day) = to {
        let end_us = day.succ_opt().map_or(i64::MAX, start_us);
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT seq FROM audit_event WHERE at_us < $1 ORDER BY at_us DESC, seq DESC LIMIT 1",
        )
        .bind(end_us)
        .fetch_optional(tx.conn())
        .await?;
        bounds.1 = Some(last.unwrap_or(0));
    }
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_whole() {
        for (from, to, parts) in [
            (1, 0, 4),
            (1, 1, 4),
            (1, 100_000, 4),
            (7, 100_003, 3),
            (1, 39_999, 8),
            (5, 5 + 7 * PART_ROWS_MIN, 7),
        ] {
            let ranges = split(from, to, parts);
            assert!(ranges.len() <= parts);
            let mut next = from;
            for (start, end) in ranges {
                assert_eq!(start, next);
                assert!(end >= start);
                next = end + 1;
            }
            assert_eq!(next, to + 1, "{from} to {to}");
        }
        assert_eq!(split(1, 100_000, 4).len(), 4);
    }
}
