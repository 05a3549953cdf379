//! What edges answer, what people do at them and what their clocks did: each a record of its own, told twice or not.

use cloud_hub::{
    broker::Settled,
    edges::{clock, command::NewCommand},
    kernel::clock::{Clock, time_from_us},
};
use protocol::{
    Quality, Reading,
    alarm::{AlarmAction, AlarmCause, AlarmChange, AlarmState, AlarmVerb},
    command::{self, Command, CommandOutcome, CommandResult, Order},
    event::{Alarm, CertificateRequest, ClockStep, Event, ManualEntry},
    frame::Frame,
    lane::Lane,
    limit::{Check, CheckVerdict, DeviationKind, Phase},
    reading::Alias,
};
use uuid::Uuid;

use crate::{
    ingest::Intake,
    support::{FrameMaker, TestDatabase, akron},
};

const HOUR_US: i64 = 3_600_000_000;

async fn set_up() -> (TestDatabase, Intake, FrameMaker) {
    let test = TestDatabase::create().await;
    let (intake, maker) = (Intake::start(&test), FrameMaker::new("e1", &["TT-101"]));
    intake.dictionary(&maker).await;
    (test, intake, maker)
}

fn now_us() -> i64 {
    Clock::system().now_us()
}

async fn tell(intake: &Intake, maker: &FrameMaker, seq: u64, events: Vec<Event>) {
    let mut frame = maker.frame(Lane::Events, seq, vec![], events);
    frame.header.clock.synced = true;
    assert_eq!(intake.frame(maker, &frame).await, Settled::Stored);
}

async fn edge_id(test: &TestDatabase) -> Uuid {
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let sql = "SELECT id FROM edge WHERE name = 'e1'";
    sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
}

/// Gives edge `e1` a configuration as the API does.
async fn configure(test: &TestDatabase) -> Uuid {
    let order = Order::Configure {
        revision: 1,
        toml: "[edge]\n".to_owned(),
    };
    let id = edge_id(test).await;
    let command = NewCommand::new(id, order, "avery", time_from_us(now_us()), None).unwrap();
    let mut tx = test.db.begin(&akron()).await.unwrap();
    command.store(&mut tx).await.unwrap();
    sqlx::query(
        "INSERT INTO edge_config (edge_id, revision, toml, sha256, created_by, created_at, command_id) \
         VALUES ($1, 1, '[edge]', repeat('0', 64), 'avery', now(), $2)",
    )
    .bind(id)
    .bind(command.id)
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("a test's command").await.unwrap();
    command.id
}

fn answer(id: Uuid, outcome: CommandOutcome) -> Event {
    Event::CommandResult(CommandResult {
        id,
        at_us: now_us(),
        outcome,
    })
}

#[tokio::test]
async fn the_first_answer_that_says_what_was_done_stands() {
    let (test, intake, maker) = set_up().await;
    let id = configure(&test).await;
    let rolled_back = CommandOutcome::RolledBack {
        reason: "source `htst` did not come up".to_owned(),
    };
    tell(&intake, &maker, 0, vec![answer(id, rolled_back)]).await;
    tell(&intake, &maker, 1, vec![answer(id, CommandOutcome::AlreadySo)]).await;
    let stands = "SELECT count(*) FROM edge_command c JOIN edge_config g ON g.command_id = c.id \
                  WHERE c.state = 'rolled_back' AND g.state = 'rolled_back' AND g.reason LIKE '%htst%'";
    assert_eq!(test.count(&akron(), stands).await, 1);
    let audited = "SELECT count(*) FROM audit_event WHERE action = 'answer' AND actor_kind = 'edge' AND actor_id = 'e1'";
    assert_eq!(test.count(&akron(), audited).await, 1);
}

