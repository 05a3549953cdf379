//! What does a unit mean, and how does a value get from one unit to another? The units of a food plant by their
//! UCUM names (and the plainer ones that people write), with exact factors.
//!
//! Factors are fractions of integers and a value is converted in twice the precision of a double, so the result is
//! the double nearest to the exact one (within one unit in the last place; shown against integer arithmetic).

use serde::{Deserialize, Serialize};

/// What a unit measures. Only units of the same dimension can be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Kelvin.
    Temperature,
    /// Pascal.
    Pressure,
    /// Cubic metres a second.
    VolumeFlow,
    /// Kilograms a second.
    MassFlow,
    /// Kilograms.
    Mass,
    /// Cubic metres.
    Volume,
    /// Metres.
    Length,
    /// Siemens a metre.
    Conductivity,
    /// Watts.
    Power,
    /// Joules.
    Energy,
    /// Metres a second.
    Speed,
    /// Turns or events a second.
    Frequency,
    /// Seconds.
    Time,
    /// Parts of one.
    Ratio,
}

impl Dimension {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::Pressure => "pressure",
            Self::VolumeFlow => "volume flow",
            Self::MassFlow => "mass flow",
            Self::Mass => "mass",
            Self::Volume => "volume",
            Self::Length => "length",
            Self::Conductivity => "conductivity",
            Self::Power => "power",
            Self::Energy => "energy",
            Self::Speed => "speed",
            Self::Frequency => "frequency",
            Self::Time => "time",
            Self::Ratio => "ratio",
        }
    }
}

/// Why a value cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a unit of the table.
    #[error("unit `{0}` is not known; known are {list}", list = known_names())]
    Unknown(String),
    /// They measure different things.
    #[error("`{from}` is a {} and `{to}` a {}: write one of {}", from_dimension.name(), to_dimension.name(), names_of(*to_dimension))]
    Incompatible {
        /// The unit to convert from.
        from: String,
        /// What it measures.
        from_dimension: Dimension,
        /// The unit to convert to.
        to: String,
        /// What that measures.
        to_dimension: Dimension,
    },
}

type Fraction = (i128, i128);

/// `SI value = value × factor + offset`.
struct Unit {
    names: &'static [&'static str],
    dimension: Dimension,
    factor: Fraction,
    offset: Fraction,
}

const fn unit(
    names: &'static [&'static str],
    dimension: Dimension,
    numerator: i128,
    denominator: i128,
) -> Unit {
    Unit {
        names,
        dimension,
        factor: (numerator, denominator),
        offset: (0, 1),
    }
}

/// A US gallon in units of 10⁻¹² m³: 231 cubic inches of exactly 25.4 mm.
const GALLON: i128 = 3_785_411_784;
/// A pound in units of 10⁻⁸ kg.
const POUND: i128 = 45_359_237;

