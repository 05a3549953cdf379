//! Are the critical control points in control? Routes readings to the judges of `protocol::limit` and turns what
//! they say into events. Pure: times and new identities are arguments. It runs on acquisition, before the spool,
//! and needs neither uplink nor disk.

pub mod config;

use protocol::{
    Micros, Quality, Reading,
    event::{Alarm, Event},
    limit::{Judge, Judgement, Observation, StuckDetector},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::config::Point;

/// A source time may be this far from the receive time and still be judged by; a source whose clock is wrong is
/// judged by the receive time, else its readings would count as old and the point as not monitored.
const SOURCE_CLOCK_US_MAX: Micros = 3_000_000;

/// All control points of one agent.
#[derive(Debug)]
pub struct Engine {
    edge: String,
    points: Vec<Watched>,
    new_id: fn() -> Uuid,
}

#[derive(Debug)]
struct Watched {
    point: Point,
    judge: Judge,
    detector: Option<StuckDetector>,
    /// The open `sensor.stuck` alarm.
    stuck: Option<Uuid>,
    /// The open `ccp.diverted` alarm.
    diverted: Option<Uuid>,
    newest_us: Micros,
    last: Option<Reading>,
    flowing: Option<bool>,
}

/// What of a control point outlives a restart.
#[derive(Serialize, Deserialize)]
struct Saved {
    judge: Judge,
    stuck: Option<Uuid>,
    diverted: Option<Uuid>,
}

/// A control point's state for the status page.
#[derive(Clone, Debug, Serialize)]
pub struct PointStatus {
    /// Code, `CCP-1`.
    pub code: String,
    /// Monitored tag.
    pub tag: String,
    /// `in_control`, `deviation`, `diverted` or `unknown`.
    pub state: &'static str,
    /// Last value, when there was a good one.
    pub value: Option<f64>,
    /// Quality of the last reading.
    pub quality: Option<&'static str>,
    /// Time of the last reading.
    pub time_us: Option<Micros>,
    /// Lower limit.
    pub low: Option<f64>,
    /// Upper limit.
    pub high: Option<f64>,
    /// Unit.
    pub unit: String,
    /// Whether product flows, when a gate tells.
    pub flowing: Option<bool>,
    /// Whether the sensor repeats itself.
    pub stuck: bool,
}

impl Engine {
    /// Judges that have seen nothing.
    pub fn new(edge: &str, points: &[Point], new_id: fn() -> Uuid) -> Self {
        Self {
            points: points.iter().map(|point| Watched::new(edge, point)).collect(),
            edge: edge.to_owned(),
            new_id,
        }
    }

    /// Judges these points from here on. A point that stays keeps its state, also when its limit changes.
    pub fn follow(&mut self, points: &[Point]) {
        let mut before = std::mem::take(&mut self.points);
        for point in points {
            let known = before
                .iter()
                .position(|watched| watched.point.limit.ccp == point.limit.ccp);
            let mut watched = known.map_or_else(
                || Watched::new(&self.edge, point),
                |place| before.swap_remove(place),
            );
            watched.follow(point);
            self.points.push(watched);
        }
    }

    /// Puts a state from [`snapshot`](Self::snapshot) back; the limit stays the configured one. A state that
    /// cannot be read, or of a point no longer configured, is named and ignored. One that lies ahead of `now_us`
    /// was saved before the clock was set back.
    ///
    /// # Errors
    /// The code, when the state could not be used.
    pub fn restore(&mut self, code: &str, state: &[u8], now_us: Micros) -> Result<(), String> {
        let watched = self
            .points
            .iter_mut()
            .find(|watched| watched.point.limit.ccp == code)
            .ok_or_else(|| format!("control point {code} is no longer configured"))?;
        let saved: Saved = postcard::from_bytes(state)
            .map_err(|error| format!("state of {code} cannot be read: {error}"))?;
        watched.judge = saved.judge;
        watched.judge.set_limit(watched.point.limit.clone());
        let ahead_us = watched
            .judge
            .newest_us()
            .map_or(0, |newest_us| newest_us - now_us);
        if ahead_us > SOURCE_CLOCK_US_MAX {
            watched.judge.set_back(ahead_us);
        }
        (watched.stuck, watched.diverted) = (saved.stuck, saved.diverted);
        Ok(())
    }

    /// The clock was set back by `by_us`: judging goes on from now, as if it had always been so.
    pub fn set_back(&mut self, by_us: Micros) {
        for watched in &mut self.points {
            watched.judge.set_back(by_us);
            watched.newest_us = watched.newest_us.saturating_sub(by_us);
            if let Some(detector) = &mut watched.detector {
                detector.set_back(by_us);
            }
        }
    }

    /// Every judge's state, by code.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        let states = self.points.iter().filter_map(|watched| {
            let saved = Saved {
                judge: watched.judge.clone(),
                stuck: watched.stuck,
                diverted: watched.diverted,
            };
            let state = postcard::to_stdvec(&saved).ok()?;
            Some((watched.point.limit.ccp.clone(), state))
        });
        states.collect()
    }

    /// Takes readings that arrived together. Gates and references come first, so that a value is judged by the
    /// valve position of its own poll.
    ///
    /// A stuck sensor is judged as failed (`bad.sensor_failure`: not monitored). Its stored readings keep their
    /// value and become `uncertain.sensor_not_accurate`: what the sensor said is evidence and stays readable.
    pub fn observe(&mut self, readings: &mut [Reading], received_us: Micros) -> Vec<Event> {
        let mut events = Vec::new();
        let new_id = self.new_id;
        for watched in &mut self.points {
            for reading in readings.iter() {
                watched.context(reading, received_us, new_id, &mut events);
            }
            let tag = watched.point.tag;
            for reading in readings.iter_mut().filter(|reading| reading.tag == tag) {
                watched.value(reading, received_us, new_id, &mut events);
            }
        }
        events
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_us: Micros) -> Vec<Event> {
        let mut events = Vec::new();
        for watched in &mut self.points {
            // A published value may still be under way: time runs behind by what a source may lag.
            let at_us = now_us - watched.lag_us();
            if at_us > watched.newest_us {
                watched.newest_us = at_us;
                watched.judge(Observation::Tick { at_us }, self.new_id, &mut events);
            }
        }
        events
    }

    /// The states for the status page.
    pub fn status(&self) -> Vec<PointStatus> {
        self.points.iter().map(Watched::status).collect()
    }
}

