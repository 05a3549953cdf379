//! What does one more observation mean for a critical control point? The state machine: pure, serialisable,
//! the same on the edge and on the hub, so that a verdict can be replayed byte for byte.
//!
//! ```text
//! Starting ──good──▶ InControl ◀──clear value── Deviating
//!     │                 │  ▲                        ▲
//!     │            out  ▼  │ good                   │ longer than `delay` with product flowing
//!     │               OutOfLimit ───────────────────┤
//!     └── nothing good for `gap_max` ───────────────┘   (also from InControl and OutOfLimit)
//! ```
//! While the gate says that product is diverted nothing is judged against product: the time counts as safe.
//! An observation older than the newest one changes nothing here; late data is judged by replaying it in order. Values
//! that turn out to be no evidence (their sensor was stuck) take back what was known from them: the window reaches back.

use serde::{Deserialize, Serialize};

use super::{
    Check, CheckVerdict, CriticalLimit, Deviation, DeviationKind, Phase,
    record::{self, EXTEND_EVERY_US},
};
use crate::{quality::Quality, reading::Micros};

/// Something the judge is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observation {
    /// A reading of the monitored tag, good or not.
    Value {
        /// Source time.
        at_us: Micros,
        /// When the usable reading before it was made, at most `at_us`: what it shows came about since then. That of
        /// an event is its own time.
        after_us: Micros,
        /// The value; ignored unless the quality is good.
        value: f64,
        /// Only good values are judged; anything else counts as not monitored.
        quality: Quality,
    },
    /// Whether product flows past the control point. Say `true` when unknown: unknown is not safe.
    Gate {
        /// Source time.
        at_us: Micros,
        /// Product flows.
        flowing: bool,
    },
    /// Time passed.
    Tick {
        /// Now.
        at_us: Micros,
    },
    /// The values since then turned out to be no evidence: their sensor repeats itself.
    NoEvidence {
        /// When that was found.
        at_us: Micros,
        /// The last time up to which the values are evidence.
        since_us: Micros,
    },
}

impl Observation {
    /// When it was made.
    pub fn at_us(&self) -> Micros {
        let (Self::Value { at_us, .. }
        | Self::Gate { at_us, .. }
        | Self::Tick { at_us }
        | Self::NoEvidence { at_us, .. }) = self;
        *at_us
    }
}

/// Something the judge says.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// A window of monitoring ended.
    Check(Check),
    /// A deviation opened, grew or closed.
    Deviation(Deviation),
    /// Product was diverted because of (or during) an out-of-limit value, or flows again.
    Diverted {
        /// When.
        at_us: Micros,
        /// Diverted now, or back to normal.
        active: bool,
    },
    /// A limit will be missed if things go on like this, or no longer.
    Predicted {
        /// When this was found.
        at_us: Micros,
        /// It will be missed, or no longer.
        active: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    /// No good value yet.
    Starting,
    /// The last good value met the limit.
    InControl,
    /// Out of limit with product flowing since this time, not yet for longer than the delay; or diverted.
    OutOfLimit {
        flowing_since_us: Option<Micros>,
        extreme: f64,
    },
    /// A deviation is open.
    Deviating {
        kind: DeviationKind,
        opened: Box<Deviation>,
        extended_us: Micros,
    },
}

/// Judges one critical control point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    edge: String,
    pub(super) limit: CriticalLimit,
    state: State,
    flowing: bool,
    diverted: bool,
    /// Newest observation.
    pub(super) now_us: Option<Micros>,
    /// Last time product was known to be safe: a good value in limit, or product diverted.
    safe_us: Option<Micros>,
    /// Last good value, in limit or not.
    read_us: Option<Micros>,
    last_bad: Quality,
    window: Window,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Window {
    from_us: Option<Micros>,
    values: Option<(f64, f64, f64)>,
    good: u32,
    bad: u32,
    out: bool,
    deviating: bool,
    unmonitored: bool,
}

