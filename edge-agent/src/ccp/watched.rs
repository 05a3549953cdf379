//! What is known of one control point? Its judge, its gates and the alarms that it raises beside deviations: a stuck
//! sensor, a lost signal, diverted product, a cooling that will be late, and times in which nothing is judged.

mod saved;

use protocol::{
    Micros, Quality, Reading,
    event::{Alarm, Event},
    limit::{
        ControlJudge, ControlKind, CriticalLimit, Judgement, Observation, Phase, Stillness, StuckDetector,
    },
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    PointStatus, SOURCE_CLOCK_US_MAX,
    config::{Gate, Point},
    late::Late,
};

/// The signal counts as lost when no good reading came for so many quarters of the tag's period: late enough for a
/// poll's jitter, and with the pipeline's tick still within two periods.
const LOST_AFTER_QUARTERS: Micros = 7;

/// One control point while it is judged.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) point: Point,
    judge: ControlJudge,
    detector: Option<StuckDetector>,
    stillness: Stillness,
    /// Time of the last good reading, by which the next is known to be news.
    read_us: Option<Micros>,
    /// Time of the last good reading that met the limit, by its own time: on its way it may have been overtaken by the
    /// clock, and what it is evidence of is not later for that.
    met_us: Option<Micros>,
    late: Late,
    alarms: OpenAlarms,
    /// Nothing is judged in this state of the process.
    is_paused: bool,
    /// The output stays until a person resets the alarm.
    is_held: bool,
    newest_us: Micros,
    /// When the last good reading was received.
    heard_us: Option<Micros>,
    last: Option<Reading>,
    flowing: Option<bool>,
}

/// The alarms that are open, by their identities.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OpenAlarms {
    stuck: Option<Uuid>,
    diverted: Option<Uuid>,
    lost: Option<Uuid>,
    predicted: Option<Uuid>,
    not_judged: Option<Uuid>,
}

/// Gives identities to new alarms.
pub(super) type NewId = fn() -> Uuid;

impl Watched {
    pub(super) fn new(edge: &str, point: &Point) -> Self {
        Self {
            judge: ControlJudge::new(edge, point.limit.clone(), &point.kind),
            detector: point
                .stuck
                .map(|stuck| StuckDetector::new(stuck.window.as_micros() as Micros, stuck.floor)),
            stillness: Stillness::default(),
            read_us: None,
            met_us: None,
            late: Late::default(),
            point: point.clone(),
            alarms: OpenAlarms::default(),
            is_paused: false,
            is_held: false,
            newest_us: Micros::MIN,
            heard_us: None,
            last: None,
            flowing: None,
        }
    }

    pub(super) fn set_back(&mut self, by_us: Micros) {
        self.judge.set_back(by_us);
        self.newest_us = self.newest_us.saturating_sub(by_us);
        self.heard_us = self.heard_us.map(|heard_us| heard_us - by_us);
        self.read_us = self.read_us.map(|read_us| read_us - by_us);
        self.met_us = self.met_us.map(|met_us| met_us - by_us);
        self.stillness.set_back(by_us);
        self.late.set_back(by_us);
        if let Some(detector) = &mut self.detector {
            detector.set_back(by_us);
        }
    }

    pub(super) fn change_limit(
        &mut self,
        limit: CriticalLimit,
        now_us: Micros,
        new_id: NewId,
        events: &mut Vec<Event>,
    ) {
        tracing::info!(ccp = %limit.ccp, version = limit.version, at_us = now_us, "limit changed");
        self.point.limit = limit.clone();
        let said = self.judge.change_limit(limit);
        self.say(said, new_id, events);
    }

    pub(super) fn is_deviating(&self) -> bool {
        self.judge.is_deviating()
    }

    /// Whether the output is to be as on a deviation.
    pub(super) fn is_reacting(&self) -> bool {
        self.judge.is_deviating() || self.is_held
    }

    pub(super) fn release(&mut self) {
        self.is_held = false;
    }

