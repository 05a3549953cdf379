//! What is asked of edges reaches them, whoever was away meanwhile, once in effect and in order; and what they answer
//! shows.

use std::{sync::Arc, time::Duration};

use cloud_hub::{
    kernel::{clock::Clock, role::Role},
    tenant::enrolment::{self, Identity},
};
use protocol::{
    command::{self, Command, CommandOutcome, CommandResult, Order},
    event::Event,
    lane::Lane,
    topic::{Channel, Topic},
};
use reqwest::Method;
use rumqttc::v5::{
    AsyncClient, Event as MqttEvent, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{
    client::{Answer, Caller, http_client},
    support::{FrameMaker, TestDatabase, TestHub, akron, cuyahoga},
};

const SOON: Duration = Duration::from_secs(20);
const CONFIG: &str = "/edges/e1/config";
const COMMANDS: &str = "/edges/e1/commands";

async fn enrol(hub: &TestHub, edge: &str) -> Identity {
    let now = Clock::system().now();
    let code = enrolment::create_code(&hub.db, &akron(), edge, now)
        .await
        .unwrap();
    enrolment::redeem(&hub.db, &code, now).await.unwrap()
}

/// An edge that listens to commands.
struct Edge {
    client: AsyncClient,
    commands: mpsc::UnboundedReceiver<Vec<u8>>,
    connection: JoinHandle<()>,
    maker: FrameMaker,
}

impl Edge {
    /// Connects, listens, and says that it is there.
    async fn connect(hub: &TestHub, identity: &Identity, maker: &FrameMaker) -> Self {
        let address = hub.hub.mqtt;
        let mut options = MqttOptions::new(&identity.edge, address.ip().to_string(), address.port());
        options
            .set_credentials(&identity.mqtt_username, identity.mqtt_password.expose())
            .set_max_packet_size(Some(2 << 20));
        let (client, mut events) = AsyncClient::new(options, 16);
        let (sender, commands) = mpsc::unbounded_channel();
        let ready = Arc::new(tokio::sync::Notify::new());
        let subscribed = ready.clone();
        let topic = Topic::new("akron", &identity.edge, Channel::Command).to_string();
        client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
        let connection = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                match event {
                    MqttEvent::Incoming(Packet::SubAck(_)) => subscribed.notify_one(),
                    MqttEvent::Incoming(Packet::Publish(publish)) => {
                        drop(sender.send(publish.payload.to_vec()));
                    }
                    _ => {}
                }
            }
        });
        timeout(SOON, ready.notified())
            .await
            .expect("the hub lets it listen");
        let edge = Self {
            client,
            commands,
            connection,
            maker: maker.clone(),
        };
        let status = json!({ "online": true, "boot": maker.boot, "version": "0.1.0" });
        edge.send(Channel::Status, status.to_string().into_bytes()).await;
        edge.send(Channel::Dictionary, maker.dictionary.encode()).await;
        edge
    }

    async fn send(&self, channel: Channel, payload: Vec<u8>) {
        let topic = self.maker.topic(channel);
        let sent = self.client.publish(topic, QoS::AtLeastOnce, false, payload);
        sent.await.unwrap();
    }

    async fn next(&mut self) -> Vec<u8> {
        timeout(SOON, self.commands.recv())
            .await
            .expect("a command in time")
            .unwrap()
    }

    async fn command(&mut self) -> Command {
        command::decode(&self.next().await).unwrap()
    }

    async fn answer(&self, seq: u64, id: uuid::Uuid, outcome: CommandOutcome) {
        let result = CommandResult {
            id,
            at_us: Clock::system().now_us(),
            outcome,
        };
        let frame = self
            .maker
            .frame(Lane::Events, seq, vec![], vec![Event::CommandResult(result)]);
        self.send(Channel::Up(Lane::Events), frame.encode().unwrap())
            .await;
    }

    /// Nothing comes for a while.
    async fn is_left_alone(&mut self) -> bool {
        timeout(Duration::from_millis(400), self.commands.recv())
            .await
            .is_err()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn configure(caller: &Caller, toml: &str) -> Value {
    caller
        .send(Method::PUT, CONFIG, Some(json!({ "toml": toml })))
        .await
        .ok()
}

/// Asks until the answer is as it should be.
async fn until(caller: &Caller, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let answer = caller.get(path).await.ok();
            if is_so(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, asked).await.expect("it comes to be so")
}

#[tokio::test]
async fn t10_the_same_configuration_again_is_no_new_revision_and_sends_nothing() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let identity = enrol(&hub, "e1").await;
    let mut edge = Edge::connect(&hub, &identity, &FrameMaker::new("e1", &["TT-101"])).await;
    let first = configure(&admin, "[edge]\nname = 'e1'\n").await;
    assert_eq!((&first["revision"], &first["is_new"]), (&json!(1), &json!(true)));
    let command = edge.command().await;
    assert!(matches!(command.order, Order::Configure { revision: 1, .. }));
    edge.answer(0, command.id, CommandOutcome::Done).await;
    until(&admin, CONFIG, |config| config["state"] == "applied").await;
    for _ in 0..2 {
        let same = configure(&admin, "[edge]\nname = 'e1'\n").await;
        assert_eq!((&same["revision"], &same["is_new"]), (&json!(1), &json!(false)));
    }
    assert!(edge.is_left_alone().await);
    assert_eq!(admin.items(COMMANDS).await.len(), 1);
    let second = configure(&admin, "[edge]\nname = 'e1'\n# other\n").await;
    assert_eq!(second["revision"], 2);
    let command = edge.command().await;
    edge.answer(
        1,
        command.id,
        CommandOutcome::RolledBack {
            reason: "no source".to_owned(),
        },
    )
    .await;
    until(&admin, CONFIG, |config| config["state"] == "rolled_back").await;
    // What did not run is tried anew when it is sent again.
    assert_eq!(
        configure(&admin, "[edge]\nname = 'e1'\n# other\n").await["revision"],
        3
    );
    let stale = json!({ "toml": "x = 1", "based_on": 2 });
    admin.send(Method::PUT, CONFIG, Some(stale)).await.problem(412);
    let revisions = admin.items("/edges/e1/config/revisions").await;
    let states: Vec<_> = revisions.iter().map(|it| it["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["pending", "rolled_back", "applied"]);
    let earlier = admin.get("/edges/e1/config?revision=1").await.ok();
    assert_eq!(earlier["toml"], "[edge]\nname = 'e1'\n");
}

#[tokio::test]
async fn a_command_waits_for_its_edge_survives_the_hub_and_is_repeated_until_it_is_answered() {
    let database = TestDatabase::create().await;
    let hub = TestHub::start_on(database.again()).await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let identity = enrol(&hub, "e1").await;
    configure(&admin, "a = 1").await;
    let newest = configure(&admin, "a = 2").await;
    let asked = admin
        .post(COMMANDS, json!({ "kind": "replay", "from_us": 1, "to_us": 2 }))
        .await
        .ok();
    assert_eq!(
        (&asked["state"], &asked["attempts"]),
        (&json!("waiting"), &json!(0))
    );
    hub.hub.stop().await;

    let hub = TestHub::start_on(database).await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let maker = FrameMaker::new("e1", &["TT-101"]);
    let mut edge = Edge::connect(&hub, &identity, &maker).await;
    let (first, second) = (edge.next().await, edge.next().await);
    let decoded = command::decode(&first).unwrap();
    assert!(
        matches!(&decoded.order, Order::Configure { toml, .. } if toml == "a = 2"),
        "the newest only"
    );
    assert_eq!(newest["command_id"], json!(decoded.id));
    assert!(matches!(
        command::decode(&second).unwrap().order,
        Order::Replay { from_us: 1, to_us: 2 }
    ));
    drop(edge);

    let mut edge = Edge::connect(&hub, &identity, &maker).await;
    assert_eq!(
        (edge.next().await, edge.next().await),
        (first, second),
        "the same bytes in the same order"
    );
    edge.answer(
        0,
        decoded.id,
        CommandOutcome::Refused {
            reason: "line 1: `a` is not known".to_owned(),
        },
    )
    .await;
    let list = until(&admin, COMMANDS, |list| list["items"][1]["state"] == "refused").await;
    assert!(list["items"][1]["reason"].as_str().unwrap().contains("line 1"));
    drop(edge);

    let mut edge = Edge::connect(&hub, &identity, &maker).await;
    assert!(matches!(edge.command().await.order, Order::Replay { .. }));
    assert!(edge.is_left_alone().await, "what is answered is not sent again");
    let list = admin.items(COMMANDS).await;
    assert!(list[0]["attempts"].as_i64().unwrap() >= 3, "{list:?}");
}

#[tokio::test]
async fn a_changed_limit_reaches_the_edge_that_monitors_the_point_with_its_version() {
    let hub = TestHub::start().await;
    let fsq = Caller::with_role(&hub, Role::FsqManager).await;
    let identity = enrol(&hub, "e1").await;
    let mut edge = Edge::connect(&hub, &identity, &FrameMaker::new("e1", &["TT-101"])).await;
    let ccps = fsq.items("/fsq/ccps").await;
    let ccp = ccps.iter().find(|ccp| ccp["code"] == "CCP-1").unwrap();
    let path = format!("/fsq/ccps/{}/limit", ccp["id"].as_str().unwrap());
    until(
        &fsq,
        &format!("/fsq/ccps/{}", ccp["id"].as_str().unwrap()),
        |ccp| ccp["tag_id"].is_i64(),
    )
    .await;
    let limit = |low: f64| {
        json!({ "low": low, "high": null, "clear_margin": 0.2, "delay_us": 1_000_000, "gap_us_max": 10_000_000,
            "check_every_us": 60_000_000 })
    };
    let set = fsq.change(Method::PUT, &path, 1, Some(limit(72.5))).await.ok();
    assert_eq!((&set["version"], &set["edge"]), (&json!(2), &json!("e1")));
    let Order::SetLimits { revision: 1, limits } = edge.command().await.order else {
        panic!("another order")
    };
    assert_eq!(limits.len(), 1);
    let told = &limits[0];
    assert_eq!(
        (told.ccp.as_str(), told.version, told.low),
        ("CCP-1", 2, Some(72.5))
    );
    assert_eq!(
        (told.tag.as_str(), told.line.as_deref(), told.period_us),
        ("TT-101", Some("L1"), 1_000_000)
    );
    fsq.change(Method::PUT, &path, 1, Some(limit(73.0)))
        .await
        .problem(412);
    let impossible = json!({ "low": null, "high": null, "clear_margin": 0, "delay_us": 0, "gap_us_max": 1, "check_every_us": 1 });
    let said = fsq
        .change(Method::PUT, &path, 2, Some(impossible))
        .await
        .problem(400);
    assert!(said.contains("`low`"), "{said}");
    let history = fsq.items(&format!("{path}s")).await;
    assert_eq!(history.len(), 1);
    assert_eq!(history[0]["low"], 72.5);
    let now = fsq
        .get(&format!("/fsq/ccps/{}", ccp["id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(
        (&now["limit_version"], &now["limit_low"]),
        (&json!(2), &json!(72.5))
    );
}

#[tokio::test]
async fn a_changed_limit_is_two_limits_in_a_series_from_when_its_edge_has_taken_it() {
    let hub = TestHub::start().await;
    let fsq = Caller::with_role(&hub, Role::FsqManager).await;
    let identity = enrol(&hub, "e1").await;
    let mut edge = Edge::connect(&hub, &identity, &FrameMaker::new("e1", &["TT-101"])).await;
    let ccps = fsq.items("/fsq/ccps").await;
    let ccp = ccps.iter().find(|ccp| ccp["code"] == "CCP-1").unwrap();
    let path = format!("/fsq/ccps/{}", ccp["id"].as_str().unwrap());
    let known = until(&fsq, &path, |ccp| ccp["tag_id"].is_i64()).await;
    let now_us = hub.hub.app.clock.now_us();
    let series = format!(
        "/plant-ops/series?tags={}&from_us={}&to_us={}&limits=true",
        known["tag_id"],
        now_us - 60_000_000,
        now_us + 3_600_000_000
    );
    let limits = |series: Value| -> Vec<(Value, Value, bool, bool)> {
        let limits = series["tags"][0]["limits"].as_array().unwrap().clone();
        limits
            .into_iter()
            .map(|it| {
                assert_eq!((&it["kind"], &it["code"]), (&json!("critical"), &json!("CCP-1")));
                (
                    it["version"].clone(),
                    it["low"].clone(),
                    it["from_us"].is_null(),
                    it["to_us"].is_null(),
                )
            })
            .collect()
    };
    let first = (json!(1), json!(72.0), true, true);
    assert_eq!(limits(fsq.get(&series).await.ok()), std::slice::from_ref(&first));
    let limit = json!({ "low": 72.5, "high": null, "clear_margin": 0.2, "delay_us": 1_000_000, "gap_us_max": 10_000_000,
        "check_every_us": 60_000_000 });
    fsq.change(Method::PUT, &format!("{path}/limit"), 1, Some(limit))
        .await
        .ok();
    let told = edge.command().await;
    let waiting = limits(fsq.get(&series).await.ok());
    assert_eq!(waiting, [first], "what no edge has taken judges nothing");
    edge.answer(0, told.id, CommandOutcome::Done).await;
    let changed = until(&fsq, &series, |series| {
        series["tags"][0]["limits"].as_array().unwrap().len() == 2
    })
    .await;
    let both = changed["tags"][0]["limits"].clone();
    assert_eq!(
        both[0]["from_us"], both[1]["to_us"],
        "one takes the place of the other"
    );
    assert_eq!(
        limits(changed),
        [
            (json!(2), json!(72.5), false, true),
            (json!(1), json!(72.0), true, false)
        ]
    );
    let unasked = fsq.get(&series.replace("limits=true", "limits=false")).await.ok();
    assert_eq!(unasked["tags"][0]["limits"], json!([]));
}

#[tokio::test]
async fn an_alarm_is_acted_on_by_name_and_only_as_its_rules_allow() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let identity = enrol(&hub, "e1").await;
    let mut edge = Edge::connect(&hub, &identity, &FrameMaker::new("e1", &["TT-101"])).await;
    let deed = |deed: &str| json!({ "kind": "alarm", "code": "source.down", "subject": "htst", "deed": deed, "reason": "seen" });
    supervisor.post(COMMANDS, deed("acknowledge")).await.ok();
    let Order::Alarm(action) = edge.command().await.order else {
        panic!("another order")
    };
    assert_eq!((action.code.as_str(), action.second), ("source.down", None));
    assert!(!action.by.is_empty());
    supervisor.post(COMMANDS, deed("shelve")).await.problem(400);
    let mut wrong = deed("acknowledge");
    wrong["second"] = json!("somebody");
    supervisor.post(COMMANDS, wrong).await.problem(422);
    for (path, body) in [
        ("/edges/nowhere/commands", deed("acknowledge")),
        ("/edges/A/commands", deed("reset")),
    ] {
        supervisor.post(path, body).await.problem(404);
    }
    supervisor.post("/edges/e1/revoke", json!({})).await;
    supervisor.post(COMMANDS, deed("acknowledge")).await.problem(409);
}

#[tokio::test]
async fn who_may_not_configure_command_or_update_does_not() {
    let hub = TestHub::start().await;
    enrol(&hub, "e1").await;
    let operator = Caller::with_role(&hub, Role::Operator).await;
    let config = json!({ "toml": "a = 1" });
    operator
        .send(Method::PUT, CONFIG, Some(config))
        .await
        .problem(403);
    operator.get(CONFIG).await.problem(403);
    let replay = json!({ "kind": "replay", "from_us": 1, "to_us": 2 });
    operator.post(COMMANDS, replay).await.problem(403);
    assert!(operator.items(COMMANDS).await.is_empty());
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    supervisor.get(CONFIG).await.problem(403);
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    theirs.get(CONFIG).await.problem(404);
}

async fn fetch(
    hub: &TestHub,
    path: &str,
    (user, password): (&str, &str),
    from: Option<u64>,
) -> reqwest::Response {
    let mut request = http_client()
        .get(hub.url(&format!("/api/v1{path}")))
        .basic_auth(user, Some(password));
    if let Some(from) = from {
        request = request.header("range", format!("bytes={from}-"));
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn t32_an_edge_fetches_its_update_with_its_own_credentials_and_goes_on_where_it_broke_off() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let identity = enrol(&hub, "e1").await;
    let password = identity.mqtt_password.expose();
    let request = admin
        .request(Method::POST, "/edge-artefacts")
        .body("a program of 22 byte");
    let kept = Answer::of(request.header("content-type", "application/octet-stream"))
        .await
        .ok();
    let sha256 = kept["sha256"].as_str().unwrap().to_owned();
    let path = format!("/edge-artefacts/{sha256}");
    let whole = fetch(&hub, &path, ("akron/e1", password), None).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.bytes().await.unwrap(), "a program of 22 byte");
    let rest = fetch(&hub, &path, ("akron/e1", password), Some(13)).await;
    assert_eq!(
        (rest.status().as_u16(), &rest.headers()["content-range"]),
        (206, &"bytes 13-19/20".parse().unwrap())
    );
    assert_eq!(rest.bytes().await.unwrap(), "22 byte");
    for (user, password) in [
        ("akron/e1", "guess"),
        ("akron/e2", password),
        ("cuyahoga/e1", password),
    ] {
        assert_eq!(
            fetch(&hub, &path, (user, password), None).await.status(),
            401,
            "{user}"
        );
    }
    admin.get(&path).await.problem(401);
    let nowhere = fetch(
        &hub,
        "/edge-artefacts/..%2F..%2Faudit.key",
        ("akron/e1", password),
        None,
    )
    .await;
    assert_eq!(nowhere.status(), 404);

    let mut edge = Edge::connect(&hub, &identity, &FrameMaker::new("e1", &["TT-101"])).await;
    let manifest = json!({ "version": "0.2.0", "target": "x", "sha256": sha256, "size": 20 }).to_string();
    let signature = "0b".repeat(64);
    let update = json!({ "manifest": manifest, "signature": signature });
    let made = admin.post("/edges/e1/updates", update).await.ok();
    assert_eq!(made["summary"]["version"], "0.2.0");
    let Order::Update {
        manifest: told,
        signature,
    } = edge.command().await.order
    else {
        panic!("another order")
    };
    assert_eq!((told, signature), (manifest.into_bytes(), vec![11; 64]));
    let unknown = json!({ "version": "0.3.0", "sha256": "0".repeat(64) }).to_string();
    let update = json!({ "manifest": unknown, "signature": "0b".repeat(64) });
    admin.post("/edges/e1/updates", update).await.problem(409);
}
