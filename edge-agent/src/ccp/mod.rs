//! Are the critical control points in control? Routes readings to the judges of `protocol::limit` and turns what
//! they say into events. Pure: times and new identities are arguments. It runs on acquisition, before the spool,
//! and needs neither uplink nor disk.

pub mod config;
mod config_kind;
mod late;
pub mod limits;
mod watched;

use std::collections::BTreeMap;

use protocol::{
    Micros, Reading,
    event::Event,
    limit::{ControlKind, CriticalLimit},
};
use serde::Serialize;
use uuid::Uuid;

use self::{config::Point, watched::Watched};

/// A source time may be this far from the receive time and still be judged by; a source whose clock is wrong is
/// judged by the receive time, else its readings would count as old and the point as not monitored.
const SOURCE_CLOCK_US_MAX: Micros = 3_000_000;

/// What is to be written to the outputs, by name.
pub type Wanted = BTreeMap<String, f64>;

/// All control points of one agent.
#[derive(Debug)]
pub struct Engine {
    edge: String,
    points: Vec<Watched>,
    new_id: fn() -> Uuid,
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
    /// Version of the limit in force.
    pub limit_version: u32,
    /// Whether its output waits for a person to reset the alarm.
    pub is_held: bool,
}

impl Engine {
    /// Judges that have seen nothing.
    pub fn new(edge: &str, points: &[Point], new_id: fn() -> Uuid) -> Self {
        Self {
            edge: edge.to_owned(),
            points: points.iter().map(|point| Watched::new(edge, point)).collect(),
            new_id,
        }
    }

    /// Puts a state from [`snapshot`](Self::snapshot) back. Of the limit it was judged by and the one in force now
    /// the higher version goes on; a change ends the window that was open. A state that cannot be read, or of a
    /// point no longer configured, is named and ignored. One that lies ahead of `now_us` was saved before the clock
    /// was set back.
    ///
    /// # Errors
    /// The code, when the state could not be used.
    pub fn restore(&mut self, code: &str, state: &[u8], now_us: Micros) -> Result<Vec<Event>, String> {
        let new_id = self.new_id;
        let watched = self
            .points
            .iter_mut()
            .find(|watched| watched.point.limit.ccp == code)
            .ok_or_else(|| format!("control point {code} is no longer configured"))?;
        let mut events = Vec::new();
        watched.restore(state, now_us, new_id, &mut events)?;
        Ok(events)
    }

    /// Puts pushed limits in force, all or none. Each must be newer than the one in force; the same again changes
    /// nothing. Windows of monitoring end at the change, so that every record bears the version that its readings
    /// were judged by.
    ///
    /// # Errors
    /// Names the control point and what does not fit; nothing was changed then.
    pub fn set_limits(&mut self, limits: Vec<CriticalLimit>, now_us: Micros) -> Result<Vec<Event>, String> {
        let mut changes = Vec::new();
        for limit in limits {
            let index = self
                .points
                .iter()
                .position(|watched| watched.point.limit.ccp == limit.ccp)
                .ok_or_else(|| format!("there is no control point {} on edge {}", limit.ccp, self.edge))?;
            let known = &self.points[index].point.limit;
            let limit = limits::fitted(known, limit)?;
            if limit == *known {
                continue;
            }
            if limit.version <= known.version {
                return Err(format!(
                    "{}: version {} is not newer than version {}, which is in force",
                    known.ccp, limit.version, known.version
                ));
            }
            if changes.iter().any(|(changed, _)| *changed == index) {
                return Err(format!("{} is named twice", known.ccp));
            }
            changes.push((index, limit));
        }
        let mut events = Vec::new();
        for (index, limit) in changes {
            self.points[index].change_limit(limit, now_us, self.new_id, &mut events);
        }
        Ok(events)
    }

    /// The limits in force.
    pub fn limits(&self) -> Vec<CriticalLimit> {
        let limits = self.points.iter().map(|watched| watched.point.limit.clone());
        limits.collect()
    }

    /// What the outputs are to be, now. Of several control points with one output any deviation counts.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new();
        let reacting = |watched: &&Watched| watched.is_reacting();
        for react in self
            .points
            .iter()
            .filter_map(|watched| watched.point.react.as_ref())
        {
            wanted.insert(react.output.clone(), react.on_clear);
        }
        for react in self
            .points
            .iter()
            .filter(reacting)
            .filter_map(|watched| watched.point.react.as_ref())
        {
            wanted.insert(react.output.clone(), react.on_deviation);
        }
        wanted
    }

    /// The control points with an open deviation.
    pub fn deviating(&self) -> Vec<String> {
        let deviating = self.points.iter().filter(|watched| watched.is_deviating());
        deviating.map(|watched| watched.point.limit.ccp.clone()).collect()
    }

    /// A person reset an alarm of this control point: an output that was held is released, unless the deviation is
    /// still open.
    pub fn release(&mut self, code: &str) {
        let found = self
            .points
            .iter_mut()
            .find(|watched| watched.point.limit.ccp == code);
        if let Some(watched) = found {
            watched.release();
        }
    }

    /// The clock was set back by `by_us`: judging goes on from now, as if it had always been so.
    pub fn set_back(&mut self, by_us: Micros) {
        self.points.iter_mut().for_each(|watched| watched.set_back(by_us));
    }

    /// Every judge's state, by code.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        let states = self
            .points
            .iter()
            .filter_map(|watched| Some((watched.point.limit.ccp.clone(), watched.snapshot()?)));
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

    /// Judges readings that their source handed over late (a replay, a PLC that buffered): retroactively, beside
    /// what was judged as it came. A deviation in them is told with `detected_us` far behind `until_us`; no earlier
    /// record is changed.
    pub fn observe_late(&mut self, readings: &[Reading], received_us: Micros) -> Vec<Event> {
        let points = self
            .points
            .iter_mut()
            .filter(|watched| watched.point.kind == ControlKind::Limit);
        points
            .flat_map(|watched| watched.late(&self.edge, readings, received_us))
            .collect()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_us: Micros) -> Vec<Event> {
        let mut events = Vec::new();
        for watched in &mut self.points {
            watched.tick(now_us, self.new_id, &mut events);
        }
        events
    }

    /// The states for the status page.
    pub fn status(&self) -> Vec<PointStatus> {
        self.points.iter().map(Watched::status).collect()
    }
}

/// Whether an event is part of the legal record and goes to the journal too.
pub fn is_record(event: &Event) -> bool {
    match event {
        Event::CcpCheck(_)
        | Event::Deviation(_)
        | Event::CommandResult(_)
        | Event::ManualEntry(_)
        | Event::AlarmChange(_)
        | Event::ClockStep(_) => true,
        Event::Alarm(alarm) => {
            let also = [
                "sensor.stuck",
                "output.failed",
                "source.clock_skew",
                "manual.missed",
            ];
            alarm.code.starts_with("ccp.") || also.contains(&alarm.code.as_str())
        }
        Event::Inspection(_) | Event::NotRead(_) | Event::Gap(_) | Event::CertificateRequest(_) => false,
    }
}

#[cfg(test)]
mod tests;
