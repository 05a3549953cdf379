//! Does this program see what the training program saw? Before a model goes live it must reproduce a reference made by
//! Python and its ONNX Runtime: same tensor → same output; same image → same tensor; same image → same defects.

use crate::decode::{DecodeError, FrameSize, decode};
use crate::engine::{Engine, EngineError};
use crate::head::{Candidate, Head, HeadError};
use crate::inspection::iou;
use crate::manifest::GoldenSpec;
use crate::preprocess::{PreprocessError, Preprocessor};

/// Overlap that our boxes must have with those of the reference.
const BOX_IOU_MIN: f32 = 0.98;

/// Which step does not reproduce the reference, and by how much.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A reference file does not have the size of what it should hold.
    #[error("the golden {what} has {found} values, {expected} are needed")]
    Length {
        /// `tensor` or `output`.
        what: &'static str,
        /// Values in the file.
        found: usize,
        /// Values needed.
        expected: usize,
    },
    /// The golden image cannot be decoded.
    #[error("the golden image cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The golden image cannot be preprocessed.
    #[error("the golden image cannot be preprocessed")]
    Preprocess(#[from] PreprocessError),
    /// The model failed on a golden tensor.
    #[error("the model fails on a golden tensor")]
    Engine(#[from] EngineError),
    /// The model's output for a golden tensor cannot be read.
    #[error("the output for a golden tensor cannot be read")]
    Head(#[from] HeadError),
    /// The model answers the reference tensor otherwise than the reference program.
    #[error("output for the golden tensor differs by {found} at value {at}, {allowed} is allowed")]
    Output {
        /// Index of the worst value.
        at: usize,
        /// Its relative difference.
        found: f32,
        /// Largest that is allowed.
        allowed: f32,
    },
    /// The preprocessing is not the one of the training: colour order, scale, filter, padding or offset.
    #[error(
        "preprocessing differs from the training's: max {max:.2} and mean {mean:.3} steps, {allowed_max} and \
         {allowed_mean} are allowed (check colour order, scale, resize filter and letterbox)"
    )]
    Tensor {
        /// Largest difference, in byte steps.
        max: f32,
        /// Mean difference, in byte steps.
        mean: f32,
        /// Largest maximum allowed.
        allowed_max: f32,
        /// Largest mean allowed.
        allowed_mean: f32,
    },
    /// The reference shows no defect, so it proves nothing.
    #[error("the golden output holds no defect above its threshold")]
    Empty,
    /// The whole pipeline finds other defects than the reference.
    #[error(
        "the pipeline finds {found} defects in the golden image, the reference has {expected}; worst overlap {iou:.3}"
    )]
    Defects {
        /// Defects found.
        found: usize,
        /// Defects of the reference.
        expected: usize,
        /// Smallest best overlap.
        iou: f32,
    },
}

/// The contents of the three reference files.
#[derive(Debug)]
pub struct Golden {
    /// A JPEG with defects.
    pub image: Vec<u8>,
    /// Its tensor by the reference program.
    pub tensor: Vec<f32>,
    /// The output for that tensor by the reference program.
    pub output: Vec<f32>,
}

impl Golden {
    /// Reads f32 little-endian values; bytes that do not fill a value are left out and fail the length check later.
    pub fn values(bytes: &[u8]) -> Vec<f32> {
        bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect()
    }

    /// Checks the pipeline against the reference.
    ///
    /// # Errors
    /// The first step that differs; see [`GoldenError`].
    pub fn check(
        &self,
        spec: &GoldenSpec,
        engine: &mut Engine,
        preprocessor: &mut Preprocessor,
        head: &Head,
    ) -> Result<(), GoldenError> {
        require_length("tensor", self.tensor.len(), preprocessor.tensor().len())?;
        let mut output = Vec::new();
        engine.run(&self.tensor, &mut output)?;
        require_length("output", self.output.len(), output.len())?;
        compare_output(&output, &self.output, spec.tolerance)?;
        let expected = head.read(&self.output)?;
        if expected.is_empty() {
            return Err(GoldenError::Empty);
        }

        let mut rgb = Vec::new();
        let size: FrameSize = decode(&self.image, &mut rgb)?;
        preprocessor.run(&rgb, size)?;
        compare_tensor(preprocessor.tensor(), &self.tensor, spec, preprocessor.scale())?;
        engine.run(preprocessor.tensor(), &mut output)?;
        compare_defects(&head.read(&output)?, &expected)
    }
}

