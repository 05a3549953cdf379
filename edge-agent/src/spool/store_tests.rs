//! Does the store keep what it promised through restarts, acknowledgements, damage and a full quota?

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

fn all(store: &mut Store, lane: Lane) -> Vec<u64> {
    let (mut seqs, mut after) = (Vec::new(), None);
    loop {
        let found = store.after(lane, after, 3).unwrap();
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
        Store::open(directory.path(), LIMITS, BOOT, 42),
        Err(StoreError::InUse(_))
    ));
}

fn sealer(boot: Uuid) -> Sealer {
    let age = std::time::Duration::from_millis(250);
    Sealer::new("akron-1", boot, Uuid::from_u128(2), 1000, age)
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

/// Times and numbers of the merged frames, which must be whole frames without a hole in any boot's sequence.
fn merged(records: &[Record]) -> (Vec<Micros>, BTreeMap<Uuid, u64>) {
    let (mut times, mut next) = (Vec::new(), BTreeMap::new());
    for record in records
        .iter()
        .filter(|record| record.meta.id.lane == Lane::Backfill)
    {
        let frame = Frame::decode(&record.envelope).unwrap();
        assert_eq!(frame.header.id, record.meta.id);
        let next: &mut u64 = next.entry(record.meta.id.boot).or_default();
        assert_eq!(record.meta.id.seq, *next, "a number is missing or came twice");
        *next += 1;
        times.extend(
            frame
                .readings
                .iter()
                .filter(|reading| reading.tag.0 == 0)
                .map(|reading| reading.time_us),
        );
    }
    (times, next)
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

fn bytes_under(directory: &Path) -> u64 {
    super::super::generation::directory_bytes(directory)
}

#[test]
fn states_outlive_the_segment_they_were_written_in() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), LIMITS);
    let keys = store.append(&[record(Lane::Live, 0, 100)], notes(5)).unwrap();
    store.begin_segment().unwrap();
    store.remove(&keys);
    settle(&mut store);
    assert_eq!(store.segments.len(), 1, "the drained segment is gone");
    store.close();
    let (store, recovered) = open(directory.path(), LIMITS);
    assert_eq!(store.totals(), Totals::default());
    assert_eq!(
        (recovered.states, recovered.journal_seq),
        (notes(5).states, Some(5))
    );
}

#[test]
fn parts_are_merged_into_dense_frames_without_losing_or_doubling_a_reading() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), LIMITS);
    let mut sealer = sealer(BOOT);
    for second in 0..120 {
        store
            .append(&part(&mut sealer, 250, second * SECOND), notes(1))
            .unwrap();
        if second == 40 {
            store.append(&[record(Lane::Events, 0, 100)], notes(1)).unwrap();
            store.begin_segment().unwrap();
            settle(&mut store);
        }
    }
    let found = drain(&mut store, Lane::Live);
    let (times, next) = merged(&found);
    assert_eq!(times, (0..120).map(|second| second * SECOND).collect::<Vec<_>>());
    assert_eq!(
        next,
        BTreeMap::from([(BOOT, 4)]),
        "41 seconds make two frames, 79 make two"
    );
    assert_eq!(store.totals().readings, 120 * 250 + 10);
}

#[test]
fn a_kill_between_the_database_and_the_log_merges_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), LIMITS);
    let mut sealer = sealer(BOOT);
    for second in 0..50 {
        store
            .append(&part(&mut sealer, 250, second * SECOND), notes(1))
            .unwrap();
    }
    // The log as it was before the merge, the database as it is after.
    let before = tempfile::tempdir().unwrap();
    copy_tree(directory.path(), before.path());
    store.begin_segment().unwrap();
    settle(&mut store);
    store.close();
    copy_tree(&directory.path().join("pack-00000001"), &{
        let to = before.path().join("pack-00000001");
        fs::create_dir_all(&to).unwrap();
        to
    });
    let later = Uuid::from_u128(2);
    let (mut store, _) = Store::open(before.path(), LIMITS, later, 42).unwrap();
    settle(&mut store);
    let found = drain(&mut store, Lane::Live);
    let (times, _) = merged(&found);
    assert_eq!(times, (0..50).map(|second| second * SECOND).collect::<Vec<_>>());
}

#[test]
fn parts_of_an_earlier_start_keep_its_boot_and_its_sequence() {
    let directory = tempfile::tempdir().unwrap();
    let mut at_us = 0;
    for boot in 1..=4u128 {
        let boot = Uuid::from_u128(boot);
        let (mut store, _) = Store::open(directory.path(), LIMITS, boot, 42).unwrap();
        let mut sealer = sealer(boot);
        for _ in 0..50 {
            store.append(&part(&mut sealer, 250, at_us), notes(1)).unwrap();
            at_us += SECOND;
        }
        store.settle().unwrap();
        // Killed: nothing is closed.
    }
    let (mut store, _) = open(directory.path(), LIMITS);
    let (times, next) = merged(&drain(&mut store, Lane::Live));
    assert_eq!(times.len(), 200);
    assert!(times.is_sorted());
    assert_eq!(next.len(), 4);
}

