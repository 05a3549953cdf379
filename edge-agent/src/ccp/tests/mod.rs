//! Do the fault scenarios of the plant end as food safety wants? Scripted readings, no clock.

mod deviation;
mod limit;
mod restart;
mod signal;

use protocol::{
    Quality,
    limit::{Check, CheckVerdict, CriticalLimit, Deviation, DeviationKind, Phase},
    reading::Alias,
};

use super::{
    config::{Gate, React, Stuck},
    *,
};

const TT101: Alias = Alias(0);
const TT102: Alias = Alias(1);
const ZS106: Alias = Alias(2);
const SECOND: Micros = 1_000_000;

fn point() -> Point {
    Point {
        limit: CriticalLimit {
            ccp: "CCP-1".to_owned(),
            line: Some("L1".to_owned()),
            tag: "TT-101".to_owned(),
            unit: "degC".to_owned(),
            low: Some(72.0),
            high: None,
            clear_margin: 0.2,
            delay_us: SECOND,
            gap_us_max: 5 * SECOND,
            check_every_us: 60 * SECOND,
            period_us: SECOND,
            version: 1,
        },
        kind: ControlKind::Limit,
        tag: TT101,
        not_during: None,
        react: None,
        gate: Some(Gate {
            tag: ZS106,
            value: 1.0,
        }),
        stuck: Some(Stuck {
            reference: TT102,
            window: std::time::Duration::from_secs(30),
            floor: 0.005,
        }),
    }
}

fn engine() -> Engine {
    Engine::new("akron-1", &[point()], || Uuid::from_u128(7))
}

/// A second of the plant: the holding tube, its recorder and the diversion valve.
#[derive(Clone, Copy)]
struct Plant {
    tt101: Option<f64>,
    tt102: f64,
    forward: bool,
}

/// Runs seconds of the plant; returns the events and every stored reading of TT-101.
fn play(
    engine: &mut Engine,
    from: Micros,
    script: impl IntoIterator<Item = Plant>,
) -> (Vec<Event>, Vec<Reading>) {
    let (mut events, mut stored) = (Vec::new(), Vec::new());
    for (second, plant) in (from..).zip(script) {
        let at = second * SECOND;
        let good = |tag, value| Reading::new(tag, at, value, Quality::GOOD);
        let tt101 = plant
            .tt101
            .map_or(Reading::bad(TT101, at, Quality::BAD_TIMEOUT), |value| {
                good(TT101, value)
            });
        // The valve comes last in the poll: it must still count before the value.
        let mut readings = [
            tt101,
            good(TT102, plant.tt102),
            good(ZS106, f64::from(u8::from(plant.forward))),
        ];
        events.extend(engine.observe(&mut readings, at));
        stored.push(readings[0]);
        for quarter in 1..4 {
            events.extend(engine.tick(at + quarter * SECOND / 4));
        }
    }
    (events, stored)
}

fn noise(second: i64) -> f64 {
    0.04 * (second % 5) as f64
}

fn normal(seconds: i64) -> impl Iterator<Item = Plant> {
    (0..seconds).map(|second| Plant {
        tt101: Some(73.2 + noise(second)),
        tt102: 73.1 + noise(second + 2),
        forward: true,
    })
}

fn deviations(events: &[Event]) -> Vec<(DeviationKind, Phase)> {
    let phases = events.iter().filter_map(|event| match event {
        Event::Deviation(deviation) => Some((deviation.kind, deviation.phase)),
        _ => None,
    });
    phases.filter(|(_, phase)| *phase != Phase::Extended).collect()
}

fn alarms(events: &[Event], code: &str) -> Vec<bool> {
    let raised = events.iter().filter_map(|event| match event {
        Event::Alarm(alarm) if alarm.code == code => Some(alarm.active),
        _ => None,
    });
    raised.collect()
}

/// 75 s at 71.1 °C; the valve diverts after one second, or does not.
fn dip(valve_works: bool) -> impl Iterator<Item = Plant> {
    (0..75).map(move |second| Plant {
        tt101: Some(71.1 + noise(second)),
        tt102: 71.0 + noise(second + 2),
        forward: !valve_works || second < 1,
    })
}

fn frozen(seconds: i64, reference_moves: bool) -> impl Iterator<Item = Plant> {
    (0..seconds).map(move |second| Plant {
        tt101: Some(73.2),
        tt102: 73.1 + if reference_moves { noise(second) } else { 0.0 },
        forward: true,
    })
}

fn checks(events: &[Event]) -> Vec<Check> {
    let checks = events.iter().filter_map(|event| match event {
        Event::CcpCheck(check) => Some(check.clone()),
        _ => None,
    });
    checks.collect()
}

fn all_deviations(events: &[Event]) -> Vec<Deviation> {
    let deviations = events.iter().filter_map(|event| match event {
        Event::Deviation(deviation) => Some(deviation.clone()),
        _ => None,
    });
    deviations.collect()
}
