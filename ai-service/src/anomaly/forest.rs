//! Which of many points is unlike the others? An isolation forest (Liu, Ting, Zhou, "Isolation Forest", ICDM 2008):
//! random cuts isolate a strange point after few of them.
//!
//! ```text
//! score(x) = 2^(−E[h(x)] / c(ψ))     h = cuts until x is alone, + c(m) where m points are left together
//! c(n) = 2·(ln(n − 1) + 0.5772156649) − 2·(n − 1)/n     c(2) = 1, c(1) = 0
//! ```
//! 100 trees of ψ = 256 points, as the paper and scikit-learn have it. Seeded: the same history gives the same forest.
//! A score near 1 is an anomaly, one well below 0.5 is normal.

use rand::{Rng as _, SeedableRng as _, seq::index};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Trees of a forest.
const TREES: usize = 100;
/// Points that one tree is made of.
const SAMPLE: usize = 256;
/// Fewest points to learn from.
pub const POINTS_MIN: usize = 64;
const EULER: f64 = 0.577_215_664_901_532_9;

/// A node: a cut with both sides, or a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Node {
    Cut {
        feature: u16,
        below: f64,
        left: u32,
        right: u32,
    },
    Leaf {
        points: u32,
    },
}

/// A forest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IsolationForest {
    features: u16,
    sample: u32,
    trees: Vec<Vec<Node>>,
}

/// There is too little to learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{points} points are too few to learn from: {POINTS_MIN} are needed, all of them of the same 1 to 64 features, finite"
)]
pub struct TooFew {
    /// Points there are.
    pub points: usize,
}

/// Mean depth of an unsuccessful search among `n` points.
fn mean_depth(n: u32) -> f64 {
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        n => {
            let n = f64::from(n);
            2.0 * ((n - 1.0).ln() + EULER) - 2.0 * (n - 1.0) / n
        }
    }
}

impl IsolationForest {
    /// Learns from points, each with the same features.
    ///
    /// # Errors
    /// [`TooFew`].
    pub fn learn(points: &[Vec<f64>], seed: u64) -> Result<Self, TooFew> {
        let features = points.first().map_or(0, Vec::len);
        let is_even = |point: &Vec<f64>| point.len() == features && point.iter().all(|it| it.is_finite());
        if points.len() < POINTS_MIN || !(1..=64).contains(&features) || !points.iter().all(is_even) {
            return Err(TooFew { points: points.len() });
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let sample = points.len().min(SAMPLE);
        let depth_max = (sample as f64).log2().ceil() as u32;
        let trees = (0..TREES)
            .map(|_| {
                let chosen = index::sample(&mut random, points.len(), sample);
                let mut own: Vec<&[f64]> = chosen.iter().map(|place| points[place].as_slice()).collect();
                let mut nodes = Vec::new();
                grow(&mut own, depth_max, &mut random, &mut nodes);
                nodes
            })
            .collect();
        Ok(Self {
            features: features as u16,
            sample: sample as u32,
            trees,
        })
    }

    /// How strange a point is, 0 to 1; none for a point of other features or one that is not finite.
    pub fn score(&self, point: &[f64]) -> Option<f64> {
        let usable = point.len() == usize::from(self.features) && point.iter().all(|it| it.is_finite());
        let depths = self.trees.iter().map(|tree| depth(tree, point));
        let mean = depths.sum::<f64>() / self.trees.len().max(1) as f64;
        usable.then(|| (-mean / mean_depth(self.sample)).exp2())
    }

    /// How much of the strangeness is each feature's: by how much the score falls when the feature has the value
    /// `usual` instead.
    pub fn explain(&self, point: &[f64], usual: &[f64]) -> Vec<f64> {
        let whole = self.score(point).unwrap_or(0.0);
        (0..point.len().min(usual.len()))
            .map(|place| {
                let mut other = point.to_vec();
                other[place] = usual[place];
                whole - self.score(&other).unwrap_or(whole)
            })
            .collect()
    }
}

/// Adds the node of these points and all below it; gives its place.
fn grow(points: &mut [&[f64]], depth_left: u32, random: &mut ChaCha8Rng, nodes: &mut Vec<Node>) -> u32 {
    let place = nodes.len();
    nodes.push(Node::Leaf {
        points: points.len() as u32,
    });
    if points.len() <= 1 || depth_left == 0 {
        return place as u32;
    }
    // Only a feature in which the points differ can cut them.
    let ranges: Vec<(usize, f64, f64)> = (0..points[0].len())
        .filter_map(|feature| {
            let values = points.iter().map(|point| point[feature]);
            let (least, most) =
                values.fold((f64::MAX, f64::MIN), |(a, b), value| (a.min(value), b.max(value)));
            (least < most).then_some((feature, least, most))
        })
        .collect();
    if ranges.is_empty() {
        return place as u32;
    }
    let (feature, least, most) = ranges[random.random_range(0..ranges.len())];
    let below = least + (most - least) * random.random::<f64>();
    // A cut at the very end would leave nothing on one side.
    let below = if below > least { below } else { most };
    points.sort_unstable_by(|a, b| a[feature].total_cmp(&b[feature]));
    let middle = points.partition_point(|point| point[feature] < below);
    let (lower, upper) = points.split_at_mut(middle);
    let left = grow(lower, depth_left - 1, random, nodes);
    let right = grow(upper, depth_left - 1, random, nodes);
    nodes[place] = Node::Cut {
        feature: feature as u16,
        below,
        left,
        right,
    };
    place as u32
}

fn depth(tree: &[Node], point: &[f64]) -> f64 {
    let (mut place, mut cuts) = (0, 0.0);
    loop {
        match tree.get(place) {
            Some(Node::Cut {
                feature,
                below,
                left,
                right,
            }) => {
                let value = point.get(usize::from(*feature)).copied().unwrap_or(0.0);
                place = (if value < *below { *left } else { *right }) as usize;
                cuts += 1.0;
            }
            Some(Node::Leaf { points }) => return cuts + mean_depth(*points),
            None => return cuts,
        }
    }
}

#[cfg(test)]
#[path = "forest_tests.rs"]
mod tests;