#[test]
fn what_the_hub_has_can_be_replayed_under_its_old_identity_while_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        keep_us: 3600 * SECOND,
        ..LIMITS
    };
    let (mut store, _) = open(directory.path(), limits);
    let mut sealer = sealer(BOOT);
    for seq in 0..30 {
        store.append(&[record(Lane::Live, seq, 100)], notes(1)).unwrap();
        store
            .append(&part(&mut sealer, 250, seq as i64 * SECOND), notes(1))
            .unwrap();
        if seq % 10 == 9 {
            store.begin_segment().unwrap();
            settle(&mut store);
        }
    }
    let before = drain(&mut store, Lane::Live);
    let mut keys: Vec<Key> = Vec::new();
    while let Some((key, _)) = store
        .after(Lane::Live, keys.last().map(|key| key.ordinal), 1)
        .unwrap()
        .pop()
    {
        keys.push(key);
    }
    assert_eq!(store.remove(&keys).len(), before.len());
    settle(&mut store);
    assert_eq!(store.totals(), Totals::default());
    assert_eq!(
        store.replay(-1, 0).unwrap().totals.frames,
        0,
        "nothing was sealed then"
    );
    let replayed = store.replay(0, 100 * SECOND).unwrap();
    assert_eq!(
        (replayed.totals.frames, replayed.is_cut),
        (before.len() as u64, false)
    );
    assert_eq!(
        drain(&mut store, Lane::Live),
        before,
        "the same frames, in the same order"
    );
    let again = store.replay(0, 100 * SECOND).unwrap();
    assert_eq!(again.totals.frames, 0, "what waits is not taken twice");
    drop(store);
    let (mut store, _) = open(directory.path(), limits);
    assert_eq!(drain(&mut store, Lane::Live).len(), before.len());
    store.remove(&keys);
    settle(&mut store);
    assert!(!store.kept.is_empty());
    store.tend(10_000 * SECOND);
    assert!(store.kept.is_empty(), "kept long enough");
}

#[test]
fn t3_garbage_anywhere_in_the_log_or_the_backlog_never_stops_the_start_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), LIMITS);
    let mut sealer = sealer(BOOT);
    for seq in 0..40 {
        store
            .append(&part(&mut sealer, 250, seq * SECOND), notes(1))
            .unwrap();
        store
            .append(&[record(Lane::Live, seq as u64, 300)], notes(1))
            .unwrap();
        if seq == 30 {
            store.begin_segment().unwrap();
            settle(&mut store);
        }
    }
    let whole = drain(&mut store, Lane::Live).len() as u64;
    store.close();
    let step = if std::env::var_os("FOODFLOW_SOAK").is_some() {
        97
    } else {
        2_003
    };
    for file in files_under(directory.path()) {
        let bytes = fs::read(directory.path().join(&file)).unwrap();
        // sled's file is mostly zeroes beyond what was written.
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        for at in (0..end).step_by(step) {
            let copy = tempfile::tempdir().unwrap();
            copy_tree(directory.path(), copy.path());
            let mut bytes = bytes.clone();
            for byte in bytes.iter_mut().skip(at).take(16) {
                *byte ^= 0xA5;
            }
            fs::write(copy.path().join(&file), &bytes).unwrap();
            let (mut store, _) = open(copy.path(), LIMITS);
            let found = drain(&mut store, Lane::Live);
            for record in found
                .iter()
                .filter(|record| record.meta.id.lane == Lane::Backfill)
            {
                assert!(Frame::decode(&record.envelope).is_ok());
            }
            let gone = whole.saturating_sub(found.len() as u64);
            let told = lost(&mut store).frames;
            assert!(
                told >= gone,
                "{} at {at}: {gone} frames are gone and {told} were told",
                file.display()
            );
            store.append(&[record(Lane::Live, 999, 100)], notes(99)).unwrap();
            assert_eq!(drain(&mut store, Lane::Live).last().unwrap().meta.id.seq, 999);
        }
    }
}

fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = PathBuf::from(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_under(&entry.path()).into_iter().map(|file| name.join(file)));
        } else if name != Path::new("lock") {
            files.push(name);
        }
    }
    files
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
fn t6_a_long_outage_keeps_to_the_quota_and_costs_the_oldest_readings_and_no_event() {
    // 8 hours and 30 days: readings that do not compress, with an event each time.
    for (name, count, every_us) in [("8 h", 1_200i64, 24 * SECOND), ("30 d", 1_080, 2_400 * SECOND)] {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits {
            quota_bytes: 17 << 20,
            generation_bytes: 4 << 20,
            keep_us: SECOND,
        };
        let (mut store, _) = open(directory.path(), limits);
        let mut sealer = sealer(BOOT);
        let (mut given_up, mut acquired) = (0, 0);
        for step in 0..count {
            let at_us = step * every_us;
            let mut records = noisy_part(&mut sealer, 4000, at_us);
            records.push(record(Lane::Events, step as u64, 60));
            acquired += 4000;
            store.append(&records, notes(step as u64)).unwrap();
            store.settle().unwrap();
            if step % 50 == 0 {
                store.tend(at_us);
                assert!(
                    bytes_under(directory.path()) <= limits.quota_bytes,
                    "{name}: over the quota at {step}"
                );
            }
            given_up += lost(&mut store).readings;
        }
        let found = drain(&mut store, Lane::Live);
        let kept: u64 = found.iter().map(|record| u64::from(record.meta.readings)).sum();
        assert_eq!(
            kept + given_up,
            acquired,
            "{name}: every reading is there or was told"
        );
        assert!(given_up > 0, "{name}: the quota was felt");
        let (times, _) = merged_from_any(&found);
        assert_eq!(
            times.last(),
            Some(&((count - 1) * every_us)),
            "{name}: the youngest stay"
        );
        assert!(times.is_sorted());
        assert_eq!(
            all(&mut store, Lane::Events).len() as i64,
            count,
            "{name}: no event went"
        );
    }
}

