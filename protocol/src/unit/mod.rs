//! What does a unit mean, and how does a value get from one unit to another? The units of a food plant by their
//! UCUM names (and the plainer ones that people write), with exact factors.
//!
//! Factors are fractions of integers and a value is converted in twice the precision of a double, so the result is
//! the double nearest to the exact one (within one unit in the last place; shown against integer arithmetic).

mod table;

use serde::{Deserialize, Serialize};

use self::table::{UNITS, Unit};

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
mod tests;