/// Sources: UCUM 2.1 tables; NIST SP 811 (2008) appendix B for the exact US and conventional factors.
const UNITS: &[Unit] = &[
    unit(&["K"], Dimension::Temperature, 1, 1),
    Unit {
        names: &["degC", "Cel", "C", "°C"],
        dimension: Dimension::Temperature,
        factor: (1, 1),
        offset: (27_315, 100),
    },
    Unit {
        names: &["degF", "[degF]", "F", "°F"],
        dimension: Dimension::Temperature,
        factor: (5, 9),
        offset: (45_967 * 5, 100 * 9),
    },
    unit(&["Pa"], Dimension::Pressure, 1, 1),
    unit(&["hPa"], Dimension::Pressure, 100, 1),
    unit(&["kPa"], Dimension::Pressure, 1_000, 1),
    unit(&["MPa"], Dimension::Pressure, 1_000_000, 1),
    unit(&["mbar"], Dimension::Pressure, 100, 1),
    unit(&["bar"], Dimension::Pressure, 100_000, 1),
    unit(&["atm"], Dimension::Pressure, 101_325, 1),
    unit(
        &["psi", "[psi]"],
        Dimension::Pressure,
        8_896_443_230_521,
        1_290_320_000,
    ),
    unit(
        &["mmHg", "mm[Hg]"],
        Dimension::Pressure,
        133_322_387_415,
        1_000_000_000,
    ),
    unit(&["m3/s"], Dimension::VolumeFlow, 1, 1),
    unit(&["m3/h"], Dimension::VolumeFlow, 1, 3_600),
    unit(&["L/s", "l/s"], Dimension::VolumeFlow, 1, 1_000),
    unit(&["L/min", "l/min"], Dimension::VolumeFlow, 1, 60_000),
    unit(&["L/h", "l/h"], Dimension::VolumeFlow, 1, 3_600_000),
    unit(&["hL/h", "hl/h"], Dimension::VolumeFlow, 1, 36_000),
    unit(&["mL/min", "ml/min"], Dimension::VolumeFlow, 1, 60_000_000),
    unit(
        &["gal/min", "[gal_us]/min", "gpm"],
        Dimension::VolumeFlow,
        GALLON,
        60_000_000_000_000,
    ),
    unit(
        &["gal/h", "[gal_us]/h"],
        Dimension::VolumeFlow,
        GALLON,
        3_600_000_000_000_000,
    ),
    unit(&["kg/s"], Dimension::MassFlow, 1, 1),
    unit(&["kg/min"], Dimension::MassFlow, 1, 60),
    unit(&["kg/h"], Dimension::MassFlow, 1, 3_600),
    unit(&["t/h"], Dimension::MassFlow, 1_000, 3_600),
    unit(
        &["lb/h", "[lb_av]/h"],
        Dimension::MassFlow,
        POUND,
        360_000_000_000,
    ),
    unit(
        &["lb/min", "[lb_av]/min"],
        Dimension::MassFlow,
        POUND,
        6_000_000_000,
    ),
    unit(&["mg"], Dimension::Mass, 1, 1_000_000),
    unit(&["g"], Dimension::Mass, 1, 1_000),
    unit(&["kg"], Dimension::Mass, 1, 1),
    unit(&["t"], Dimension::Mass, 1_000, 1),
    unit(&["oz", "[oz_av]"], Dimension::Mass, POUND, 1_600_000_000),
    unit(&["lb", "[lb_av]"], Dimension::Mass, POUND, 100_000_000),
    unit(&["mL", "ml"], Dimension::Volume, 1, 1_000_000),
    unit(&["L", "l"], Dimension::Volume, 1, 1_000),
    unit(&["hL", "hl"], Dimension::Volume, 1, 10),
    unit(&["m3"], Dimension::Volume, 1, 1),
    unit(
        &["floz", "[foz_us]"],
        Dimension::Volume,
        GALLON,
        128_000_000_000_000,
    ),
    unit(&["gal", "[gal_us]"], Dimension::Volume, GALLON, 1_000_000_000_000),
    unit(&["um", "µm"], Dimension::Length, 1, 1_000_000),
    unit(&["mm"], Dimension::Length, 1, 1_000),
    unit(&["cm"], Dimension::Length, 1, 100),
    unit(&["m"], Dimension::Length, 1, 1),
    unit(&["km"], Dimension::Length, 1_000, 1),
    unit(&["in", "[in_i]"], Dimension::Length, 254, 10_000),
    unit(&["ft", "[ft_i]"], Dimension::Length, 3_048, 10_000),
    unit(&["S/m"], Dimension::Conductivity, 1, 1),
    unit(&["mS/m"], Dimension::Conductivity, 1, 1_000),
    unit(&["mS/cm"], Dimension::Conductivity, 1, 10),
    unit(&["uS/cm", "µS/cm"], Dimension::Conductivity, 1, 10_000),
    unit(&["W"], Dimension::Power, 1, 1),
    unit(&["kW"], Dimension::Power, 1_000, 1),
    unit(&["MW"], Dimension::Power, 1_000_000, 1),
    unit(
        &["hp", "[HP]"],
        Dimension::Power,
        37_284_993_579_113_511,
        50_000_000_000_000,
    ),
    unit(&["J"], Dimension::Energy, 1, 1),
    unit(&["kJ"], Dimension::Energy, 1_000, 1),
    unit(&["MJ"], Dimension::Energy, 1_000_000, 1),
    unit(&["Wh", "W.h"], Dimension::Energy, 3_600, 1),
    unit(&["kWh", "kW.h"], Dimension::Energy, 3_600_000, 1),
    unit(&["MWh", "MW.h"], Dimension::Energy, 3_600_000_000, 1),
    unit(&["m/s"], Dimension::Speed, 1, 1),
    unit(&["m/min"], Dimension::Speed, 1, 60),
    unit(&["mm/s"], Dimension::Speed, 1, 1_000),
    unit(&["km/h"], Dimension::Speed, 1_000, 3_600),
    unit(&["ft/min", "[ft_i]/min"], Dimension::Speed, 3_048, 600_000),
    unit(&["Hz", "1/s"], Dimension::Frequency, 1, 1),
    unit(&["rpm", "1/min"], Dimension::Frequency, 1, 60),
    unit(&["1/h"], Dimension::Frequency, 1, 3_600),
    unit(&["ms"], Dimension::Time, 1, 1_000),
    unit(&["s"], Dimension::Time, 1, 1),
    unit(&["min"], Dimension::Time, 60, 1),
    unit(&["h"], Dimension::Time, 3_600, 1),
    unit(&["d"], Dimension::Time, 86_400, 1),
    unit(&["1"], Dimension::Ratio, 1, 1),
    unit(&["%"], Dimension::Ratio, 1, 100),
    unit(&["ppm", "[ppm]"], Dimension::Ratio, 1, 1_000_000),
    unit(&["ppb", "[ppb]"], Dimension::Ratio, 1, 1_000_000_000),
];