/// Readings that do not compress.
fn noisy_part(sealer: &mut Sealer, tags: u32, at_us: Micros) -> Vec<Record> {
    let readings = (0..tags).map(|tag| {
        let noise = crc32c::crc32c(&(u64::from(tag) << 40 | at_us as u64).to_le_bytes());
        Reading::new(Alias(tag), at_us, f64::from(noise), Quality::GOOD)
    });
    sealer.push(readings.collect(), at_us);
    sealer.seal_readings(at_us, ClockState::default(), Lane::Backfill)
}

/// As `merged`, where the first numbers may have gone.
fn merged_from_any(records: &[Record]) -> (Vec<Micros>, u64) {
    let mut times = Vec::new();
    for record in records {
        let frame = Frame::decode(&record.envelope).unwrap();
        times.extend(
            frame
                .readings
                .iter()
                .filter(|reading| reading.tag.0 == 0)
                .map(|reading| reading.time_us),
        );
    }
    (times, records.len() as u64)
}

#[test]
fn t7_a_quota_smaller_than_a_segment_keeps_what_fits_and_tells_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        quota_bytes: 48 << 10,
        generation_bytes: 64 << 20,
        keep_us: SECOND,
    };
    let (mut store, _) = open(directory.path(), limits);
    let mut given_up = 0;
    for seq in 0..300 {
        let records = [record(Lane::Live, seq, 1_000), record(Lane::Events, seq, 10)];
        store.append(&records, notes(seq)).unwrap();
        store.settle().unwrap();
        given_up += lost(&mut store).readings / 10;
        assert!(bytes_under(directory.path()) <= limits.quota_bytes);
    }
    let live = all(&mut store, Lane::Live);
    assert!(!live.is_empty() && given_up > 0);
    assert_eq!(live.last(), Some(&299));
    let events = all(&mut store, Lane::Events);
    assert_eq!(live.len() as u64 + events.len() as u64 + given_up, 600);
    assert!(
        events.len() > 200,
        "readings went before events: {}",
        events.len()
    );
}

/// A frame with one inspection and its picture of 20 KB that does not compress.
fn pictured(seq: u64) -> Record {
    let plain = record(Lane::Events, seq, 0);
    // Mixed as SplitMix64 does: nothing to compress.
    let picture = (0..20_000u64).map(|at| {
        let mixed = (seq << 32 | at).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 27 ^ mixed >> 7) as u8
    });
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
        quota_bytes: 20 << 20,
        generation_bytes: 5 << 20,
        keep_us: 0,
    };
    let (mut store, _) = open(directory.path(), limits);
    for seq in 0..1500 {
        store.append(&[pictured(seq)], notes(seq)).unwrap();
        settle(&mut store);
        assert_eq!(store.take_gaps(), [], "no record was given up");
    }
    let found = drain(&mut store, Lane::Events);
    let has_picture = |record: &Record| {
        let frame = Frame::decode(&record.envelope).unwrap();
        matches!(&frame.events[..], [Event::Inspection(inspection)] if inspection.thumbnail_jpeg.is_some())
    };
    assert_eq!(found.len(), 1500);
    let pictures: Vec<usize> = (0..1500).filter(|at| has_picture(&found[*at])).collect();
    assert!(!pictures.contains(&0) && pictures.contains(&1499), "{pictures:?}");
    assert_eq!(store.totals().frames, 1500);
}

#[test]
fn a_quota_full_of_records_costs_the_oldest_and_says_how_many() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        quota_bytes: 16 << 20,
        generation_bytes: 4 << 20,
        keep_us: 0,
    };
    let (mut store, _) = open(directory.path(), limits);
    let mut given_up = 0;
    for seq in 0..1200 {
        store
            .append(&[record(Lane::Events, seq, 40_000)], notes(seq))
            .unwrap();
        settle(&mut store);
        given_up += lost(&mut store).frames;
        assert!(bytes_under(directory.path()) <= limits.quota_bytes);
    }
    let kept = all(&mut store, Lane::Events);
    assert!(given_up > 0);
    assert_eq!(kept.len() as u64 + given_up, 1200);
    assert_eq!(kept.last(), Some(&1199));
    assert_eq!(store.totals().frames, kept.len() as u64);
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
