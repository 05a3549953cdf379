//! Does the store keep what it promised through restarts, acknowledgements, damage and a full quota?

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::frame::FrameId;

use super::*;

const LIMITS: Limits = Limits {
    quota_bytes: 1 << 30,
    generation_bytes: 64 << 20,
};

fn record(lane: Lane, seq: u64, bytes: usize) -> Record {
    // Bytes that do not compress, so that sizes on disk are what they seem.
    let noise = (0..bytes as u64)
        .map(|at| (at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seq) >> 33) as u8);
    Record {
        meta: Meta {
            id: FrameId {
                boot: Uuid::from_u128(1),
                lane,
                seq,
            },
            dictionary: Uuid::from_u128(2),
            sealed_us: 1_000_000 + seq as i64,
            readings: 10,
            events: 0,
        },
        envelope: noise.collect(),
    }
}

fn notes(seq: u64) -> Notes {
    Notes {
        states: vec![("CCP-1".to_owned(), seq.to_be_bytes().to_vec())],
        journal_seq: seq,
        sealed_us: seq as i64,
    }
}

fn open(directory: &Path, limits: Limits) -> (Store, Recovered) {
    Store::open(directory, limits, 42).unwrap()
}

fn all(store: &mut Store, lane: Lane) -> Vec<u64> {
    let (mut seqs, mut after) = (Vec::new(), None);
    loop {
        let (found, _) = store.after(lane, after, 3).unwrap();
        let Some((last, _)) = found.last() else {
            return seqs;
        };
        after = Some(last.ordinal);
        seqs.extend(found.iter().map(|(_, record)| record.meta.id.seq));
    }
}

#[test]
fn what_was_stored_is_there_after_a_restart_in_order_and_in_its_lane() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), LIMITS);
    for seq in 0..10 {
        let records = [record(Lane::Live, seq, 100), record(Lane::Events, seq, 50)];
        store.append(&records, notes(seq)).unwrap();
    }
    drop(store);
    let (mut store, recovered) = open(directory.path(), LIMITS);
    assert_eq!(all(&mut store, Lane::Live), (0..10).collect::<Vec<_>>());
    assert_eq!(all(&mut store, Lane::Events), (0..10).collect::<Vec<_>>());
    assert_eq!(
        store.totals(),
        Totals {
            frames: 20,
            readings: 200
        }
    );
    assert_eq!(recovered.journal_seq, Some(9));
    assert_eq!(recovered.last_sealed_us, Some(9));
    assert_eq!(recovered.states, notes(9).states);
}

#[test]
fn a_second_agent_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (_store, _) = open(directory.path(), LIMITS);
    assert!(matches!(
        Store::open(directory.path(), LIMITS, 42),
        Err(StoreError::InUse(_))
    ));
}

#[test]
fn states_outlive_the_generation_they_were_written_in() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), LIMITS);
    let keys = store.append(&[record(Lane::Live, 0, 100)], notes(5)).unwrap();
    store.roll().unwrap();
    store.remove(&keys).unwrap();
    drop(store);
    let (store, recovered) = open(directory.path(), LIMITS);
    assert_eq!(store.generations.len(), 1, "the drained generation is gone");
    assert_eq!(
        (recovered.states, recovered.journal_seq),
        (notes(5).states, Some(5))
    );
}

#[test]
fn a_damaged_generation_is_set_aside_and_the_line_runs_on() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), LIMITS);
    store.append(&[record(Lane::Live, 0, 5000)], notes(0)).unwrap();
    store.roll().unwrap();
    store.append(&[record(Lane::Live, 1, 100)], notes(1)).unwrap();
    drop(store);
    // A directory where sled expects its file: nothing can be opened there.
    let file = directory.path().join("gen-00000001/db");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (mut store, recovered) = open(directory.path(), LIMITS);
    assert_eq!(recovered.set_aside.len(), 1);
    assert!(recovered.set_aside[0].is_dir());
    assert_eq!(all(&mut store, Lane::Live), [1]);
    store.append(&[record(Lane::Live, 2, 100)], notes(2)).unwrap();
    assert_eq!(all(&mut store, Lane::Live), [1, 2]);
}

#[test]
fn garbage_anywhere_in_the_file_never_stops_the_start_and_never_invents_a_frame() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), LIMITS);
    for seq in 0..20 {
        store
            .append(&[record(Lane::Live, seq, 3000)], notes(seq))
            .unwrap();
    }
    drop(store);
    let path = directory.path().join("gen-00000001/db");
    let whole = fs::read(&path).unwrap();
    for at in (0..80_000).step_by(4001) {
        let mut bytes = whole.clone();
        for byte in bytes.iter_mut().skip(at).take(64) {
            *byte ^= 0xA5;
        }
        let copy = tempfile::tempdir().unwrap();
        copy_tree(directory.path(), copy.path());
        fs::write(copy.path().join("gen-00000001/db"), &bytes).unwrap();
        let (mut store, _) = open(copy.path(), LIMITS);
        let (found, _) = store.after(Lane::Live, None, 100).unwrap();
        for (_, found) in found {
            assert_eq!(found, record(Lane::Live, found.meta.id.seq, 3000));
        }
        store.append(&[record(Lane::Live, 99, 100)], notes(99)).unwrap();
        assert_eq!(all(&mut store, Lane::Live).last(), Some(&99));
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_full_quota_costs_the_oldest_telemetry_and_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        quota_bytes: 6 << 20,
        generation_bytes: 1 << 20,
    };
    let (mut store, _) = open(directory.path(), limits);
    let (mut lost, mut seq) = (0, 0);
    while seq < 400 {
        store
            .append(
                &[record(Lane::Live, seq, 40_000), record(Lane::Events, seq, 200)],
                notes(seq),
            )
            .unwrap();
        if let Some(gap) = store.evict().unwrap() {
            lost += gap.frames;
            assert_eq!(gap.readings, gap.frames * 10);
        }
        assert!(store.disk_bytes() <= limits.quota_bytes + limits.generation_bytes);
        seq += 1;
    }
    let kept = all(&mut store, Lane::Live);
    assert!(lost > 0);
    assert_eq!(kept.len() as u64 + lost, 400);
    assert_eq!(kept, (lost..400).collect::<Vec<_>>(), "the youngest stay");
    assert_eq!(all(&mut store, Lane::Events).len(), 400);
    assert_eq!(store.totals().frames, kept.len() as u64 + 400);
}

