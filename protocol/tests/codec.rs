//! Is every message lossless, bounded and safe on any bytes? Round trips, hostile input and golden vectors.

use proptest::prelude::*;
use protocol::{
    Quality, Reading,
    ack::{self, Acknowledgement, Outcome, Subject},
    envelope::{self, DecodeError},
    event::{Event, NotRead},
    frame::{ClockState, Frame, FrameId, Header},
    lane::Lane,
    reading::Alias,
    tag::{Dictionary, Tag},
};
use uuid::Uuid;

fn frame(readings: Vec<Reading>, events: Vec<Event>) -> Frame {
    Frame {
        header: Header {
            id: FrameId {
                boot: Uuid::from_u128(7),
                lane: Lane::Live,
                seq: 42,
            },
            edge: "akron-1".into(),
            dictionary: Uuid::from_u128(9),
            sealed_us: 1_790_000_000_000_000,
            clock: ClockState {
                synced: true,
                error_us_max: Some(1_500),
            },
            readings: readings.len() as u32,
            events: events.len() as u32,
        },
        readings,
        events,
    }
}

/// Readings in the order a frame keeps: by tag, each tag's own order untouched. Values as bits, so that
/// `-0.0` and `0.0` differ and NaN equals itself.
fn by_tag(readings: &[Reading]) -> Vec<(u32, i64, u64, u16)> {
    let mut sorted: Vec<_> = readings.iter().collect();
    sorted.sort_by_key(|reading| reading.tag);
    sorted
        .iter()
        .map(|r| (r.tag.0, r.time_us, r.value.to_bits(), r.quality.code()))
        .collect()
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-40_000i32..40_000, 0i32..4).prop_map(|(raw, digits)| f64::from(raw) / 10f64.powi(digits)),
        2 => any::<f64>(),
        1 => prop_oneof![Just(-0.0), Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(5e-324), Just(9_007_199_254_740_993.0)],
    ]
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let quality = prop_oneof![4 => Just(Quality::GOOD), 1 => any::<u16>().prop_map(Quality::from_code)];
    (0u32..12, any_time(), any_value(), quality)
        .prop_map(|(tag, time, value, quality)| Reading::new(Alias(tag), time, value, quality))
}

fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![4 => (0i64..5_000).prop_map(|ms| 1_790_000_000_000_000 + ms * 1_000), 1 => any::<i64>()]
}

proptest! {
    #[test]
    fn a_frame_comes_back_bit_for_bit(readings in prop::collection::vec(any_reading(), 0..300)) {
        let sent = frame(readings, vec![]);
        let received = Frame::decode(&sent.encode().unwrap()).unwrap();
        prop_assert_eq!(&received.header, &sent.header);
        let mut got = by_tag(&received.readings);
        let mut want = by_tag(&sent.readings);
        // Groups reorder tags, so compare tag by tag.
        got.sort_by_key(|row| row.0);
        want.sort_by_key(|row| row.0);
        prop_assert_eq!(got, want);
    }

    #[test]
    fn random_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(Frame::decode(&bytes).is_err());
        prop_assert!(Dictionary::decode(&bytes).is_err());
        prop_assert!(ack::decode(&bytes).is_err());
    }

    /// Bytes behind a valid checksum reach every inner decoder: they must hold as well.
    #[test]
    fn damage_behind_a_valid_checksum_is_a_message_or_an_error(
        readings in prop::collection::vec(any_reading(), 0..120),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = frame(readings, vec![]).encode().unwrap();
        for (at, byte) in edits {
            let at = 8 + at.index(bytes.len() - 8);
            bytes[at] = byte;
        }
        let crc = crc32c_of(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert!(frame.readings.len() <= protocol::frame::READINGS_MAX);
        }
    }

    #[test]
    fn a_flipped_bit_never_goes_unnoticed(
        readings in prop::collection::vec(any_reading(), 1..60), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let mut bytes = frame(readings, vec![]).encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Frame::decode(&bytes).is_err());
    }

    #[test]
    fn a_cut_frame_is_an_error(readings in prop::collection::vec(any_reading(), 1..60), at in any::<prop::sample::Index>()) {
        let bytes = frame(readings, vec![]).encode().unwrap();
        prop_assert!(Frame::decode(&bytes[..at.index(bytes.len())]).is_err());
    }
}

fn crc32c_of(bytes: &[u8]) -> u32 {
    envelope::payload_crc(bytes)
}

#[test]
fn slow_process_data_takes_under_three_bytes_a_reading() {
    // 50 sensors at 1 Hz with two decimals, a drifting level and a little noise: domain E2.
    let readings: Vec<Reading> = (0..20i64)
        .flat_map(|second| {
            (0..50u32).map(move |tag| {
                let noise = (second * 7 + i64::from(tag) * 13) % 11 - 5;
                let raw = 7_320 + i64::from(tag) * 40 + second / 4 + noise;
                Reading::new(
                    Alias(tag),
                    1_790_000_000_000_000 + second * 1_000_000,
                    raw as f64 / 100.0,
                    Quality::GOOD,
                )
            })
        })
        .collect();
    let bytes = frame(readings, vec![]).encode().unwrap().len();
    assert!(bytes < 3_000, "{bytes} bytes for 1,000 readings");
}

