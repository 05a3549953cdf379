//! Does the pipeline lose, merge or mislabel nothing while the disk refuses, the clock is set and the agent restarts?

use protocol::{
    Quality, Reading,
    alarm::{AlarmAction, AlarmVerb},
    event::{ClockStep, Inspection},
    frame::Frame,
    limit::CriticalLimit,
    reading::Alias,
    tag::{Dictionary, Tag},
};
use tokio::sync::oneshot;

use super::{hand_over::EVENTS_WAITING_MAX, recover::not_running, *};
use crate::{
    alarm,
    ccp::config::{Point, React},
    spool::{Batch, Left},
};

const SECOND: Micros = 1_000_000;

fn pipeline(capacity: usize) -> (Pipeline, mpsc::Receiver<Batch>) {
    let health = Arc::new(Health::new("akron-1", Uuid::from_u128(1), 0));
    let engine = Engine::new("akron-1", &[], || Uuid::from_u128(3));
    let age = Duration::from_millis(250);
    let sealer = Sealer::new("akron-1", Uuid::from_u128(1), Uuid::from_u128(2), 1000, age);
    let (appender, batches) = Appender::into_channel(capacity);
    let alarms = Register::new("akron-1", alarm::config::AlarmPolicy::default(), &[], &[]);
    let judges = (engine, alarms, SkewWatch::default());
    (
        Pipeline::new(judges, Outputs::default(), sealer, appender, health),
        batches,
    )
}

fn readings(at_us: Micros) -> Acquired {
    Acquired::Readings {
        readings: vec![Reading::new(Alias(0), at_us, 1.0, Quality::GOOD)],
        received_us: at_us,
    }
}

fn shot() -> crate::inspect::Shot {
    crate::inspect::Shot {
        camera: "VS-306".to_owned(),
        line: None,
        taken_us: 0,
        arrived: std::time::Instant::now(),
        size_px: None,
        jpeg: vec![1],
    }
}

fn dictionary() -> Dictionary {
    let tag = |alias: u32, period_ms: u32| Tag {
        alias: Alias(alias),
        name: format!("T{alias}"),
        unit: String::new(),
        description: String::new(),
        line: None,
        period_ms,
        simulated: false,
    };
    Dictionary {
        tags: vec![tag(0, 1000), tag(1, 1000), tag(2, 5000), tag(3, 0)],
    }
}

fn events(batch: &Batch) -> Vec<Event> {
    let frames = batch
        .records
        .iter()
        .map(|record| Frame::decode(&record.envelope).unwrap());
    frames.flat_map(|frame| frame.events).collect()
}

#[test]
fn readings_wait_for_the_frames_age_and_events_do_not() {
    let (mut pipeline, mut batches) = pipeline(8);
    pipeline.take(readings(0), 0);
    pipeline.flush(100_000, false);
    assert!(batches.try_recv().is_err());
    pipeline.flush(250_000, false);
    assert_eq!(batches.try_recv().unwrap().records.len(), 1);
    pipeline.take(
        Acquired::Alarm(alarm("source.down", "plc", "no reply", 0)),
        250_001,
    );
    pipeline.flush(250_001, false);
    let told = events(&batches.try_recv().unwrap());
    assert!(
        matches!(&told[..], [Event::Alarm(_), Event::AlarmChange(_)]),
        "{told:?}"
    );
}

#[test]
fn a_disk_that_takes_nothing_costs_readings_on_record_and_no_event() {
    let (mut pipeline, mut batches) = pipeline(1);
    pipeline.take(readings(0), 0);
    pipeline.flush(SECOND, false);
    for second in 2..5 {
        pipeline.take(readings(second * SECOND), second * SECOND);
        pipeline.take(
            Acquired::Alarm(alarm("source.down", "plc", "no reply", 0)),
            second * SECOND,
        );
        pipeline.flush(second * SECOND + SECOND, false);
    }
    drop(batches.try_recv().unwrap());
    pipeline.flush(10 * SECOND, false);
    let told = events(&batches.try_recv().unwrap());
    let alarms = told
        .iter()
        .filter(|event| matches!(event, Event::Alarm(_)))
        .count();
    let lost: u64 = told
        .iter()
        .map(|event| {
            if let Event::Gap(gap) = event {
                gap.readings
            } else {
                0
            }
        })
        .sum();
    assert_eq!((alarms, lost), (3, 3), "{told:?}");
}

