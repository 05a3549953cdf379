//! Does the control do what it is asked, and refuse nonsense?

use super::*;
use crate::simulate::{load::Gateway, modbus::RegisterBank as _, tags::Table};

async fn control() -> (PlantState, String, tokio_util::sync::DropGuard) {
    let plant = PlantState::start(5, 1.0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(serve(of_plant(plant.clone()), listener, stop.clone()));
    (plant, url, stop.drop_guard())
}

/// A plain HTTP/1.0 exchange: status code and body.
async fn ask(url: &str, method: &str, path: &str) -> (u16, serde_json::Value) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (code, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn a_fault_is_started_shown_and_ended_over_http() {
    let (plant, url, _stop) = control().await;
    let (code, body) = ask(&url, "POST", "/scenario/f2?seconds=20").await;
    assert_eq!((code, body["fault"].as_str()), (200, Some("f2")));
    assert!(plant.now().register(Table::Holding, 0).unwrap() < 7_200);
    let entry = &body["journal"][0];
    let length_us = entry["to_us"].as_i64().unwrap() - entry["from_us"].as_i64().unwrap();
    assert_eq!((entry["what"].as_str(), length_us), (Some("f2"), 20_000_000));
    assert!((entry["from_us"].as_i64().unwrap() - chrono::Utc::now().timestamp_micros()).abs() < 60_000_000);

    let (code, body) = ask(&url, "POST", "/scenario/normal").await;
    assert_eq!((code, &body["fault"]), (200, &serde_json::Value::Null));
    let (code, body) = ask(&url, "GET", "/scenario").await;
    assert_eq!((code, body["seed"].as_u64()), (200, Some(5)));
    assert!(plant.now().register(Table::Holding, 0).unwrap() > 7_200);
}

#[tokio::test]
async fn a_burst_takes_a_count() {
    let (plant, url, _stop) = control().await;
    assert_eq!(ask(&url, "POST", "/scenario/defect-burst?count=7").await.0, 200);
    assert_eq!(plant.scenario().burst_left(), 7);
    assert_eq!(
        ask(&url, "POST", "/scenario/defect-burst").await.1["burst_left"],
        5
    );
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reason_and_changes_nothing() {
    let (plant, url, _stop) = control().await;
    for (path, expected) in [
        ("/scenario/f99", 404),
        ("/scenario/f1?seconds=0", 422),
        ("/scenario/f1?seconds=2592001", 422),
        ("/scenario/f1?count=2", 422),
        ("/scenario/normal?seconds=2", 422),
        ("/scenario/defect-burst?count=10001", 422),
        ("/scenario/f1?seconds=soon", 400),
        ("/scenario/f1?minutes=1", 400),
    ] {
        let (code, body) = ask(&url, "POST", path).await;
        assert_eq!(
            (code, body["status"].as_u64()),
            (expected, Some(u64::from(expected))),
            "{path}"
        );
    }
    assert_eq!(plant.scenario().journal().len(), 0);
    assert_eq!(ask(&url, "GET", "/scenario/f1").await.0, 405);
}

#[tokio::test]
async fn every_fault_can_be_started_and_its_truth_read() {
    let (plant, url, _stop) = control().await;
    for fault in Fault::ALL {
        let path = format!("/scenario/{}?seconds=600", fault.name());
        assert_eq!(ask(&url, "POST", &path).await.0, 200, "{path}");
    }
    let (code, body) = ask(&url, "GET", "/scenario").await;
    let named = |name: &str| {
        body["journal"]
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry["what"] == name)
    };
    assert_eq!(code, 200);
    assert!(Fault::ALL.iter().all(|fault| named(fault.name())), "{body}");
    let lines = plant.scenario().truth_lines();
    assert!(
        lines
            .lines()
            .all(|line| serde_json::from_str::<Truth>(line).is_ok())
    );
}

#[tokio::test]
async fn a_device_of_a_load_is_made_to_misbehave_over_http() {
    let load = "devices=2,tags=10".parse().unwrap();
    let bank = Arc::new(LoadRegisters::new(load, Duration::from_millis(100)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(serve(of_load(bank.clone()), listener, stop.clone()));
    let _stop = stop.drop_guard();
    for (path, expected) in [
        ("/device/2/silent", Manner::Silent),
        ("/device/2/late?ms=50", Manner::Late(Duration::from_millis(50))),
        ("/device/2/exception?code=4", Manner::Refusal(Exception(4))),
        ("/device/2/normal", Manner::Normal),
    ] {
        assert_eq!(ask(&url, "POST", path).await.0, 204, "{path}");
        assert_eq!(Gateway(bank.clone()).manner(2), expected);
    }
    for path in ["/device/3/silent", "/device/1/rude"] {
        assert_eq!(ask(&url, "POST", path).await.0, 404, "{path}");
    }
    assert_eq!(ask(&url, "GET", "/writes").await.1, serde_json::json!([]));
}
