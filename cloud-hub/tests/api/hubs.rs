//! Two hubs on one database: does a viewer of either hear what the other one committed, once, and nothing twice?

use std::time::Duration;

use cloud_hub::kernel::{clock::Clock, role::Role};
use protocol::{
    Quality, Reading,
    event::{Alarm, Event},
    lane::Lane,
    limit::Phase,
    reading::Alias,
    topic::Channel,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    client::Caller,
    live::{Heard, Stream},
    support::{FrameMaker, MqttEdge, TestDatabase, TestHub, akron},
};

const SECOND: i64 = 1_000_000;

/// Two hubs that know nothing of each other, and an edge that is connected to the first.
struct Pair {
    here: TestHub,
    there: TestHub,
    edge: MqttEdge,
    maker: FrameMaker,
}

impl Pair {
    async fn start() -> Self {
        let database = TestDatabase::create().await;
        let here = Box::pin(TestHub::start_on(database.again())).await;
        let there = Box::pin(TestHub::start_on(database)).await;
        let mut edge = here.edge("e1").await;
        let maker = FrameMaker::new("e1", &["TT-900"]);
        edge.send(Channel::Dictionary, maker.dictionary.encode()).await;
        edge.acknowledged().await;
        Self {
            here,
            there,
            edge,
            maker,
        }
    }

    async fn put(&mut self, seq: u64, readings: Vec<Reading>, events: Vec<Event>) {
        let frame = self.maker.frame(Lane::Live, seq, readings, events);
        self.edge
            .send(Channel::Up(Lane::Live), frame.encode().unwrap())
            .await;
        self.edge.acknowledged().await;
    }

    async fn tag(&self) -> i64 {
        let sql = "SELECT id::int8 FROM tag WHERE name = 'TT-900'";
        self.here.count(&akron(), sql).await
    }
}

async fn viewer(hub: &TestHub, query: &str) -> Stream {
    let caller = Caller::with_role(hub, Role::Supervisor).await;
    let mut stream = Stream::open(&caller, query, None).await;
    assert_eq!(stream.next().await.name, "hello");
    stream
}

/// The next event of that name; edges come and go meanwhile.
async fn next(stream: &mut Stream, name: &str) -> Heard {
    loop {
        let event = stream.next().await;
        if event.name == name {
            return event;
        }
    }
}

/// What is heard up to the alarm of that code in that state.
async fn until(stream: &mut Stream, code: &str, state: &str) -> Vec<Heard> {
    let mut heard = Vec::new();
    loop {
        let event = stream.next().await;
        let is_last = event.data["code"] == code && event.data["state"] == state;
        heard.push(event);
        if is_last {
            return heard;
        }
    }
}

fn alarm(code: &str) -> Event {
    Event::Alarm(Alarm {
        id: Uuid::now_v7(),
        code: code.to_owned(),
        subject: "TT-900".to_owned(),
        line: Some("L1".to_owned()),
        message: "of the test".to_owned(),
        active: true,
        at_us: Clock::system().now_us(),
    })
}