#[test]
fn a_header_can_be_read_although_the_body_cannot() {
    let mut bytes = frame(vec![Reading::new(Alias(1), 5, 1.0, Quality::GOOD)], vec![])
        .encode()
        .unwrap();
    let last = bytes.len() - 1;
    bytes.truncate(last);
    let crc = crc32c_of(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    assert!(Frame::decode(&bytes).is_err());
    assert_eq!(Frame::decode_header(&bytes).unwrap().id.seq, 42);
}

#[test]
fn an_announced_size_beyond_the_limit_is_refused_before_allocating() {
    let bomb = zstd::bulk::compress(&vec![0u8; envelope::BODY_BYTES_MAX + 1], 3).unwrap();
    let mut bytes = b"FF\x01\x01\0\0\0\0\x00\x01".to_vec();
    bytes.extend_from_slice(&bomb);
    let crc = crc32c_of(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    // The header is empty, hence malformed for a frame; as acknowledgements only the body matters.
    bytes[3] = 3;
    assert!(matches!(ack::decode(&bytes), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn a_message_of_a_newer_version_says_so() {
    let mut bytes = frame(vec![], vec![]).encode().unwrap();
    bytes[2] = 9;
    assert_eq!(
        Frame::decode(&bytes),
        Err(DecodeError::UnknownVersion { found: 9 })
    );
}

#[test]
fn a_dictionary_that_names_a_tag_twice_is_refused() {
    let tag = |alias, name: &str| Tag {
        alias: Alias(alias),
        name: name.into(),
        unit: "degC".into(),
        description: String::new(),
        line: Some("L1".into()),
        period_ms: 1_000,
        simulated: false,
    };
    let twice = Dictionary {
        tags: vec![tag(0, "TT-101"), tag(1, "TT-101")],
    };
    assert!(
        matches!(Dictionary::decode(&twice.encode()), Err(DecodeError::Invalid(reason)) if reason.contains("TT-101"))
    );
    let good = Dictionary {
        tags: vec![tag(0, "TT-101"), tag(1, "TT-102")],
    };
    assert_eq!(Dictionary::decode(&good.encode()).unwrap(), good);
    assert_ne!(
        good.id(),
        Dictionary {
            tags: vec![tag(0, "TT-101"), tag(1, "TT-103")]
        }
        .id()
    );
}

/// Golden vectors: the bytes of version 1 as first written on 2026-11-20. A change that breaks them breaks every
/// frame in every spool: raise the version instead. `FOODFLOW_WRITE_GOLDEN=1` writes a missing vector.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if !path.exists() && std::env::var_os("FOODFLOW_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).expect("golden vectors are writable");
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn golden_frame() -> Frame {
    let readings = (0..5i64)
        .flat_map(|second| {
            let at = 1_790_000_000_000_000 + second * 1_000_000;
            [
                Reading::new(Alias(0), at, 73.2 + second as f64 / 100.0, Quality::GOOD),
                Reading::new(
                    Alias(1),
                    at,
                    std::f64::consts::PI * second as f64,
                    Quality::UNCERTAIN_LAST_USABLE,
                ),
                Reading::bad(Alias(2), at + 500_000, Quality::BAD_TIMEOUT),
            ]
        })
        .collect();
    let not_read = NotRead {
        tags: vec![Alias(2)],
        from_us: 1,
        to_us: 2,
        due: 3,
        reason: "overrun".into(),
    };
    frame(readings, vec![Event::NotRead(not_read)])
}

#[test]
fn golden_frame_v1_is_read_as_it_was_written() {
    let expected = golden_frame();
    let stored = golden("frame.v1.bin", &expected.encode().unwrap());
    let decoded = Frame::decode(&stored).unwrap();
    assert_eq!(decoded.header, expected.header);
    assert_eq!(decoded.events, expected.events);
    assert_eq!(by_tag(&decoded.readings), by_tag(&expected.readings));
}

#[test]
fn golden_acknowledgements_v1_are_read_as_they_were_written() {
    let id = golden_frame().header.id;
    let acks = vec![
        Acknowledgement {
            subject: Subject::Frame(id),
            outcome: Outcome::Stored,
        },
        Acknowledgement {
            subject: Subject::Payload(0xDEAD_BEEF),
            outcome: Outcome::Rejected {
                reason: "not a frame".into(),
            },
        },
        Acknowledgement {
            subject: Subject::Dictionary(Uuid::from_u128(9)),
            outcome: Outcome::Stored,
        },
        Acknowledgement {
            subject: Subject::Frame(id),
            outcome: Outcome::NeedDictionary(Uuid::from_u128(9)),
        },
    ];
    let stored = golden("acks.v1.bin", &ack::encode(&acks));
    assert_eq!(ack::decode(&stored).unwrap(), acks);
    assert_eq!(
        ack::encode(&acks),
        stored,
        "acknowledgements encode to the golden bytes"
    );
}
