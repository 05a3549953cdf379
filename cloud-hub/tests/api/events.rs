//! The event feed, the projections made from it, and what happens to events that do not fit.

use std::time::Duration;

use cloud_hub::{
    integrate::projection::{self, SearchEntries},
    kernel::{event::NewEvent, role::Role},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use uuid::Uuid;

use crate::{
    client::Caller,
    support::{TestHub, akron, cuyahoga},
};

const SUPPLIERS: &str = "/fsq/suppliers";

async fn supplier(admin: &Caller, code: &str, name: &str) -> Value {
    let body = json!({ "code": code, "name": name });
    admin.post(SUPPLIERS, body).await.ok()
}

/// Asks until the answer is as wanted: projections follow by some milliseconds.
async fn eventually(caller: &Caller, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..600 {
        let body = caller.get(path).await.ok();
        if wanted(&body) {
            return body;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path} never was as wanted: {}", caller.get(path).await.body);
}

fn codes(hits: &Value) -> Vec<&str> {
    let items = hits["items"].as_array().unwrap().iter();
    items.map(|hit| hit["code"].as_str().unwrap()).collect()
}

/// As the owner of the tables.
async fn as_owner(hub: &TestHub, sql: &'static str) {
    let owner = hub.hub.app.owner.as_ref().unwrap();
    let mut connection = owner.requests.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn the_feed_is_read_from_where_one_stopped_and_waits_for_what_comes() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for code in ["A", "B", "C"] {
        supplier(&admin, code, code).await;
    }
    let first = admin.get("/events?kind=Supplier*&limit=2").await.ok();
    assert_eq!(first["items"][0]["payload"]["code"], "A");
    let next = first["next"].as_str().unwrap();
    let path = format!("/events?kind=SupplierCreated&cursor={next}");
    let second = admin.get(&path).await.ok();
    assert_eq!(second["items"][0]["payload"]["code"], "C");
    assert_eq!(second["next"], Value::Null);
    let seq = second["items"][0]["seq"].as_i64().unwrap();
    let one = second["items"][0]["aggregate_id"].as_str().unwrap();
    let path = format!("/events?aggregate=supplier&aggregate_id={one}&from_seq={seq}");
    assert_eq!(admin.items(&path).await.len(), 1);

    let waiting = admin.clone();
    let path = format!("/events?from_seq={}&wait_s=20", seq + 1);
    let waiting = tokio::spawn(async move { waiting.get(&path).await.ok() });
    supplier(&admin, "D", "D").await;
    let came = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert_eq!(came.unwrap().unwrap()["items"][0]["payload"]["code"], "D");
    // Many that wait leave the tenant's other requests their turns: those beyond four do not wait.
    let path = format!("/events?from_seq={}&wait_s=3", seq + 1_000);
    let started = std::time::Instant::now();
    let waiting = (0..5).map(|_| admin.get(&path));
    let quick = futures_util::future::select_all(waiting.map(Box::pin)).await.0;
    assert_eq!(quick.ok()["items"], json!([]));
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );

    for wrong in [
        "wait_s=26",
        "wait_s=-1",
        "limit=0",
        "from_seq=x",
        "aggregate_id=1",
        "kinds=A",
    ] {
        admin.get(&format!("/events?{wrong}")).await.problem(400);
    }
    let far = format!("/events?from_seq={}", i64::MIN);
    admin.get(&far).await.problem(400);
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    assert!(
        theirs.items("/events?kind=Supplier*").await.is_empty(),
        "another tenant's"
    );
}

#[tokio::test]
async fn who_answers_for_one_line_reads_no_events_of_all_lines() {
    let hub = TestHub::start().await;
    let auditor = Caller::with_role(&hub, Role::Auditor).await;
    assert!(auditor.get("/events").await.status.is_success());
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query(
        "UPDATE user_role SET line_id = (SELECT id FROM line ORDER BY code LIMIT 1) \
         WHERE role_id = (SELECT id FROM role WHERE name = 'auditor')",
    )
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("a test sets the stage").await.unwrap();
    for path in [
        "/events",
        "/events/activity",
        "/events/projections",
        "/events/dead-letters",
        "/integrations/webhooks",
    ] {
        auditor.get(path).await.problem(403);
    }
}

#[tokio::test]
async fn a_search_finds_what_the_caller_may_read_on_their_lines() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let made = supplier(&admin, "NEEDLE", "Dairy West").await;
    supplier(&admin, "OTHER", "The needle's eye").await;
    let path = format!("{SUPPLIERS}/{}", made["id"].as_str().unwrap());
    let hits = eventually(&admin, "/search?q=needle", |hits| codes(hits).len() == 2).await;
    assert_eq!(codes(&hits), ["NEEDLE", "OTHER"], "the code itself comes first");
    assert_eq!(hits["items"][0]["path"], format!("/api/v1{path}"));
    assert_eq!(hits["items"][0]["context"], "fsq");
    assert_eq!(codes(&admin.get("/search?q=%25").await.ok()), Vec::<&str>::new());

    let rename = json!({ "name": "Dairy East" });
    admin.change(Method::PATCH, &path, 1, Some(rename)).await.ok();
    eventually(&admin, "/search?q=dairy+east", |hits| codes(hits) == ["NEEDLE"]).await;
    admin.change(Method::DELETE, &path, 2, None).await;
    eventually(&admin, "/search?q=needle", |hits| codes(hits) == ["OTHER"]).await;
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    assert!(codes(&theirs.get("/search?q=needle").await.ok()).is_empty());
    for wrong in ["", "?q=", "?q=+", "?q=a&limit=0", "?q=a&limit=51", "?q=a&x=1"] {
        admin.get(&format!("/search{wrong}")).await.problem(400);
    }

    // What was there from the beginning, and what comes to be by the way.
    eventually(&admin, "/search?q=ccp-1&entity=ccp", |hits| {
        codes(hits) == ["CCP-1"]
    })
    .await;

    // A batch of each line; an operator of one of them finds one.
    let lines = admin.items("/plant-ops/lines").await;
    let skus: Vec<String> = {
        let mut tx = hub.db.begin(&akron()).await.unwrap();
        let skus = sqlx::query_scalar("SELECT code FROM sku ORDER BY code");
        skus.fetch_all(tx.conn()).await.unwrap()
    };
    for (place, line) in lines.iter().take(2).enumerate() {
        let body = json!({ "code": format!("FIND-{place}"), "sku": skus[0], "line_id": line["id"] });
        admin.post("/plant-ops/batches", body).await.ok();
    }
    eventually(&admin, "/search?q=find-&entity=batch", |hits| {
        codes(hits).len() == 2
    })
    .await;
    let operator = Caller::with_role(&hub, Role::Operator).await;
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query(
        "UPDATE user_role SET line_id = $1 WHERE role_id = (SELECT id FROM role WHERE name = 'operator')",
    )
    .bind(lines[0]["id"].as_str().unwrap().parse::<Uuid>().unwrap())
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("a test sets the stage").await.unwrap();
    assert_eq!(codes(&operator.get("/search?q=find-").await.ok()), ["FIND-0"]);
    assert_eq!(codes(&operator.get("/search?q=needle").await.ok()), ["OTHER"]);
}

