//! What reading does a data value make? Pure.

use opcua::types::{DataValue, DateTime, Variant};
use protocol::{Micros, Quality, Reading, reading::Alias};

/// The InfoType DataValue together with the Overflow bit (Part 4 §7.39.1): the server's queue was full, and samples
/// before this value are lost.
const OVERFLOW: u32 = 0x0480;

/// Whether the server lost samples of this node before this value.
pub fn has_overflowed(value: &DataValue) -> bool {
    value
        .status
        .is_some_and(|status| status.bits() & OVERFLOW == OVERFLOW)
}

/// A reading from what the server sent. Its time is the source's; the server's, then the receive time, where
/// the source gives none. It stands as it was given, however far from the agent's own clock: `shifted_us` is by how
/// much the library moved it, and is taken back.
pub fn reading(tag: Alias, value: &DataValue, shifted_us: Micros, received_us: Micros) -> Reading {
    let time_us = value
        .source_timestamp
        .as_ref()
        .and_then(|time| micros(time, shifted_us))
        .or_else(|| {
            let time = value.server_timestamp.as_ref()?;
            micros(time, shifted_us)
        })
        .unwrap_or(received_us);
    let quality = value
        .status
        .map_or(Quality::GOOD, |status| Quality::from_opcua(status.bits()));
    if quality.is_bad() {
        return Reading::bad(tag, time_us, quality);
    }
    match value.value.as_ref().map(number) {
        Some(Ok((value, is_exact))) => {
            let rounded = quality.is_good() && !is_exact;
            Reading::new(
                tag,
                time_us,
                value,
                if rounded { Quality::UNCERTAIN } else { quality },
            )
        }
        Some(Err(reason)) => Reading::bad(tag, time_us, reason),
        None => Reading::bad(tag, time_us, Quality::BAD),
    }
}

fn micros(time: &DateTime, shifted_us: Micros) -> Option<Micros> {
    /// 1601-01-02: a null time is 1601-01-01, no time at all.
    const NULL_MAX_US: Micros = -11_644_387_200_000_000;
    let time_us = time.as_chrono().timestamp_micros().saturating_add(shifted_us);
    (time_us > NULL_MAX_US).then_some(time_us)
}

/// The number a variant holds and whether an `f64` holds it exactly.
fn number(value: &Variant) -> Result<(f64, bool), Quality> {
    const EXACT_MAX: u64 = 1 << 53;
    match value {
        Variant::Boolean(value) => Ok((f64::from(u8::from(*value)), true)),
        Variant::SByte(value) => Ok((f64::from(*value), true)),
        Variant::Byte(value) => Ok((f64::from(*value), true)),
        Variant::Int16(value) => Ok((f64::from(*value), true)),
        Variant::UInt16(value) => Ok((f64::from(*value), true)),
        Variant::Int32(value) => Ok((f64::from(*value), true)),
        Variant::UInt32(value) => Ok((f64::from(*value), true)),
        Variant::Int64(value) => Ok((*value as f64, value.unsigned_abs() <= EXACT_MAX)),
        Variant::UInt64(value) => Ok((*value as f64, *value <= EXACT_MAX)),
        Variant::Float(value) => Ok((f64::from(*value), true)),
        Variant::Double(value) => Ok((*value, true)),
        Variant::Empty => Err(Quality::BAD),
        _ => Err(Quality::BAD_TYPE),
    }
}

#[cfg(test)]
mod tests {
    use opcua::types::StatusCode;

    use super::*;

    fn data(value: impl Into<Variant>, status: StatusCode) -> DataValue {
        DataValue {
            value: Some(value.into()),
            status: Some(status),
            source_timestamp: Some(DateTime::ymd_hms(2026, 3, 1, 12, 0, 0)),
            ..DataValue::default()
        }
    }

    #[test]
    fn the_time_is_the_sources() {
        let reading = reading(Alias(7), &data(80.5, StatusCode::Good), 0, 5);
        assert_eq!(reading.time_us, 1_772_366_400_000_000);
        assert_eq!((reading.tag, reading.value()), (Alias(7), Some(80.5)));
    }

    #[test]
    fn a_value_without_any_time_has_the_receive_time() {
        let mut value = data(1i32, StatusCode::Good);
        value.source_timestamp = None;
        assert_eq!(reading(Alias(0), &value, 0, 42).time_us, 42);
        value.source_timestamp = Some(DateTime::null());
        assert_eq!(reading(Alias(0), &value, 0, 42).time_us, 42);
    }

    #[test]
    fn a_bad_status_hides_the_number_and_keeps_the_reason() {
        let reading = reading(Alias(0), &data(80.5, StatusCode::BadSensorFailure), 0, 0);
        assert_eq!(
            (reading.quality, reading.value()),
            (Quality::BAD_SENSOR_FAILURE, None)
        );
    }

    #[test]
    fn what_is_no_number_is_bad() {
        assert_eq!(
            reading(Alias(0), &data("hot", StatusCode::Good), 0, 0).quality,
            Quality::BAD_TYPE
        );
        assert_eq!(
            reading(Alias(0), &data(f64::NAN, StatusCode::Good), 0, 0).quality,
            Quality::BAD_OUT_OF_RANGE
        );
        assert_eq!(
            reading(Alias(0), &data(u64::MAX, StatusCode::Good), 0, 0).quality,
            Quality::UNCERTAIN
        );
    }

    #[test]
    fn t18_a_clock_ten_minutes_off_leaves_the_source_time_as_it_was_given() {
        let skewed = reading(Alias(7), &data(80.5, StatusCode::Good), -600_000_000, 5);
        assert_eq!(skewed.time_us, 1_772_366_400_000_000 - 600_000_000);
    }

    #[test]
    fn the_servers_time_stands_in_for_a_source_time_that_is_null() {
        let mut value = data(1i32, StatusCode::Good);
        value.server_timestamp = value.source_timestamp.replace(DateTime::null());
        assert_eq!(reading(Alias(0), &value, 0, 42).time_us, 1_772_366_400_000_000);
    }

    #[test]
    fn an_overflow_is_seen_only_where_the_info_bits_are_those_of_a_value() {
        let with = |bits: u32| has_overflowed(&data(1.0, StatusCode::from(bits)));
        assert!(with(0x0000_0480) && with(0x4000_0480));
        assert!(!with(0x0000_0080) && !with(0x0000_0400) && !with(0));
    }
}
