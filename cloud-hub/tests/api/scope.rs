//! Who holds a role on a plant or line sees and does what belongs there, and of the rest not even the ids.

use std::time::Duration;

use cloud_hub::{
    kernel::role::Role,
    series::bus::{LiveKind, Sample},
};
use protocol::lane::Lane;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    client::Caller,
    live::{Stream, sample},
    people::{line, person, role_id},
    support::{TestHub, akron},
};

/// On lines 1, 2 and 3: a tag, a rejected tray, an open deviation and its hold on the running lot; line 1's hold
/// reaches a lot of line 2 as well.
const PRODUCT: [&str; 7] = [
    "INSERT INTO edge (id, name) VALUES (gen_random_uuid(), 'e9')",
    "INSERT INTO tag (name, line_id) SELECT 'T-' || code, id FROM line",
    "INSERT INTO vision_result (id, edge_id, camera, line_id, taken_at, verdict, defects, width_px, height_px, \
       frame_sha256, latency_us) SELECT gen_random_uuid(), e.id, 'cam', l.id, now(), 'reject', '[]', 1, 1, '', 1 \
     FROM line l, edge e WHERE e.name = 'e9'",
    "INSERT INTO deviation (id, ccp_id, kind, status, suspect, detected_at, limit_version, edge_id) \
     SELECT gen_random_uuid(), c.id, 'limit', 'open', tstzrange(now() - interval '1 minute', NULL), now(), 1, e.id \
     FROM ccp c, edge e WHERE e.name = 'e9' AND c.code IN ('CCP-1', 'CCP-2', 'CCP-4')",
    "INSERT INTO hold (id, code, deviation_id, reason) SELECT gen_random_uuid(), 'H-' || c.code, d.id, 'dip' \
     FROM deviation d JOIN ccp c ON c.id = d.ccp_id",
    "INSERT INTO hold_lot (hold_id, lot_id) SELECT h.id, x.id FROM hold h JOIN deviation d ON d.id = h.deviation_id \
       JOIN ccp c ON c.id = d.ccp_id JOIN batch b ON b.line_id = c.line_id AND b.state = 'running' \
       JOIN lot x ON x.batch_id = b.id",
    "INSERT INTO hold_lot (hold_id, lot_id) SELECT h.id, x.id FROM hold h, lot x JOIN batch b ON b.id = x.batch_id \
       JOIN line l ON l.id = b.line_id WHERE h.code = 'H-CCP-1' AND l.code = 'L2' AND b.state = 'running'",
];

async fn fill(hub: &TestHub) {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    for sql in PRODUCT {
        sqlx::query(sql).execute(tx.conn()).await.unwrap();
    }
    tx.commit_unaudited("a test's own product").await.unwrap();
}

fn all(rows: &[Value], field: &str) -> Vec<String> {
    let text = |row: &Value| row[field].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = rows.iter().map(text).collect();
    found.sort();
    found.dedup();
    found
}

#[tokio::test]
async fn an_operator_of_one_line_works_on_that_line_and_finds_no_other() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let (_, olga) = person(&hub, "olga", &[("operator", Some("L1"))]).await;
    let (l1, l2) = (line(&hub, "L1").await, line(&hub, "L2").await);
    let seen = olga.items("/plant-ops/batches").await;
    assert_eq!(all(&seen, "line_id"), [l1.to_string()]);
    let others = admin.items("/plant-ops/batches").await;
    let other = others.iter().find(|batch| batch["line_id"] == json!(l2)).unwrap();
    let other = format!("/plant-ops/batches/{}", other["id"].as_str().unwrap());
    olga.get(&other).await.problem(404);
    for verb in ["start", "complete"] {
        olga.send(Method::POST, &format!("{other}/{verb}"), None)
            .await
            .problem(404);
    }
    let plan =
        |line_id: Uuid, sku: &str| json!({ "code": format!("B-{sku}"), "sku": sku, "line_id": line_id });
    let refused = olga.post("/plant-ops/batches", plan(l2, "TBS24")).await;
    assert_eq!(refused.body["type"], "urn:foodflow:problem:out-of-scope");
    refused.problem(403);
    olga.post("/plant-ops/batches", plan(Uuid::now_v7(), "OWM32"))
        .await
        .problem(403);
    assert_eq!(
        admin.items("/plant-ops/batches").await.len(),
        others.len(),
        "nothing half done"
    );

    let running = seen.iter().find(|batch| batch["state"] == "running").unwrap();
    let running = format!("/plant-ops/batches/{}/complete", running["id"].as_str().unwrap());
    olga.send(Method::POST, &running, None).await.ok();
    let planned = olga.post("/plant-ops/batches", plan(l1, "OWM32")).await.ok();
    let start = format!("/plant-ops/batches/{}/start", planned["id"].as_str().unwrap());
    let started = olga.send(Method::POST, &start, None).await.ok();
    assert_eq!(started["state"], "running");
    assert!(started["lot_code"].is_string(), "its lot is open: {started}");
}

