//! How close is this program to the Python program that trained the model?

use vision::engine::Engine;
use vision::golden::Golden;

use crate::support::{detector, model_folder, runtime};

#[test]
fn output_for_the_same_tensor_equals_pythons_onnx_runtime() {
    let manifest = detector().manifest().clone();
    let file = |name: &str| std::fs::read(model_folder().join(name)).unwrap();
    let shape = [
        1,
        3,
        manifest.input.height as usize,
        manifest.input.width as usize,
    ];
    let mut engine = Engine::load(&runtime(), &file("model.onnx"), shape).unwrap();
    let mut output = Vec::new();
    engine
        .run(&Golden::values(&file(&manifest.golden.tensor)), &mut output)
        .unwrap();
    let reference = Golden::values(&file(&manifest.golden.output));
    assert_eq!(output.len(), reference.len());
    let worst = output
        .iter()
        .zip(&reference)
        .map(|(a, b)| (a - b).abs() / b.abs().max(1.0))
        .fold(0.0, f32::max);
    assert!(worst <= 1e-4, "worst difference {worst}");
}

#[test]
fn frames_of_other_encoders_decode_to_the_pixels_that_pillow_reads() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in [
        "subsampled_420",
        "subsampled_422",
        "restart_markers",
        "optimised_tables",
        "grey",
    ] {
        let mut rgb = Vec::new();
        let jpeg = std::fs::read(folder.join(name).with_extension("jpg")).unwrap();
        let size = vision::decode::decode(&jpeg, &mut rgb).unwrap_or_else(|error| panic!("{name}: {error}"));
        let pillow = image::open(folder.join(name).with_extension("png"))
            .unwrap()
            .to_rgb8();
        assert_eq!((size.width_px, size.height_px), pillow.dimensions(), "{name}");
        let sum: u64 = rgb
            .iter()
            .zip(pillow.as_raw())
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
            .sum();
        let mean = sum as f64 / rgb.len() as f64;
        assert!(
            mean < 1.0,
            "{name} differs from Pillow by {mean:.2} of 255 on average"
        );
    }
}