fn require_length(what: &'static str, found: usize, expected: usize) -> Result<(), GoldenError> {
    if found == expected {
        Ok(())
    } else {
        Err(GoldenError::Length {
            what,
            found,
            expected,
        })
    }
}

/// Compares relative to the reference where it is larger than 1: scores lie in 0 to 1, boxes reach hundreds of pixels.
fn compare_output(ours: &[f32], reference: &[f32], allowed: f32) -> Result<(), GoldenError> {
    for (at, (ours, reference)) in ours.iter().zip(reference).enumerate() {
        let found = (ours - reference).abs() / reference.abs().max(1.0);
        // Written so that NaN on either side is a difference.
        if !matches!(
            found.partial_cmp(&allowed),
            Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)
        ) {
            return Err(GoldenError::Output { at, found, allowed });
        }
    }
    Ok(())
}

fn compare_tensor(ours: &[f32], reference: &[f32], spec: &GoldenSpec, scale: f32) -> Result<(), GoldenError> {
    let steps = ours
        .iter()
        .zip(reference)
        .map(|(a, b)| f64::from((a - b).abs()) / f64::from(scale));
    let (max, sum) = steps.fold((0.0_f64, 0.0_f64), |(max, sum), step| (max.max(step), sum + step));
    let (max, mean) = (max as f32, (sum / ours.len() as f64) as f32);
    // NaN in the reference leaves the maximum alone but not the sum.
    if max <= spec.tensor_tolerance_max && mean <= spec.tensor_tolerance_mean {
        return Ok(());
    }
    let (allowed_max, allowed_mean) = (spec.tensor_tolerance_max, spec.tensor_tolerance_mean);
    Err(GoldenError::Tensor {
        max,
        mean,
        allowed_max,
        allowed_mean,
    })
}

fn compare_defects(found: &[Candidate], expected: &[Candidate]) -> Result<(), GoldenError> {
    let best = |wanted: &Candidate| {
        let same = found.iter().filter(|candidate| candidate.class == wanted.class);
        same.map(|candidate| iou(candidate.rect, wanted.rect))
            .fold(0.0, f32::max)
    };
    let worst = expected.iter().map(best).fold(1.0, f32::min);
    if found.len() == expected.len() && worst >= BOX_IOU_MIN {
        Ok(())
    } else {
        Err(GoldenError::Defects {
            found: found.len(),
            expected: expected.len(),
            iou: worst,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_compared_absolutely_for_scores_and_relatively_for_pixels() {
        assert!(compare_output(&[0.5, 300.02], &[0.500_05, 300.0], 1e-4).is_ok());
        assert!(matches!(
            compare_output(&[0.5002], &[0.5], 1e-4),
            Err(GoldenError::Output { at: 0, .. })
        ));
        assert!(compare_output(&[f32::NAN], &[0.5], 1e-4).is_err());
    }

    #[test]
    fn missing_and_surplus_defects_both_differ_from_the_reference() {
        let one = Candidate {
            class: 0,
            score: 0.9,
            rect: [0.0, 0.0, 10.0, 10.0],
        };
        let other_class = Candidate { class: 1, ..one };
        assert!(compare_defects(&[one], &[one]).is_ok());
        assert!(compare_defects(&[], &[one]).is_err());
        assert!(compare_defects(&[one, one], &[one]).is_err());
        assert!(compare_defects(&[other_class], &[one]).is_err());
    }
}
