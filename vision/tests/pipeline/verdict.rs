//! What the committed model says about trays that it has never seen, and about frames that are no trays.

use image::{GrayImage, RgbImage};
use vision::synthetic::{DefectKind, encode_jpeg, render};
use vision::{TraySpec, Verdict};

use crate::support::{detector, jpeg, tray};

/// Seeds far from those of training, calibration and test.
const FRESH: u64 = 900_000;

#[test]
fn clean_trays_pass() {
    let mut detector = detector();
    let inspections: Vec<_> = (0..60)
        .map(|at| detector.inspect(&jpeg(&tray(FRESH + at, &[]))))
        .collect();
    let passed = inspections
        .iter()
        .filter(|inspection| inspection.verdict == Verdict::Pass)
        .count();
    assert!(passed >= 59, "{passed} of 60 clean trays passed");
    assert!(
        inspections
            .iter()
            .all(|inspection| inspection.verdict != Verdict::Unknown)
    );
}

#[test]
fn trays_with_a_defect_are_rejected_with_a_box_on_the_defect() {
    let mut detector = detector();
    for kind in DefectKind::ALL {
        let (mut rejected, mut boxed) = (0, 0);
        for seed in FRESH..FRESH + 20 {
            let drawn = render(&tray(seed, &[kind]));
            let inspection = detector.inspect(&encode_jpeg(&drawn.rgb, 90));
            rejected += u32::from(inspection.verdict == Verdict::Reject);
            let hit =
                |defect: &vision::Defect| defect.class == kind.class() && defect.iou(&drawn.truth[0]) > 0.5;
            boxed += u32::from(inspection.defects.iter().any(hit));
        }
        assert!(rejected >= 19, "{kind:?}: {rejected} of 20 rejected");
        assert!(boxed >= 18, "{kind:?}: {boxed} of 20 boxed");
    }
}

#[test]
fn reject_names_its_worst_defect_and_the_model_and_pass_has_no_reason() {
    let mut detector = detector();
    let reject = detector.inspect(&jpeg(&tray(FRESH, &DefectKind::ALL)));
    assert_eq!(reject.verdict, Verdict::Reject);
    assert!(
        reject
            .reason
            .as_ref()
            .unwrap()
            .starts_with(&reject.defects[0].class),
        "{:?}",
        reject.reason
    );
    assert_eq!(reject.model.sha256, detector.manifest().sha256);
    assert_eq!((reject.width_px, reject.height_px), (640, 480));
    assert!(reject.infer_us > 0 && reject.decode_us > 0);
    assert_eq!(detector.inspect(&jpeg(&tray(FRESH, &[]))).reason, None);
}

#[test]
fn boxes_are_in_pixels_of_the_camera_whatever_its_resolution() {
    let mut detector = detector();
    for (width_px, height_px) in [(1280, 960), (640, 480), (800, 480), (480, 640)] {
        let spec = TraySpec {
            width_px,
            height_px,
            ..tray(FRESH + 3, &[DefectKind::OverBake])
        };
        let drawn = render(&spec);
        let inspection = detector.inspect(&encode_jpeg(&drawn.rgb, 90));
        let best = inspection
            .defects
            .iter()
            .map(|defect| defect.iou(&drawn.truth[0]))
            .fold(0.0, f32::max);
        assert!(best > 0.5, "{width_px}×{height_px}: best overlap {best}");
    }
}

#[test]
fn inspecting_the_same_frame_twice_gives_the_same_defects() {
    let (mut detector, frame) = (detector(), jpeg(&tray(FRESH + 1, &DefectKind::ALL)));
    let first = detector.inspect(&frame);
    detector.inspect(&jpeg(&tray(FRESH + 2, &[])));
    assert_eq!(first.defects, detector.inspect(&frame).defects);
}

#[test]
fn frame_that_shows_nothing_is_unknown() {
    let mut detector = detector();
    for (level, what) in [(0, "black"), (128, "of one colour"), (255, "white")] {
        let blank = RgbImage::from_pixel(640, 480, image::Rgb([level; 3]));
        let inspection = detector.inspect(&encode_jpeg(&blank, 90));
        assert_eq!(inspection.verdict, Verdict::Unknown);
        assert!(inspection.reason.unwrap().contains(what));
    }
}

#[test]
fn frame_too_small_to_show_a_defect_is_unknown() {
    let dot = RgbImage::from_fn(8, 8, |x, y| image::Rgb([(x * 30) as u8, (y * 30) as u8, 0]));
    assert_eq!(
        detector().inspect(&encode_jpeg(&dot, 90)).verdict,
        Verdict::Unknown
    );
}

#[test]
fn grey_camera_is_judged() {
    let rgb = render(&tray(FRESH + 5, &[DefectKind::OverBake])).rgb;
    let grey: GrayImage = image::imageops::grayscale(&rgb);
    let mut frame = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut frame, 90);
    grey.write_with_encoder(encoder).unwrap();
    assert_ne!(detector().inspect(&frame).verdict, Verdict::Unknown);
}

#[test]
fn inspection_survives_json() {
    let inspection = detector().inspect(&jpeg(&tray(FRESH, &[DefectKind::Crack])));
    let text = serde_json::to_string(&inspection).unwrap();
    assert_eq!(
        serde_json::from_str::<vision::Inspection>(&text).unwrap(),
        inspection
    );
    assert!(text.contains(r#""verdict":"reject""#), "{text}");
}
