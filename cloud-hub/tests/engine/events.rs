//! Projections follow from events and nothing else: whatever happened, however often the runner was cut off, and made
//! anew from the first event, they are the same to the byte.

use std::time::Duration;

use cloud_hub::{
    fsq::resources::supplier::Supplier,
    integrate::projection::{ActivityDays, Projection, SearchEntries, catch_up, step},
    kernel::{
        audit::Deed,
        event::NewEvent,
        resource::{self, Resource},
        tenancy::{TenancyError, TenantTx},
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{TestDatabase, akron};

/// One deed of a random history.
async fn deed(tx: &mut TenantTx, random: &mut StdRng, known: &mut Vec<(Uuid, i32)>) {
    let number: u32 = random.random();
    match random.random_range(0..10) {
        0..4 => {
            let new = json!({ "code": format!("S-{number}"), "name": format!("name {number}") });
            let new = serde_json::from_value(new).unwrap();
            let made = resource::create::<Supplier>(tx, &new).await.unwrap();
            known.push((made.id(), 1));
        }
        4..7 if !known.is_empty() => {
            let place = random.random_range(0..known.len());
            let (id, version) = &mut known[place];
            let given: Map<String, Value> =
                Map::from_iter([("name".to_owned(), json!(format!("renamed {number}")))]);
            let patch = serde_json::from_value(Value::Object(given.clone())).unwrap();
            resource::update::<Supplier>(tx, *id, *version, &patch, &given)
                .await
                .unwrap();
            *version += 1;
        }
        7 if !known.is_empty() => {
            let (id, version) = known.swap_remove(random.random_range(0..known.len()));
            resource::delete::<Supplier>(tx, id, version).await.unwrap();
        }
        // An event that one projection cannot read.
        8 => {
            let id = Uuid::from_u128(u128::from(number % 3));
            tx.audit(&Deed::on("test", "thing", id));
            let payload = if number.is_multiple_of(2) {
                json!([1])
            } else {
                json!({ "code": "T" })
            };
            tx.event(&NewEvent::new("ThingDone", "thing", id, payload));
        }
        _ => {
            let id = Uuid::from_u128(u128::from(number % 7));
            tx.audit(&Deed::on("test", "batch", id));
            let payload = json!({ "code": format!("B-{}", number % 7), "sku": "MLK" });
            tx.event(&NewEvent::new("BatchStarted", "batch", id, payload));
        }
    }
}

async fn history(test: &TestDatabase, random: &mut StdRng, deeds: usize, known: &mut Vec<(Uuid, i32)>) {
    let mut done = 0;
    while done < deeds {
        let mut tx = test.db.begin(&akron()).await.unwrap();
        for _ in 0..random.random_range(1..6) {
            deed(&mut tx, random, known).await;
            done += 1;
        }
        // Some deeds do not come about.
        if random.random_bool(0.9) {
            tx.commit().await.unwrap();
        } else {
            known.clear();
        }
    }
}

/// All rows that are read, as text.
async fn rows(test: &TestDatabase) -> String {
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let mut text = String::new();
    for sql in [
        "SELECT coalesce(string_agg((to_jsonb(s) - 'generation')::text, E'\\n' ORDER BY entity, id), '') \
         FROM search_entry s JOIN projection p ON p.name = 'search_entry' AND p.generation = s.generation",
        "SELECT coalesce(string_agg((to_jsonb(a) - 'generation')::text, E'\\n' ORDER BY day, aggregate, kind), '') \
         FROM activity_day a JOIN projection p ON p.name = 'activity_day' AND p.generation = a.generation",
        "SELECT coalesce(string_agg(d.projection || ' ' || d.seq || ' ' || d.reason, E'\\n' ORDER BY d.projection, d.seq), '') \
         FROM event_dead_letter d JOIN projection p ON p.name = d.projection AND p.generation = d.generation",
    ] {
        text += &sqlx::query_scalar::<_, String>(sql)
            .fetch_one(tx.conn())
            .await
            .unwrap();
        text.push('\n');
    }
    text
}

/// A runner that was cut off a moment ago may hold its lock a moment longer: then it is another's turn, and ours is
/// the next.
async fn catch_up_both(test: &TestDatabase) {
    const BEHIND: &str = "SELECT count(*) FROM projection \
        WHERE rebuilding IS NOT NULL OR seq < (SELECT coalesce(max(seq), 0) FROM domain_event)";
    let stop = CancellationToken::new();
    while test.count(&akron(), BEHIND).await > 0 {
        catch_up::<SearchEntries>(&test.db, &akron(), &stop)
            .await
            .unwrap();
        catch_up::<ActivityDays>(&test.db, &akron(), &stop).await.unwrap();
    }
}

async fn run(test: &TestDatabase, sql: &'static str) {
    let mut tx = test.db.begin(&akron()).await.unwrap();
    sqlx::raw_sql(sql).execute(tx.conn()).await.unwrap();
    tx.commit_unaudited("a test sets the stage").await.unwrap();
}

async fn start_again(test: &TestDatabase) {
    run(
        test,
        "DELETE FROM search_entry; DELETE FROM activity_day; DELETE FROM event_dead_letter; \
         UPDATE projection SET seq = 0",
    )
    .await;
}

/// Steps of random size, cut off at random moments, by several runners at once.
async fn stumble<P: Projection>(test: &TestDatabase, seed: u64) {
    let runner = async |seed: u64| {
        let mut random = StdRng::seed_from_u64(seed);
        loop {
            let most = random.random_range(1..20);
            let patience = Duration::from_micros(random.random_range(50..6_000));
            match tokio::time::timeout(patience, step::<P>(&test.db, &akron(), most)).await {
                Ok(Ok(false)) => return,
                Ok(Ok(true) | Err(TenancyError::Unavailable(_))) | Err(_) => {}
                Ok(Err(error)) => panic!("{error:?}"),
            }
        }
    };
    tokio::join!(runner(seed), runner(seed + 1), runner(seed + 2));
}

#[tokio::test]
async fn a_tenants_events_replayed_give_the_same_projections_to_the_byte() {
    for seed in 0..4 {
        let test = TestDatabase::create().await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut known = Vec::new();
        // As it happens: some deeds, some catching up.
        for _ in 0..5 {
            history(&test, &mut random, 30, &mut known).await;
            catch_up_both(&test).await;
        }
        let as_it_happened = rows(&test).await;
        assert!(as_it_happened.lines().count() > 20, "{as_it_happened}");
        assert!(
            as_it_happened.contains("search_entry"),
            "dead letters are part of it"
        );

        start_again(&test).await;
        catch_up_both(&test).await;
        assert_eq!(rows(&test).await, as_it_happened, "seed {seed}, in one go");

        start_again(&test).await;
        stumble::<SearchEntries>(&test, seed * 10).await;
        stumble::<ActivityDays>(&test, seed * 10 + 5).await;
        catch_up_both(&test).await;
        assert_eq!(
            rows(&test).await,
            as_it_happened,
            "seed {seed}, cut off again and again"
        );

        run(
            &test,
            "UPDATE projection SET rebuilding = generation + 1, rebuilt_seq = 0",
        )
        .await;
        stumble::<SearchEntries>(&test, seed * 10).await;
        catch_up_both(&test).await;
        assert_eq!(
            rows(&test).await,
            as_it_happened,
            "seed {seed}, made anew beside the old"
        );
        let swapped = "SELECT count(*) FROM projection WHERE generation = 2 AND rebuilding IS NULL";
        assert_eq!(test.count(&akron(), swapped).await, 2);
        let left = "SELECT count(*) FROM search_entry WHERE generation <> 2";
        assert_eq!(test.count(&akron(), left).await, 0);
    }
}

#[tokio::test]
async fn a_projection_that_another_hub_is_at_is_left_to_it() {
    let test = TestDatabase::create().await;
    let mut random = StdRng::seed_from_u64(1);
    history(&test, &mut random, 10, &mut Vec::new()).await;
    let mut other = test.db.begin(&akron()).await.unwrap();
    sqlx::query("SELECT FROM projection FOR UPDATE")
        .execute(other.conn())
        .await
        .unwrap();
    assert!(!step::<SearchEntries>(&test.db, &akron(), 100).await.unwrap());
    drop(other);
    // The other's transaction ends a moment after it is dropped.
    while !step::<SearchEntries>(&test.db, &akron(), 100).await.unwrap() {}
}