impl Judge {
    /// A judge that has seen nothing.
    pub fn new(edge: &str, limit: CriticalLimit) -> Self {
        Self {
            edge: edge.to_owned(),
            limit,
            state: State::Starting,
            flowing: true,
            diverted: false,
            now_us: None,
            safe_us: None,
            read_us: None,
            last_bad: Quality::BAD,
            window: Window::default(),
        }
    }

    /// Puts another version of the limit in force from the next observation on. The window so far is ended, so that
    /// every record bears the version that its readings were judged by; an open deviation stays open under its own.
    pub fn change_limit(&mut self, limit: CriticalLimit) -> Vec<Judgement> {
        let said = self.cut_window();
        self.limit = limit;
        said.into_iter().collect()
    }

    /// The process enters a state in which nothing is judged: the window so far is ended. Nothing may be observed
    /// until [`resume`](Self::resume).
    pub fn pause(&mut self) -> Vec<Judgement> {
        let mut said: Vec<Judgement> = self.cut_window().into_iter().collect();
        self.window = Window::default();
        if let Some(now_us) = self.now_us {
            self.set_diverted(now_us, false, &mut said);
        }
        if !self.is_deviating() {
            self.state = State::Starting;
        }
        said
    }

    /// Judging goes on: product is suspect from here on at the earliest, unless a deviation is open.
    pub fn resume(&mut self, at_us: Micros) {
        let at_us = self.now_us.map_or(at_us, |now_us| now_us.max(at_us));
        self.now_us = Some(at_us);
        self.window.from_us = Some(at_us);
        if !self.is_deviating() {
            self.safe_us = Some(at_us);
        }
    }

    /// Ends the window just behind the newest observation.
    fn cut_window(&mut self) -> Option<Judgement> {
        let (from_us, now_us) = (self.window.from_us?, self.now_us?);
        let ended = std::mem::take(&mut self.window);
        self.window.from_us = Some(now_us + 1);
        Some(Judgement::Check(self.check(&ended, from_us, now_us + 1)))
    }

    /// Whether a deviation is open.
    pub fn is_deviating(&self) -> bool {
        matches!(self.state, State::Deviating { .. })
    }

    /// Whether the last good value met the limit and none has been missing for too long.
    pub fn is_in_control(&self) -> bool {
        self.state == State::InControl
    }

    /// Whether product is diverted during an out-of-limit value.
    pub fn is_diverted(&self) -> bool {
        self.diverted
    }

    /// The clock that times come from was set back by `by_us`: all that was seen keeps its distance from now.
    /// Without this nothing would be judged until the clock is again where it was. What an open deviation is
    /// called does not change.
    pub fn set_back(&mut self, by_us: Micros) {
        let mut seen = vec![
            &mut self.now_us,
            &mut self.safe_us,
            &mut self.read_us,
            &mut self.window.from_us,
        ];
        match &mut self.state {
            State::OutOfLimit { flowing_since_us, .. } => seen.push(flowing_since_us),
            State::Deviating {
                opened, extended_us, ..
            } => {
                opened.last_good_us -= by_us;
                opened.detected_us -= by_us;
                opened.until_us -= by_us;
                *extended_us -= by_us;
            }
            State::Starting | State::InControl => {}
        }
        seen.into_iter().flatten().for_each(|time_us| *time_us -= by_us);
    }

    /// Takes one observation and says what follows from it.
    pub fn observe(&mut self, observation: Observation) -> Vec<Judgement> {
        let at_us = observation.at_us();
        if self.now_us.is_some_and(|now_us| at_us < now_us) {
            return Vec::new();
        }
        let mut said = self.end_window(at_us);
        self.now_us = Some(at_us);
        match observation {
            Observation::Value { value, quality, .. } if quality.is_good() && value.is_finite() => {
                self.good_value(at_us, value, &mut said);
            }
            Observation::Value { quality, .. } => {
                self.window.bad += 1;
                self.last_bad = if quality.is_good() {
                    Quality::BAD_OUT_OF_RANGE
                } else {
                    quality
                };
            }
            Observation::Gate { flowing, .. } => self.gate(at_us, flowing, &mut said),
            Observation::Tick { .. } => {}
            Observation::NoEvidence { since_us, .. } => self.disprove(at_us, since_us, &mut said),
        }
        self.check_gap(at_us, &mut said);
        self.extend(at_us, &mut said);
        said
    }

