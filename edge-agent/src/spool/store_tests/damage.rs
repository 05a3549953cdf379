//! Does damage anywhere stop no start, and is what it cost told?

use super::*;

#[test]
fn t3_garbage_anywhere_in_the_log_or_the_backlog_never_stops_the_start_and_is_told() {
    let (directory, mut store) = fresh(LIMITS);
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
