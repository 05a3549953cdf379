//! Are parts merged into whole frames without losing, doubling or renumbering anything, through kills and restarts?

use super::*;

/// Times and numbers of the merged frames, which must be whole frames without a hole in any boot's sequence.
fn merged(records: &[Record]) -> (Vec<Micros>, BTreeMap<Uuid, u64>) {
    let (mut frames, mut next) = (Vec::new(), BTreeMap::new());
    for record in records
        .iter()
        .filter(|record| record.meta.id.lane == Lane::Backfill)
    {
        let frame = Frame::decode(&record.envelope).unwrap();
        assert_eq!(frame.header.id, record.meta.id);
        let next: &mut u64 = next.entry(record.meta.id.boot).or_default();
        assert_eq!(record.meta.id.seq, *next, "a number is missing or came twice");
        *next += 1;
        frames.push(frame);
    }
    (part_times(&frames), next)
}

#[test]
fn states_outlive_the_segment_they_were_written_in() {
    let (directory, mut store) = fresh(LIMITS);
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
    let (_directory, mut store) = fresh(LIMITS);
    let mut sealer = sealer(BOOT);
    append_parts(&mut store, &mut sealer, 0..41);
    store.append(&[record(Lane::Events, 0, 100)], notes(1)).unwrap();
    store.begin_segment().unwrap();
    settle(&mut store);
    append_parts(&mut store, &mut sealer, 41..120);
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
    let (directory, mut store) = fresh(LIMITS);
    let mut sealer = sealer(BOOT);
    append_parts(&mut store, &mut sealer, 0..50);
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
    for start in 0..4 {
        let boot = Uuid::from_u128(start as u128 + 1);
        let (mut store, _) = Store::open(directory.path(), LIMITS, boot, 42).unwrap();
        append_parts(&mut store, &mut sealer(boot), start * 50..(start + 1) * 50);
        store.settle().unwrap();
        // Killed: nothing is closed.
    }
    let (mut store, _) = open(directory.path(), LIMITS);
    let (times, next) = merged(&drain(&mut store, Lane::Live));
    assert_eq!(times.len(), 200);
    assert!(times.is_sorted());
    assert_eq!(next.len(), 4);
}
