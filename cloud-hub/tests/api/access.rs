//! How does one get in, and what is there without? Signing in, enrolling an edge, what needs no token, and what no
//! operation can read. Who may use which operation is in `unauthorized`.

use cloud_hub::kernel::role::Role;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    client::{Caller, http_client},
    support::{PASSWORD, TestHub, cuyahoga},
};

#[tokio::test]
async fn signing_in_gives_a_token_and_a_wrong_password_tells_nothing() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let login = |tenant: &str, email: &str, password: &str| {
        let body = json!({ "tenant": tenant, "email": email, "password": password });
        let caller = caller.clone();
        async move { caller.post("/auth/login", body).await }
    };
    let session = login("akron", " Supervisor@Akron.example ", PASSWORD).await.ok();
    assert_eq!(session["token_type"], "Bearer");
    assert_eq!(session["expires_in_s"], 900);
    let me = caller
        .with_token(session["access_token"].as_str().unwrap().to_owned())
        .get("/auth/me")
        .await
        .ok();
    assert_eq!(me["user"]["role"], "supervisor");
    assert_eq!(me["plant"]["zone"], "America/New_York");
    assert!(
        me["can"]
            .as_array()
            .unwrap()
            .contains(&json!("deviation.acknowledge"))
    );

    let mut said = Vec::new();
    for (tenant, email, password) in [
        ("akron", "supervisor@akron.example", "wrong"),
        ("akron", "nobody@akron.example", PASSWORD),
        ("nowhere", "supervisor@akron.example", PASSWORD),
        ("cuyahoga", "supervisor@akron.example", PASSWORD),
        ("not a slug", "supervisor@akron.example", PASSWORD),
    ] {
        said.push(login(tenant, email, password).await.problem(401));
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");

    for _ in 0..10 {
        login("akron", "guess@akron.example", "x").await.problem(401);
    }
    login("akron", "guess@akron.example", "x").await.problem(429);
}

#[tokio::test]
async fn unreadable_requests_are_problem_documents() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Admin).await;
    caller.get("/nothing/here").await.problem(404);
    caller.post("/nothing/here", json!({})).await.problem(404);
    caller
        .send(Method::DELETE, "/plant-ops/lines", None)
        .await
        .problem(405);
    caller.get("/fsq/lots/not-an-id").await.problem(400);
    caller.get("/fsq/lots?statsu=held").await.problem(400);
    caller.get("/fsq/lots?status=lost").await.problem(400);
    caller.get("/plant-ops/lines?limit=201").await.problem(400);
    caller.get("/live?topics=gossip").await.problem(400);
    caller
        .send(Method::POST, "/plant-ops/batches", None)
        .await
        .problem(415);
    let batch = json!({ "code": "X", "sku": "Y", "line_id": Uuid::nil(), "status": "complete" });
    caller.post("/plant-ops/batches", batch).await.problem(422);
    let large = json!({ "comment": "x".repeat(2 << 20) });
    caller
        .post(&format!("/fsq/deviations/{}/acknowledge", Uuid::nil()), large)
        .await
        .problem(413);
}

#[tokio::test]
async fn another_tenants_rows_do_not_exist() {
    let hub = TestHub::start().await;
    let ours = Caller::with_role(&hub, Role::Admin).await;
    let theirs = ours.with_token(hub.token_in(&cuyahoga(), Role::Admin).await);
    for list in [
        "/plant-ops/plants",
        "/plant-ops/lines",
        "/plant-ops/batches",
        "/fsq/lots",
        "/fsq/ccps",
    ] {
        let first = ours.items(list).await.swap_remove(0);
        let path = format!("{list}/{}", first["id"].as_str().unwrap());
        assert_eq!(ours.get(&path).await.ok()["id"], first["id"]);
        theirs.get(&path).await.problem(404);
        assert!(
            !theirs
                .items(list)
                .await
                .iter()
                .any(|row| row["id"] == first["id"]),
            "{list}"
        );
    }
}

#[tokio::test]
async fn a_code_enrols_an_edge_once() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let now = hub.hub.app.clock.now();
    let tenant = crate::support::akron();
    let code = cloud_hub::tenant::enrolment::create_code(&hub.db, &tenant, "akron-9", now)
        .await
        .unwrap();
    let identity = caller.post("/edges/enroll", json!({ "code": code })).await.ok();
    assert_eq!(identity["mqtt_username"], "akron/akron-9");
    assert_eq!(identity["mqtt_password"].as_str().unwrap().len(), 52);
    caller
        .post("/edges/enroll", json!({ "code": code }))
        .await
        .problem(401);
    caller
        .post("/edges/enroll", json!({ "code": "guess" }))
        .await
        .problem(401);
    let edges = Caller::with_role(&hub, Role::Auditor).await.items("/edges").await;
    assert!(
        edges
            .iter()
            .any(|edge| edge["name"] == "akron-9" && edge["state"] == "never")
    );
}

#[tokio::test]
async fn the_page_the_documents_and_the_probes_need_no_token() {
    let (hub, http) = (TestHub::start().await, http_client());
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/t/akron/p/akron/now", "text/html; charset=utf-8"),
        ("/docs/", "text/html"),
        ("/api/v1/openapi.json", "application/json"),
        ("/health", "application/json"),
        ("/ready", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ] {
        let response = http.get(hub.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], kind, "{path}");
        if kind.starts_with("text/html;") {
            let policy = response.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'self';"), "{policy}");
        }
    }
    let missing = http.get(hub.url("/assets/gone.js")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn the_models_answer_in_process_to_whoever_is_signed_in_and_to_nobody_else() {
    let hub = TestHub::start().await;
    // Line 3's shift of the worked example.
    let shift = json!({ "scheduled_min": 480, "planned_stop_min": 30, "unplanned_down_min": 54,
        "total": 20305, "scrap": 853, "ideal_per_min": 60 });
    let url = hub.url("/ai/compute-line-efficiency");
    let ask = |url: &str| http_client().post(url).json(&shift);
    let refused = ask(&url).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["content-type"]),
        (401, &"application/problem+json".parse().unwrap())
    );
    assert_eq!(ask(&url).bearer_auth("x.y.z").send().await.unwrap().status(), 401);
    for role in Role::ALL {
        let token = hub.token(role).await;
        let answer = ask(&url).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{role:?}");
        let oee: Value = answer.json().await.unwrap();
        assert!((oee["oee"].as_f64().unwrap() - 0.7204).abs() < 5e-5, "{oee}");
    }
    let token = hub.token(Role::Auditor).await;
    let unknown = ask(&hub.url("/ai/no-such-model")).bearer_auth(&token);
    assert_eq!(unknown.send().await.unwrap().status(), 404);
    assert_eq!(
        ask(&hub.url("/ai/no-such-model")).send().await.unwrap().status(),
        401
    );
    let read = http_client().get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(read.status(), 405);
}

#[tokio::test]
async fn text_that_no_column_can_hold_is_the_callers_fault() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let batch = json!({ "code": "B\u{0}1", "sku": "x\u{0}y", "line_id": Uuid::nil() });
    admin.post("/plant-ops/batches", batch).await.problem(400);
    let tags = admin.items("/plant-ops/tags").await;
    if let Some(tag) = tags.first() {
        let (id, from, to) = (&tag["id"], i64::MIN, i64::MAX);
        let path = format!("/plant-ops/readings?tag_id={id}&from_us={from}&to_us={to}");
        admin.get(&path).await.ok();
    }
}
