//! A frame is stored once, whole, or kept as a dead letter with its reason; one bad frame harms no other.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cloud_hub::{
    broker::{self, BrokerError, Device, Settled, Uplink, UplinkSender},
    edges::authority::DeviceAuthority,
    ingest::{self, Publish},
    kernel::clock::Clock,
    series::bus::{LiveBus, LiveKind},
};
use futures_util::future::BoxFuture;
use protocol::{
    Quality, Reading,
    ack::{self, Acknowledgement, Outcome, Subject},
    envelope::payload_crc,
    event::{Event, NotRead},
    frame::Frame,
    lane::Lane,
    limit::Phase,
    reading::Alias,
    topic::Channel,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::support::{FrameMaker, TestDatabase, akron};

/// Keeps what would have gone to the edges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acked(Arc<Mutex<Vec<Acknowledgement>>>);

impl Acked {
    pub(crate) fn all(&self) -> Vec<Acknowledgement> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn of(&self, subject: Subject) -> Vec<Outcome> {
        let all = self.all().into_iter();
        all.filter(|ack| ack.subject == subject)
            .map(|ack| ack.outcome)
            .collect()
    }
}

impl Publish for Acked {
    fn publish(&self, _: String, payload: Bytes) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.0.lock().unwrap().extend(ack::decode(&payload).unwrap());
        Box::pin(async { Ok(()) })
    }
}

/// A device authority whose files are gone at once: it is in memory.
fn authority() -> DeviceAuthority {
    let dir = tempfile::tempdir().unwrap();
    DeviceAuthority::load_or_create(dir.path(), Clock::system().now()).unwrap()
}

/// Ingest without a broker.
pub(crate) struct Intake {
    uplinks: UplinkSender,
    pub(crate) acked: Acked,
    pub(crate) live: LiveBus,
}

impl Intake {
    pub(crate) fn start(test: &TestDatabase) -> Self {
        let (uplinks, arriving) = broker::uplinks(1 << 20);
        let (acked, live) = (Acked::default(), LiveBus::new());
        let context = ingest::Context {
            target: test.databases.login.clone(),
            publish: Arc::new(acked.clone()),
            live: live.clone(),
            authority: authority(),
            clock: Clock::system(),
            settings: ingest::Settings {
                rows_max: 10_000,
                gather: std::time::Duration::from_millis(20),
            },
        };
        tokio::spawn(ingest::run(context, arriving, CancellationToken::new()));
        Self { uplinks, acked, live }
    }

    pub(crate) async fn put(
        &self,
        maker: &FrameMaker,
        channel: Channel,
        payload: Vec<u8>,
    ) -> oneshot::Receiver<Settled> {
        let (settled, waiting) = oneshot::channel();
        let uplink = Uplink {
            device: Device {
                tenant: maker.tenant.clone(),
                name: maker.edge.clone(),
            },
            topic: maker.topic(channel),
            payload: payload.into(),
            settled,
        };
        self.uplinks.send(uplink).await.unwrap();
        waiting
    }

    pub(crate) async fn dictionary(&self, maker: &FrameMaker) -> Settled {
        self.put(maker, Channel::Dictionary, maker.dictionary.encode())
            .await
            .await
            .unwrap()
    }

    pub(crate) async fn frame(&self, maker: &FrameMaker, frame: &Frame) -> Settled {
        let channel = Channel::Up(frame.header.id.lane);
        self.put(maker, channel, frame.encode().unwrap())
            .await
            .await
            .unwrap()
    }
}

const READINGS: &str = "SELECT count(*) FROM reading";
const LETTERS: &str = "SELECT count(*) FROM dead_letter";

fn now_us() -> i64 {
    Clock::system().now_us()
}

#[tokio::test]
async fn a_frame_sent_twice_is_stored_once_and_acknowledged_twice() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    assert_eq!(intake.dictionary(&maker).await, Settled::Stored);
    let frame = maker.live(0, now_us(), 10);
    // Twice in one batch, then once more.
    let bytes = frame.encode().unwrap();
    let first = intake.put(&maker, Channel::Up(Lane::Live), bytes.clone()).await;
    let second = intake.put(&maker, Channel::Up(Lane::Live), bytes).await;
    assert_eq!(
        (first.await.unwrap(), second.await.unwrap()),
        (Settled::Stored, Settled::Stored)
    );
    assert_eq!(intake.frame(&maker, &frame).await, Settled::Stored);
    assert_eq!(test.count(&akron(), READINGS).await, 10);
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM frame").await, 1);
    let outcomes = intake.acked.of(Subject::Frame(frame.header.id));
    assert_eq!(outcomes, [Outcome::Stored, Outcome::Stored, Outcome::Stored]);
}