#[tokio::test]
async fn an_answer_to_a_command_of_another_edge_changes_nothing_and_is_kept() {
    let (test, intake, maker) = set_up().await;
    let id = configure(&test).await;
    let other = FrameMaker::new("e2", &["TT-900"]);
    intake.dictionary(&other).await;
    tell(&intake, &other, 0, vec![answer(id, CommandOutcome::Done)]).await;
    let open = "SELECT count(*) FROM edge_command WHERE state = 'waiting'";
    assert_eq!(test.count(&akron(), open).await, 1);
    let letter = "SELECT count(*) FROM dead_letter WHERE reason LIKE 'no command%'";
    assert_eq!(test.count(&akron(), letter).await, 1);
    tell(&intake, &maker, 0, vec![answer(id, CommandOutcome::Done)]).await;
    assert_eq!(test.count(&akron(), open).await, 0);
}

fn change(id: Uuid, from: AlarmState, to: AlarmState, cause: AlarmCause) -> Event {
    Event::AlarmChange(AlarmChange {
        id,
        at_us: now_us(),
        code: "source.down".to_owned(),
        subject: "htst".to_owned(),
        line: Some("L1".to_owned()),
        from,
        to,
        cause,
        is_active: true,
        priority: 2,
        value: None,
        limit_version: None,
    })
}

fn action(verb: AlarmVerb) -> AlarmAction {
    AlarmAction {
        id: Uuid::now_v7(),
        code: "source.down".to_owned(),
        subject: "htst".to_owned(),
        at_us: now_us(),
        by: "badge 7".to_owned(),
        second: None,
        reason: "pump is being replaced".to_owned(),
        verb,
    }
}

#[tokio::test]
async fn t26_what_was_done_at_the_line_and_what_was_refused_are_both_kept() {
    let (test, intake, maker) = set_up().await;
    let id = Uuid::now_v7();
    let raised = Event::Alarm(Alarm {
        id,
        at_us: now_us(),
        code: "source.down".to_owned(),
        subject: "htst".to_owned(),
        line: Some("L1".to_owned()),
        active: true,
        message: "no answer".to_owned(),
    });
    let opened = change(
        id,
        AlarmState::Normal,
        AlarmState::Unacknowledged,
        AlarmCause::Condition,
    );
    let acknowledged = AlarmCause::Action(action(AlarmVerb::Acknowledge));
    let acknowledged = change(
        id,
        AlarmState::Unacknowledged,
        AlarmState::Acknowledged,
        acknowledged,
    );
    let refused = AlarmCause::Refused {
        action: action(AlarmVerb::Shelve { until_us: i64::MAX }),
        why: "a second person is needed".to_owned(),
    };
    let refused = change(id, AlarmState::Acknowledged, AlarmState::Acknowledged, refused);
    tell(
        &intake,
        &maker,
        5,
        vec![raised, opened.clone(), acknowledged, refused],
    )
    .await;
    // A frame that was sealed earlier and arrives later is kept in the journal and does not move the state back.
    tell(&intake, &maker, 4, vec![opened]).await;
    let state =
        "SELECT count(*) FROM alarm WHERE state = 'acknowledged' AND priority = 2 AND message = 'no answer'";
    assert_eq!(test.count(&akron(), state).await, 1);
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM alarm_change").await, 4);
    let people = "SELECT count(*) FROM alarm_change WHERE actor = 'badge 7'";
    assert_eq!(test.count(&akron(), people).await, 2);
    let audited =
        "SELECT count(*) FROM audit_event WHERE entity = 'alarm' AND action IN ('act', 'refuse_act')";
    assert_eq!(test.count(&akron(), audited).await, 2);
}

#[tokio::test]
async fn a_manual_entry_told_twice_is_one_and_names_its_tag() {
    let (test, intake, maker) = set_up().await;
    let entry = Event::ManualEntry(ManualEntry {
        id: Uuid::now_v7(),
        at_us: now_us(),
        measured_us: now_us() - 60_000_000,
        tag: "TT-101".to_owned(),
        value: 73.4,
        badge: "7".to_owned(),
        name: "Olga".to_owned(),
        meaning: "performed".to_owned(),
        note: String::new(),
        sha256: "ab".repeat(32),
    });
    tell(&intake, &maker, 0, vec![entry.clone()]).await;
    tell(&intake, &maker, 1, vec![entry]).await;
    let one = "SELECT count(*) FROM manual_entry m JOIN tag t ON t.id = m.tag_id WHERE t.name = 'TT-101'";
    assert_eq!(test.count(&akron(), one).await, 1);
    let audited = "SELECT count(*) FROM audit_event WHERE entity = 'manual_entry'";
    assert_eq!(test.count(&akron(), audited).await, 1);
}

