//! The committed model, copies of it with planted faults, and frames.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use vision::synthetic::{DefectKind, TraySpec, encode_jpeg, render};
use vision::{Detector, LoadError, Runtime};

pub(crate) fn runtime() -> Runtime {
    let path = Runtime::find().unwrap_or_else(|error| panic!("{error}"));
    Runtime::load(&path).unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

pub(crate) fn model_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tray-defects")
}

pub(crate) fn detector() -> Detector {
    Detector::load(&runtime(), &model_folder().join("manifest.json")).unwrap()
}

pub(crate) fn tray(seed: u64, defects: &[DefectKind]) -> TraySpec {
    TraySpec {
        seed,
        width_px: 640,
        height_px: 480,
        defects: defects.to_vec(),
    }
}

pub(crate) fn jpeg(spec: &TraySpec) -> Vec<u8> {
    encode_jpeg(&render(spec).rgb, 90)
}

/// A copy of the committed model to plant faults in.
pub(crate) struct ModelCopy {
    folder: TempDir,
}

impl ModelCopy {
    pub(crate) fn new() -> Self {
        let copy = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(copy.path("golden")).unwrap();
        for file in [
            "model.onnx",
            "manifest.json",
            "golden/input.jpg",
            "golden/tensor.f32",
            "golden/output.f32",
        ] {
            std::fs::copy(model_folder().join(file), copy.path(file)).unwrap();
        }
        copy
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn change_manifest(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("manifest.json");
        let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        std::fs::write(path, manifest.to_string()).unwrap();
    }

    pub(crate) fn change_file(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.path(file)).unwrap();
        change(&mut bytes);
        std::fs::write(self.path(file), bytes).unwrap();
    }

    /// Replaces the ONNX file and makes the manifest's hash agree, so that the later checks see it.
    pub(crate) fn replace_model(&self, bytes: &[u8]) {
        std::fs::write(self.path("model.onnx"), bytes).unwrap();
        let digest = Sha256::digest(bytes)
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        self.change_manifest(|manifest| manifest["sha256"] = digest.into());
    }

    /// Loads the copy, which must be refused, and returns why.
    pub(crate) fn refusal(&self) -> LoadError {
        Detector::load(&runtime(), &self.path("manifest.json")).expect_err("the fault went live")
    }
}