#[tokio::test]
async fn one_poisoned_frame_in_a_batch_harms_no_other() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let good: Vec<Frame> = (0..3).map(|seq| maker.live(seq, now_us(), 5)).collect();
    let stranger = maker.frame(
        Lane::Live,
        10,
        vec![Reading::new(Alias(77), now_us(), 1.0, Quality::GOOD)],
        vec![],
    );
    // Decodes, passes every check, and is refused by the database: a zero character is no text.
    let refused = Event::NotRead(NotRead {
        tags: vec![Alias(0)],
        from_us: now_us(),
        to_us: now_us(),
        due: 1,
        reason: "a\0b".to_owned(),
    });
    let poison = maker.frame(Lane::Events, 0, vec![], vec![refused]);
    let garbage = b"not a frame".to_vec();
    let mut waiting = Vec::new();
    for payload in [
        good[0].encode().unwrap(),
        garbage.clone(),
        good[1].encode().unwrap(),
        stranger.encode().unwrap(),
    ] {
        waiting.push(intake.put(&maker, Channel::Up(Lane::Live), payload).await);
    }
    waiting.push(
        intake
            .put(&maker, Channel::Up(Lane::Events), poison.encode().unwrap())
            .await,
    );
    waiting.push(
        intake
            .put(&maker, Channel::Up(Lane::Live), good[2].encode().unwrap())
            .await,
    );
    let mut settled = Vec::new();
    for waiting in waiting {
        settled.push(matches!(waiting.await.unwrap(), Settled::Stored));
    }
    assert_eq!(settled, [true, false, true, false, false, true]);
    assert_eq!(test.count(&akron(), READINGS).await, 15);
    assert_eq!(test.count(&akron(), LETTERS).await, 3);
    for subject in [
        Subject::Payload(payload_crc(&garbage)),
        Subject::Frame(stranger.header.id),
        Subject::Frame(poison.header.id),
    ] {
        assert!(
            matches!(&intake.acked.of(subject)[..], [Outcome::Rejected { .. }]),
            "{subject:?}"
        );
    }
}

#[tokio::test]
async fn one_wrong_source_clock_costs_only_its_own_readings() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101", "TT-102"]));
    intake.dictionary(&maker).await;
    let (now, year_us) = (now_us(), 365 * 86_400_000_000);
    let at = |alias, time_us| Reading::new(Alias(alias), time_us, 70.0, Quality::GOOD);
    let readings = vec![
        at(0, now),
        at(1, now + year_us),
        at(0, now + 1),
        at(1, 0),
        at(0, now + 2),
    ];
    let frame = maker.frame(Lane::Live, 0, readings, vec![]);
    // Sent again, nothing is doubled, the letter neither.
    for _ in 0..2 {
        assert_eq!(intake.frame(&maker, &frame).await, Settled::Stored);
    }
    assert_eq!(test.count(&akron(), READINGS).await, 3);
    let current = "SELECT count(*) FROM tag_last JOIN tag ON id = tag_id WHERE name = 'TT-101'";
    assert_eq!(test.count(&akron(), current).await, 1);
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM tag_last").await, 1);
    let letter = "SELECT count(*) FROM dead_letter WHERE reason LIKE '2 readings with an impossible time: alias 1%' \
                  AND jsonb_array_length(convert_from(payload, 'UTF8')::jsonb) = 2";
    assert_eq!(test.count(&akron(), letter).await, 1);
    assert_eq!(test.count(&akron(), LETTERS).await, 1);
}