#[tokio::test]
async fn every_kind_of_deviation_is_stored() {
    let (test, intake, maker) = set_up().await;
    let kinds = [
        DeviationKind::HoldTime,
        DeviationKind::Cooling,
        DeviationKind::Challenge,
        DeviationKind::MissedCheck,
    ];
    let mut events = Vec::new();
    for (number, kind) in (1..).zip(kinds) {
        let from_us = now_us() - number * HOUR_US;
        let Event::Deviation(mut said) = maker.deviation(Phase::Opened, from_us, from_us + 1) else {
            panic!("a deviation")
        };
        said.kind = kind;
        events.push(Event::Deviation(said));
    }
    tell(&intake, &maker, 0, events).await;
    let kinds = "SELECT count(DISTINCT kind) FROM deviation";
    assert_eq!(test.count(&akron(), kinds).await, 4);
}

fn step(by_us: i64) -> Event {
    Event::ClockStep(ClockStep {
        at_us: now_us(),
        by_us,
        is_synced: true,
        correction_us: by_us,
    })
}

/// A live frame of three readings a second apart, sealed by a clock that is wrong by `-behind_us`.
fn unsynced(maker: &FrameMaker, seq: u64, behind_us: i64) -> (Frame, i64) {
    let from_us = now_us() - behind_us - 60_000_000 + seq.cast_signed() * 5_000_000;
    let mut frame = maker.live(seq, from_us, 3);
    let check = Check {
        ccp: "CCP-1".to_owned(),
        from_us: from_us - 10_000_000,
        to_us: from_us,
        verdict: CheckVerdict::Met,
        value_min: Some(73.2),
        value_max: Some(73.2),
        value_last: Some(73.2),
        good: 10,
        bad: 0,
        missing: 0,
        limit_version: 1,
    };
    frame.events.push(Event::CcpCheck(check));
    (frame, from_us)
}

async fn correct(test: &TestDatabase) {
    while clock::correct_some(&test.db, &akron(), time_from_us(now_us()))
        .await
        .unwrap()
        > 0
    {}
}

async fn times(test: &TestDatabase) -> Vec<i64> {
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let sql = "SELECT (extract(epoch FROM r.time) * 1000000)::bigint FROM reading r JOIN tag t ON t.id = r.tag_id \
               WHERE t.name = 'TT-101' ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(tx.conn()).await.unwrap()
}

#[tokio::test]
async fn t21_readings_of_a_boot_at_1970_get_their_true_times_once_the_clock_is_set() {
    let (test, intake, maker) = set_up().await;
    let behind_us = now_us() - 120_000_000;
    let (early, from_us) = unsynced(&maker, 0, behind_us);
    assert_eq!(intake.frame(&maker, &early).await, Settled::Stored);
    assert_eq!(times(&test).await.len(), 0, "nothing was measured in 1970");
    assert_eq!(test.count(&akron(), "SELECT count(*) FROM dead_letter").await, 0);
    tell(&intake, &maker, 0, vec![step(behind_us)]).await;
    // One that waited for the uplink comes after the correction.
    let (late, late_us) = unsynced(&maker, 1, behind_us);
    assert_eq!(intake.frame(&maker, &late).await, Settled::Stored);
    correct(&test).await;
    let mut right: Vec<i64> = [from_us, late_us]
        .iter()
        .flat_map(|from_us| (0..3).map(move |second| from_us + behind_us + second * 1_000_000))
        .collect();
    right.sort_unstable();
    assert_eq!(times(&test).await, right);
    let newest = "SELECT count(*) FROM tag_last WHERE time > now() - interval '1 hour'";
    assert_eq!(test.count(&akron(), newest).await, 1);
    let checks = "SELECT count(*) FROM ccp_check WHERE from_time > now() - interval '1 hour'";
    assert_eq!(test.count(&akron(), checks).await, 2);
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM unsynced_frame").await,
        0
    );
    let audited = "SELECT count(*) FROM audit_event WHERE action = 'correct_clock' AND entity = 'edge'";
    assert!(test.count(&akron(), audited).await >= 1);
}

