//! What does the host make of messages that come over several connections: late, twice, from before a birth, or not at
//! all?

use protocol::{integrator::Code, sparkplug::host::Effect};
use srad_types::payload::{Metric, Payload};

use super::{
    DDEATH, NBIRTH, NDATA, NDEATH, NOW_US, asked, bd_seq, born, by_alias, bytes, codes, named, stale, values,
};

fn sent_at(seq: u64, ms: u64, metrics: Vec<Metric>) -> Vec<u8> {
    let (seq, timestamp) = (Some(seq), Some(ms));
    Payload {
        timestamp,
        seq,
        metrics,
        ..Payload::default()
    }
    .into()
}

fn now_ms() -> u64 {
    u64::try_from(NOW_US / 1_000).unwrap()
}

#[test]
fn tck_id_operational_behavior_termination_ddeath_counts_from_the_time_that_it_says() {
    for (said_ms, at_us) in [
        (now_ms() - 60_000, NOW_US - 60_000_000),
        (u64::MAX, NOW_US),
        (now_ms() + 864_000_000, NOW_US),
    ] {
        let mut host = born();
        let death = host.hear(DDEATH, &sent_at(2, said_ms, vec![]), NOW_US);
        let [Effect::Stale { path, at_us: at, .. }] = death.as_slice() else {
            panic!("{death:?}");
        };
        assert_eq!((path.as_str(), *at), ("akron/n1/htst", at_us));
    }
}

#[test]
fn tck_id_operational_behavior_termination_ndeath_counts_from_the_hosts_own_time() {
    let mut host = born();
    let death = Payload {
        timestamp: Some(5),
        metrics: vec![bd_seq(7)],
        ..Payload::default()
    };
    let effects = host.hear(NDEATH, &Vec::from(death), NOW_US);
    let times = effects.iter().map(|effect| match effect {
        Effect::Stale { at_us, .. } => *at_us,
        other => panic!("{other:?}"),
    });
    assert_eq!(times.collect::<Vec<_>>(), [NOW_US, NOW_US]);
}

#[test]
fn t30_the_same_birth_twice_is_one_rebirth_and_its_death_still_counts() {
    let mut host = born();
    let birth = bytes(Some(0), vec![bd_seq(7), named("t", Some(1), 4.0)]);
    for _ in 0..2 {
        assert!(codes(&host.hear(NBIRTH, &birth, NOW_US)).is_empty());
    }
    let read = host.hear(NDATA, &bytes(Some(1), vec![by_alias(1, 4.5)]), NOW_US);
    assert_eq!(values(&read), [("t".to_owned(), Some(4.5))]);
    let death = host.hear(NDEATH, &bytes(None, vec![bd_seq(7)]), NOW_US);
    assert_eq!(stale(&death).len(), 1);
}

#[test]
fn t30_the_will_of_an_earlier_connection_with_another_bd_seq_leaves_the_new_one_alone() {
    let mut host = born();
    let again = bytes(Some(0), vec![bd_seq(8), named("t", Some(1), 4.0)]);
    host.hear(NBIRTH, &again, NOW_US);
    let late_will = host.hear(NDEATH, &bytes(None, vec![bd_seq(7)]), NOW_US);
    assert!(
        matches!(late_will.as_slice(), [Effect::Ignored { .. }]),
        "{late_will:?}"
    );
    assert_eq!(host.is_online("akron", "n1", None), Some(true));
}

#[test]
fn t30_a_message_from_before_a_rebirth_that_comes_after_it_is_never_given_the_new_names() {
    let mut host = born();
    let swapped = vec![bd_seq(7), named("t", Some(2), 4.0), named("u", Some(1), 8.0)];
    host.hear(NBIRTH, &sent_at(0, now_ms(), swapped), NOW_US);
    // Sent as number 3 before the birth, when alias 1 was `t`.
    let late = host.hear(NDATA, &sent_at(3, now_ms() - 1, vec![by_alias(1, 99.0)]), NOW_US);
    assert_eq!(codes(&late), [Code::SequenceGap]);
    assert_eq!(host.due_us(), None, "nothing is waited for");
    let mut read = Vec::new();
    for seq in 1..=4 {
        let message = sent_at(seq, now_ms(), vec![by_alias(1, 8.0)]);
        read.extend(values(&host.hear(NDATA, &message, NOW_US)));
    }
    assert_eq!(read, vec![("u".to_owned(), Some(8.0)); 4]);
}

#[test]
fn t30_a_gap_of_more_than_a_hundred_messages_is_a_gap_too() {
    let mut host = born();
    let after = host.hear(NDATA, &bytes(Some(152), vec![by_alias(1, 9.0)]), NOW_US);
    assert!(after.is_empty(), "it waits: {after:?}");
    let given_up = host.tick(NOW_US + 2_000_000);
    assert_eq!(codes(&given_up), [Code::SequenceGap]);
    assert_eq!(asked(&given_up).len(), 1);
}

#[test]
fn t30_a_flood_behind_a_gap_gives_the_gap_up_at_once() {
    let mut host = born();
    let mut all = Vec::new();
    for seq in 3..=103 {
        all.extend(host.hear(NDATA, &bytes(Some(seq), vec![by_alias(1, 9.0)]), NOW_US));
    }
    assert_eq!(codes(&all), [Code::SequenceGap]);
    assert_eq!(asked(&all).len(), 1);
    assert!(values(&all).is_empty());
    assert_eq!(host.due_us(), None);
}

#[test]
fn tck_id_payloads_sequence_num_beyond_255_or_absent_is_refused() {
    let mut host = born();
    for seq in [None, Some(256), Some(u64::MAX)] {
        let effects = host.hear(NDATA, &bytes(seq, vec![by_alias(1, 1.0)]), NOW_US);
        assert_eq!(codes(&effects), [Code::MissingMember], "{seq:?}");
        let birth = bytes(seq, vec![bd_seq(7), named("t", Some(1), 4.0)]);
        assert_eq!(codes(&host.hear(NBIRTH, &birth, NOW_US)), [Code::MissingMember]);
    }
    let read = host.hear(NDATA, &bytes(Some(2), vec![by_alias(1, 1.0)]), NOW_US);
    assert_eq!(values(&read).len(), 1, "the sequence goes on where it was");
}
