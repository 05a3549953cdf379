//! Does a rule come to the same alarms in whatever order its readings arrive?

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::{Quality, alarm::machine::AlarmBand};

use super::*;
use crate::alarm::watch::Kind;

const SECOND: Micros = 1_000_000;

fn spec(kind: Kind, on_delay_s: i64) -> Spec {
    Spec {
        kind,
        band: AlarmBand {
            low: None,
            high: Some(5.0),
            deadband: 0.5,
        },
        on_delay_us: on_delay_s * SECOND,
        off_delay_us: 2 * SECOND,
        window_us: 40 * SECOND,
        score_max: 4.0,
        is_seasonal: false,
        tags: vec![1],
        running_tag: None,
    }
}

fn timeline(versions: Vec<(Micros, Option<Spec>)>) -> Timeline {
    Timeline {
        rule_id: Uuid::from_u128(7),
        versions: (1..)
            .zip(versions)
            .map(|(number, (from_us, spec))| Version {
                number,
                from_us,
                spec,
                alarm: behaviour(2),
            })
            .collect(),
        models: vec![],
    }
}

fn name() -> AlarmName {
    AlarmName {
        edge: "hub".to_owned(),
        code: "tank.warm".to_owned(),
        subject: "TT-403".to_owned(),
        line: None,
    }
}

fn reading(second: i64, value: f64) -> Event {
    Event::Reading(Input {
        tag_id: 1,
        time_us: second * SECOND,
        value: Some(value),
        quality: Quality::GOOD,
    })
}

fn deed(number: u128, second: i64, alarm_id: Uuid, verb: AlarmVerb) -> Deed {
    Deed {
        alarm_id,
        action: AlarmAction {
            id: Uuid::from_u128(number),
            code: "tank.warm".to_owned(),
            subject: "TT-403".to_owned(),
            at_us: second * SECOND,
            by: "avery".to_owned(),
            second: None,
            reason: "seen".to_owned(),
            verb,
        },
    }
}

fn whole(timeline: &Timeline, events: &[Event], now_us: Micros) -> (Judge, Vec<Occurrence>) {
    let start = Mark {
        at_us: Micros::MIN,
        judge: Judge::new(name()),
        span: Span::Head,
    };
    let mut replay = Replay::from(timeline, start);
    for event in events {
        replay.take(event);
    }
    let (_, judge, found) = replay.finish(now_us);
    (judge, found.occurrences)
}

/// What the hub does, with a map for its tables: what arrives is kept, and judged from the last mark before it.
#[derive(Default)]
struct Ledger {
    events: BTreeMap<(Micros, usize), Event>,
    marks: BTreeMap<Micros, Judge>,
    occurrences: BTreeMap<Uuid, Occurrence>,
    judged: usize,
}

impl Ledger {
    fn arrive(&mut self, timeline: &Timeline, batch: &[(usize, Event)], now_us: Micros) -> Judge {
        let first_us = batch.iter().map(|(_, event)| event.time_us()).min().unwrap();
        for (place, event) in batch {
            self.events.insert((event.time_us(), *place), event.clone());
        }
        drop(self.marks.split_off(&first_us));
        let mark = self.marks.last_key_value().map_or_else(
            || Mark {
                at_us: Micros::MIN,
                judge: Judge::new(name()),
                span: Span::Head,
            },
            |(at_us, judge)| Mark {
                at_us: *at_us,
                judge: judge.clone(),
                span: Span::Head,
            },
        );
        let (from_us, open) = (mark.at_us, mark.judge.open().map(|open| open.id));
        let mut replay = Replay::from(timeline, mark);
        for ((time_us, _), event) in &self.events {
            if *time_us > from_us {
                self.judged += 1;
                replay.take(event);
            }
        }
        let (kept, judge, found) = replay.finish(now_us);
        self.marks
            .extend(kept.into_iter().map(|mark| (mark.at_us, mark.judge)));
        self.occurrences
            .retain(|id, it| it.raised_us <= from_us && Some(*id) != open);
        self.occurrences
            .extend(found.occurrences.into_iter().map(|it| (it.id, it)));
        judge
    }
}

