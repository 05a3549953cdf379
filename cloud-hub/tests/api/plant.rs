//! Lines, tags, readings and batches over HTTP.

use cloud_hub::kernel::role::Role;
use protocol::{lane::Lane, topic::Channel};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    client::Caller,
    support::{FrameMaker, TestHub},
};

fn named<'r>(rows: &'r [Value], field: &str, value: &str) -> &'r Value {
    rows.iter()
        .find(|row| row[field] == value)
        .unwrap_or_else(|| panic!("no {value} in {rows:?}"))
}

#[tokio::test]
async fn a_reading_travels_from_an_edge_to_its_tag_its_series_and_its_line() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Auditor).await;
    let mut edge = hub.edge("e1").await;
    let maker = FrameMaker::new("e1", &["TT-101", "L1-RATE"]);
    edge.send(Channel::Dictionary, maker.dictionary.encode()).await;
    edge.acknowledged().await;
    let from_us = hub.hub.app.clock.now_us() - 120_000_000;
    let mut frame = maker.live(0, from_us, 120);
    let mut rate = frame.readings.clone();
    for reading in &mut rate {
        reading.tag = protocol::reading::Alias(1);
    }
    frame.readings.extend(rate);
    edge.send(Channel::Up(Lane::Live), frame.encode().unwrap()).await;
    edge.acknowledged().await;

    let tags = caller.items("/plant-ops/tags?name=TT-101").await;
    let [tag] = &tags[..] else { panic!("{tags:?}") };
    assert_eq!(tag["edge"], "e1");
    assert_eq!(tag["limit_low"], 72.0);
    assert_eq!(
        tag["last"],
        json!({ "time_us": from_us + 119_000_000, "value": 73.2, "quality": 0 })
    );

    let series = |from_us: i64, to_us: i64, points: usize| {
        let id = &tag["id"];
        format!("/plant-ops/readings?tag_id={id}&from_us={from_us}&to_us={to_us}&points={points}")
    };
    let raw = caller.get(&series(from_us, from_us + 60_000_000, 600)).await.ok();
    assert_eq!(raw["resolution_us"], 0);
    assert_eq!(raw["points"].as_array().unwrap().len(), 60);
    assert_eq!(raw["points"][0], json!([from_us, 73.2, 0]));
    let thinned = caller.get(&series(from_us, from_us + 120_000_000, 20)).await.ok();
    assert!(thinned["resolution_us"].as_i64().unwrap() > 0);
    assert!(thinned["points"].as_array().unwrap().len() <= 20);
    caller.get(&series(5, 5, 600)).await.problem(400);
    caller.get(&series(0, 1, 10_001)).await.problem(400);
    caller
        .get("/plant-ops/readings?tag_id=999999&from_us=0&to_us=1")
        .await
        .problem(404);

    let lines = caller.items("/plant-ops/lines").await;
    let line = named(&lines, "code", "L1");
    assert_eq!(line["state"], "running");
    assert_eq!(line["since_us"], from_us);
    assert_eq!(line["rate_per_min"], 73.2);
    assert!(line["key_tags"].as_array().unwrap().contains(&tag["id"]));
    assert_eq!(named(&lines, "code", "L2")["state"], "unknown");
    let ccps = caller.items("/fsq/ccps").await;
    let ccp = named(&ccps, "code", "CCP-1");
    assert_eq!(ccp["state"], "unknown", "readings alone are no judgement");
    assert!((ccp["margin"].as_f64().unwrap() - 1.2).abs() < 1e-9);
    let edges = caller.items("/edges").await;
    assert!(named(&edges, "name", "e1")["lag_ms"].as_i64().unwrap() >= 0);
}

#[tokio::test]
async fn a_batch_is_planned_started_and_completed_and_nothing_else() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Operator).await;
    let batches = caller.items("/plant-ops/batches").await;
    let running = batches.iter().find(|batch| batch["state"] == "running").unwrap();
    let (line_id, sku) = (running["line_id"].clone(), running["sku"].clone());

    let plan = json!({ "code": "B-1", "sku": sku, "line_id": line_id });
    let planned = caller.post("/plant-ops/batches", plan.clone()).await;
    assert_eq!(planned.status, 201);
    let planned = planned.ok();
    assert_eq!(
        (&planned["state"], &planned["started_us"]),
        (&json!("planned"), &Value::Null)
    );
    caller.post("/plant-ops/batches", plan).await.problem(409);
    for wrong in [
        json!({ "code": "B-2", "sku": "no such", "line_id": line_id }),
        json!({ "code": "B-2", "sku": sku, "line_id": Uuid::nil() }),
        json!({ "code": "  ", "sku": sku, "line_id": line_id }),
    ] {
        caller.post("/plant-ops/batches", wrong).await.problem(400);
    }

    let act = |batch: &Value, verb: &str| {
        let path = format!("/plant-ops/batches/{}/{verb}", batch["id"].as_str().unwrap());
        let caller = caller.clone();
        async move { caller.post(&path, json!({})).await }
    };
    assert!(
        act(&planned, "start")
            .await
            .problem(409)
            .contains("is running on this line")
    );
    act(&planned, "complete").await.problem(409);
    assert_eq!(act(running, "complete").await.ok()["state"], "complete");
    act(running, "complete").await.problem(409);
    let started = act(&planned, "start").await.ok();
    assert_eq!(started["state"], "running");
    let lot_code = started["lot_code"].as_str().unwrap();
    let lots = caller.items("/fsq/lots?status=in_process").await;
    let lot = named(&lots, "code", lot_code);
    assert_eq!(
        (&lot["batch_id"], &lot["produced_to_us"]),
        (&started["id"], &Value::Null)
    );
    let done = act(&planned, "complete").await.ok();
    assert!(done["completed_us"].as_i64().unwrap() >= done["started_us"].as_i64().unwrap());
    let lot = caller
        .get(&format!("/fsq/lots/{}", lot["id"].as_str().unwrap()))
        .await
        .ok();
    assert!(lot["produced_to_us"].as_i64().unwrap() > lot["produced_from_us"].as_i64().unwrap());
    caller
        .post(&format!("/plant-ops/batches/{}/start", Uuid::nil()), json!({}))
        .await
        .problem(404);
}

