//! Does every picture end as a record, and is one that nobody looked at Unknown?

use std::{fs, path::Path};

use protocol::event::{Event, Inspection, Verdict};

use crate::support::{
    edge::{Edge, head},
    hub::{Hub, Policy, Stored},
};

fn inspections(stored: &Stored) -> Vec<Inspection> {
    let events = stored.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Inspection(inspection) => Some(inspection),
            _ => None,
        })
        .collect()
}

fn put(directory: &Path, name: &str, bytes: &[u8]) {
    let temporary = directory.join(format!("{name}.tmp"));
    fs::write(&temporary, bytes).unwrap();
    fs::rename(temporary, directory.join(name)).unwrap();
}

fn config(hub: &Hub, pictures: &Path) -> String {
    head(Some(hub.address))
        + &format!(
            "[vision]\nruntime = \"/nonexistent/libonnxruntime.so\"\n[[camera]]\nname = \"VS-306\"\nline = \"L3\"\n\
             directory = \"{}\"\npoll = \"50ms\"\nsilent_after = \"1s\"\n",
            pictures.display()
        )
}

#[tokio::test]
async fn t28_without_a_runtime_every_picture_is_unknown_with_the_reason_and_the_agent_runs() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    let hub = Hub::start(Policy::Store).await;
    let edge = Edge::start(directory.path(), &config(&hub, &pictures)).await;
    let tray = vision::render(&vision::TraySpec {
        seed: 1,
        width_px: 640,
        height_px: 480,
        defects: Vec::new(),
    });
    let jpeg = vision::encode_jpeg(&tray.rgb, 85);
    put(&pictures, "whole.jpg", &jpeg);
    hub.until("a record", |stored| inspections(stored).len() == 1)
        .await;
    put(&pictures, "torn.jpg", &jpeg[..jpeg.len() / 2]);
    hub.until("two records", |stored| inspections(stored).len() == 2)
        .await;
    for record in inspections(&hub.stored.lock().unwrap()) {
        assert_eq!(record.verdict, Verdict::Unknown);
        assert!(record.reason.unwrap().starts_with("vision is off"));
        assert_eq!(
            (record.camera.as_str(), record.line.as_deref()),
            ("VS-306", Some("L3"))
        );
    }
    let status = edge.status().await;
    assert!(status["vision"]["off"].is_string());
    assert_eq!(
        fs::read_dir(&pictures).unwrap().count(),
        0,
        "pictures are deleted once taken"
    );
}

#[tokio::test]
async fn t28_a_camera_that_falls_silent_is_alarmed() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    let hub = Hub::start(Policy::Store).await;
    let _edge = Edge::start(directory.path(), &config(&hub, &pictures)).await;
    hub.until("the alarm", |stored| {
        stored.events().iter().any(
            |event| matches!(event, Event::Alarm(alarm) if alarm.code == "camera.silent" && alarm.active),
        )
    })
    .await;
}

#[tokio::test]
async fn of_many_pictures_at_once_the_newest_is_looked_at_and_the_others_are_on_record() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for number in 0..5 {
        put(&pictures, &format!("{number}.jpg"), b"not a picture");
    }
    let hub = Hub::start(Policy::Store).await;
    let _edge = Edge::start(directory.path(), &config(&hub, &pictures)).await;
    hub.until("five records", |stored| inspections(stored).len() == 5)
        .await;
    let stored = hub.stored.lock().unwrap();
    let superseded = inspections(&stored).into_iter().filter(|record| {
        record
            .reason
            .as_deref()
            .unwrap_or_default()
            .starts_with("superseded")
    });
    assert_eq!(superseded.count(), 4);
}

#[tokio::test]
async fn t28_each_picture_of_a_frozen_camera_is_on_record_as_not_inspected() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    let hub = Hub::start(Policy::Store).await;
    let config = config(&hub, &pictures) + "frozen_after = \"0s\"\n";
    let _edge = Edge::start(directory.path(), &config).await;
    for number in 1..=3 {
        put(&pictures, &format!("{number}.jpg"), b"the same");
        hub.until("its record", |stored| inspections(stored).len() == number)
            .await;
    }
    put(&pictures, "4.jpg", b"another");
    hub.until("four records", |stored| inspections(stored).len() == 4)
        .await;
    hub.until("the alarm and its end", |stored| {
        let alarms = stored.events().into_iter().filter_map(|event| match event {
            Event::Alarm(alarm) if alarm.code == "camera.frozen" => Some(alarm.active),
            _ => None,
        });
        alarms.eq([true, false])
    })
    .await;
    let stored = hub.stored.lock().unwrap();
    let frozen = inspections(&stored).into_iter().filter(|record| {
        assert_eq!(record.verdict, Verdict::Unknown);
        record.reason.as_deref().unwrap_or_default().contains("frozen")
    });
    assert_eq!(frozen.count(), 2);
}