impl Watched {
    fn new(edge: &str, point: &Point) -> Self {
        Self {
            judge: Judge::new(edge, point.limit.clone()),
            detector: point.stuck.map(detector),
            point: point.clone(),
            stuck: None,
            diverted: None,
            newest_us: Micros::MIN,
            last: None,
            flowing: None,
        }
    }

    fn follow(&mut self, point: &Point) {
        if self.point.stuck != point.stuck {
            self.detector = point.stuck.map(detector);
        }
        if self.point.limit != point.limit {
            self.judge.set_limit(point.limit.clone());
        }
        self.point = point.clone();
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

    fn context(
        &mut self,
        reading: &Reading,
        received_us: Micros,
        new_id: fn() -> Uuid,
        events: &mut Vec<Event>,
    ) {
        if let Some(stuck) = self.point.stuck
            && stuck.reference == reading.tag
            && let (Some(detector), Some(value)) = (&mut self.detector, reading.value())
        {
            detector.reference(received_us, value);
        }
        if let Some(gate) = self.point.gate.filter(|gate| gate.tag == reading.tag) {
            // A valve whose position is not known for good counts as open to product.
            let known = reading.value().filter(|_| reading.quality.is_good());
            let flowing = known.is_none_or(|value| (value - gate.value).abs() < f64::EPSILON);
            self.flowing = Some(flowing);
            let at_us = self.at_us(reading, received_us);
            self.judge(Observation::Gate { at_us, flowing }, new_id, events);
        }
    }

    fn value(
        &mut self,
        reading: &mut Reading,
        received_us: Micros,
        new_id: fn() -> Uuid,
        events: &mut Vec<Event>,
    ) {
        let at_us = self.at_us(reading, received_us);
        let mut quality = reading.quality;
        if let (Some(detector), Some(value)) = (&mut self.detector, reading.value()) {
            // Once stuck it is stuck until it moves, also after a restart and with the reference at rest.
            let is_stuck =
                detector.watched(received_us, value) || self.stuck.is_some() && detector.is_still();
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

    fn stuck_alarm(&mut self, is_stuck: bool, at_us: Micros, new_id: fn() -> Uuid, events: &mut Vec<Event>) {
        let message = if is_stuck {
            "the value repeats itself while its reference moves: treated as not monitored"
        } else {
            "the value moves again"
        };
        let held = self.stuck;
        self.stuck = self.alarm(held, "sensor.stuck", is_stuck, (at_us, message), new_id, events);
    }

    /// Raises, keeps or clears an alarm; returns the one that is open afterwards.
    fn alarm(
        &self,
        held: Option<Uuid>,
        code: &str,
        active: bool,
        (at_us, message): (Micros, &str),
        new_id: fn() -> Uuid,
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

    fn judge(&mut self, observation: Observation, new_id: fn() -> Uuid, events: &mut Vec<Event>) {
        for judgement in self.judge.observe(observation) {
            match judgement {
                Judgement::Check(check) => events.push(Event::CcpCheck(check)),
                Judgement::Deviation(deviation) => events.push(Event::Deviation(deviation)),
                Judgement::Diverted { at_us, active } => {
                    let message = if active {
                        "out of limit with product diverted: no product is affected"
                    } else {
                        "product flows again"
                    };
                    let held = self.diverted;
                    self.diverted =
                        self.alarm(held, "ccp.diverted", active, (at_us, message), new_id, events);
                }
            }
        }
    }

    fn status(&self) -> PointStatus {
        let limit = &self.point.limit;
        let state = if self.judge.is_deviating() {
            "deviation"
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
            stuck: self.stuck.is_some(),
        }
    }
}

fn detector(stuck: config::Stuck) -> StuckDetector {
    StuckDetector::new(stuck.window.as_micros() as Micros, stuck.floor)
}

/// Whether an event is part of the legal record and goes to the journal too.
pub fn is_record(event: &Event) -> bool {
    match event {
        Event::CcpCheck(_)
        | Event::Deviation(_)
        | Event::CommandResult(_)
        | Event::ManualEntry(_)
        | Event::ClockStep(_) => true,
        Event::Alarm(alarm) => alarm.code.starts_with("ccp.") || alarm.code == "sensor.stuck",
        Event::AlarmChange(change) => change.code.starts_with("ccp.") || change.code == "sensor.stuck",
        Event::Inspection(_) | Event::NotRead(_) | Event::Gap(_) | Event::CertificateRequest(_) => false,
    }
}

#[cfg(test)]
mod tests;
