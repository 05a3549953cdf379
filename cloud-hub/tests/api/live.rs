//! What does a live page hear, and does it miss anything that matters?

use std::time::Duration;

use cloud_hub::{
    kernel::role::Role,
    series::bus::{LiveKind, Sample},
};
use protocol::lane::Lane;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    client::Caller,
    support::{TestHub, akron, cuyahoga},
};

pub(crate) struct Stream {
    pub(crate) response: reqwest::Response,
    buffer: String,
}

#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl Stream {
    pub(crate) async fn open(caller: &Caller, query: &str, last_id: Option<&str>) -> Self {
        let mut request = caller.request(Method::GET, &format!("/live{query}"));
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            buffer: String::new(),
        }
    }

    /// The next event that is no heartbeat.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            let heard = timeout(Duration::from_secs(20), self.any())
                .await
                .expect("an event in time");
            if heard.name != "heartbeat" {
                return heard;
            }
        }
    }

    async fn any(&mut self) -> Heard {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let event: String = self.buffer.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim_start_matches(": ").to_owned()
                };
                let heard = Heard {
                    name: field("event"),
                    id: field("id"),
                    data: serde_json::from_str(&field("data")).unwrap(),
                };
                return heard;
            }
            let chunk = self.response.chunk().await.unwrap().expect("the stream is open");
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

pub(crate) fn sample(tag_id: i32, time_us: i64, value: f64) -> Sample {
    Sample {
        tag_id,
        time_us,
        value: Some(value),
        quality: 0,
        simulated: true,
    }
}

#[tokio::test]
async fn samples_are_coalesced_to_the_newest_of_each_tag_that_was_asked_for() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Auditor).await;
    let mut stream = Stream::open(&caller, "?topics=samples&tags=1,2,4", None).await;
    let hello = stream.next().await;
    assert_eq!(
        (hello.name.as_str(), &hello.data["tenant"]),
        ("hello", &json!("akron"))
    );
    assert_eq!(hello.data["schema"], 1);
    let live = &hub.hub.app.live;
    let newest_us = hub.hub.app.clock.now_us();
    for time_us in newest_us - 49..=newest_us {
        let samples = vec![
            sample(1, time_us, (time_us - newest_us) as f64),
            sample(3, time_us, 0.0),
        ];
        live.publish(
            &akron(),
            time_us,
            LiveKind::Samples {
                lane: Lane::Live,
                samples,
            },
        );
        let foreign = vec![sample(1, 1_000, -1.0)];
        live.publish(
            &cuyahoga(),
            time_us,
            LiveKind::Samples {
                lane: Lane::Live,
                samples: foreign,
            },
        );
    }
    let waited = vec![sample(4, newest_us - 6_000_000, 4.0)];
    live.publish(
        &akron(),
        newest_us,
        LiveKind::Samples {
            lane: Lane::Live,
            samples: waited,
        },
    );
    let late = vec![sample(2, 7, 7.0)];
    live.publish(
        &akron(),
        newest_us,
        LiveKind::Samples {
            lane: Lane::Backfill,
            samples: late,
        },
    );
    let mut newest = std::collections::BTreeMap::new();
    while newest.get(&1) != Some(&json!([1, newest_us, 0.0, 0, 2])) || newest.len() < 3 {
        let heard = stream.next().await;
        assert_eq!(heard.name, "samples");
        for row in heard.data["v"].as_array().unwrap() {
            newest.insert(row[0].as_i64().unwrap(), row.clone());
        }
    }
    assert_eq!(
        newest.get(&2),
        Some(&json!([2, 7, 7.0, 0, 3])),
        "late and simulated"
    );
    assert_eq!(newest[&4][4], 3, "a live frame that had to wait is late too");
    assert_eq!(newest.len(), 3, "tag 3 was not asked for");
}

#[tokio::test]
async fn a_broken_stream_resumes_where_it_was_and_a_foreign_cursor_starts_over() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Supervisor).await;
    let live = hub.hub.app.live.clone();
    let now_us = hub.hub.app.clock.now_us();
    let say = |number: u128| {
        let kind = LiveKind::Deviation {
            id: Uuid::from_u128(number),
            version: 1,
        };
        live.publish(&akron(), now_us, kind);
    };
    let mut stream = Stream::open(&caller, "", None).await;
    assert_eq!(stream.next().await.name, "hello");
    say(1);
    let first = stream.next().await;
    assert_eq!(
        (first.name.as_str(), &first.data["version"]),
        ("deviation", &json!(1))
    );
    drop(stream);
    say(2);
    live.publish(
        &cuyahoga(),
        now_us,
        LiveKind::Deviation {
            id: Uuid::from_u128(99),
            version: 1,
        },
    );
    live.publish(
        &akron(),
        now_us,
        LiveKind::Hold {
            id: Uuid::from_u128(3),
            version: 1,
        },
    );

    let mut stream = Stream::open(&caller, "", Some(&first.id)).await;
    assert_eq!(stream.next().await.name, "hello");
    let missed = [stream.next().await, stream.next().await];
    assert_eq!([&missed[0].name[..], &missed[1].name[..]], ["deviation", "hold"]);
    assert_eq!(missed[0].data["id"], json!(Uuid::from_u128(2)));
    say(4);
    assert_eq!(
        stream.next().await.data["id"],
        json!(Uuid::from_u128(4)),
        "and nothing twice"
    );

    let mut stream = Stream::open(&caller, "", Some("0-17")).await;
    assert_eq!(stream.next().await.name, "hello");
    assert_eq!(stream.next().await.name, "resync");
}