#[tokio::test]
async fn t21_only_the_rows_of_that_boot_and_of_that_clock_are_moved() {
    let (test, intake, maker) = set_up().await;
    let from_us = now_us() - HOUR_US - 60_000_000;
    // The boot before had a good clock, at the very times that this boot's wrong clock shows.
    let mut before = maker.live(0, from_us, 3);
    before.header.clock.synced = true;
    assert_eq!(intake.frame(&maker, &before).await, Settled::Stored);
    let rebooted = FrameMaker {
        boot: Uuid::now_v7(),
        ..maker.clone()
    };
    let mut wrong = rebooted.live(0, from_us + 500_000, 2);
    // A server's own time, which was right all along.
    wrong
        .readings
        .push(Reading::new(Alias(0), from_us + HOUR_US, 70.0, Quality::GOOD));
    assert_eq!(intake.frame(&rebooted, &wrong).await, Settled::Stored);
    let mut after = rebooted.live(1, from_us + HOUR_US + 5_000_000, 1);
    after.header.clock.synced = true;
    assert_eq!(intake.frame(&rebooted, &after).await, Settled::Stored);
    tell(&intake, &rebooted, 0, vec![step(HOUR_US)]).await;
    correct(&test).await;
    correct(&test).await;
    let second = 1_000_000;
    assert_eq!(
        times(&test).await,
        [
            from_us,
            from_us + second,
            from_us + 2 * second,
            from_us + HOUR_US,
            from_us + HOUR_US + 500_000,
            from_us + HOUR_US + 500_000 + second,
            from_us + HOUR_US + 5 * second,
        ]
    );
}

#[tokio::test]
async fn t21_readings_whose_clock_was_never_set_right_end_as_dead_letters_after_seven_days() {
    let (test, intake, maker) = set_up().await;
    let (early, _) = unsynced(&maker, 0, now_us() - 120_000_000);
    assert_eq!(intake.frame(&maker, &early).await, Settled::Stored);
    assert_eq!(
        intake.frame(&maker, &maker.live(1, now_us(), 3)).await,
        Settled::Stored
    );
    let later = |days: i64| time_from_us(now_us() + days * 24 * HOUR_US);
    assert_eq!(clock::forget_some(&test.db, &akron(), later(6)).await.unwrap(), 0);
    assert_eq!(clock::forget_some(&test.db, &akron(), later(8)).await.unwrap(), 2);
    let letters = "SELECT count(*) FROM dead_letter WHERE reason LIKE '%not set right%'";
    assert_eq!(
        test.count(&akron(), letters).await,
        1,
        "the other frame's readings are stored"
    );
}

fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::default();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

#[tokio::test]
async fn t11_a_request_for_a_certificate_is_answered_by_a_command() {
    let (test, intake, maker) = set_up().await;
    let asked = |csr_pem: String| {
        Event::CertificateRequest(CertificateRequest {
            at_us: now_us(),
            csr_pem,
        })
    };
    tell(
        &intake,
        &maker,
        0,
        vec![asked(csr()), asked("nonsense".to_owned())],
    )
    .await;
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let sql = "SELECT payload FROM edge_command WHERE kind = 'certificate' AND state = 'waiting'";
    let payloads: Vec<Vec<u8>> = sqlx::query_scalar(sql).fetch_all(tx.conn()).await.unwrap();
    let [payload] = &payloads[..] else {
        panic!("{payloads:?}")
    };
    let Command {
        order: Order::Certificate { chain_pem },
        ..
    } = command::decode(payload).unwrap()
    else {
        panic!("another order")
    };
    assert_eq!(chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
    let kept = "SELECT count(*) FROM edge_certificate WHERE not_after > now() + interval '80 days'";
    assert_eq!(test.count(&akron(), kept).await, 1);
    let letter = "SELECT count(*) FROM dead_letter WHERE reason LIKE '%PKCS #10%'";
    assert_eq!(test.count(&akron(), letter).await, 1);
}
