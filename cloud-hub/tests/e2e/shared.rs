//! Is every acquired reading stored exactly once by three hubs that share one database and one Mosquitto, when edges
//! send again at random and hubs, database and broker die at random? The hubs know nothing of each other.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cloud_hub::{embedded::Cluster, kernel::tenancy::TenantSlug};
use protocol::{
    Quality, Reading,
    ack::{self, Acknowledgement, Outcome, Subject},
    frame::FrameId,
    lane::Lane,
    reading::Alias,
    topic::{Channel, Topic},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    kills::Dice,
    support::{FrameMaker, TestDatabase, akron, cuyahoga, start_cluster},
};

const HUBS: usize = 3;
const KILLS: u64 = 8;
const KILLS_SOAK: u64 = 200;
const TAGS: i64 = 20;
const READINGS_A_FRAME: i64 = 200;
const PASSWORD: &str = "of-the-test";
/// A frame that nobody acknowledged is sent again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const DRAIN_WITHIN: Duration = Duration::from_mins(2);

// === the processes ===

struct Scene {
    folder: PathBuf,
    mqtt_port: u16,
    mosquitto: Child,
    hubs: Vec<Child>,
    cluster: Cluster,
    database: TestDatabase,
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in self.hubs.iter_mut().chain([&mut self.mosquitto]) {
            child.kill().unwrap_or_default();
            child.wait().ok();
        }
    }
}

fn start(mut command: Command, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    child
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn start_mosquitto(folder: &Path) -> Child {
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(folder.join("mosquitto.conf"));
    start(command, &folder.join("mosquitto.log"))
}

impl Scene {
    async fn start(folder: &Path) -> Self {
        let cluster = start_cluster(&folder.join("server")).await;
        let database = TestDatabase::create_on(&cluster).await;
        let mqtt_port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let passwords = folder.join("passwords");
        for (user, extra) in [("hub", "-c"), ("edge", "-b")] {
            let mut command = Command::new("mosquitto_passwd");
            command.arg("-b");
            if extra == "-c" {
                command.arg("-c");
            }
            let done = command.arg(&passwords).args([user, PASSWORD]).output();
            assert!(
                done.expect("mosquitto is installed: apt-get install mosquitto")
                    .status
                    .success()
            );
        }
        std::fs::write(
            folder.join("mosquitto.conf"),
            format!(
                "listener {mqtt_port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nuser root\n",
                passwords.display()
            ),
        )
        .unwrap();
        std::fs::write(folder.join("hub-password"), PASSWORD).unwrap();
        std::fs::write(
            folder.join("hub.toml"),
            format!(
                "[mqtt.external]\nurl = \"mqtt://127.0.0.1:{mqtt_port}\"\nusername = \"hub\"\npassword_file = \"{}\"\n",
                folder.join("hub-password").display()
            ),
        )
        .unwrap();
        let mosquitto = start_mosquitto(folder);
        let mut scene = Self {
            folder: folder.to_owned(),
            mqtt_port,
            mosquitto,
            hubs: Vec::new(),
            cluster,
            database,
        };
        for number in 0..HUBS {
            let hub = scene.start_hub(number);
            scene.hubs.push(hub);
        }
        for number in 0..HUBS {
            scene.wait_for_hub(number).await;
        }
        scene
    }

    fn hub_folder(&self, number: usize) -> PathBuf {
        self.folder.join(format!("hub-{number}"))
    }

    fn start_hub(&self, number: usize) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foodflow-hub"));
        command
            .args([
                "serve",
                "--http",
                "127.0.0.1:0",
                "--mqtt",
                "127.0.0.1:0",
                "--config",
            ])
            .arg(self.folder.join("hub.toml"))
            .arg("--data-dir")
            .arg(self.hub_folder(number))
            .args(["--database-url", &self.database.url("foodflow_app")]);
        start(command, &self.folder.join(format!("hub-{number}.log")))
    }

    async fn wait_for_hub(&self, number: usize) {
        let ready = self.hub_folder(number).join("ready.json");
        let patience = Instant::now() + Duration::from_mins(1);
        while !ready.exists() {
            assert!(Instant::now() < patience, "hub {number} is not ready in time");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills one part and lets it return after a while.
    async fn kill_one(&mut self, dice: &mut Dice) -> &'static str {
        let pause = Duration::from_millis(dice.between(0, 1_500));
        match dice.between(0, 6) {
            0..=2 => {
                let number = dice.between(0, HUBS as u64) as usize;
                self.hubs[number].kill().unwrap();
                self.hubs[number].wait().unwrap();
                std::fs::remove_file(self.hub_folder(number).join("ready.json")).ok();
                sleep(pause).await;
                self.hubs[number] = self.start_hub(number);
                "hub"
            }
            3 => {
                self.mosquitto.kill().unwrap();
                self.mosquitto.wait().unwrap();
                sleep(pause).await;
                self.mosquitto = start_mosquitto(&self.folder);
                "broker"
            }
            _ => {
                // Its keeper starts it again; it may be starting already.
                if let Some(pid) = self.cluster.pid() {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap_or_default();
                }
                "database"
            }
        }
    }

    /// What each hub that runs now says it has stored.
    async fn stored_by_hub(&self) -> Vec<u64> {
        let mut stored = Vec::new();
        for number in 0..HUBS {
            let ready = std::fs::read_to_string(self.hub_folder(number).join("ready.json")).unwrap();
            let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
            // Fails when another test did it before, which is as good.
            rustls::crypto::ring::default_provider().install_default().ok();
            let url = format!("http://{}/metrics", ready["http"].as_str().unwrap());
            let text = reqwest::get(url).await.unwrap().text().await.unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("foodflow_ingest_readings_total "));
            stored.push(line.map_or(0, |number| number.trim().parse().unwrap()));
        }
        stored
    }
}

