//! Does the forest score as scikit-learn's does, always the same, and does it name the feature that is strange?

use proptest::prelude::*;

use super::*;

/// Points and the mean score that scikit-learn gives them: tests/golden/isolation_forest.py made it.
#[derive(Deserialize)]
struct Golden {
    sklearn: String,
    points: Vec<Vec<f64>>,
    scores: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/isolation_forest.json")).unwrap()
}

#[test]
fn scores_are_scikit_learns_within_what_chance_leaves() {
    let golden = golden();
    assert!(!golden.sklearn.is_empty());
    let forests: Vec<IsolationForest> = (0..5)
        .map(|seed| IsolationForest::learn(&golden.points, seed).unwrap())
        .collect();
    for (point, theirs) in golden.points.iter().zip(&golden.scores) {
        let ours: f64 = forests
            .iter()
            .map(|forest| forest.score(point).unwrap())
            .sum::<f64>()
            / 5.0;
        assert!(
            (ours - theirs).abs() < 0.025,
            "{point:?}: {ours} against {theirs}"
        );
    }
}

#[test]
fn the_same_history_and_seed_give_the_same_forest() {
    let points = golden().points;
    let one = IsolationForest::learn(&points, 7).unwrap();
    assert_eq!(one, IsolationForest::learn(&points, 7).unwrap());
    assert_ne!(one, IsolationForest::learn(&points, 8).unwrap());
}

#[test]
fn the_feature_that_is_strange_is_named() {
    // A history with a few starts from warm: a forest cuts only where it saw values.
    let cold = |n: u32| {
        if n % 100 == 99 {
            8.0
        } else {
            3.0 + f64::from(n % 7) / 10.0
        }
    };
    let points: Vec<Vec<f64>> = (0..400)
        .map(|n| vec![70.0 + f64::from(n % 13) / 10.0, cold(n)])
        .collect();
    let forest = IsolationForest::learn(&points, 1).unwrap();
    let strange = [70.5, 9.0];
    assert!(forest.score(&strange).unwrap() > forest.score(&points[17]).unwrap() + 0.1);
    let shares = forest.explain(&strange, &[70.6, 3.3]);
    assert!(shares[1] > 0.1 && shares[1] > 5.0 * shares[0].abs(), "{shares:?}");
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    assert!(IsolationForest::learn(&[], 0).is_err());
    assert!(IsolationForest::learn(&vec![vec![1.0]; 10], 0).is_err());
    let mut uneven = vec![vec![1.0, 2.0]; 100];
    uneven[50] = vec![1.0];
    assert!(IsolationForest::learn(&uneven, 0).is_err());
    let same = IsolationForest::learn(&vec![vec![1.0]; 100], 0).unwrap();
    assert!(same.score(&[1.0]).is_some_and(f64::is_finite));
    assert_eq!(same.score(&[1.0, 2.0]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_score_lies_between_0_and_1_whatever_the_point(
        seed: u64,
        values in prop::collection::vec(-1e6..1e6_f64, 128..256),
        asked in -1e300..1e300_f64,
    ) {
        let points: Vec<Vec<f64>> = values.chunks_exact(2).map(<[f64]>::to_vec).collect();
        let forest = IsolationForest::learn(&points, seed).unwrap();
        let score = forest.score(&[asked, values[0]]).unwrap();
        prop_assert!((0.0..=1.0).contains(&score));
        prop_assert_eq!(forest.score(&[f64::NAN, 0.0]), None);
    }
}
