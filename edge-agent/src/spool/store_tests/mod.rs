//! Does the store keep what it promised through restarts, acknowledgements, damage and a full quota?

mod damage;
mod merge;
mod quota;
mod replay;

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::{
    Quality, Reading,
    event::Event,
    frame::{ClockState, Frame, FrameId},
    reading::Alias,
};

use super::{super::seal::Sealer, *};

const LIMITS: Limits = Limits {
    quota_bytes: 1 << 30,
    generation_bytes: 64 << 20,
    keep_us: 0,
};
const BOOT: Uuid = Uuid::from_u128(1);
const SECOND: Micros = 1_000_000;

fn record(lane: Lane, seq: u64, bytes: usize) -> Record {
    // Bytes that do not compress, so that sizes on disk are what they seem.
    let noise = (0..bytes as u64)
        .map(|at| (at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seq) >> 33) as u8);
    Record {
        meta: Meta {
            id: FrameId {
                boot: BOOT,
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
    Store::open(directory, limits, BOOT, 42).unwrap()
}

/// A store on an empty directory.
fn fresh(limits: Limits) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path(), limits);
    (directory, store)
}

/// Sequence numbers of everything that waits in a lane.
fn seqs(store: &mut Store, lane: Lane) -> Vec<u64> {
    let found = drain(store, lane);
    found.iter().map(|record| record.meta.id.seq).collect()
}

fn sealer(boot: Uuid) -> Sealer {
    let age = std::time::Duration::from_millis(250);
    Sealer::new("akron-1", boot, Uuid::from_u128(2), 1000, age)
}

/// Parts of 250 readings, one every second.
fn append_parts(store: &mut Store, sealer: &mut Sealer, seconds: std::ops::Range<i64>) {
    for second in seconds {
        store
            .append(&part(sealer, 250, second * SECOND), notes(1))
            .unwrap();
    }
}

/// One part of `tags` readings.
fn part(sealer: &mut Sealer, tags: u32, at_us: Micros) -> Vec<Record> {
    let readings = (0..tags).map(|tag| {
        let value = f64::from(tag) + (at_us / SECOND % 10) as f64 / 10.0;
        Reading::new(Alias(tag), at_us, value, Quality::GOOD)
    });
    sealer.push(readings.collect(), at_us);
    sealer.seal_readings(at_us, ClockState::default(), Lane::Backfill)
}

/// Times of the readings of the first tag, one for each part that the frames were made of.
fn part_times<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<Micros> {
    let readings = frames.into_iter().flat_map(|frame| &frame.readings);
    let first = readings.filter(|reading| reading.tag.0 == 0);
    first.map(|reading| reading.time_us).collect()
}

fn settle(store: &mut Store) {
    while store.settle().unwrap() {}
}

/// Everything that waits, readings first handed out in order.
fn drain(store: &mut Store, lane: Lane) -> Vec<Record> {
    let (mut out, mut after) = (Vec::new(), None);
    loop {
        let found = store.after(lane, after, 7).unwrap();
        let Some((last, _)) = found.last() else {
            return out;
        };
        after = Some(last.ordinal);
        out.extend(found.into_iter().map(|(_, record)| record));
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

fn lost(store: &mut Store) -> Totals {
    let mut totals = Totals::default();
    for gap in store.take_gaps() {
        totals.include(Totals {
            frames: gap.frames,
            readings: gap.readings,
        });
    }
    totals
}

#[test]
fn what_was_stored_is_there_after_a_restart_in_order_and_in_its_lane() {
    let (directory, mut store) = fresh(LIMITS);
    for seq in 0..10 {
        let records = [record(Lane::Live, seq, 100), record(Lane::Events, seq, 50)];
        store.append(&records, notes(seq)).unwrap();
    }
    drop(store);
    let (mut store, recovered) = open(directory.path(), LIMITS);
    assert_eq!(seqs(&mut store, Lane::Live), (0..10).collect::<Vec<_>>());
    assert_eq!(seqs(&mut store, Lane::Events), (0..10).collect::<Vec<_>>());
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
    let (directory, _store) = fresh(LIMITS);
    assert!(matches!(
        Store::open(directory.path(), LIMITS, BOOT, 42),
        Err(StoreError::InUse(_))
    ));
}

#[derive(Clone, Debug)]
enum Action {
    Append(u8),
    Acknowledge(prop::sample::Index),
    Roll,
    Settle,
    Restart(bool),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1u8..4).prop_map(Action::Append),
        4 => any::<prop::sample::Index>().prop_map(Action::Acknowledge),
        2 => Just(Action::Roll),
        2 => Just(Action::Settle),
        1 => any::<bool>().prop_map(Action::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against a map: nothing unacknowledged is lost, nothing acknowledged comes back after a clean restart.
    #[test]
    fn the_store_behaves_like_a_map_through_any_sequence_of_actions(
        actions in prop::collection::vec(action(), 1..40)
    ) {
        let (directory, mut store) = fresh(LIMITS);
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
                    prop_assert_eq!(store.remove(&[key]).len(), 1);
                    prop_assert!(store.remove(&[key]).is_empty());
                    model.remove(&key);
                }
                Action::Acknowledge(_) => {}
                Action::Roll => store.begin_segment().unwrap(),
                Action::Settle => settle(&mut store),
                Action::Restart(is_clean) => {
                    if is_clean {
                        store.close();
                    } else {
                        drop(store);
                    }
                    store = open(directory.path(), LIMITS).0;
                }
            }
            let found = store.after(Lane::Live, None, 1000).unwrap();
            prop_assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(store.totals().frames, model.len() as u64);
            prop_assert_eq!(store.take_gaps(), []);
        }
    }
}
