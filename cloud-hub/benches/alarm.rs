//! What does it cost to watch? A thousand rules of every kind over a thousand tags at 1 Hz: CPU for each judgement and
//! the share of a core, beside the same readings without rules; how long after the commit of a reading its alarm is
//! raised; what a rule costs whose tag is silent. Counted are this process and its private cluster.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[expect(dead_code, reason = "its edge publishes from a list that is made before")]
mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use cloud_hub::{
    alarm::{
        model::{BlockMeans, Model},
        season::Zone,
        watch::Kind,
    },
    kernel::{clock::Clock, hex::hex},
    series::bus::LiveKind,
};
use common::{cpu_us, write};
use protocol::{Quality, Reading, lane::Lane, reading::Alias, topic::Channel};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{FrameMaker, MqttEdge, TestDatabase, TestHub, akron};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};
use uuid::Uuid;

const TAGS: usize = 1_000;
const IDLE: usize = TAGS;
const WARM_UP_S: u64 = 5;
const MEASURED_S: u64 = if cfg!(debug_assertions) { 10 } else { 40 };
/// Threshold rules whose limit is crossed in each second.
const CROSSING: usize = 5;
const CORE_GOAL: f64 = 0.5;
const RAISE_P99_S_GOAL: f64 = 2.0;
const EVALUATION_MS_GOAL: f64 = 0.5;
const IDLE_GOAL_US_S: f64 = 50.0;
/// Kinds in the proportion in which plants have them, of twenty.
const KINDS: [(Kind, usize); 8] = [
    (Kind::Threshold, 10),
    (Kind::NoData, 2),
    (Kind::Rate, 3),
    (Kind::ZScore, 1),
    (Kind::Mad, 1),
    (Kind::Cusum, 1),
    (Kind::Ewma, 1),
    (Kind::IsolationForest, 1),
];

fn kind_of(number: usize) -> Kind {
    let mut place = number % 20;
    for (kind, share) in KINDS {
        if place < share {
            return kind;
        }
        place -= share;
    }
    Kind::Threshold
}

struct Bench {
    hub: TestHub,
    edge: MqttEdge,
    maker: FrameMaker,
    seq: u64,
}

/// A model of tags that swing about 20.
fn model(kind: Kind) -> Option<Vec<u8>> {
    let block = |n: i64| BlockMeans {
        from_us: n * 3_600_000_000,
        means: vec![20.0 + (n % 17) as f64 / 10.0],
    };
    let blocks: Vec<BlockMeans> = (0..2_000).map(block).collect();
    let season = (kind != Kind::IsolationForest)
        .then(|| Zone::parse("America/New_York").expect("it is in the tz database"));
    let model = kind
        .is_trained()
        .then(|| Model::learn(kind, season, &blocks, 1).expect("it is enough"))?;
    Some(model.encode().expect("it can be stored"))
}