#[test]
fn a_disk_that_takes_nothing_for_hours_forgets_no_lost_reading_and_fills_no_memory() {
    let (mut pipeline, mut batches) = pipeline(1);
    pipeline.take(readings(0), 0);
    pipeline.flush(SECOND, false);
    for second in 2..20_002 {
        pipeline.take(readings(second * SECOND), second * SECOND);
        let picture = Inspection {
            thumbnail_jpeg: Some(vec![0; 24_000]),
            ..crate::inspect::not_performed(&shot(), "vision is off")
        };
        pipeline.take(Acquired::Inspection(Box::new(picture)), second * SECOND);
        pipeline.flush(second * SECOND + SECOND, false);
    }
    assert!(pipeline.events.len() <= EVENTS_WAITING_MAX);
    drop(batches.try_recv().unwrap());
    pipeline.flush(30_000 * SECOND, false);
    let told = events(&batches.try_recv().unwrap());
    let lost: Vec<u64> = told
        .iter()
        .filter_map(|event| match event {
            Event::Gap(gap) => Some(gap.readings),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [20_000]);
}

#[test]
fn t21_a_clock_that_is_set_is_a_record_and_an_alarm() {
    for (by_us, code) in [
        (-3_600 * SECOND, "clock.set_back"),
        (3_600 * SECOND, "clock.set_forward"),
    ] {
        let (mut pipeline, mut batches) = pipeline(8);
        pipeline.clock_stepped(step(7_200 * SECOND, by_us, 0));
        pipeline.flush(SECOND, false);
        let told = events(&batches.try_recv().unwrap());
        assert!(
            matches!(&told[..], [Event::ClockStep(step), Event::Alarm(alarm), ..]
                if step.by_us == by_us && alarm.code == code),
            "{told:?}"
        );
    }
}

#[test]
fn t21_a_boot_in_1970_tells_the_pause_before_it_once_the_clock_is_set() {
    let (mut pipeline, mut batches) = pipeline(8);
    let stopped_us = 1_764_000_000 * SECOND;
    let left = Left {
        store: crate::spool::store::Recovered {
            last_sealed_us: Some(stopped_us),
            ..crate::spool::store::Recovered::default()
        },
        ..Left::default()
    };
    pipeline.recover(left, &dictionary(), 5 * SECOND);
    assert!(
        batches.try_recv().is_err(),
        "nobody knows yet how long nothing ran"
    );
    // Set at 9 s past 1970 to where the true time is: the start was 100 s after the stop.
    let by_us = stopped_us + 95 * SECOND;
    pipeline.clock_stepped(step(9 * SECOND + by_us, by_us, by_us));
    pipeline.flush(9 * SECOND + by_us, false);
    let told = events(&batches.try_recv().unwrap());
    let pause = told.iter().find_map(|event| match event {
        Event::NotRead(record) => Some(record),
        _ => None,
    });
    let pause = pause.expect("the pause is on record");
    assert_eq!(
        (pause.from_us, pause.to_us),
        (stopped_us, stopped_us + 100 * SECOND)
    );
    assert_eq!(pause.due, 100);
}

#[test]
fn t21_frames_keep_their_order_by_sequence_whatever_the_clock_does() {
    let (mut pipeline, mut batches) = pipeline(64);
    let times_us = [5 * SECOND, 9_000 * SECOND, SECOND, 20 * SECOND];
    for now_us in times_us {
        pipeline.take(readings(now_us), now_us);
        pipeline.flush(now_us + SECOND, true);
    }
    let mut seqs = Vec::new();
    while let Ok(batch) = batches.try_recv() {
        for record in batch.records {
            let frame = Frame::decode(&record.envelope).unwrap();
            seqs.push((frame.header.id.seq, frame.readings[0].time_us));
        }
    }
    let expected: Vec<_> = (0..).zip(times_us).collect();
    assert_eq!(seqs, expected);
}

fn step(at_us: Micros, by_us: i64, correction_us: i64) -> ClockStep {
    ClockStep {
        at_us,
        by_us,
        is_synced: true,
        correction_us,
    }
}

#[test]
fn the_time_in_which_nothing_ran_is_on_record_for_every_due_tag() {
    let records = not_running(&dictionary(), 0, 12 * SECOND);
    let due: Vec<(usize, u32)> = records
        .iter()
        .map(|event| match event {
            Event::NotRead(record) => (record.tags.len(), record.due),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(due, [(2, 12), (1, 2)]);
    assert!(not_running(&dictionary(), 0, SECOND / 2).is_empty());
}

#[test]
fn events_that_reached_only_the_journal_are_sent_and_not_written_there_twice() {
    let (mut pipeline, mut batches) = pipeline(8);
    let left = Left {
        unstored: vec![Event::Alarm(alarm("ccp.diverted", "CCP-1", "diverted", 0))],
        ..Left::default()
    };
    pipeline.recover(left, &dictionary(), SECOND);
    let batch = batches.try_recv().unwrap();
    assert_eq!(events(&batch).len(), 1);
    assert!(batch.journal.is_empty());
}

#[test]
fn pushed_limits_are_answered_and_what_does_not_fit_changes_nothing() {
    let (mut pipeline, _batches) = pipeline(8);
    let (reply, mut answer) = oneshot::channel();
    let limits = Vec::new();
    pipeline.take(Acquired::Limits { limits, reply }, 0);
    assert_eq!(answer.try_recv().unwrap(), Ok(Vec::new()));
}

#[test]
fn an_alarm_that_comes_to_the_pipeline_gets_a_state_and_outlives_a_restart() {
    let (mut before, mut batches) = pipeline(8);
    before.take(
        Acquired::Alarm(alarm("source.down", "plc", "no reply", SECOND)),
        SECOND,
    );
    before.flush(SECOND, false);
    let batch = batches.try_recv().unwrap();
    assert!(matches!(&events(&batch)[..], [Event::Alarm(_), Event::AlarmChange(change)] if change.is_active));
    assert!(
        batch
            .journal
            .iter()
            .any(|event| matches!(event, Event::AlarmChange(_)))
    );
    let (mut after, _batches) = pipeline(8);
    let mut left = Left::default();
    left.store.states = batch.states;
    after.recover(left, &dictionary(), 2 * SECOND);
    assert_eq!(after.alarms.status(2 * SECOND).counts.standing, 1);
}

fn reacting_point() -> Point {
    let limit = CriticalLimit {
        ccp: "CCP-1".to_owned(),
        line: None,
        tag: "T0".to_owned(),
        unit: String::new(),
        low: Some(72.0),
        high: None,
        clear_margin: 0.0,
        delay_us: 0,
        gap_us_max: 60 * SECOND,
        check_every_us: 60 * SECOND,
        period_us: SECOND,
        version: 1,
    };
    Point {
        limit,
        kind: protocol::limit::ControlKind::Limit,
        tag: Alias(0),
        gate: None,
        not_during: None,
        stuck: None,
        react: Some(React {
            output: "stop".to_owned(),
            on_deviation: 1.0,
            on_clear: 0.0,
            hold_until_reset: true,
        }),
    }
}

fn person(id: u128, verb: AlarmVerb, at_us: Micros) -> Acquired {
    Acquired::AlarmAction(Box::new(AlarmAction {
        id: Uuid::from_u128(id),
        code: "ccp.limit".to_owned(),
        subject: "CCP-1".to_owned(),
        at_us,
        by: "avery".to_owned(),
        second: None,
        reason: String::new(),
        verb,
    }))
}

#[test]
fn an_output_that_is_held_is_released_only_by_a_reset_after_the_deviation() {
    let (mut pipeline, _batches) = pipeline(8);
    let points = [reacting_point()];
    pipeline.engine = Engine::new("akron-1", &points, || Uuid::from_u128(3));
    pipeline.alarms = Register::new("akron-1", alarm::config::AlarmPolicy::default(), &[], &points);
    let read = |second: i64, value: f64| Acquired::Readings {
        readings: vec![Reading::new(Alias(0), second * SECOND, value, Quality::GOOD)],
        received_us: second * SECOND,
    };
    let is_stopped = |pipeline: &Pipeline| pipeline.engine.wanted()["stop"] > 0.5;
    pipeline.take(read(0, 73.0), 0);
    assert!(!is_stopped(&pipeline));
    pipeline.take(read(1, 71.0), SECOND);
    assert!(is_stopped(&pipeline));
    pipeline.take(person(1, AlarmVerb::Reset, 2 * SECOND), 2 * SECOND);
    pipeline.take(read(3, 73.0), 3 * SECOND);
    assert!(is_stopped(&pipeline), "a reset during the deviation is refused");
    pipeline.take(person(2, AlarmVerb::Acknowledge, 4 * SECOND), 4 * SECOND);
    assert!(is_stopped(&pipeline), "seen is not reset");
    pipeline.take(person(3, AlarmVerb::Reset, 5 * SECOND), 5 * SECOND);
    assert!(!is_stopped(&pipeline));
}