    /// How far this point's readings may lag behind the clock.
    fn lag_us(&self) -> Micros {
        (self.point.limit.period_us / 2).min(SOURCE_CLOCK_US_MAX)
    }

    /// When an observation counts as made: never before the newest one.
    fn at_us(&mut self, reading: &Reading, received_us: Micros) -> Micros {
        self.newest_us = self.newest_us.max(made_us(reading, received_us));
        self.newest_us
    }

    /// Since when what this reading shows can have come about: since the good reading before it, which showed what was
    /// up to a period before its own time. Readings that come with every change bear the change's time.
    fn after_us(&mut self, reading: &Reading, received_us: Micros) -> Micros {
        let made_us = made_us(reading, received_us);
        let before_us = self.read_us.or(self.judge.newest_us()).unwrap_or(made_us);
        if reading.quality.is_good() {
            self.read_us = Some(made_us);
        }
        if self.point.limit.period_us == 0 {
            made_us
        } else {
            before_us.min(made_us) - self.point.limit.period_us
        }
    }

    /// Takes a reading that may be of a gate or a reference.
    pub(super) fn context(
        &mut self,
        reading: &Reading,
        received_us: Micros,
        new_id: NewId,
        events: &mut Vec<Event>,
    ) {
        if let Some(stuck) = self.point.stuck
            && stuck.reference == reading.tag
            && let (Some(detector), Some(value)) = (&mut self.detector, reading.value())
        {
            detector.reference(received_us, value);
        }
        if let Some(state) = self.point.not_during.filter(|state| state.tag == reading.tag) {
            // A state of the process that is not known for good stops no judging.
            self.pause(
                is_at(state, reading).unwrap_or(false),
                (reading, received_us),
                new_id,
                events,
            );
        }
        if let Some(gate) = self.point.gate.filter(|gate| gate.tag == reading.tag) {
            // A valve whose position is not known for good counts as open to product.
            let flowing = is_at(gate, reading).unwrap_or(true);
            self.flowing = Some(flowing);
            let at_us = self.at_us(reading, received_us);
            if !flowing {
                self.stillness.clear(at_us);
            }
            self.judge(Observation::Gate { at_us, flowing }, new_id, events);
        }
    }

    fn pause(
        &mut self,
        is_paused: bool,
        (reading, received_us): (&Reading, Micros),
        new_id: NewId,
        events: &mut Vec<Event>,
    ) {
        if is_paused == self.is_paused {
            return;
        }
        let at_us = self.at_us(reading, received_us);
        let message = if is_paused {
            let said = self.judge.pause();
            self.say(said, new_id, events);
            "not judged: the process is in a state without product"
        } else {
            self.judge.resume(at_us);
            self.stillness.clear(at_us);
            "judged again"
        };
        self.is_paused = is_paused;
        let held = self.alarms.not_judged;
        let told = (at_us, message);
        self.alarms.not_judged = self.alarm(held, "ccp.not_judged", is_paused, told, new_id, events);
    }

    /// Takes a reading of the monitored tag.
    pub(super) fn value(
        &mut self,
        reading: &mut Reading,
        received_us: Micros,
        new_id: NewId,
        events: &mut Vec<Event>,
    ) {
        let at_us = self.at_us(reading, received_us);
        let after_us = self.after_us(reading, received_us);
        let mut quality = reading.quality;
        if quality.is_good() {
            self.heard_us = Some(received_us);
        }
        self.signal(received_us, new_id, events);
        if self.flowing == Some(false) || self.is_paused {
            self.stillness.clear(at_us);
        }
        let is_stuck = self.is_stuck(reading, received_us);
        if is_stuck {
            quality = Quality::BAD_SENSOR_FAILURE;
            reading.quality = Quality::UNCERTAIN_SENSOR;
        }
        if self.detector.is_some() && reading.value().is_some() {
            self.stuck_alarm(is_stuck, at_us, new_id, events);
        }
        self.last = Some(*reading);
        let observation = Observation::Value {
            at_us,
            after_us,
            value: reading.value().unwrap_or(f64::NAN),
            quality,
        };
        self.judge(observation, new_id, events);
        let is_evidence = |value: f64| quality.is_good() && self.point.limit.is_met(value);
        if reading.value().is_some_and(is_evidence) {
            self.met_us = Some(made_us(reading, received_us));
        }
        if is_stuck && let Some(since_us) = self.stillness.since_us() {
            self.judge(Observation::NoEvidence { at_us, since_us }, new_id, events);
        }
    }

