//! What do the judges have in common? The deviation that is open, and the count of what was seen in a window.

use serde::{Deserialize, Serialize};

use super::{Check, CheckVerdict, CriticalLimit, Deviation, DeviationKind, Judgement, Phase, deviation_id};
use crate::{quality::Quality, reading::Micros};

/// How often an open deviation reports that its window grew.
pub(super) const EXTEND_EVERY_US: Micros = 10_000_000;

/// The deviation of a control point that is open, when there is one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct OpenDeviation {
    open: Option<Box<Deviation>>,
    told_us: Micros,
}

impl OpenDeviation {
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn kind(&self) -> Option<DeviationKind> {
        self.open.as_ref().map(|open| open.kind)
    }

    /// Opens one, unless one is open.
    pub(super) fn open(
        &mut self,
        (edge, limit): (&str, &CriticalLimit),
        kind: DeviationKind,
        (last_good_us, detected_us): (Micros, Micros),
        (value_extreme, quality): (Option<f64>, Quality),
        said: &mut Vec<Judgement>,
    ) {
        if self.open.is_some() {
            return;
        }
        let found = (last_good_us, detected_us);
        let deviation = opened((edge, limit), kind, found, (value_extreme, quality));
        said.push(Judgement::Deviation(deviation.clone()));
        self.told_us = detected_us;
        self.open = Some(Box::new(deviation));
    }

    /// It turns out to be of another kind.
    pub(super) fn turn(
        &mut self,
        kind: DeviationKind,
        at_us: Micros,
        value_extreme: Option<f64>,
        said: &mut Vec<Judgement>,
    ) {
        if let Some(open) = self.open.as_mut().filter(|open| open.kind != kind) {
            open.kind = kind;
            open.value_extreme = value_extreme;
            self.told_us = at_us;
            said.push(self.tell(Phase::Extended, at_us));
        }
    }

    /// Tells now and then that the window grew.
    pub(super) fn extend(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        if self.is_open() && at_us - self.told_us >= EXTEND_EVERY_US {
            self.told_us = at_us;
            said.push(self.tell(Phase::Extended, at_us));
        }
    }

    pub(super) fn close(&mut self, until_us: Micros, said: &mut Vec<Judgement>) {
        if self.is_open() {
            said.push(self.tell(Phase::Closed, until_us));
            self.open = None;
        }
    }

    fn tell(&self, phase: Phase, until_us: Micros) -> Judgement {
        let open = self.open.as_deref().expect("called only while one is open");
        Judgement::Deviation(Deviation {
            phase,
            until_us,
            ..open.clone()
        })
    }

    pub(super) fn set_back(&mut self, by_us: Micros) {
        self.told_us -= by_us;
        if let Some(open) = &mut self.open {
            open.last_good_us -= by_us;
            open.detected_us -= by_us;
            open.until_us -= by_us;
        }
    }
}

/// What was seen since a window began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    values: Option<(f64, f64, f64)>,
    pub(super) good: u32,
    pub(super) bad: u32,
}

impl Tally {
    pub(super) fn good(&mut self, value: f64) {
        self.good += 1;
        let (low, high) = self
            .values
            .map_or((value, value), |(low, high, _)| (low.min(value), high.max(value)));
        self.values = Some((low, high, value));
    }

    /// Least and greatest good value.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        self.values.map(|(low, high, _)| (low, high))
    }

    /// The record of a window that ended, and a fresh start.
    pub(super) fn end(
        &mut self,
        limit: &CriticalLimit,
        (from_us, to_us): (Micros, Micros),
        verdict: CheckVerdict,
    ) -> Judgement {
        let ended = std::mem::take(self);
        let seen = (ended.values, ended.good, ended.bad);
        Judgement::Check(check(limit, (from_us, to_us), verdict, seen))
    }

    /// The record of a window that ends just behind the newest observation; the next begins there.
    pub(super) fn cut(
        &mut self,
        limit: &CriticalLimit,
        window_us: &mut Micros,
        now_us: Micros,
        verdict: CheckVerdict,
    ) -> Judgement {
        let from_us = std::mem::replace(window_us, now_us + 1);
        self.end(limit, (from_us, *window_us), verdict)
    }
}

/// Least, greatest and last good value of a window; good and bad readings.
pub(super) type Seen = (Option<(f64, f64, f64)>, u32, u32);

/// The record of a window of monitoring: what was due and did not come is counted.
pub(super) fn check(
    limit: &CriticalLimit,
    (from_us, to_us): (Micros, Micros),
    verdict: CheckVerdict,
    (values, good, bad): Seen,
) -> Check {
    let due = if limit.period_us > 0 {
        (to_us - from_us) / limit.period_us
    } else {
        0
    };
    let came = i64::from(good) + i64::from(bad);
    Check {
        ccp: limit.ccp.clone(),
        from_us,
        to_us,
        verdict,
        value_min: values.map(|(low, _, _)| low),
        value_max: values.map(|(_, high, _)| high),
        value_last: values.map(|(_, _, last)| last),
        good,
        bad,
        missing: u32::try_from((due - came).max(0)).unwrap_or(u32::MAX),
        limit_version: limit.version,
    }
}

/// A deviation that is found now, at the point of this edge that has this limit.
pub(super) fn opened(
    (edge, limit): (&str, &CriticalLimit),
    kind: DeviationKind,
    (last_good_us, detected_us): (Micros, Micros),
    (value_extreme, quality): (Option<f64>, Quality),
) -> Deviation {
    Deviation {
        id: deviation_id(edge, &limit.ccp, last_good_us),
        ccp: limit.ccp.clone(),
        kind,
        phase: Phase::Opened,
        detected_us,
        last_good_us,
        until_us: detected_us,
        value_extreme,
        limit_low: limit.low,
        limit_high: limit.high,
        limit_version: limit.version,
        quality,
    }
}
