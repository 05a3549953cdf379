//! Which of many overlapping boxes is the defect? Greedy suppression within each class: boxes of different classes may
//! lie on each other, because a burn can hide a foreign body and both must be seen.

use super::Candidate;
use crate::inspection::iou;

/// Candidates that are compared with each other, best first; more than these would take quadratic time.
const CANDIDATES_MAX: usize = 1000;

/// Keeps the best of every group of boxes of one class that overlap by more than `iou_max`.
pub(super) fn suppress(mut candidates: Vec<Candidate>, iou_max: f32) -> Vec<Candidate> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(CANDIDATES_MAX);
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        let hidden = kept
            .iter()
            .any(|k| k.class == candidate.class && iou(k.rect, candidate.rect) > iou_max);
        if !hidden {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(class: usize, score: f32, x: f32) -> Candidate {
        Candidate {
            class,
            score,
            rect: [x, 0.0, x + 10.0, 10.0],
        }
    }

    #[test]
    fn best_of_overlapping_boxes_of_one_class_stays() {
        let kept = suppress(
            vec![
                candidate(0, 0.5, 1.0),
                candidate(0, 0.9, 0.0),
                candidate(0, 0.7, 40.0),
            ],
            0.45,
        );
        assert_eq!(kept, [candidate(0, 0.9, 0.0), candidate(0, 0.7, 40.0)]);
    }

    #[test]
    fn boxes_of_different_classes_do_not_hide_each_other() {
        assert_eq!(
            suppress(vec![candidate(0, 0.9, 0.0), candidate(1, 0.8, 0.0)], 0.45).len(),
            2
        );
    }
}
