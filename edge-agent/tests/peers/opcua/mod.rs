//! Does the OPC UA source keep its promises against asyncua servers that restart, freeze, refuse and lie? Runs the
//! source itself, without an agent around it.

mod trust;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use edge_agent::{
    config,
    health::{SourceHealth, SourceState},
    source::{
        Acquired, Closed, Outlet,
        opcua::{self, config::Server},
    },
};
use protocol::{Quality, Reading, event::NotRead, reading::Alias};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::super::{python, support::peer::Peer};

const WITHIN: Duration = Duration::from_mins(1);

/// The Python server; killed when dropped.
struct Plant {
    peer: Peer,
    port: u16,
}

impl Plant {
    async fn start(arguments: &[&str]) -> Self {
        let mut peer = Peer::start(&python(), "opcua_plant.py", arguments);
        let port = peer.line().await.parse().unwrap();
        Self { peer, port }
    }

    async fn tell(&mut self, command: &str) -> String {
        self.peer.say(command).await;
        self.peer.line().await
    }

    async fn stat(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.tell("stat").await).unwrap()
    }
}

/// A source under test and everything that it handed over.
struct Watched {
    config: watch::Sender<Server>,
    rx: mpsc::Receiver<Acquired>,
    health: Arc<SourceHealth>,
    task: JoinHandle<Result<(), Closed>>,
    readings: Vec<Reading>,
    not_read: Vec<NotRead>,
    alarms: Vec<protocol::event::Alarm>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    fn start(server: Server, pki: &Path) -> Self {
        let (tx, rx) = mpsc::channel(4_096);
        let health = SourceHealth::new("opcua", &server.name);
        let (config, following) = watch::channel(server);
        let outlet = Outlet::new(tx, health.clone());
        let task = tokio::spawn(opcua::run(following, pki.to_owned(), outlet));
        Self {
            config,
            rx,
            health,
            task,
            readings: Vec::new(),
            not_read: Vec::new(),
            alarms: Vec::new(),
        }
    }

    fn state(&self) -> SourceState {
        self.health.snapshot().state
    }

    fn reason(&self) -> String {
        match self.state() {
            SourceState::Down { reason } => reason,
            _ => String::new(),
        }
    }

    /// Takes what the source hands over until there is enough.
    async fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let collecting = async {
            while !enough(self) {
                match self.rx.recv().await.expect("the source ended") {
                    Acquired::Readings { readings, .. } => self.readings.extend(readings),
                    Acquired::NotRead(record) => self.not_read.push(record),
                    Acquired::Alarm(alarm) => self.alarms.push(alarm),
                    other => panic!("{other:?}"),
                }
            }
        };
        if tokio::time::timeout(WITHIN, collecting).await.is_err() {
            let last: Vec<&Reading> = self.readings.iter().rev().take(5).collect();
            panic!(
                "never {what}: {:?}, last {last:?}, not read {:?}",
                self.state(),
                self.not_read
            );
        }
    }

    async fn until_values(&mut self, tag: u32, count: usize) {
        let what = format!("{count} values of tag {tag}");
        self.until(&what, |watched| watched.values(tag).len() >= count)
            .await;
    }

    fn of(&self, tag: u32) -> impl Iterator<Item = &Reading> {
        self.readings
            .iter()
            .filter(move |reading| reading.tag == Alias(tag))
    }

    fn values(&self, tag: u32) -> Vec<f64> {
        self.of(tag).filter_map(Reading::value).collect()
    }
}

fn tag(name: &str, rest: &str) -> String {
    format!("[[opcua.tag]]\nname = \"{name}\"\nnode = \"s={name}\"\n{rest}\n")
}

fn server(port: u16, keys: &str, tags: &str) -> Server {
    let text = format!(
        "[edge]\nname = \"a\"\ntenant = \"a\"\n[hub]\nmqtt = \"h:1\"\n[[opcua]]\nname = \"oven\"\n\
         url = \"opc.tcp://127.0.0.1:{port}/\"\nnamespace_uri = \"urn:foodflow:akron\"\npublish = \"200ms\"\n{keys}\n{tags}"
    );
    config::parse(&text).unwrap().opcua.remove(0)
}

fn many(count: usize) -> String {
    (0..count)
        .map(|number| tag(&format!("N.{number}"), "period = \"0s\"\nsampling = \"100ms\""))
        .collect()
}

/// COUNT, which rises by 1 each 100 ms.
const COUNT: &str = "sampling = \"100ms\"\nperiod = \"1s\"";

/// A link between agent and server that can be cut.
struct Link {
    port: u16,
    is_whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (is_whole, cut) = watch::channel(true);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let mut cut = cut.clone();
                if !*cut.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let server = SocketAddr::from(([127, 0, 0, 1], port));
                    let mut near = near;
                    let Ok(mut far) = TcpStream::connect(server).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Self {
            port: own,
            is_whole,
            task,
        }
    }

    fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}