#[tokio::test]
async fn an_event_that_the_database_refuses_leaves_the_deviation_beside_it_stored() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let dip = now_us() - 60_000_000;
    let refused = Event::NotRead(NotRead {
        tags: vec![Alias(0)],
        from_us: dip,
        to_us: dip,
        due: 1,
        reason: "a\0b".to_owned(),
    });
    let events = vec![refused, maker.deviation(Phase::Opened, dip, dip + 2_000_000)];
    let frame = maker.frame(Lane::Events, 0, vec![], events);
    assert_eq!(intake.frame(&maker, &frame).await, Settled::Stored);
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM deviation").await, 1);
    let held = "SELECT count(*) FROM lot WHERE status = 'held'";
    assert_eq!(test.count(&akron(), held).await, 1);
    let letter = "SELECT count(*) FROM dead_letter WHERE reason LIKE 'the database refuses%'";
    assert_eq!(test.count(&akron(), letter).await, 1);
    assert_eq!(test.count(&akron(), LETTERS).await, 1);
}

#[tokio::test]
async fn a_frame_whose_dictionary_is_missing_is_asked_for_and_then_stored() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    let frame = maker.live(0, now_us(), 3);
    assert_eq!(
        intake.frame(&maker, &frame).await,
        Settled::Stored,
        "the PUBACK is not what frees it"
    );
    let subject = Subject::Frame(frame.header.id);
    assert_eq!(
        intake.acked.of(subject),
        [Outcome::NeedDictionary(maker.dictionary.id())]
    );
    assert_eq!(test.count(&akron(), READINGS).await, 0);
    intake.dictionary(&maker).await;
    intake.frame(&maker, &frame).await;
    assert_eq!(test.count(&akron(), READINGS).await, 3);
    // A hub that starts anew finds the dictionary in the database.
    let restarted = Intake::start(&test);
    restarted.frame(&maker, &maker.live(1, now_us(), 4)).await;
    assert_eq!(test.count(&akron(), READINGS).await, 7);
}

#[tokio::test]
async fn a_tag_of_another_edge_is_refused_by_name() {
    let test = TestDatabase::create().await;
    let intake = Intake::start(&test);
    intake.dictionary(&FrameMaker::new("e1", &["TT-101"])).await;
    let other = FrameMaker::new("e2", &["TT-900", "TT-101"]);
    let Settled::Rejected { reason } = intake.dictionary(&other).await else {
        panic!("stored")
    };
    assert!(reason.contains("TT-101") && reason.contains("e1"), "{reason}");
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM tag WHERE name = 'TT-900'")
            .await,
        0
    );
}

#[tokio::test]
async fn the_current_value_never_goes_backwards_and_a_bad_reading_has_none() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let now = now_us();
    let bad = Reading::bad(Alias(0), now, Quality::BAD_TIMEOUT);
    intake
        .frame(&maker, &maker.frame(Lane::Live, 0, vec![bad], vec![]))
        .await;
    let late = Reading::new(Alias(0), now - 60_000_000, 70.0, Quality::GOOD);
    intake
        .frame(&maker, &maker.frame(Lane::Backfill, 0, vec![late], vec![]))
        .await;
    let newest = "SELECT count(*) FROM tag_last WHERE value IS NULL AND quality = -32758";
    assert_eq!(test.count(&akron(), newest).await, 1);
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM reading WHERE value IS NULL")
            .await,
        1
    );
}

#[tokio::test]
async fn live_pages_are_told_the_newest_of_each_tag_after_the_commit() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    let mut events = intake.live.subscribe();
    let from = now_us();
    intake.frame(&maker, &maker.live(0, from, 5)).await;
    let event = events.recv().await.unwrap();
    let LiveKind::Samples {
        lane: Lane::Live,
        samples,
    } = &event.kind
    else {
        panic!("{event:?}")
    };
    assert_eq!(
        samples.iter().map(|sample| sample.time_us).collect::<Vec<_>>(),
        [from + 4_000_000]
    );
}

#[tokio::test]
async fn a_status_that_is_no_json_is_kept_and_a_good_one_shows() {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    let settled = intake.put(&maker, Channel::Status, b"{online".to_vec()).await;
    assert!(matches!(settled.await.unwrap(), Settled::Rejected { .. }));
    let status =
        br#"{"online":true,"boot":null,"version":"1","backlog_frames":7,"oldest_us":null,"at_us":1}"#;
    intake
        .put(&maker, Channel::Status, status.to_vec())
        .await
        .await
        .unwrap();
    assert_eq!(
        test.count(&akron(), "SELECT backlog_frames FROM edge WHERE is_online")
            .await,
        7
    );
}
