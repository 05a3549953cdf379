//! Edges and their credentials: who gets in with which code, and who is out from when.

use std::time::Duration;

use cloud_hub::kernel::role::Role;
use reqwest::Method;
use rumqttc::v5::{AsyncClient, EventLoop, MqttOptions};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    client::{Answer, Caller},
    support::{TestHub, akron, cuyahoga},
};

const CODES: &str = "/edges/enroll-codes";

/// An MQTT connection that was let in.
struct Link {
    _client: AsyncClient,
    events: EventLoop,
}

impl Link {
    /// Connects with what an edge was given; none when it is refused.
    async fn open(hub: &TestHub, identity: &Value) -> Option<Self> {
        let text = |field: &str| identity[field].as_str().unwrap().to_owned();
        let address = hub.hub.mqtt;
        let mut options = MqttOptions::new(text("edge"), address.ip().to_string(), address.port());
        options.set_credentials(text("mqtt_username"), text("mqtt_password"));
        let (client, mut events) = AsyncClient::new(options, 4);
        let first = timeout(Duration::from_secs(20), events.poll())
            .await
            .expect("an answer in time");
        first.is_ok().then_some(Self {
            _client: client,
            events,
        })
    }

    /// Waits until the hub ends the connection.
    async fn ended(mut self) {
        let end = async { while self.events.poll().await.is_ok() {} };
        timeout(Duration::from_secs(20), end)
            .await
            .expect("the connection ends");
    }
}

async fn enrol(hub: &TestHub, supervisor: &Caller, edge: &str) -> Value {
    let made = supervisor.post(CODES, json!({ "edge": edge })).await.ok();
    let anonymous = Caller::anonymous(hub);
    anonymous
        .post("/edges/enroll", json!({ "code": made["code"] }))
        .await
        .ok()
}

async fn audited(hub: &TestHub, action: &str, correlation_id: Option<&str>) -> i64 {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query_scalar(
        "SELECT count(*) FROM audit_event WHERE action = $1 AND ($2::text IS NULL OR correlation_id = $2) \
           AND entity IN ('edge', 'enroll_code')",
    )
    .bind(action)
    .bind(correlation_id)
    .fetch_one(tx.conn())
    .await
    .unwrap()
}

#[tokio::test]
async fn a_code_is_listed_until_it_is_used_and_works_once() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let request = supervisor
        .request(Method::POST, CODES)
        .header("x-request-id", "enrol-1")
        .json(&json!({ "edge": "akron-7" }));
    let made = Answer::of(request).await.ok();
    assert_eq!(audited(&hub, "create", Some("enrol-1")).await, 1);
    let open = supervisor.items(CODES).await;
    assert_eq!(
        (open.len(), &open[0]["id"], &open[0]["edge"]),
        (1, &made["id"], &json!("akron-7"))
    );
    assert_eq!(open[0].get("code"), None);
    assert!(open[0]["created_by"].is_string());

    let anonymous = Caller::anonymous(&hub);
    let present = || anonymous.post("/edges/enroll", json!({ "code": made["code"] }));
    let (one, two) = tokio::join!(present(), present());
    let let_in = [&one, &two].iter().filter(|answer| answer.status == 200).count();
    assert_eq!(
        let_in, 1,
        "of two who present a code at once, one gets in: {one:?} {two:?}"
    );
    present().await.problem(401);
    assert!(supervisor.items(CODES).await.is_empty());
    assert_eq!(audited(&hub, "enrol", None).await, 1);
}

#[tokio::test]
async fn a_withdrawn_code_enrols_nobody() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let made = supervisor.post(CODES, json!({ "edge": "akron-7" })).await.ok();
    let path = format!("{CODES}/{}", made["id"].as_str().unwrap());
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    assert!(theirs.items(CODES).await.is_empty());
    theirs.send(Method::DELETE, &path, None).await.problem(404);
    assert_eq!(supervisor.send(Method::DELETE, &path, None).await.status, 204);
    supervisor.send(Method::DELETE, &path, None).await.problem(404);
    let anonymous = Caller::anonymous(&hub);
    anonymous
        .post("/edges/enroll", json!({ "code": made["code"] }))
        .await
        .problem(401);
    assert_eq!(audited(&hub, "withdraw", None).await, 1);
}

#[tokio::test]
async fn a_revoked_edge_is_disconnected_at_once_and_comes_back_only_with_a_new_code() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let identity = enrol(&hub, &supervisor, "akron-7").await;
    let neighbour = enrol(&hub, &supervisor, "akron-8").await;
    let link = Link::open(&hub, &identity)
        .await
        .expect("its credentials are good");
    let mut other = Link::open(&hub, &neighbour).await.unwrap();
    let left = supervisor.post(CODES, json!({ "edge": "akron-7" })).await.ok();

    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    theirs
        .send(Method::POST, "/edges/akron-7/revoke", None)
        .await
        .problem(404);
    let revoke = || supervisor.send(Method::POST, "/edges/akron-7/revoke", None);
    assert_eq!(revoke().await.status, 204);
    link.ended().await;
    assert!(
        Link::open(&hub, &identity).await.is_none(),
        "the same credentials again"
    );
    let anonymous = Caller::anonymous(&hub);
    anonymous
        .post("/edges/enroll", json!({ "code": left["code"] }))
        .await
        .problem(401);
    let shown = supervisor.items("/edges").await;
    let of = |name: &str| shown.iter().find(|edge| edge["name"] == name).unwrap();
    assert!(of("akron-7")["revoked_us"].is_i64() && of("akron-8")["revoked_us"].is_null());
    assert_eq!(revoke().await.status, 204, "an emergency may be declared twice");
    assert_eq!(audited(&hub, "revoke", None).await, 2);
    let still = timeout(Duration::from_millis(200), other.events.poll()).await;
    assert!(!matches!(still, Ok(Err(_))), "the neighbour stays: {still:?}");

    let again = enrol(&hub, &supervisor, "akron-7").await;
    assert!(
        Link::open(&hub, &identity).await.is_none(),
        "the old secret stays dead"
    );
    Link::open(&hub, &again).await.expect("the new one is good");
    let shown = supervisor.items("/edges").await;
    assert!(shown.iter().all(|edge| edge["revoked_us"].is_null()));
}

#[tokio::test]
async fn an_impossible_edge_gets_no_code_and_is_not_found() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let caller = "http-01a1fbadb87477cc886d9033f91a21c3";
    for edge in ["", "-a", "A", "a/b", "a\u{0}", "+", "#", caller, &"x".repeat(64)] {
        admin.post(CODES, json!({ "edge": edge })).await.problem(400);
    }
    admin
        .post(CODES, json!({ "edge": "a", "tenant": "cuyahoga" }))
        .await
        .problem(422);
    for edge in ["nowhere", "a%00b", "..%2Fx", "A"] {
        let path = format!("/edges/{edge}/revoke");
        admin.send(Method::POST, &path, None).await.problem(404);
    }
    let operator = Caller::with_role(&hub, Role::Operator).await;
    operator
        .post(CODES, json!({ "edge": "akron-7" }))
        .await
        .problem(403);
    operator
        .send(Method::POST, "/edges/akron-7/revoke", None)
        .await
        .problem(403);
}
