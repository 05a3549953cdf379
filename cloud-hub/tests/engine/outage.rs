//! PostgreSQL is killed in the middle of a stream: nothing is lost, nothing is stored twice.

use cloud_hub::broker::Settled;
use cloud_hub::kernel::clock::Clock;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use protocol::topic::Channel;
use protocol::{
    ack::{Outcome, Subject},
    lane::Lane,
};

use crate::{
    ingest::Intake,
    support::{FrameMaker, TestDatabase, akron, start_cluster},
};

const FRAMES: u64 = 120;
const READINGS: i64 = 50;

#[tokio::test]
async fn killing_postgres_mid_stream_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_cluster(dir.path()).await;
    let test = TestDatabase::create_on(&cluster).await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let from = Clock::system().now_us() - 3_600_000_000;
    let mut waiting = Vec::new();
    for seq in 0..FRAMES {
        if seq % 40 == 20 {
            let pid = cluster.pid().expect("it runs between kills");
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        let frame = maker.live(seq, from + seq as i64 * 1_000_000, READINGS);
        waiting.push((
            frame.header.id,
            intake
                .put(&maker, Channel::Up(Lane::Live), frame.encode().unwrap())
                .await,
        ));
        if seq % 40 == 39 {
            // Every frame before the next kill is waited for, so that each kill meets a running server.
            for (_, settled) in waiting.iter_mut().skip(seq as usize - 39) {
                assert_eq!(settled.await.unwrap(), Settled::Stored);
            }
        }
    }
    let ids: Vec<_> = waiting.into_iter().map(|(id, _)| id).collect();
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM frame").await,
        FRAMES as i64
    );
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM reading").await,
        FRAMES as i64 * READINGS
    );
    for id in ids {
        assert_eq!(intake.acked.of(Subject::Frame(id)), [Outcome::Stored]);
    }
    cluster.stop().await;
}
