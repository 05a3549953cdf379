//! Why did vision refuse to start? Each variant names what the operator can do about it.

use std::path::PathBuf;

use crate::engine::EngineError;
use crate::golden::GoldenError;
use crate::head::HeadError;
use crate::manifest::ManifestError;

/// A runtime or a model that may not go live, and why.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No ONNX Runtime library was found anywhere we look.
    #[error(
        "ONNX Runtime not found; looked at {}. Run `make onnxruntime`, or name the library in FOODFLOW_ONNXRUNTIME",
        list(.looked_at)
    )]
    RuntimeMissing {
        /// Every place that was tried, in order.
        looked_at: Vec<PathBuf>,
    },
    /// The file is there but is not an ONNX Runtime that this program can use.
    #[error("{} is not a usable ONNX Runtime (1.17 or newer is needed); run `make onnxruntime`", .path.display())]
    RuntimeForeign {
        /// The library that was tried.
        path: PathBuf,
        /// What the loader said.
        #[source]
        source: ort::LoadDynamicError,
    },
    /// ONNX Runtime loaded but its environment could not be created.
    #[error("ONNX Runtime at {} could not be initialised", .path.display())]
    RuntimeInit {
        /// The library that was loaded.
        path: PathBuf,
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// A process can hold one ONNX Runtime only, and it holds another.
    #[error("this process already runs ONNX Runtime from {}, not from {}", .loaded.display(), .asked.display())]
    RuntimeOther {
        /// The library in use.
        loaded: PathBuf,
        /// The library that was asked for.
        asked: PathBuf,
    },
    /// A file of the model's folder could not be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The manifest is not what a manifest should be.
    #[error("manifest {} is not valid", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The fault.
        #[source]
        source: ManifestError,
    },
    /// The ONNX file is not the one that the manifest describes.
    #[error("{} has sha256 {found}, the manifest says {expected}", .path.display())]
    Hash {
        /// The ONNX file.
        path: PathBuf,
        /// Digest in the manifest.
        expected: String,
        /// Digest of the file.
        found: String,
    },
    /// ONNX Runtime refused the model, or its input is not what the manifest says.
    #[error("model {} cannot run", .path.display())]
    Engine {
        /// The ONNX file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: EngineError,
    },
    /// The output's shape fits no head, or not the one that the manifest names.
    #[error("the output of {} cannot be read", .path.display())]
    Head {
        /// The ONNX file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: HeadError,
    },
    /// The model or the preprocessing does not reproduce the reference.
    #[error("golden check of {} failed", .path.display())]
    Golden {
        /// The manifest.
        path: PathBuf,
        /// Which step differed and by how much.
        #[source]
        source: GoldenError,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