#[tokio::test]
async fn activity_counts_what_happened_by_day() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for code in ["A", "B"] {
        supplier(&admin, code, code).await;
    }
    let count = |days: &Value| {
        let items = days["items"].as_array().unwrap().clone();
        let found = items.into_iter().find(|it| it["kind"] == "SupplierCreated");
        found.and_then(|it| it["events"].as_i64())
    };
    eventually(&admin, "/events/activity", |days| count(days) == Some(2)).await;
    let old = admin
        .get("/events/activity?from=2020-01-01&to=2020-01-31")
        .await
        .ok();
    assert_eq!(count(&old), None);
    for wrong in [
        "from=2020-01-01",
        "from=2020-02-01&to=2020-01-01",
        "to=soon",
        "from=-262143-01-01&to=-262143-01-01",
        "day=1",
    ] {
        admin.get(&format!("/events/activity?{wrong}")).await.problem(400);
    }
}

#[tokio::test]
async fn an_event_that_does_not_fit_stops_its_own_record_only_and_is_taken_in_once_it_fits() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    as_owner(
        &hub,
        "ALTER TABLE t_akron.search_entry ADD CONSTRAINT poison CHECK (code <> 'BAD')",
    )
    .await;
    let bad = supplier(&admin, "BAD", "before").await;
    let path = format!("{SUPPLIERS}/{}", bad["id"].as_str().unwrap());
    admin
        .change(Method::PATCH, &path, 1, Some(json!({ "name": "after" })))
        .await
        .ok();
    supplier(&admin, "GOOD", "good").await;
    eventually(&admin, "/search?q=good", |hits| codes(hits) == ["GOOD"]).await;
    let letters = eventually(&admin, "/events/dead-letters?projection=search_entry", |page| {
        page["items"].as_array().unwrap().len() == 2
    })
    .await;
    let reasons: Vec<&str> = letters["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| letter["reason"].as_str().unwrap())
        .collect();
    assert!(reasons[0].contains("poison"), "{reasons:?}");
    assert_eq!(reasons[1], "an earlier event of this record waits");
    let states = admin.get("/events/projections").await.ok();
    assert_eq!(states["items"][1]["dead_letters"], 2);

    let id = letters["items"][1]["id"].as_str().unwrap();
    let retry = format!("/events/dead-letters/{id}/retry");
    let still = admin.post(&retry, Value::Null).await.ok();
    assert_eq!((&still["taken_in"], &still["waiting"]), (&json!(0), &json!(2)));
    as_owner(&hub, "ALTER TABLE t_akron.search_entry DROP CONSTRAINT poison").await;
    let done = admin.post(&retry, Value::Null).await.ok();
    assert_eq!((&done["taken_in"], &done["waiting"]), (&json!(2), &json!(0)));
    let hits = admin.get("/search?q=bad").await.ok();
    assert_eq!(hits["items"][0]["title"], "after");
    admin.post(&retry, Value::Null).await.problem(404);
}

