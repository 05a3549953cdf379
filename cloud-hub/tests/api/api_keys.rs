//! Keys for machines: what they open, for how long, and what everybody else gets who tries one.

use cloud_hub::kernel::role::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::Caller,
    people::{line, person},
    support::{TestHub, akron, cuyahoga},
};

const KEYS: &str = "/api-keys";
const DAY_US: i64 = 86_400_000_000;

fn new(hub: &TestHub, name: &str, permissions: &Value) -> Value {
    let expires_us = hub.hub.app.clock.now_us() + DAY_US;
    json!({ "name": name, "permissions": permissions, "expires_us": expires_us })
}

fn path(key: &Value) -> String {
    format!("{KEYS}/{}", key["id"].as_str().unwrap())
}

fn with_key(caller: &Caller, key: &Value) -> Caller {
    caller.with_token(key["secret"].as_str().unwrap().to_owned())
}

async fn denied(hub: &TestHub) -> i64 {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let sql = "SELECT count(*) FROM audit_event WHERE action = 'denied' AND actor_kind = 'api_key'";
    sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
}

#[tokio::test]
async fn a_key_opens_what_it_is_for_and_its_secret_is_shown_once() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let answer = admin.post(KEYS, new(&hub, "erp", &json!(["batch.read"]))).await;
    assert_eq!(answer.status, 201);
    let made = answer.ok();
    let erp = with_key(&admin, &made);
    erp.get("/plant-ops/batches").await.ok();
    erp.get("/fsq/lots").await.problem(403);
    let me = erp.get("/auth/me").await.ok();
    assert_eq!(
        (&me["user"]["kind"], &me["user"]["display_name"]),
        (&json!("api_key"), &json!("erp"))
    );
    assert_eq!(
        (&me["can"], &me["expires_us"]),
        (&json!(["batch.read"]), &made["expires_us"])
    );

    let shown = admin.get(&path(&made)).await.ok();
    assert_eq!(shown.get("secret"), None);
    assert_eq!(shown["permissions"], json!(["batch.read"]));
    let secret = made["secret"].as_str().unwrap().rsplit('_').next().unwrap();
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let told: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM audit_event WHERE strpos(event, $1) > 0) \
           + (SELECT count(*) FROM domain_event WHERE strpos(payload::text, $1) > 0) \
           + (SELECT count(*) FROM idempotency_key WHERE strpos(coalesce(body, ''), $1) > 0)",
    )
    .bind(secret)
    .fetch_one(tx.conn())
    .await
    .unwrap();
    assert_eq!(told, 0, "the secret is written nowhere");
}

#[tokio::test]
async fn the_same_request_again_does_not_show_the_secret_again() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let body = new(&hub, "once", &json!(["batch.read"]));
    let send = async || {
        let request = admin
            .request(Method::POST, KEYS)
            .header("idempotency-key", "k")
            .json(&body);
        crate::client::Answer::of(request).await
    };
    send().await.ok();
    assert!(send().await.problem(409).contains("shown only once"));
    assert_eq!(admin.items(KEYS).await.len(), 1);
}

#[tokio::test]
async fn a_key_that_is_forged_foreign_rotated_revoked_or_too_old_opens_nothing() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let made = admin
        .post(KEYS, new(&hub, "erp", &json!(["batch.read"])))
        .await
        .ok();
    let secret = made["secret"].as_str().unwrap().to_owned();
    let refused = async |secret: String| {
        admin
            .with_token(secret)
            .get("/plant-ops/batches")
            .await
            .problem(401);
    };
    refused(format!("{secret}x")).await;
    refused(secret.replacen("ff_akron", "ff_cuyahoga", 1)).await;
    refused(secret.replacen("ff_akron", "ff_nowhere", 1)).await;
    refused(secret[..secret.len() - 1].to_owned()).await;
    assert_eq!(denied(&hub).await, 0, "made-up keys do not fill the audit chain");

    let until = json!({ "expires_us": hub.hub.app.clock.now_us() + 2 * DAY_US });
    let rotate = format!("{}/rotate", path(&made));
    admin
        .change(Method::POST, &rotate, 9, Some(until.clone()))
        .await
        .problem(412);
    admin.post(&rotate, until.clone()).await.problem(428);
    let rotated = admin.change(Method::POST, &rotate, 1, Some(until)).await.ok();
    assert_eq!((&rotated["id"], &rotated["version"]), (&made["id"], &json!(2)));
    refused(secret).await;
    assert_eq!(denied(&hub).await, 0, "nor does a secret that was replaced");
    let now = with_key(&admin, &rotated);
    now.get("/plant-ops/batches").await.ok();

    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    theirs.get(&path(&made)).await.problem(404);
    theirs
        .change(Method::DELETE, &path(&made), 2, None)
        .await
        .problem(404);
    assert_eq!(
        admin.change(Method::DELETE, &path(&made), 2, None).await.status,
        204
    );
    now.get("/plant-ops/batches").await.problem(401);
    assert_eq!(
        denied(&hub).await,
        1,
        "a revoked key that is still in use is on record"
    );
    admin
        .change(Method::DELETE, &path(&made), 3, None)
        .await
        .problem(409);
    assert_eq!(admin.items("/api-keys?is_revoked=true").await.len(), 1);

    let old = admin
        .post(KEYS, new(&hub, "old", &json!(["batch.read"])))
        .await
        .ok();
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query("UPDATE api_key SET expires_at = now() - interval '1 second' WHERE name = 'old'")
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit_unaudited("time passes").await.unwrap();
    with_key(&admin, &old)
        .get("/plant-ops/batches")
        .await
        .problem(401);
}

