//! The same messages over HTTP: one parser, one store, one set of errors.

use cloud_hub::kernel::{clock::Clock, role::Role};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::{Caller, http_client},
    support::{TestHub, akron},
};

/// An integrator's key.
async fn key(hub: &TestHub) -> String {
    let admin = Caller::with_role(hub, Role::Admin).await;
    let expires_us = hub.hub.app.clock.now_us() + 86_400_000_000;
    let new = json!({ "name": "historian", "permissions": ["reading.write"], "expires_us": expires_us });
    let made = admin.post("/api-keys", new).await.ok();
    made["secret"].as_str().unwrap().to_owned()
}

async fn post(hub: &TestHub, key: &str, path: &str, body: &str) -> (u16, String, Value) {
    let answer = http_client()
        .post(hub.url(&format!("/api/v1/ingest/{path}")))
        .bearer_auth(key)
        .body(body.to_owned())
        .send()
        .await
        .unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), kind, answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_http_is_held_adopted_stored_once_and_refused_with_place_and_remedy() {
    let hub = TestHub::start().await;
    let key = key(&hub).await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let now_us = Clock::system().now_us();
    let body = json!({ "ts": now_us, "values": { "t": 4.5 } }).to_string();
    let (status, _, said) = post(&hub, &key, "thingsboard", &body).await;
    assert_eq!((status, &said["counts"]["held"]), (200, &json!(1)), "{said}");
    let waiting = supervisor.items("/integrator/pending-tags").await.remove(0);
    assert!(waiting["client"].as_str().unwrap().starts_with("http-"));
    let edges = supervisor.items("/edges").await;
    let caller = edges
        .iter()
        .find(|edge| edge["name"] == waiting["client"])
        .unwrap();
    assert_eq!(caller["state"], "on_demand", "nobody misses it between two calls");
    let path = format!(
        "/integrator/pending-tags/{}/adopt",
        waiting["id"].as_str().unwrap()
    );
    supervisor
        .send(Method::POST, &path, Some(json!({ "name": "TT-1" })))
        .await
        .ok();
    let (_, _, again) = post(&hub, &key, "auto", &body).await;
    assert_eq!(
        (&again["counts"]["duplicate"], &again["readings"][0]["state"]),
        (&json!(1), &json!("duplicate"))
    );
    let next = format!("m t=5.5 {}", now_us + 1_000_000);
    let (status, _, line) = post(&hub, &key, "influx?topic=plant/m", &next).await;
    assert_eq!((status, &line["dialect"]), (200, &json!("influx")));

    let (status, kind, problem) = post(&hub, &key, "thingsboard", "{temperature:25}").await;
    assert_eq!((status, kind.as_str()), (422, "application/problem+json"));
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("E101 BAD_JSON: object keys must be quoted (at byte 1)"),
        "{detail}"
    );
    assert_eq!(post(&hub, &key, "klingon", "1").await.0, 404);
    let large = " ".repeat((1 << 20) + 1);
    assert_eq!(post(&hub, &key, "native", &large).await.0, 413);
    assert_eq!(
        hub.count(
            &akron(),
            "SELECT count(*) FROM reading r JOIN integrator_tag i ON i.tag_id = r.tag_id"
        )
        .await,
        1
    );
}
