//! Does every change of the legal record show, and does the journal go on through power cuts, months and years?

use protocol::event::Gap;

use super::{
    audit::{Held, Report, audit},
    checkpoint::{PUBLIC_KEY_FILE, public_key},
    *,
};

const HOUR_US: Micros = 3_600_000_000;

fn event(number: u64) -> Event {
    Event::Gap(Gap {
        from_us: 0,
        to_us: 1,
        frames: number,
        readings: 0,
        reason: "test".to_owned(),
    })
}

fn open(directory: &Path, now_us: Micros) -> (Journal, Found) {
    Journal::open(directory, Rotation::default(), now_us).unwrap()
}

fn filled(records: u64) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path(), 0);
    for number in 1..=records {
        journal.append([&event(number)], 1000).unwrap();
    }
    let path = files(directory.path()).unwrap().remove(0);
    (directory, path)
}

fn verified(path: &Path) -> Verified {
    chain::verify(&fs::read(path).unwrap(), Tip::default())
}

fn report(directory: &Path) -> Report {
    audit(directory, &Held::default(), |_| ()).unwrap()
}

#[test]
fn records_come_back_in_order_and_the_chain_goes_on() {
    let (directory, path) = filled(3);
    let (mut journal, found) = open(directory.path(), 0);
    assert_eq!(found.entries.len(), 3);
    journal.append([&event(4), &event(5)], 2000).unwrap();
    let verified = verified(&path);
    assert_eq!((verified.tip.seq, verified.fault), (5, None));
    assert_eq!(journal.tip(), verified.tip);
}

#[test]
fn t2_a_record_torn_at_any_byte_is_cut_off_and_the_others_stay() {
    let (directory, path) = filled(3);
    let whole = fs::read(&path).unwrap();
    let two = chain::verify(&whole[..whole.len() - 1], Tip::default()).sound_bytes;
    for length in two + 1..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (journal, found) = open(directory.path(), 0);
        assert_eq!((journal.seq(), found.entries.len()), (2, 2), "torn at {length}");
    }
}

#[test]
fn an_edit_a_deletion_and_a_swap_all_show_and_the_first_broken_record_is_named() {
    let (directory, path) = filled(4);
    let whole = fs::read(&path).unwrap();
    let length = whole.len() / 4;
    for at in 0..whole.len() {
        let mut edited = whole.clone();
        edited[at] ^= 1;
        fs::write(&path, &edited).unwrap();
        let fault = report(directory.path()).fault.unwrap();
        assert!(
            fault.contains(&format!("record {}", at / length + 1)),
            "edit at {at}: {fault}"
        );
    }
    for forged in [
        [&whole[..length], &whole[2 * length..]].concat(),
        [&whole[length..2 * length], &whole[..length], &whole[2 * length..]].concat(),
    ] {
        fs::write(&path, forged).unwrap();
        assert!(report(directory.path()).fault.is_some());
    }
}

#[test]
fn a_journal_damaged_before_its_end_is_copied_aside_whole_and_the_chain_goes_on() {
    let (directory, path) = filled(10);
    let mut bytes = fs::read(&path).unwrap();
    let fifth = bytes.len() / 10 * 4 + 60;
    bytes[fifth] ^= 0xFF;
    fs::write(&path, &bytes).unwrap();
    let (mut journal, found) = open(directory.path(), 7);
    assert_eq!(journal.seq(), 4);
    assert_eq!(fs::read(found.set_aside.unwrap()).unwrap(), bytes);
    journal.append([&event(5)], 8).unwrap();
    let report = report(directory.path());
    assert_eq!(
        (report.last_seq, report.fault, report.set_aside.len()),
        (5, None, 1)
    );
}

