//! What is new waits for a person, who makes a tag of it with one click: nothing that was held is lost.

use cloud_hub::kernel::{clock::Clock, role::Role};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::Caller,
    device::Device,
    support::{TestHub, akron, cuyahoga},
};

const PENDING: &str = "/integrator/pending-tags";

async fn readings(hub: &TestHub) -> i64 {
    hub.count(
        &akron(),
        "SELECT count(*) FROM reading r JOIN integrator_tag i ON i.tag_id = r.tag_id",
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_tag_yet_is_held_adopted_with_one_click_and_stored_from_then_on() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "press-7").await;
    let now_us = Clock::system().now_us();
    for second in 0..5 {
        let payload = format!(
            "{{\"value\":{},\"ts\":{}}}",
            20 + second,
            now_us + second * 1_000_000
        );
        assert_eq!(device.send("v1/plant/l1/oven/zone1", payload).await.0, 0);
    }
    let echo = device.told("echo").await;
    assert_eq!(
        (&echo["dialect"], &echo["readings"][0]["state"]),
        (&json!("native"), &json!("held"))
    );
    assert_eq!(readings(&hub).await, 0);

    let pending = supervisor.items(PENDING).await;
    assert_eq!(pending.len(), 1);
    let waiting = &pending[0];
    assert_eq!(
        (
            &waiting["client"],
            &waiting["device"],
            &waiting["name"],
            &waiting["proposed_name"]
        ),
        (
            &json!("press-7"),
            &json!("oven"),
            &json!("zone1"),
            &json!("oven/zone1")
        )
    );
    assert_eq!(
        (&waiting["readings"], &waiting["held"], &waiting["sample"]),
        (&json!(5), &json!(5), &json!("24"))
    );

    let path = format!("{PENDING}/{}/adopt", waiting["id"].as_str().unwrap());
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    theirs.send(Method::POST, &path, None).await.problem(404);
    let adopted = supervisor.send(Method::POST, &path, None).await.ok();
    assert_eq!(
        (&adopted["name"], &adopted["stored"], &adopted["dropped"]),
        (&json!("oven/zone1"), &json!(5), &json!(0))
    );
    supervisor.send(Method::POST, &path, None).await.problem(404);
    assert_eq!(readings(&hub).await, 5);
    let rolled_up = "SELECT count(*) FROM (SELECT unnest(tag_ids) AS id FROM rollup_dirty \
        UNION ALL SELECT tag_id FROM reading_1m) r JOIN tag t USING (id) WHERE t.name = 'oven/zone1'";
    assert!(
        hub.count(&akron(), rolled_up).await > 0,
        "its rollups are made, or noted to be made"
    );
    assert!(supervisor.items(PENDING).await.is_empty());

    let next = format!("{{\"value\":30,\"ts\":{}}}", now_us + 9_000_000);
    assert_eq!(device.send("v1/plant/l1/oven/zone1", next).await.0, 0);
    assert_eq!(readings(&hub).await, 6);
    let tags = supervisor.items("/plant-ops/tags?name=oven/zone1").await;
    assert_eq!(
        (&tags[0]["edge"], &tags[0]["last"]["value"]),
        (&json!("press-7"), &json!(30.0))
    );
    let audited = hub
        .count(
            &akron(),
            "SELECT count(*) FROM audit_event WHERE action = 'adopt' AND entity = 'tag'",
        )
        .await;
    assert_eq!(audited, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_duplicates_and_replays_are_stored_once_and_a_contradiction_is_told() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "press-7").await;
    let now_us = Clock::system().now_us();
    let said = |value: f64| format!("{{\"ts\":{now_us},\"values\":{{\"t\":{value}}}}}");
    let topic = "v1/devices/me/telemetry";
    device.send(topic, said(4.5)).await;
    let id = supervisor.items(PENDING).await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    supervisor
        .send(
            Method::POST,
            &format!("{PENDING}/{id}/adopt"),
            Some(json!({ "name": "TT-900", "unit": "degC" })),
        )
        .await
        .ok();
    assert_eq!(
        device.send(topic, said(4.5)).await.0,
        0,
        "the same again is acknowledged"
    );
    let replay = device
        .client
        .publish(topic, rumqttc::v5::mqttbytes::QoS::AtLeastOnce, true, said(4.5));
    replay.await.unwrap();
    assert_eq!(device.acknowledged().await.0, 0);
    assert_eq!(readings(&hub).await, 1);
    let (code, reason) = device.send(topic, said(9.9)).await;
    assert_eq!(code, 0x99);
    assert!(reason.contains("E123") && reason.contains("4.5"), "{reason}");
    let error = device.told("err").await;
    assert_eq!(
        (&error["code"], &error["number"]),
        (&json!("DIFFERENT_VALUE"), &json!("E123"))
    );
    assert_eq!(readings(&hub).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dismissed_value_is_counted_and_never_held_and_two_sources_never_share_a_tag() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "press-7").await;
    let mut other = Device::connect(&hub, "press-8").await;
    device.send("v1/p/l/oven/t", "1").await;
    other.send("v1/p/l/oven/t", "2").await;
    let pending = supervisor.items(PENDING).await;
    assert_eq!(pending.len(), 2, "each client's own");
    let of = |client: &str| {
        let found = pending.iter().find(|it| it["client"] == client).unwrap();
        format!("{PENDING}/{}", found["id"].as_str().unwrap())
    };
    let adopt = |client: &str, name: Value| {
        let (path, caller) = (format!("{}/adopt", of(client)), supervisor.clone());
        async move {
            caller
                .send(Method::POST, &path, Some(json!({ "name": name })))
                .await
        }
    };
    let path = format!("{}/adopt", of("press-7"));
    supervisor
        .send(Method::POST, &path, Some(json!([null, null])))
        .await
        .problem(422);
    supervisor
        .send(Method::POST, &path, Some(json!({ "colour": 1 })))
        .await
        .problem(422);
    supervisor
        .send(Method::POST, &path, Some(json!({ "period_ms": -1 })))
        .await
        .problem(400);
    adopt("press-7", json!("TT-1")).await.ok();
    adopt("press-8", json!("TT-1")).await.problem(409);
    for impossible in [json!(""), json!("  "), json!("a\u{7}"), json!("x".repeat(201))] {
        adopt("press-8", impossible).await.problem(400);
    }
    let dismiss = format!("{}/dismiss", of("press-8"));
    assert_eq!(supervisor.send(Method::POST, &dismiss, None).await.status, 204);
    other.send("v1/p/l/oven/t", "3").await;
    let left = supervisor.items(PENDING).await;
    assert_eq!(
        (&left[0]["readings"], &left[0]["held"], &left[0]["dropped"]),
        (&json!(2), &json!(0), &json!(1))
    );
    assert!(left[0]["dismissed_us"].is_i64());
    let operator = Caller::with_role(&hub, Role::Operator).await;
    operator.get(PENDING).await.problem(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dismissed_value_that_is_restored_is_held_again_from_then_on() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "press-7").await;
    device.send("v1/p/l/oven/t", "1").await;
    let waiting = supervisor.items(PENDING).await.remove(0);
    let verb = |verb: &str| format!("{PENDING}/{}/{verb}", waiting["id"].as_str().unwrap());
    for deed in ["dismiss", "restore", "restore"] {
        let answer = supervisor.send(Method::POST, &verb(deed), None).await;
        assert_eq!(answer.status, 204, "{deed}");
    }
    device.send("v1/p/l/oven/t", "2").await;
    let left = supervisor.items(PENDING).await.remove(0);
    assert_eq!(
        (
            &left["dismissed_us"],
            &left["readings"],
            &left["held"],
            &left["dropped"]
        ),
        (&json!(null), &json!(2), &json!(1), &json!(1))
    );
    let operator = Caller::with_role(&hub, Role::Operator).await;
    operator
        .send(Method::POST, &verb("restore"), None)
        .await
        .problem(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_of_a_value_is_bounded_and_what_is_dropped_is_counted() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "press-7").await;
    let now_s = Clock::system().now_us() / 1_000_000;
    let values: Vec<Value> = (0..1_300)
        .map(|second| json!({ "ts": now_s - second, "values": { "t": second } }))
        .collect();
    device
        .send("v1/devices/me/telemetry", Value::from(values).to_string())
        .await;
    let waiting = supervisor.items(PENDING).await.remove(0);
    assert_eq!(
        (&waiting["readings"], &waiting["held"], &waiting["dropped"]),
        (&json!(1_300), &json!(1_000), &json!(300))
    );
    let path = format!("{PENDING}/{}/adopt", waiting["id"].as_str().unwrap());
    let adopted = supervisor.send(Method::POST, &path, Some(json!({}))).await.ok();
    assert_eq!(
        (&adopted["stored"], &adopted["dropped"]),
        (&json!(1_000), &json!(300))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn births_and_wills_say_whether_a_device_is_there_and_a_discovery_lists_its_value() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let login = crate::device::credentials(&hub, "gateway-1").await;
    let mut device = Device::open(&hub, "gateway-1", login, |options| {
        let will = rumqttc::v5::mqttbytes::v5::LastWill::new(
            "v1/p/l/oven/status",
            "offline",
            rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
            true,
            None,
        );
        options.set_last_will(will);
    });
    assert_eq!(device.send("v1/p/l/oven/status", "online").await.0, 0);
    let config = r#"{"name":"Oven zone 1","state_topic":"zigbee2mqtt/oven","value_template":"{{ value_json.t }}","unit_of_measurement":"degC","expire_after":30,"unique_id":"oven-t"}"#;
    assert_eq!(device.send("homeassistant/sensor/oven/config", config).await.0, 0);
    let waiting = supervisor.items(PENDING).await.remove(0);
    assert_eq!(
        (
            &waiting["proposed_name"],
            &waiting["unit"],
            &waiting["stale_after_s"],
            &waiting["readings"]
        ),
        (&json!("Oven zone 1"), &json!("degC"), &json!(30), &json!(0))
    );
    let path = format!("{PENDING}/{}/adopt", waiting["id"].as_str().unwrap());
    supervisor.send(Method::POST, &path, None).await.ok();
    device.send("zigbee2mqtt/oven", r#"{"t":181.5}"#).await;
    let tags = supervisor.items("/plant-ops/tags?name=Oven%20zone%201").await;
    assert_eq!(
        (&tags[0]["unit"], &tags[0]["last"]["value"]),
        (&json!("degC"), &json!(181.5))
    );
    let shown = supervisor.items("/integrator/devices").await;
    assert_eq!(
        (&shown[0]["name"], &shown[0]["is_online"]),
        (&json!("oven"), &json!(true))
    );
    drop(device);
    for _ in 0..200 {
        let shown = supervisor.items("/integrator/devices?client=gateway-1").await;
        if shown
            .iter()
            .any(|it| it["name"] == "oven" && it["is_online"] == false)
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the will was not honoured");
}

/// A tag's newest value and its reading of that time, which are one.
async fn newest(supervisor: &Caller, tag_id: i64, now_us: i64) -> Value {
    let last = supervisor
        .get(&format!("/plant-ops/series/last?tags={tag_id}"))
        .await
        .ok();
    let (from_us, to_us) = (now_us - 1, now_us + 1);
    let path = format!("/plant-ops/series?tags={tag_id}&from_us={from_us}&to_us={to_us}");
    let series = supervisor.get(&path).await.ok();
    let points = series["tags"][0]["points"].as_array().unwrap();
    assert_eq!(points.len(), 1, "there is one reading of that time");
    assert_eq!(points[0][1], last["values"][0]["value"]);
    points[0][1].clone()
}

async fn versions(supervisor: &Caller, tag_id: i64, now_us: i64) -> Vec<(Value, Value, Value)> {
    let path = format!(
        "/plant-ops/series/versions?tag_id={tag_id}&from_us={}&to_us={}",
        now_us - 1,
        now_us + 1
    );
    let said = supervisor.get(&path).await.ok();
    let row = |it: &Value| (it["rev"].clone(), it["value"].clone(), it["is_current"].clone());
    said["versions"].as_array().unwrap().iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_numbered_correction_takes_effect_and_what_was_said_before_is_kept_beside_it() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "press-7").await;
    let (topic, now_us) = ("v1/devices/me/telemetry", Clock::system().now_us());
    let said = |value: f64, rev: Option<i64>| {
        json!({ "ts": now_us, "values": { "t": value }, "rev": rev }).to_string()
    };
    // While it waits to be adopted, its versions are held.
    assert_eq!(device.send(topic, said(71.2, None)).await.0, 0);
    assert_eq!(device.send(topic, said(70.4, Some(1))).await.0, 0);
    assert_eq!(
        device.send(topic, said(66.6, None)).await.0,
        0x99,
        "a contradiction is told"
    );
    let id = supervisor.items(PENDING).await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let name = Some(json!({ "name": "TT-900", "unit": "degC" }));
    let adopted = supervisor
        .send(Method::POST, &format!("{PENDING}/{id}/adopt"), name)
        .await
        .ok();
    let tag_id = adopted["tag_id"].as_i64().unwrap();
    assert_eq!(adopted["stored"], 1);
    assert_eq!(newest(&supervisor, tag_id, now_us).await, json!(70.4));

    for (value, rev, code) in [
        (69.9, Some(3), 0),
        (70.1, Some(2), 0),
        (70.4, Some(1), 0),
        (71.2, None, 0),
        (5.0, Some(3), 0x99),
    ] {
        assert_eq!(
            device.send(topic, said(value, rev)).await.0,
            code,
            "{value} {rev:?}"
        );
    }
    assert_eq!(
        newest(&supervisor, tag_id, now_us).await,
        json!(69.9),
        "the highest number holds"
    );
    let kept = versions(&supervisor, tag_id, now_us).await;
    let expected = [
        (json!(null), 71.2, false),
        (json!(1), 70.4, false),
        (json!(3), 69.9, true),
        (json!(2), 70.1, false),
    ];
    let expected: Vec<_> = expected
        .map(|(rev, value, is)| (rev, json!(value), json!(is)))
        .into();
    assert_eq!(kept, expected);
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    let path = format!("/plant-ops/series/versions?tag_id={tag_id}&from_us=0&to_us=1");
    theirs.get(&path).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_reading_that_is_found_bad_afterwards_is_bad_and_rollups_follow() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "press-7").await;
    let now_us = Clock::system().now_us() - 3_600_000_000;
    let said = |value: Value, quality: &str| {
        json!({ "ts": now_us, "values": { "t": value }, "q": quality }).to_string()
    };
    let topic = "v1/p/l/oven/telemetry";
    device.send(topic, said(json!(71.2), "good")).await;
    let id = supervisor.items(PENDING).await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let name = Some(json!({ "name": "TT-900" }));
    let adopted = supervisor
        .send(Method::POST, &format!("{PENDING}/{id}/adopt"), name)
        .await
        .ok();
    let tag_id = adopted["tag_id"].as_i64().unwrap();
    let marked = "SELECT count(*) FROM rollup_dirty";
    let before = hub.count(&akron(), marked).await;
    assert_eq!(device.send(topic, said(Value::Null, "bad")).await.0, 0);
    assert_eq!(
        device.send(topic, said(json!(71.2), "good")).await.0,
        0,
        "the first one again changes nothing"
    );
    assert_eq!(newest(&supervisor, tag_id, now_us).await, Value::Null);
    let kept = versions(&supervisor, tag_id, now_us).await;
    assert_eq!(
        kept,
        [
            (json!(null), json!(71.2), json!(false)),
            (json!(null), json!(null), json!(true))
        ]
    );
    assert!(hub.count(&akron(), marked).await >= before, "its minute is noted");
}
