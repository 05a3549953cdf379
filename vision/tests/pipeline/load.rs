//! What may go live: every planted fault is refused at load, by the check that is there for it.

use vision::engine::{Engine, EngineError};
use vision::golden::{Golden, GoldenError};
use vision::head::{Head, HeadError};
use vision::preprocess::Preprocessor;
use vision::{LoadError, Runtime};

use crate::support::{ModelCopy, detector, model_folder, runtime};

#[test]
fn committed_model_goes_live_and_names_itself() {
    let detector = detector();
    assert_eq!(detector.manifest().name, "tray-defects");
    assert_eq!(detector.manifest().licence, "Apache-2.0");
    let onnx = std::fs::metadata(model_folder().join("model.onnx")).unwrap();
    assert!(
        onnx.len() <= 5 * 1024 * 1024,
        "the committed model has {} bytes",
        onnx.len()
    );
}

#[test]
fn missing_runtime_is_refused_with_the_remedy() {
    let error = Runtime::load("/nowhere/libonnxruntime.so".as_ref()).unwrap_err();
    assert!(matches!(error, LoadError::RuntimeMissing { .. }));
    let text = error.to_string();
    assert!(
        text.contains("/nowhere/libonnxruntime.so") && text.contains("make onnxruntime"),
        "{text}"
    );
}

#[test]
fn file_that_is_no_onnx_runtime_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, "not a library").unwrap();
    assert!(matches!(
        Runtime::load(&text),
        Err(LoadError::RuntimeForeign { .. } | LoadError::RuntimeOther { .. })
    ));
}

#[test]
fn loading_the_same_runtime_twice_is_one_runtime_and_another_is_refused() {
    let first = runtime();
    drop(runtime());
    drop(first);
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("libonnxruntime.so");
    std::fs::write(&other, "another").unwrap();
    assert!(matches!(
        Runtime::load(&other),
        Err(LoadError::RuntimeOther { .. })
    ));
}

#[test]
fn garbage_and_truncated_models_are_refused_by_the_engine() {
    let onnx = std::fs::read(model_folder().join("model.onnx")).unwrap();
    let garbage: Vec<u8> = (0..50_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for bytes in [&garbage[..], &onnx[..onnx.len() / 2], &onnx[..100], b""] {
        let copy = ModelCopy::new();
        copy.replace_model(bytes);
        let error = copy.refusal();
        assert!(
            matches!(error, LoadError::Engine { .. }),
            "{} bytes: {error:?}",
            bytes.len()
        );
    }
}

#[test]
fn model_that_is_not_the_one_of_the_manifest_is_refused() {
    let copy = ModelCopy::new();
    copy.change_file("model.onnx", |bytes| bytes[1000] ^= 1);
    assert!(matches!(copy.refusal(), LoadError::Hash { .. }));
}

#[test]
fn manifest_with_another_input_size_is_refused() {
    let copy = ModelCopy::new();
    copy.change_manifest(|manifest| manifest["input"]["width"] = 640.into());
    assert!(matches!(
        copy.refusal(),
        LoadError::Engine {
            source: EngineError::Input { .. },
            ..
        }
    ));
}

#[test]
fn manifest_with_another_head_is_refused() {
    let copy = ModelCopy::new();
    copy.change_manifest(|manifest| manifest["head"] = "columns".into());
    assert!(matches!(
        copy.refusal(),
        LoadError::Head {
            source: HeadError::OtherHead { .. },
            ..
        }
    ));
}

#[test]
fn broken_or_missing_manifest_is_refused_with_its_fault() {
    let copy = ModelCopy::new();
    copy.change_manifest(|manifest| manifest["input"]["width"] = "wide".into());
    assert!(matches!(copy.refusal(), LoadError::Manifest { .. }));
    std::fs::remove_file(copy.path("manifest.json")).unwrap();
    assert!(matches!(copy.refusal(), LoadError::Unreadable { .. }));
}

#[test]
fn planted_preprocessing_faults_fail_the_golden_check() {
    type Fault = (&'static str, fn(&mut serde_json::Value));
    let faults: [Fault; 6] = [
        ("blue and red swapped", |input| {
            input["colour_order"] = "bgr".into();
        }),
        ("missing division by 255", |input| input["scale"] = 1.0.into()),
        ("wrong colour of the bars", |input| {
            input["letterbox"] = serde_json::json!([0, 0, 0]);
        }),
        ("stretched instead of letterboxed", |input| {
            input["letterbox"] = serde_json::Value::Null;
        }),
        ("nearest instead of bilinear", |input| {
            input["resize_filter"] = "nearest".into();
        }),
        ("anti-aliased instead of plain", |input| {
            input["resize_filter"] = "bilinear_antialiased".into();
        }),
    ];
    for (name, plant) in faults {
        let copy = ModelCopy::new();
        copy.change_manifest(|manifest| plant(&mut manifest["input"]));
        let error = copy.refusal();
        assert!(
            matches!(
                error,
                LoadError::Golden {
                    source: GoldenError::Tensor { .. },
                    ..
                }
            ),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn reference_that_is_half_a_pixel_away_fails_the_golden_check() {
    let manifest = detector().manifest().clone();
    let file = |name: &str| std::fs::read(model_folder().join(name)).unwrap();
    let mut preprocessor = Preprocessor::new(&manifest.input);
    let shape = [
        1,
        3,
        manifest.input.height as usize,
        manifest.input.width as usize,
    ];
    let mut engine = Engine::load(&runtime(), &file("model.onnx"), shape).unwrap();

    let straight = Golden::values(&file(&manifest.golden.tensor));
    let mut tensor = straight.clone();
    for (shifted, pair) in tensor.iter_mut().zip(straight.windows(2)) {
        *shifted = f32::midpoint(pair[0], pair[1]);
    }
    let mut output = Vec::new();
    let output_shape = engine.run(&tensor, &mut output).unwrap();
    let thresholds = manifest.classes.iter().map(|class| class.threshold).collect();
    let head = Head::choose(None, &output_shape, thresholds, manifest.nms_iou).unwrap();
    let golden = Golden {
        image: file(&manifest.golden.image),
        tensor,
        output,
    };
    let checked = golden.check(&manifest.golden, &mut engine, &mut preprocessor, &head);
    assert!(matches!(checked, Err(GoldenError::Tensor { .. })), "{checked:?}");
}

#[test]
fn changed_or_short_golden_files_are_refused() {
    let copy = ModelCopy::new();
    copy.change_file("golden/output.f32", |bytes| {
        let score = f32::from_le_bytes(bytes[16..20].try_into().unwrap()) + 0.001;
        bytes[16..20].copy_from_slice(&score.to_le_bytes());
    });
    assert!(matches!(
        copy.refusal(),
        LoadError::Golden {
            source: GoldenError::Output { .. },
            ..
        }
    ));

    let copy = ModelCopy::new();
    copy.change_file("golden/tensor.f32", |bytes| bytes.truncate(1000));
    assert!(matches!(
        copy.refusal(),
        LoadError::Golden {
            source: GoldenError::Length { .. },
            ..
        }
    ));

    let copy = ModelCopy::new();
    copy.change_file("golden/input.jpg", |bytes| bytes.truncate(bytes.len() - 2));
    assert!(matches!(
        copy.refusal(),
        LoadError::Golden {
            source: GoldenError::Decode(_),
            ..
        }
    ));
}
