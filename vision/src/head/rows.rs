//! The three layouts of a detector's output, each read into candidates at or above their class's threshold.

use super::{Candidate, HeadError};

/// Rounding may carry a sigmoid this far over its range; anything beyond is no score.
const SCORE_SLACK: f32 = 1e-3;

/// `[1, N, 6]`: x1, y1, x2, y2, score, class.
pub(super) fn read_nms_free(output: &[f32], thresholds: &[f32]) -> Result<Vec<Candidate>, HeadError> {
    let mut found = Vec::new();
    for row in output.chunks_exact(6) {
        let score = checked(row[4])?;
        if score <= 0.0 {
            continue;
        }
        let class = class_index(row[5], thresholds.len())?;
        if score >= thresholds[class] {
            found.push(Candidate {
                class,
                score,
                rect: [row[0], row[1], row[2], row[3]],
            });
        }
    }
    Ok(found)
}

/// `[1, 4 + C, N]`: the values of one detection are N apart.
pub(super) fn read_columns(output: &[f32], thresholds: &[f32]) -> Result<Vec<Candidate>, HeadError> {
    let count = output.len() / (4 + thresholds.len());
    let (boxes, scores) = output.split_at(4 * count);
    let mut found = Vec::new();
    for (class, (&threshold, scores)) in thresholds.iter().zip(scores.chunks_exact(count)).enumerate() {
        for (at, &score) in scores.iter().enumerate() {
            if checked(score)? >= threshold {
                let centred = [
                    boxes[at],
                    boxes[count + at],
                    boxes[2 * count + at],
                    boxes[3 * count + at],
                ];
                found.push(Candidate {
                    class,
                    score,
                    rect: corners(centred),
                });
            }
        }
    }
    Ok(found)
}

/// `[1, N, 5 + C]`: a class's score is its own times the objectness.
pub(super) fn read_objectness_rows(output: &[f32], thresholds: &[f32]) -> Result<Vec<Candidate>, HeadError> {
    let mut found = Vec::new();
    for row in output.chunks_exact(5 + thresholds.len()) {
        let objectness = checked(row[4])?;
        for (class, (&threshold, &score)) in thresholds.iter().zip(&row[5..]).enumerate() {
            let score = checked(score)? * objectness;
            if score >= threshold {
                found.push(Candidate {
                    class,
                    score,
                    rect: corners([row[0], row[1], row[2], row[3]]),
                });
            }
        }
    }
    Ok(found)
}

fn checked(score: f32) -> Result<f32, HeadError> {
    if (-SCORE_SLACK..=1.0 + SCORE_SLACK).contains(&score) {
        Ok(score.clamp(0.0, 1.0))
    } else {
        Err(HeadError::Score(score))
    }
}

fn class_index(value: f32, classes: usize) -> Result<usize, HeadError> {
    let rounded = value.round();
    if (value - rounded).abs() < 1e-3 && rounded >= 0.0 && rounded < classes as f32 {
        Ok(rounded as usize)
    } else {
        Err(HeadError::Class(value))
    }
}

fn corners([x, y, width, height]: [f32; 4]) -> [f32; 4] {
    [
        x - width / 2.0,
        y - height / 2.0,
        x + width / 2.0,
        y + height / 2.0,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nms_free_rows_keep_what_reaches_the_threshold_of_its_own_class() {
        let output = [
            1.0, 2.0, 3.0, 4.0, 0.6, 0.0, //
            1.0, 2.0, 3.0, 4.0, 0.6, 1.0, //
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        ];
        let found = read_nms_free(&output, &[0.7, 0.5]).unwrap();
        assert_eq!(
            found,
            [Candidate {
                class: 1,
                score: 0.6,
                rect: [1.0, 2.0, 3.0, 4.0]
            }]
        );
    }

    #[test]
    fn unknown_class_and_impossible_score_are_errors() {
        assert_eq!(
            read_nms_free(&[0.0, 0.0, 1.0, 1.0, 0.9, 2.0], &[0.5; 2]),
            Err(HeadError::Class(2.0))
        );
        assert_eq!(
            read_nms_free(&[0.0, 0.0, 1.0, 1.0, 0.9, 0.5], &[0.5; 2]),
            Err(HeadError::Class(0.5))
        );
        assert_eq!(
            read_nms_free(&[0.0, 0.0, 1.0, 1.0, 7.0, 0.0], &[0.5; 2]),
            Err(HeadError::Score(7.0))
        );
    }

    #[test]
    fn columns_and_rows_of_the_same_detection_read_alike() {
        // Two candidates, two classes: the second one is class 1 with score 0.8.
        let columns = [9.0, 10.0, 9.0, 20.0, 1.0, 4.0, 1.0, 6.0, 0.1, 0.0, 0.1, 0.8];
        let rows = [
            9.0, 9.0, 1.0, 1.0, 0.1, 0.1, 0.1, 10.0, 20.0, 4.0, 6.0, 1.0, 0.0, 0.8,
        ];
        let expected = [Candidate {
            class: 1,
            score: 0.8,
            rect: [8.0, 17.0, 12.0, 23.0],
        }];
        assert_eq!(read_columns(&columns, &[0.5; 2]).unwrap(), expected);
        assert_eq!(read_objectness_rows(&rows, &[0.5; 2]).unwrap(), expected);
    }
}
