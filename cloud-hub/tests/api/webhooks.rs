//! Webhooks over HTTP to a real receiver: signed, in order, repeated until they are taken, never lost, and never sent
//! where they must not go.

use std::{io::Write, process::Stdio, time::Duration};

use cloud_hub::kernel::{audit::Actor, role::Role};
use protocol::{lane::Lane, limit::Phase, topic::Channel};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::Caller,
    receiver::{Reaction, Received, Receiver},
    support::{FrameMaker, TestDatabase, TestHub, akron},
};

const WEBHOOKS: &str = "/integrations/webhooks";
const SUPPLIERS: &str = "/fsq/suppliers";

/// A hub that may call this machine, and is in a hurry.
async fn hub_on(database: TestDatabase, dir: tempfile::TempDir) -> TestHub {
    TestHub::start_in(database, dir, |config| {
        config.webhooks.allow_private = true;
        config.webhooks.timeout = Duration::from_millis(400);
        config.webhooks.retry_first = Duration::from_millis(20);
    })
    .await
}

async fn hub() -> TestHub {
    hub_on(TestDatabase::create().await, tempfile::tempdir().unwrap()).await
}

async fn register(admin: &Caller, receiver: &Receiver, kinds: &[&str]) -> Value {
    let body = json!({ "url": receiver.url, "kinds": kinds, "description": "test" });
    let made = admin.post(WEBHOOKS, body).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body
}

fn path_of(webhook: &Value) -> String {
    format!("{WEBHOOKS}/{}", webhook["id"].as_str().unwrap())
}

async fn supplier(admin: &Caller, code: &str) -> String {
    let made = admin
        .post(SUPPLIERS, json!({ "code": code, "name": code }))
        .await
        .ok();
    format!("{SUPPLIERS}/{}", made["id"].as_str().unwrap())
}

async fn rename(admin: &Caller, path: &str, version: i32) {
    let name = json!({ "name": format!("name {version}") });
    admin.change(Method::PATCH, path, version, Some(name)).await.ok();
}