    /// What was taken for a good value since then was none: the point is unmonitored since. Records that were made are
    /// not changed; a deviation that is open reaches back.
    fn disprove(&mut self, at_us: Micros, since_us: Micros, said: &mut Vec<Judgement>) {
        let known = [&mut self.safe_us, &mut self.read_us].into_iter().flatten();
        known.for_each(|known_us| *known_us = since_us.min(*known_us));
        if let State::Deviating {
            opened, extended_us, ..
        } = &mut self.state
            && since_us < opened.last_good_us
        {
            opened.last_good_us = since_us;
            *extended_us = at_us;
            said.push(Judgement::Deviation(Deviation {
                phase: Phase::Extended,
                until_us: at_us,
                ..(**opened).clone()
            }));
        }
    }

    fn good_value(&mut self, at_us: Micros, value: f64, said: &mut Vec<Judgement>) {
        // A gap that nobody ticked through (the agent was down) is found before the value counts.
        self.check_gap(at_us, said);
        self.read_us = Some(at_us);
        self.window.good += 1;
        let (low, high) = self
            .window
            .values
            .map_or((value, value), |(low, high, _)| (low.min(value), high.max(value)));
        self.window.values = Some((low, high, value));
        let (is_met, is_clear) = (self.limit.is_met(value), self.limit.is_clear(value));
        self.window.out |= !is_met;
        match &mut self.state {
            State::Deviating {
                kind,
                opened,
                extended_us,
            } => {
                if !is_met {
                    opened.value_extreme = Some(self.limit.further_out(opened.value_extreme, value));
                    if *kind != DeviationKind::Limit {
                        // The value is back and it is bad: from here on it is the limit that is breached.
                        *kind = DeviationKind::Limit;
                        opened.kind = DeviationKind::Limit;
                        *extended_us = at_us;
                        said.push(Judgement::Deviation(Deviation {
                            phase: Phase::Extended,
                            until_us: at_us,
                            ..(**opened).clone()
                        }));
                    }
                }
                if is_clear {
                    self.close(at_us, said);
                }
            }
            _ if is_met => {
                self.state = State::InControl;
                self.safe_us = Some(at_us);
                self.set_diverted(at_us, false, said);
            }
            _ => self.out_of_limit(at_us, value, said),
        }
    }

    fn out_of_limit(&mut self, at_us: Micros, value: f64, said: &mut Vec<Judgement>) {
        let (since, extreme) = match &self.state {
            State::OutOfLimit {
                flowing_since_us,
                extreme,
            } => (*flowing_since_us, self.limit.further_out(Some(*extreme), value)),
            _ => (None, value),
        };
        if !self.flowing {
            self.state = State::OutOfLimit {
                flowing_since_us: None,
                extreme,
            };
            self.safe_us = Some(at_us);
            self.set_diverted(at_us, true, said);
            return;
        }
        let since_us = since.unwrap_or(at_us);
        self.state = State::OutOfLimit {
            flowing_since_us: Some(since_us),
            extreme,
        };
        if self.limit.delay_us == 0 || at_us - since_us > self.limit.delay_us {
            self.open(at_us, DeviationKind::Limit, Some(extreme), Quality::GOOD, said);
        }
    }

    fn gate(&mut self, at_us: Micros, flowing: bool, said: &mut Vec<Judgement>) {
        self.flowing = flowing;
        if self.is_deviating() {
            return;
        }
        if flowing {
            if let State::OutOfLimit { flowing_since_us, .. } = &mut self.state {
                flowing_since_us.get_or_insert(at_us);
            }
            self.set_diverted(at_us, false, said);
            return;
        }
        self.safe_us = Some(at_us);
        if let State::OutOfLimit { flowing_since_us, .. } = &mut self.state {
            *flowing_since_us = None;
            self.set_diverted(at_us, true, said);
        }
    }