#[test]
fn a_late_reading_withdraws_what_it_disproves_and_raises_what_it_proves() {
    let rule = timeline(vec![(0, Some(spec(Kind::Threshold, 5)))]);
    let mut ledger = Ledger::default();
    let hot: Vec<(usize, Event)> = [(0, 1.0), (1, 6.0), (9, 6.0), (10, 1.0)]
        .into_iter()
        .enumerate()
        .map(|(place, (second, value))| (place, reading(second, value)))
        .collect();
    ledger.arrive(&rule, &hot, 20 * SECOND);
    assert_eq!(ledger.occurrences.len(), 1);
    // It was cool in between: it was never hot for five seconds.
    ledger.arrive(&rule, &[(9, reading(4, 1.0))], 21 * SECOND);
    assert!(ledger.occurrences.is_empty());
    ledger.arrive(
        &rule,
        &[(10, reading(15, 9.0)), (11, reading(30, 1.0))],
        40 * SECOND,
    );
    assert_eq!(ledger.occurrences.len(), 1);
}

#[test]
fn an_acknowledgement_covers_the_occurrence_that_was_seen_and_no_other() {
    let rule = timeline(vec![(0, Some(spec(Kind::Threshold, 0)))]);
    let hot = [reading(0, 1.0), reading(10, 6.0)];
    let (judge, found) = whole(&rule, &hot, 11 * SECOND);
    assert_eq!(judge.state(), AlarmState::Unacknowledged);
    let seen = found[0].id;
    let acted = deed(1, 12, seen, AlarmVerb::Acknowledge);
    assert_eq!(judge.would(&rule.alarm(), &acted), Ok(AlarmState::Acknowledged));
    let events = [
        &hot[..],
        &[Event::Deed(acted.clone()), reading(20, 1.0), reading(30, 6.0)],
    ]
    .concat();
    let (judge, found) = whole(&rule, &events, 31 * SECOND);
    assert_eq!((judge.state(), found.len()), (AlarmState::Unacknowledged, 2));
    assert_eq!(
        judge.would(&rule.alarm(), &acted),
        Ok(AlarmState::Unacknowledged),
        "of another occurrence"
    );
    let again = deed(2, 32, found[1].id, AlarmVerb::Acknowledge);
    assert_eq!(judge.would(&rule.alarm(), &again), Ok(AlarmState::Acknowledged));
}

#[test]
fn a_shelved_alarm_comes_back_by_itself_and_no_longer_than_allowed() {
    let rule = timeline(vec![(0, Some(spec(Kind::Threshold, 0)))]);
    let shelve = |until_s: i64| {
        deed(
            1,
            10,
            Uuid::nil(),
            AlarmVerb::Shelve {
                until_us: until_s * SECOND,
            },
        )
    };
    let events = [reading(0, 6.0), Event::Deed(shelve(600))];
    assert_eq!(whole(&rule, &events, 599 * SECOND).0.state(), AlarmState::Shelved);
    assert_eq!(
        whole(&rule, &events, 600 * SECOND).0.state(),
        AlarmState::Unacknowledged
    );
    let (judge, _) = whole(&rule, &events[..1], 10 * SECOND);
    assert!(judge.would(&rule.alarm(), &shelve(10 + 28_801)).is_err());
}

#[test]
fn a_rule_that_was_changed_ends_what_stood_and_judges_the_past_as_it_was() {
    let strict = Some(Spec {
        band: AlarmBand {
            low: None,
            high: Some(9.0),
            deadband: 0.0,
        },
        ..spec(Kind::Threshold, 0)
    });
    let rule = timeline(vec![
        (0, Some(spec(Kind::Threshold, 0))),
        (100 * SECOND, strict),
        (200 * SECOND, None),
    ]);
    let events: Vec<Event> = (0..300)
        .map(|second| reading(second, if second < 150 { 6.0 } else { 10.0 }))
        .collect();
    let (judge, found) = whole(&rule, &events, 300 * SECOND);
    let times: Vec<_> = found
        .iter()
        .map(|it| {
            (
                it.raised_us / SECOND,
                it.cleared_us.map(|us| us / SECOND),
                it.rule_version,
            )
        })
        .collect();
    assert_eq!(times, [(0, Some(100), 1), (150, Some(200), 2)]);
    assert!(judge.open().is_none());
}

