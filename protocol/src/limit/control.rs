//! Which judge does a control point have? One face for all kinds, so that whoever routes readings need not know
//! which kind it is.

use serde::{Deserialize, Serialize};

use super::{
    Challenge, ChallengeJudge, CoolingCurve, CoolingJudge, CriticalLimit, HoldTime, HoldTimeJudge, Judge,
    Judgement, Observation,
};
use crate::reading::Micros;

/// How a control point is judged. Variants are only ever appended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum ControlKind {
    /// Every value meets the limit.
    #[default]
    Limit,
    /// The value is held at the limit for a time in every cycle.
    HoldTime(HoldTime),
    /// Every batch cools along a curve.
    Cooling(CoolingCurve),
    /// The control is challenged at times, and passes.
    Challenge(Challenge),
}

/// Judges one control point of any kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ControlJudge {
    /// [`ControlKind::Limit`].
    Limit(Box<Judge>),
    /// [`ControlKind::HoldTime`].
    HoldTime(Box<HoldTimeJudge>),
    /// [`ControlKind::Cooling`].
    Cooling(Box<CoolingJudge>),
    /// [`ControlKind::Challenge`].
    Challenge(Box<ChallengeJudge>),
}

macro_rules! each {
    ($judge:expr, $name:ident => $body:expr) => {
        match $judge {
            ControlJudge::Limit($name) => $body,
            ControlJudge::HoldTime($name) => $body,
            ControlJudge::Cooling($name) => $body,
            ControlJudge::Challenge($name) => $body,
        }
    };
}

impl ControlJudge {
    /// A judge that has seen nothing.
    pub fn new(edge: &str, limit: CriticalLimit, kind: &ControlKind) -> Self {
        match kind {
            ControlKind::Limit => Self::Limit(Box::new(Judge::new(edge, limit))),
            ControlKind::HoldTime(hold) => Self::HoldTime(Box::new(HoldTimeJudge::new(edge, limit, *hold))),
            ControlKind::Cooling(curve) => {
                Self::Cooling(Box::new(CoolingJudge::new(edge, limit, curve.clone())))
            }
            ControlKind::Challenge(challenge) => {
                Self::Challenge(Box::new(ChallengeJudge::new(edge, limit, *challenge)))
            }
        }
    }

    /// How it judges.
    pub fn kind(&self) -> ControlKind {
        match self {
            Self::Limit(_) => ControlKind::Limit,
            Self::HoldTime(judge) => ControlKind::HoldTime(judge.hold()),
            Self::Cooling(judge) => ControlKind::Cooling(judge.curve().clone()),
            Self::Challenge(judge) => ControlKind::Challenge(judge.challenge()),
        }
    }

    /// The limit in force.
    pub fn limit(&self) -> &CriticalLimit {
        each!(self, judge => &judge.limit)
    }

    /// Puts another version of the limit in force from the next observation on; the window so far is ended, what
    /// is open stays open under its own version.
    pub fn change_limit(&mut self, limit: CriticalLimit) -> Vec<Judgement> {
        each!(self, judge => judge.change_limit(limit))
    }

    /// The process enters a state in which nothing is judged. Nothing may be observed until
    /// [`resume`](Self::resume).
    pub fn pause(&mut self) -> Vec<Judgement> {
        each!(self, judge => judge.pause())
    }

    /// Judging goes on.
    pub fn resume(&mut self, at_us: Micros) {
        each!(self, judge => judge.resume(at_us));
    }

    /// Whether a deviation is open.
    pub fn is_deviating(&self) -> bool {
        each!(self, judge => judge.is_deviating())
    }

    /// Whether the point is known to be in control.
    pub fn is_in_control(&self) -> bool {
        each!(self, judge => judge.is_in_control())
    }

    /// Whether product is diverted during an out-of-limit value.
    pub fn is_diverted(&self) -> bool {
        matches!(self, Self::Limit(judge) if judge.is_diverted())
    }

    /// Time of the newest observation.
    pub fn newest_us(&self) -> Option<Micros> {
        each!(self, judge => judge.now_us)
    }

    /// The clock that times come from was set back by `by_us`.
    pub fn set_back(&mut self, by_us: Micros) {
        each!(self, judge => judge.set_back(by_us));
    }

    /// Takes one observation and says what follows from it.
    pub fn observe(&mut self, observation: Observation) -> Vec<Judgement> {
        each!(self, judge => judge.observe(observation))
    }
}
