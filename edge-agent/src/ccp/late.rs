//! Was the control point in control in readings that came late? Judged in a pass of their own, in order of their
//! source times, by the limit in force when the pass began; only deviations are told, with the time at which they were
//! found. A source may hand over what it kept in one message or in thousands: the pass goes on until none came for a while.

use protocol::{
    Micros, Reading,
    event::Event,
    limit::{CriticalLimit, Deviation, Judge, Judgement, Observation, Phase},
};
use serde::{Deserialize, Serialize};

use super::config::Point;

/// Nothing is a gap here: what is missing between late readings may have come in time.
const NO_GAP_US: Micros = Micros::MAX / 8;
/// A pass ends when no late reading came for so long.
const PAUSE_US: Micros = 10_000_000;

/// Judges late readings of one control point; outlives a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Late {
    pass: Option<Box<Pass>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pass {
    judge: Judge,
    /// Source time of the newest late reading.
    newest_us: Micros,
    /// When it came.
    received_us: Micros,
    /// The deviation that is open in it.
    open: Option<Deviation>,
}

impl Late {
    /// Takes readings that came late, of any tag. What is older than the newest late one belongs to another pass.
    pub(super) fn take(
        &mut self,
        edge: &str,
        point: &Point,
        readings: &[Reading],
        received_us: Micros,
    ) -> Vec<Event> {
        let mut ours: Vec<&Reading> = readings
            .iter()
            .filter(|reading| is_ours(point, reading))
            .collect();
        // Gates first: a value is judged by the valve position of its own time.
        ours.sort_by_key(|reading| (reading.time_us, reading.tag == point.tag));
        let mut events = self.tick(received_us);
        for reading in ours {
            if self
                .pass
                .as_ref()
                .is_some_and(|pass| reading.time_us < pass.newest_us)
            {
                events.extend(self.end(received_us));
            }
            let pass = self.pass.get_or_insert_with(|| Box::new(Pass::new(edge, point)));
            pass.take(point, reading, received_us, &mut events);
        }
        events
    }

    /// Lets time pass: a deviation that is open when nothing more comes ends with the last late reading. What came
    /// after that was judged when it came.
    pub(super) fn tick(&mut self, now_us: Micros) -> Vec<Event> {
        let is_over = |pass: &Pass| now_us - pass.received_us > PAUSE_US;
        if self.pass.as_deref().is_some_and(is_over) {
            self.end(now_us)
        } else {
            Vec::new()
        }
    }

    /// The clock by which readings are received was set back; late readings bear times of their own.
    pub(super) fn set_back(&mut self, by_us: Micros) {
        if let Some(pass) = &mut self.pass {
            pass.received_us -= by_us;
        }
    }

    fn end(&mut self, now_us: Micros) -> Vec<Event> {
        let pass = self.pass.take();
        let closed = pass.and_then(|pass| {
            Some(Event::Deviation(Deviation {
                phase: Phase::Closed,
                until_us: pass.newest_us,
                detected_us: now_us,
                ..pass.open?
            }))
        });
        closed.into_iter().collect()
    }
}

impl Pass {
    fn new(edge: &str, point: &Point) -> Self {
        let limit = CriticalLimit {
            gap_us_max: NO_GAP_US,
            check_every_us: NO_GAP_US,
            ..point.limit.clone()
        };
        Self {
            judge: Judge::new(edge, limit),
            newest_us: Micros::MIN,
            received_us: Micros::MIN,
            open: None,
        }
    }

    fn take(&mut self, point: &Point, reading: &Reading, received_us: Micros, events: &mut Vec<Event>) {
        (self.newest_us, self.received_us) = (reading.time_us, received_us);
        for judgement in self.judge.observe(observation(point, reading)) {
            let Judgement::Deviation(deviation) = judgement else {
                continue;
            };
            let phase = deviation.phase;
            self.open = (phase != Phase::Closed).then(|| deviation.clone());
            if phase != Phase::Extended {
                events.push(Event::Deviation(Deviation {
                    detected_us: received_us,
                    ..deviation
                }));
            }
        }
    }
}

fn is_ours(point: &Point, reading: &Reading) -> bool {
    reading.tag == point.tag || point.gate.is_some_and(|gate| gate.tag == reading.tag)
}

fn observation(point: &Point, reading: &Reading) -> Observation {
    let at_us = reading.time_us;
    if let Some(gate) = point.gate.filter(|gate| gate.tag == reading.tag) {
        let known = reading.value().filter(|_| reading.quality.is_good());
        return Observation::Gate {
            at_us,
            flowing: known.is_none_or(|value| (value - gate.value).abs() < f64::EPSILON),
        };
    }
    Observation::Value {
        at_us,
        after_us: at_us,
        value: reading.value().unwrap_or(f64::NAN),
        quality: reading.quality,
    }
}
