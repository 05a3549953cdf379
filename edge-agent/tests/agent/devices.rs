//! Does every due Modbus reading end as good, bad or not read, whatever the device does?

use std::time::Duration;

use protocol::{Quality, event::Event};

use crate::support::{
    edge::{Edge, count, device, head, source},
    hub::{Hub, Policy, Stored},
    plc::{Behaviour, Plc},
};

/// Every reading of a tag that the hub stored: value and quality.
fn readings(stored: &Stored, tag: &str) -> Vec<(Option<f64>, Quality)> {
    let readings = stored.of(tag);
    readings
        .map(|reading| (reading.value(), reading.quality))
        .collect()
}

#[tokio::test]
async fn registers_become_readings_at_the_hub() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let hub = Hub::start(Policy::Store).await;
    let config = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "800ms", &[0, 1, 7]);
    let edge = Edge::start(directory.path(), &config).await;
    hub.until("readings", |stored| stored.readings() >= 30).await;
    {
        let stored = hub.stored.lock().unwrap();
        assert!(
            readings(&stored, "plc-7")
                .iter()
                .all(|reading| *reading == (Some(1007.0), Quality::GOOD))
        );
        assert_eq!(stored.users[0], "akron/akron-1");
        assert_eq!(stored.statuses[0]["online"], true);
    }
    // One request reads all three registers: the hole of five is within the limit.
    assert!(plc.requests().iter().all(|request| *request == (0, 8)));
    assert_eq!(edge.stop().await, Some(0));
}

#[tokio::test]
async fn everything_acquired_is_on_disk_or_at_the_hub_after_a_clean_stop() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let config = head(None) + &device("plc", plc.address, "50ms", "800ms", &[0, 1, 2]);
    let edge = Edge::start(directory.path(), &config).await;
    edge.until("readings", |status| count(&status["acquired"]) >= 60)
        .await;
    let data_dir = edge.data_dir.clone();
    assert_eq!(edge.stop().await, Some(0));
    let hub = Hub::start(Policy::Store).await;
    let config = head(Some(hub.address)) + &device("plc", plc.address, "1h", "800ms", &[0, 1, 2]);
    let polls = plc.requests().len();
    let edge = Edge::start(directory.path(), &config).await;
    hub.until("everything", |stored| stored.readings() >= polls * 3)
        .await;
    let status = edge
        .until("an empty spool", |status| status["backlog_frames"] == 0)
        .await;
    assert_eq!(
        count(&status["acknowledged"]),
        hub.stored.lock().unwrap().readings() as u64
    );
    assert!(data_dir.join("spool").is_dir());
}

#[tokio::test]
async fn t14_a_black_hole_gives_bad_readings_in_time_and_does_not_touch_its_neighbour() {
    let directory = tempfile::tempdir().unwrap();
    let dead = Plc::start(Behaviour {
        is_silent: true,
        ..Behaviour::default()
    })
    .await;
    let well = Plc::start(Behaviour::default()).await;
    let hub = Hub::start(Policy::Store).await;
    let config = head(Some(hub.address))
        + &device("dead", dead.address, "200ms", "300ms", &[0])
        + &device("well", well.address, "100ms", "300ms", &[0]);
    let edge = Edge::start(directory.path(), &config).await;
    hub.until("bad readings", |stored| readings(stored, "dead-0").len() >= 5)
        .await;
    let status = edge
        .until("the dead device", |status| {
            source(status, "dead")["state"] == "down"
        })
        .await;
    {
        let stored = hub.stored.lock().unwrap();
        for (value, quality) in readings(&stored, "dead-0") {
            assert_eq!(value, None, "never 0, never the last good value");
            assert!(quality.is_bad());
        }
        assert!(
            readings(&stored, "dead-0")
                .iter()
                .any(|(_, quality)| *quality == Quality::BAD_TIMEOUT)
        );
        assert!(
            readings(&stored, "well-0")
                .iter()
                .all(|reading| *reading == (Some(1000.0), Quality::GOOD))
        );
        let down = stored.events().into_iter().any(
            |event| matches!(event, Event::Alarm(alarm) if alarm.code == "source.down" && alarm.subject == "dead"),
        );
        assert!(down, "a dead device is alarmed");
    }
    let well = source(&status, "well");
    assert_eq!((count(&well["bad"]), count(&well["not_read"])), (0, 0));
    // The device comes back by itself.
    dead.behave(|behaviour| behaviour.is_silent = false);
    edge.until("the device back", |status| {
        source(status, "dead")["state"] == "up"
    })
    .await;
    hub.until("good readings", |stored| {
        readings(stored, "dead-0").last() == Some(&(Some(1000.0), Quality::GOOD))
    })
    .await;
}

