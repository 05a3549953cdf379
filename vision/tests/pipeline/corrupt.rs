//! What no frame may do: panic, allocate for a size it only claims, or pass although a part of it was never seen.

use proptest::prelude::*;
use vision::Verdict;
use vision::decode::{DecodeError, decode};
use vision::synthetic::{DefectKind, TraySpec, encode_jpeg, render};

use crate::support::{detector, jpeg, tray};

fn small_frame() -> Vec<u8> {
    let spec = TraySpec {
        width_px: 160,
        height_px: 120,
        ..tray(5, &[DefectKind::OverBake])
    };
    encode_jpeg(&render(&spec).rgb, 85)
}

/// Index of the first byte of the entropy-coded scan.
fn scan_start(frame: &[u8]) -> usize {
    let at = frame.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    at + 2 + usize::from(u16::from_be_bytes([frame[at + 2], frame[at + 3]]))
}

#[test]
fn no_truncation_decodes_wherever_it_is_cut() {
    let frame = small_frame();
    let mut rgb = Vec::new();
    assert!(decode(&frame, &mut rgb).is_ok());
    for length in 0..frame.len() {
        assert!(
            decode(&frame[..length], &mut rgb).is_err(),
            "cut at {length} of {}",
            frame.len()
        );
    }
}

#[test]
fn no_truncation_that_was_closed_with_an_end_marker_decodes() {
    let frame = small_frame();
    let mut rgb = Vec::new();
    let scan = scan_start(&frame);
    for length in scan..frame.len() - 2 {
        let closed = [&frame[..length], &[0xFF, 0xD9]].concat();
        // The last byte of a scan may hold only padding; a frame without it is whole.
        if let Ok(size) = decode(&closed, &mut rgb) {
            assert!(
                length >= frame.len() - 3,
                "cut at {length} of {} gave {size:?}",
                frame.len()
            );
        }
    }
}

#[test]
fn truncated_frame_is_unknown_with_a_reason_and_no_defects() {
    let (mut detector, frame) = (detector(), jpeg(&tray(7, &[DefectKind::OverBake])));
    for share in [1, 10, 50, 90, 99] {
        let inspection = detector.inspect(&frame[..frame.len() * share / 100]);
        assert_eq!(inspection.verdict, Verdict::Unknown, "{share} %");
        assert!(inspection.reason.unwrap().contains("truncated"), "{share} %");
        assert!(inspection.defects.is_empty());
    }
    assert_eq!(detector.inspect(b"").verdict, Verdict::Unknown);
    assert_eq!(detector.inspect(&frame).verdict, Verdict::Reject);
}

#[test]
fn end_marker_planted_in_the_scan_is_corrupt() {
    let frame = small_frame();
    let scan = scan_start(&frame);
    for at in (scan..frame.len() - 4).step_by(97) {
        let mut planted = frame.clone();
        planted[at..at + 2].copy_from_slice(&[0xFF, 0xD9]);
        assert!(decode(&planted, &mut Vec::new()).is_err(), "planted at {at}");
    }
}

/// A flip that keeps the number of blocks leaves a whole frame with a garbled stretch: only a checksum from the camera
/// could tell. What must never come out is a frame that is not whole.
#[test]
fn flipped_bits_never_panic_and_never_leave_a_part_of_the_frame_undecoded() {
    let frame = small_frame();
    let (mut rgb, mut noticed) = (Vec::new(), 0_u32);
    for bit in (scan_start(&frame) * 8..frame.len() * 8).step_by(11) {
        let mut flipped = frame.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match decode(&flipped, &mut rgb) {
            Err(_) => noticed += 1,
            Ok(size) => {
                assert_eq!((size.width_px, size.height_px), (160, 120), "bit {bit}");
                let last_rows = &rgb[rgb.len() - 160 * 3 * 8..];
                let span = last_rows.iter().max().unwrap() - last_rows.iter().min().unwrap();
                assert!(span > 8, "bit {bit}: the last rows of blocks are empty");
            }
        }
    }
    assert!(noticed > 400, "only {noticed} flips noticed");
}

#[test]
fn flipped_bits_in_the_header_never_panic() {
    let frame = small_frame();
    let mut rgb = Vec::new();
    for bit in 0..scan_start(&frame) * 8 {
        let mut flipped = frame.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(size) = decode(&flipped, &mut rgb) {
            assert_eq!(
                (size.width_px, size.height_px),
                (160, 120),
                "bit {bit} changed the size unnoticed"
            );
        }
    }
}

#[test]
fn header_that_claims_a_huge_frame_is_refused_before_anything_is_allocated() {
    let mut frame = small_frame();
    let sof = frame.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    frame[sof + 5..sof + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    let mut rgb = Vec::new();
    assert_eq!(
        decode(&frame, &mut rgb),
        Err(DecodeError::Size {
            width: 65_500,
            height: 65_500
        })
    );
    assert_eq!(rgb.capacity(), 0);
}

#[test]
fn frames_of_another_height_than_their_data_are_refused() {
    for height in [64_u16, 112, 128, 480] {
        let mut frame = small_frame();
        let sof = frame.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        frame[sof + 5..sof + 7].copy_from_slice(&height.to_be_bytes());
        assert!(decode(&frame, &mut Vec::new()).is_err(), "height {height}");
    }
}

#[test]
fn progressive_frames_and_other_formats_are_refused_with_the_reason() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let progressive = std::fs::read(folder.join("progressive.jpg")).unwrap();
    assert_eq!(
        decode(&progressive, &mut Vec::new()),
        Err(DecodeError::Unsupported("progressive"))
    );
    let png = std::fs::read(folder.join("grey.png")).unwrap();
    assert_eq!(decode(&png, &mut Vec::new()), Err(DecodeError::NotJpeg));
}

#[test]
fn padding_after_the_end_marker_is_accepted_and_data_are_not() {
    let frame = small_frame();
    assert!(decode(&[&frame[..], &[0; 64]].concat(), &mut Vec::new()).is_ok());
    assert!(decode(&[&frame[..], b"tail"].concat(), &mut Vec::new()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_decode_to_an_error_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(decode(&bytes, &mut Vec::new()).is_err());
        let marked = [&[0xFF, 0xD8, 0xFF][..], &bytes].concat();
        prop_assert!(decode(&marked, &mut Vec::new()).is_err());
    }

    #[test]
    fn several_changed_bytes_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut frame = small_frame();
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        let mut rgb = Vec::new();
        if let Ok(size) = decode(&frame, &mut rgb) {
            prop_assert_eq!(rgb.len(), (size.width_px * size.height_px * 3) as usize);
        }
    }

    #[test]
    fn scan_without_a_stretch_of_its_data_never_decodes(from in any::<prop::sample::Index>(), length in 100_usize..800) {
        let frame = small_frame();
        let scan = scan_start(&frame);
        let from = scan + from.index(frame.len() - 4 - scan - length);
        let holed = [&frame[..from], &frame[from + length..]].concat();
        prop_assert!(decode(&holed, &mut Vec::new()).is_err());
    }
}