#[tokio::test]
async fn a_reader_that_falls_too_far_behind_is_told_to_start_over_and_closed() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Supervisor).await;
    let mut stream = Stream::open(&caller, "?topics=alarms", None).await;
    assert_eq!(stream.next().await.name, "hello");
    // One burst, larger than what may wait, before the stream's task gets to run.
    for number in 0..2_000 {
        let kind = LiveKind::Hold {
            id: Uuid::from_u128(number),
            version: 1,
        };
        hub.hub.app.live.publish(&akron(), 1, kind);
    }
    let mut names = Vec::new();
    loop {
        let heard = stream.next().await;
        names.push(heard.name.clone());
        if heard.name == "resync" {
            break;
        }
    }
    let end = timeout(Duration::from_secs(10), stream.response.chunk())
        .await
        .unwrap();
    assert!(matches!(end, Ok(None)), "closed after {names:?}");
}

#[tokio::test]
async fn a_heartbeat_says_how_the_edges_are() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Supervisor).await;
    let token = caller.token.clone().unwrap();
    let _edge = hub.edge("e1").await;
    let mut stream = Stream::open(&Caller::anonymous(&hub), &format!("?access_token={token}"), None).await;
    let beat = loop {
        let heard = timeout(Duration::from_secs(20), stream.any()).await.unwrap();
        if heard.name == "heartbeat" {
            break heard;
        }
    };
    assert!(beat.data["server_now_us"].is_i64());
    assert!(beat.data["edges"]["e1"]["state"].is_string(), "{beat:?}");
}

/// A reader of its own socket, which takes bytes when it is told to.
struct SlowSocket {
    stream: tokio::net::TcpStream,
    buffer: String,
}

/// One event as it came: name, id, data.
type Said = (String, String, String);

impl SlowSocket {
    async fn open(hub: &TestHub, token: &str, last_id: Option<&str>) -> Self {
        use tokio::io::AsyncWriteExt as _;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(hub.hub.http).await.unwrap();
        let last_id = last_id.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        let request = format!(
            "GET /api/v1/live HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {token}\r\n{last_id}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Self {
            stream,
            buffer: String::new(),
        }
    }

    /// The next event; none at the stream's end.
    async fn next(&mut self) -> Option<Said> {
        use tokio::io::AsyncReadExt as _;
        let (mut bytes, mut looked) = (vec![0; 1 << 16], 0);
        loop {
            if let Some(end) = self.buffer[looked..].find("\n\n") {
                let event: String = self.buffer.drain(..looked + end + 2).collect();
                let field = |name: &str| {
                    let value = event.lines().find_map(|line| line.trim().strip_prefix(name));
                    value.unwrap_or_default().trim().to_owned()
                };
                return Some((field("event:"), field("id:"), field("data:")));
            }
            looked = self.buffer.len().saturating_sub(1);
            let read = timeout(Duration::from_secs(30), self.stream.read(&mut bytes))
                .await
                .unwrap()
                .unwrap();
            if read == 0 {
                return None;
            }
            self.buffer.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Everything up to an event of that name, or to the end.
    async fn until(&mut self, name: &str) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(next) = self.next().await {
            said.push(next);
            if said.last().is_some_and(|(last, ..)| last == name) {
                break;
            }
        }
        said
    }
}

/// More than the kernel keeps for a socket that nobody reads.
fn alarm(number: u128) -> LiveKind {
    let text = "x".repeat(60_000);
    LiveKind::Alarm {
        line_id: None,
        alarm: std::sync::Arc::new(json!({ "id": Uuid::from_u128(number), "version": 1, "text": text })),
    }
}

/// The alarms among events, in order.
fn alarms(said: &[Said]) -> Vec<u128> {
    said.iter()
        .filter(|(name, ..)| name == "alarm")
        .map(|(_, _, data)| {
            let data: Value = serde_json::from_str(data).unwrap();
            data["id"].as_str().unwrap().parse::<Uuid>().unwrap().as_u128()
        })
        .collect()
}

#[tokio::test]
async fn a_slow_socket_loses_samples_and_never_an_alarm_and_resumes_after_the_last_it_was_given() {
    const ALARMS: u128 = 400;
    let hub = TestHub::start().await;
    let token = hub.token(Role::Supervisor).await;
    let live = hub.hub.app.live.clone();
    let mut socket = SlowSocket::open(&hub, &token, None).await;
    socket.until("hello").await;
    // It takes nothing while samples and alarms go by.
    for number in 0..ALARMS {
        live.publish(&akron(), 1, alarm(number));
        let samples = (0..50).map(|tag| sample(tag, number as i64, 1.0)).collect();
        let lane = Lane::Live;
        live.publish(&akron(), 1, LiveKind::Samples { lane, samples });
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    let first = socket.until("resync").await;
    let mut told = alarms(&first);
    assert!(told.len() < ALARMS as usize, "the bound was hit: {}", told.len());
    let sampled = first.iter().filter(|(name, ..)| name == "samples").count();
    assert!(sampled < 50, "samples were coalesced: {sampled}");
    // A reader that is slower than the goodbye hears none, and has the id of what it was told last.
    let (last, mut resume, data) = first.last().unwrap().clone();
    assert!(
        last != "resync" || data.contains(&format!("\"resume\":\"{resume}\"")),
        "{data}"
    );
    drop(socket);
    // However often it takes: what it was not given is told in order, none twice.
    while told.len() < ALARMS as usize {
        let mut socket = SlowSocket::open(&hub, &token, Some(&resume)).await;
        let said = socket.until("heartbeat").await;
        assert!(
            said.iter().all(|(name, ..)| name != "resync"),
            "the ring still has them"
        );
        let more = alarms(&said);
        assert!(!more.is_empty(), "after {}", told.len());
        told.extend(more);
        resume = said.last().unwrap().1.clone();
    }
    assert_eq!(told, (0..ALARMS).collect::<Vec<u128>>());
}
