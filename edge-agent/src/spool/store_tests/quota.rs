//! What does a full quota cost? Pictures, then the oldest readings, then the oldest records: each told, and the disk
//! never holds more than it may.

use super::*;

fn bytes_under(directory: &Path) -> u64 {
    crate::spool::generation::directory_bytes(directory)
}

#[test]
fn t6_a_long_outage_keeps_to_the_quota_and_costs_the_oldest_readings_and_no_event() {
    // 8 hours and 30 days: readings that do not compress, with an event each time.
    for (name, count, every_us) in [("8 h", 1_200i64, 24 * SECOND), ("30 d", 1_080, 2_400 * SECOND)] {
        let limits = Limits {
            quota_bytes: 17 << 20,
            generation_bytes: 4 << 20,
            keep_us: SECOND,
        };
        let (directory, mut store) = fresh(limits);
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
        let frames = found
            .iter()
            .map(|record| Frame::decode(&record.envelope).unwrap());
        let times = part_times(&frames.collect::<Vec<_>>());
        assert_eq!(
            times.last(),
            Some(&((count - 1) * every_us)),
            "{name}: the youngest stay"
        );
        assert!(times.is_sorted());
        assert_eq!(
            seqs(&mut store, Lane::Events).len() as i64,
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

#[test]
fn t7_a_quota_smaller_than_a_segment_keeps_what_fits_and_tells_the_rest() {
    let limits = Limits {
        quota_bytes: 48 << 10,
        generation_bytes: 64 << 20,
        keep_us: SECOND,
    };
    let (directory, mut store) = fresh(limits);
    let mut given_up = 0;
    for seq in 0..300 {
        let records = [record(Lane::Live, seq, 1_000), record(Lane::Events, seq, 10)];
        store.append(&records, notes(seq)).unwrap();
        store.settle().unwrap();
        given_up += lost(&mut store).readings / 10;
        assert!(bytes_under(directory.path()) <= limits.quota_bytes);
    }
    let live = seqs(&mut store, Lane::Live);
    assert!(!live.is_empty() && given_up > 0);
    assert_eq!(live.last(), Some(&299));
    let events = seqs(&mut store, Lane::Events);
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
    let limits = Limits {
        quota_bytes: 20 << 20,
        generation_bytes: 5 << 20,
        keep_us: 0,
    };
    let (_directory, mut store) = fresh(limits);
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
    let limits = Limits {
        quota_bytes: 16 << 20,
        generation_bytes: 4 << 20,
        keep_us: 0,
    };
    let (directory, mut store) = fresh(limits);
    let mut given_up = 0;
    for seq in 0..1200 {
        store
            .append(&[record(Lane::Events, seq, 40_000)], notes(seq))
            .unwrap();
        settle(&mut store);
        given_up += lost(&mut store).frames;
        assert!(bytes_under(directory.path()) <= limits.quota_bytes);
    }
    let kept = seqs(&mut store, Lane::Events);
    assert!(given_up > 0);
    assert_eq!(kept.len() as u64 + given_up, 1200);
    assert_eq!(kept.last(), Some(&1199));
    assert_eq!(store.totals().frames, kept.len() as u64);
}