    fn check_gap(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        let safe_us = *self.safe_us.get_or_insert(at_us);
        // Out of limit but read: that is judged by value and delay, not as missing.
        let (since_us, extreme) = match &self.state {
            State::OutOfLimit { extreme, .. } => (
                self.read_us.map_or(safe_us, |read_us| read_us.max(safe_us)),
                Some(*extreme),
            ),
            _ => (safe_us, None),
        };
        if self.is_deviating() || !self.flowing || at_us - since_us <= self.limit.gap_us_max {
            return;
        }
        let kind = if self.last_bad == Quality::BAD_SENSOR_FAILURE {
            DeviationKind::SensorStuck
        } else {
            DeviationKind::MonitoringGap
        };
        self.open(at_us, kind, extreme, self.last_bad, said);
    }

    fn open(
        &mut self,
        at_us: Micros,
        kind: DeviationKind,
        extreme: Option<f64>,
        quality: Quality,
        said: &mut Vec<Judgement>,
    ) {
        let last_good_us = self.safe_us.unwrap_or(at_us);
        let point = (self.edge.as_str(), &self.limit);
        let deviation = record::opened(point, kind, (last_good_us, at_us), (extreme, quality));
        self.window.deviating |= kind == DeviationKind::Limit;
        self.window.unmonitored |= kind != DeviationKind::Limit;
        said.push(Judgement::Deviation(deviation.clone()));
        self.state = State::Deviating {
            kind,
            opened: Box::new(deviation),
            extended_us: at_us,
        };
    }

    fn extend(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        let State::Deviating {
            kind,
            opened,
            extended_us,
        } = &mut self.state
        else {
            return;
        };
        self.window.deviating |= *kind == DeviationKind::Limit;
        self.window.unmonitored |= *kind != DeviationKind::Limit;
        if at_us - *extended_us >= EXTEND_EVERY_US {
            *extended_us = at_us;
            said.push(Judgement::Deviation(Deviation {
                phase: Phase::Extended,
                until_us: at_us,
                ..(**opened).clone()
            }));
        }
    }

    fn close(&mut self, at_us: Micros, said: &mut Vec<Judgement>) {
        if let State::Deviating { opened, .. } = &self.state {
            said.push(Judgement::Deviation(Deviation {
                phase: Phase::Closed,
                until_us: at_us,
                ..(**opened).clone()
            }));
        }
        self.state = State::InControl;
        self.safe_us = Some(at_us);
        self.last_bad = Quality::BAD;
    }

    fn set_diverted(&mut self, at_us: Micros, active: bool, said: &mut Vec<Judgement>) {
        if self.diverted != active {
            self.diverted = active;
            said.push(Judgement::Diverted { at_us, active });
        }
    }

    /// Writes the check of a window that `at_us` lies beyond, and starts the next on a whole multiple.
    fn end_window(&mut self, at_us: Micros) -> Vec<Judgement> {
        let every_us = self.limit.check_every_us;
        let Some(from_us) = self.window.from_us else {
            self.window.from_us = Some(at_us);
            return Vec::new();
        };
        let to_us = (from_us.div_euclid(every_us) + 1) * every_us;
        if at_us < to_us {
            return Vec::new();
        }
        let ended = std::mem::take(&mut self.window);
        // After an outage the window runs to where the new one starts: no time is left without a record.
        let start_us = at_us.div_euclid(every_us) * every_us;
        self.window.from_us = Some(start_us);
        vec![Judgement::Check(self.check(&ended, from_us, start_us))]
    }

    fn check(&self, window: &Window, from_us: Micros, to_us: Micros) -> Check {
        let verdict = if window.deviating {
            CheckVerdict::NotMet
        } else if window.unmonitored || window.good == 0 {
            CheckVerdict::NotMonitored
        } else if window.out {
            CheckVerdict::Diverted
        } else {
            CheckVerdict::Met
        };
        let seen = (window.values, window.good, window.bad);
        record::check(&self.limit, (from_us, to_us), verdict, seen)
    }
}

impl CriticalLimit {
    /// Of two values, the one further out of (or nearer to) the limit.
    fn further_out(&self, known: Option<f64>, value: f64) -> f64 {
        known
            .filter(|known| self.margin(*known) <= self.margin(value))
            .unwrap_or(value)
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