    /// Whether the sensor repeats itself. Once stuck it is stuck until it moves, also after a restart and with the
    /// reference at rest.
    fn is_stuck(&mut self, reading: &Reading, received_us: Micros) -> bool {
        let (Some(detector), Some(value)) = (&mut self.detector, reading.value()) else {
            return false;
        };
        let is_stuck =
            detector.watched(received_us, value) || self.alarms.stuck.is_some() && detector.is_still();
        if reading.quality.is_good() {
            let floor = self.point.stuck.map_or(0.0, |stuck| stuck.floor);
            self.stillness.value(made_us(reading, received_us), value, floor);
        }
        is_stuck
    }

    /// Takes readings of this point and its gate that their source handed over late.
    pub(super) fn late(&mut self, edge: &str, readings: &[Reading], received_us: Micros) -> Vec<Event> {
        self.late.take(edge, &self.point, readings, received_us)
    }

    pub(super) fn tick(&mut self, now_us: Micros, new_id: NewId, events: &mut Vec<Event>) {
        self.signal(now_us, new_id, events);
        events.extend(self.late.tick(now_us));
        // A published value may still be under way: time runs behind by what a source may lag.
        let at_us = now_us - self.lag_us();
        if at_us > self.newest_us {
            self.newest_us = at_us;
            self.judge(Observation::Tick { at_us }, new_id, events);
        }
    }

    /// Whether good readings still come: an alarm of its own, long before the gap is a deviation.
    fn signal(&mut self, now_us: Micros, new_id: NewId, events: &mut Vec<Event>) {
        let heard_us = *self.heard_us.get_or_insert(now_us);
        let period_us = self.point.limit.period_us;
        let is_lost = period_us > 0 && (now_us - heard_us) * 4 >= period_us * LOST_AFTER_QUARTERS;
        let message = if is_lost {
            "monitoring gap: no good reading since more than a period"
        } else {
            "good readings again"
        };
        let held = self.alarms.lost;
        let told = (now_us, message);
        self.alarms.lost = self.alarm(held, "ccp.signal_lost", is_lost, told, new_id, events);
    }

    fn stuck_alarm(&mut self, is_stuck: bool, at_us: Micros, new_id: NewId, events: &mut Vec<Event>) {
        let message = if is_stuck {
            "the value repeats itself while its reference moves: treated as not monitored"
        } else {
            "the value moves again"
        };
        let held = self.alarms.stuck;
        self.alarms.stuck = self.alarm(held, "sensor.stuck", is_stuck, (at_us, message), new_id, events);
    }

    /// Raises, keeps or clears an alarm; returns the one that is open afterwards.
    fn alarm(
        &self,
        held: Option<Uuid>,
        code: &str,
        active: bool,
        (at_us, message): (Micros, &str),
        new_id: NewId,
        events: &mut Vec<Event>,
    ) -> Option<Uuid> {
        let id = match (held, active) {
            (None, true) => new_id(),
            (Some(id), false) => id,
            (held, _) => return held,
        };
        let limit = &self.point.limit;
        let subject = if code == "sensor.stuck" {
            &limit.tag
        } else {
            &limit.ccp
        };
        events.push(Event::Alarm(Alarm {
            id,
            at_us,
            code: code.to_owned(),
            subject: subject.clone(),
            line: limit.line.clone(),
            active,
            message: message.to_owned(),
        }));
        active.then_some(id)
    }

