//! What does a model expect and what does its output mean? The JSON beside the ONNX file, checked on reading: every
//! later stage takes its values from here and from nowhere else.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::head::HeadKind;
use crate::inspection::ModelId;

/// Largest input edge that is accepted; larger ones are a typing error or an attack.
const INPUT_EDGE_PX_MAX: u32 = 4096;

/// A manifest that cannot be used, and which value is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, an unknown key, a missing key or a wrong type; the message carries line and column.
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
    /// The value of a key makes no sense.
    #[error("`{key}` {fault}")]
    Invalid {
        /// The key, dotted.
        key: &'static str,
        /// What is wrong with its value.
        fault: String,
    },
}

/// The description of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the model, such as `tray-defects`.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// SKU that the model was trained for; absent when it serves several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// ONNX file, relative to the manifest.
    pub model: String,
    /// SHA-256 of the ONNX file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// What the network expects.
    pub input: InputSpec,
    /// Meaning of the output; when absent it is told from the output's shape, and refused when two meanings fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadKind>,
    /// Overlap above which two boxes of one class are one defect; only for heads that need suppression.
    #[serde(default = "default_nms_iou")]
    pub nms_iou: f32,
    /// The classes in the order of the network's output.
    pub classes: Vec<ClassSpec>,
    /// Licence of the weights, as an SPDX expression.
    pub licence: String,
    /// The reference that the whole pipeline must reproduce before it goes live.
    pub golden: GoldenSpec,
}

/// What the network expects as input: one image, `[1, 3, height, width]` f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Order of the axes.
    pub layout: Layout,
    /// Order of the colour planes.
    pub colour_order: ColourOrder,
    /// Factor from the byte 0 to 255 to the network's value, usually 1/255.
    pub scale: f32,
    /// Filter that the training used for resizing.
    pub resize_filter: ResizeFilter,
    /// Colour of the bars that keep the aspect ratio (image centred), RGB; absent: the image is stretched.
    pub letterbox: Option<[u8; 3]>,
}

/// Order of the tensor's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Batch, channel, row, column.
    Nchw,
}

/// Order of the colour planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColourOrder {
    /// Red first.
    Rgb,
    /// Blue first, as OpenCV reads images.
    Bgr,
}

/// How the image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeFilter {
    /// Two by two neighbours, pixel centres at one half, no anti-aliasing: OpenCV's INTER_LINEAR.
    Bilinear,
    /// Bilinear with a kernel that widens when shrinking: Pillow's BILINEAR.
    BilinearAntialiased,
    /// The nearest pixel.
    Nearest,
}

/// One class of defect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    /// Name, such as `foreign_body`.
    pub name: String,
    /// Score at and above which a detection rejects the part, above 0 and up to 1.
    pub threshold: f32,
    /// How bad it is; for the reader of the verdict, every class rejects.
    pub severity: Severity,
}

/// How bad a class of defect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A blemish.
    Minor,
    /// Not sellable.
    Major,
    /// A hazard to the consumer.
    Critical,
}

/// The reference: files relative to the manifest, and how far we may be from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenSpec {
    /// A JPEG with defects.
    pub image: String,
    /// The preprocessed tensor of that image by the reference program, f32 little-endian.
    pub tensor: String,
    /// The network's output for that tensor by the reference program, f32 little-endian.
    pub output: String,
    /// Largest |ours − reference| ÷ max(1, |reference|) of the output for the same tensor.
    pub tolerance: f32,
    /// Largest |ours − reference| of the tensor, in steps of one byte (1/255 when `scale` is 1/255).
    pub tensor_tolerance_max: f32,
    /// Largest mean |ours − reference| of the tensor, in the same steps.
    pub tensor_tolerance_mean: f32,
}

const fn default_nms_iou() -> f32 {
    0.45
}

impl Manifest {
    /// Reads a manifest and checks every value.
    ///
    /// # Errors
    /// The first fault found, with its key or its line and column.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Returns what names these weights.
    pub fn id(&self) -> ModelId {
        ModelId {
            name: self.name.clone(),
            version: self.version.clone(),
            sha256: self.sha256.clone(),
        }
    }

    fn check(&self) -> Result<(), ManifestError> {
        require(!self.name.trim().is_empty(), "name", || "is empty".into())?;
        require(!self.version.trim().is_empty(), "version", || "is empty".into())?;
        require(is_sha256(&self.sha256), "sha256", || {
            "is not 64 lower-case hexadecimal digits".into()
        })?;
        self.check_input()?;
        require((0.0..=1.0).contains(&self.nms_iou), "nms_iou", || {
            "is not between 0 and 1".into()
        })?;
        require(!self.classes.is_empty(), "classes", || "is empty".into())?;
        for class in &self.classes {
            require(
                class.threshold > 0.0 && class.threshold <= 1.0,
                "classes.threshold",
                || {
                    format!(
                        "of `{}` is {}, not above 0 and up to 1",
                        class.name, class.threshold
                    )
                },
            )?;
            let same = self
                .classes
                .iter()
                .filter(|other| other.name == class.name)
                .count();
            require(same == 1, "classes.name", || {
                format!("`{}` is given {same} times", class.name)
            })?;
        }
        self.check_golden()
    }

