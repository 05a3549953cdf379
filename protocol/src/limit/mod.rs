//! When is a critical control point out of control? The limits, and the pure state machine that judges them
//! the same way on the edge and on the hub.

mod challenge;
mod control;
mod cooling;
mod hold_time;
mod judge;
mod record;
#[cfg(test)]
mod said;
mod stuck;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use challenge::{Challenge, ChallengeJudge};
pub use control::{ControlJudge, ControlKind};
pub use cooling::{CoolingCurve, CoolingJudge, CoolingStage};
pub use hold_time::{HoldTime, HoldTimeJudge};
pub use judge::{Judge, Judgement, Observation};
pub use stuck::{Stillness, StuckDetector};

use crate::{quality::Quality, reading::Micros};

/// One version of the critical limit of one critical control point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CriticalLimit {
    /// Code of the control point, `CCP-1`.
    pub ccp: String,
    /// Code of the line, `L1`.
    pub line: Option<String>,
    /// Name of the monitored tag.
    pub tag: String,
    /// Unit of the limits.
    pub unit: String,
    /// The value must not be below this.
    pub low: Option<f64>,
    /// The value must not be above this.
    pub high: Option<f64>,
    /// A value must be this far inside the limit before a deviation closes; stops chatter at the limit.
    pub clear_margin: f64,
    /// How long the value may be out of limit with product flowing before that is a deviation (a flow-diversion
    /// valve is allowed its reaction time). 0: the first bad value is one.
    pub delay_us: Micros,
    /// No good value for longer than this is a deviation too: not monitored is not safe.
    pub gap_us_max: Micros,
    /// How often a [`Check`] record is written.
    pub check_every_us: Micros,
    /// How often a reading of the tag is due; 0 when it reports on change.
    pub period_us: Micros,
    /// Version of this limit; stamped on every check and deviation.
    pub version: u32,
}

/// Why a limit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Nothing to judge.
    #[error("a critical limit needs `low`, `high` or both")]
    NoLimit,
    /// No value could satisfy both.
    #[error("`low` must be below `high`, with room for `clear_margin` on both sides")]
    Impossible,
    /// NaN or infinity.
    #[error("limits and margin must be finite numbers, the margin not negative")]
    NotFinite,
    /// A duration that is negative, or zero where that has no meaning.
    #[error("`delay` must be 0 or more, `gap_max` and `check_every` more than 0")]
    BadDuration,
}

impl CriticalLimit {
    /// Checks that the limit can be met and judged.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), LimitError> {
        let finite = self
            .low
            .into_iter()
            .chain(self.high)
            .chain([self.clear_margin])
            .all(f64::is_finite);
        if !finite || self.clear_margin < 0.0 {
            return Err(LimitError::NotFinite);
        }
        match (self.low, self.high) {
            (None, None) => return Err(LimitError::NoLimit),
            (Some(low), Some(high)) if low + self.clear_margin > high - self.clear_margin || low >= high => {
                return Err(LimitError::Impossible);
            }
            _ => {}
        }
        if self.delay_us < 0 || self.period_us < 0 || self.gap_us_max <= 0 || self.check_every_us <= 0 {
            return Err(LimitError::BadDuration);
        }
        Ok(())
    }

    /// Whether `value` meets the limit. Values exactly at the limit meet it.
    pub fn is_met(&self, value: f64) -> bool {
        self.low.is_none_or(|low| value >= low) && self.high.is_none_or(|high| value <= high)
    }

    /// Whether `value` is far enough inside the limit to end a deviation.
    pub fn is_clear(&self, value: f64) -> bool {
        self.low.is_none_or(|low| value >= low + self.clear_margin)
            && self.high.is_none_or(|high| value <= high - self.clear_margin)
    }

    /// Distance to the nearest limit, negative when out of limit.
    pub fn margin(&self, value: f64) -> f64 {
        let low = self.low.map_or(f64::INFINITY, |low| value - low);
        let high = self.high.map_or(f64::INFINITY, |high| high - value);
        low.min(high)
    }
}

/// What a window of monitoring concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// Monitored and within limit throughout.
    Met,
    /// Out of limit at least once with product flowing.
    NotMet,
    /// Out of limit at least once, but only while product was diverted.
    Diverted,
    /// Not enough good values to say.
    NotMonitored,
}

/// The record that a control point was monitored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Code of the control point.
    pub ccp: String,
    /// Start of the window.
    pub from_us: Micros,
    /// End of the window.
    pub to_us: Micros,
    /// The conclusion.
    pub verdict: CheckVerdict,
    /// Least good value; none when there was none.
    pub value_min: Option<f64>,
    /// Greatest good value.
    pub value_max: Option<f64>,
    /// Last good value.
    pub value_last: Option<f64>,
    /// Good readings in the window.
    pub good: u32,
    /// Readings that came without a usable value.
    pub bad: u32,
    /// Readings that were due and did not come: good + bad + missing = due.
    pub missing: u32,
    /// Version of the limit in force.
    pub limit_version: u32,
}

/// What kind of loss of control. Variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviationKind {
    /// The value was out of limit.
    Limit,
    /// No good value for too long.
    MonitoringGap,
    /// The sensor repeats itself while its reference moves.
    SensorStuck,
    /// The value was not held long enough: too little lethality.
    HoldTime,
    /// Product did not cool fast enough.
    Cooling,
    /// A challenge of the control failed: what should have been rejected was not.
    Challenge,
    /// A check that was due was not made.
    MissedCheck,
}

/// How far a deviation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Just found.
    Opened,
    /// Still going on; the window grew.
    Extended,
    /// Back in control.
    Closed,
}

/// A loss of control, from the last good value before it to the first after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// The same for every phase: derived from edge, control point and window start ([`deviation_id`]).
    pub id: Uuid,
    /// Code of the control point.
    pub ccp: String,
    /// What kind.
    pub kind: DeviationKind,
    /// How far it has come.
    pub phase: Phase,
    /// When it was found.
    pub detected_us: Micros,
    /// Last time the point was known to be in control: product from here on is suspect.
    pub last_good_us: Micros,
    /// End of the suspect window: now while open, the first good value when closed.
    pub until_us: Micros,
    /// The value furthest out of limit, when there was one.
    pub value_extreme: Option<f64>,
    /// The limit in force.
    pub limit_low: Option<f64>,
    /// The limit in force.
    pub limit_high: Option<f64>,
    /// Version of the limit in force.
    pub limit_version: u32,
    /// Quality of the reading that opened it.
    pub quality: Quality,
}

/// The identity of a deviation: the same window found twice is the same deviation.
pub fn deviation_id(edge: &str, ccp: &str, last_good_us: Micros) -> Uuid {
    const NAMESPACE: Uuid = Uuid::from_u128(0x8f0f_9a4e_0c53_4d0e_9c2f_1d3a_7d1b_0002);
    Uuid::new_v5(&NAMESPACE, format!("{edge}\n{ccp}\n{last_good_us}").as_bytes())
}