/// A frame with one inspection and its picture of 20 KB that does not compress.
fn pictured(seq: u64) -> Record {
    let plain = record(Lane::Events, seq, 0);
    let picture = (0..20_000u64).map(|at| crc32c::crc32c(&(seq << 32 | at).to_le_bytes()) as u8);
    let shot = crate::inspect::Shot {
        camera: "VS-306".to_owned(),
        line: None,
        taken_us: 0,
        arrived: std::time::Instant::now(),
        size_px: None,
        jpeg: Vec::new(),
    };
    let inspection = protocol::event::Inspection {
        thumbnail_jpeg: Some(picture.collect()),
        ..crate::inspect::not_performed(&shot, "vision is off")
    };
    let frame = Frame {
        header: protocol::frame::Header {
            id: plain.meta.id,
            edge: "akron-1".to_owned(),
            dictionary: plain.meta.dictionary,
            sealed_us: plain.meta.sealed_us,
            clock: protocol::frame::ClockState::default(),
            readings: 0,
            events: 1,
        },
        readings: Vec::new(),
        events: vec![Event::Inspection(inspection)],
    };
    Record {
        meta: Meta {
            readings: 0,
            events: 1,
            ..plain.meta
        },
        envelope: frame.encode().unwrap(),
    }
}

#[test]
fn a_quota_full_of_pictures_costs_the_pictures_and_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        quota_bytes: 8 << 20,
        generation_bytes: 2 << 20,
    };
    let (mut store, _) = open(directory.path(), limits);
    for seq in 0..600 {
        store.append(&[pictured(seq)], notes(seq)).unwrap();
        assert_eq!(store.evict().unwrap(), None, "no record was given up");
    }
    let (found, _) = store.after(Lane::Events, None, 1000).unwrap();
    let has_picture = |record: &Record| {
        let frame = Frame::decode(&record.envelope).unwrap();
        matches!(&frame.events[..], [Event::Inspection(inspection)] if inspection.thumbnail_jpeg.is_some())
    };
    assert_eq!(found.len(), 600);
    assert!(!has_picture(&found[0].1) && has_picture(&found[599].1));
    assert_eq!(store.totals().frames, 600);
}

#[test]
fn a_quota_full_of_records_costs_the_oldest_and_says_how_many() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        quota_bytes: 6 << 20,
        generation_bytes: 1 << 20,
    };
    let (mut store, _) = open(directory.path(), limits);
    let mut lost = 0;
    for seq in 0..400 {
        store
            .append(&[record(Lane::Events, seq, 40_000)], notes(seq))
            .unwrap();
        lost += store.evict().unwrap().map_or(0, |gap| gap.frames);
    }
    let kept = all(&mut store, Lane::Events);
    assert!(lost > 0);
    assert_eq!(kept, (lost..400).collect::<Vec<_>>(), "the youngest stay");
    assert_eq!(store.totals().frames, kept.len() as u64);
}

#[derive(Clone, Debug)]
enum Action {
    Append(u8),
    Acknowledge(prop::sample::Index),
    Roll,
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1u8..4).prop_map(Action::Append),
        4 => any::<prop::sample::Index>().prop_map(Action::Acknowledge),
        1 => Just(Action::Roll),
        1 => Just(Action::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against a map: nothing unacknowledged is lost, nothing acknowledged comes back after a clean restart.
    #[test]
    fn the_store_behaves_like_a_map_through_any_sequence_of_actions(
        actions in prop::collection::vec(action(), 1..40)
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path(), LIMITS);
        let (mut model, mut seq) = (BTreeMap::new(), 0u64);
        for action in actions {
            match action {
                Action::Append(count) => {
                    let records: Vec<Record> = (0..u64::from(count)).map(|n| record(Lane::Live, seq + n, 60)).collect();
                    let keys = store.append(&records, notes(seq)).unwrap();
                    model.extend(keys.into_iter().zip(records));
                    seq += u64::from(count);
                }
                Action::Acknowledge(index) if !model.is_empty() => {
                    let key = *index.get(&model.keys().copied().collect::<Vec<_>>());
                    prop_assert_eq!(store.remove(&[key]).unwrap().len(), 1);
                    prop_assert!(store.remove(&[key]).unwrap().is_empty());
                    model.remove(&key);
                }
                Action::Acknowledge(_) => {}
                Action::Roll => store.roll().unwrap(),
                Action::Restart => {
                    drop(store);
                    store = open(directory.path(), LIMITS).0;
                }
            }
            let (found, damaged) = store.after(Lane::Live, None, 1000).unwrap();
            prop_assert_eq!(damaged, 0);
            prop_assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(store.totals().frames, model.len() as u64);
        }
    }
}
