//! Is anything freed before the hub has it, and does everything arrive whatever the hub does?

use protocol::event::Event;

use crate::support::{
    edge::{Edge, count, device, head},
    hub::{Hub, Policy},
    plc::{Behaviour, Plc},
};

async fn plant(hub: &Hub) -> (tempfile::TempDir, Plc, Edge) {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let config = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "800ms", &[0, 1]);
    let edge = Edge::start(directory.path(), &config).await;
    (directory, plc, edge)
}

#[tokio::test]
async fn a_puback_frees_nothing_only_the_hubs_own_word_does() {
    let hub = Hub::start(Policy::Silent).await;
    let (_directory, _plc, edge) = plant(&hub).await;
    hub.until("frames", |stored| stored.topics.len() >= 5).await;
    let status = edge.status().await;
    assert_eq!(count(&status["acknowledged"]), 0);
    assert!(count(&status["backlog_frames"]) >= 5);
}

#[tokio::test]
async fn what_waited_arrives_once_the_hub_is_back() {
    let hub = Hub::start(Policy::RefuseConnection).await;
    let (_directory, _plc, edge) = plant(&hub).await;
    let status = edge
        .until("a backlog and a refused connection", |status| {
            count(&status["backlog_readings"]) >= 20 && status["uplink"]["state"] == "offline"
        })
        .await;
    let waited = count(&status["spooled"]) as usize;
    hub.set_policy(Policy::Store);
    hub.until("the backlog", |stored| stored.readings() >= waited)
        .await;
    edge.until("a drained spool", |status| count(&status["backlog_frames"]) <= 2)
        .await;
    // Each boot and lane counts up without a hole.
    let stored = hub.stored.lock().unwrap();
    let live: Vec<u64> = stored
        .frames
        .keys()
        .filter(|id| id.lane == protocol::lane::Lane::Live)
        .map(|id| id.seq)
        .collect();
    assert_eq!(live, (0..live.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hub_that_lost_the_dictionary_gets_it_again() {
    let hub = Hub::start(Policy::AskForDictionary).await;
    let (_directory, _plc, edge) = plant(&hub).await;
    hub.until("readings", |stored| stored.readings() >= 10).await;
    edge.until("acknowledged readings", |status| {
        count(&status["acknowledged"]) > 0
    })
    .await;
    let stored = hub.stored.lock().unwrap();
    let names: Vec<&str> = stored
        .dictionaries
        .values()
        .flat_map(|dictionary| dictionary.tags.iter().map(|tag| tag.name.as_str()))
        .collect();
    assert_eq!(names, ["plc-0", "plc-1"]);
}

#[tokio::test]
async fn a_rejected_frame_does_not_block_the_lane_and_is_alarmed() {
    let hub = Hub::start(Policy::Reject).await;
    let (_directory, _plc, edge) = plant(&hub).await;
    edge.until("rejections", |status| {
        count(&status["uplink"]["rejected_frames"]) >= 3
    })
    .await;
    hub.set_policy(Policy::Store);
    hub.until("the alarm", |stored| {
        stored
            .events()
            .iter()
            .any(|event| matches!(event, Event::Alarm(alarm) if alarm.code == "frame.rejected"))
    })
    .await;
}

#[tokio::test]
async fn an_edge_that_is_stopped_says_goodbye() {
    let hub = Hub::start(Policy::Store).await;
    let (_directory, _plc, edge) = plant(&hub).await;
    hub.until("readings", |stored| stored.readings() >= 2).await;
    assert_eq!(edge.stop().await, Some(0));
    hub.until("the goodbye", |stored| {
        stored
            .statuses
            .last()
            .is_some_and(|status| status["online"] == false)
    })
    .await;
}

#[tokio::test]
async fn the_local_pages_show_the_plant() {
    let hub = Hub::start(Policy::Store).await;
    let (_directory, _plc, edge) = plant(&hub).await;
    hub.until("readings", |stored| stored.readings() >= 2).await;
    let page = edge.page("/").await;
    assert!(page.contains("akron-1") && page.contains("plc"), "{page}");
    let metrics = edge.page("/metrics").await;
    assert!(
        metrics.contains("foodflow_edge_readings_total{source=\"plc\",outcome=\"good\"}"),
        "{metrics}"
    );
    assert!(metrics.contains("foodflow_edge_uplink_online 1"), "{metrics}");
    assert_eq!(edge.page("/health").await, "ok\n");
}