#[tokio::test]
async fn t15_one_illegal_register_costs_only_its_own_tag() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        illegal: [5].into(),
        ..Behaviour::default()
    })
    .await;
    let hub = Hub::start(Policy::Store).await;
    let addresses: Vec<u16> = (0..10).collect();
    let config = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "800ms", &addresses);
    let _edge = Edge::start(directory.path(), &config).await;
    hub.until("readings", |stored| readings(stored, "plc-5").len() >= 5)
        .await;
    let stored = hub.stored.lock().unwrap();
    for address in addresses {
        for reading in readings(&stored, &format!("plc-{address}")) {
            let expected = if address == 5 {
                (None, Quality::BAD_ADDRESS)
            } else {
                (Some(1000.0 + f64::from(address)), Quality::GOOD)
            };
            assert_eq!(reading, expected, "address {address}");
        }
    }
}

#[tokio::test]
async fn t12_a_late_reply_never_answers_the_next_request() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        counts: true,
        ..Behaviour::default()
    })
    .await;
    let hub = Hub::start(Policy::Store).await;
    let config = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "200ms", &[0]);
    let _edge = Edge::start(directory.path(), &config).await;
    for _ in 0..2 {
        let seen = readings(&hub.stored.lock().unwrap(), "plc-0").len();
        plc.behave(|behaviour| behaviour.delay = Duration::from_millis(400));
        hub.until("a timeout", |stored| {
            readings(stored, "plc-0")[seen..]
                .iter()
                .any(|(_, quality)| *quality == Quality::BAD_TIMEOUT)
        })
        .await;
        plc.behave(|behaviour| behaviour.delay = Duration::ZERO);
        hub.until("recovery", |stored| {
            let readings = readings(stored, "plc-0");
            readings.len() > seen + 3 && readings.last().is_some_and(|(value, _)| value.is_some())
        })
        .await;
    }
    // Replies carry the number of their request: a stale one would repeat or step back.
    let stored = hub.stored.lock().unwrap();
    let numbers: Vec<f64> = readings(&stored, "plc-0")
        .into_iter()
        .filter_map(|(value, _)| value)
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[tokio::test]
async fn t13_every_exception_is_a_bad_reading_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        exception: Some(6),
        ..Behaviour::default()
    })
    .await;
    let hub = Hub::start(Policy::Store).await;
    let config = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "800ms", &[0]);
    let _edge = Edge::start(directory.path(), &config).await;
    for (code, expected) in [
        (6, Quality::BAD_DEVICE_FAILURE),
        (2, Quality::BAD_ADDRESS),
        (11, Quality::BAD_NOT_CONNECTED),
        (1, Quality::BAD_CONFIGURATION),
    ] {
        plc.behave(|behaviour| behaviour.exception = Some(code));
        hub.until("the reason", |stored| {
            readings(stored, "plc-0").last() == Some(&(None, expected))
        })
        .await;
    }
}

#[tokio::test]
async fn t17_a_device_slower_than_its_period_is_reported_as_overrun() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        delay: Duration::from_millis(300),
        ..Behaviour::default()
    })
    .await;
    let hub = Hub::start(Policy::Store).await;
    let config = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "800ms", &[0]);
    let edge = Edge::start(directory.path(), &config).await;
    hub.until("a not-read record", |stored| {
        let records = stored.events();
        records
            .iter()
            .any(|event| matches!(event, Event::NotRead(record) if record.reason == "overrun"))
    })
    .await;
    let status = edge.status().await;
    let plc = source(&status, "plc");
    let parts = ["good", "uncertain", "bad", "not_read"].map(|part| count(&plc[part]));
    assert_eq!(parts.iter().sum::<u64>(), count(&plc["due"]));
    assert!(count(&plc["not_read"]) > 0 && count(&plc["good"]) > 0);
}
