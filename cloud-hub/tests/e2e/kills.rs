//! Is every acquired reading stored exactly once when edge, hub and database die at random moments? Counters that
//! the simulated PLC advances at each read make a lost or doubled reading visible; the programs die by SIGKILL.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use cloud_hub::embedded::{Address, DATABASE, OWNER_ROLE};
use rand::{Rng as _, SeedableRng as _};
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::plant::{Options, Plant};

/// 10 devices × 50 registers every 100 ms.
const LOAD: [&str; 4] = ["--load", "devices=10,tags=50,advance=read", "--tick", "100ms"];
const READINGS_PER_S: f64 = 5_000.0;

/// Kills in the bounded run and in the full one (`make soak`).
const KILLS: u32 = 9;
const KILLS_SOAK: u32 = 200;

/// Identity of a frame: boot, lane, sequence.
type FrameKey = (String, i16, i64);

#[tokio::test(flavor = "multi_thread")]
async fn every_acquired_reading_is_stored_exactly_once_whoever_is_killed() {
    let folder = crate::folder();
    let mut options = Options::on_free_ports(folder.path()).unwrap();
    options.load = LOAD.map(str::to_owned).to_vec();
    let mut plant = Plant::start(options)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    let kills = if std::env::var_os("FOODFLOW_SOAK").is_some() {
        KILLS_SOAK
    } else {
        KILLS
    };
    let started = Instant::now();
    let mut killed = BTreeMap::new();
    let mut dice = Dice::new();
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(dice.between(500, 3_000))).await;
        *killed.entry(kill_one(&mut plant, &mut dice).await).or_insert(0) += 1;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ran_s = started.elapsed().as_secs_f64();

    let acquired = acquired(&plant);
    let drained = wait_until_stored(&plant, &acquired).await;
    plant.edge.stop().unwrap();
    let mut database = database(&plant).await;
    let counted = count(&mut database).await;
    eprintln!(
        "seed {}: {killed:?} killed in {ran_s:.0} s; {} frames and {} readings acquired, drained in {:.1} s; {counted:?}",
        dice.seed,
        acquired.len(),
        acquired.values().sum::<i64>(),
        drained.as_secs_f64()
    );

    assert_eq!(
        counted.rows, counted.rows_of_frames,
        "as many rows as the stored frames say they hold"
    );
    assert_eq!(counted.doubled, 0, "a tag has one reading at a time");
    assert_eq!(counted.repeated_counters, 0, "no counter value is stored twice");
    assert_eq!(
        counted.holes_in_sequence, 0,
        "frame sequences of a boot have no holes"
    );
    assert_eq!(counted.dead_letters, 0, "nothing was rejected");
    let expected = READINGS_PER_S * ran_s;
    assert!(
        counted.rows as f64 > expected * 0.5,
        "{} of about {expected:.0} readings: the load did not flow",
        counted.rows
    );
    // What an agent had read but not yet made durable dies with it: at most one frame's age of readings a kill.
    let edge_kills = killed.get("edge").copied().unwrap_or(0);
    let lost_max = f64::from(edge_kills) * READINGS_PER_S;
    assert!(
        counted.skipped_counters as f64 <= lost_max,
        "{} counters skipped at {edge_kills} kills",
        counted.skipped_counters
    );
}

async fn kill_one(plant: &mut Plant, dice: &mut Dice) -> &'static str {
    match dice.between(0, 3) {
        0 => {
            plant.edge.kill().unwrap();
            tokio::time::sleep(Duration::from_millis(dice.between(0, 1_500))).await;
            plant
                .restart_edge()
                .await
                .unwrap_or_else(|error| panic!("{error:#}"));
            "edge"
        }
        1 => {
            plant.hub.kill().unwrap();
            tokio::time::sleep(Duration::from_millis(dice.between(0, 1_500))).await;
            plant
                .restart_hub()
                .await
                .unwrap_or_else(|error| panic!("{error:#}"));
            "hub"
        }
        _ => {
            // The hub's keeper starts it again.
            if let Some(pid) = postmaster(plant) {
                // It may be gone already, killed a moment ago and not yet started again.
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
                    .unwrap_or_default();
            }
            "database"
        }
    }
}

fn address(plant: &Plant) -> Address {
    Address::read(&plant.options.root.join("hub")).expect("the hub recorded where its database is")
}

