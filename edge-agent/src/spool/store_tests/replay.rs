//! Can what the hub has be had again, under its old identity, for as long as it is kept?

use super::*;

#[test]
fn what_the_hub_has_can_be_replayed_under_its_old_identity_while_it_is_kept() {
    let limits = Limits {
        keep_us: 3600 * SECOND,
        ..LIMITS
    };
    let (directory, mut store) = fresh(limits);
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