#[test]
fn silence_that_only_a_cut_line_made_is_withdrawn_when_the_readings_come() {
    let rule = timeline(vec![(0, Some(spec(Kind::NoData, 0)))]);
    let mut ledger = Ledger::default();
    ledger.arrive(&rule, &[(0, reading(10, 1.0))], 11 * SECOND);
    let judge = ledger.arrive(&rule, &[(1, reading(20, 1.0))], 200 * SECOND);
    assert_eq!(
        (judge.state(), ledger.occurrences.len()),
        (AlarmState::Unacknowledged, 1)
    );
    let missed: Vec<(usize, Event)> = (2..20).map(|n| (n, reading(20 + 10 * n as i64, 1.0))).collect();
    ledger.arrive(&rule, &missed, 215 * SECOND);
    assert!(ledger.occurrences.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_order_of_arrival_gives_the_same_alarms(
        values in prop::collection::vec((1..40_i64, 0.0..10.0_f64), 2..120),
        order in prop::collection::vec(any::<u16>(), 120),
        batch in 1..12_usize,
        on_delay_s in 0..10_i64,
        kind in prop::sample::select(vec![Kind::Threshold, Kind::NoData, Kind::Rate]),
        acks in prop::collection::vec(0..2_000_i64, 0..3),
    ) {
        let rule = timeline(vec![(0, Some(spec(kind, on_delay_s)))]);
        let mut second = 0;
        let mut events: Vec<Event> = values.iter().map(|(step, value)| {
            second += step;
            reading(second, *value)
        }).collect();
        for (number, at_s) in (1..).zip(&acks) {
            let until_us = (at_s + 100) * SECOND;
            events.push(Event::Deed(deed(number, *at_s, Uuid::nil(), AlarmVerb::Shelve { until_us })));
        }
        let now_us = (second + 2_200) * SECOND;
        events.sort_by_key(Event::time_us);
        let (expected, occurrences) = whole(&rule, &events, now_us);
        let expected_ids: BTreeMap<Uuid, Occurrence> = occurrences.into_iter().map(|it| (it.id, it)).collect();

        let mut arriving: Vec<(usize, Event)> = events.into_iter().enumerate().collect();
        arriving.sort_by_key(|(place, _)| order[place % order.len()]);
        let mut ledger = Ledger::default();
        let mut judge = Judge::new(name());
        for some in arriving.chunks(batch) {
            judge = ledger.arrive(&rule, some, now_us);
        }
        // Everything once more, as an edge sends again what was not acknowledged.
        let again = ledger.arrive(&rule, &arriving[..1], now_us);
        prop_assert_eq!(again.state(), judge.state());
        prop_assert_eq!(&ledger.occurrences, &expected_ids);
        prop_assert_eq!(judge.state(), expected.state());
        prop_assert_eq!(judge.newest(), expected.newest());
    }
}

#[test]
fn what_comes_in_order_is_judged_once() {
    let rule = timeline(vec![(0, Some(spec(Kind::Threshold, 0)))]);
    let mut ledger = Ledger::default();
    for second in 0..7_200 {
        ledger.arrive(
            &rule,
            &[(0, reading(second, (second % 9) as f64))],
            second * SECOND,
        );
    }
    assert_eq!(ledger.judged, 7_200);
    let before = ledger.judged;
    ledger.arrive(&rule, &[(1, reading(6_000, 1.0))], 7_200 * SECOND);
    assert!(ledger.judged - before < 1_300, "from the last mark before it");
}