    fn check_input(&self) -> Result<(), ManifestError> {
        let edge = |key, px: u32| {
            require((8..=INPUT_EDGE_PX_MAX).contains(&px), key, || {
                format!("is {px}, not between 8 and {INPUT_EDGE_PX_MAX}")
            })
        };
        edge("input.width", self.input.width)?;
        edge("input.height", self.input.height)?;
        let scale = self.input.scale;
        require(scale.is_finite() && scale > 0.0, "input.scale", || {
            format!("is {scale}, not above 0")
        })
    }

    fn check_golden(&self) -> Result<(), ManifestError> {
        let golden = &self.golden;
        for (key, file) in [
            ("model", &self.model),
            ("golden.image", &golden.image),
            ("golden.tensor", &golden.tensor),
            ("golden.output", &golden.output),
        ] {
            require(stays_inside(file), key, || {
                format!("`{file}` does not stay inside the model's folder")
            })?;
        }
        for (key, limit, most) in [
            ("golden.tolerance", golden.tolerance, 1e-2),
            ("golden.tensor_tolerance_max", golden.tensor_tolerance_max, 16.0),
            ("golden.tensor_tolerance_mean", golden.tensor_tolerance_mean, 2.0),
        ] {
            // A generous tolerance would let a wrong pipeline through, so the manifest cannot ask for one.
            require(limit > 0.0 && limit <= most, key, || {
                format!("is {limit}, not above 0 and up to {most}")
            })?;
        }
        Ok(())
    }
}

fn require(holds: bool, key: &'static str, fault: impl FnOnce() -> String) -> Result<(), ManifestError> {
    if holds {
        Ok(())
    } else {
        Err(ManifestError::Invalid { key, fault: fault() })
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn stays_inside(file: &str) -> bool {
    !file.is_empty()
        && Path::new(file)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> serde_json::Value {
        serde_json::json!({
            "name": "tray-defects", "version": "1.0.0", "model": "model.onnx", "sha256": "0".repeat(64),
            "input": {"width": 320, "height": 256, "layout": "nchw", "colour_order": "rgb", "scale": 0.003_921_569,
                      "resize_filter": "bilinear", "letterbox": [114, 114, 114]},
            "classes": [{"name": "crack", "threshold": 0.4, "severity": "major"}],
            "licence": "Apache-2.0",
            "golden": {"image": "golden/input.jpg", "tensor": "golden/tensor.f32", "output": "golden/output.f32",
                       "tolerance": 1e-4, "tensor_tolerance_max": 6.0, "tensor_tolerance_mean": 0.6}
        })
    }

    fn fault(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut value = sample();
        change(&mut value);
        Manifest::parse(value.to_string().as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn sample_parses_and_defaults_its_optional_keys() {
        let manifest = Manifest::parse(sample().to_string().as_bytes()).unwrap();
        assert_eq!(manifest.head, None);
        assert!((manifest.nms_iou - 0.45).abs() < f32::EPSILON);
        assert_eq!(manifest.id().name, "tray-defects");
    }

    #[test]
    fn every_wrong_value_is_named() {
        assert!(fault(|m| m["sha256"] = "abc".into()).contains("`sha256`"));
        assert!(fault(|m| m["input"]["width"] = 0.into()).contains("`input.width`"));
        assert!(fault(|m| m["input"]["scale"] = (-1.0).into()).contains("`input.scale`"));
        assert!(fault(|m| m["classes"] = serde_json::json!([])).contains("`classes`"));
        assert!(fault(|m| m["classes"][0]["threshold"] = 0.0.into()).contains("`classes.threshold`"));
        assert!(fault(|m| m["golden"]["tolerance"] = 5.0.into()).contains("`golden.tolerance`"));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_with_their_line() {
        assert!(fault(|m| m["colour"] = "red".into()).contains("unknown field `colour`"));
        assert!(fault(|m| m["input"]["layout"] = "nhwc".into()).contains("line 1"));
    }

    #[test]
    fn files_outside_the_models_folder_are_refused() {
        for path in ["../model.onnx", "/etc/passwd", "a/../../b", ""] {
            assert!(
                fault(|m| m["model"] = path.into()).contains("stay inside"),
                "{path}"
            );
        }
    }
}
