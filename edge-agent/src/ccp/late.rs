//! Was the control point in control in readings that came late? Judged in a pass of their own, in order of their
//! source times, by the limit in force now; only deviations are told, with the time at which they were found.

use protocol::{
    Micros, Reading,
    event::Event,
    limit::{CriticalLimit, Deviation, Judge, Judgement, Observation, Phase},
};

use super::config::Point;

/// Nothing is a gap here: what is missing between late readings may have come in time.
const NO_GAP_US: Micros = Micros::MAX / 8;

/// Judges late readings of one control point.
pub(super) fn judge(edge: &str, point: &Point, readings: &[Reading], received_us: Micros) -> Vec<Event> {
    let mut ours: Vec<&Reading> = readings
        .iter()
        .filter(|reading| reading.tag == point.tag || point.gate.is_some_and(|gate| gate.tag == reading.tag))
        .collect();
    // Gates first: a value is judged by the valve position of its own time.
    ours.sort_by_key(|reading| (reading.time_us, reading.tag == point.tag));
    let mut judge = Judge::new(
        edge,
        CriticalLimit {
            gap_us_max: NO_GAP_US,
            check_every_us: NO_GAP_US,
            ..point.limit.clone()
        },
    );
    let mut found: Vec<Deviation> = Vec::new();
    let mut last_us = Micros::MIN;
    for reading in ours {
        last_us = reading.time_us;
        for judgement in judge.observe(observation(point, reading)) {
            if let Judgement::Deviation(deviation) = judgement {
                found.push(deviation);
            }
        }
    }
    if judge.is_deviating()
        && let Some(open) = found.last().cloned()
    {
        // What came after the last late reading was judged when it came.
        found.push(Deviation {
            phase: Phase::Closed,
            until_us: last_us,
            ..open
        });
    }
    let told = found
        .into_iter()
        .filter(|deviation| deviation.phase != Phase::Extended);
    told.map(|deviation| {
        Event::Deviation(Deviation {
            detected_us: received_us,
            ..deviation
        })
    })
    .collect()
}

fn observation(point: &Point, reading: &Reading) -> Observation {
    if let Some(gate) = point.gate.filter(|gate| gate.tag == reading.tag) {
        let known = reading.value().filter(|_| reading.quality.is_good());
        return Observation::Gate {
            at_us: reading.time_us,
            flowing: known.is_none_or(|value| (value - gate.value).abs() < f64::EPSILON),
        };
    }
    Observation::Value {
        at_us: reading.time_us,
        value: reading.value().unwrap_or(f64::NAN),
        quality: reading.quality,
    }
}