// === a pretended edge ===

/// What an edge acquired and what it was told.
#[derive(Default)]
struct Log {
    unacknowledged: BTreeMap<FrameId, (Vec<u8>, Instant)>,
    done: Vec<Vec<u8>>,
    frames: i64,
    readings: i64,
    sum: f64,
    newest_us: i64,
    sent_again: u64,
    refused: Vec<String>,
}

struct Edge {
    maker: FrameMaker,
    client: AsyncClient,
    log: Arc<Mutex<Log>>,
}

impl Edge {
    fn connect(tenant: &TenantSlug, name: &str, port: u16) -> Self {
        let tags: Vec<String> = (0..TAGS).map(|tag| format!("{name}-{tag}")).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let maker = FrameMaker::new(name, &tags).in_tenant(tenant.as_str());
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options
            .set_credentials("edge", PASSWORD)
            .set_clean_start(true)
            .set_keep_alive(Duration::from_secs(5))
            .set_max_packet_size(Some(2 << 20));
        let (client, events) = AsyncClient::new(options, 512);
        let log = Arc::new(Mutex::new(Log::default()));
        tokio::spawn(listen(maker.clone(), client.clone(), events, log.clone()));
        Self { maker, client, log }
    }

    fn publish(&self, channel: Channel, payload: Vec<u8>) {
        // Lost when the client's queue is full or the broker away: it is sent again.
        let topic = self.maker.topic(channel);
        self.client
            .try_publish(topic, QoS::AtLeastOnce, false, Bytes::from(payload))
            .ok();
    }

