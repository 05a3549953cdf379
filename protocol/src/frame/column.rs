//! How do readings become few bytes? Tags that share their times share one time column; times are
//! delta-of-delta, values are scaled integers where that is exact and 64-bit floats (pco) where not.
//!
//! ```text
//! group   times    zigzag varints: first time, first step, then changes of step
//!         aliases  zigzag varints: differences
//!         quality  runs (count, code) over all tags × times, tag by tag
//!         digits   one byte a tag: value = integer / 10^digits, or 255 = float
//!         integers zigzag varints: differences within a tag, tags one after the other
//!         floats   all float values, tag after tag: pco chunk or little-endian f64
//! ```
//! A bad reading has no value in any column. Everything is lossless to the bit.

use serde::{Deserialize, Serialize};

use crate::{
    envelope::DecodeError,
    quality::Quality,
    reading::{Alias, Micros, Reading},
};

/// Marks a tag whose values travel as floats.
const FLOAT: u8 = 255;
/// Finest decimal fraction tried before giving up on scaled integers.
const DIGITS_MAX: u8 = 6;
/// Integers beyond 2^53 are no exact f64.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;
/// Below this pco's header outweighs its gain.
const PCO_VALUES_MIN: usize = 24;

/// Tags that were read at the same times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Group {
    times: Vec<i64>,
    aliases: Vec<i64>,
    quality: Vec<(u32, u16)>,
    digits: Vec<u8>,
    integers: Vec<i64>,
    floats: Floats,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Floats {
    Plain(Vec<f64>),
    Pco(u32, Vec<u8>),
}

impl Default for Floats {
    fn default() -> Self {
        Self::Plain(Vec::new())
    }
}

/// Packs readings into groups of tags with equal times.
pub(super) fn pack(readings: &[Reading]) -> Vec<Group> {
    let mut series: std::collections::BTreeMap<Alias, Vec<&Reading>> = std::collections::BTreeMap::new();
    for reading in readings {
        series.entry(reading.tag).or_default().push(reading);
    }
    let mut groups: std::collections::BTreeMap<Vec<Micros>, Vec<Vec<&Reading>>> =
        std::collections::BTreeMap::new();
    for (_, column) in series {
        groups
            .entry(column.iter().map(|reading| reading.time_us).collect())
            .or_default()
            .push(column);
    }
    groups
        .into_iter()
        .map(|(times, columns)| pack_group(&times, &columns))
        .collect()
}

fn pack_group(times: &[Micros], columns: &[Vec<&Reading>]) -> Group {
    let mut group = Group {
        times: second_differences(times),
        ..Group::default()
    };
    let (mut alias_before, mut floats) = (0i64, Vec::new());
    for column in columns {
        let alias = column.first().map_or(0, |reading| i64::from(reading.tag.0));
        group.aliases.push(alias - alias_before);
        alias_before = alias;
        for reading in column {
            push_run(&mut group.quality, reading.quality.code());
        }
        let values: Vec<f64> = column.iter().filter_map(|reading| reading.value()).collect();
        if let Some((digits, integers)) = as_integers(&values) {
            group.digits.push(digits);
            group.integers.extend(integers);
        } else {
            group.digits.push(FLOAT);
            floats.extend(values);
        }
    }
    group.floats = pack_floats(floats);
    group
}

fn pack_floats(values: Vec<f64>) -> Floats {
    if values.len() >= PCO_VALUES_MIN
        && let Ok(bytes) = pco::standalone::simple_compress(&values, &pco::ChunkConfig::default())
        && bytes.len() < values.len() * 8
    {
        return Floats::Pco(values.len() as u32, bytes);
    }
    Floats::Plain(values)
}

/// The fewest decimal digits at which every value is exactly an integer over a power of ten, with the
/// integers as differences; `None` when there are none.
fn as_integers(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let digits =
        (0..=DIGITS_MAX).find(|digits| values.iter().all(|value| scaled(*value, *digits).is_some()))?;
    let mut before = 0i64;
    let differences = values.iter().map(|value| {
        let integer = scaled(*value, digits).unwrap_or_default();
        let difference = integer.wrapping_sub(before);
        before = integer;
        difference
    });
    Some((digits, differences.collect()))
}

fn scaled(value: f64, digits: u8) -> Option<i64> {
    let rounded = (value * ten_to(digits)).round();
    let integer = rounded as i64;
    // Compared as the reader will compute it, so that -0.0 is not taken for an integer.
    let exact = rounded.abs() < INTEGER_MAX && (integer as f64 / ten_to(digits)).to_bits() == value.to_bits();
    exact.then_some(integer)
}

fn ten_to(digits: u8) -> f64 {
    10f64.powi(i32::from(digits))
}

