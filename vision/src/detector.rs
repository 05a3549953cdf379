//! One model from file to verdict: refuses at load whatever it could not judge with, and afterwards answers every frame.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::blank;
use crate::decode::{FrameSize, decode};
use crate::engine::{Engine, EngineError};
use crate::golden::Golden;
use crate::head::{Candidate, Head};
use crate::load_error::LoadError;
use crate::manifest::Manifest;
use crate::preprocess::{Placement, Preprocessor};
use crate::runtime::Runtime;
use crate::stopwatch::Stopwatch;

pub use crate::inspection::{Defect, Inspection, ModelId, Verdict};

/// Largest file of a model's folder that is read.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// A model that reproduced its reference and may judge frames. `Send`; one a worker.
#[derive(Debug)]
pub struct Detector {
    manifest: Manifest,
    id: ModelId,
    engine: Engine,
    preprocessor: Preprocessor,
    head: Head,
    rgb: Vec<u8>,
    output: Vec<f32>,
}

impl Detector {
    /// Loads the model that a manifest describes: checks the hash, lets ONNX Runtime build it, checks the shapes of input
    /// and output and runs the golden check.
    ///
    /// # Errors
    /// See [`LoadError`]: each step refuses with its reason, and nothing half-loaded remains.
    pub fn load(runtime: &Runtime, manifest_path: &Path) -> Result<Self, LoadError> {
        let manifest = Manifest::parse(&read(manifest_path)?).map_err(|source| LoadError::Manifest {
            path: manifest_path.to_path_buf(),
            source,
        })?;
        let folder = manifest_path.parent().unwrap_or(Path::new("."));
        let model_path = folder.join(&manifest.model);
        let onnx = read(&model_path)?;
        check_hash(&onnx, &manifest.sha256, &model_path)?;

        let mut preprocessor = Preprocessor::new(&manifest.input);
        let (mut engine, output_shape) =
            start(runtime, &onnx, &manifest, &preprocessor).map_err(|source| LoadError::Engine {
                path: model_path.clone(),
                source,
            })?;
        let thresholds = manifest.classes.iter().map(|class| class.threshold).collect();
        let head =
            Head::choose(manifest.head, &output_shape, thresholds, manifest.nms_iou).map_err(|source| {
                LoadError::Head {
                    path: model_path,
                    source,
                }
            })?;
        let golden = read_golden(folder, &manifest)?;
        golden
            .check(&manifest.golden, &mut engine, &mut preprocessor, &head)
            .map_err(|source| LoadError::Golden {
                path: manifest_path.to_path_buf(),
                source,
            })?;

        tracing::info!(model.name = manifest.name, model.version = manifest.version, head = ?head.kind(), "model loaded");
        let id = manifest.id();
        Ok(Self {
            manifest,
            id,
            engine,
            preprocessor,
            head,
            rgb: Vec::new(),
            output: Vec::new(),
        })
    }

    /// Judges one JPEG frame. Never fails and never panics: what cannot be judged is [`Verdict::Unknown`] with a reason.
    pub fn inspect(&mut self, jpeg: &[u8]) -> Inspection {
        let mut inspection = self.blank();
        match self.judge(jpeg, &mut inspection) {
            Ok(()) => {}
            Err(reason) => {
                inspection.verdict = Verdict::Unknown;
                inspection.reason = Some(reason);
                inspection.defects.clear();
            }
        }
        inspection
    }

    /// Returns the manifest of the loaded model.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn blank(&self) -> Inspection {
        Inspection {
            verdict: Verdict::Unknown,
            reason: None,
            defects: Vec::new(),
            width_px: 0,
            height_px: 0,
            model: self.id.clone(),
            decode_us: 0,
            preprocess_us: 0,
            infer_us: 0,
            postprocess_us: 0,
        }
    }

    /// Fills `inspection` stage by stage; an error carries the reason for `Unknown`.
    fn judge(&mut self, jpeg: &[u8], inspection: &mut Inspection) -> Result<(), String> {
        let mut watch = Stopwatch::start();
        let decoded = decode(jpeg, &mut self.rgb);
        inspection.decode_us = watch.lap_us();
        let size: FrameSize = decoded.map_err(|error| reason(&error))?;
        (inspection.width_px, inspection.height_px) = (size.width_px, size.height_px);
        if let Some(reason) = blank::reason(&self.rgb) {
            return Err(reason);
        }

        let placed = self.preprocessor.run(&self.rgb, size);
        inspection.preprocess_us = watch.lap_us();
        let placement = placed.map_err(|error| reason(&error))?;

        let ran = self.engine.run(self.preprocessor.tensor(), &mut self.output);
        inspection.infer_us = watch.lap_us();
        ran.map_err(|error| reason(&error))?;

        let read = self.head.read(&self.output);
        let candidates = read.map_err(|error| reason(&error))?;
        inspection.defects = candidates
            .iter()
            .map(|candidate| self.to_defect(candidate, &placement))
            .collect();
        (inspection.verdict, inspection.reason) = verdict(&inspection.defects);
        inspection.postprocess_us = watch.lap_us();
        Ok(())
    }

    fn to_defect(&self, candidate: &Candidate, placement: &Placement) -> Defect {
        let [x0, y0, x1, y1] = placement.to_source(candidate.rect);
        let class = self.manifest.classes[candidate.class].name.clone();
        Defect {
            class,
            score: candidate.score,
            x0,
            y0,
            x1,
            y1,
        }
    }
}

/// Every defect that reached its threshold rejects; the reason names the one with the highest score.
fn verdict(defects: &[Defect]) -> (Verdict, Option<String>) {
    match defects.first() {
        None => (Verdict::Pass, None),
        Some(worst) => (
            Verdict::Reject,
            Some(format!("{} {:.2}", worst.class, worst.score)),
        ),
    }
}

/// Spells out an error with its causes, as a person reads it on a page.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Builds the engine and runs it once on an empty tensor to learn the output's true shape.
fn start(
    runtime: &Runtime,
    onnx: &[u8],
    manifest: &Manifest,
    preprocessor: &Preprocessor,
) -> Result<(Engine, Vec<usize>), EngineError> {
    let input_shape = [
        1,
        3,
        manifest.input.height as usize,
        manifest.input.width as usize,
    ];
    let mut engine = Engine::load(runtime, onnx, input_shape)?;
    let shape = engine.run(preprocessor.tensor(), &mut Vec::new())?;
    Ok((engine, shape))
}

fn check_hash(onnx: &[u8], expected: &str, path: &Path) -> Result<(), LoadError> {
    let found = Sha256::digest(onnx)
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    if found == expected {
        return Ok(());
    }
    Err(LoadError::Hash {
        path: path.to_path_buf(),
        expected: expected.to_owned(),
        found,
    })
}

fn read_golden(folder: &Path, manifest: &Manifest) -> Result<Golden, LoadError> {
    let file = |name: &str| read(&folder.join(name));
    Ok(Golden {
        image: file(&manifest.golden.image)?,
        tensor: Golden::values(&file(&manifest.golden.tensor)?),
        output: Golden::values(&file(&manifest.golden.output)?),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: PathBuf::from(path),
        source,
    };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        let fault = std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("{length} bytes"));
        return Err(unreadable(fault));
    }
    std::fs::read(path).map_err(unreadable)
}
