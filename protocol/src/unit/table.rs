//! Which units are there, and how much is each of them? Exact, as fractions of integers.

use super::Dimension;

pub(super) type Fraction = (i128, i128);

/// `SI value = value × factor + offset`.
pub(super) struct Unit {
    pub names: &'static [&'static str],
    pub dimension: Dimension,
    pub factor: Fraction,
    pub offset: Fraction,
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
pub(super) const UNITS: &[Unit] = &[
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