#[tokio::test]
async fn every_list_and_every_row_keeps_to_the_line() {
    let hub = TestHub::start().await;
    fill(&hub).await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let (_, lin) = person(&hub, "lin", &[("fsq_manager", Some("L1"))]).await;
    let l1 = line(&hub, "L1").await.to_string();
    for path in [
        "/fsq/ccps",
        "/fsq/deviations",
        "/vision/results",
        "/plant-ops/batches",
    ] {
        assert!(all(&admin.items(path).await, "line_id").len() > 1, "{path}");
        assert_eq!(all(&lin.items(path).await, "line_id"), [l1.clone()], "{path}");
    }
    assert_eq!(all(&lin.items("/plant-ops/lines").await, "code"), ["L1"]);
    let tags = lin.items("/plant-ops/tags").await;
    assert!(
        tags.iter()
            .all(|tag| tag["line_id"] == json!(l1) || tag["line_id"].is_null())
    );
    let batches = all(&lin.items("/plant-ops/batches").await, "id");
    let lots = lin.items("/fsq/lots").await;
    assert!(!lots.is_empty());
    assert!(
        lots.iter().all(|lot| lot["batch_id"].is_null()
            || batches.contains(&lot["batch_id"].as_str().unwrap().to_owned()))
    );
    for (list, own) in [("/fsq/deviations", "CCP-1"), ("/fsq/ccps", "CCP-1")] {
        let code = if list == "/fsq/ccps" { "code" } else { "ccp_code" };
        for row in admin.items(list).await {
            let answer = lin.get(&format!("{list}/{}", row["id"].as_str().unwrap())).await;
            assert_eq!(answer.status == 200, row[code] == own, "{answer:?}");
        }
    }
    let pictures = admin.items("/vision/results").await;
    let foreign = pictures.iter().find(|it| it["line_id"] != json!(l1)).unwrap();
    lin.get(&format!(
        "/vision/results/{}/image",
        foreign["id"].as_str().unwrap()
    ))
    .await
    .problem(404);
    let tags = admin.items("/plant-ops/tags?name=T-L2").await;
    let readings = format!("/plant-ops/readings?tag_id={}&from_us=0&to_us=1", tags[0]["id"]);
    lin.get(&readings).await.problem(404);
    let deviations = admin.items("/fsq/deviations").await;
    let foreign = deviations.iter().find(|it| it["ccp_code"] == "CCP-4").unwrap();
    let acknowledge = format!("/fsq/deviations/{}/acknowledge", foreign["id"].as_str().unwrap());
    lin.post(&acknowledge, json!({ "comment": "seen" }))
        .await
        .problem(404);
}

#[tokio::test]
async fn a_hold_is_seen_by_who_sees_a_lot_of_it_and_tells_nothing_of_other_lines() {
    let hub = TestHub::start().await;
    fill(&hub).await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let mut seen = Vec::new();
    for code in ["L1", "L2", "L3"] {
        let (_, caller) = person(&hub, &code.to_lowercase(), &[("operator", Some(code))]).await;
        seen.push(caller.items("/fsq/holds").await);
    }
    assert_eq!(all(&seen[0], "code"), ["H-CCP-1"]);
    assert_eq!(all(&seen[1], "code"), ["H-CCP-1", "H-CCP-2"]);
    assert_eq!(all(&seen[2], "code"), ["H-CCP-4"]);
    let of = |rows: &[Value]| {
        rows.iter()
            .find(|hold| hold["code"] == "H-CCP-1")
            .unwrap()
            .clone()
    };
    let (whole, here, downstream) = (of(&admin.items("/fsq/holds").await), of(&seen[0]), of(&seen[1]));
    let lots = |hold: &Value| hold["lots"].as_array().unwrap().len();
    assert_eq!((lots(&whole), lots(&here), lots(&downstream)), (2, 1, 1));
    assert_eq!(here["deviation_id"], whole["deviation_id"]);
    assert_eq!(downstream["deviation_id"], Value::Null);
    assert_ne!(here["lots"], downstream["lots"]);
}