impl Bench {
    async fn start() -> Self {
        // An error says that one is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let hub = Box::pin(TestHub::start_on(TestDatabase::create().await)).await;
        let names: Vec<String> = (0..TAGS).map(|n| format!("B-{n}")).collect();
        let maker = FrameMaker::new("bench", &names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut edge = hub.edge("bench").await;
        edge.send(Channel::Dictionary, maker.dictionary.encode()).await;
        edge.acknowledged().await;
        Self {
            hub,
            edge,
            maker,
            seq: 0,
        }
    }

    /// Adds rules over tags of that name and number, as one transaction of an administrator would.
    async fn add_rules(&self, tag: &str, count: usize) {
        let mut tx = self.hub.db.begin(&akron()).await.expect("the tenant exists");
        for kind in Kind::ALL {
            let model = model(kind);
            let sha256 = model.as_ref().map(|bytes| hex(&Sha256::digest(bytes)));
            for number in (0..count).filter(|n| kind_of(*n) == kind) {
                let id = Uuid::now_v7();
                let seasonal = if kind.is_trained() && kind != Kind::IsolationForest {
                    "hour_of_week"
                } else {
                    "none"
                };
                sqlx::query(
                    "INSERT INTO alarm_rule (id, code, name, tag_name, kind, high, window_s, score_max, season, is_enabled) \
                     VALUES ($1, $2, 'of the bench', $3, $4, $5, 10, 8, $6, true)",
                )
                .bind(id)
                .bind(format!("{tag}{number}"))
                .bind(format!("{tag}{number}"))
                .bind(kind.as_str())
                .bind(if kind == Kind::Rate { 1e9 } else { 50.0 })
                .bind(seasonal)
                .execute(tx.conn())
                .await
                .expect("it is a rule");
                if let Some(model) = &model {
                    sqlx::query(
                        "INSERT INTO alarm_model (rule_id, version, valid_from, trained_from, trained_to, n, about, model, \
                           sha256, trained_by, trained_at) \
                         VALUES ($1, 1, now() - interval '1 day', now(), now(), 2000, '{}', $2, $3, 'bench', now())",
                    )
                    .bind(id)
                    .bind(model)
                    .bind(&sha256)
                    .execute(tx.conn())
                    .await
                    .expect("it is a model");
                }
            }
        }
        tx.commit_unaudited("a benchmark's rules")
            .await
            .expect("the cluster runs");
    }

    /// Publishes every tag once a second; in each second some tags cross their limit and come back in the next.
    async fn publish(&mut self, seconds: u64, is_crossing: bool) {
        let mut turns = interval(Duration::from_secs(1));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let crossers: Vec<usize> = (0..TAGS).filter(|n| kind_of(*n) == Kind::Threshold).collect();
        for second in 0..seconds {
            turns.tick().await;
            let now_us = Clock::system().now_us();
            let from = (second as usize * CROSSING) % crossers.len();
            let over: Vec<usize> = (0..CROSSING)
                .map(|n| crossers[(from + n) % crossers.len()])
                .collect();
            let value = |tag: usize| {
                if is_crossing && over.contains(&tag) {
                    99.0
                } else {
                    20.0 + ((self.seq as usize + tag) % 17) as f64 / 10.0
                }
            };
            let reading = |tag| Reading::new(Alias(tag as u32), now_us, value(tag), Quality::GOOD);
            let readings = (0..TAGS).map(reading).collect();
            let frame = self.maker.frame(Lane::Live, self.seq, readings, vec![]);
            self.seq += 1;
            let bytes = frame.encode().expect("it can be encoded");
            self.edge.send(Channel::Up(Lane::Live), bytes).await;
            self.edge.acknowledged().await;
        }
    }

    /// Cores in use while the tags are published.
    async fn measure(&mut self, is_crossing: bool) -> f64 {
        self.publish(WARM_UP_S, false).await;
        let before = (cpu_us(), Instant::now());
        self.publish(MEASURED_S, is_crossing).await;
        (cpu_us() - before.0) / before.1.elapsed().as_secs_f64() / 1e6
    }

    /// Seconds from when ingest tells of a commit to when its alarm is told, until told to stop.
    fn watch_raises(&self) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Vec<f64>>) {
        let mut bus = self.hub.hub.app.live.subscribe();
        let (stop, mut stopped) = oneshot::channel();
        let watching = tokio::spawn(async move {
            let mut committed: HashMap<i64, Instant> = HashMap::new();
            let mut delays = Vec::new();
            loop {
                let event = tokio::select! {
                    _ = &mut stopped => return delays,
                    event = bus.recv() => event.expect("the listener keeps up"),
                };
                match &event.kind {
                    LiveKind::Samples { samples, .. } => {
                        if let Some(first) = samples.first() {
                            committed.entry(first.time_us).or_insert_with(Instant::now);
                        }
                    }
                    LiveKind::Alarm { alarm, .. } if alarm["state"] == "unacknowledged" => {
                        let raised = alarm["raised_us"].as_i64().and_then(|us| committed.get(&us));
                        delays.extend(raised.map(|at| at.elapsed().as_secs_f64()));
                    }
                    _ => {}
                }
            }
        });
        (stop, watching)
    }
}

fn row(name: &str, value: f64, unit: &str, goal: f64, reference: &str) -> Value {
    println!("{name}: {value:.3} {unit} (goal {goal})");
    json!({ "name": name, "value": value, "unit": unit, "goal": goal, "pass": value <= goal, "reference": reference })
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut bench = Box::pin(Bench::start()).await;
    let without = bench.measure(false).await;
    println!("{TAGS} tags at 1 Hz without rules: {without:.3} cores");
    bench.add_rules("B-", TAGS).await;
    let (stop, watching) = bench.watch_raises();
    let with = bench.measure(true).await - without;
    stop.send(()).expect("it watches");
    let mut delays = watching.await.expect("it ended well");
    assert!(
        delays.len() as u64 >= CROSSING as u64 * (MEASURED_S - 3),
        "{} alarms were raised",
        delays.len()
    );
    delays.sort_by(f64::total_cmp);
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    // Beside the same without them: nothing crosses a limit in either.
    let standing = bench.measure(false).await;
    bench.add_rules("idle-", IDLE).await;
    let idle = bench.measure(false).await - standing;
    let what = format!("{TAGS} rules of all kinds over {TAGS} tags at 1 Hz, hub and database, beyond ingest");
    let rows = vec![
        row("alarm/core_share", with, "cores", CORE_GOAL, &what),
        row(
            "alarm/evaluation_cpu",
            with * 1e3 / TAGS as f64,
            "ms",
            EVALUATION_MS_GOAL,
            "a rule judged once a second",
        ),
        row(
            "alarm/raise_p50",
            at(0.5),
            "s",
            RAISE_P99_S_GOAL,
            "from the reading's commit to the alarm",
        ),
        row(
            "alarm/raise_p99",
            at(0.99),
            "s",
            RAISE_P99_S_GOAL,
            "from the reading's commit to the alarm",
        ),
        row(
            "alarm/idle_rule",
            idle * 1e6 / IDLE as f64,
            "us/s",
            IDLE_GOAL_US_S,
            "a rule whose tag nobody publishes",
        ),
    ];
    write(&Value::from(rows), "alarm.json");
}