fn second_differences(times: &[Micros]) -> Vec<i64> {
    let (mut time_before, mut step_before) = (0i64, 0i64);
    let differences = times.iter().map(|time| {
        let step = time.wrapping_sub(time_before);
        let difference = step.wrapping_sub(step_before);
        (time_before, step_before) = (*time, step);
        difference
    });
    differences.collect()
}

fn push_run(runs: &mut Vec<(u32, u16)>, code: u16) {
    match runs.last_mut() {
        Some((count, last)) if *last == code => *count += 1,
        _ => runs.push((1, code)),
    }
}

/// Unpacks all groups, refusing more than `readings_max` readings before allocating for them.
pub(super) fn unpack(groups: &[Group], readings_max: usize) -> Result<Vec<Reading>, DecodeError> {
    let total = groups.iter().try_fold(0usize, |sum, group| {
        sum.checked_add(group.times.len().checked_mul(group.aliases.len())?)
            .filter(|sum| *sum <= readings_max)
    });
    let total = total.ok_or(DecodeError::TooLarge {
        bytes: usize::MAX,
        limit: readings_max,
    })?;
    let mut readings = Vec::with_capacity(total);
    for group in groups {
        unpack_group(group, &mut readings)?;
    }
    Ok(readings)
}

fn unpack_group(group: &Group, out: &mut Vec<Reading>) -> Result<(), DecodeError> {
    let times = running_times(&group.times);
    let qualities = expand_runs(&group.quality, times.len() * group.aliases.len())?;
    if group.digits.len() != group.aliases.len() {
        return Err(DecodeError::Malformed {
            part: "digits column",
        });
    }
    let floats = unpack_floats(&group.floats, qualities.len())?;
    let (mut floats, mut integers) = (floats.iter().copied(), group.integers.iter().copied());
    let mut qualities = qualities.into_iter();
    let mut alias = 0i64;
    for (difference, digits) in group.aliases.iter().zip(&group.digits) {
        alias = alias.wrapping_add(*difference);
        let tag = u32::try_from(alias)
            .map(Alias)
            .map_err(|_| DecodeError::Malformed { part: "alias column" })?;
        let mut integer = 0i64;
        for time_us in &times {
            let quality = qualities.next().ok_or(DecodeError::Malformed {
                part: "quality column",
            })?;
            out.push(if quality.is_bad() {
                Reading::bad(tag, *time_us, quality)
            } else {
                let value = next_value(*digits, &mut integer, &mut integers, &mut floats)?;
                Reading::new(tag, *time_us, value, quality)
            });
        }
    }
    if integers.next().is_some() || floats.next().is_some() {
        return Err(DecodeError::Malformed { part: "value column" });
    }
    Ok(())
}

fn next_value(
    digits: u8,
    integer: &mut i64,
    integers: &mut impl Iterator<Item = i64>,
    floats: &mut impl Iterator<Item = f64>,
) -> Result<f64, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed { part: "value column" };
    match digits {
        FLOAT => floats.next().ok_or(MALFORMED),
        0..=DIGITS_MAX => {
            *integer = integer.wrapping_add(integers.next().ok_or(MALFORMED)?);
            Ok(*integer as f64 / ten_to(digits))
        }
        _ => Err(DecodeError::Malformed {
            part: "digits column",
        }),
    }
}

fn running_times(second_differences: &[i64]) -> Vec<Micros> {
    let (mut time, mut step) = (0i64, 0i64);
    let times = second_differences.iter().map(|difference| {
        step = step.wrapping_add(*difference);
        time = time.wrapping_add(step);
        time
    });
    times.collect()
}

fn expand_runs(runs: &[(u32, u16)], expected: usize) -> Result<Vec<Quality>, DecodeError> {
    let total: u64 = runs.iter().map(|(count, _)| u64::from(*count)).sum();
    if total != expected as u64 {
        return Err(DecodeError::Malformed {
            part: "quality column",
        });
    }
    let expanded = runs
        .iter()
        .flat_map(|(count, code)| std::iter::repeat_n(Quality::from_code(*code), *count as usize));
    Ok(expanded.collect())
}

fn unpack_floats(floats: &Floats, values_max: usize) -> Result<Vec<f64>, DecodeError> {
    match floats {
        Floats::Plain(values) => Ok(values.clone()),
        Floats::Pco(count, bytes) => {
            let count = *count as usize;
            if count > values_max {
                return Err(DecodeError::Malformed { part: "float column" });
            }
            let mut values = vec![0f64; count];
            match pco::standalone::simple_decompress_into(bytes, &mut values) {
                Ok(progress) if progress.finished && progress.n_processed == count => Ok(values),
                _ => Err(DecodeError::Malformed { part: "float column" }),
            }
        }
    }
}
