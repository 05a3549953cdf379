//! Is every conversion the double nearest to the exact fraction?

use proptest::prelude::*;

use super::*;

fn converted(value: f64, from: &str, to: &str) -> f64 {
    Conversion::between(from, to).unwrap().convert(value)
}

#[test]
fn well_known_values_come_out_to_the_last_digit() {
    for (value, from, to, expected) in [
        (212.0, "degF", "degC", 100.0),
        (32.0, "degF", "degC", 0.0),
        (-40.0, "degF", "degC", -40.0),
        (72.0, "degC", "degF", 161.6),
        (0.0, "K", "degC", -273.15),
        (1.0, "bar", "kPa", 100.0),
        (1.0, "psi", "kPa", 6.894_757_293_168_361),
        (1.0, "gal", "L", 3.785_411_784),
        (1.0, "gal/min", "L/h", 227.124_707_04),
        (1.0, "lb", "g", 453.592_37),
        (1.0, "hp", "W", 745.699_871_582_270_2),
        (50.0, "mS/cm", "uS/cm", 50_000.0),
        (9_000.0, "L/h", "m3/h", 9.0),
        (1.62, "m/min", "mm/s", 27.0),
        (1.0, "kWh", "MJ", 3.6),
        (0.5, "%", "ppm", 5_000.0),
        (73.2, "degC", "Cel", 73.2),
    ] {
        assert_eq!(converted(value, from, to), expected, "{value} {from} in {to}");
    }
}

#[test]
fn units_of_different_dimensions_are_refused_with_those_that_would_do() {
    let refused = Conversion::between("degF", "kPa").unwrap_err().to_string();
    assert!(
        refused.contains("temperature") && refused.contains("Pa, hPa, kPa"),
        "{refused}"
    );
    let unknown = Conversion::between("degR", "degC").unwrap_err().to_string();
    assert!(
        unknown.contains("`degR` is not known") && unknown.contains("degC"),
        "{unknown}"
    );
}

#[test]
fn names_stand_for_one_unit_and_every_factor_is_held_exactly() {
    let mut names = std::collections::HashSet::new();
    for unit in UNITS {
        assert!(
            unit.names.iter().all(|name| names.insert(*name)),
            "{:?}",
            unit.names
        );
        for target in UNITS.iter().filter(|other| other.dimension == unit.dimension) {
            let (numerator, offset, denominator) = terms(unit, target);
            for term in [numerator, offset, denominator] {
                let wide = Wide::from_integer(term);
                assert_eq!(
                    wide.high as i128 + wide.low as i128,
                    term,
                    "{} {}",
                    unit.names[0],
                    target.names[0]
                );
            }
        }
    }
}

#[test]
fn what_is_no_number_does_not_become_one() {
    let conversion = Conversion::between("degF", "degC").unwrap();
    assert!(conversion.convert(f64::NAN).is_nan());
    assert_eq!(conversion.convert(f64::INFINITY), f64::INFINITY);
    assert_eq!(
        Conversion::between("km", "mm").unwrap().convert(f64::MAX),
        f64::INFINITY
    );
    assert!(
        Conversion::between("bar", "kPa")
            .unwrap()
            .convert(-0.0)
            .is_sign_negative()
    );
}

/// `value × 2^scale` of a double, exact; none when it has finer digits.
fn scaled(value: f64, scale: i32) -> Option<i128> {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1075 + scale;
    let mantissa = i128::from((bits & ((1 << 52) - 1)) | (1 << 52));
    let mantissa = if value < 0.0 { -mantissa } else { mantissa };
    if value == 0.0 {
        Some(0)
    } else if exponent >= 0 {
        mantissa.checked_mul(1i128.checked_shl(exponent as u32)?)
    } else {
        (mantissa % (1i128 << -exponent.max(-126)) == 0).then(|| mantissa >> -exponent)
    }
}

fn ulp(value: f64) -> f64 {
    value.abs().next_up() - value.abs()
}

fn units() -> impl Strategy<Value = (&'static Unit, &'static Unit)> {
    (0..UNITS.len(), any::<prop::sample::Index>()).prop_map(|(from, to)| {
        let source = &UNITS[from];
        let same = UNITS.iter().filter(|unit| unit.dimension == source.dimension);
        let same: Vec<&'static Unit> = same.collect();
        (source, *to.get(&same))
    })
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.names[0])
    }
}

proptest! {
    #[test]
    fn every_conversion_is_within_one_ulp_of_the_exact_fraction(
        (source, target) in units(), sixteenths in -1_000_000i32..1_000_000,
    ) {
        let (numerator, offset, denominator) = terms(source, target);
        let got = converted(f64::from(sixteenths) / 16.0, source.names[0], target.names[0]);
        // |got − exact| ≤ ulp, multiplied out: |got·16·D − (sixteenths·N + 16·O)| ≤ ulp·16·D, in units of 2^-scale.
        let scale = 62;
        let exact = (|| {
            let left = scaled(got, scale)?.checked_mul(denominator.checked_mul(16)?)?;
            let right = numerator.checked_mul(i128::from(sixteenths))?.checked_add(offset.checked_mul(16)?)?;
            let right = right.checked_mul(1i128 << scale)?;
            let bound = scaled(ulp(got), scale)?.checked_mul(denominator.checked_mul(16)?)?;
            Some((left.checked_sub(right)?.abs(), bound))
        })();
        // Where 128 bits do not hold the products there is nothing to compare with.
        prop_assume!(exact.is_some());
        let (error, bound) = exact.unwrap();
        prop_assert!(error <= bound, "{} {}: {error} > {bound}", source.names[0], target.names[0]);
    }

    #[test]
    fn there_and_back_again_is_where_it_began(
        (source, target) in units(), value in 1.0..1e6f64,
    ) {
        let there = converted(value, source.names[0], target.names[0]);
        let back = converted(there, target.names[0], source.names[0]);
        let lost_at_most = 4.0 * f64::EPSILON * (value + 500.0);
        prop_assert!((back - value).abs() <= lost_at_most, "{value} {back}");
    }
}