fn pki() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A server and the source that watches its COUNT.
async fn counting(arguments: &[&str]) -> (tempfile::TempDir, Plant, Watched) {
    let directory = pki();
    let plant = Plant::start(arguments).await;
    let watched = Watched::start(server(plant.port, "", &tag("COUNT", COUNT)), directory.path());
    (directory, plant, watched)
}

#[tokio::test]
async fn t18_one_bad_node_among_a_thousand_is_bad_and_the_others_are_not_concerned() {
    let directory = pki();
    let mut plant = Plant::start(&["--items", "1000", "--max-call", "300"]).await;
    let tags = tag("NOPE", "period = \"0s\"") + &many(1_000);
    let mut watched = Watched::start(server(plant.port, "", &tags), directory.path());
    watched
        .until("every value", |watched| watched.readings.len() >= 1_001)
        .await;
    let bad: Vec<&Reading> = watched
        .readings
        .iter()
        .filter(|reading| reading.quality.is_bad())
        .collect();
    assert_eq!(bad.len(), 1);
    assert_eq!((bad[0].tag, bad[0].quality), (Alias(0), Quality::BAD_ADDRESS));
    for number in 0..1_000_u32 {
        assert_eq!(watched.values(number + 1), [f64::from(number)]);
    }
    // The clock of the server is the thousand and first.
    assert_eq!(plant.stat().await["items"], 1_001);
}

#[tokio::test]
async fn t18_a_message_that_is_too_large_is_sent_in_halves() {
    let directory = pki();
    let status = [
        "--items",
        "500",
        "--max-call",
        "60",
        "--call-status",
        "BadTcpMessageTooLarge",
    ];
    let mut plant = Plant::start(&status).await;
    let mut watched = Watched::start(server(plant.port, "", &many(500)), directory.path());
    watched
        .until("every value", |watched| watched.readings.len() >= 500)
        .await;
    assert!(watched.readings.iter().all(|reading| reading.quality.is_good()));
    assert_eq!(plant.stat().await["items"], 501);
}

#[tokio::test]
async fn t18_too_many_monitored_items_go_into_several_subscriptions() {
    let directory = pki();
    let mut plant = Plant::start(&["--items", "500", "--max-items", "200"]).await;
    let mut watched = Watched::start(server(plant.port, "", &many(500)), directory.path());
    watched
        .until("every value", |watched| watched.readings.len() >= 500)
        .await;
    assert!(watched.readings.iter().all(|reading| reading.quality.is_good()));
    let stat = plant.stat().await;
    assert_eq!((&stat["subscriptions"], &stat["items"]), (&3.into(), &501.into()));
    assert_eq!(plant.tell("touch").await, "ok");
    watched
        .until("a change of every node", |watched| {
            watched
                .readings
                .iter()
                .filter(|reading| reading.value() == Some(-1.0))
                .count()
                >= 500
        })
        .await;
}

#[tokio::test]
async fn t18_after_a_cut_shorter_than_the_session_every_sample_is_there_and_no_item_twice() {
    let directory = pki();
    let mut plant = Plant::start(&["--items", "20"]).await;
    let link = Link::to(plant.port).await;
    let tags = tag("COUNT", &format!("{COUNT}\nqueue_size = 1000")) + &many(20);
    let mut watched = Watched::start(server(link.port, "", &tags), directory.path());
    watched.until_values(0, 20).await;
    link.cut();
    watched
        .until("the cut", |watched| {
            matches!(watched.state(), SourceState::Down { .. })
        })
        .await;
    watched
        .until("bad readings meanwhile", |watched| {
            watched
                .of(0)
                .filter(|reading| reading.quality == Quality::BAD_NOT_CONNECTED)
                .count()
                >= 2
        })
        .await;
    let before = watched.values(0).len();
    link.mend();
    watched.until_values(0, before + 60).await;
    let values = watched.values(0);
    let first = values[0] as u32;
    let expected: Vec<f64> = (first..).take(values.len()).map(f64::from).collect();
    assert_eq!(values, expected, "each sample once and in order");
    let stat = plant.stat().await;
    assert_eq!((&stat["subscriptions"], &stat["items"]), (&1.into(), &22.into()));
    assert!(watched.not_read.is_empty(), "{:?}", watched.not_read);
}

#[tokio::test]
async fn t18_a_cut_longer_than_the_session_is_a_gap_on_record() {
    let directory = pki();
    let mut plant = Plant::start(&["--items", "3"]).await;
    let link = Link::to(plant.port).await;
    let mut config = server(link.port, "", &(tag("COUNT", COUNT) + &many(3)));
    // Shorter than a configuration may say.
    config.session_timeout = Duration::from_secs(2);
    let mut watched = Watched::start(config, directory.path());
    watched.until_values(0, 5).await;
    link.cut();
    watched
        // A session of its own is tried only once the old one is given up.
        .until("the end of the session", |watched| {
            watched.reason().contains("connect failed")
        })
        .await;
    let before = watched.values(0).len();
    link.mend();
    watched.until_values(0, before + 5).await;
    assert_eq!(watched.not_read[0].reason, "opcua session lost");
    assert_eq!(watched.not_read[0].tags, [Alias(1), Alias(2), Alias(3)]);
    assert!(
        watched
            .of(0)
            .any(|reading| reading.quality == Quality::BAD_NOT_CONNECTED)
    );
    assert_eq!(plant.tell("touch").await, "ok");
    watched
        .until("one change of each node", |watched| {
            (1..=3).all(|tag| watched.values(tag).contains(&-1.0))
        })
        .await;
    // Were an item there twice, its change would come twice.
    for tag in 1..=3 {
        let changes = watched.values(tag).iter().filter(|value| **value < 0.0).count();
        assert_eq!(changes, 1, "tag {tag}");
    }
}