/// Asks for the log until it is as wanted.
async fn log_until(admin: &Caller, webhook: &Value, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let path = format!("{}/deliveries", path_of(webhook));
    for _ in 0..600 {
        let items = admin.items(&path).await;
        if wanted(&items) {
            return items;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the log never was as wanted: {:?}", admin.items(&path).await);
}

/// Runs SQL in the tenant, as the hub's own duties do.
async fn sql(hub: &TestHub, sql: &'static str) {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query(sql).execute(tx.conn()).await.unwrap();
    tx.commit_unaudited("a test sets the stage").await.unwrap();
}

/// What the guide's own example says of a message.
fn guide_accepts(secret: &str, received: &Received, now_s: i64) -> bool {
    let guide = include_str!("../../../docs/guide/webhooks.md");
    let (_, rest) = guide.split_once("```python\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let program = format!(
        "{example}\nimport json, sys\ngiven = json.load(sys.stdin)\n\
         print(verify(given['secret'], given['headers'], given['body'].encode(), given['now_s']))\n"
    );
    let mut python = std::process::Command::new("python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let given =
        json!({ "secret": secret, "headers": received.headers, "body": received.text, "now_s": now_s });
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(given.to_string().as_bytes()).unwrap();
    drop(stdin);
    let said = python.wait_with_output().unwrap();
    assert!(said.status.success());
    String::from_utf8(said.stdout).unwrap().trim() == "True"
}

fn sent_s(received: &Received) -> i64 {
    received.header("webhook-timestamp").parse().unwrap()
}

#[tokio::test]
async fn a_message_says_what_happened_why_and_that_it_is_ours() {
    let (hub, mut receiver) = (hub().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let webhook = register(&admin, &receiver, &["Supplier*"]).await;
    let secret = webhook["secret"].as_str().unwrap();
    let made = admin
        .request(Method::POST, SUPPLIERS)
        .header("x-request-id", "order-4711")
        .json(&json!({ "code": "S-1", "name": "Zoë's" }))
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();

    let received = receiver.next().await;
    assert_eq!(received.header("x-request-id"), "order-4711");
    assert_eq!(received.body["kind"], "SupplierCreated");
    assert_eq!(received.body["correlation_id"], "order-4711");
    assert_eq!(received.body["aggregate_id"], made["id"]);
    assert_eq!(received.body["payload"], made);
    assert_eq!(received.body["id"], received.header("webhook-id"));

    let at_s = sent_s(&received);
    assert!(guide_accepts(secret, &received, at_s + 299));
    assert!(
        !guide_accepts(secret, &received, at_s + 301),
        "the replay window is five minutes"
    );
    let mut forged = received.clone();
    forged.text = forged.text.replace("S-1", "S-2");
    assert!(!guide_accepts(secret, &forged, at_s));
    assert!(
        !admin
            .get(&path_of(&webhook))
            .await
            .body
            .to_string()
            .contains("whsec_"),
        "shown once"
    );
}

#[tokio::test]
async fn only_the_kinds_asked_for_are_sent_and_a_record_s_events_in_their_order() {
    let (hub, mut receiver) = (hub().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    register(&admin, &receiver, &["SupplierCreated", "SupplierUp*"]).await;
    let paths = [supplier(&admin, "A").await, supplier(&admin, "B").await];
    for version in 1..6 {
        for path in &paths {
            rename(&admin, path, version).await;
        }
    }
    admin.change(Method::DELETE, &paths[0], 6, None).await;
    let last = supplier(&admin, "C").await;
    let mut seen: Vec<(String, i64)> = Vec::new();
    for _ in 0..13 {
        let received = receiver.next().await;
        assert_ne!(received.body["kind"], "SupplierDeleted");
        let id = received.body["aggregate_id"].as_str().unwrap().to_owned();
        seen.push((id, received.body["aggregate_seq"].as_i64().unwrap()));
    }
    for path in &paths {
        let mine = seen.iter().filter(|(id, _)| path.ends_with(id.as_str()));
        assert_eq!(mine.map(|(_, seq)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    }
    assert!(seen.iter().any(|(id, _)| last.ends_with(id.as_str())));
    assert!(receiver.is_quiet());
}

#[tokio::test]
async fn what_fails_is_repeated_under_one_id_and_only_its_own_record_waits() {
    let (hub, mut receiver) = (hub().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let webhook = register(&admin, &receiver, &["*"]).await;
    // Its own registration is the first event of the store that it hears of.
    assert_eq!(receiver.next().await.body["kind"], "WebhookCreated");
    receiver.react([Reaction::Status(500), Reaction::RetryAfter(1), Reaction::Silence]);
    let slow = supplier(&admin, "SLOW").await;
    let first = receiver.next().await;
    let (second, third) = (receiver.next().await, receiver.next().await);
    assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
    rename(&admin, &slow, 1).await;
    supplier(&admin, "QUICK").await;
    let mut order = Vec::new();
    for _ in 0..3 {
        let received = receiver.next().await;
        order.push((
            received.body["kind"].as_str().unwrap().to_owned(),
            received.body["payload"]["code"].as_str().unwrap().to_owned(),
        ));
        if received.seq() == third.seq() {
            assert_eq!(received.header("webhook-id"), first.header("webhook-id"));
            assert_eq!(received.header("webhook-attempt"), "4");
        }
    }
    let place = |kind: &str, code: &str| {
        let it = (kind.to_owned(), code.to_owned());
        order.iter().position(|seen| *seen == it).unwrap()
    };
    assert_eq!(place("SupplierCreated", "QUICK"), 0, "{order:?}");
    assert!(place("SupplierCreated", "SLOW") < place("SupplierUpdated", "SLOW"));

    let log = log_until(&admin, &webhook, |log| {
        log.iter().all(|delivery| delivery["status"] == "delivered")
    })
    .await;
    let slow = log.iter().find(|it| it["seq"] == first.seq()).unwrap();
    let attempts = slow["attempts"].as_array().unwrap();
    let statuses: Vec<_> = attempts.iter().map(|it| it["status"].as_i64()).collect();
    assert_eq!(statuses, [Some(500), Some(503), None, Some(200)]);
    assert_eq!(attempts[0]["response"], "said so");
    assert_eq!(attempts[2]["error"], "no answer in time");
    let waited_us = attempts[2]["at_us"].as_i64().unwrap() - attempts[1]["at_us"].as_i64().unwrap();
    assert!(waited_us >= 1_000_000, "Retry-After: 1, {waited_us} us");
}

#[tokio::test]
async fn a_receiver_that_is_away_gets_everything_once_it_is_back() {
    let hub = hub().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let away = json!({ "url": format!("http://{address}/in"), "kinds": ["Supplier*"] });
    let webhook = admin.post(WEBHOOKS, away).await.ok();
    supplier(&admin, "A").await;
    let log = log_until(&admin, &webhook, |log| {
        log.iter().any(|it| it["attempts"].as_array().unwrap().len() > 1)
    })
    .await;
    let error = log[0]["attempts"][0]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("cannot connect"), "{error}");
    // It is somewhere else now.
    let mut receiver = Receiver::start().await;
    let moved = json!({ "url": receiver.url });
    let version = webhook["version"].as_i64().unwrap() as i32;
    admin
        .change(Method::PATCH, &path_of(&webhook), version, Some(moved))
        .await
        .ok();
    assert_eq!(receiver.next().await.body["kind"], "SupplierCreated");
}

#[tokio::test]
async fn what_is_given_up_is_visible_lets_others_pass_and_can_be_sent_again() {
    let (hub, mut receiver) = (hub().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let webhook = register(&admin, &receiver, &["Supplier*"]).await;
    receiver.react([Reaction::Silence, Reaction::Status(500)]);
    let path = supplier(&admin, "A").await;
    receiver.next().await;
    // Nine attempts later.
    sql(&hub, "UPDATE webhook_delivery SET failures = 8").await;
    rename(&admin, &path, 1).await;
    receiver.next().await;
    assert_eq!(receiver.next().await.body["kind"], "SupplierUpdated");
    let log = log_until(&admin, &webhook, |log| {
        log.iter().all(|it| it["status"] != "pending")
    })
    .await;
    let dead = log.iter().find(|it| it["status"] == "dead").unwrap();
    assert_eq!(dead["kind"], "SupplierCreated");
    let filtered = format!("{}/deliveries?status=dead", path_of(&webhook));
    assert_eq!(admin.items(&filtered).await.len(), 1);

    let again = format!(
        "{}/deliveries/{}/redeliver",
        path_of(&webhook),
        dead["id"].as_str().unwrap()
    );
    let queued = admin.post(&again, Value::Null).await;
    assert_eq!(queued.status, 202, "{queued:?}");
    let received = receiver.next().await;
    assert_eq!(received.header("webhook-id"), dead["message_id"]);
    assert_eq!(received.header("webhook-replayed"), "true");
    log_until(&admin, &webhook, |log| {
        log.iter().all(|it| it["status"] == "delivered")
    })
    .await;
}

#[test]
fn a_hub_killed_between_sending_and_noting_it_loses_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let database = TestDatabase::create().await;
        let (again, mut receiver) = (database.again(), Receiver::start().await);
        let dir = tempfile::tempdir().unwrap();
        // The first hub runs on a runtime of its own, which ends in the middle of whatever it does.
        let doomed = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let first = doomed
            .spawn(hub_on(database, tempfile::tempdir_in(dir.path()).unwrap()))
            .await
            .unwrap();
        let admin = Caller::with_role(&first, Role::Admin).await;
        let webhook = register(&admin, &receiver, &["Supplier*"]).await;
        receiver.react([Reaction::Silence]);
        supplier(&admin, "A").await;
        let before = receiver.next().await;
        // It was received; no answer was, and nothing is noted.
        let key = std::fs::read(first.data_dir().join("sealing.key")).unwrap();
        let signing = std::fs::read(first.data_dir().join("signing.key")).ok();
        std::mem::forget(first);
        doomed.shutdown_background();

        let second_dir = tempfile::tempdir().unwrap();
        write_key(&second_dir, "sealing.key", &key);
        if let Some(signing) = signing {
            write_key(&second_dir, "signing.key", &signing);
        }
        let second = hub_on(again, second_dir).await;
        let after = receiver.next().await;
        assert_eq!(after.header("webhook-id"), before.header("webhook-id"));
        assert_eq!(after.text, before.text);
        assert!(guide_accepts(
            webhook["secret"].as_str().unwrap(),
            &after,
            sent_s(&after)
        ));
        let admin = Caller::with_role(&second, Role::Admin).await;
        let log = log_until(&admin, &webhook, |log| log[0]["status"] == "delivered").await;
        assert_eq!(log.len(), 1);
        assert_eq!(log[0]["attempts"][0]["attempt"], 2, "the first was cut off");
        assert!(receiver.is_quiet());
    });
}

fn write_key(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_gone_means_gone() {
    let (hub, mut receiver, mut other) = (hub().await, Receiver::start().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let webhook = register(&admin, &receiver, &["Supplier*"]).await;
    receiver.react([Reaction::Redirect(other.url.clone()), Reaction::Status(410)]);
    supplier(&admin, "A").await;
    receiver.next().await;
    receiver.next().await;
    let log = log_until(&admin, &webhook, |log| log[0]["status"] == "dead").await;
    let said = log[0]["attempts"][0]["error"].as_str().unwrap();
    assert!(said.contains("redirects are not followed"), "{said}");
    assert!(other.is_quiet());
    let now = admin.get(&path_of(&webhook)).await.ok();
    assert_eq!(now["is_active"], false);
    assert!(now["deactivated_because"].as_str().unwrap().contains("410"));
    let told = admin.items("/events?kind=WebhookDeactivated").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["aggregate_id"], webhook["id"]);

    // Off, nothing is sent but a test; on again, it goes on where it stopped.
    supplier(&admin, "B").await;
    admin
        .post(&format!("{}/test", path_of(&webhook)), Value::Null)
        .await
        .ok();
    assert_eq!(receiver.next().await.body["kind"], "webhook.test");
    let on = json!({ "is_active": true });
    let version = now["version"].as_i64().unwrap() as i32;
    let on = admin
        .change(Method::PATCH, &path_of(&webhook), version, Some(on))
        .await
        .ok();
    assert_eq!(on["deactivated_because"], Value::Null);
    let received = receiver.next().await;
    assert_eq!(received.body["payload"]["code"], "B");
}

#[tokio::test]
async fn a_webhook_that_fails_for_five_days_is_switched_off() {
    let (hub, mut receiver) = (hub().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let webhook = register(&admin, &receiver, &["Supplier*"]).await;
    sql(
        &hub,
        "UPDATE webhook SET failing_since = now() - interval '121 hours'",
    )
    .await;
    receiver.react([Reaction::Status(500)]);
    supplier(&admin, "A").await;
    receiver.next().await;
    log_until(&admin, &webhook, |log| {
        log.iter()
            .any(|it| !it["attempts"].as_array().unwrap().is_empty())
    })
    .await;
    let now = admin.get(&path_of(&webhook)).await.ok();
    assert_eq!(now["is_active"], false);
    let entries = "SELECT count(*) FROM audit_event WHERE action = 'deactivate' AND actor_id = 'webhooks'";
    let mut tx = hub.db.begin_as(&akron(), Actor::Nobody).await.unwrap();
    let audited: i64 = sqlx::query_scalar(entries).fetch_one(tx.conn()).await.unwrap();
    assert_eq!(audited, 1);
}

#[tokio::test]
async fn a_new_key_signs_beside_the_old_one_for_a_day() {
    let (hub, mut receiver) = (hub().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let webhook = register(&admin, &receiver, &["Supplier*"]).await;
    let rotate = format!("{}/rotate-secret", path_of(&webhook));
    let rotated = admin.post(&rotate, Value::Null).await.ok();
    let (old, new) = (&webhook["secret"], &rotated["secret"]);
    assert_ne!(old, new);
    supplier(&admin, "A").await;
    let both = receiver.next().await;
    assert!(guide_accepts(old.as_str().unwrap(), &both, sent_s(&both)));
    assert!(guide_accepts(new.as_str().unwrap(), &both, sent_s(&both)));
    sql(&hub, "UPDATE webhook SET previous_until = now()").await;
    supplier(&admin, "B").await;
    let one = receiver.next().await;
    assert!(!guide_accepts(old.as_str().unwrap(), &one, sent_s(&one)));
    assert!(guide_accepts(new.as_str().unwrap(), &one, sent_s(&one)));
}

#[tokio::test]
async fn a_range_is_sent_again_marked_and_in_order() {
    let (hub, mut receiver) = (hub().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let path = supplier(&admin, "A").await;
    rename(&admin, &path, 1).await;
    let webhook = register(&admin, &receiver, &["Supplier*"]).await;
    let replay = format!("{}/replay", path_of(&webhook));
    let queued = admin
        .post(&replay, json!({ "from_seq": 1, "to_seq": 9000 }))
        .await;
    assert_eq!(queued.status, 202, "{queued:?}");
    assert_eq!(queued.body["queued"], 2);
    for kind in ["SupplierCreated", "SupplierUpdated"] {
        let received = receiver.next().await;
        assert_eq!(received.body["kind"], kind);
        assert_eq!(received.header("webhook-replayed"), "true");
    }
    for (from, to) in [(0, 1), (2, 1), (1, 10_001), (-1, i64::MAX), (i64::MIN, i64::MAX)] {
        admin
            .post(&replay, json!({ "from_seq": from, "to_seq": to }))
            .await
            .problem(400);
    }
}

#[tokio::test]
async fn addresses_of_the_hub_s_own_network_are_refused_when_saved_and_when_called() {
    let (hub, mut receiver) = (TestHub::start().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for url in [
        receiver.url.as_str(),
        "https://127.0.0.1/",
        "https://localhost/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "https://user:pw@example.com/",
        "ftp://example.com/",
        "nonsense",
        "",
        "https://example.com/\u{0}",
    ] {
        let body = json!({ "url": url, "kinds": ["*"] });
        admin.post(WEBHOOKS, body).await.problem(400);
    }
    for kinds in [json!([]), json!(["a b"]), json!(["*x"])] {
        let body = json!({ "url": "https://93.184.216.34/", "kinds": kinds });
        admin.post(WEBHOOKS, body).await.problem(400);
    }
    let body = json!({ "url": "https://93.184.216.34/", "kinds": ["Supplier*"], "description": "a\u{0}" });
    admin.post(WEBHOOKS, body).await.problem(400);
    let body = json!({ "url": "https://93.184.216.34/", "kinds": ["Supplier*"] });
    let webhook = admin.post(WEBHOOKS, body).await.ok();
    // As if the check at saving had been passed by a trick.
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query("UPDATE webhook SET url = $1")
        .bind(&receiver.url)
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit_unaudited("a test sets the stage").await.unwrap();
    supplier(&admin, "A").await;
    let log = log_until(&admin, &webhook, |log| {
        log.iter()
            .any(|it| !it["attempts"].as_array().unwrap().is_empty())
    })
    .await;
    let said = log[0]["attempts"][0]["error"].as_str().unwrap();
    assert!(said.contains("not a public one"), "{said}");
    assert!(receiver.is_quiet());
}

#[tokio::test]
async fn the_id_of_an_edge_s_deviation_goes_all_the_way_to_the_notification() {
    let (hub, mut receiver) = (hub().await, Receiver::start().await);
    let admin = Caller::with_role(&hub, Role::Admin).await;
    register(&admin, &receiver, &["CCPViolation"]).await;
    let mut edge = hub.edge("akron-9").await;
    let maker = FrameMaker::new("akron-9", &["TT-901"]);
    edge.send(Channel::Dictionary, maker.dictionary.encode()).await;
    edge.acknowledged().await;
    let dip_us = hub.hub.app.clock.now_us() - 60_000_000;
    let said = maker.deviation(Phase::Opened, dip_us, dip_us + 2_000_000);
    let protocol::event::Event::Deviation(deviation) = &said else {
        panic!("{said:?}")
    };
    let id = deviation.id.to_string();
    let frame = maker.frame(Lane::Events, 0, vec![], vec![said]);
    edge.send(Channel::Up(Lane::Events), frame.encode().unwrap())
        .await;
    let received = receiver.next().await;
    assert_eq!(received.header("x-request-id"), id);
    assert_eq!(received.body["correlation_id"], id.as_str());
    assert_eq!(received.body["aggregate_id"], id.as_str());
}