#[test]
fn an_end_that_was_cut_off_shows_against_a_checkpoint() {
    let (directory, path) = filled(6);
    let (mut journal, _) = open(directory.path(), 0);
    journal.append([&event(7)], 2000).unwrap();
    let held = journal.checkpoint(3000).unwrap().unwrap();
    assert_eq!(journal.checkpoint(4000).unwrap(), None, "nothing new");
    assert_eq!(report(directory.path()).checkpoints, 1);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 7 * 6]).unwrap();
    let fault = report(directory.path()).fault.unwrap();
    assert!(fault.contains("record 7: missing"), "{fault}");
    // Whoever deletes the checkpoints too meets the one that the auditor holds.
    fs::remove_file(directory.path().join(checkpoint::CHECKPOINTS_FILE)).unwrap();
    assert_eq!(report(directory.path()).fault, None);
    let key = public_key(&fs::read_to_string(directory.path().join(PUBLIC_KEY_FILE)).unwrap());
    let held = Held {
        public_key: key,
        checkpoints: vec![held],
    };
    let fault = audit(directory.path(), &held, |_| ()).unwrap().fault.unwrap();
    assert!(fault.contains("record 7: missing"), "{fault}");
}

#[test]
fn a_record_written_anew_with_all_its_followers_shows_against_a_checkpoint() {
    let (directory, path) = filled(5);
    let (mut journal, _) = open(directory.path(), 0);
    journal.append([&event(6)], 2000).unwrap();
    journal.checkpoint(3000).unwrap();
    let (mut tip, mut forged) = (Tip::default(), Vec::new());
    for number in 1..=6 {
        let (record, after) = chain::encode(&tip, 1000, &event(number + 100));
        forged.extend(record);
        tip = after;
    }
    fs::write(&path, forged).unwrap();
    let fault = report(directory.path()).fault.unwrap();
    assert!(
        fault.contains("record 6: not the one that was signed for"),
        "{fault}"
    );
}

#[test]
fn a_checkpoint_that_somebody_else_signed_is_refused() {
    let (directory, _) = filled(3);
    let other = tempfile::tempdir().unwrap();
    let forger = Key::open(other.path()).unwrap();
    let (journal, _) = open(directory.path(), 0);
    let statement = forger.sign(Kind::Checkpoint, &journal.tip(), 0);
    checkpoint::add(directory.path(), &statement).unwrap();
    let fault = report(directory.path()).fault.unwrap();
    assert!(fault.contains("not signed by this edge"), "{fault}");
}

#[test]
fn the_chain_runs_across_files_of_a_size_and_a_month_and_old_ones_go_on_record() {
    let directory = tempfile::tempdir().unwrap();
    let rotation = Rotation {
        file_bytes: 1_000,
        keep_us: 100 * DAY_US,
    };
    let (mut journal, _) = Journal::open(directory.path(), rotation, 0).unwrap();
    for number in 0..200u64 {
        let at_us = number as Micros * DAY_US;
        journal.append([&event(number), &event(number)], at_us).unwrap();
        if number % 50 == 0 {
            journal = Journal::open(directory.path(), rotation, at_us).unwrap().0;
        }
    }
    let before = report(directory.path());
    assert_eq!((before.records, before.fault.clone()), (400, None));
    assert!(before.files.len() > 20 && before.checkpoints > 20, "{before:?}");
    journal.remove_old(200 * DAY_US).unwrap();
    let after = report(directory.path());
    assert_eq!((after.fault.clone(), after.last_seq), (None, 400));
    let first = after.first_seq.unwrap();
    assert!((190..=210).contains(&first), "{after:?}");
    // A file that goes without a signed word is missed.
    let oldest = files(directory.path()).unwrap().remove(0);
    fs::remove_file(oldest).unwrap();
    let fault = report(directory.path()).fault.unwrap();
    assert!(fault.contains(&format!("record {first},")), "{fault}");
}

#[test]
fn a_checkpoint_is_signed_every_hour_in_which_something_was_recorded() {
    let (directory, _) = filled(1);
    let (mut journal, _) = open(directory.path(), 0);
    for hour in 1..=5 {
        if hour != 3 {
            journal.append([&event(hour as u64)], hour * HOUR_US).unwrap();
        }
        journal.tend(hour * HOUR_US).unwrap();
        journal.tend(hour * HOUR_US + 1).unwrap();
    }
    assert_eq!(report(directory.path()).checkpoints, 4);
}

#[test]
fn the_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, _) = filled(1);
    let mode = fs::metadata(directory.path().join("key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