#[tokio::test]
async fn an_auditor_everywhere_who_operates_one_line_reads_all_and_writes_there() {
    let hub = TestHub::start().await;
    let grants = [("auditor", None), ("operator", Some("L1"))];
    let (_, both) = person(&hub, "both", &grants).await;
    let (l1, l2) = (line(&hub, "L1").await, line(&hub, "L2").await);
    let batches = both.items("/plant-ops/batches").await;
    assert!(all(&batches, "line_id").len() >= 4);
    let running = |line_id: Uuid| {
        let batch = batches
            .iter()
            .find(|it| it["line_id"] == json!(line_id) && it["state"] == "running");
        format!("/plant-ops/batches/{}", batch.unwrap()["id"].as_str().unwrap())
    };
    both.get(&running(l2)).await.ok();
    both.send(Method::POST, &format!("{}/complete", running(l2)), None)
        .await
        .problem(404);
    both.send(Method::POST, &format!("{}/complete", running(l1)), None)
        .await
        .ok();
    let plan = json!({ "code": "B-9", "sku": "TBS24", "line_id": l2 });
    both.post("/plant-ops/batches", plan).await.problem(403);
    both.get("/users").await.ok();
}

#[tokio::test]
async fn a_role_on_a_plant_reaches_its_lines_and_no_other_plants() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    for sql in [
        "INSERT INTO plant (id, code, name, zone) VALUES (gen_random_uuid(), 'warren', 'Warren', 'America/Chicago')",
        "INSERT INTO line (id, plant_id, code, name, target_per_min) \
         SELECT gen_random_uuid(), id, 'W1', 'Mix', 10 FROM plant WHERE code = 'warren'",
    ] {
        sqlx::query(sql).execute(tx.conn()).await.unwrap();
    }
    tx.commit_unaudited("a second plant").await.unwrap();
    let plants = admin.items("/plant-ops/plants").await;
    let warren = plants.iter().find(|plant| plant["code"] == "warren").unwrap();
    let (id, will) = person(&hub, "will", &[]).await;
    will.get("/plant-ops/lines").await.problem(403);
    let grant =
        json!({ "roles": [{ "role_id": role_id(&admin, "supervisor").await, "plant_id": warren["id"] }] });
    admin
        .change(Method::PUT, &format!("/users/{id}/roles"), 1, Some(grant))
        .await
        .ok();
    assert_eq!(all(&will.items("/plant-ops/lines").await, "code"), ["W1"]);
    assert_eq!(all(&will.items("/plant-ops/plants").await, "code"), ["warren"]);
    assert_eq!(
        will.get("/auth/me").await.ok()["plant"]["zone"],
        "America/Chicago"
    );
    assert!(will.items("/plant-ops/batches").await.is_empty());
}

async fn id(hub: &TestHub, sql: &'static str) -> Uuid {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
}

async fn tag(hub: &TestHub, name: &str) -> i32 {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let found = sqlx::query_scalar("SELECT id FROM tag WHERE name = $1").bind(name);
    found.fetch_one(tx.conn()).await.unwrap()
}

#[tokio::test]
async fn a_live_stream_tells_only_of_the_callers_lines() {
    let hub = TestHub::start().await;
    fill(&hub).await;
    let (_, lou) = person(&hub, "lou", &[("operator", Some("L1"))]).await;
    let mut stream = Stream::open(&lou, "?topics=lines,alarms", None).await;
    assert_eq!(stream.next().await.name, "hello");
    let (live, now_us) = (&hub.hub.app.live, hub.hub.app.clock.now_us());
    let version = 1;
    let of = |ccp: &str| match ccp {
        "CCP-1" => "SELECT d.id FROM deviation d JOIN ccp c ON c.id = d.ccp_id WHERE c.code = 'CCP-1'",
        _ => "SELECT d.id FROM deviation d JOIN ccp c ON c.id = d.ccp_id WHERE c.code = 'CCP-4'",
    };
    let (here, there) = (id(&hub, of("CCP-1")).await, id(&hub, of("CCP-4")).await);
    let hold = id(&hub, "SELECT id FROM hold WHERE code = 'H-CCP-1'").await;
    let their_hold = id(&hub, "SELECT id FROM hold WHERE code = 'H-CCP-4'").await;
    let defect = "SELECT v.id FROM vision_result v JOIN line l ON l.id = v.line_id WHERE l.code = 'L1'";
    let their_defect = "SELECT v.id FROM vision_result v JOIN line l ON l.id = v.line_id WHERE l.code = 'L3'";
    let (defect, their_defect) = (id(&hub, defect).await, id(&hub, their_defect).await);
    let (l1, l3) = (line(&hub, "L1").await, line(&hub, "L3").await);
    for kind in [
        LiveKind::Deviation { id: there, version },
        LiveKind::Deviation { id: here, version },
        LiveKind::Hold {
            id: their_hold,
            version,
        },
        LiveKind::Hold { id: hold, version },
        LiveKind::Defect { id: their_defect },
        LiveKind::Defect { id: defect },
        LiveKind::Line { id: l3 },
        LiveKind::Line { id: l1 },
    ] {
        live.publish(&akron(), now_us, kind);
    }
    for expected in [
        ("deviation", here),
        ("hold", hold),
        ("defect", defect),
        ("line", l1),
    ] {
        let heard = stream.next().await;
        assert_eq!(
            (heard.name.as_str(), &heard.data["id"]),
            (expected.0, &json!(expected.1))
        );
    }
}