#[tokio::test]
async fn t18_after_a_restart_of_the_server_the_gap_is_on_record_and_values_come_again() {
    let directory = pki();
    let plant = Plant::start(&["--items", "5"]).await;
    let port = plant.port;
    let tags = tag("COUNT", COUNT) + &many(5);
    let mut watched = Watched::start(server(port, "", &tags), directory.path());
    watched.until_values(0, 5).await;
    drop(plant);
    watched
        .until("the loss", |watched| {
            matches!(watched.state(), SourceState::Down { .. })
        })
        .await;
    let before = watched.values(0).len();
    let mut plant = Plant::start(&["--items", "5", "--port", &port.to_string()]).await;
    watched.until_values(0, before + 10).await;
    assert_eq!(watched.state(), SourceState::Up);
    let record = &watched.not_read[0];
    assert_eq!(record.reason, "opcua session lost");
    // What reports on change only has no due readings that could be bad.
    assert_eq!(record.tags, (1..=5).map(Alias).collect::<Vec<_>>());
    assert!(record.from_us < record.to_us);
    let stat = plant.stat().await;
    assert_eq!((&stat["subscriptions"], &stat["items"]), (&1.into(), &7.into()));
}

#[tokio::test]
async fn t19_a_server_that_stands_still_behind_its_answers_is_down_and_its_tags_are_bad() {
    let (_directory, mut plant, mut watched) = counting(&[]).await;
    watched.until_values(0, 10).await;
    assert_eq!(plant.tell("freeze").await, "ok");
    watched
        .until("bad readings", |watched| {
            watched.of(0).filter(|reading| reading.quality.is_bad()).count() >= 2
        })
        .await;
    watched
        .until("down", |watched| watched.reason().contains("stands still"))
        .await;
}

#[tokio::test]
async fn an_overflow_at_the_server_is_a_loss_on_record() {
    let (_directory, mut plant, mut watched) = counting(&[]).await;
    watched.until_values(0, 5).await;
    assert_eq!(plant.tell("burst").await, "ok");
    watched
        .until("a record", |watched| !watched.not_read.is_empty())
        .await;
    let record = &watched.not_read[0];
    assert_eq!(
        (record.reason.as_str(), &record.tags[..]),
        ("opcua overflow", &[Alias(0)][..])
    );
    assert!(record.from_us < record.to_us);
    let times: Vec<i64> = watched.of(0).map(|reading| reading.time_us).collect();
    assert!(
        times.contains(&record.from_us),
        "the loss begins at the value before"
    );
}

#[tokio::test]
async fn t18_a_server_whose_clock_is_ten_minutes_ahead_keeps_its_source_times() {
    let (_directory, _plant, mut watched) = counting(&["--skew", "600"]).await;
    watched.until_values(0, 10).await;
    let now_us = edge_agent::clock::now_us();
    for reading in watched.of(0).filter(|reading| reading.quality.is_good()) {
        let ahead_s = (reading.time_us - now_us) / 1_000_000;
        assert!((540..=600).contains(&ahead_s), "{ahead_s} s ahead");
    }
}

#[tokio::test]
async fn t33_a_changed_tag_list_touches_only_the_items_that_changed() {
    let directory = pki();
    let mut plant = Plant::start(&["--items", "10"]).await;
    let tags = tag("COUNT", &format!("{COUNT}\nqueue_size = 100")) + &many(5);
    let first = server(plant.port, "", &tags);
    let mut watched = Watched::start(first, directory.path());
    watched
        .until("values", |watched| watched.readings.len() >= 15)
        .await;
    let tags =
        many(3) + &tag("STATIC", "period = \"0s\"") + &tag("COUNT", &format!("{COUNT}\nqueue_size = 100"));
    watched.config.send_replace(server(plant.port, "", &tags));
    watched
        .until("the new tag", |watched| {
            watched.of(3).any(|reading| reading.value() == Some(5.5))
        })
        .await;
    watched.until_values(4, 20).await;
    // COUNT was tag 0 and is tag 4: between the two no sample is missing or there twice.
    let mut count = watched.values(0);
    // Tag 4 was N.3, which gave its one value.
    count.extend(&watched.values(4)[1..]);
    let expected: Vec<f64> = (count[0] as u32..).take(count.len()).map(f64::from).collect();
    assert_eq!(count, expected);
    let stat = plant.stat().await;
    assert_eq!((&stat["subscriptions"], &stat["items"]), (&1.into(), &6.into()));
    assert!(watched.not_read.is_empty());
}
