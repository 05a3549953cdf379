//! What does a rule take for normal? Models of `ai-service`, learnt from the blocks of a rule, as they are stored; and
//! the hour of the week of a time.

use ai_service::anomaly::{
    baseline::{Baseline, Method, TooLittle},
    forest::{IsolationForest, TooFew},
};
use protocol::Micros;
use serde::{Deserialize, Serialize};

use super::watch::Kind;

const HOUR_US: Micros = 3_600_000_000;

/// A model as it is stored. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Model {
    /// Centre and spread.
    Baseline(Baseline),
    /// An isolation forest, and the centre of each tag by which it explains.
    Forest {
        /// The forest.
        forest: IsolationForest,
        /// The centres.
        usual: Vec<f64>,
    },
}

/// A model cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Too little history.
    #[error(transparent)]
    TooLittle(#[from] TooLittle),
    /// Too little history.
    #[error(transparent)]
    TooFew(#[from] TooFew),
    /// A kind that judges without a model.
    #[error("a rule of this kind needs no training")]
    Untrained,
    /// What is stored cannot be read.
    #[error("the stored model cannot be read")]
    Unreadable(#[from] postcard::Error),
}

/// The hour of the week of a time in UTC, 0 (Monday 0:00) to 167.
pub fn cell(time_us: Micros) -> usize {
    // 1970-01-01 was a Thursday.
    (time_us.div_euclid(HOUR_US) + 72).rem_euclid(168) as usize
}

/// The mean of each tag over one block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockMeans {
    /// Start of the block.
    pub from_us: Micros,
    /// In the order of the rule's tags.
    pub means: Vec<f64>,
}

impl Model {
    /// Learns from blocks in order of time.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn learn(
        kind: Kind,
        is_seasonal: bool,
        blocks: &[BlockMeans],
        seed: u64,
    ) -> Result<Self, ModelError> {
        let method = match kind {
            Kind::ZScore => Method::Mean,
            Kind::Mad => Method::Median,
            Kind::Cusum | Kind::Ewma => Method::MovingRange,
            Kind::IsolationForest => return Self::learn_forest(blocks, seed),
            Kind::NoData | Kind::Threshold | Kind::Rate => return Err(ModelError::Untrained),
        };
        let placed: Vec<(usize, f64)> = blocks
            .iter()
            .filter_map(|block| Some((cell(block.from_us), *block.means.first()?)))
            .collect();
        Ok(Self::Baseline(Baseline::learn(&placed, method, is_seasonal)?))
    }

    fn learn_forest(blocks: &[BlockMeans], seed: u64) -> Result<Self, ModelError> {
        let points: Vec<Vec<f64>> = blocks.iter().map(|block| block.means.clone()).collect();
        let forest = IsolationForest::learn(&points, seed)?;
        let tags = points.first().map_or(0, Vec::len);
        let usual = (0..tags)
            .map(|tag| points.iter().map(|point| point[tag]).sum::<f64>() / points.len() as f64)
            .collect();
        Ok(Self::Forest { forest, usual })
    }

    /// How far a value is from normal, in spreads, with its sign; none for a forest.
    pub fn standardised(&self, value: f64, place: Option<usize>) -> Option<f64> {
        match self {
            Self::Baseline(baseline) => {
                let normal = baseline.at(place);
                Some((value - normal.centre) / normal.spread)
            }
            Self::Forest { .. } => None,
        }
    }

    /// The forest, if it is one.
    pub fn forest(&self) -> Option<&IsolationForest> {
        match self {
            Self::Forest { forest, .. } => Some(forest),
            Self::Baseline(_) => None,
        }
    }

    /// What people are told of it.
    pub fn about(&self) -> serde_json::Value {
        match self {
            Self::Baseline(baseline) => serde_json::json!({
                "kind": "baseline", "whole": baseline.whole,
                "hours": baseline.hours.iter().flatten().count(),
            }),
            Self::Forest { usual, .. } => {
                serde_json::json!({ "kind": "isolation_forest", "trees": 100, "sample": 256, "usual": usual })
            }
        }
    }

    /// As it is stored.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn encode(&self) -> Result<Vec<u8>, ModelError> {
        Ok(postcard::to_stdvec(self)?)
    }

    /// As it was stored.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ModelError> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_begins_on_monday() {
        // 2024-01-01 was a Monday.
        let monday_us = 1_704_067_200_000_000;
        assert_eq!(
            (
                cell(monday_us),
                cell(monday_us - 1),
                cell(monday_us + 25 * HOUR_US)
            ),
            (0, 167, 25)
        );
    }

    #[test]
    fn a_model_is_the_same_after_it_was_stored() {
        let blocks: Vec<BlockMeans> = (0..300)
            .map(|n| BlockMeans {
                from_us: n * HOUR_US,
                means: vec![70.0 + (n % 7) as f64 / 3.0, (n % 5) as f64],
            })
            .collect();
        for kind in [Kind::ZScore, Kind::Mad, Kind::Cusum, Kind::IsolationForest] {
            let model = Model::learn(kind, true, &blocks, 3).unwrap();
            assert_eq!(Model::decode(&model.encode().unwrap()).unwrap(), model);
        }
        assert!(Model::learn(Kind::Threshold, false, &blocks, 3).is_err());
        assert!(Model::decode(b"nonsense").is_err());
    }
}
