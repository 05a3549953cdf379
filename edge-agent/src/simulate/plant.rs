//! What does each tag of the simulated plant show at a given moment?
//! A pure function of (seed, plant time, active faults): no clock, no state, so the same seed gives the same
//! values however often and in whatever order they are asked for.

use super::{
    fault::Fault,
    tags::{Port, Process, SimTag},
};

/// One second of plant time in the unit of [`Plant::value`].
pub const SECOND_US: i64 = 1_000_000;
/// One minute of plant time.
pub const MINUTE_US: i64 = 60 * SECOND_US;

/// Normal product temperature in the HTST holding tube, °C.
pub const HOLDING_TUBE_C: f64 = 73.2;
/// Product temperature during an HTST dip (faults F1 and F2), °C.
pub const HOLDING_TUBE_DIP_C: f64 = 71.1;
/// Length of the HTST dip unless a command says otherwise, seconds.
pub const DIP_S: i64 = 75;
/// F9: the dip comes so long after the hub went away.
pub const OUTAGE_DIP_AFTER_US: i64 = 10 * MINUTE_US;
/// F11: so long after the PLC began to buffer, one tray is cold.
pub const LATE_TRAY_AFTER_US: i64 = 30 * MINUTE_US;
/// Core of that tray, °C.
pub const LATE_TRAY_C: f64 = 72.4;
/// A core is probed so often.
pub const TRAY_PERIOD_US: i64 = 120 * SECOND_US;
/// F3: drift of `TT-302`, °C a day.
pub const DRIFT_C_PER_DAY: f64 = 0.15;
/// F7: cooling constant of the overloaded chiller, 1/min: a slow load (0.011) less 35 %.
pub const OVERLOAD_RATE_PER_MIN: f64 = 0.011 * 0.65;
/// F7: the chiller it acts on, from its next load on.
const OVERLOADED: &str = "TT-204";
/// F13: what the checkweigher's tare is off by, grams.
pub const TARE_SHIFT_G: f64 = -6.0;
/// Air of a blast chiller, °C.
pub const CHILLER_AIR_C: f64 = -2.0;
/// A load enters the chiller at this core temperature, °C.
pub const CHILLER_LOAD_C: f64 = 60.0;
/// A challenge shows for so long.
pub const CHALLENGE_US: i64 = MINUTE_US;
/// What line 1's counter shows when the plant starts: it rolls over two minutes later.
pub const COUNT_START: i64 = 65_536 - 312;

const HOUR_US: i64 = 60 * MINUTE_US;
const HOLDING_TUBE_NOISE_C: f64 = 0.12;
const TRAY_PROBE_NOISE_C: f64 = 0.05;
const CHILLER_CYCLE_MIN: f64 = 200.0;
const KETTLE_CYCLE_MIN: f64 = 45.0;
/// Ten hours of production, one of cleaning.
const CIP_CYCLE_MIN: f64 = 660.0;
/// The end of each step in the cycle, its conductivity (mS/cm) and temperature (°C).
const CIP_STEPS: [(f64, f64, f64); 6] = [
    (600.0, 0.2, 21.0),
    (610.0, 0.4, 20.0),
    (630.0, 48.0, 78.0),
    (640.0, 1.0, 25.0),
    (650.0, 22.0, 65.0),
    (660.0, 0.5, 85.0),
];

/// Which faults act on the plant at the moment of asking, and what earlier ones left behind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    since_us: [Option<i64>; 20],
    /// The flow-diversion valve stands in divert.
    pub diverted: bool,
    /// F16 reset line 1's counter at this plant time.
    pub counter_reset_us: Option<i64>,
    /// F5 or F6 ended at this plant time with a challenge that passed.
    pub made_up_us: Option<i64>,
}

impl Faults {
    /// Since when the fault acts, if it does.
    pub fn since_us(&self, fault: Fault) -> Option<i64> {
        self.since_us[fault.index()]
    }

    /// The same with one fault more.
    #[must_use]
    pub fn with(mut self, fault: Fault, since_us: i64) -> Self {
        self.since_us[fault.index()] = Some(since_us);
        self
    }

    /// Whether the holding tube is too cold.
    fn is_dip(&self, at_us: i64) -> bool {
        let outage = self
            .since_us(Fault::F9)
            .map(|since| at_us - since - OUTAGE_DIP_AFTER_US);
        self.since_us(Fault::F1).is_some()
            || self.since_us(Fault::F2).is_some()
            || outage.is_some_and(|us| (0..DIP_S * SECOND_US).contains(&us))
    }
}

/// The plant: a seed and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Plant {
    seed: u64,
}