    /// Acquires frames and sends them, at random again, until told to stop; then sends what is left until it is stored.
    async fn run(self, seed: u64, until: Arc<std::sync::atomic::AtomicBool>) -> Log {
        let mut rng = StdRng::seed_from_u64(seed);
        let from_us = crate::plant::now_us() - 3_600_000_000;
        let mut number = 0_i64;
        while !until.load(std::sync::atomic::Ordering::Relaxed) {
            self.acquire(&mut number, from_us, &mut rng);
            if rng.random_bool(0.2) {
                self.repeat(&mut rng);
            }
            self.send_overdue();
            sleep(Duration::from_millis(rng.random_range(20..120))).await;
        }
        let patience = Instant::now() + DRAIN_WITHIN;
        loop {
            let left = self.log.lock().unwrap().unacknowledged.len();
            if left == 0 {
                return std::mem::take(&mut *self.log.lock().unwrap());
            }
            assert!(
                Instant::now() < patience,
                "{left} frames of {} were never stored",
                self.maker.edge
            );
            self.send_overdue();
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn acquire(&self, number: &mut i64, from_us: i64, rng: &mut StdRng) {
        let lane = [Lane::Live, Lane::Live, Lane::Backfill][rng.random_range(0..3)];
        let readings: Vec<Reading> = (0..READINGS_A_FRAME)
            .map(|row| {
                let at = *number * READINGS_A_FRAME + row;
                Reading::new(
                    Alias((at % TAGS) as u32),
                    from_us + at * 10_000,
                    at as f64,
                    Quality::GOOD,
                )
            })
            .collect();
        let mut log = self.log.lock().unwrap();
        log.frames += 1;
        log.readings += READINGS_A_FRAME;
        log.sum += readings.iter().filter_map(Reading::value).sum::<f64>();
        log.newest_us = readings.last().unwrap().time_us;
        let frame = self.maker.frame(lane, *number as u64, readings, vec![]);
        let bytes = frame.encode().unwrap();
        log.unacknowledged
            .insert(frame.header.id, (bytes.clone(), Instant::now()));
        drop(log);
        *number += 1;
        self.publish(Channel::Up(lane), bytes);
    }

    /// Sends something again that may be stored already.
    fn repeat(&self, rng: &mut StdRng) {
        let mut log = self.log.lock().unwrap();
        if log.done.is_empty() {
            return;
        }
        let bytes = log.done[rng.random_range(0..log.done.len())].clone();
        log.sent_again += 1;
        drop(log);
        self.publish(Channel::Up(Lane::Backfill), bytes);
    }

    fn send_overdue(&self) {
        let mut log = self.log.lock().unwrap();
        let overdue: Vec<(Lane, Vec<u8>)> = log
            .unacknowledged
            .iter_mut()
            .filter(|(_, (_, sent))| sent.elapsed() > AGAIN_AFTER)
            .map(|(id, (bytes, sent))| {
                *sent = Instant::now();
                (id.lane, bytes.clone())
            })
            .take(16)
            .collect();
        log.sent_again += overdue.len() as u64;
        drop(log);
        for (lane, bytes) in overdue {
            self.publish(Channel::Up(lane), bytes);
        }
    }
}

async fn listen(
    maker: FrameMaker,
    client: AsyncClient,
    mut events: rumqttc::v5::EventLoop,
    log: Arc<Mutex<Log>>,
) {
    let acks = Topic::new(&maker.tenant, &maker.edge, Channel::Ack).to_string();
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                client.try_subscribe(&acks, QoS::AtLeastOnce).ok();
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                for one in ack::decode(&publish.payload).unwrap() {
                    if note(&mut log.lock().unwrap(), one) {
                        let dictionary = Bytes::from(maker.dictionary.encode());
                        let topic = maker.topic(Channel::Dictionary);
                        client
                            .try_publish(topic, QoS::AtLeastOnce, false, dictionary)
                            .ok();
                    }
                }
            }
            Ok(_) => {}
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Takes note of an acknowledgement; true when the hub asks for the dictionary.
fn note(log: &mut Log, one: Acknowledgement) -> bool {
    match (one.subject, one.outcome) {
        (Subject::Frame(id), Outcome::Stored) => {
            if let Some((bytes, _)) = log.unacknowledged.remove(&id) {
                log.done.push(bytes);
            }
            false
        }
        (_, Outcome::NeedDictionary(_)) => true,
        (subject, Outcome::Rejected { reason }) => {
            log.refused.push(format!("{subject:?}: {reason}"));
            false
        }
        _ => false,
    }
}

// === the test ===

#[tokio::test(flavor = "multi_thread")]
async fn three_hubs_on_one_database_and_one_mosquitto_store_everything_exactly_once_whoever_is_killed() {
    let folder = crate::folder();
    let mut scene = Scene::start(folder.path()).await;
    let mut dice = Dice::new();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut edges = JoinSet::new();
    for (tenant, name) in [
        (akron(), "s1"),
        (akron(), "s2"),
        (akron(), "s3"),
        (cuyahoga(), "s4"),
    ] {
        let edge = Edge::connect(&tenant, name, scene.mqtt_port);
        let (seed, stop) = (dice.between(0, u64::MAX), stop.clone());
        edges.spawn(async move { (tenant, edge.run(seed, stop).await) });
    }
    let started = Instant::now();
    let mut killed = BTreeMap::new();
    let kills = if std::env::var_os("FOODFLOW_SOAK").is_some() {
        KILLS_SOAK
    } else {
        KILLS
    };
    for _ in 0..kills {
        sleep(Duration::from_millis(dice.between(500, 2_500))).await;
        *killed.entry(scene.kill_one(&mut dice).await).or_insert(0) += 1;
    }
    sleep(Duration::from_secs(2)).await;
    let ran_s = started.elapsed().as_secs_f64();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut logs: Vec<(TenantSlug, Log)> = Vec::new();
    while let Some(done) = edges.join_next().await {
        logs.push(done.unwrap());
    }
    let drained = started.elapsed().as_secs_f64() - ran_s;
    for number in 0..HUBS {
        scene.wait_for_hub(number).await;
    }
    let (acquired, again): (i64, u64) = logs.iter().fold((0, 0), |(readings, again), (_, log)| {
        (readings + log.readings, again + log.sent_again)
    });
    eprintln!(
        "seed {}: {killed:?} killed in {ran_s:.0} s; {acquired} readings acquired, {again} frames sent again, drained in \
         {drained:.1} s; by the hubs since their last start: {:?}",
        dice.seed,
        scene.stored_by_hub().await
    );
    for tenant in [akron(), cuyahoga()] {
        let logs: Vec<&Log> = logs
            .iter()
            .filter(|(of, _)| *of == tenant)
            .map(|(_, log)| log)
            .collect();
        check(&scene.database, &tenant, &logs).await;
    }
}

async fn refresh_rollups(database: &TestDatabase, tenant: &TenantSlug) {
    loop {
        let mut tx = database.db.begin(tenant).await.unwrap();
        let marks: Option<i32> = sqlx::query_scalar("SELECT refresh_rollups('infinity', 100000)")
            .fetch_one(tx.conn())
            .await
            .unwrap();
        tx.commit_unaudited("rollups follow from the readings")
            .await
            .unwrap();
        match marks {
            Some(0) => return,
            // A hub is at it.
            None => sleep(Duration::from_millis(100)).await,
            Some(_) => {}
        }
    }
}

async fn check(database: &TestDatabase, tenant: &TenantSlug, logs: &[&Log]) {
    let refused: Vec<&String> = logs.iter().flat_map(|log| &log.refused).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let sum = |of: fn(&Log) -> i64| logs.iter().map(|log| of(log)).sum::<i64>();
    let count = |sql| database.count(tenant, sql);
    assert_eq!(count("SELECT count(*) FROM frame").await, sum(|log| log.frames));
    assert_eq!(
        count("SELECT count(*) FROM reading").await,
        sum(|log| log.readings)
    );
    assert_eq!(
        count("SELECT sum(value)::int8 FROM reading").await,
        logs.iter().map(|log| log.sum).sum::<f64>() as i64
    );
    assert_eq!(
        count("SELECT count(*) FROM (SELECT FROM reading GROUP BY tag_id, time HAVING count(*) > 1) d").await,
        0,
        "a tag has one reading at a time"
    );
    assert_eq!(count("SELECT count(*) FROM dead_letter").await, 0);
    let newest = "SELECT count(*) FROM tag_last l WHERE time = (SELECT max(time) FROM reading r WHERE r.tag_id = l.tag_id)";
    assert_eq!(count(newest).await, TAGS * logs.len() as i64);
    // The rollups hold every reading once, too, however they came.
    refresh_rollups(database, tenant).await;
    assert_eq!(
        count("SELECT sum(n)::int8 FROM reading_1m").await,
        sum(|log| log.readings)
    );
    assert_eq!(
        count("SELECT sum(n)::int8 FROM reading_1d").await,
        sum(|log| log.readings)
    );
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(
        count(deadlocks).await,
        0,
        "hubs never wait for each other in a circle"
    );
}