fn postmaster(plant: &Plant) -> Option<i32> {
    let lock = address(plant).socket_dir.join(".s.PGSQL.5432.lock");
    std::fs::read_to_string(lock)
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

async fn database(plant: &Plant) -> PgConnection {
    let options = address(plant).options(DATABASE, OWNER_ROLE);
    let answers = async {
        // A database that was killed refuses while it starts again.
        loop {
            if let Ok(connection) = PgConnection::connect_with(&options).await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), answers)
        .await
        .expect("the database answers")
}

/// Every frame that the agent said it had made durable, with its number of readings.
fn acquired(plant: &Plant) -> BTreeMap<FrameKey, i64> {
    let log = std::fs::read_to_string(plant.options.root.join("edge.log")).unwrap();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let frames = lines.filter_map(|line| {
        let fields = &line["fields"];
        (fields["message"] == "frame spooled").then(|| {
            let boot = fields["boot"].as_str().unwrap().to_owned();
            let key = (
                boot,
                fields["lane"].as_i64().unwrap() as i16,
                fields["seq"].as_i64().unwrap(),
            );
            (key, fields["readings"].as_i64().unwrap())
        })
    });
    let frames: BTreeMap<_, _> = frames.collect();
    assert!(!frames.is_empty(), "the agent's log names the frames it spooled");
    frames
}

async fn stored(database: &mut PgConnection) -> sqlx::Result<BTreeSet<FrameKey>> {
    let rows = sqlx::query("SELECT boot::text, lane, seq FROM t_akron.frame")
        .fetch_all(database)
        .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect())
}

async fn wait_until_stored(plant: &Plant, acquired: &BTreeMap<FrameKey, i64>) -> Duration {
    let started = Instant::now();
    let mut database = database(plant).await;
    loop {
        let stored = stored(&mut database).await.expect("frames can be read");
        let missing: Vec<_> = acquired.keys().filter(|key| !stored.contains(*key)).collect();
        if missing.is_empty() {
            return started.elapsed();
        }
        assert!(
            started.elapsed() < Duration::from_mins(3),
            "{} acquired frames never arrived: {:?} …",
            missing.len(),
            &missing[..missing.len().min(5)]
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[derive(Debug)]
struct Counted {
    rows: i64,
    rows_of_frames: i64,
    doubled: i64,
    repeated_counters: i64,
    skipped_counters: i64,
    holes_in_sequence: i64,
    dead_letters: i64,
}

async fn count(database: &mut PgConnection) -> Counted {
    let sql = "
        WITH good AS (
            SELECT r.tag_id, r.time, r.value::int AS value,
                   lag(r.value::int) OVER (PARTITION BY r.tag_id ORDER BY r.time) AS before
            FROM t_akron.reading r JOIN t_akron.tag t ON t.id = r.tag_id
            WHERE r.value IS NOT NULL AND t.name LIKE 'LD-%')
        SELECT (SELECT count(*) FROM t_akron.reading),
               (SELECT coalesce(sum(readings), 0)::int8 FROM t_akron.frame),
               (SELECT count(*) FROM (SELECT FROM t_akron.reading GROUP BY tag_id, time HAVING count(*) > 1) d),
               (SELECT count(*) FROM good WHERE (value - before + 65536) % 65536 = 0),
               (SELECT coalesce(sum((value - before + 65536) % 65536 - 1), 0)::int8 FROM good WHERE (value - before + 65536) % 65536 > 1),
               (SELECT coalesce(sum(n), 0)::int8 FROM (SELECT max(seq) + 1 - count(*) AS n FROM t_akron.frame GROUP BY boot, lane) h),
               (SELECT count(*) FROM t_akron.dead_letter)";
    let row = sqlx::query(sql)
        .fetch_one(database)
        .await
        .expect("the rows can be counted");
    Counted {
        rows: row.get(0),
        rows_of_frames: row.get(1),
        doubled: row.get(2),
        repeated_counters: row.get(3),
        skipped_counters: row.get(4),
        holes_in_sequence: row.get(5),
        dead_letters: row.get(6),
    }
}

/// Random numbers from a seed that a failing run prints, so that it can be repeated (`FOODFLOW_SEED`).
pub(crate) struct Dice {
    pub(crate) seed: u64,
    rng: rand::rngs::StdRng,
}

impl Dice {
    pub(crate) fn new() -> Self {
        let given = std::env::var("FOODFLOW_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| crate::plant::now_us().unsigned_abs());
        Self {
            seed,
            rng: rand::rngs::StdRng::seed_from_u64(seed),
        }
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.rng.random_range(low..high)
    }
}
