//! What does each tag of the simulated plant show at a given moment?
//! A pure function of (seed, plant time, active faults): no clock, no state, so the same seed gives the same
//! values however often and in whatever order they are asked for.

use super::tags::{Port, Process, SimTag};

/// One second of plant time in the unit of [`Plant::value`].
pub const SECOND_US: i64 = 1_000_000;

/// Normal product temperature in the HTST holding tube, °C.
pub const HOLDING_TUBE_C: f64 = 73.2;
/// Product temperature during an HTST dip (faults F1 and F2), °C.
pub const HOLDING_TUBE_DIP_C: f64 = 71.1;

const HOLDING_TUBE_NOISE_C: f64 = 0.12;
const TRAY_PERIOD_US: i64 = 120 * SECOND_US;
const TRAY_PROBE_NOISE_C: f64 = 0.05;
const CHILLER_AIR_C: f64 = -2.0;
const CHILLER_LOAD_C: f64 = 60.0;
const CHILLER_CYCLE_MIN: f64 = 200.0;
const KETTLE_CYCLE_MIN: f64 = 45.0;

/// Which faults act on the plant at the moment of asking.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// The holding tube runs at [`HOLDING_TUBE_DIP_C`].
    pub dip: bool,
    /// The flow-diversion valve stands in divert.
    pub diverted: bool,
    /// `TT-101` repeats what it showed at this plant time.
    pub frozen_since_us: Option<i64>,
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
        let value = match (tag.name, faults.frozen_since_us) {
            ("TT-101", Some(since_us)) => self.process(tag, since_us, &Faults::default()),
            _ => self.process(tag, at_us, faults),
        };
        if tag.is_whole() { value.round() } else { value }
    }

    /// The register word for `tag`, or `None` when it is not served as a register.
    pub fn register(self, tag: &SimTag, at_us: i64, faults: &Faults) -> Option<u16> {
        let Port::Holding { digits, signed, .. } = tag.port else {
            return None;
        };
        let raw = (self.value(tag, at_us, faults) * 10f64.powi(i32::from(digits))).round();
        Some(if signed {
            (raw as i16).cast_unsigned()
        } else {
            raw as u16
        })
    }

    fn process(self, tag: &SimTag, at_us: i64, faults: &Faults) -> f64 {
        let step = at_us.div_euclid(noise_step_us(tag));
        let noise = self.noise(tag.name, step);
        match tag.process {
            Process::Steady { mean, noise: sd } => {
                mean + sd * (0.8 * noise + 0.5 * self.wander(tag.name, at_us))
            }
            Process::HoldingTube { bias } => {
                let product = if faults.dip {
                    HOLDING_TUBE_DIP_C
                } else {
                    HOLDING_TUBE_C
                };
                product
                    + bias
                    + HOLDING_TUBE_NOISE_C * (0.8 * noise + 0.5 * self.wander("holding tube", at_us))
            }
            Process::DiversionValve => f64::from(u8::from(!faults.diverted)),
            Process::Kettle { offset_min } => kettle_c(minutes(at_us) + offset_min) + 0.3 * noise,
            Process::Chiller {
                offset_min,
                rate_per_min,
            } => chiller_c(minutes(at_us) + offset_min, rate_per_min) + 0.2 * noise,
            Process::Tray { mean, spread } => {
                let tray = at_us.div_euclid(TRAY_PERIOD_US);
                mean + spread * self.noise("tray", tray) + TRAY_PROBE_NOISE_C * noise
            }
        }
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
fn chiller_c(minutes: f64, rate_per_min: f64) -> f64 {
    let cooled_min = minutes.rem_euclid(CHILLER_CYCLE_MIN);
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
mod tests {
    use super::{super::tags, *};

    const DAY_S: i64 = 86_400;

    fn series(seed: u64, name: &str, faults: &Faults) -> Vec<f64> {
        let tag = tags::find(name).unwrap();
        (0..DAY_S)
            .map(|s| Plant::new(seed).value(tag, s * SECOND_US, faults))
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_values_and_another_seed_others() {
        for tag in &tags::TAGS {
            let of = |seed| -> Vec<u64> {
                (0..500)
                    .map(|s| {
                        Plant::new(seed)
                            .value(tag, s * SECOND_US, &Faults::default())
                            .to_bits()
                    })
                    .collect()
            };
            assert_eq!(of(7), of(7), "{}", tag.name);
            if !tag.is_whole() {
                assert_ne!(of(7), of(8), "{}", tag.name);
            }
        }
    }

    #[test]
    fn a_normal_day_stays_inside_every_critical_limit() {
        for seed in 0..5 {
            assert!(
                series(seed, "TT-101", &Faults::default())
                    .iter()
                    .all(|c| *c > 72.4)
            );
            assert!(
                series(seed, "TT-310", &Faults::default())
                    .iter()
                    .all(|c| *c > 75.0)
            );
        }
    }

    #[test]
    fn a_dip_is_below_the_limit_at_every_moment_on_both_probes() {
        let dip = Faults {
            dip: true,
            ..Faults::default()
        };
        assert!(series(1, "TT-101", &dip).iter().all(|c| *c < 72.0 && *c > 70.0));
        assert!(series(1, "TT-102", &dip).iter().all(|c| *c < 72.0 && *c > 70.0));
    }

    #[test]
    fn a_frozen_probe_repeats_its_value_while_the_reference_moves() {
        let frozen = Faults {
            frozen_since_us: Some(90 * SECOND_US),
            ..Faults::default()
        };
        let stuck = series(3, "TT-101", &frozen);
        let reference = series(3, "TT-102", &frozen);
        assert!(stuck.iter().all(|c| c.to_bits() == stuck[0].to_bits()));
        for window in reference.windows(30) {
            let high = window.iter().copied().fold(f64::MIN, f64::max);
            let low = window.iter().copied().fold(f64::MAX, f64::min);
            assert!(high - low > 0.1);
        }
    }

    #[test]
    fn probes_of_the_holding_tube_agree_within_half_a_degree_most_of_the_time() {
        let a = series(2, "TT-101", &Faults::default());
        let b = series(2, "TT-102", &Faults::default());
        let apart = a.iter().zip(&b).filter(|(a, b)| (**a - **b).abs() > 0.5).count();
        assert!(apart * 200 < a.len(), "{apart} of {}", a.len());
    }

    #[test]
    fn noise_is_bounded_with_unit_spread() {
        let plant = Plant::new(11);
        let draws: Vec<f64> = (0..20_000).map(|n| plant.noise("x", n)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| d * d).sum::<f64>() / draws.len() as f64;
        assert!(
            mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05,
            "mean {mean}, variance {variance}"
        );
        assert!(draws.iter().all(|d| d.abs() <= 3.5));
    }

    #[test]
    fn registers_carry_the_scaled_value_and_negative_temperatures_as_twos_complement() {
        let plant = Plant::new(1);
        let air = tags::find("TT-206").unwrap();
        let word = plant.register(air, 0, &Faults::default()).unwrap();
        let shown = f64::from(word.cast_signed()) / 100.0;
        assert!((shown - plant.value(air, 0, &Faults::default())).abs() <= 0.005 && shown < 0.0);
        assert_eq!(
            plant.register(tags::find("TT-310").unwrap(), 0, &Faults::default()),
            None
        );
    }

    #[test]
    fn chillers_reach_five_degrees_within_one_load() {
        let chiller = tags::find("TT-204").unwrap();
        let Process::Chiller { rate_per_min, .. } = chiller.process else {
            panic!("a chiller")
        };
        assert!(chiller_c(0.0, rate_per_min) > 59.9);
        assert!(chiller_c(199.0, rate_per_min) < 5.0);
    }
}