impl Plant {
    /// Makes the plant that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The value `tag` shows at plant time `at_us` (microseconds since the plant started).
    pub fn value(self, tag: &SimTag, at_us: i64, faults: &Faults) -> f64 {
        let value = match (tag.name, faults.since_us(Fault::F4)) {
            ("TT-101", Some(since_us)) => self.process(tag, since_us, &Faults::default()),
            _ => self.process(tag, at_us, faults),
        };
        if tag.is_whole() { value.round() } else { value }
    }

    /// The register word for `tag`, or `None` when it is not served as a register.
    pub fn register(self, tag: &SimTag, at_us: i64, faults: &Faults) -> Option<u16> {
        let value = self.value(tag, at_us, faults);
        match tag.port {
            Port::Register { digits, signed, .. } => {
                let raw = (value * 10f64.powi(i32::from(digits))).round();
                Some(if signed {
                    (raw as i16).cast_unsigned()
                } else {
                    raw as u16
                })
            }
            Port::Bit { .. } => Some(u16::from(value > 0.5)),
            Port::OpcUa { .. } => None,
        }
    }

    fn process(self, tag: &SimTag, at_us: i64, faults: &Faults) -> f64 {
        let noise = self.noise(tag.name, at_us.div_euclid(noise_step_us(tag)));
        match tag.process {
            Process::Steady { mean, noise: sd } => {
                self.steady(tag, at_us, (mean, sd), noise) + drift_c(tag, at_us, faults)
            }
            Process::HoldingTube { bias } => {
                let product = match cip_step(at_us) {
                    0 if faults.is_dip(at_us) => HOLDING_TUBE_DIP_C,
                    0 => HOLDING_TUBE_C,
                    step => CIP_STEPS[step].2,
                };
                let wander = self.wander("holding tube", at_us);
                product + bias + HOLDING_TUBE_NOISE_C * (0.8 * noise + 0.5 * wander)
            }
            Process::DiversionValve => f64::from(u8::from(!faults.diverted && cip_step(at_us) == 0)),
            Process::Kettle { offset_min } => kettle_c(minutes(at_us) + offset_min) + 0.3 * noise,
            Process::Chiller {
                offset_min,
                rate_per_min,
            } => {
                let overload = faults
                    .since_us(Fault::F7)
                    .map(next_load_us)
                    .filter(|load_us| tag.name == OVERLOADED && at_us >= *load_us);
                let core = overload.map_or_else(
                    || {
                        let cooled_min = (minutes(at_us) + offset_min).rem_euclid(CHILLER_CYCLE_MIN);
                        chiller_c(cooled_min, rate_per_min)
                    },
                    |load_us| chiller_c(minutes(at_us - load_us), OVERLOAD_RATE_PER_MIN),
                );
                core + 0.2 * noise
            }
            Process::Tray { mean, spread } => self.tray_c(at_us, (mean, spread), noise, faults),
            Process::Motor {
                place,
                mean,
                noise: sd,
            } => {
                let dip = faults
                    .since_us(Fault::F20)
                    .map(|since| since + i64::from(place) * SECOND_US);
                if dip.is_some_and(|dip_us| at_us >= dip_us) {
                    0.0
                } else {
                    self.steady(tag, at_us, (mean, sd), noise)
                }
            }
            Process::Weight {
                label,
                spread,
                per_min,
            } => {
                let pack = counted(at_us, per_min);
                let shift = faults.since_us(Fault::F13).filter(|_| tag.name == "WT-302");
                label + 4.1 + spread * self.noise(tag.name, pack) + shift.map_or(0.0, |_| TARE_SHIFT_G)
            }
            Process::CipConductivity => CIP_STEPS[cip_step(at_us)].1 * (1.0 + 0.02 * noise),
            Process::CipTemperature => CIP_STEPS[cip_step(at_us)].2 + 0.3 * noise,
            Process::CipFlow => f64::from(u8::from(cip_step(at_us) > 0)) * (12_000.0 + 60.0 * noise),
            Process::ColdStore { number } => {
                let (door_min, frost_min) = peaks_min(number, at_us, faults);
                let usual = self.steady(tag, at_us, (2.5, 0.4), noise);
                let warmed = door_min.map_or(0.0, |min| warmth(min, 12.0, (9.0, 15.0, 6.0)));
                usual + warmed + frost_min.map_or(0.0, |min| warmth(min, 20.0, (7.0, 10.0, 8.0)))
            }
            _ => discrete(tag, at_us, faults),
        }
    }