#[tokio::test]
async fn a_list_is_walked_by_its_cursor_without_losing_or_repeating_a_row() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Auditor).await;
    for list in ["/plant-ops/lines", "/plant-ops/batches", "/fsq/lots", "/fsq/ccps"] {
        let whole: Vec<_> = caller
            .items(list)
            .await
            .iter()
            .map(|row| row["id"].clone())
            .collect();
        assert!(whole.len() > 1, "{list}");
        let (mut walked, mut path) = (Vec::new(), format!("{list}?limit=1"));
        loop {
            let page = caller.get(&path).await.ok();
            walked.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["id"].clone()),
            );
            let Some(next) = page["next"].as_str() else { break };
            path = format!("{list}?limit=1&cursor={next}");
        }
        assert_eq!(walked, whole, "{list}");
    }
}

#[tokio::test]
async fn a_series_shows_its_gaps_its_share_of_good_readings_and_what_else_happened() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Supervisor).await;
    let mut edge = hub.edge("e1").await;
    let maker = FrameMaker::new("e1", &["TT-101", "TT-102"]);
    edge.send(Channel::Dictionary, maker.dictionary.encode()).await;
    edge.acknowledged().await;
    let from_us = hub.hub.app.clock.now_us() - 600_000_000;
    let mut frame = maker.live(0, from_us, 100);
    frame.readings.drain(40..60);
    for reading in &mut frame.readings[70..] {
        *reading = protocol::Reading::bad(reading.tag, reading.time_us, protocol::Quality::BAD_TIMEOUT);
    }
    edge.send(Channel::Up(Lane::Live), frame.encode().unwrap()).await;
    edge.acknowledged().await;

    let tags = caller.items("/plant-ops/tags").await;
    let ids: Vec<String> = ["TT-101", "TT-102"]
        .iter()
        .map(|name| named(&tags, "name", name)["id"].to_string())
        .collect();
    let path = |points: usize| {
        format!(
            "/plant-ops/series?tags={}&from_us={from_us}&to_us={}&points={points}&events=true",
            ids.join(","),
            from_us + 100_000_000
        )
    };
    let raw = caller.get(&path(600)).await.ok();
    let series = &raw["tags"][0];
    assert_eq!((&series["n"], &series["good_share"]), (&json!(80), &json!(0.875)));
    assert_eq!(
        (
            &series["resolution_us"],
            series["points"].as_array().unwrap().len()
        ),
        (&json!(0), 80)
    );
    let kinds: Vec<&str> = series["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| gap["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["silent", "bad"]);
    assert!(
        (series["mean"].as_f64().unwrap() - 73.2).abs() < 1e-9,
        "bad readings are in no mean"
    );
    assert_eq!(
        (&raw["tags"][1]["n"], &raw["tags"][1]["good_share"]),
        (&json!(0), &Value::Null)
    );
    assert!(raw["events"].is_array());
    let few = caller.get(&path(40)).await.ok();
    let series = &few["tags"][0];
    assert!(series["points"].is_null() && series["buckets"].as_array().unwrap().len() <= 10);

    let last = caller
        .get(&format!("/plant-ops/series/last?tags={}", ids.join(",")))
        .await
        .ok();
    assert_eq!(
        last["values"],
        json!([{ "tag_id": last["values"][0]["tag_id"], "time_us": from_us + 99_000_000,
        "value": null, "quality": 0x800A }])
    );
    let then = caller
        .get(&format!(
            "/plant-ops/series/as-of?tags={}&at_us={}",
            ids[0],
            from_us + 50_500_000
        ))
        .await
        .ok();
    assert_eq!(then["values"][0]["time_us"], from_us + 39_000_000);
    let file = caller
        .request(
            reqwest::Method::GET,
            &format!(
                "/plant-ops/series/export?tags={}&from_us={from_us}&to_us={}",
                ids[0],
                from_us + 100_000_000
            ),
        )
        .send()
        .await
        .unwrap();
    assert_eq!(file.headers()["content-type"], "application/vnd.apache.parquet");
    let bytes = file.bytes().await.unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    for (wrong, status) in [
        ("tags=&from_us=0&to_us=1", 400),
        ("tags=x&from_us=0&to_us=1", 400),
        ("tags=1&from_us=1&to_us=1", 400),
        ("tags=1&from_us=0&to_us=1&points=3", 400),
        ("tags=99999&from_us=0&to_us=1", 404),
        (
            "tags=1&from_us=-9223372036854775808&to_us=9223372036854775807",
            200,
        ),
    ] {
        let answer = caller.get(&format!("/plant-ops/series?{wrong}")).await;
        assert_eq!(answer.status, status, "{wrong}: {answer:?}");
    }
}
