//! What do the output's numbers mean? The head is told from the output's shape and the manifest, never from the model's
//! name; an output that fits no head, or two, is refused at load.

mod nms;
mod rows;

use serde::{Deserialize, Serialize};

/// Meaning of a detector's output; boxes are in pixels of the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// `[1, N, 6]`: x1, y1, x2, y2, score, class, one row a defect, padding rows with score 0 (YOLOv10, ours).
    NmsFree,
    /// `[1, 4 + C, N]`: columns of centre x, centre y, width, height, one score a class (YOLOv8, YOLO11).
    Columns,
    /// `[1, N, 5 + C]`: rows of centre x, centre y, width, height, objectness, one score a class (YOLOv5, YOLOX).
    ObjectnessRows,
}

/// An output that cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// No head has this shape.
    #[error("output shape {shape:?} fits no head for {classes} classes")]
    NoHead {
        /// Shape of the output.
        shape: Vec<usize>,
        /// Classes of the manifest.
        classes: usize,
    },
    /// The manifest names a head of another shape.
    #[error("output shape {shape:?} does not fit head {head:?} with {classes} classes")]
    OtherHead {
        /// Shape of the output.
        shape: Vec<usize>,
        /// Head of the manifest.
        head: HeadKind,
        /// Classes of the manifest.
        classes: usize,
    },
    /// Several heads have this shape and the manifest names none.
    #[error("output shape {shape:?} fits {fits:?}: name the head in the manifest")]
    Ambiguous {
        /// Shape of the output.
        shape: Vec<usize>,
        /// The heads it fits.
        fits: Vec<HeadKind>,
    },
    /// The output changed its shape after the model was loaded.
    #[error("output has {found} values, {expected} were expected")]
    Length {
        /// Values of this output.
        found: usize,
        /// Values at load.
        expected: usize,
    },
    /// NaN or infinity in the output.
    #[error("output is not finite")]
    NotFinite,
    /// A score outside 0 to 1.
    #[error("output holds the score {0}, outside 0 to 1")]
    Score(f32),
    /// A detection of a class that the manifest does not know.
    #[error("output names class {0}, which the manifest does not have")]
    Class(f32),
}

/// A detection in pixels of the network's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Index into the manifest's classes.
    pub class: usize,
    /// Score, 0 to 1.
    pub score: f32,
    /// x0, y0, x1, y1.
    pub rect: [f32; 4],
}

/// Reads outputs of one shape.
#[derive(Debug, Clone)]
pub struct Head {
    kind: HeadKind,
    shape: Vec<usize>,
    thresholds: Vec<f32>,
    nms_iou: f32,
}

impl Head {
    /// Chooses the head for an output shape; `thresholds` are those of the manifest's classes, in order.
    ///
    /// # Errors
    /// [`HeadError::NoHead`], [`HeadError::OtherHead`] or [`HeadError::Ambiguous`].
    pub fn choose(
        declared: Option<HeadKind>,
        shape: &[usize],
        thresholds: Vec<f32>,
        nms_iou: f32,
    ) -> Result<Self, HeadError> {
        let classes = thresholds.len();
        let fits = fitting(shape, classes);
        let kind = match (declared, fits.as_slice()) {
            (Some(head), fits) if fits.contains(&head) => head,
            (Some(head), _) => {
                return Err(HeadError::OtherHead {
                    shape: shape.to_vec(),
                    head,
                    classes,
                });
            }
            (None, []) => {
                return Err(HeadError::NoHead {
                    shape: shape.to_vec(),
                    classes,
                });
            }
            (None, [only]) => *only,
            (None, _) => {
                return Err(HeadError::Ambiguous {
                    shape: shape.to_vec(),
                    fits,
                });
            }
        };
        Ok(Self {
            kind,
            shape: shape.to_vec(),
            thresholds,
            nms_iou,
        })
    }

    /// Returns which head was chosen.
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// Returns the detections that reach their class's threshold, highest score first.
    ///
    /// # Errors
    /// [`HeadError::Length`], [`HeadError::NotFinite`], [`HeadError::Score`] or [`HeadError::Class`]: such an output
    /// says nothing about the frame, also where other rows look sound.
    pub fn read(&self, output: &[f32]) -> Result<Vec<Candidate>, HeadError> {
        let expected = self.shape.iter().product();
        if output.len() != expected {
            return Err(HeadError::Length {
                found: output.len(),
                expected,
            });
        }
        if !output.iter().all(|value| value.is_finite()) {
            return Err(HeadError::NotFinite);
        }
        let mut found = match self.kind {
            HeadKind::NmsFree => rows::read_nms_free(output, &self.thresholds)?,
            HeadKind::Columns => nms::suppress(rows::read_columns(output, &self.thresholds)?, self.nms_iou),
            HeadKind::ObjectnessRows => nms::suppress(
                rows::read_objectness_rows(output, &self.thresholds)?,
                self.nms_iou,
            ),
        };
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(found)
    }
}

fn fitting(shape: &[usize], classes: usize) -> Vec<HeadKind> {
    let &[1, first, second] = shape else {
        return Vec::new();
    };
    if first == 0 || second == 0 {
        return Vec::new();
    }
    let fits = [
        (second == 6, HeadKind::NmsFree),
        (first == 4 + classes, HeadKind::Columns),
        (second == 5 + classes, HeadKind::ObjectnessRows),
    ];
    fits.into_iter()
        .filter_map(|(fits, head)| fits.then_some(head))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(declared: Option<HeadKind>, shape: &[usize], classes: usize) -> Result<HeadKind, HeadError> {
        Head::choose(declared, shape, vec![0.5; classes], 0.45).map(|head| head.kind())
    }

    #[test]
    fn shape_tells_the_head() {
        assert_eq!(choose(None, &[1, 300, 6], 80), Ok(HeadKind::NmsFree));
        assert_eq!(choose(None, &[1, 84, 8400], 80), Ok(HeadKind::Columns));
        assert_eq!(choose(None, &[1, 25200, 85], 80), Ok(HeadKind::ObjectnessRows));
    }

    #[test]
    fn shape_that_fits_two_heads_needs_the_manifests_word() {
        assert!(matches!(
            choose(None, &[1, 100, 6], 1),
            Err(HeadError::Ambiguous { .. })
        ));
        assert_eq!(
            choose(Some(HeadKind::ObjectnessRows), &[1, 100, 6], 1),
            Ok(HeadKind::ObjectnessRows)
        );
    }

    #[test]
    fn wrong_shapes_are_refused() {
        assert!(matches!(
            choose(None, &[1, 1000], 4),
            Err(HeadError::NoHead { .. })
        ));
        assert!(matches!(
            choose(None, &[2, 100, 6], 4),
            Err(HeadError::NoHead { .. })
        ));
        assert!(matches!(
            choose(None, &[1, 0, 6], 4),
            Err(HeadError::NoHead { .. })
        ));
        assert!(matches!(
            choose(Some(HeadKind::NmsFree), &[1, 84, 8400], 80),
            Err(HeadError::OtherHead { .. })
        ));
    }

    #[test]
    fn nan_infinity_and_wrong_length_are_errors_and_never_empty_results() {
        let head = Head::choose(None, &[1, 2, 6], vec![0.5; 4], 0.45).unwrap();
        let mut output = vec![0.0_f32; 12];
        assert_eq!(head.read(&output), Ok(Vec::new()));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            output[7] = bad;
            assert_eq!(head.read(&output), Err(HeadError::NotFinite));
        }
        assert_eq!(
            head.read(&output[1..]),
            Err(HeadError::Length {
                found: 11,
                expected: 12
            })
        );
    }
}