fn of<'h>(heard: &'h [Heard], name: &str) -> Vec<&'h Value> {
    let named = heard.iter().filter(|event| event.name == name);
    named.map(|event| &event.data).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_hub_takes_in_the_viewers_of_both_hear_once() {
    let mut pair = Pair::start().await;
    let mut here = viewer(&pair.here, "?topics=alarms,lines").await;
    let mut there = viewer(&pair.there, "?topics=alarms,lines").await;
    let now_us = Clock::system().now_us();
    let dip = pair.maker.deviation(Phase::Opened, now_us - 60 * SECOND, now_us);
    pair.put(0, vec![], vec![dip, alarm("first")]).await;
    pair.put(1, vec![], vec![alarm("last")]).await;
    for stream in [&mut here, &mut there] {
        let heard = until(stream, "last", "unacknowledged").await;
        assert_eq!(of(&heard, "deviation").len(), 1, "{heard:?}");
        assert_eq!(of(&heard, "alarm").len(), 2, "{heard:?}");
        assert!(of(&heard, "resync").is_empty(), "{heard:?}");
    }
    let holds = pair
        .here
        .count(
            &akron(),
            "SELECT count(*) FROM hold WHERE deviation_id IS NOT NULL",
        )
        .await;
    assert!(holds >= 1, "the dip held product");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rules_alarm_reaches_both_hubs_whichever_judged_and_an_acknowledgement_at_one_is_seen_at_the_other()
{
    let mut pair = Pair::start().await;
    let rule = json!({ "code": "warm", "name": "Tank too warm", "tag_name": "TT-900", "kind": "threshold", "high": 5.0 });
    let boss = Caller::with_role(&pair.here, Role::Supervisor).await;
    let made = boss.send(Method::POST, "/sensors/alerts", Some(rule)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let mut here = viewer(&pair.here, "?topics=alarms").await;
    let mut there = viewer(&pair.there, "?topics=alarms").await;
    // A rule is in force from when it was first looked at.
    let mut at_us = Clock::system().now_us();
    for seq in 0u64.. {
        at_us = at_us.max(Clock::system().now_us());
        let reading = |n: i64| Reading::new(Alias(0), at_us + n * 1_000, 6.0, Quality::GOOD);
        pair.put(seq, (0..3).map(reading).collect(), vec![]).await;
        let raised = "SELECT count(*) FROM alarm_entry WHERE cause = 'raised'";
        if pair.here.count(&akron(), raised).await > 0 {
            break;
        }
        at_us += 10_000;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut ids = Vec::new();
    for stream in [&mut here, &mut there] {
        let heard = until(stream, "warm", "unacknowledged").await;
        let alarms = of(&heard, "alarm");
        assert_eq!(alarms.len(), 1, "{heard:?}");
        ids.push(alarms[0]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let boss = Caller::with_role(&pair.there, Role::Supervisor).await;
    let why = json!({ "reason": "seen" });
    let path = format!("/sensors/alarms/{}/acknowledge", ids[0]);
    let acked = boss.send(Method::POST, &path, Some(why)).await;
    assert_eq!(acked.status, 200, "{acked:?}");
    for stream in [&mut here, &mut there] {
        until(stream, "warm", "acknowledged").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_comes_back_is_told_what_another_hub_committed_meanwhile() {
    let mut pair = Pair::start().await;
    let caller = Caller::with_role(&pair.there, Role::Supervisor).await;
    let mut stream = viewer(&pair.there, "?topics=alarms").await;
    pair.put(0, vec![], vec![alarm("first")]).await;
    let heard = until(&mut stream, "first", "unacknowledged").await;
    let last = heard.last().unwrap().id.clone();
    drop(stream);
    // Another viewer shows when this hub has heard of it.
    let mut other = viewer(&pair.there, "?topics=alarms").await;
    pair.put(1, vec![], vec![alarm("missed")]).await;
    until(&mut other, "missed", "unacknowledged").await;
    let mut stream = Stream::open(&caller, "?topics=alarms", Some(&last)).await;
    assert_eq!(stream.next().await.name, "hello");
    let missed = next(&mut stream, "alarm").await;
    assert_eq!(
        (missed.name.as_str(), &missed.data["code"]),
        ("alarm", &json!("missed"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_that_one_hub_takes_in_are_seen_at_the_other() {
    let mut pair = Pair::start().await;
    let tag = pair.tag().await;
    let query = format!("?topics=samples&tags={tag}");
    let mut there = viewer(&pair.there, &query).await;
    let seen = async {
        for seq in 0u64.. {
            let at_us = Clock::system().now_us();
            let value = 20.0 + seq as f64;
            let reading = Reading::new(Alias(0), at_us, value, Quality::GOOD);
            pair.put(seq, vec![reading], vec![]).await;
            if let Ok(heard) = timeout(Duration::from_millis(500), next(&mut there, "samples")).await {
                assert_eq!(
                    (heard.name.as_str(), &heard.data["v"][0][0]),
                    ("samples", &json!(tag))
                );
                return heard.data["v"][0][2].as_f64().unwrap();
            }
        }
        unreachable!("it is heard or time runs out")
    };
    let value = timeout(Duration::from_secs(30), seen)
        .await
        .expect("the other hub notices in time");
    assert!(value >= 20.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_lost_its_ear_says_that_something_may_be_missing() {
    let pair = Pair::start().await;
    let mut there = viewer(&pair.there, "?topics=alarms").await;
    let owner = pair.there.hub.app.owner.as_ref().unwrap();
    let mut owner = sqlx::ConnectOptions::connect(&owner.requests).await.unwrap();
    let cut: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name LIKE 'foodflow-live:%'",
    )
    .fetch_one(&mut owner)
    .await
    .unwrap();
    assert_eq!(cut, 2, "one of each hub");
    next(&mut there, "resync").await;
}