#[tokio::test]
async fn a_key_for_a_line_reaches_that_line_only() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let l1 = line(&hub, "L1").await;
    let mut body = new(&hub, "l1", &json!(["batch.read", "plant.read"]));
    body["line_id"] = json!(l1);
    let key = with_key(&admin, &admin.post(KEYS, body.clone()).await.ok());
    let lines = key.items("/plant-ops/lines").await;
    assert_eq!(lines.iter().map(|line| &line["code"]).collect::<Vec<_>>(), ["L1"]);
    assert!(
        key.items("/plant-ops/batches")
            .await
            .iter()
            .all(|batch| batch["line_id"] == json!(l1))
    );
    body["name"] = json!("wide");
    body["permissions"] = json!(["user.read"]);
    assert!(admin.post(KEYS, body).await.problem(400).contains("user.read"));
}

#[tokio::test]
async fn nobody_makes_a_key_that_does_more_than_they_may() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let role = json!({ "name": "keys", "permissions": ["api_key.read", "api_key.write", "batch.read"] });
    admin.post("/roles", role).await.ok();
    let (_, kim) = person(&hub, "kim", &[("keys", None), ("operator", Some("L1"))]).await;
    kim.post(KEYS, new(&hub, "a", &json!(["batch.read"]))).await.ok();
    let said = kim
        .post(KEYS, new(&hub, "b", &json!(["batch.write"])))
        .await
        .problem(403);
    assert!(said.contains("batch.write"), "held on a line only: {said}");
    let strong = admin
        .post(KEYS, new(&hub, "c", &json!(["user.write"])))
        .await
        .ok();
    let until = json!({ "expires_us": hub.hub.app.clock.now_us() + DAY_US });
    let rotate = format!("{}/rotate", path(&strong));
    kim.change(Method::POST, &rotate, 1, Some(until))
        .await
        .problem(403);
    let key = with_key(
        &admin,
        &kim.post(KEYS, new(&hub, "d", &json!(["api_key.write"])))
            .await
            .ok(),
    );
    key.post(KEYS, new(&hub, "e", &json!(["batch.read"])))
        .await
        .problem(403);
}

#[tokio::test]
async fn what_no_key_can_be_is_refused() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let now_us = hub.hub.app.clock.now_us();
    for expires_us in [0, now_us, now_us + 400 * DAY_US, i64::MAX, i64::MIN] {
        let body = json!({ "name": "x", "permissions": ["batch.read"], "expires_us": expires_us });
        admin.post(KEYS, body).await.problem(400);
    }
    for name in ["", "a\u{0}b", "a\nb", &"x".repeat(101)] {
        admin
            .post(KEYS, new(&hub, name, &json!(["batch.read"])))
            .await
            .problem(400);
    }
    admin.post(KEYS, new(&hub, "x", &json!([]))).await.problem(400);
    admin
        .post(KEYS, new(&hub, "x", &json!(["batch.fly"])))
        .await
        .problem(400);
    admin
        .post(KEYS, new(&hub, "x", &json!("batch.read")))
        .await
        .problem(422);
    admin
        .post(KEYS, new(&hub, "x", &json!(["batch.read"])))
        .await
        .ok();
    admin
        .post(KEYS, new(&hub, "x", &json!(["batch.read"])))
        .await
        .problem(409);
    for wrong in ["revoked=true", "sort=secret_sha256", "created_by=me"] {
        admin.get(&format!("{KEYS}?{wrong}")).await.problem(400);
    }
}

#[tokio::test]
async fn the_last_use_of_a_key_is_known_to_the_minute_and_costs_no_request_a_write() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let made = admin
        .post(KEYS, new(&hub, "erp", &json!(["batch.read"])))
        .await
        .ok();
    assert_eq!(made["last_used_us"], Value::Null);
    let key = with_key(&admin, &made);
    let before_us = hub.hub.app.clock.now_us();
    key.get("/plant-ops/batches").await.ok();
    let used = loop {
        let used = admin.get(&path(&made)).await.ok()["last_used_us"].clone();
        if !used.is_null() {
            break used.as_i64().unwrap();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(used % 60_000_000, 0);
    assert!((before_us - 60_000_000..=hub.hub.app.clock.now_us()).contains(&used));
    assert_eq!(
        admin.get(&path(&made)).await.ok()["version"],
        1,
        "it is no change of the record"
    );
}
