//! What is said about one frame: the verdict, the defects behind it, the model that said it and what it cost.

use serde::{Deserialize, Serialize};

/// The judgement on one frame. `Unknown` is never a pass: the part was not inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole frame was inspected and no defect reached its class's threshold.
    Pass,
    /// At least one defect reached its class's threshold.
    Reject,
    /// The frame could not be judged; the inspection's `reason` says why.
    Unknown,
}

impl Verdict {
    /// Returns the name used on the wire and in SQL: `pass`, `reject` or `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Reject => "reject",
            Self::Unknown => "unknown",
        }
    }
}

/// Names exactly one set of weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelId {
    /// Name from the manifest, such as `tray-defects`.
    pub name: String,
    /// Version from the manifest.
    pub version: String,
    /// SHA-256 of the ONNX file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// One defect, in pixels of the source image; `x0 ≤ x1`, `y0 ≤ y1`, both inside the frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Defect {
    /// Class name from the manifest.
    pub class: String,
    /// Uncalibrated score, 0 to 1; only comparable with the threshold of the same class and model.
    pub score: f32,
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl Defect {
    /// Returns intersection over union with another box, 0 (apart) to 1 (equal).
    pub fn iou(&self, other: &Self) -> f32 {
        iou(
            [self.x0, self.y0, self.x1, self.y1],
            [other.x0, other.y0, other.x1, other.y1],
        )
    }
}

/// The record of one inspection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The judgement.
    pub verdict: Verdict,
    /// Why: the worst defect of a reject, the cause of an unknown; absent for a pass.
    pub reason: Option<String>,
    /// Every defect that reached its class's threshold, highest score first.
    pub defects: Vec<Defect>,
    /// Width of the source image; 0 when it could not be decoded.
    pub width_px: u32,
    /// Height of the source image; 0 when it could not be decoded.
    pub height_px: u32,
    /// The model that judged, also when the verdict is unknown.
    pub model: ModelId,
    /// Time to check and decode the JPEG.
    pub decode_us: u32,
    /// Time to resize and fill the tensor.
    pub preprocess_us: u32,
    /// Time inside ONNX Runtime.
    pub infer_us: u32,
    /// Time to turn the output into defects.
    pub postprocess_us: u32,
}

/// Returns intersection over union of two boxes given as x0, y0, x1, y1; 0 when both are empty.
pub(crate) fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let area = |r: [f32; 4]| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let meet = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(a) + area(b) - meet;
    if union > 0.0 { meet / union } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_travel_in_snake_case() {
        let text = serde_json::to_string(&[Verdict::Pass, Verdict::Reject, Verdict::Unknown]).unwrap();
        assert_eq!(text, r#"["pass","reject","unknown"]"#);
        assert_eq!(
            format!("\"{}\"", Verdict::Unknown.as_str()),
            serde_json::to_string(&Verdict::Unknown).unwrap()
        );
    }

    #[test]
    fn overlap_of_a_box_with_itself_is_one_and_of_distant_boxes_zero() {
        let a = [0.0, 0.0, 10.0, 10.0];
        assert!((iou(a, a) - 1.0).abs() < f32::EPSILON);
        assert!(iou(a, [20.0, 20.0, 30.0, 30.0]).abs() < f32::EPSILON);
        assert!((iou(a, [5.0, 0.0, 15.0, 10.0]) - 1.0 / 3.0).abs() < 1e-6);
        assert!(iou([1.0; 4], [1.0; 4]).abs() < f32::EPSILON);
    }
}
