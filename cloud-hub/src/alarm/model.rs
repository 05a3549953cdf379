//! What does a rule take for normal? Models of `ai-service`, learnt from the blocks of a rule, as they are stored. A
//! seasonal one carries the time zone that it was learnt in, and judges in no other.

use ai_service::anomaly::{
    baseline::{Baseline, Method, TooLittle},
    forest::{IsolationForest, TooFew},
};
use protocol::Micros;
use serde::{Deserialize, Serialize};

use super::{season::Zone, watch::Kind};

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
    /// Centre and spread of each hour of the week, by the clocks of a time zone.
    Seasonal {
        /// Whose clocks.
        zone: Zone,
        /// The centres and spreads.
        baseline: Baseline,
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

/// The mean of each tag over one block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockMeans {
    /// Start of the block.
    pub from_us: Micros,
    /// In the order of the rule's tags.
    pub means: Vec<f64>,
}

impl Model {
    /// Learns from blocks in order of time; each hour of the week by itself when a zone is given.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn learn(
        kind: Kind,
        season: Option<Zone>,
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
        let clocks = season.unwrap_or_default();
        let placed: Vec<(usize, f64)> = blocks
            .iter()
            .filter_map(|block| Some((clocks.hour_of_week(block.from_us), *block.means.first()?)))
            .collect();
        let baseline = Baseline::learn(&placed, method, season.is_some())?;
        Ok(match season {
            Some(zone) => Self::Seasonal { zone, baseline },
            None => Self::Baseline(baseline),
        })
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

    /// How far a value of that time is from normal, in spreads, with its sign; none for a forest. The hour of the week
    /// is by the clocks that the model was learnt by.
    pub fn standardised(&self, value: f64, time_us: Micros, is_seasonal: bool) -> Option<f64> {
        let (zone, baseline) = match self {
            // Models of releases that knew no zones were learnt by UTC.
            Self::Baseline(baseline) => (Zone::default(), baseline),
            Self::Seasonal { zone, baseline } => (*zone, baseline),
            Self::Forest { .. } => return None,
        };
        let normal = baseline.at(is_seasonal.then(|| zone.hour_of_week(time_us)));
        Some((value - normal.centre) / normal.spread)
    }

    /// The forest, if it is one.
    pub fn forest(&self) -> Option<&IsolationForest> {
        match self {
            Self::Forest { forest, .. } => Some(forest),
            Self::Baseline(_) | Self::Seasonal { .. } => None,
        }
    }

    /// What people are told of it.
    pub fn about(&self) -> serde_json::Value {
        match self {
            Self::Baseline(baseline) => serde_json::json!({
                "kind": "baseline", "whole": baseline.whole,
                "hours": baseline.hours.iter().flatten().count(),
            }),
            Self::Seasonal { zone, baseline } => serde_json::json!({
                "kind": "baseline", "whole": baseline.whole,
                "hours": baseline.hours.iter().flatten().count(), "zone": zone.name(), "tzdata": Zone::RULES,
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

    const HOUR_US: Micros = 3_600_000_000;
    /// 2025-03-03, a Monday; clocks in Akron go forward six days later.
    const MONDAY_US: Micros = 1_740_960_000_000_000;

    fn akron() -> Zone {
        Zone::parse("America/New_York").unwrap()
    }

    /// Hour by hour; warm from 22:00 to 6:00 by the plant's clocks.
    fn nights(hours: i64) -> Vec<BlockMeans> {
        (0..hours)
            .map(|hour| {
                let from_us = MONDAY_US + hour * HOUR_US;
                let of_day = akron().hour_of_week(from_us) % 24;
                let level = if (6..22).contains(&of_day) { 4.0 } else { 20.0 };
                BlockMeans {
                    from_us,
                    means: vec![level + (hour % 3) as f64 * 0.1],
                }
            })
            .collect()
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
            for season in [None, Some(akron())] {
                let model = Model::learn(kind, season, &blocks, 3).unwrap();
                assert_eq!(Model::decode(&model.encode().unwrap()).unwrap(), model);
            }
        }
        assert!(Model::learn(Kind::Threshold, None, &blocks, 3).is_err());
        assert!(Model::decode(b"nonsense").is_err());
    }

    #[test]
    fn a_season_keeps_its_hours_when_the_clocks_change() {
        // Learnt in winter and summer time, judged by the clock on the wall through the year.
        let learnt = Model::learn(Kind::ZScore, Some(akron()), &nights(10 * 168), 1).unwrap();
        for block in nights(52 * 168) {
            let off = learnt.standardised(block.means[0], block.from_us, true).unwrap();
            assert!(off.abs() < 3.0, "{off} at {}", block.from_us);
        }
        let by_utc = Model::learn(Kind::Mad, Some(Zone::default()), &nights(168 * 5), 1).unwrap();
        let worst = nights(52 * 168)
            .iter()
            .filter_map(|block| by_utc.standardised(block.means[0], block.from_us, true))
            .fold(0.0, |worst: f64, off| worst.max(off.abs()));
        assert!(worst > 6.0, "in UTC the week moves by an hour: {worst}");
    }

    #[test]
    fn a_model_of_a_release_without_zones_judges_by_utc_for_ever() {
        // As such a release stored it: the first variant, with hours of the week in it.
        let placed: Vec<(usize, f64)> = nights(10 * 168)
            .iter()
            .map(|block| (Zone::default().hour_of_week(block.from_us), block.means[0]))
            .collect();
        let stored = Model::Baseline(Baseline::learn(&placed, Method::Mean, true).unwrap());
        let bytes = stored.encode().unwrap();
        assert_eq!(bytes[0], 0, "variants are only ever appended");
        let read = Model::decode(&bytes).unwrap();
        let normal = |hour| match &read {
            Model::Baseline(baseline) => baseline.at(Some(hour)),
            _ => unreachable!("it is the first variant"),
        };
        for hour in 0..168 {
            let of = normal(hour);
            let time_us = MONDAY_US + hour as i64 * HOUR_US;
            let off = read.standardised(30.0, time_us, true).unwrap();
            assert!(
                (off - (30.0 - of.centre) / of.spread).abs() < 1e-12,
                "hour {hour}"
            );
        }
    }
}