fn find(name: &str) -> Result<&'static Unit, UnitError> {
    UNITS
        .iter()
        .find(|unit| unit.names.contains(&name))
        .ok_or_else(|| UnitError::Unknown(name.to_owned()))
}

/// What a unit measures.
///
/// # Errors
/// [`UnitError::Unknown`].
pub fn dimension(name: &str) -> Result<Dimension, UnitError> {
    find(name).map(|unit| unit.dimension)
}

fn known_names() -> String {
    let names: Vec<&str> = UNITS.iter().map(|unit| unit.names[0]).collect();
    names.join(", ")
}

fn names_of(dimension: Dimension) -> String {
    let units = UNITS.iter().filter(|unit| unit.dimension == dimension);
    let names: Vec<&str> = units.map(|unit| unit.names[0]).collect();
    names.join(", ")
}

/// How a value gets from one unit to another.
///
/// ```
/// use protocol::unit::Conversion;
/// let to_celsius = Conversion::between("degF", "degC").unwrap();
/// assert_eq!(to_celsius.convert(161.6), 72.0);
/// assert!(Conversion::between("degF", "kPa").is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversion {
    numerator: Wide,
    offset: Wide,
    denominator: Wide,
    is_identity: bool,
}

impl Conversion {
    /// The conversion from a value in `from` to a value in `to`.
    ///
    /// # Errors
    /// [`UnitError`] for a unit that is not in the table, and for units of different dimensions.
    pub fn between(from: &str, to: &str) -> Result<Self, UnitError> {
        let (source, target) = (find(from)?, find(to)?);
        if source.dimension != target.dimension {
            return Err(UnitError::Incompatible {
                from: from.to_owned(),
                from_dimension: source.dimension,
                to: to.to_owned(),
                to_dimension: target.dimension,
            });
        }
        let (numerator, offset, denominator) = terms(source, target);
        Ok(Self {
            numerator: Wide::from_integer(numerator),
            offset: Wide::from_integer(offset),
            denominator: Wide::from_integer(denominator),
            is_identity: numerator == denominator && offset == 0,
        })
    }

    /// The double nearest to the exact result, for values between 1e-290 and 1e290 in size. What is not finite stays
    /// what it is; a result beyond the doubles is infinite, and so never a number that it is not.
    pub fn convert(&self, value: f64) -> f64 {
        // Zero keeps its sign where no offset says otherwise.
        let is_kept = self.is_identity || !value.is_finite() || (value == 0.0 && self.offset.high == 0.0);
        if is_kept {
            return value;
        }
        let product = self.numerator.times(value);
        if !product.high.is_finite() {
            return value / self.denominator.high * self.numerator.high;
        }
        product.plus(self.offset).over(self.denominator)
    }
}

/// `value' = (value × numerator + offset) / denominator`, in integers without a common factor.
fn terms(source: &Unit, target: &Unit) -> (i128, i128, i128) {
    let (times, over) = (source.factor, target.factor);
    let (add, take) = (source.offset, target.offset);
    let offset = (add.0 * take.1 - take.0 * add.1, add.1 * take.1);
    let numerator = times.0 * over.1 * offset.1;
    let denominator = times.1 * over.0 * offset.1;
    let offset = offset.0 * times.1 * over.1;
    let common = gcd(gcd(numerator, denominator), offset.abs());
    (numerator / common, offset / common, denominator / common)
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// An unevaluated sum of two doubles: 106 bits of mantissa (Dekker 1971; Shewchuk 1997).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wide {
    high: f64,
    low: f64,
}

impl Wide {
    /// Exact below 2^106.
    fn from_integer(integer: i128) -> Self {
        let high = integer as f64;
        let low = (integer - high as i128) as f64;
        Self { high, low }
    }

    fn times(self, value: f64) -> Self {
        let high = value * self.high;
        let low = value.mul_add(self.high, -high) + value * self.low;
        Self { high, low }
    }

    fn plus(self, other: Self) -> Self {
        let high = self.high + other.high;
        let back = high - self.high;
        let lost = (self.high - (high - back)) + (other.high - back);
        Self {
            high,
            low: lost + self.low + other.low,
        }
    }

    fn over(self, divisor: Self) -> f64 {
        let quotient = (self.high + self.low) / divisor.high;
        let rest = (-quotient).mul_add(divisor.high, self.high) + self.low - quotient * divisor.low;
        quotient + rest / divisor.high
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "conversions are exact to the last digit")]
mod tests {
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
}
