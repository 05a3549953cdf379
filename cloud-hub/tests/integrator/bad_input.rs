//! Each kind of bad input: its exact error on the error topic, the connection kept, nothing lost and nothing leaked.

use std::time::Duration;

use cloud_hub::kernel::{clock::Clock, role::Role};
use rumqttc::v5::mqttbytes::{QoS, v5::SubscribeReasonCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    client::Caller,
    device::{Device, Heard},
    support::{TestHub, akron, cuyahoga},
};

/// Topic and payload, then what is to be heard: reason code, name, offset, part of the hint.
type Case = (&'static str, Vec<u8>, u8, &'static str, Option<u64>, &'static str);

/// Sends what is wrong and gives the PUBACK's code and the error, which must come within a second.
async fn refused(device: &mut Device, topic: &str, payload: impl Into<Vec<u8>>) -> (u8, Value) {
    let sent = Instant::now();
    device.publish(topic, payload).await;
    let error = device.told("err").await;
    let took = sent.elapsed();
    let (code, reason) = device.acknowledged().await;
    assert!(
        reason.starts_with(error["number"].as_str().unwrap()),
        "{reason}: {error}"
    );
    assert_eq!((&error["topic"], &error["count"]), (&json!(topic), &json!(1)));
    assert!(error["doc"].as_str().unwrap().contains('#') && error["first"] == error["last"]);
    // The bound is the issue's; a loaded machine gets ten times as long, and the median is measured elsewhere.
    println!("{} told after {} ms", error["number"], took.as_millis());
    assert!(took < Duration::from_secs(10), "{took:?}");
    (code, error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_each_bad_message_has_its_exact_error_and_the_connection_stays() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "press-7").await;
    let far = Clock::system().now_us() + 400 * 86_400_000_000;
    let cases: Vec<Case> = vec![
        (
            "v1/p/l/oven/telemetry",
            b"{temperature:25}".to_vec(),
            0x99,
            "BAD_JSON",
            Some(1),
            "object keys must be quoted",
        ),
        (
            "v1/p/l/a/t",
            vec![0xFF, 0x00, 0x80],
            0x99,
            "NOT_UTF8",
            Some(0),
            "UTF-8",
        ),
        ("v1/p/l/b/telemetry", b"".to_vec(), 0x99, "EMPTY", None, "empty"),
        (
            "v1/devices/me/telemetry",
            b"[1,2]".to_vec(),
            0x99,
            "WRONG_TYPE",
            None,
            "must be an object",
        ),
        (
            "v1/p/l/c/t",
            format!("{{\"v\":1,\"ts\":{far}}}").into_bytes(),
            0x99,
            "IMPOSSIBLE_TIME",
            None,
            "set the clock",
        ),
        (
            "v1/p/l/d/t",
            b"{\"v\":1,\"ts\":\"yesterday\"}".to_vec(),
            0x99,
            "BAD_TIME",
            None,
            "seconds, ms",
        ),
        (
            "v1/p/l/e/telemetry",
            b"{\"t\":1e999}".to_vec(),
            0x99,
            "BAD_NUMBER",
            Some(9),
            "64-bit float",
        ),
        (
            "umh/v1/acme",
            b"{\"value\":1}".to_vec(),
            0x99,
            "BAD_TOPIC",
            None,
            "umh/v1/<enterprise>",
        ),
        (
            "m/line",
            b"m,tag=a f=one 1".to_vec(),
            0x99,
            "BAD_LINE",
            Some(0),
            "a line is",
        ),
        (
            "spBv1.0/g/NBIRTH/n",
            b"{\"t\":1}".to_vec(),
            0x99,
            "BAD_PAYLOAD",
            None,
            "no Sparkplug payload",
        ),
        (
            "cuyahoga/v1/p/l/oven/t",
            b"4.1".to_vec(),
            0x87,
            "NOT_YOUR_TOPIC",
            None,
            "`akron/v1/`",
        ),
        (
            "v1/p/l/f/t",
            vec![b' '; (1 << 20) + 1],
            0x97,
            "TOO_LARGE",
            None,
            "send fewer values",
        ),
    ];
    for (topic, payload, code, name, offset, hint) in cases {
        let (said, error) = refused(&mut device, topic, payload).await;
        assert_eq!((said, error["code"].as_str().unwrap()), (code, name), "{topic}");
        assert_eq!(error["offset"].as_u64(), offset, "{topic}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{topic}: {error}");
    }
    // Each has a second of its own: by now NaN, which is BAD_JSON again, may be told.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    device.publish("v1/p/l/oven/telemetry", "{\"t\": NaN}").await;
    let nan = device.told("err").await;
    assert_eq!(device.acknowledged().await.0, 0x99);
    assert_eq!((&nan["code"], &nan["offset"]), (&json!("BAD_JSON"), &json!(6)));
    assert!(nan["hint"].as_str().unwrap().contains("no NaN"));

    assert_eq!(
        device.send("v1/p/l/oven/t", "4.1").await.0,
        0,
        "the connection was kept"
    );
    let kept = hub
        .count(
            &akron(),
            "SELECT count(*) FROM dead_letter WHERE edge_name = 'press-7'",
        )
        .await;
    assert_eq!(kept, 13, "what was refused is kept whole, with its reason");
    let leaked = hub.count(&cuyahoga(), "SELECT count(*) FROM dead_letter").await
        + hub.count(&cuyahoga(), "SELECT count(*) FROM pending_tag").await;
    assert_eq!(leaked, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_plain_status_words_and_unknown_devices_are_no_errors() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "press-7").await;
    for (topic, payload) in [
        ("v1/p/l/oven/status", "online"),
        ("tele/oven/LWT", "Offline"),
        ("v1/gateway/connect", "{\"device\":\"Dev A\"}"),
        ("v1/devices/me/attributes", "{\"firmware\":\"1.2\"}"),
        (
            "v1/gateway/telemetry",
            "{\"Never seen\":[{\"ts\":1483228800000,\"values\":{\"t\":42}}]}",
        ),
    ] {
        assert_eq!(device.send(topic, payload).await.0, 0, "{topic}");
    }
    let online = hub
        .count(
            &akron(),
            "SELECT count(*) FROM integrator_device WHERE name = 'Dev A' AND is_online",
        )
        .await;
    let held = hub
        .count(
            &akron(),
            "SELECT count(*) FROM pending_tag WHERE device = 'Never seen'",
        )
        .await;
    assert_eq!((online, held), (1, 1));
    assert_eq!(hub.count(&akron(), "SELECT count(*) FROM dead_letter").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_clock_in_the_future_and_a_value_without_a_time_are_taken_with_a_flag() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "press-7").await;
    let ahead = Clock::system().now_us() + 3_600_000_000;
    device
        .send("v1/p/l/oven/t", format!("{{\"v\":1,\"ts\":{ahead}}}"))
        .await;
    let echo = device.told("echo").await;
    assert_eq!(
        (&echo["readings"][0]["time_note"], &echo["readings"][0]["quality"]),
        (&json!("ahead"), &json!("uncertain.time"))
    );
    tokio::time::sleep(Duration::from_millis(150)).await;
    device.forget();
    device.send("v1/p/l/oven/t", "2").await;
    let echo = device.told("echo").await;
    assert_eq!(
        (&echo["readings"][0]["time_note"], &echo["readings"][0]["quality"]),
        (&json!("of_receipt"), &json!("good.time_of_receipt"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_subscriber_to_everything_or_to_anothers_errors_is_refused_and_hears_nothing() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "press-7").await;
    let mut spy = Device::connect(&hub, "press-8").await;
    for filter in [
        "#",
        "+/#",
        "$SYS/#",
        "v1/#",
        "v1/err/press-7",
        "v1/err/+",
        "akron/#",
        "int/#",
        "int/akron/d/press-7/v1/err/press-7",
        "$share/g/v1/err/press-8",
        "ff/v1/akron/press-7/ack",
    ] {
        let granted = spy.subscribe(filter).await;
        assert_eq!(granted, [SubscribeReasonCode::NotAuthorized], "{filter}");
    }
    let (_, error) = refused(&mut device, "v1/p/l/oven/telemetry", "{t:1}").await;
    assert_eq!(error["code"], "BAD_JSON");
    let heard = timeout(Duration::from_millis(300), spy.next()).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_flood_of_errors_is_told_once_a_second_with_its_count() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "press-7").await;
    for _ in 0..40 {
        device.publish("v1/p/l/oven/telemetry", "{t:1}").await;
    }
    let (mut told, mut acknowledged, mut counted) = (0, 0, 0);
    while acknowledged < 40 || counted < 40 {
        match device.next().await {
            Heard::PubAck(code, _) => {
                assert_eq!(code, 0x99);
                acknowledged += 1;
            }
            Heard::Message(publish) if publish.topic.starts_with(b"v1/err/") => {
                told += 1;
                let error: Value = serde_json::from_slice(&publish.payload).unwrap();
                counted = error["count"].as_u64().unwrap();
            }
            Heard::Message(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(told <= 10, "{told} errors were told of 40");
}

/// An older protocol has no reason codes: the error topic alone says what is wrong, and the connection is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_mqtt_3_1_1_is_acknowledged_and_told_on_the_error_topic() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet};
    let hub = TestHub::start().await;
    let (user, password) = crate::device::credentials(&hub, "press-7").await;
    let address = hub.hub.mqtt;
    let mut options = MqttOptions::new("old", address.ip().to_string(), address.port());
    options.set_credentials(user, password);
    let (client, mut events) = AsyncClient::new(options, 16);
    let topic = "akron/v1/err/press-7";
    client.subscribe(topic, rumqttc::QoS::AtLeastOnce).await.unwrap();
    let (mut is_acknowledged, mut told) = (false, None);
    while !is_acknowledged || told.is_none() {
        let event = timeout(Duration::from_secs(20), events.poll())
            .await
            .expect("in time")
            .expect("the connection stays");
        match event {
            Event::Incoming(Packet::SubAck(_)) => {
                let sent = client.publish("cuyahoga/v1/p/l/oven/t", rumqttc::QoS::AtLeastOnce, false, "4.1");
                sent.await.unwrap();
            }
            Event::Incoming(Packet::PubAck(_)) => is_acknowledged = true,
            Event::Incoming(Packet::Publish(publish)) => {
                assert_eq!(publish.topic, topic, "under the name that it was subscribed by");
                told = Some(serde_json::from_slice::<Value>(&publish.payload).unwrap());
            }
            _ => {}
        }
    }
    assert_eq!(told.unwrap()["code"], "NOT_YOUR_TOPIC");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_more_names_than_it_may_have_is_told_its_quota_and_a_device_with_too_many_sockets_too()
{
    let hub = TestHub::start_with(|config| config.mqtt.device_connections_max = 1).await;
    let mut device = Device::connect(&hub, "press-7").await;
    let names: serde_json::Map<String, Value> = (0..2_001)
        .map(|number| (format!("n{number}"), json!(number)))
        .collect();
    device
        .send("v1/devices/me/telemetry", Value::Object(names).to_string())
        .await;
    let error = device.told("err").await;
    assert_eq!(
        (&error["code"], &error["number"]),
        (&json!("TOO_MANY_TAGS"), &json!("E121"))
    );
    assert_eq!(
        hub.count(&akron(), "SELECT count(*) FROM pending_tag").await,
        2_000
    );
    let again = device.send("v1/devices/me/telemetry", "{\"n5000\":1}").await;
    assert_eq!(again.0, 0x97, "nothing of it could be taken");

    let mut login = crate::device::credentials(&hub, "press-9").await;
    let first = Device::with(&hub, "press-9", login.clone()).await;
    login.0.clone_from(&"akron/press-9".to_owned());
    let mut second = Device::open(&hub, "press-9", login, |options| {
        options.set_client_id("another".to_owned());
    });
    let Heard::Closed(said) = second.next().await else {
        panic!("let in")
    };
    assert!(said.contains("QuotaExceeded"), "{said}");
    drop(first);
    let operator = Caller::with_role(&hub, Role::Operator).await;
    operator.get("/integrator/devices").await.problem(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_only_partly_wrong_is_taken_for_the_rest_and_told() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "press-7").await;
    let now_us = Clock::system().now_us();
    let payload = format!("[{{\"ts\":{now_us},\"values\":{{\"a\":1}}}},{{\"ts\":5,\"values\":{{\"b\":2}}}}]");
    assert_eq!(device.send("v1/devices/me/telemetry", payload).await.0, 0);
    let echo = device.told("echo").await;
    assert_eq!(
        (&echo["counts"]["held"], &echo["counts"]["refused"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(echo["refused"][0]["code"], "IMPOSSIBLE_TIME");
    assert_eq!(
        hub.count(&akron(), "SELECT count(*) FROM dead_letter").await,
        0,
        "only what is refused whole is a dead letter"
    );
    let unacknowledged = device
        .client
        .publish("v1/p/l/oven/t", QoS::AtMostOnce, false, "{t:1}");
    unacknowledged.await.unwrap();
    device
        .wait(|heard| match heard {
            Heard::Message(publish) if publish.payload.windows(8).any(|it| it == b"BAD_JSON") => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_of_the_last_day_is_counted_by_client_and_code_with_its_newest_hint() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let errors = "/integrator/errors";
    assert_eq!(supervisor.items(errors).await, Vec::<Value>::new());
    let mut device = Device::connect(&hub, "press-7").await;
    let mut other = Device::connect(&hub, "press-8").await;
    for number in 0..7 {
        device
            .send("v1/p/l/oven/telemetry", format!("{{temperature:{number}}}"))
            .await;
    }
    device.send("v1/p/l/a/t", vec![0xFF, 0x00, 0x80]).await;
    other.send("v1/p/l/b/telemetry", "").await;
    let told = supervisor.items(errors).await;
    let mut counted: Vec<(&str, &str, i64)> = told
        .iter()
        .map(|it| {
            (
                it["client"].as_str().unwrap(),
                it["code"].as_str().unwrap(),
                it["count"].as_i64().unwrap(),
            )
        })
        .collect();
    counted.sort_unstable();
    assert_eq!(
        counted,
        [
            ("press-7", "BAD_JSON", 7),
            ("press-7", "NOT_UTF8", 1),
            ("press-8", "EMPTY", 1)
        ]
    );
    let bad = told.iter().find(|it| it["code"] == "BAD_JSON").unwrap();
    assert_eq!(
        (&bad["number"], &bad["topic"]),
        (&json!("E101"), &json!("v1/p/l/oven/telemetry"))
    );
    assert!(bad["hint"].as_str().unwrap().contains("quoted"), "{bad}");
    assert!(bad["sample"].as_str().unwrap().contains('6'), "the newest: {bad}");
    assert!(bad["first_us"].as_i64() <= bad["last_us"].as_i64());
    let of_one = supervisor.items(&format!("{errors}?client=press-8")).await;
    assert_eq!(of_one.len(), 1);
    let operator = Caller::with_role(&hub, Role::Operator).await;
    operator.get(errors).await.problem(403);
}
