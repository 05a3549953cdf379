//! What is known of one control point? Its judge, its gates and the alarms that it raises beside deviations: a stuck
//! sensor, a lost signal, diverted product, a cooling that will be late, and times in which nothing is judged.

use protocol::{
    Micros, Quality, Reading,
    event::{Alarm, Event},
    limit::{ControlJudge, CriticalLimit, Judgement, Observation, Phase, StuckDetector},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    PointStatus, SOURCE_CLOCK_US_MAX,
    config::{Gate, Point},
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

/// What of a control point outlives a restart.
#[derive(Serialize, Deserialize)]
struct Saved {
    judge: ControlJudge,
    alarms: OpenAlarms,
    is_paused: bool,
    is_held: bool,
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

    pub(super) fn snapshot(&self) -> Option<Vec<u8>> {
        let saved = Saved {
            judge: self.judge.clone(),
            alarms: self.alarms.clone(),
            is_paused: self.is_paused,
            is_held: self.is_held,
        };
        postcard::to_stdvec(&saved).ok()
    }

    pub(super) fn restore(
        &mut self,
        state: &[u8],
        now_us: Micros,
        new_id: NewId,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let code = &self.point.limit.ccp;
        let saved: Saved = postcard::from_bytes(state)
            .map_err(|error| format!("state of {code} cannot be read: {error}"))?;
        if saved.judge.kind() != self.point.kind {
            return Err(format!(
                "{code} is judged in another way than before: judging begins anew"
            ));
        }
        self.judge = saved.judge;
        (self.alarms, self.is_paused, self.is_held) = (saved.alarms, saved.is_paused, saved.is_held);
        let ahead_us = self.judge.newest_us().map_or(0, |newest_us| newest_us - now_us);
        if ahead_us > SOURCE_CLOCK_US_MAX {
            self.judge.set_back(ahead_us);
        }
        let (before, configured) = (self.judge.limit().clone(), self.point.limit.clone());
        if before.version > configured.version
            && let Ok(before) = super::limits::fitted(&configured, before.clone())
        {
            // Pushed, and perhaps not yet written to its file: a limit never goes back to an older version.
            self.point.limit = before;
        } else if before != configured {
            let said = self.judge.change_limit(configured);
            self.say(said, new_id, events);
        }
        Ok(())
    }

    pub(super) fn set_back(&mut self, by_us: Micros) {
        self.judge.set_back(by_us);
        self.newest_us = self.newest_us.saturating_sub(by_us);
        self.heard_us = self.heard_us.map(|heard_us| heard_us - by_us);
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
        let by_source = (reading.time_us - received_us).abs() <= SOURCE_CLOCK_US_MAX;
        let at_us = if by_source { reading.time_us } else { received_us };
        self.newest_us = self.newest_us.max(at_us);
        self.newest_us
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
        let mut quality = reading.quality;
        if quality.is_good() {
            self.heard_us = Some(received_us);
        }
        self.signal(received_us, new_id, events);
        if let (Some(detector), Some(value)) = (&mut self.detector, reading.value()) {
            // Once stuck it is stuck until it moves, also after a restart and with the reference at rest.
            let is_stuck =
                detector.watched(received_us, value) || self.alarms.stuck.is_some() && detector.is_still();
            if is_stuck {
                quality = Quality::BAD_SENSOR_FAILURE;
                reading.quality = Quality::UNCERTAIN_SENSOR;
            }
            self.stuck_alarm(is_stuck, at_us, new_id, events);
        }
        self.last = Some(*reading);
        let observation = Observation::Value {
            at_us,
            value: reading.value().unwrap_or(f64::NAN),
            quality,
        };
        self.judge(observation, new_id, events);
    }

    pub(super) fn tick(&mut self, now_us: Micros, new_id: NewId, events: &mut Vec<Event>) {
        self.signal(now_us, new_id, events);
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
            let said = self.judge.observe(observation);
            self.say(said, new_id, events);
        }
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

/// Whether the gate's tag has its value; none when that is not known for good.
fn is_at(gate: Gate, reading: &Reading) -> Option<bool> {
    let known = reading.value().filter(|_| reading.quality.is_good());
    known.map(|value| (value - gate.value).abs() < f64::EPSILON)
}
