//! What the simulated plant shows: normal days inside every limit, and each fault as it is described.

use super::{super::tags, *};

const DAY_S: i64 = 86_400;

fn series(seed: u64, name: &str, faults: &Faults) -> Vec<f64> {
    let tag = tags::find(name).unwrap();
    (0..DAY_S)
        .map(|s| Plant::new(seed).value(tag, s * SECOND_US, faults))
        .collect()
}

/// The same without the hours in which line 1 is cleaned.
fn produced(seed: u64, name: &str, faults: &Faults) -> Vec<f64> {
    let values = series(seed, name, faults).into_iter().enumerate();
    values
        .filter(|(s, _)| cip_step(*s as i64 * SECOND_US) == 0)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_values_and_another_seed_others() {
    for tag in tags::TAGS.iter() {
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
        let is_noisy = !tag.is_whole() && tag.process != Process::CipFlow;
        if is_noisy {
            assert_ne!(of(7), of(8), "{}", tag.name);
        }
    }
}

#[test]
fn a_normal_day_stays_inside_every_critical_limit() {
    for seed in 0..5 {
        assert!(
            produced(seed, "TT-101", &Faults::default())
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
    let dip = Faults::default().with(Fault::F2, 0);
    assert!(produced(1, "TT-101", &dip).iter().all(|c| *c < 72.0 && *c > 70.0));
    assert!(produced(1, "TT-102", &dip).iter().all(|c| *c < 72.0 && *c > 70.0));
}

#[test]
fn a_frozen_probe_repeats_its_value_while_the_reference_moves() {
    let frozen = Faults::default().with(Fault::F4, 90 * SECOND_US);
    let stuck = series(3, "TT-101", &frozen);
    let reference = produced(3, "TT-102", &frozen);
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

#[test]
fn cleaning_diverts_the_flow_and_runs_through_its_steps() {
    let valve = series(1, "ZS-106", &Faults::default());
    let steps = series(1, "L1-CIP", &Faults::default());
    let state = series(1, "L1-STATE", &Faults::default());
    for ((valve, step), state) in valve.iter().zip(&steps).zip(&state) {
        assert_eq!((*valve < 0.5, *state > 1.5), (*step > 0.5, *step > 0.5));
    }
    let seen: std::collections::BTreeSet<i64> = steps.iter().map(|step| *step as i64).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn line_ones_counter_rolls_over_after_two_minutes_and_a_reset_starts_it_anew() {
    let tag = tags::find("L1-COUNT").unwrap();
    let plant = Plant::new(1);
    let at = |s: i64, faults: &Faults| plant.value(tag, s * SECOND_US, faults);
    let none = Faults::default();
    assert!(at(119, &none) > 65_500.0 && at(121, &none) < 20.0);
    let reset = Faults {
        counter_reset_us: Some(200 * SECOND_US),
        ..none
    };
    assert_eq!((at(200, &reset), at(260, &reset)), (0.0, 156.0));
}

#[test]
fn a_challenge_is_made_every_hour_unless_it_is_missed_or_fails() {
    let none = series(1, "MD-401-CHALLENGE", &Faults::default());
    assert_eq!(none.iter().filter(|value| **value > 0.5).count(), 24 * 60);
    let missed = series(
        1,
        "MD-401-CHALLENGE",
        &Faults::default().with(Fault::F5, 90 * SECOND_US),
    );
    assert_eq!(missed.iter().filter(|value| **value > 0.5).count(), 60);
    let failed = series(
        1,
        "MD-401-CHALLENGE",
        &Faults::default().with(Fault::F6, 90 * SECOND_US),
    );
    assert_eq!(failed.iter().filter(|value| **value > 1.5).count(), 60);
}

#[test]
fn a_cold_store_stays_cold_but_for_f19() {
    let usual = series(4, "RT-2", &Faults::default());
    assert!(usual.iter().all(|c| *c < 4.4 && *c > 0.5));
    let open = series(4, "RT-2", &Faults::default().with(Fault::F19, 0));
    let above = open.iter().filter(|c| **c > 4.4).count();
    assert!((900..3_600).contains(&above), "{above} s above the limit");
    assert!(open[75 * 60] < 4.4);
}

#[test]
fn an_overloaded_chiller_is_late_at_21_degrees_and_no_usual_load_is() {
    let crossing = |c: f64, k: f64| ((CHILLER_LOAD_C - CHILLER_AIR_C) / (c - CHILLER_AIR_C)).ln() / k;
    let late_min = crossing(21.0, OVERLOAD_RATE_PER_MIN) - crossing(57.0, OVERLOAD_RATE_PER_MIN);
    assert!((130.0..134.0).contains(&late_min), "{late_min}");
    assert!(crossing(21.0, 0.0135) - crossing(57.0, 0.0135) < 80.0);
}

#[test]
fn an_overload_begins_with_the_next_load_and_not_in_the_middle_of_one() {
    let chiller = tags::find("TT-204").unwrap();
    let faults = Faults::default().with(Fault::F7, 3 * MINUTE_US);
    let load_us = next_load_us(3 * MINUTE_US);
    assert_eq!((load_us, next_load_us(load_us)), (10 * MINUTE_US, load_us));
    let core = |min: i64| Plant::new(1).value(chiller, min * MINUTE_US, &faults);
    assert!(core(9) < 5.0 && core(10) > 59.0 && core(10 + 120) > 21.0);
}

#[test]
fn a_kettle_is_hot_for_long_enough_while_a_batch_is_in_it() {
    let hot = series(1, "TT-201", &Faults::default());
    let batch = series(1, "KS-201", &Faults::default());
    let in_batch = hot
        .iter()
        .zip(&batch)
        .take(2_700)
        .filter(|(_, batch)| **batch > 0.5);
    assert!(in_batch.filter(|(hot, _)| **hot >= 74.0).count() > 1_500);
}

#[test]
fn a_power_dip_takes_sixty_signals_in_sixty_seconds_in_a_fixed_order() {
    let faults = Faults::default().with(Fault::F20, 100 * SECOND_US);
    let dead = |s: i64| {
        let motors = tags::TAGS
            .iter()
            .filter(|tag| matches!(tag.process, Process::Motor { .. }));
        motors
            .filter(|tag| Plant::new(1).value(tag, s * SECOND_US, &faults).abs() < 1e-9)
            .count()
    };
    assert_eq!((dead(99), dead(100), dead(129), dead(159)), (0, 1, 30, 60));
}
