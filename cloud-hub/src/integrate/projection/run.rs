//! How do projections keep up? A batch of events and the place behind it in one transaction, so that a hub that is
//! killed has done all of it or nothing. An event that a projection cannot take in is put aside with its reason; later
//! ones of the same record wait behind it, those of others go on.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    ActivityDays, Projection, SearchEntries, Unfit,
    state::{Lane, take_turn},
};
use crate::{
    app::App,
    integrate::{
        event::{self, DomainEvent, Wanted},
        wake::{self, Wake},
    },
    kernel::{
        audit::Actor,
        tenancy::{Db, TenancyError, TenantSlug},
    },
};

/// Events taken in by one transaction.
pub const BATCH: i64 = 500;

/// Keeps all projections of all tenants up to date until `stop` is cancelled.
pub async fn run(app: App, stop: CancellationToken) {
    let mut wake = Wake::new(&app);
    loop {
        let news = tokio::select! {
            () = stop.cancelled() => {
                app.db.pulse().stopping();
                return;
            }
            news = wake.next() => news,
        };
        let tenants = match wake::tenants(&app, news).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(%error, "projections wait for the database");
                continue;
            }
        };
        for tenant in tenants {
            if stop.is_cancelled() {
                break;
            }
            if let Err(error) = catch_up_all(&app.db, &tenant, &stop).await {
                tracing::warn!(%tenant, %error, "projections could not be brought up to date");
            }
        }
    }
}

async fn catch_up_all(db: &Db, tenant: &TenantSlug, stop: &CancellationToken) -> Result<(), TenancyError> {
    catch_up::<SearchEntries>(db, tenant, stop).await?;
    catch_up::<ActivityDays>(db, tenant, stop).await
}

/// Brings one projection of one tenant up to date, unless another hub is at it.
///
/// # Errors
/// [`TenancyError`].
pub async fn catch_up<P: Projection>(
    db: &Db,
    tenant: &TenantSlug,
    stop: &CancellationToken,
) -> Result<(), TenancyError> {
    while !stop.is_cancelled() && step::<P>(db, tenant, BATCH).await? {}
    Ok(())
}

/// Takes in up to `most` events; false when there was nothing to do, or it was another hub's turn.
///
/// # Errors
/// [`TenancyError`].
pub async fn step<P: Projection>(db: &Db, tenant: &TenantSlug, most: i64) -> Result<bool, TenancyError> {
    let duty = Actor::Hub { duty: "projections" };
    let mut tx = db.begin_as(tenant, duty).await?;
    let newest = event::newest(tx.conn()).await?;
    let Some(stand) = take_turn(tx.conn(), P::NAME).await? else {
        return Ok(false);
    };
    let Some(lane) = stand.lane(newest) else {
        return Ok(false);
    };
    let events = event::after(tx.conn(), lane.after(), most, &Wanted::default()).await?;
    take_in::<P>(tx.conn(), lane.generation(), &events).await?;
    let reached = events.last().map_or(lane.after(), |event| event.seq);
    move_on::<P>(tx.conn(), lane, reached, stand.seq).await?;
    tx.commit_unaudited("a projection follows from events, and those from audited deeds")
        .await?;
    Ok(true)
}

async fn move_on<P: Projection>(
    conn: &mut PgConnection,
    lane: Lane,
    reached: i64,
    current: i64,
) -> Result<(), sqlx::Error> {
    let sql = match lane {
        Lane::Current { .. } => "UPDATE projection SET seq = $2 WHERE name = $1",
        Lane::Rebuild { .. } if reached < current => "UPDATE projection SET rebuilt_seq = $2 WHERE name = $1",
        Lane::Rebuild { .. } => {
            "UPDATE projection SET generation = rebuilding, seq = $2, rebuilding = NULL, rebuilt_seq = NULL, \
               rebuilt_at = now() WHERE name = $1"
        }
    };
    sqlx::query(sql)
        .bind(P::NAME)
        .bind(reached)
        .execute(&mut *conn)
        .await?;
    if matches!(lane, Lane::Rebuild { .. }) && reached >= current {
        forget_others(conn, P::NAME, lane.generation()).await?;
    }
    Ok(())
}

/// Removes what no reader will see again.
pub(super) async fn forget_others(
    conn: &mut PgConnection,
    name: &'static str,
    generation: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(format!(
        "DELETE FROM {name} WHERE generation <> $1"
    )))
    .bind(generation)
    .execute(&mut *conn)
    .await?;
    sqlx::query("DELETE FROM event_dead_letter WHERE projection = $1 AND generation <> $2")
        .bind(name)
        .bind(generation)
        .execute(conn)
        .await?;
    Ok(())
}

