//! The whole way in: an enrolled edge, MQTT, the database, the acknowledgement.

use cloud_hub::{kernel::clock::Clock, series::bus::LiveKind};
use protocol::{
    ack::{Acknowledgement, Outcome, Subject},
    envelope::payload_crc,
    lane::Lane,
    limit::Phase,
    topic::Channel,
};

use crate::support::{FrameMaker, TestHub};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolled_edge_is_acknowledged_and_its_dip_puts_a_lot_on_hold() {
    let hub = TestHub::start().await;
    let mut live = hub.hub.app.live.subscribe();
    let (mut edge, maker) = (hub.edge("e1").await, FrameMaker::new("e1", &["TT-101"]));
    let stored = |subject| Acknowledgement {
        subject,
        outcome: Outcome::Stored,
    };
    edge.send(Channel::Dictionary, maker.dictionary.encode()).await;
    assert_eq!(
        edge.acknowledged().await,
        stored(Subject::Dictionary(maker.dictionary.id()))
    );

    let now = Clock::system().now_us();
    let frame = maker.live(0, now, 10);
    edge.send(Channel::Up(Lane::Live), frame.encode().unwrap()).await;
    assert_eq!(edge.acknowledged().await, stored(Subject::Frame(frame.header.id)));

    let garbage = b"garbage".to_vec();
    edge.send(Channel::Up(Lane::Live), garbage.clone()).await;
    let refused = edge.acknowledged().await;
    assert_eq!(refused.subject, Subject::Payload(payload_crc(&garbage)));
    assert!(matches!(refused.outcome, Outcome::Rejected { .. }));

    let dip = maker.deviation(Phase::Opened, now - 60_000_000, now);
    let frame = maker.frame(Lane::Events, 0, vec![], vec![dip]);
    edge.send(Channel::Up(Lane::Events), frame.encode().unwrap())
        .await;
    assert_eq!(edge.acknowledged().await, stored(Subject::Frame(frame.header.id)));
    let held = async {
        loop {
            if let LiveKind::Hold { id, .. } = live.recv().await.unwrap().kind {
                return id;
            }
        }
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(5), held).await;
    assert!(told.is_ok(), "live pages are told of the hold");
    hub.hub.stop().await;
}