    /// Set point, slow wander and white noise.
    fn steady(self, tag: &SimTag, at_us: i64, (mean, sd): (f64, f64), noise: f64) -> f64 {
        mean + sd * (0.8 * noise + 0.5 * self.wander(tag.name, at_us))
    }

    fn tray_c(self, at_us: i64, (mean, spread): (f64, f64), noise: f64, faults: &Faults) -> f64 {
        let cold = faults
            .since_us(Fault::F11)
            .map(|since| at_us - since - LATE_TRAY_AFTER_US);
        let core = if cold.is_some_and(|us| (0..TRAY_PERIOD_US).contains(&us)) {
            LATE_TRAY_C
        } else {
            mean + spread * self.noise("tray", at_us.div_euclid(TRAY_PERIOD_US))
        };
        core + TRAY_PROBE_NOISE_C * noise
    }

    /// Bounded bell-shaped noise, mean 0, standard deviation 1, never beyond ±3.5: the sum of four uniforms.
    /// Without transcendental functions it is the same on every machine.
    fn noise(self, key: &str, step: i64) -> f64 {
        let mut state = mix(self.seed ^ hash(key) ^ mix(step.cast_unsigned()));
        let mut sum = -2.0;
        for _ in 0..4 {
            state = mix(state);
            sum += (state >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum * 3f64.sqrt()
    }

    /// Slow wander within ±1: noise drawn every two minutes, joined smoothly.
    fn wander(self, key: &str, at_us: i64) -> f64 {
        const KNOT_US: i64 = 120 * SECOND_US;
        let knot = at_us.div_euclid(KNOT_US);
        let part = at_us.rem_euclid(KNOT_US) as f64 / KNOT_US as f64;
        let ease = part * part * (3.0 - 2.0 * part);
        let draw = |n: i64| self.noise(key, n ^ i64::MIN) / 3.5;
        draw(knot) * (1.0 - ease) + draw(knot + 1) * ease
    }
}

/// A uniform draw in 0..1 from a seed, a purpose and a number.
pub fn uniform(seed: u64, key: &str, n: u64) -> f64 {
    (draw(seed, key, n) >> 11) as f64 / (1u64 << 53) as f64
}

/// A 64-bit draw from a seed, a purpose and a number.
pub fn draw(seed: u64, key: &str, n: u64) -> u64 {
    mix(mix(seed ^ hash(key)) ^ mix(n))
}

/// Noise changes four times a sampling period, so that two polls never see one value by accident, but not
/// faster than every 250 ms nor slower than every second.
fn noise_step_us(tag: &SimTag) -> i64 {
    i64::from((tag.period_ms / 4).clamp(250, 1_000)) * 1_000
}

/// States, counters and contacts: what has no noise.
fn discrete(tag: &SimTag, at_us: i64, faults: &Faults) -> f64 {
    match tag.process {
        Process::Counter { per_min } => {
            let total = match faults.counter_reset_us.filter(|_| tag.name == "L1-COUNT") {
                Some(reset_us) => counted(at_us, per_min) - counted(reset_us, per_min),
                None if tag.name == "L1-COUNT" => COUNT_START + counted(at_us, per_min),
                None => counted(at_us, per_min),
            };
            total.rem_euclid(65_536) as f64
        }
        Process::Challenge { offset_min } => challenge(tag, at_us, offset_min, faults),
        Process::Door { number } => {
            let usual = (minutes(at_us) + 5.0 * f64::from(number)).rem_euclid(23.0) < 1.0;
            let held = peaks_min(number, at_us, faults).0.is_some_and(|min| min < 12.0);
            f64::from(u8::from(usual || held))
        }
        Process::Defrost { number } => {
            let frost_min = peaks_min(number, at_us, faults).1;
            f64::from(u8::from(frost_min.is_some_and(|min| min < 20.0)))
        }
        Process::KettleState { offset_min } => {
            let min = (minutes(at_us) + offset_min).rem_euclid(KETTLE_CYCLE_MIN);
            f64::from(u8::from((1.0..KETTLE_CYCLE_MIN - 1.0).contains(&min)))
        }
        Process::Cip => cip_step(at_us) as f64,
        Process::State if faults.since_us(Fault::F20).is_some() => 3.0,
        Process::State if tag.line == "L1" && cip_step(at_us) > 0 => 2.0,
        Process::Sku => faults.since_us(Fault::F14).map_or(4.0, |_| 3.0),
        Process::Swab => faults.since_us(Fault::F14).map_or(1.0, |_| 0.0),
        _ => 1.0,
    }
}

/// Result of the challenge that shows now: made every hour, but not while F5 or F6 keeps it from being made.
fn challenge(tag: &SimTag, at_us: i64, offset_min: f64, faults: &Faults) -> f64 {
    let shows = |from_us: i64| (0..CHALLENGE_US).contains(&(at_us - from_us));
    let due_us = last_challenge_us(at_us, offset_min);
    if tag.name != "MD-401-CHALLENGE" {
        return f64::from(u8::from(shows(due_us)));
    }
    let (missed, failed) = (faults.since_us(Fault::F5), faults.since_us(Fault::F6));
    if failed.is_some_and(shows) {
        return 2.0;
    }
    let prevented = missed.or(failed).is_some_and(|since_us| due_us >= since_us);
    f64::from(u8::from(
        faults.made_up_us.is_some_and(shows) || shows(due_us) && !prevented,
    ))
}

/// When the last challenge by schedule was due at `at_us`.
pub fn last_challenge_us(at_us: i64, offset_min: f64) -> i64 {
    let offset_us = (offset_min * MINUTE_US as f64) as i64;
    (at_us - offset_us).div_euclid(HOUR_US) * HOUR_US + offset_us
}

/// When the chiller of F7 is loaded next: a load that is in it is not exchanged.
pub fn next_load_us(at_us: i64) -> i64 {
    let offset_min = match super::tags::find(OVERLOADED).map(|tag| tag.process) {
        Some(Process::Chiller { offset_min, .. }) => offset_min,
        _ => 0.0,
    };
    let cycle_us = (CHILLER_CYCLE_MIN * MINUTE_US as f64) as i64;
    let offset_us = (offset_min * MINUTE_US as f64) as i64;
    let into_us = (at_us + offset_us).rem_euclid(cycle_us);
    at_us + (cycle_us - into_us).rem_euclid(cycle_us)
}

/// Whole things counted since the plant started.
pub fn counted(at_us: i64, per_min: f64) -> i64 {
    (minutes(at_us) * per_min).floor() as i64
}

/// How long ago, minutes, the door of a cold store was opened for long and its defrost began. F19 acts on store 2.
fn peaks_min(number: u8, at_us: i64, faults: &Faults) -> (Option<f64>, Option<f64>) {
    let since = faults.since_us(Fault::F19).filter(|_| number == 2);
    let after = |delay_min: f64| {
        since
            .map(|us| minutes(at_us - us) - delay_min)
            .filter(|min| *min >= 0.0)
    };
    (after(0.0), after(20.0))
}

/// By how much a room is warmer `min` minutes after a disturbance of `lasts_min` began, °C: it heads for
/// `rise` with one time constant and comes back with another.
fn warmth(min: f64, lasts_min: f64, (rise, up_min, down_min): (f64, f64, f64)) -> f64 {
    let peak = rise * (1.0 - (-min.min(lasts_min) / up_min).exp());
    peak * (-(min - lasts_min).max(0.0) / down_min).exp()
}

/// F3 adds to zone 2 what passed since it began.
fn drift_c(tag: &SimTag, at_us: i64, faults: &Faults) -> f64 {
    let since = faults.since_us(Fault::F3).filter(|_| tag.name == "TT-302");
    since.map_or(0.0, |since_us| {
        DRIFT_C_PER_DAY * minutes(at_us - since_us) / 1_440.0
    })
}

/// The step of cleaning line 1, 0 in production.
fn cip_step(at_us: i64) -> usize {
    let min = minutes(at_us).rem_euclid(CIP_CYCLE_MIN);
    CIP_STEPS
        .iter()
        .position(|(end_min, ..)| min < *end_min)
        .unwrap_or(0)
}

fn minutes(at_us: i64) -> f64 {
    at_us as f64 / (60.0 * SECOND_US as f64)
}

/// Kettle core after `minutes` of its 45-minute cycle: 25 heating, 12 holding at 92 °C, 8 discharging.
fn kettle_c(minutes: f64) -> f64 {
    match minutes.rem_euclid(KETTLE_CYCLE_MIN) {
        m if m < 25.0 => 60.0 + 32.0 * m / 25.0,
        m if m < 37.0 => 92.0,
        m => 92.0 - 32.0 * (m - 37.0) / 8.0,
    }
}

/// Newton's law of cooling: `T = Ta + (T0 - Ta)·exp(-k·t)`, Ta the chiller air, k in 1/min.
fn chiller_c(cooled_min: f64, rate_per_min: f64) -> f64 {
    CHILLER_AIR_C + (CHILLER_LOAD_C - CHILLER_AIR_C) * (-rate_per_min * cooled_min).exp()
}

/// FNV-1a, 64 bits.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64: every input bit reaches every output bit.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
#[path = "plant_tests.rs"]
mod tests;