/// Records whose events are put aside.
type Parked = HashSet<(String, Uuid)>;

/// Writes what the events mean. All at once first; when the database refuses one, each by itself.
async fn take_in<P: Projection>(
    conn: &mut PgConnection,
    generation: i32,
    events: &[DomainEvent],
) -> Result<(), sqlx::Error> {
    let parked = parked::<P>(conn, generation).await?;
    if try_all::<P>(conn, generation, events, &mut parked.clone())
        .await?
        .is_none()
    {
        return Ok(());
    }
    let mut parked = parked;
    for event in events {
        let one = std::slice::from_ref(event);
        if let Some(unfit) = try_all::<P>(conn, generation, one, &mut parked).await? {
            put_aside::<P>(conn, generation, event, &unfit).await?;
            parked.insert((event.aggregate.clone(), event.aggregate_id));
        }
    }
    Ok(())
}

async fn parked<P: Projection>(conn: &mut PgConnection, generation: i32) -> Result<Parked, sqlx::Error> {
    let rows: Vec<(String, Uuid)> = sqlx::query_as(
        "SELECT DISTINCT aggregate, aggregate_id FROM event_dead_letter WHERE projection = $1 AND generation = $2",
    )
    .bind(P::NAME)
    .bind(generation)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().collect())
}

/// All of them, or none and the reason of the database.
pub(super) async fn try_all<P: Projection>(
    conn: &mut PgConnection,
    generation: i32,
    events: &[DomainEvent],
    parked: &mut Parked,
) -> Result<Option<Unfit>, sqlx::Error> {
    sqlx::raw_sql("SAVEPOINT taken_in").execute(&mut *conn).await?;
    let written = write_all::<P>(conn, generation, events, parked).await;
    let (end, refusal) = match written {
        Ok(()) => ("RELEASE SAVEPOINT taken_in", None),
        Err(sqlx::Error::Database(refusal)) if is_the_datas_fault(refusal.code().as_deref()) => (
            "ROLLBACK TO SAVEPOINT taken_in; RELEASE SAVEPOINT taken_in",
            Some(Unfit(refusal.message().to_owned())),
        ),
        Err(error) => return Err(error),
    };
    sqlx::raw_sql(end).execute(conn).await?;
    Ok(refusal)
}

/// Bad data, a broken constraint, too large for an index: the same again would be refused again.
fn is_the_datas_fault(sqlstate: Option<&str>) -> bool {
    sqlstate.is_some_and(|code| {
        ["21", "22", "23", "54"]
            .iter()
            .any(|class| code.starts_with(class))
    })
}

async fn write_all<P: Projection>(
    conn: &mut PgConnection,
    generation: i32,
    events: &[DomainEvent],
    parked: &mut Parked,
) -> Result<(), sqlx::Error> {
    for event in events {
        let record = (event.aggregate.clone(), event.aggregate_id);
        if parked.contains(&record) {
            let waits = Unfit("an earlier event of this record waits".to_owned());
            put_aside::<P>(conn, generation, event, &waits).await?;
            continue;
        }
        match P::change(event) {
            Ok(Some(change)) => P::write(conn, generation, &change).await?,
            Ok(None) => {}
            Err(unfit) => {
                put_aside::<P>(conn, generation, event, &unfit).await?;
                parked.insert(record);
            }
        }
    }
    Ok(())
}

async fn put_aside<P: Projection>(
    conn: &mut PgConnection,
    generation: i32,
    event: &DomainEvent,
    unfit: &Unfit,
) -> Result<(), sqlx::Error> {
    tracing::warn!(projection = P::NAME, seq = event.seq, reason = %unfit, "an event is put aside");
    metrics::counter!("foodflow_projection_dead_letters_total", "projection" => P::NAME).increment(1);
    sqlx::query(
        "INSERT INTO event_dead_letter (projection, generation, seq, aggregate, aggregate_id, reason, at) \
         VALUES ($1, $2, $3, $4, $5, $6, now()) ON CONFLICT (projection, generation, seq) DO NOTHING",
    )
    .bind(P::NAME)
    .bind(generation)
    .bind(event.seq)
    .bind(&event.aggregate)
    .bind(event.aggregate_id)
    .bind(&unfit.0)
    .execute(conn)
    .await?;
    Ok(())
}