    fn judge(&mut self, observation: Observation, new_id: NewId, events: &mut Vec<Event>) {
        if !self.is_paused {
            let mut said = self.judge.observe(observation);
            if let Some(since_us) = self.overtaken(&said) {
                let at_us = observation.at_us();
                said.extend(self.judge.observe(Observation::NoEvidence { at_us, since_us }));
            }
            self.say(said, new_id, events);
        }
    }

    /// Since when there is no evidence, when a deviation was just opened and the clock had overtaken the last good
    /// reading before it.
    fn overtaken(&self, said: &[Judgement]) -> Option<Micros> {
        let opened_us = said.iter().find_map(|judgement| match judgement {
            Judgement::Deviation(deviation) if deviation.phase == Phase::Opened => {
                Some(deviation.last_good_us)
            }
            _ => None,
        })?;
        let known_us = self
            .met_us?
            .max(self.stillness.cleared_us().unwrap_or(Micros::MIN));
        (self.point.kind == ControlKind::Limit && known_us < opened_us).then_some(known_us)
    }

    fn say(&mut self, said: Vec<Judgement>, new_id: NewId, events: &mut Vec<Event>) {
        for judgement in said {
            match judgement {
                Judgement::Check(check) => events.push(Event::CcpCheck(check)),
                Judgement::Deviation(deviation) => {
                    let holds = self
                        .point
                        .react
                        .as_ref()
                        .is_some_and(|react| react.hold_until_reset);
                    self.is_held |= holds && deviation.phase == Phase::Opened;
                    if deviation.phase == Phase::Closed {
                        self.stillness.hold(deviation.last_good_us, deviation.until_us);
                    }
                    events.push(Event::Deviation(deviation));
                }
                Judgement::Diverted { at_us, active } => {
                    let message = if active {
                        "out of limit with product diverted: no product is affected"
                    } else {
                        "product flows again"
                    };
                    let held = self.alarms.diverted;
                    self.alarms.diverted =
                        self.alarm(held, "ccp.diverted", active, (at_us, message), new_id, events);
                }
                Judgement::Predicted { at_us, active } => {
                    let message = if active {
                        "the batch will not be cold in time if it goes on like this"
                    } else {
                        "the batch is no longer expected to be late"
                    };
                    let held = self.alarms.predicted;
                    let told = (at_us, message);
                    self.alarms.predicted =
                        self.alarm(held, "ccp.cooling_predicted", active, told, new_id, events);
                }
            }
        }
    }

    pub(super) fn status(&self) -> PointStatus {
        let limit = &self.point.limit;
        let state = if self.judge.is_deviating() {
            "deviation"
        } else if self.is_paused {
            "not_judged"
        } else if self.judge.is_diverted() {
            "diverted"
        } else if self.judge.is_in_control() && self.last.is_some_and(|last| last.quality.is_good()) {
            "in_control"
        } else {
            "unknown"
        };
        PointStatus {
            code: limit.ccp.clone(),
            tag: limit.tag.clone(),
            state,
            value: self.last.and_then(|last| last.value()),
            quality: self.last.map(|last| last.quality.name()),
            time_us: self.last.map(|last| last.time_us),
            low: limit.low,
            high: limit.high,
            unit: limit.unit.clone(),
            flowing: self.flowing,
            stuck: self.alarms.stuck.is_some(),
            limit_version: limit.version,
            is_held: self.is_held,
        }
    }
}

/// When a reading was made: by its own time, unless its source's clock is wrong.
fn made_us(reading: &Reading, received_us: Micros) -> Micros {
    let by_source = (reading.time_us - received_us).abs() <= SOURCE_CLOCK_US_MAX;
    if by_source { reading.time_us } else { received_us }
}

/// Whether the gate's tag has its value; none when that is not known for good.
fn is_at(gate: Gate, reading: &Reading) -> Option<bool> {
    let known = reading.value().filter(|_| reading.quality.is_good());
    known.map(|value| (value - gate.value).abs() < f64::EPSILON)
}