#[tokio::test]
async fn a_live_stream_carries_samples_of_visible_tags_only() {
    let hub = TestHub::start().await;
    fill(&hub).await;
    let (_, lou) = person(&hub, "lou", &[("operator", Some("L1"))]).await;
    let (ours, theirs) = (tag(&hub, "T-L1").await, tag(&hub, "T-L3").await);
    let mut stream = Stream::open(&lou, &format!("?topics=samples&tags={ours},{theirs}"), None).await;
    assert_eq!(stream.next().await.name, "hello");
    let now_us = hub.hub.app.clock.now_us();
    let samples: Vec<Sample> = vec![sample(theirs, now_us, 1.0), sample(ours, now_us, 2.0)];
    let lane = Lane::Live;
    hub.hub
        .app
        .live
        .publish(&akron(), now_us, LiveKind::Samples { lane, samples });
    let heard = stream.next().await;
    let rows = heard.data["v"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0][0], json!(ours));
}

#[tokio::test]
async fn a_live_stream_ends_when_its_caller_is_suspended() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let (id, sue) = person(&hub, "sue", &[("operator", None)]).await;
    let mut stream = Stream::open(&sue, "", None).await;
    assert_eq!(stream.next().await.name, "hello");
    let patch = Some(json!({ "is_active": false }));
    admin
        .change(Method::PATCH, &format!("/users/{id}"), 1, patch)
        .await
        .ok();
    let to_the_end = async { while let Ok(Some(_)) = stream.response.chunk().await {} };
    timeout(Duration::from_secs(30), to_the_end)
        .await
        .expect("the stream ends");
}

#[tokio::test]
async fn who_works_on_a_line_changes_and_deletes_nothing_shared_or_foreign() {
    let hub = TestHub::start().await;
    fill(&hub).await;
    let l1 = line(&hub, "L1").await;
    let mut shared = hub.db.begin(&akron()).await.unwrap();
    sqlx::query("INSERT INTO tag (name) VALUES ('T-nowhere')")
        .execute(shared.conn())
        .await
        .unwrap();
    shared.commit_unaudited("a tag of no line").await.unwrap();
    for (sql, touched) in [
        ("UPDATE line SET name = name || '!'", 1),
        ("UPDATE ccp SET name = name || '!'", 1),
        ("DELETE FROM flow_link", 2),
        ("DELETE FROM tag WHERE name LIKE 'T-%'", 1),
        ("DELETE FROM plant", 0),
    ] {
        let mut tx = hub.db.begin(&akron()).await.unwrap();
        sqlx::query("SELECT set_config('foodflow.lines', $1, true)")
            .bind(format!("{{{l1}}}"))
            .execute(tx.conn())
            .await
            .unwrap();
        let done = sqlx::query(sql).execute(tx.conn()).await.unwrap();
        assert_eq!(done.rows_affected(), touched, "{sql}");
    }
}

#[tokio::test]
async fn who_works_everywhere_pays_for_line_scope_once_a_statement() {
    let hub = TestHub::start().await;
    fill(&hub).await;
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    for sql in [
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM lot",
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM hold",
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM batch",
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM deviation",
    ] {
        let rows = sqlx::query(sql).fetch_all(tx.conn()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("InitPlan"), "{plan}");
        // Whatever else the policy would ask is planned and never run.
        let mut lines = plan.lines();
        while let Some(line) = lines.next() {
            let is_sub_plan = line.trim_start().starts_with("SubPlan");
            let node = lines.clone().next().unwrap_or_default();
            assert!(!is_sub_plan || node.contains("never executed"), "it ran:\n{plan}");
        }
    }
}