#[tokio::test]
async fn a_payload_that_means_nothing_is_put_aside_by_the_projection_that_cannot_read_it() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let mut tx = hub.hub.app.db.begin(&akron()).await.unwrap();
    tx.audit(&cloud_hub::kernel::audit::Deed::on("test", "thing", 1));
    tx.event(&NewEvent::new("ThingDone", "thing", Uuid::nil(), json!("text")));
    tx.commit().await.unwrap();
    let letters = eventually(&admin, "/events/dead-letters", |page| {
        page["items"].as_array().unwrap().len() == 1
    })
    .await;
    assert_eq!(letters["items"][0]["projection"], "search_entry");
    eventually(&admin, "/events/activity", |days| {
        days.to_string().contains("ThingDone")
    })
    .await;
}

#[tokio::test]
async fn a_projection_made_anew_is_the_same_and_readers_never_miss_a_row() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for number in 0..30 {
        supplier(&admin, &format!("R-{number}"), "replayed").await;
    }
    let path = "/search?q=replayed&limit=50";
    let before = eventually(&admin, path, |hits| codes(hits).len() == 30).await;
    let asked = admin
        .post("/events/replay", json!({ "projection": "search_entry" }))
        .await;
    assert_eq!(asked.status, 202, "{asked:?}");
    loop {
        assert_eq!(admin.get(path).await.ok(), before);
        let states = admin.get("/events/projections").await.ok();
        let state = states["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["name"] == "search_entry")
            .unwrap()
            .clone();
        if state["rebuilt_seq"].is_null() && !state["rebuilt_us"].is_null() {
            break;
        }
        // The hub's own runner may be at it; so may anybody.
        projection::step::<SearchEntries>(&hub.db, &akron(), 7)
            .await
            .unwrap();
    }
    assert_eq!(admin.get(path).await.ok(), before);
    let wrong = json!({ "projection": "lot; drop table lot" });
    admin.post("/events/replay", wrong).await.problem(400);
}
